"""Facts about the paper's ten datasets, from ``benco_configs/published_datasets.yaml``."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from ..core.files import config_path, read_yaml

MINIATURE = "a miniature with this layout, not the archive itself"
COPY_MOVE, SPLICE, REMOVAL, AI_GENERATED = "copy-move", "splice", "removal", "ai-generated"
TYPES = (COPY_MOVE, SPLICE, REMOVAL, AI_GENERATED)  # the columns of the paper's Tables 3 and 4
MAX_SIDE_RULES = {
    "training": "allowed: training resizes every image, so results stay comparable",
    "test": "changes the results on this test set if it reduces any image",
}


def channel_sum(mask: np.ndarray) -> np.ndarray:
    """Return the sum of the three channels, 0 to 765: uint8 ``(H, W, 3)`` to uint16 ``(H, W)``."""
    return mask[..., 0].astype(np.uint16) + mask[..., 1] + mask[..., 2]


def as_benco(mask: np.ndarray) -> np.ndarray:
    """Return the pixels that BenCo reads as tampered: uint8 ``(H, W, 3)`` to bool ``(H, W)``."""
    return channel_sum(mask) > 382  # 3 x 127.5 = 382.5


def black_is_tampered(mask: np.ndarray) -> np.ndarray:
    """Return what BenCo reads as tampered in the negative: uint8 ``(H, W, 3)`` to bool."""
    return channel_sum(mask) < 383


def nonzero_is_tampered(mask: np.ndarray) -> np.ndarray:
    """Return the nonzero pixels of ``(H, W)`` of any type or of uint8 ``(H, W, 3)``."""
    return (mask > 0) if mask.ndim == 2 else (mask > 0).any(axis=-1)


def green_is_tampered(mask: np.ndarray) -> np.ndarray:
    """Return the green (200 or 255) pixels of a red and green JPEG, uint8 ``(H, W, 3)``."""
    return (mask[..., 1] > mask[..., 0]) & (mask[..., 1] > 120)


@dataclass(frozen=True)
class PublishedDataset:
    """One dataset as it is published and as the paper counts it.

    Images and masks are found by regular expressions, which ignore case and are matched with
    paths relative to the source. An image belongs to the mask with the same groups ``key`` and
    ``part``.

    Attributes:
        name: The paper's name.
        role: ``"training"`` or ``"test"``.
        tampered: Number of tampered images in the paper (Tables 3 and 4).
        smallest: Smallest resolution in the paper, width x height.
        largest: Largest resolution in the paper.
        where: Where it is published.
        terms: Its terms of use.
        layout: Its folders and file names, and the sources of this information.
        image: Pattern of tampered images; ``{quality}`` stands for the JPEG quality.
        mask: Pattern of masks.
        authentic: Pattern of authentic images, empty if there are none.
        read: Converts a mask to tampered pixels, bool ``(H, W)``.
        rule: What ``read`` does, in words.
        unverified: What nobody has checked on the files.
        notes: Known peculiarities.
        known_faults: Stems of images whose mask is known to have another size.
        remedy: What to do about these masks.
        or_match: Pattern that pairs the remaining images and masks, if the text that it matches
            is unique among them.
        table: End of the path of a CSV file that pairs images and masks instead of their names.
        parts: Subsets, each with a list that pairs images and masks.
        list_name: JSON list that is written next to ``Tp/``, one per ``{part}``.
        types: Maps to manipulation types: columns of ``table``, or ``parts``, or else patterns of
            image names. It is empty if nothing tells the types.
        benco_side: Long side in pixels of the reduced copy that BenCo's own lists name, or 0.
        verified_on: What the recipe was tested on.
    """

    name: str
    role: str
    tampered: int
    smallest: str
    largest: str
    where: str
    terms: str
    layout: str
    image: str
    mask: str
    authentic: str
    read: Callable[[np.ndarray], np.ndarray]
    rule: str
    unverified: tuple[str, ...]
    notes: tuple[str, ...] = ()
    known_faults: tuple[str, ...] = ()
    remedy: str = "use a corrected mask"
    or_match: str = ""
    table: str = ""
    parts: tuple[str, ...] = ()
    list_name: str = ""
    types: dict[str, str] = field(default_factory=dict)
    benco_side: int = 0
    verified_on: str = MINIATURE

    def type_of(self, name: str, part: str = "") -> str | None:
        """Return an image's manipulation type by its file name or subset, if these tell it."""
        if self.parts:
            return self.types.get(part)
        for pattern, manipulation in self.types.items():
            if re.search(pattern, name, re.IGNORECASE):
                return manipulation
        return None

    def type_in_row(self, row: dict[str, str]) -> str | None:
        """Return the type that a row of ``table`` (lower-case columns) marks, if it is just one."""
        marked = [
            manipulation
            for column, manipulation in self.types.items()
            if row.get(column, "").upper() in ("Y", "TRUE")
        ]
        return marked[0] if len(marked) == 1 else None

    def max_side_rule(self) -> str:
        """State whether ``data prepare --max-side`` changes results on this dataset."""
        rule = MAX_SIDE_RULES[self.role]
        if self.benco_side:
            rule += f"; BenCo's own lists name a copy with long side {self.benco_side}"
            if self.role == "training":
                rule += ", also as a test set, where it changes the results"
        return rule


MASK_RULES = {
    "white": as_benco,
    "black": black_is_tampered,
    "nonzero": nonzero_is_tampered,
    "green": green_is_tampered,
}


def _read_datasets() -> dict[str, PublishedDataset]:
    """Read ``published_datasets.yaml``."""
    path = config_path("published_datasets.yaml")
    datasets = {}
    for name, entry in cast(dict, read_yaml(path, "the published datasets")).items():
        facts = {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()}
        read = MASK_RULES[facts.pop("mask_rule")]
        datasets[name] = PublishedDataset(name=name, read=read, **facts)
    return datasets


DATASETS = _read_datasets()


def dataset_named(name: str) -> tuple[PublishedDataset | None, str]:
    """Find the dataset and the subset that a name refers to, ignoring case.

    Args:
        name: Name of a dataset or of a subset's list, such as ``sp_COCO_list``.

    Returns:
        The dataset, None if no dataset has this name; and its subset, ``""`` for the whole.
    """
    for dataset in DATASETS.values():
        if name.lower() == dataset.name.lower():
            return dataset, ""
        for part in dataset.parts:
            if name.lower() == dataset.list_name.format(part=part).lower():
                return dataset, part
    return None, ""


def count_types(types: Iterable[str | None]) -> dict[str, int] | None:
    """Count the images of each type in :data:`TYPES`; return None if any type is unknown."""
    counts = Counter(types)
    return None if None in counts else {name: counts[name] for name in TYPES}


def published_facts() -> str:
    """Format the table for printing."""
    lines = []
    for item in DATASETS.values():
        lines += [
            f"{item.name} ({item.role}, {item.tampered} tampered images in the paper)",
            f"  published: {item.where}",
            f"  terms: {item.terms}",
            f"  layout: {item.layout}",
            f"  tampered pixels: {item.rule}",
            f"  --max-side: {item.max_side_rule()}",
            f"  tested on: {item.verified_on}",
            *(f"  not verified: {line}" for line in item.unverified),
            *(f"  note: {line}" for line in item.notes),
        ]
    return "\n".join(lines)
