"""What one file of a dataset is: plain facts, and how BenCo will read it. The part that costs."""

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
from .leaks import thumbnail_of
from .published import as_benco

ARRAY_SUFFIXES = (".npz", ".npy")
GREY = (32, 223)  # between these a mask's pixel is neither black nor white, JPEG noise apart


@dataclass(frozen=True)
class Facts:
    """What one file is. ``size`` is (width, height) in pixels as stored.

    ``digest`` is of an image's bytes; ``thumbnail``, where it was asked for, by
    :func:`.leaks.thumbnail_of`. ``white`` is the share that BenCo reads as tampered, ``grey`` the
    share between :data:`GREY`, ``coloured`` the share whose channels differ, ``top`` the largest
    value; with ``two_valued`` they are known of masks whose pixels were read, and else ``None``.
    """

    fault: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    orientation: int = 1
    digest: str = ""
    thumbnail: bytes = field(default=b"", repr=False)
    two_valued: bool | None = None
    white: float | None = None
    grey: float | None = None
    coloured: float | None = None
    top: int | None = None


@dataclass(frozen=True)
class AllFacts:
    """Facts by file, of images and of masks: one file may be listed as both."""

    images: dict[Path, Facts]
    masks: dict[Path, Facts]


def observe_all(
    images: Iterable[Path],
    masks: Iterable[Path],
    *,
    fast: bool,
    thumbnails: bool = False,
    workers: int | None,
    progress: bool,
) -> AllFacts:
    """The facts of every file, read in parallel; as :func:`observe`."""
    files = dict.fromkeys([*((path, False) for path in images), *((path, True) for path in masks)])
    seen = AllFacts({}, {})
    with tqdm(total=len(files), desc="check", unit="file", disable=not progress) as bar:
        how = {"fast": fast, "thumbnail": thumbnails}
        found = map_in_processes(_observe, how, list(files), workers, chunk=32)
        for (path, is_mask), facts in zip(files, found, strict=True):
            (seen.masks if is_mask else seen.images)[path] = facts
            bar.update()
    return seen


def observe(
    path: Path, *, is_mask: bool = False, fast: bool = False, thumbnail: bool = False
) -> Facts:
    """Reads one file: whole, or (``fast``) only its header. What cannot be read is a fact too.

    ``thumbnail`` asks for one of an image that is read whole.
    """
    try:
        if path.suffix.lower() in ARRAY_SUFFIXES:
            return Facts(mode="array")
        if fast:
            with open_image(path) as image:
                return _header(image)
        data = path.read_bytes()
        with open_image(data) as image:
            seen = _header(image)
            decode(image)
            if is_mask:
                return replace(seen, **_mask_statistics(image))
            small = b""
            if thumbnail:
                with decoding():
                    small = thumbnail_of(image)
            digest = hashlib.blake2b(data, digest_size=16).hexdigest()
            return replace(seen, digest=digest, thumbnail=small)
    except ImageError as error:
        return Facts(fault=error.reason)
    except OSError as error:
        return Facts(fault=f"cannot be read ({error.strerror})")


def mask_as_benco(path: Path) -> np.ndarray:
    """The pixels that BenCo reads as tampered, bool ``(H, W)``.

    Raises:
        ImageError: for what is no picture.
    """
    with open_image(path) as mask:
        return as_benco(rgb_pixels(mask, str(path)))


def _observe(how: dict, file: tuple[Path, bool]) -> Facts:
    """The facts of a file and whether it is a mask, in a process of :func:`observe_all`."""
    path, is_mask = file
    with warnings.catch_warnings():
        # Pillow warns of large images and odd EXIF; what matters of it is a finding here.
        warnings.filterwarnings("ignore", module="PIL")
        return observe(path, is_mask=is_mask, **how)


def _header(image: Image.Image) -> Facts:
    # Asked for the EXIF of a PNG that has none, Pillow decodes the whole image.
    has_exif = "exif" in image.info or image.format == "TIFF"
    turned = exif_orientation(image) if has_exif else 1
    return Facts(size=image.size, mode=image.mode, orientation=turned)


def _mask_statistics(image: Image.Image) -> dict:
    """How BenCo will read a mask's values: the fields of :class:`Facts` from ``two_valued`` on."""
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
        "top": int(counts.nonzero()[0].max()),
    }
