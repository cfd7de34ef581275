"""What a path means to BenCo: the datasets behind a folder or a JSON file, as image-mask pairs.

Four forms (BenCo 0.1.45): a folder with ``Tp/`` and ``Gt/`` (ManiDataset), a list
``[[image, mask | "Negative"], ...]`` (JsonDataset), a protocol ``[["ManiDataset" | "JsonDataset",
path], ...]`` (BalancedDataset), and test sets ``{name: path}``. Nothing is decoded here.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import QMANetError

NEGATIVE = "Negative"
BENCO_DATASETS = ("ManiDataset", "JsonDataset")  # what a protocol may name


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
    path = Path(path)
    if path.is_dir():
        return [_folder(path, name or path.name, trained)]
    if not path.exists():
        raise ListingError(
            f"got {path}, expected a folder with Tp/ and Gt/ or a JSON file: there is none "
            f"(looked in {Path.cwd()})"
        )
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ListingError(f"got {path}, expected a JSON file: {error}") from None
    if isinstance(content, dict) and all(isinstance(item, str) for item in content.values()):
        return [one for key, item in content.items() for one in read_listings(item, key, trained)]
    if not isinstance(content, list) or not all(
        isinstance(row, list) and len(row) == 2 and all(isinstance(item, str) for item in row)
        for row in content
    ):
        raise ListingError(
            f"got {path}, expected [[image, mask or {NEGATIVE!r}], ...], "
            f"[[{' or '.join(BENCO_DATASETS)}, path], ...] or {{name: path}}"
        )
    if content and all(row[0] in BENCO_DATASETS for row in content):
        return [one for _, item in content for one in read_listings(item, trained=True)]
    pairs = (Pair(Path(image), None if mask == NEGATIVE else Path(mask)) for image, mask in content)
    return [Listing(name or path.stem, path, tuple(pairs), trained=trained)]


def _folder(path: Path, name: str, trained: bool) -> Listing:
    for part in ("Tp", "Gt"):
        if not (path / part).is_dir():
            raise ListingError(
                f"got {path} without {part}/, expected a folder with Tp/ (images) and Gt/ (masks); "
                "qma-net data prepare makes one from a published archive"
            )
    images, masks = (
        tuple(path / part / name for name in sorted(os.listdir(path / part)))
        for part in ("Tp", "Gt")
    )
    pairs = tuple(Pair(i, m) for i, m in zip(images, masks, strict=False))
    return Listing(name, path, pairs, images, masks, trained)
