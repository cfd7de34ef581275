"""What a path means to BenCo: the datasets behind a folder or a JSON file, as image-mask pairs.

Four forms (BenCo 0.1.45): a folder with ``Tp/`` and ``Gt/`` (ManiDataset), a list
``[[image, mask | "Negative"], ...]`` (JsonDataset), a protocol ``[["ManiDataset" | "JsonDataset",
path], ...]`` (BalancedDataset), and test sets ``{name: path}``. Nothing is decoded here.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import QMANetError

NEGATIVE = "Negative"
BENCO_DATASETS = ("ManiDataset", "JsonDataset")  # what a protocol may name; and of ours:
FRESH = "SynthDataset"  # makes its images while training: there are no pairs to list
NATIVE = "NativeDataset"  # crops what another would resize
NAMED = (*BENCO_DATASETS, NATIVE, FRESH)

# What other layouts call BenCo's Tp/ and Gt/, in lower case.
IMAGE_FOLDERS = (
    "tp images image img imgs tampered tamper fake forged manipulated spliced jpegimages "
    "photos pictures modified_tp"
).split()
MASK_FOLDERS = (
    "gt masks mask groundtruth ground_truth groundtruths label labels annotations "
    "segmentation tampered_mask edgemask"
).split()
SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")


PREPARE_MAKES_ONE = "qma-net data prepare makes one from a published archive"


class ListingError(QMANetError):
    """A path that is none of BenCo's four forms; one line says what was got and expected."""


@dataclass(frozen=True)
class Pair:
    """An image and its mask, ``None`` for an authentic image; paths as they are listed."""

    image: Path
    mask: Path | None


@dataclass(frozen=True)
class Listing:
    """One dataset: its name, the path it was read from, and its pairs in BenCo's order.

    ``images`` and ``masks`` are all entries of ``Tp/`` and ``Gt/``, sorted by name, for a folder
    (paired by position, as BenCo does, up to the shorter); empty for a list.
    ``trained`` says that it was named by a protocol.
    """

    name: str
    path: Path
    pairs: tuple[Pair, ...]
    images: tuple[Path, ...] = ()
    masks: tuple[Path, ...] = ()
    trained: bool = False

    @property
    def is_folder(self) -> bool:
        """Whether BenCo pairs it by sort order (ManiDataset)."""
        return self.path.is_dir()


def read_listings(path: str | os.PathLike, name: str = "", trained: bool = False) -> list[Listing]:
    """The datasets that ``path`` stands for: one, or those a protocol or test-sets JSON names.

    Args:
        path: one of the four forms.
        name: of the dataset; from the path unless given.
        trained: whether a protocol named it.

    Raises:
        ListingError: for a path that is none of the four forms.
    """
    return _read(Path(path), name, trained, ())


def _read(path: Path, name: str, trained: bool, within: tuple[Path, ...]) -> list[Listing]:
    """As :func:`read_listings`; ``within`` are the files that name it, from the outside in."""
    if path.is_dir():
        return [_folder(path, name or path.name, trained)]
    if not path.exists():
        raise ListingError(
            f"got {path}, expected a folder with Tp/ and Gt/ or a JSON file: there is none "
            f"(looked in {Path.cwd()})"
        )
    if path.resolve() in within:
        raise ListingError(f"got {path}, which names itself, expected lists or folders in it")
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ListingError(f"got {path}, expected a JSON file: {error}") from None
    except RecursionError:
        raise ListingError(f"got {path}, expected a JSON list: it is nested too deep") from None
    within = (*within, path.resolve())
    if isinstance(content, dict) and all(isinstance(item, str) for item in content.values()):
        items = content.items()
        return [one for key, item in items for one in _read(Path(item), key, trained, within)]
    if not _is_rows(content):
        raise ListingError(
            f"got {path}, expected [[image, mask or {NEGATIVE!r}], ...], "
            f"[[{' or '.join(BENCO_DATASETS)}, path], ...] or {{name: path}}{_got_rows(content)}"
        )
    if _is_protocol(content):
        listed = [item for kind, item in content if kind != FRESH]
        return [one for item in listed for one in _read(Path(item), "", True, within)]
    pairs = (Pair(Path(image), None if mask == NEGATIVE else Path(mask)) for image, mask in content)
    return [Listing(name or path.stem, path, tuple(pairs), trained=trained)]


def protocol_rows(path: str | os.PathLike) -> list[tuple[str, Path]]:
    """What a protocol names, class and path; nothing for a path that is no protocol."""
    try:
        content = json.loads(Path(path).read_text()) if Path(path).is_file() else []
    except (ValueError, RecursionError):
        return []
    return [(kind, Path(item)) for kind, item in content] if _is_protocol(content) else []


def _is_rows(content: object) -> bool:
    """Whether it is a list of pairs of texts."""
    return isinstance(content, list) and all(
        isinstance(row, list) and len(row) == 2 and all(isinstance(item, str) for item in row)
        for row in content
    )


def _is_protocol(content: object) -> bool:
    return _is_rows(content) and bool(content) and all(row[0] in NAMED for row in content)


def find_beside(listing: Path, file: Path) -> Path | None:
    """A file of a listed name in one of the usual folders beside the list: where images/ is."""
    for folder in sorted(listing.parent.resolve().iterdir()):
        if folder.name.lower() in (*IMAGE_FOLDERS, *MASK_FOLDERS) and file.name:
            found = folder / file.name
            if os.path.isfile(found):
                return found
    return None


def _folder(path: Path, name: str, trained: bool) -> Listing:
    for part in ("Tp", "Gt"):
        if not (path / part).is_dir():
            raise ListingError(
                f"got {path} without {part}/, expected a folder with Tp/ (images) and Gt/ (masks); "
                f"{_layout_found(path) or PREPARE_MAKES_ONE}"
            )
    images, masks = (
        tuple(path / part / name for name in sorted(os.listdir(path / part)))
        for part in ("Tp", "Gt")
    )
    pairs = tuple(Pair(i, m) for i, m in zip(images, masks, strict=False))
    return Listing(name, path, pairs, images, masks, trained)


def _layout_found(path: Path) -> str:
    """What a folder of another layout calls images and masks, and what to do; "" for no layout."""
    for place in (path, *(path / name for name in sorted(os.listdir(path)))):
        if not place.is_dir() or (place != path and place.name.lower() not in SPLITS):
            continue
        folders = sorted(name for name in os.listdir(place) if (place / name).is_dir())
        images, masks = (
            [name for name in folders if name.lower().replace(" ", "_") in known]
            for known in (IMAGE_FOLDERS, MASK_FOLDERS)
        )
        inner = f"{place.name}/" if place != path else ""
        if {"Tp", "Gt"} <= set(folders):
            return f"they are in {inner}: give {place}"
        if images and masks:
            return (
                f"{inner}{images[0]}/ and {inner}{masks[0]}/ are there, BenCo's names are Tp/ and "
                f"Gt/: rename them, or give a JSON list [[image, mask or {NEGATIVE!r}], ...]"
            )
        if images or masks:
            kind, name = ("images", "Tp/") if images else ("masks", "Gt/")
            return (
                f"{inner}{(images or masks)[0]}/ is there, BenCo's name for {kind} is {name}: "
                f"rename it, or give a JSON list [[image, mask or {NEGATIVE!r}], ...]"
            )
    return ""


def _got_rows(content: object) -> str:
    """What a JSON file holds in place of pairs, with what to do; "" where nothing is to be said."""
    row = content[0] if isinstance(content, list) and content else None
    if isinstance(row, str):
        return f"; its first row is the name {row!r} alone: add its mask, or {NEGATIVE!r}"
    if isinstance(row, dict):
        keys = ", ".join(map(str, list(row)[:4]))
        return f"; its first row is an object with {keys}: write [image, mask] in its place"
    if isinstance(row, list):
        wrong = next((one for one in content if not isinstance(one, list) or len(one) != 2), None)
        return f"; a row has {len(wrong)} entries" if isinstance(wrong, list) else ""
    if isinstance(content, dict) and content:
        key, value = next((k, v) for k, v in content.items() if not isinstance(v, str))
        return f"; {key!r} is a {type(value).__name__}: give each dataset's list a file of its own"
    return ""
