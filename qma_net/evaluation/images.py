"""Test sets, read with BenCo's own dataset classes."""

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from ..core.files import sha256
from ..data.listing import NEGATIVE, Listing
from ..modeling.config import EDGE_WIDTH
from .attacks import Attack
from .settings import Settings


@dataclass(frozen=True)
class TestSet:
    """A test set, with a checksum of its files and the sizes of its images.

    Attributes:
        listing: The images and masks.
        content_sha256: SHA-256 of the content of all files, which detects a replaced file.
        pixels: Number of pixels of each image, by path; used only for progress bars.
    """

    __test__ = False  # It is not a test, whatever pytest thinks of its name.

    listing: Listing
    content_sha256: str = ""
    pixels: Mapping[str, int] = field(default_factory=dict)


def content_sha256(listing: Listing) -> str:
    """Return the SHA-256 of the content of all images and masks of a test set."""
    files = [file for pair in listing.pairs for file in (pair.image, pair.mask) if file]
    with ThreadPoolExecutor() as threads:  # hashlib releases Python's global lock.
        return hashlib.sha256("".join(threads.map(sha256, files)).encode()).hexdigest()


class BenCoImages(torch.utils.data.Dataset):
    """A test set as read by BenCo's own dataset; every item also contains its ``index``.

    Args:
        listing: The test set.
        settings: How the images are fed to the model.
        post_function: The model's function in BenCo's ``POSTFUNCS``, or None.
        attack: An attack to apply before resizing, or None; it is seeded for every image.
        with_edges: Whether to add edge masks, with the width used by BenCo's scripts.
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
        if settings.fit == "native":
            # BenCo only resizes or pads to squares. These are its remaining steps.
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
        """Return the path of an image as listed in the test set."""
        return str(self.images.tp_path[index])

    def label(self, index: int) -> int:
        """Return 1 for an image that is listed as tampered, else 0.

        BenCo's own label depends on the mask after the attack.
        """
        return int(self.images.gt_path[index] != NEGATIVE)

    def fingerprint(self) -> str:
        """Return the SHA-256 of all paths and file sizes, which detects a changed test set."""
        digest = hashlib.sha256()
        for path in (*self.images.tp_path, *self.images.gt_path):
            size = "" if path == NEGATIVE else os.path.getsize(path)
            digest.update(os.fsencode(f"{path} {size}\n"))
        return digest.hexdigest()
