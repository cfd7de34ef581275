"""Published datasets: the entries of ``benco_configs/published_datasets.yaml``."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from ..core.files import config_path, read_yaml

if TYPE_CHECKING:
    import numpy as np

COPY_MOVE, SPLICE, REMOVAL, AI_GENERATED = "copy-move", "splice", "removal", "ai-generated"
TYPES = (COPY_MOVE, SPLICE, REMOVAL, AI_GENERATED)  # the columns of the paper's Tables 3 and 4
MAX_SIDE_RULES = {
    "training": "allowed: training resizes every image, so results stay comparable",
    "test": "affects results on this test set if any image is downscaled",
}
MAX_SIDE_RULES["further"] = MAX_SIDE_RULES["test"]


def channel_sum(mask: "np.ndarray") -> "np.ndarray":
    """Return the sum of the three channels, 0 to 765: uint8 ``(H, W, 3)`` to uint16 ``(H, W)``."""
    return mask[..., 0].astype("uint16") + mask[..., 1] + mask[..., 2]


def as_benco(mask: "np.ndarray") -> "np.ndarray":
    """Return the pixels that BenCo reads as tampered: uint8 ``(H, W, 3)`` to bool ``(H, W)``."""
    return channel_sum(mask) > 382  # 3 x 127.5 = 382.5


@dataclass(frozen=True, kw_only=True)
class PublishedDataset:
    """A published dataset, with the paper's image counts if the paper uses it.

    The comments in ``published_datasets.yaml`` document the fields.
    """

    name: str
    role: str
    tampered: int
    smallest: str = ""
    largest: str = ""
    where: str
    terms: str
    layout: str
    examples: tuple[str, ...]
    image: str
    mask: str
    authentic: str
    mask_rule: str
    rule: str
    unverified: tuple[str, ...]
    notes: tuple[str, ...] = ()
    known_faults: tuple[str, ...] = ()
    remedy: str = "use a corrected mask"
    or_match: tuple[str, ...] = ()
    table: str = ""
    parts: tuple[str, ...] = ()
    list_name: str = ""
    types: dict[str, str] = field(default_factory=dict)
    benco_side: int = 0
    verified_on: str = "a synthetic sample with this layout, not the archive itself"

    @property
    def in_paper(self) -> bool:
        """Whether the dataset is one of the paper's ten."""
        return self.role != "further"

    @property
    def published_count(self) -> str:
        """The number of tampered images and who states it: "the paper's 920"."""
        whose = "paper's" if self.in_paper else "published"
        return f"the {whose} {self.tampered}"

    def read_mask(self, mask: "np.ndarray") -> "np.ndarray":
        """Return the tampered pixels, bool ``(H, W)``, of a uint8 mask ``(H, W, 3)``.

        With the rule ``nonzero``, a mask may also be ``(H, W)`` and of any type.
        """
        if self.mask_rule == "nonzero":
            return (mask > 0) if mask.ndim == 2 else (mask > 0).any(axis=-1)
        if self.mask_rule == "green":
            return (mask[..., 1] > mask[..., 0]) & (mask[..., 1] > 120)
        tampered = as_benco(mask)
        return ~tampered if self.mask_rule == "black" else tampered

    def type_of(self, name: str, part: str = "") -> str | None:
        """Infer an image's manipulation type from its file name or subset; None if unknown."""
        if self.parts:
            return self.types.get(part)
        matches = (self.types[p] for p in self.types if re.search(p, name, re.IGNORECASE))
        return next(matches, None)

    def type_in_row(self, row: dict[str, str]) -> str | None:
        """Return the type marked in a row of ``table`` (lower-case columns), if exactly one is."""
        marked = [self.types[c] for c in self.types if row.get(c, "").upper() in ("Y", "TRUE")]
        return marked[0] if len(marked) == 1 else None

    def max_side_rule(self) -> str:
        """State whether ``data prepare --max-side`` changes results on this dataset."""
        rule = MAX_SIDE_RULES[self.role]
        if self.benco_side:
            side = self.benco_side
            rule += f"; BenCo's lists refer to a copy resized to a longer side of {side}"
            if self.role == "training":
                rule += ", also as a test set, where this affects results"
        return rule


def _read_datasets() -> dict[str, PublishedDataset]:
    path = config_path("published_datasets.yaml")
    datasets = {}
    for name, entry in cast(dict, read_yaml(path, "the published datasets")).items():
        fields: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()
        }
        datasets[name] = PublishedDataset(name=name, **fields)
    return datasets


ALL_DATASETS = _read_datasets()
DATASETS = {name: item for name, item in ALL_DATASETS.items() if item.in_paper}


def dataset_named(name: str) -> tuple[PublishedDataset | None, str]:
    """Find a dataset and its subset by name, ignoring case.

    The name may be that of a subset's list, such as ``sp_COCO_list``; the subset is ``""`` for a
    whole dataset. The dataset is None if no dataset has this name.
    """
    for dataset in ALL_DATASETS.values():
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
    """Format the facts about all published datasets for printing."""
    lines = []
    for item in ALL_DATASETS.values():
        role = item.role if item.in_paper else "test set that is not in the paper"
        source = "in the paper" if item.in_paper else "published"
        lines += [
            f"{item.name} ({role}, {item.tampered} tampered images {source})",
            f"  source: {item.where}",
            f"  terms: {item.terms}",
            f"  layout: {item.layout}",
            f"  tampered pixels: {item.rule}",
            f"  --max-side: {item.max_side_rule()}",
            f"  tested on: {item.verified_on}",
            *(f"  not verified: {line}" for line in item.unverified),
            *(f"  note: {line}" for line in item.notes),
        ]
    return "\n".join(lines)
