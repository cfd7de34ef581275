"""Authentic photos and their label maps: searching, splitting, reading and cropping."""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..core.files import sha256
from ..core.images import (
    IMAGE_SUFFIXES,
    ORIENTED_BY_PILLOW,
    TRANSPOSED_ORIENTATIONS,
    ImageError,
    decoding,
    exif_orientation,
    find_images,
    open_image,
)
from .recipe import Recipe, SynthesisError

PHOTO_SUFFIXES = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix != ".gif")
LABEL_FOLDER = "_seg"
MIN_IMAGE_SIDE = 8  # In pixels; panoramas that become narrower have no space for a region.
SMALLEST_OBJECT_ZOOM = 0.35  # Of a donor from which an object is cut out.
CACHE_BYTES = 256 * 2**20  # Decoded photos in memory, per process.


class Photographs:
    """The photos of one split, read on demand; the most recent ones stay in memory.

    Args:
        folder: Folder of photos.
        names: Paths of the split's photos, relative to ``folder``.
        labels: Folder of label maps, or None.
        maps: Paths of label maps, relative to ``labels``, by the name of their photo.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        names: list[str],
        labels: str | os.PathLike[str] | None = None,
        maps: dict[str, str] | None = None,
    ):
        self.folder, self.names = Path(folder), names
        self.labels, self.maps = labels, maps or {}
        self._cache: dict[str, np.ndarray | None] = {}
        self._shares: np.ndarray | None = None

    def weigh_by_area(self, sizes: Mapping[str, tuple[int, int]] | None = None) -> None:
        """Draw photos in proportion to their numbers of pixels from now on.

        ``sizes`` has their (height, width) by name; if it is None, they are read from the files.
        """
        if not self.names:
            return
        if sizes is None:
            sizes = {name: _image_size(self.folder / name) or (0, 0) for name in self.names}
        self._shares = np.cumsum([math.prod(sizes[name]) for name in self.names], dtype=float)
        self._shares /= self._shares[-1]

    def draw(self, rng: np.random.Generator, exclude: str = "") -> tuple[str, np.ndarray]:
        """Draw a photo other than ``exclude`` that can be decoded; return its name and pixels.

        Raises:
            SynthesisError: If no photo can be decoded.
        """
        names = [name for name in self.names if name != exclude]
        for _ in range(1000):
            if self._shares is None:
                name = names[rng.integers(len(names))]
            else:
                name = self.names[int(np.searchsorted(self._shares, rng.random(), side="right"))]
            if name == exclude:
                continue
            photo = self.read(name)
            if photo is not None:
                return name, photo
        raise SynthesisError(
            f"none of the {len(names)} photos in {self.folder} can be decoded; repair or replace "
            "them (training and testing need at least two photos each)"
        )

    def read(self, name: str) -> np.ndarray | None:
        """Read a photo, uint8 ``(H, W, 3)`` in BGR; return None if it cannot be decoded."""
        if name in self._cache:
            self._cache[name] = self._cache.pop(name)
            return self._cache[name]
        data = np.fromfile(self.folder / name, np.uint8)
        try:
            photo = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        except cv2.error:
            photo = None
        self._cache[name] = photo
        while sum(p.nbytes for p in self._cache.values() if p is not None) > CACHE_BYTES:
            self._cache.pop(next(iter(self._cache)))
        return photo

    def label_map(self, name: str) -> np.ndarray | None:
        """Read the label map of a photo, int32 ``(H, W)``; return None if it has none."""
        if self.labels is None or name not in self.maps:
            return None
        path = Path(self.labels) / self.maps[name]
        with open_image(path) as file, decoding(str(path)):
            labels = np.asarray(file)
        if labels.ndim == 3:  # Every segment has a color.
            labels = labels[..., :3].astype(np.int32) @ np.array([1, 256, 65536], np.int32)
        return labels.astype(np.int32)


def list_photos(folder: str | os.PathLike[str]) -> list[Path]:
    """List the photos under a folder, sorted by path, except those in folders of label maps.

    Raises:
        SynthesisError: If the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SynthesisError(f"cannot find the folder of photos {folder}; check the path")
    return [
        path
        for path in find_images(folder)
        if path.suffix.lower() in PHOTO_SUFFIXES
        and not any(part.endswith(LABEL_FOLDER) for part in path.relative_to(folder).parent.parts)
    ]


def split_photos(names: list[str], test_share: float, seed: int) -> dict[str, list[str]]:
    """Split photos into ``"train"`` and ``"test"``, with at least two in each.

    Raises:
        SynthesisError: If there are fewer than four photos.
    """
    if len(names) < 4:
        raise SynthesisError(
            f"{len(names)} usable photos are not enough; provide at least 4 (two for training and "
            "two for testing) that are different and large enough for the image size"
        )
    order = [names[i] for i in np.random.default_rng([seed, 2]).permutation(len(names))]
    test_count = min(max(2, round(test_share * len(names))), len(names) - 2)
    return {"train": sorted(order[test_count:]), "test": sorted(order[:test_count])}


def split_by(folder: Path, names: list[str], recipe: Recipe, seed: int) -> dict[str, list[str]]:
    """Split photos as the recipe says.

    Raises:
        SynthesisError: If the recipe names an unknown split or there are too few photos.
    """
    if recipe.split == "hash":
        return split_photos_by_hash(folder, names, recipe)
    if recipe.split != "seed":
        raise SynthesisError(f"unknown split {recipe.split!r}; choose seed or hash")
    return split_photos(names, recipe.test_share, seed)


def split_photos_by_hash(folder: Path, names: list[str], recipe: Recipe) -> dict[str, list[str]]:
    """Split photos into ``"train"``, ``"validation"`` and ``"test"`` by the SHA-256 of their files.

    The split of a photo depends only on its bytes and on the shares of the recipe, except that
    all photos of the folders in ``recipe.held_out`` are for testing.

    Raises:
        SynthesisError: If there are fewer than two photos for training or for testing, or if a
            held-out folder has none.
    """
    missing = {*recipe.held_out} - {Path(name).parts[0] for name in names}
    if missing:
        raise SynthesisError(
            f"no usable photo in the folder {min(missing)} of {folder}, which is held out; check "
            "the field held_out of the recipe"
        )
    sides: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for name in names:
        share = int(sha256(folder / name)[:16], 16) / 2**64
        if share < recipe.test_share or Path(name).parts[0] in recipe.held_out:
            sides["test"].append(name)
        elif share < recipe.test_share + recipe.validation_share:
            sides["validation"].append(name)
        else:
            sides["train"].append(name)
    if min(len(sides["train"]), len(sides["test"])) < 2:
        raise SynthesisError(
            f"{len(names)} usable photos are not enough for a split by hash, which assigned "
            f"{len(sides['train'])} to training and {len(sides['test'])} to testing; provide more"
        )
    return sides


def find_usable_photos(
    photos: Path,
    labels: str | os.PathLike[str] | None,
    recipe: Recipe,
    *,
    progress: bool = False,
) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Find the usable photos and their label maps.

    A photo is usable if it is not a label map, its header can be read, its sides are long enough
    for the recipe, and the images made from it are not narrower than :data:`MIN_IMAGE_SIDE`. Of
    files with equal bytes, only the first one is used.

    Returns:
        The (height, width) of each photo, by its path relative to ``photos``, and the path of its
        label map, if any, relative to ``labels``, by the same key.

    Raises:
        SynthesisError: If a folder does not exist, a label map differs in size from its photo, or
            ``labels`` contains no label map.
    """
    files = list_photos(photos)
    maps = {} if labels is None else _find_label_maps(photos, files, Path(labels))
    map_paths = {name: Path(labels or "", label) for name, label in maps.items()}
    label_files = {path.resolve() for path in map_paths.values()}
    longest, shortest = recipe.image_size / 2, recipe.image_size / 4
    if recipe.square:
        longest = shortest = recipe.image_size
    sizes = {}
    for path in tqdm(files, desc="photos", unit="file", delay=2, disable=not progress):
        size = _image_size(path)
        if (
            size
            and max(size) >= longest
            and min(size) >= shortest
            and min(recipe.image_size, max(size)) * min(size) >= MIN_IMAGE_SIDE * max(size)
            and path.resolve() not in label_files
        ):
            sizes[path] = size
    byte_counts = Counter(path.stat().st_size for path in sizes)
    seen: set[object] = set()
    usable = {}
    for path, size in sizes.items():
        length = path.stat().st_size
        # Only files of equal length can be copies.
        content = sha256(path) if byte_counts[length] > 1 else length
        if content not in seen:
            seen.add(content)
            usable[str(path.relative_to(photos))] = size
    maps = {name: maps[name] for name in usable if name in maps}
    for name in maps:
        size, expected = _image_size(map_paths[name]), usable[name]
        if size != expected:
            actual = "is not an image" if size is None else f"has {size[1]}x{size[0]} pixels"
            raise SynthesisError(
                f"the label map {map_paths[name]} {actual}, but its photo has "
                f"{expected[1]}x{expected[0]} pixels; replace or remove the label map"
            )
    if labels is not None and not maps:
        raise SynthesisError(
            f"{labels} contains no label map for any of {len(usable)} usable photos in {photos}; "
            f"name the label map of folder/x.jpg folder/x.png or folder{LABEL_FOLDER}/x.png"
        )
    return usable, maps


def _find_label_maps(photos: Path, files: list[Path], labels: Path) -> dict[str, str]:
    """Map the names of photos to the existing label maps, relative to ``labels``."""
    if not labels.is_dir():
        raise SynthesisError(f"cannot find the folder of label maps {labels}; check the path")
    maps = {}
    for path in files:
        name = path.relative_to(photos).with_suffix(".png")
        folder = name.parent
        candidates = [name]
        if folder.name:
            candidates.append(folder.with_name(folder.name + LABEL_FOLDER) / name.name)
        for candidate in candidates:
            label = labels / candidate
            if label.is_file() and label.resolve() != path.resolve():
                maps[str(path.relative_to(photos))] = str(candidate)
                break
    return maps


def _image_size(path: Path) -> tuple[int, int] | None:
    """Read height and width as displayed from a file's header; None if it cannot be read."""
    try:
        with open_image(path) as image:
            width, height = image.size
            transposed = exif_orientation(image) in TRANSPOSED_ORIENTATIONS
            if transposed and image.format not in ORIENTED_BY_PILLOW:
                return width, height
            return height, width
    except (ImageError, OSError):
        return None


@dataclass(frozen=True)
class Crop:
    """A crop of a photo and its transform; lengths are in pixels, ``turns`` are by 90 degrees."""

    top: int
    left: int
    height: int
    width: int
    out_height: int
    out_width: int
    gamma: float
    turns: int
    mirrored: bool

    def of(self, photo: np.ndarray) -> np.ndarray:
        """Return the crop of a photo, uint8 ``(H, W, 3)``."""
        levels = 255 * (np.arange(256) / 255) ** self.gamma
        crop = self._resized(photo, cv2.INTER_AREA)
        return self._turned(cv2.LUT(crop, np.rint(levels).astype(np.uint8)))

    def of_labels(self, labels: np.ndarray | None) -> np.ndarray | None:
        """Return the same crop of the photo's label map, int32 ``(H, W)``, if it has one."""
        if labels is None:
            return None
        return self._turned(self._resized(labels, cv2.INTER_NEAREST_EXACT))

    def _resized(self, photo: np.ndarray, interpolation: int) -> np.ndarray:
        crop = photo[self.top : self.top + self.height, self.left : self.left + self.width]
        if (self.height, self.width) == (self.out_height, self.out_width):
            return crop
        return cv2.resize(crop, (self.out_width, self.out_height), interpolation=interpolation)

    def _turned(self, photo: np.ndarray) -> np.ndarray:
        photo = np.rot90(photo, self.turns)
        return np.ascontiguousarray(photo[:, ::-1] if self.mirrored else photo)


def size_of(image: np.ndarray) -> tuple[int, int]:
    """Return (height, width) of an image or a mask."""
    return image.shape[0], image.shape[1]


def frame_of(recipe: Recipe) -> tuple[int, int]:
    """Return (height, width) of the images of a native recipe."""
    height, width = recipe.frame if any(recipe.frame) else (recipe.image_size, recipe.image_size)
    return height, width  # The frame of a recipe that was read from JSON is a list.


def random_crop(rng: np.random.Generator, size: tuple[int, int], recipe: Recipe) -> Crop:
    """Draw a random crop of ``size`` (height, width) from a photo."""
    if recipe.native:
        frame = frame_of(recipe)
        zoom = rng.uniform(*recipe.zoom) if rng.random() < recipe.rescaled else 1.0
        zoom = max(zoom, *(side / full for side, full in zip(frame, size, strict=True)))
        return _native_crop(
            rng,
            size,
            [min(full, round(side / zoom)) for side, full in zip(frame, size, strict=True)],
            frame,
            recipe,
        )
    longest_side = recipe.image_size / rng.uniform(*recipe.zoom)  # In pixels of the photo.
    if recipe.square:
        height = width = min(*size, round(longest_side))
        out_height = out_width = recipe.image_size
    else:
        share = min(1, longest_side / max(size))
        height, width = (max(1, round(share * side)) for side in size)
        longest = min(recipe.image_size, max(height, width))
        out_height, out_width = (max(1, round(longest / max(size) * side)) for side in size)
    return Crop(
        top=int(rng.integers(size[0] - height, endpoint=True)),
        left=int(rng.integers(size[1] - width, endpoint=True)),
        height=height,
        width=width,
        out_height=out_height,
        out_width=out_width,
        gamma=rng.uniform(*recipe.exposure),
        turns=int(rng.integers(4)) if recipe.square else 0,
        mirrored=bool(rng.random() < 0.5),
    )


def whole_photo(rng: np.random.Generator, size: tuple[int, int], recipe: Recipe) -> Crop:
    """Draw a crop that downscales a whole photo of ``size``, to cut an object out of it."""
    zoom = np.exp(rng.uniform(np.log(SMALLEST_OBJECT_ZOOM), 0))
    return _native_crop(rng, size, size, [max(1, round(zoom * side)) for side in size], recipe)


def _native_crop(
    rng: np.random.Generator,
    size: tuple[int, int],
    part: Sequence[int],
    out: Sequence[int],
    recipe: Recipe,
) -> Crop:
    return Crop(
        top=int(rng.integers(size[0] - part[0], endpoint=True)),
        left=int(rng.integers(size[1] - part[1], endpoint=True)),
        height=part[0],
        width=part[1],
        out_height=out[0],
        out_width=out[1],
        gamma=rng.uniform(*recipe.exposure),
        turns=0,
        mirrored=bool(rng.random() < 0.5),
    )
