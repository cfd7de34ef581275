"""What one file of a dataset is: plain facts, and how BenCo will read it. The part that costs."""

import hashlib
import io
import os
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..workers import cores

ARRAY_SUFFIXES = (".npz", ".npy")
GREY = (32, 223)  # between these a mask's pixel is neither black nor white, JPEG noise apart
ORIENTATION = 0x0112  # EXIF tag


@dataclass(frozen=True)
class Facts:
    """What one file is. ``size`` is (width, height) as stored; mask figures are None unread.

    ``white`` is the share that BenCo reads as tampered, ``grey`` the share between :data:`GREY`,
    ``coloured`` the share whose channels differ, ``top`` the largest value.
    """

    fault: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    orientation: int = 1
    digest: str = ""
    two_valued: bool | None = None
    white: float | None = None
    grey: float | None = None
    coloured: float | None = None
    top: int | None = None


EMPTY = Facts(fault="is empty (0 bytes)")


def observe_all(
    jobs: list[tuple[Path, bool]], fast: bool, workers: int | None, progress: bool
) -> dict[tuple[Path, bool], Facts]:
    """The facts of every (file, whether it is a mask), in parallel."""
    workers = min(workers or cores(), max(1, len(jobs) // 16))
    bar = tqdm(total=len(jobs), desc="check", unit="file", disable=not progress)
    with bar:
        if workers == 1:
            with warnings.catch_warnings():
                _silence()
                found = map(observe, *_args(jobs, fast))
                return dict(zip(jobs, _counted(found, bar), strict=True))
        forkserver = get_context("forkserver")
        with ProcessPoolExecutor(workers, forkserver, initializer=_silence) as pool:
            found = pool.map(observe, *_args(jobs, fast), chunksize=32)
            return dict(zip(jobs, _counted(found, bar), strict=True))


def observe(path: Path, is_mask: bool = False, fast: bool = False) -> Facts:
    """Reads one file: whole, or (``fast``) only its header. Raises nothing."""
    try:
        if path.suffix.lower() in ARRAY_SUFFIXES:
            return Facts(mode="array")
        if fast:
            if os.path.getsize(path) == 0:
                return EMPTY
            with Image.open(path) as image:
                return _header(image)
        data = path.read_bytes()
        if not data:
            return EMPTY
        with Image.open(io.BytesIO(data)) as image:
            seen = _header(image)
            image.load()
            if is_mask:
                return replace(seen, **_mask_figures(image))
            return replace(seen, digest=hashlib.blake2b(data, digest_size=16).hexdigest())
    except Image.DecompressionBombError as error:
        return Facts(fault=f"claims more pixels than any photograph has ({error})")
    except (OSError, SyntaxError, ValueError, EOFError, TypeError) as error:
        return Facts(fault=f"cannot be decoded ({str(error).split(chr(10))[0]})")


def _args(jobs, fast) -> tuple:
    return [path for path, _ in jobs], [is_mask for _, is_mask in jobs], [fast] * len(jobs)


def _silence() -> None:
    """Pillow warns of large images and odd EXIF; what matters of it is a finding here."""
    warnings.filterwarnings("ignore", module="PIL")


def _counted(found: Iterable, bar: tqdm) -> Iterator:
    for one in found:
        bar.update()
        yield one


def _header(image: Image.Image) -> Facts:
    has_exif = "exif" in image.info or image.format == "TIFF"
    orientation = image.getexif().get(ORIENTATION, 1) if has_exif else 1
    return Facts(size=image.size, mode=image.mode, orientation=orientation)


def _mask_figures(image: Image.Image) -> dict:
    """How BenCo will read a mask's values."""
    if image.mode in ("L", "1"):
        counts = np.array((image if image.mode == "L" else image.convert("L")).histogram())
        coloured = 0.0
    else:
        pixels = np.asarray(image.convert("RGB"))
        spread = pixels.max(axis=-1).astype(int) - pixels.min(axis=-1)
        coloured = float((spread > GREY[0]).mean())
        mean = pixels.mean(axis=-1).round().astype(int)
        counts = np.bincount(mean.ravel(), minlength=256)
    total = counts.sum()
    return {
        "two_valued": bool(counts[1:255].sum() == 0) and coloured == 0,
        "white": float(counts[128:].sum() / total),
        "grey": float(counts[GREY[0] + 1 : GREY[1]].sum() / total),
        "coloured": coloured,
        "top": int(counts.nonzero()[0].max()),
    }


def mask_as_benco(path: Path) -> np.ndarray:
    """The pixels that BenCo reads as tampered, bool ``(H, W)``."""
    return np.asarray(Image.open(path).convert("RGB")).mean(axis=-1) > 127.5


# How to turn what was drawn on the displayed photograph back to how its pixels are stored.
UNTURN = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
