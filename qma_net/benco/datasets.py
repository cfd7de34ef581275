"""Training sets of synthetic images and of crops at original resolution, for BenCo's data loader.

BenCo's BalancedDataset reads a protocol such as ``[["SynthDataset", "FILE.yaml"]]`` and draws the
same number of random images from each dataset per epoch. BenCo's augmentations rescale, blur and
recompress images, which removes the traces that a model should learn. Both datasets therefore
use only flips and rotations by multiples of 90 degrees, and return images of exactly
``--image_size``.
"""

import os
import random
from typing import Any

import albumentations
import cv2
import numpy as np
from albumentations.pytorch import ToTensorV2
from IMDLBenCo.datasets.abstract_dataset import AbstractDataset
from IMDLBenCo.datasets.iml_datasets import JsonDataset, ManiDataset
from IMDLBenCo.registry import DATASETS
from torch.utils.data import get_worker_info

from ..synth.curriculum import ImageSource
from ..synth.recipe import AUTHENTIC

IMAGES_PER_EPOCH = 100_000  # The length of the dataset, from which BenCo draws random images.
MAX_CROPS = 10  # Attempts to draw a crop that contains tampered pixels.


class _OwnAugmentation(AbstractDataset):
    """A BenCo dataset that ignores BenCo's augmentations."""

    def __init__(self, path: str, *, common_transforms: Any = None, **options: Any):
        self.output_size = options.setdefault("output_size", (512, 512))
        super().__init__(path, **options)


@DATASETS.register_module()
class SynthDataset(_OwnAugmentation):
    """Synthetic manipulations, new ones in every epoch; see :mod:`qma_net.synth.curriculum`.

    An image depends only on the YAML file, the epoch and the image's index. The launcher sets the
    epoch (:meth:`set_epoch`); without it, every epoch draws from the same 100,000 images.

    Args:
        path: A YAML file with ``photos``, and optionally ``stage``, ``recipe``, ``labels``,
            ``seed`` and ``sizes``.
        output_size: (height, width) of the images; the two must be equal. Overrides the recipe,
            but not ``sizes`` in the file.

    Raises:
        SynthesisError: If the file is invalid or its photos cannot be used.
    """

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next images belong to, and their size."""
        self.epoch = epoch
        if self.source.sizes:
            self.output_size = self.source.size(epoch)
            # BenCo's transforms confuse height and width; these images already have the right size.
            self.post_transform = albumentations.Compose(
                [albumentations.Normalize(), ToTensorV2(transpose_mask=True)]
            )

    def _init_dataset_path(self, path: str) -> tuple[list[str], list[str]]:
        self.entry_path = path
        self.source = ImageSource.read(path, image_size=self.output_size[0])
        names = [f"{number:05d}" for number in range(IMAGES_PER_EPOCH)]
        return names, names

    def _get_image(self, index: int) -> tuple:
        if get_worker_info():  # There is one process per core, so OpenCV must not start threads.
            cv2.setNumThreads(1)
        data, mask, history = self.source.generate(self.epoch, index)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        name = f"{history['kind']}_{self.epoch}_{index:05d}"
        mask = np.repeat(mask[..., None], 3, axis=2)
        size = image.shape[1::-1]
        return image, mask, int(history["kind"] != AUTHENTIC), size, size, name, name


@DATASETS.register_module()
class NativeDataset(_OwnAugmentation):
    """Random crops of a dataset at original resolution, for training only.

    Half of the crops of a tampered image are drawn until they show part of the tampered region, but
    at most 10 times. Images that are smaller than a crop are padded by reflection at the right and
    at the bottom.

    Args:
        path: A folder with ``Tp/`` and ``Gt/``, or a list ``[[image, mask | "Negative"], ...]``.
        output_size: (height, width) of the crops.
    """

    def _init_dataset_path(self, path: str) -> tuple[list[str], list[str]]:
        kind = ManiDataset if os.path.isdir(path) else JsonDataset
        return kind._init_dataset_path(self, path)

    def _get_image(self, index: int) -> tuple:
        image, mask, label, *_, path, mask_path = super()._get_image(index)
        height, width = self.output_size
        below, right = max(0, height - image.shape[0]), max(0, width - image.shape[1])
        if below or right:
            image, mask = (
                cv2.copyMakeBorder(array, 0, below, 0, right, cv2.BORDER_REFLECT_101)
                for array in (image, mask)
            )
        must_show_tampering = label and random.random() < 0.5
        for _ in range(MAX_CROPS if must_show_tampering else 1):
            top = random.randint(0, image.shape[0] - height)
            left = random.randint(0, image.shape[1] - width)
            crop = np.s_[top : top + height, left : left + width]
            if mask[crop].mean() > 0:
                break
        image, mask = image[crop], mask[crop]
        turns, mirrored = random.randint(0, 3) if height == width else 0, random.random() < 0.5
        image, mask = (
            np.ascontiguousarray(np.rot90(array, turns)[:, :: -1 if mirrored else 1])
            for array in (image, mask)
        )
        label = int((mask.mean(axis=2) > 127.5).any())
        return image, mask, label, (width, height), (width, height), path, mask_path
