"""A test set as BenCo's own datasets read it."""

import hashlib
import os
from collections.abc import Callable

import torch

from ..data.listing import NEGATIVE, Listing
from ..modeling.config import EDGE_WIDTH
from .attacks import Attack
from .settings import Settings


class BenCoImages(torch.utils.data.Dataset):
    """A test set as BenCo's own dataset reads it, with the index of every image.

    Args:
        listing: the test set.
        settings: how the images reach the model.
        post_function: the model's hook among BenCo's ``POSTFUNCS``, or None: it changes what
            BenCo reads, in place.
        attack: done before resizing, or None. Everything random in it is seeded by its name, its
            level and the image's index.
        with_edges: with BenCo's edge masks too, of the width in its own scripts.
    """

    def __init__(
        self,
        listing: Listing,
        settings: Settings,
        post_function: Callable | None = None,
        attack: Attack | None = None,
        *,
        with_edges: bool = False,
    ):
        import albumentations
        from albumentations.pytorch import ToTensorV2
        from IMDLBenCo.datasets import JsonDataset, ManiDataset

        self.attack = attack
        self.images = (ManiDataset if listing.is_folder else JsonDataset)(
            str(listing.path),
            is_padding=settings.fit != "resize",
            is_resizing=settings.fit == "resize",
            output_size=(settings.image_size, settings.image_size),
            common_transforms=attack.transform if attack else None,
            edge_width=EDGE_WIDTH if with_edges else None,
            post_funcs=post_function,
        )
        if settings.fit == "native":  # BenCo knows only squares: its own steps without the square
            self.images.post_transform = albumentations.Compose(
                [albumentations.Normalize(), ToTensorV2(transpose_mask=True)]
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        if self.attack:
            self.attack.seed(index)
        return {**self.images[index], "index": index}

    def path(self, index: int) -> str:
        """Where the photograph is, as the test set names it."""
        return str(self.images.tp_path[index])

    def label(self, index: int) -> int:
        """1 for an image listed as tampered; BenCo's own follows the mask when attacked."""
        return int(self.images.gt_path[index] != NEGATIVE)

    def fingerprint(self) -> str:
        """SHA-256 of all paths and file sizes: another set under the same name has another."""
        digest = hashlib.sha256()
        for path in (*self.images.tp_path, *self.images.gt_path):
            size = "" if path == NEGATIVE else os.path.getsize(path)
            digest.update(f"{path} {size}\n".encode())
        return digest.hexdigest()
