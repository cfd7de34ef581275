"""Untouched photographs and their label maps, found, divided and read."""

import hashlib
import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..core.images import (
    IMAGE_SUFFIXES,
    TRANSPOSED_ORIENTATIONS,
    ImageError,
    decoding,
    exif_orientation,
    find_images,
    open_image,
)
from .recipe import Recipe, SynthesisError

# A palette is no photograph.
PHOTO_SUFFIXES = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix != ".gif")
LABEL_FOLDER = "_seg"
CACHE_BYTES = 256 * 2**20  # of decoded photographs, per worker


class Photographs:
    """Photographs of one side, read when they are asked for; the latest are kept in memory.

    Args:
        folder: folder of photographs.
        names: paths of the side's photographs, relative to ``folder``.
        labels: folder of label maps, or ``None``.
        maps: paths of label maps, relative to ``labels``, by the name of their photograph.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        names: list[str],
        labels: str | os.PathLike | None = None,
        maps: dict[str, str] | None = None,
    ):
        self.folder, self.names = Path(folder), names
        self.labels, self.maps = labels, maps or {}
        self._kept = {}

    def draw(self, rng: np.random.Generator, but: str = "") -> tuple[str, np.ndarray]:
        """A random photograph and its name before it, never the one named ``but``.

        What cannot be decoded is passed over.

        Raises:
            SynthesisError: when nothing can be decoded.
        """
        names = [name for name in self.names if name != but]
        for _ in range(1000):
            name = names[rng.integers(len(names))]
            photo = self.read(name)
            if photo is not None:
                return name, photo
        raise SynthesisError(
            f"got no photograph that can be decoded among {len(names)} in {self.folder}, expected "
            "at least two on each side: repair or replace the files"
        )

    def read(self, name: str) -> np.ndarray | None:
        """A photograph, uint8 ``(H, W, 3)`` in BGR, or ``None`` if it cannot be decoded."""
        if name in self._kept:
            self._kept[name] = self._kept.pop(name)
            return self._kept[name]
        data = np.fromfile(self.folder / name, np.uint8)
        try:
            photo = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        except cv2.error:
            photo = None
        self._kept[name] = photo
        while sum(p.nbytes for p in self._kept.values() if p is not None) > CACHE_BYTES:
            self._kept.pop(next(iter(self._kept)))
        return photo

    def label_map(self, name: str) -> np.ndarray | None:
        """A photograph's label map, int32 ``(H, W)``, or ``None`` if it has none."""
        if name not in self.maps:
            return None
        path = Path(self.labels) / self.maps[name]
        with open_image(path) as file, decoding(str(path)):
            labels = np.asarray(file)
        if labels.ndim == 3:  # a colour per segment
            labels = labels[..., :3].astype(np.int32) @ np.array([1, 256, 65536], np.int32)
        return labels.astype(np.int32)


def find_photos(folder: str | os.PathLike) -> list[Path]:
    """Photographs under a folder, sorted by path; none of a folder of label maps.

    Raises:
        SynthesisError: for a folder that is not there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SynthesisError(f"got {folder}, expected a folder of photographs: there is none")
    return [
        path
        for path in find_images(folder)
        if path.suffix.lower() in PHOTO_SUFFIXES
        and not any(part.endswith(LABEL_FOLDER) for part in path.relative_to(folder).parent.parts)
    ]


def split_photos(names: list[str], test_share: float, seed: int) -> dict[str, list[str]]:
    """Training and test photographs, disjoint; at least two on each side.

    Raises:
        SynthesisError: for fewer than four photographs.
    """
    if len(names) < 4:
        raise SynthesisError(
            f"got {len(names)} usable photographs, expected at least 4: two to learn from and two "
            "to test on, all different and large enough for the image size"
        )
    order = [names[i] for i in np.random.default_rng([seed, 2]).permutation(len(names))]
    held_out = min(max(2, round(test_share * len(names))), len(names) - 2)
    return {"train": sorted(order[held_out:]), "test": sorted(order[:held_out])}


def find_usable(
    photos: Path, labels: str | os.PathLike | None, recipe: Recipe
) -> tuple[list[str], dict[str, str]]:
    """Names of the usable photographs, and of their label maps by photograph.

    Usable are those whose header can be read and whose sides are long enough; of files with the
    same bytes only the first is.

    Args:
        photos: folder of photographs.
        labels: folder of label maps, or ``None``.
        recipe: its image size says how long the sides must be.

    Returns:
        Paths relative to ``photos``, and paths relative to ``labels`` by these.

    Raises:
        SynthesisError: for a folder that is not there, a label map of another size than its
            photograph, and ``labels`` without any label map.
    """
    files = find_photos(photos)
    maps = {} if labels is None else _label_maps(photos, files, Path(labels))
    taken = {(Path(labels) / name).resolve() for name in maps.values()}
    longest, shortest = recipe.image_size / 2, recipe.image_size / 4
    if recipe.square:
        longest = shortest = recipe.image_size
    sizes = {}
    for path in tqdm(files, desc="photographs", unit="file", delay=2):
        size = _image_size(path)
        if size and max(size) >= longest and min(size) >= shortest and path.resolve() not in taken:
            sizes[path] = size
    alike = Counter(path.stat().st_size for path in sizes)
    seen, names = set(), []
    for path in sizes:
        length = path.stat().st_size
        content = hashlib.sha256(path.read_bytes()).digest() if alike[length] > 1 else length
        if content not in seen:
            seen.add(content)
            names.append(str(path.relative_to(photos)))
    maps = {name: maps[name] for name in names if name in maps}
    for name, label in maps.items():
        size, expected = _image_size(Path(labels) / label), sizes[photos / name]
        if size != expected:
            got = "a file that is no image" if size is None else f"{size[1]}x{size[0]} pixels"
            raise SynthesisError(
                f"got {got} in the label map {Path(labels) / label}, expected the "
                f"{expected[1]}x{expected[0]} of its photograph: give a label map of the "
                "photograph's size, or remove it"
            )
    if labels is not None and not maps:
        raise SynthesisError(
            f"got no label map in {labels} for any of {len(names)} usable photographs in {photos}, "
            f"expected PNG files named like them: x.png or, beside a folder, folder{LABEL_FOLDER}"
            "/x.png"
        )
    return names, maps


def _label_maps(photos: Path, files: list[Path], labels: Path) -> dict[str, str]:
    """Paths of the label maps that are there, relative to ``labels``, by photograph's name."""
    if not labels.is_dir():
        raise SynthesisError(f"got {labels}, expected a folder of label maps: there is none")
    maps = {}
    for path in files:
        name = path.relative_to(photos).with_suffix(".png")
        folder = name.parent
        places = [name]
        if folder.name:
            places.append(folder.with_name(folder.name + LABEL_FOLDER) / name.name)
        for place in places:
            if (labels / place).is_file() and (labels / place).resolve() != path.resolve():
                maps[str(path.relative_to(photos))] = str(place)
                break
    return maps


def _image_size(path: Path) -> tuple[int, int] | None:
    """Height and width from a file's header, as it is to be shown, or ``None`` if there is none."""
    try:
        with open_image(path) as image:
            transposed = exif_orientation(image) in TRANSPOSED_ORIENTATIONS
            return image.size if transposed else image.size[::-1]
    except (ImageError, OSError):
        return None
