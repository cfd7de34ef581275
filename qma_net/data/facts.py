"""Properties of single image and mask files, and how BenCo reads them."""

import hashlib
import math
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..core.files import ContentError, open_regular, read_bytes
from ..core.images import (
    ORIENTED_BY_PILLOW,
    ImageError,
    decode,
    decoding,
    exif_orientation,
    open_image,
    rgb_pixels,
)
from ..core.workers import map_in_processes
from .near_duplicates import thumbnail_of
from .published import as_benco

ARRAY_SUFFIXES = (".npz", ".npy")
MAX_FILE_BYTES = 2**31
MAX_ARRAY_VALUES = 2**27  # A small .npz can claim any number; published masks have 24 million.
# A mask value between these is neither black nor white, even allowing for JPEG noise.
GREY = (32, 223)


@dataclass(frozen=True)
class Facts:
    """The properties of one file; those that were not determined have their defaults."""

    fault: str = ""  # Why it cannot be read, as the end of a sentence; empty if it can.
    size: tuple[int, int] = (0, 0)  # Width and height in pixels, as BenCo reads them.
    mode: str = ""  # Pillow's mode, or "array" for NumPy files.
    orientation: int = 1  # From the EXIF data.
    is_oriented: bool = False  # Whether BenCo applies the orientation.
    digest: str = ""  # Hash of an image's bytes.
    thumbnail: bytes = field(default=b"", repr=False)
    # Statistics of a mask whose pixels were read.
    two_valued: bool | None = None  # Whether all values are 0 or 255.
    white: float | None = None  # Fraction of the pixels that BenCo reads as tampered.
    grey: float | None = None  # Fraction of the pixels with a value between those in GREY.
    coloured: float | None = None  # Fraction of the pixels whose channels differ clearly.
    maximum: int | None = None
    alpha: bool = False  # Whether it has an alpha channel that varies, which BenCo ignores.


def inspect_files(
    images: Iterable[Path],
    masks: Iterable[Path],
    *,
    workers: int | None,
    progress: bool,
    **options: bool,
) -> tuple[dict[Path, Facts], dict[Path, Facts]]:
    """Inspect many images and masks in parallel, with the options of :func:`inspect_file`."""
    files = [(path, False) for path in dict.fromkeys(images)]
    files += [(path, True) for path in dict.fromkeys(masks)]
    facts: dict[bool, dict[Path, Facts]] = {False: {}, True: {}}
    results = map_in_processes(_inspect, options, files, workers, chunk=32)
    bar = tqdm(results, desc="check", total=len(files), unit="file", disable=not progress)
    for (path, is_mask), result in zip(files, bar, strict=True):
        facts[is_mask][path] = result
    return facts[False], facts[True]


def inspect_file(
    path: Path, *, is_mask: bool = False, fast: bool = False, thumbnail: bool = False
) -> Facts:
    """Inspect one file, or only its header if ``fast``.

    Unless ``fast``, masks get statistics, and images get a digest and, on request, a thumbnail. If
    the file cannot be read, the result has a ``fault``.
    """
    try:
        if path.suffix.lower() in ARRAY_SUFFIXES:
            if fast:
                return Facts(mode="array")
            values = read_array(path)
            (height, width), maximum = values.shape, int((values > 0).any())
            return Facts(mode="array", size=(width, height), maximum=maximum)
        if fast:
            with open_image(path) as image:
                return _header(image)
        data = read_bytes(path, limit=MAX_FILE_BYTES)
        with open_image(data) as image:
            header = _header(image)
            decode(image)
            if is_mask:
                return replace(header, **_mask_statistics(image))
            with decoding():
                small = thumbnail_of(image) if thumbnail else b""
            digest = hashlib.blake2b(data, digest_size=16).hexdigest()
            return replace(header, digest=digest, thumbnail=small)
    except ImageError as error:
        return Facts(fault=error.reason)
    except ContentError as error:
        return Facts(fault=str(error).removeprefix(f"{path} "))
    except OSError as error:
        return Facts(fault=f"cannot be read ({error.strerror})")


def mask_as_benco(path: Path) -> np.ndarray:
    """Return which pixels of a mask file BenCo reads as tampered, bool ``(H, W)``.

    Raises:
        ImageError: If the file is not an image.
    """
    with open_image(path) as mask:
        return as_benco(rgb_pixels(mask, str(path)))


def read_array(path: Path) -> np.ndarray:
    """Read ``arr_0`` or else the first array of a NumPy file as a mask.

    Returns:
        Numbers or booleans, ``(H, W)``; extra axes of length 1 are removed.

    Raises:
        ImageError: If the file is damaged, does not contain a mask, or contains too many values.
        ContentError: If it is not a regular file.
        OSError: If it cannot be read.
    """
    with open_regular(path) as file, decoding(str(path)):
        if not zipfile.is_zipfile(file):
            file.seek(0)
            return _read_numbers(file, path)
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            name = "arr_0.npy" if "arr_0.npy" in names else names[0]
            with archive.open(name) as member:
                return _read_numbers(member, path)


def _read_numbers(file: IO[bytes], path: Path) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read_header = np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.kind not in "biuf":
        raise ImageError(str(path), f"contains values of type {dtype}, not numbers")
    if math.prod(shape) > MAX_ARRAY_VALUES:
        raise ImageError(str(path), f"claims the shape {shape}, more than any mask has")
    lengths = [length for length in shape if length != 1]
    if len(lengths) > 2 or 0 in lengths:
        raise ImageError(str(path), f"has shape {shape}, which is not that of a mask")
    file.seek(0)
    values = np.lib.format.read_array(file, allow_pickle=False)
    # A mask may have a height or width of 1.
    return np.atleast_2d(np.squeeze(values)) if values.ndim != 2 else values


def _inspect(options: dict[str, bool], file: tuple[Path, bool]) -> Facts:
    path, is_mask = file
    with warnings.catch_warnings():
        # Pillow warns about large images and odd EXIF data; the check reports what matters.
        warnings.filterwarnings("ignore", module="PIL")
        return inspect_file(path, is_mask=is_mask, **options)


def _header(image: Image.Image) -> Facts:
    # Pillow decodes a whole PNG to look for EXIF data after its pixels.
    has_exif = "exif" in image.info or image.format == "TIFF"
    orientation = exif_orientation(image) if has_exif else 1
    return Facts(
        size=image.size,
        mode=image.mode,
        orientation=orientation,
        is_oriented=image.format in ORIENTED_BY_PILLOW,
    )


def _mask_statistics(image: Image.Image) -> dict:
    """Return the fields of :class:`Facts` from ``two_valued`` on."""
    if image.mode in ("L", "1"):
        counts = np.array((image if image.mode == "L" else image.convert("L")).histogram())
        coloured = 0.0
    else:
        pixels = rgb_pixels(image)
        spread = pixels.max(axis=-1).astype(int) - pixels.min(axis=-1)
        coloured = float((spread > GREY[0]).mean())
        mean = pixels.mean(axis=-1).round().astype(int)
        counts = np.bincount(mean.ravel(), minlength=256)
    pixel_count = counts.sum()
    return {
        "two_valued": bool(counts[1:255].sum() == 0) and coloured == 0,
        "white": float(counts[128:].sum() / pixel_count),
        "grey": float(counts[GREY[0] + 1 : GREY[1]].sum() / pixel_count),
        "coloured": coloured,
        "maximum": int(counts.nonzero()[0].max()),
        "alpha": image.mode in ("RGBA", "LA") and bool(np.ptp(np.asarray(image)[..., -1])),
    }
