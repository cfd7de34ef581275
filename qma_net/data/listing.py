"""Datasets as BenCo reads them: the image-mask pairs behind a folder or a JSON file.

BenCo 0.1.45 accepts four forms: a folder with ``Tp/`` and ``Gt/`` (ManiDataset), a list
``[[image, mask | "Negative"], ...]`` (JsonDataset), a protocol ``[["ManiDataset" | "JsonDataset",
path], ...]`` (BalancedDataset), and test sets ``{name: path}``. No image is opened here.
"""

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from ..core.errors import QMANetError
from ..core.files import read_bytes
from ..core.runs import Journal
from .published import dataset_named

MAX_LIST_BYTES = 2**30
NEGATIVE = "Negative"
BENCO_DATASETS = ("ManiDataset", "JsonDataset")
# Our dataset classes: one crops images instead of resizing them, the other creates images during
# training and therefore has no pairs.
NATIVE_DATASET, SYNTH_DATASET = "NativeDataset", "SynthDataset"
PROTOCOL_DATASETS = (*BENCO_DATASETS, NATIVE_DATASET, SYNTH_DATASET)

# The files in which `data prepare` records finished images and its report.
PREPARE_JOURNAL, PREPARE_REPORT = "prepare.jsonl", "prepare.json"

# Names of BenCo's Tp/ and Gt/ in other layouts, in lower case.
IMAGE_FOLDERS = (
    "tp images image img imgs tampered tamper fake forged manipulated spliced jpegimages "
    "photos pictures modified_tp"
).split()
MASK_FOLDERS = (
    "gt masks mask groundtruth ground_truth groundtruths label labels annotations "
    "segmentation tampered_mask edgemask"
).split()
SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")


class ListingError(QMANetError):
    """Raised if a path is not a dataset in one of BenCo's four forms."""


@dataclass(frozen=True)
class Pair:
    """The paths of an image and its mask, as listed; an authentic image has no mask."""

    image: Path
    mask: Path | None


@dataclass(frozen=True)
class Listing:
    """One dataset, read from a folder or a list."""

    name: str
    path: Path
    pairs: tuple[Pair, ...]  # In BenCo's order.
    # For a folder, all entries of Tp/ and Gt/, sorted by name. BenCo pairs them by position, up to
    # the shorter of the two.
    images: tuple[Path, ...] = ()
    masks: tuple[Path, ...] = ()
    trained: bool = False  # Whether a protocol lists the dataset.

    @property
    def is_folder(self) -> bool:
        """Whether BenCo pairs the files by sort order (ManiDataset)."""
        return self.path.is_dir()


def read_listings(path: str | os.PathLike[str]) -> list[Listing]:
    """Read one dataset, or all datasets in a protocol or a JSON file of test sets.

    Raises:
        ListingError: If the path has none of the four forms.
    """
    return list(_read(Path(path)))


def _read(
    path: Path, *, name: str = "", trained: bool = False, parents: tuple[Path, ...] = ()
) -> Iterator[Listing]:
    if path.is_dir():
        yield _read_folder(path, name or path.name, trained)
        return
    if not path.exists():
        raise ListingError(
            f"'{path}' does not exist (current folder: {Path.cwd()}); pass a folder with Tp/ "
            "and Gt/ or a JSON file"
        )
    if path.resolve() in parents:
        raise ListingError(f"'{path}' lists itself; list the paths of datasets instead")
    parents = (*parents, path.resolve())
    try:
        content = json.loads(read_bytes(path, limit=MAX_LIST_BYTES).decode())  # BenCo reads UTF-8.
    except RecursionError:
        raise ListingError(f"cannot read '{path}': the JSON is nested too deeply") from None
    except ValueError as error:
        raise ListingError(
            f"cannot read '{path}' as JSON in UTF-8 without a BOM: {error}"
        ) from None
    if isinstance(content, dict) and all(isinstance(item, str) for item in content.values()):
        for key, item in content.items():
            yield from _read(Path(item), name=key, trained=trained, parents=parents)
    elif not _is_list_of_pairs(content):
        raise ListingError(
            f"cannot use '{path}' as a dataset; write [[image, mask or {NEGATIVE!r}], ...], "
            f"[[{' or '.join(BENCO_DATASETS)}, path], ...] or {{name: path}}"
            f"{_describe_mistake(content)}"
        )
    elif _is_protocol(content):
        for kind, item in content:
            if kind != SYNTH_DATASET:
                yield from _read(Path(item), trained=True, parents=parents)
    else:
        pairs = tuple(
            Pair(Path(image), None if mask == NEGATIVE else Path(mask)) for image, mask in content
        )
        yield Listing(name or path.stem, path, pairs, trained=trained)


def protocol_rows(path: str | os.PathLike[str]) -> list[tuple[str, Path]]:
    """Read the class and path of each dataset in a protocol; return [] for any other file."""
    try:
        content = json.loads(Path(path).read_bytes().decode()) if Path(path).is_file() else []
    except (ValueError, RecursionError):
        return []
    return [(kind, Path(item)) for kind, item in content] if _is_protocol(content) else []


def is_unfinished(folder: Path) -> bool:
    """Return whether ``data prepare`` has started but not finished this folder."""
    return (folder / PREPARE_JOURNAL).is_file() and not (folder / PREPARE_REPORT).is_file()


def recorded_types(folder: Path) -> dict[Path, str]:
    """Return the manipulation types that ``data prepare`` took from a table, by image."""
    rows = Journal(folder / PREPARE_JOURNAL).read()
    return {
        folder / row["target"]: row["type"]
        for row in rows
        if isinstance(row.get("target"), str) and isinstance(row.get("type"), str)
    }


def manipulation_types(name: str, images: Collection[Path]) -> dict[Path, str]:
    """Return the manipulation types of a dataset's tampered images; omit images of unknown type.

    For a published dataset, types follow from the file names or the subset. For a dataset with a
    table of types, or an unknown dataset, they are the types that ``data prepare`` recorded.
    """
    dataset, part = dataset_named(name)
    types: dict[Path, str | None] = {}
    if dataset and not dataset.table:
        types = {image: dataset.type_of(image.name, part) for image in images}
    else:
        for folder in {image.parent.parent for image in images}:
            types |= recorded_types(folder)
    return {image: kind for image in images if (kind := types.get(image))}


def find_in_usual_folders(listing: Path, file: Path) -> Path | None:
    """Find a listed file by its name in the image and mask folders next to the list."""
    for folder in sorted(listing.parent.resolve().iterdir()):
        is_usual = folder.name.lower() in (*IMAGE_FOLDERS, *MASK_FOLDERS)
        if is_usual and os.path.isfile(folder / file.name):
            return folder / file.name
    return None


def _is_list_of_pairs(content: object) -> TypeGuard[list[list[str]]]:
    return isinstance(content, list) and all(
        isinstance(row, list) and len(row) == 2 and all(isinstance(item, str) for item in row)
        for row in content
    )


def _is_protocol(content: object) -> TypeGuard[list[list[str]]]:
    if not content or not _is_list_of_pairs(content):
        return False
    return all(row[0] in PROTOCOL_DATASETS for row in content)


def _read_folder(path: Path, name: str, trained: bool) -> Listing:
    for part in ("Tp", "Gt"):
        if not (path / part).is_dir():
            advice = _describe_layout(path) or "use `qma-net data prepare` for a published archive"
            raise ListingError(
                f"'{path}' has no {part}/ folder; a dataset folder needs Tp/ (images) and Gt/ "
                f"(masks); {advice}"
            )
    images, masks = (tuple(sorted((path / part).iterdir())) for part in ("Tp", "Gt"))
    pairs = tuple(map(Pair, images, masks))  # Like BenCo, stop at the shorter one.
    return Listing(name, path, pairs, images, masks, trained)


def _describe_layout(path: Path) -> str:
    """Name a folder's image and mask folders and what to do; return ``""`` if it has none."""
    or_list = f"or write a JSON list [[image, mask or {NEGATIVE!r}], ...]"
    splits = [entry for entry in sorted(path.iterdir()) if entry.name.lower() in SPLITS]
    for folder in filter(Path.is_dir, [path, *splits]):
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        images = [name for name in names if name.lower().replace(" ", "_") in IMAGE_FOLDERS]
        masks = [name for name in names if name.lower().replace(" ", "_") in MASK_FOLDERS]
        prefix = f"{folder.name}/" if folder != path else ""
        if {"Tp", "Gt"} <= set(names):
            return f"they are in {prefix}: use {folder}"
        if images and masks:
            advice = f"{prefix}{images[0]}/ and {prefix}{masks[0]}/, which BenCo calls Tp/ and Gt/"
            return f"it contains {advice}: rename them {or_list}"
        if images or masks:
            contents = "images Tp/" if images else "masks Gt/"
            advice = f"{prefix}{(images or masks)[0]}/, but BenCo calls the folder of {contents}"
            return f"it contains {advice}: rename it {or_list}"
    return ""


def _describe_mistake(content: object) -> str:
    """Describe what a JSON file contains instead of pairs and suggest a fix, if possible."""
    if isinstance(content, dict):
        key, kind = next((k, type(v).__name__) for k, v in content.items() if type(v) is not str)
        return f"; {key!r} is a {kind}: write each dataset's list to its own file"
    if not isinstance(content, list) or not content:
        return ""
    first = content[0]
    if isinstance(first, str):
        return f"; the first row is only the name {first!r}: add its mask or {NEGATIVE!r}"
    if isinstance(first, dict):
        keys = ", ".join(list(first)[:4])
        return f"; the first row is an object with {keys}: write [image, mask] instead"
    lengths = [len(row) for row in content if isinstance(row, list) and len(row) != 2]
    return f"; a row has {lengths[0]} entries" if lengths else ""
