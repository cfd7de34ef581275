"""Datasets for BenCo's loader, by their names in a protocol: ``[["SynthDataset", "FILE.yaml"]]``.

BenCo's BalancedDataset, which reads a protocol, takes any class of its registry by name and draws
as many random images of each an epoch. It hands over augmentations that rescale, blur and save
again; these two leave them out but for flips and quarter turns, as what a model is to see are
the traces that such steps wipe out. Both give images of exactly ``--image_size``, so that neither
``--if_resizing`` nor ``--if_padding`` changes a pixel of them.
"""

import os
import random

import cv2
import numpy as np
from IMDLBenCo.datasets.abstract_dataset import AbstractDataset
from IMDLBenCo.datasets.iml_datasets import JsonDataset, ManiDataset
from IMDLBenCo.registry import DATASETS
from torch.utils.data import get_worker_info

from ..synth.curriculum import Source
from ..synth.recipe import UNTOUCHED

NUMBERS = 100_000  # images of an epoch that BenCo draws from
TRIES = 10  # crops that are drawn for one that shows what was manipulated


@DATASETS.register_module()
class SynthDataset(AbstractDataset):
    """Manipulated photographs, made fresh for every epoch; see :mod:`qma_net.synth.curriculum`.

    Image ``i`` of an epoch depends on the file, the epoch and ``i`` alone. The launcher tells the
    epoch (:meth:`set_epoch`); without it, every epoch draws from the same 100,000 images.

    Args:
        path: a YAML file with ``photos``, and ``stage``, ``recipe``, ``labels`` and ``seed``.
        output_size: (height, width), the same twice: of the images, in place of the recipe's.
        common_transforms: not used; the recipe says what is done to an image.
        options: BenCo's others.

    Raises:
        SynthesisError: where images cannot be made as the file says.
    """

    def __init__(self, path, *, output_size=(512, 512), common_transforms=None, **options):
        self.source = Source.read(path, image_size=output_size[0])
        self.epoch = 0
        super().__init__(path, output_size=output_size, **options)

    def set_epoch(self, epoch: int) -> None:
        """Which images come next."""
        self.epoch = epoch

    def _init_dataset_path(self, path):
        self.entry_path = path
        names = [f"{number:05d}" for number in range(NUMBERS)]
        return names, names

    def _get_image(self, index):
        if get_worker_info():  # there is one for each core, and OpenCV starts threads in each
            cv2.setNumThreads(1)
        data, mask, history = self.source.make(self.epoch, index)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        name = f"{history['kind']}_{self.epoch}_{index:05d}"
        mask = np.repeat(mask[..., None], 3, axis=2)
        size = image.shape[1::-1]
        return image, mask, int(history["kind"] != UNTOUCHED), size, size, name, name


@DATASETS.register_module()
class NativeDataset(AbstractDataset):
    """A folder or a list of BenCo's, in random crops of ``--image_size`` at their own resolution.

    Half of the crops of a manipulated image show some of what was manipulated; what is smaller
    than a crop is mirrored at its right and bottom. For training only.

    Args:
        path: a folder with ``Tp/`` and ``Gt/``, or a list ``[[image, mask | "Negative"], ...]``.
        output_size: (height, width) of the crops.
        common_transforms: not used: they rescale.
        options: BenCo's others.
    """

    def __init__(self, path, *, output_size=(512, 512), common_transforms=None, **options):
        super().__init__(path, output_size=output_size, **options)

    def _init_dataset_path(self, path):
        kind = ManiDataset if os.path.isdir(path) else JsonDataset
        found = kind._init_dataset_path(self, path)
        self.entry_path = path
        return found

    def _get_image(self, index):
        image, mask, label, *_, path, mask_path = super()._get_image(index)
        height, width = self.output_size
        below, right = max(0, height - image.shape[0]), max(0, width - image.shape[1])
        if below or right:
            image, mask = (
                cv2.copyMakeBorder(one, 0, below, 0, right, cv2.BORDER_REFLECT_101)
                for one in (image, mask)
            )
        wanted = label and random.random() < 0.5
        for _ in range(TRIES if wanted else 1):
            top = random.randint(0, image.shape[0] - height)
            left = random.randint(0, image.shape[1] - width)
            place = np.s_[top : top + height, left : left + width]
            if mask[place].mean() > 0:
                break
        image, mask = image[place], mask[place]
        turns, mirrored = random.randint(0, 3) if height == width else 0, random.random() < 0.5
        image, mask = (
            np.ascontiguousarray(np.rot90(one, turns)[:, :: -1 if mirrored else 1])
            for one in (image, mask)
        )
        label = int((mask.mean(axis=2) > 127.5).any())
        return image, mask, label, (width, height), (width, height), path, mask_path
