"""Properties of single image and mask files, and how BenCo reads them."""

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..core.images import ImageError, decode, decoding, exif_orientation, open_image, rgb_pixels
from ..core.workers import map_in_processes
from .near_duplicates import thumbnail_of
from .published import as_benco

ARRAY_SUFFIXES = (".npz", ".npy")
# A mask value between these is neither black nor white, even allowing for JPEG noise.
GREY = (32, 223)


@dataclass(frozen=True)
class Facts:
    """What is known about one file."""

    fault: str = ""  # Why it cannot be read, as the end of a sentence; empty if it can.
    size: tuple[int, int] = (0, 0)  # Width and height in pixels, as stored.
    mode: str = ""  # Pillow's mode, or "array" for NumPy files.
    orientation: int = 1  # From the EXIF data.
    digest: str = ""  # Hash of an image's bytes.
    thumbnail: bytes = field(default=b"", repr=False)
    # Statistics of a mask whose pixels were read.
    two_valued: bool | None = None  # Whether all values are 0 or 255.
    white: float | None = None  # Fraction of the pixels that BenCo reads as tampered.
    grey: float | None = None  # Fraction of the pixels between GREY.
    coloured: float | None = None  # Fraction of the pixels that differ between channels.
    maximum: int | None = None


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
    """Inspect one file, only its header if ``fast``. A file that cannot be read has a ``fault``.

    Statistics are collected of masks; images get a digest and, on request, a thumbnail.
    """
    try:
        if path.suffix.lower() in ARRAY_SUFFIXES:
            return Facts(mode="array")
        if fast:
            with open_image(path) as image:
                return _header(image)
        data = path.read_bytes()
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
    except OSError as error:
        return Facts(fault=f"cannot be read ({error.strerror})")


def mask_as_benco(path: Path) -> np.ndarray:
    """Read the pixels of a mask that BenCo reads as tampered, bool ``(H, W)``.

    Raises:
        ImageError: If the file is not an image.
    """
    with open_image(path) as mask:
        return as_benco(rgb_pixels(mask, str(path)))


def read_array(path: Path) -> np.ndarray:
    """Read ``arr_0`` or else the first array of a NumPy file, without axes of length 1.

    Raises:
        ImageError: If the file is damaged.
    """
    with decoding(str(path)):
        content = np.load(path, allow_pickle=False)
        if not isinstance(content, np.ndarray):
            with content:
                content = content["arr_0" if "arr_0" in content.files else content.files[0]]
        return np.squeeze(content)


def _inspect(options: dict[str, bool], file: tuple[Path, bool]) -> Facts:
    path, is_mask = file
    with warnings.catch_warnings():
        # Pillow warns of large images and odd EXIF data; the check reports what matters of this.
        warnings.filterwarnings("ignore", module="PIL")
        return inspect_file(path, is_mask=is_mask, **options)


def _header(image: Image.Image) -> Facts:
    # Pillow decodes a whole PNG to look for EXIF data after its pixels.
    has_exif = "exif" in image.info or image.format == "TIFF"
    orientation = exif_orientation(image) if has_exif else 1
    return Facts(size=image.size, mode=image.mode, orientation=orientation)


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
    }
