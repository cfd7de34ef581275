"""One image and its mask of a published archive, written as BenCo reads them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from ..core.files import PathError, atomic_write, copy_file, safe_path, write_png
from ..core.images import (
    INVERSE_TRANSPOSE,
    ImageError,
    decoding,
    exif_orientation,
    open_image,
    rgb_pixels,
)
from ..core.workers import map_in_processes
from .plan import Job
from .published import DATASETS, PublishedDataset, as_benco, black, total

JPEG_QUALITY = 95  # of images that are resized; colour at full resolution


@dataclass(frozen=True)
class Conversion:
    """From where to where a dataset is converted, and how; as in :func:`.prepare.prepare`."""

    dataset: str
    source: Path
    out: Path
    max_side: int
    repair: bool
    link: bool


class _LeftOut(Exception):
    """Why an image cannot be used."""


def convert_all(
    conversion: Conversion, jobs: Sequence[Job], *, workers: int | None, progress: bool
) -> Iterator[dict]:
    """What :func:`convert` returns of every job, in order, in one process or several.

    Raises:
        WorkersError: when a process was killed; what was yielded before is done.
    """
    with tqdm(total=len(jobs), desc=conversion.dataset, unit="image", disable=not progress) as bar:
        for record in map_in_processes(convert, conversion, jobs, workers):
            yield record
            bar.update()


def convert(conversion: Conversion, job: Job) -> dict:
    """Writes one image and its mask.

    Returns:
        ``image``; and ``target`` and ``mask_target``, with ``repaired`` (how) where the mask was
        made to fit and ``grey`` (share of its pixels) where it is not black and white; or
        ``left_out`` (why) where nothing is written.
    """
    try:
        return {"image": job.image} | _write(conversion, job)
    except PathError as error:
        return {"image": job.image, "left_out": str(error)}
    except _LeftOut as reason:
        started = conversion.out / f"{job.target}{PurePosixPath(job.image).suffix}"
        started.unlink(missing_ok=True)  # by a killed run, from other sources
        return {"image": job.image, "left_out": str(reason)}


def reduce_mask(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask at a smaller size, reduced by area and cut at one half.

    Args:
        pixels: bool ``(H, W)``.
        size: width and height.

    Returns:
        Bool; a mask that would vanish keeps every pixel that it touches.
    """
    shares = cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    half = shares > 0.5
    return half if half.any() else shares > 0


def _write(conversion: Conversion, job: Job) -> dict:
    dataset = DATASETS[conversion.dataset]
    source, out = conversion.source / job.image, conversion.out
    target = safe_path(out, f"{job.target}{source.suffix}", nested=True)
    mask_target = safe_path(out, job.mask_target, nested=True) if job.mask else None
    with _opened(source, "it") as image:
        size = image.size
        reduced = _reduced_size(size, conversion.max_side)
        record = {}
        if job.mask is not None:
            mask, grey = _read_mask(dataset, conversion.source / job.mask)
            record = {"grey": grey} if grey else {}
            if mask.shape[::-1] != size:
                mask, record["repaired"] = _fit_mask(mask, image, conversion, job)
            if not mask.any():
                name = PurePosixPath(job.mask).name
                raise _LeftOut(f"its mask {name} marks nothing ({dataset.rule})")
        suffix = source.suffix
        if reduced == size:
            _copy_or_link(source, target, link=conversion.link)
        else:
            pixels = _reduced_pixels(image, reduced)
            suffix = _save_reduced(pixels, out / job.target, suffix, image.format)
    record["target"] = f"{job.target}{suffix}"
    if job.mask is not None:
        mask = mask if reduced == size else reduce_mask(mask, reduced)
        write_png(mask_target, np.where(mask, 255, 0).astype(np.uint8))
        record["mask_target"] = job.mask_target
    return record


@contextmanager
def _opened(path: Path, what: str) -> Iterator[Image.Image]:
    """A picture with its header read; what cannot be read, also in the block, is left out."""
    try:
        with open_image(path) as image:
            yield image
    except ImageError as error:
        again = ": fetch it again" if error.reason.startswith("is empty") else ""
        raise _LeftOut(f"{what} {error.reason}{again}") from None


def _read_mask(dataset: PublishedDataset, path: Path) -> tuple[np.ndarray, float]:
    """The tampered pixels, bool ``(H, W)``, and the share that is neither black nor white."""
    if path.suffix.lower() == ".npz":
        return dataset.read(_read_array(path)), 0.0
    with _opened(path, f"its mask {path.name}") as image:
        if image.mode.startswith(("I", "F")):
            with decoding():
                values = np.asarray(image).astype(np.float32)
            values = (values / 257 if values.max() > 255 else values).astype(np.uint8)
            mask = np.repeat(values[..., None], 3, axis=-1)
        else:
            mask = rgb_pixels(image)
    grey = 0.0
    if dataset.read in (as_benco, black):
        sums = total(mask)
        grey = round(float(((sums > 0) & (sums < 765)).mean()), 4)
    return dataset.read(mask), grey


def _read_array(path: Path) -> np.ndarray:
    """The class numbers in the archive's ``arr_0``, ``(H, W)``."""
    try:
        with np.load(path, allow_pickle=False) as content:
            array = content["arr_0"].squeeze()
    except Exception as error:  # a torn zip raises nearly anything
        raise _LeftOut(f"its mask {path.name} cannot be read ({error})") from None
    if array.ndim != 2:
        raise _LeftOut(f"its mask {path.name} has shape {array.shape}, expected (H, W)")
    return array


def _fit_mask(
    mask: np.ndarray, image: Image.Image, conversion: Conversion, job: Job
) -> tuple[np.ndarray, str]:
    """A mask of another size than its image made to fit, and how; or a reason not to."""
    (height, width), size = mask.shape, image.size
    transposed = (height, width) == size
    turned = exif_orientation(image)  # decodes a PNG
    if transposed and turned in INVERSE_TRANSPOSE:
        stored = Image.fromarray(mask).transpose(INVERSE_TRANSPOSE[turned])
        return np.asarray(stored), "mask turned back as its photograph's EXIF orientation says"
    dataset = DATASETS[conversion.dataset]
    known = "known fault: " if PurePosixPath(job.image).stem in dataset.known_faults else ""
    fault = f"{known}mask {width}x{height}, image {size[0]}x{size[1]}"
    subsets = [PurePosixPath(path).parent.parent for path in (job.target, job.mask_target)]
    if subsets[0] != subsets[1]:
        raise _LeftOut(f"{fault}, and the mask is another subset's")
    if not conversion.repair:
        raise _LeftOut(f"{fault}; {dataset.remedy}, or --repair it")
    if transposed:
        how = "turned by 90 degrees counter-clockwise, which may be the wrong way: look at it"
        return np.ascontiguousarray(np.rot90(mask)), f"{fault}; {how}"
    resized = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return resized > 0, f"{fault}; mask resized to the nearest pixel"


def _reduced_size(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """The size with its long side at most ``max_side``, if that is not 0."""
    scale = max_side / max(size)
    if not max_side or scale >= 1:
        return size
    return tuple(max(1, round(side * scale)) for side in size)


def _reduced_pixels(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The image at a smaller size, reduced by area, uint8 ``(H, W)`` or ``(H, W, 3)``."""
    with decoding():
        pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _save_reduced(pixels: np.ndarray, target: Path, suffix: str, image_format: str) -> str:
    """Writes a reduced image, a JPEG as JPEG and others as PNG; returns its suffix."""
    if image_format in ("JPEG", "MPO"):
        suffix = suffix if suffix.lower() in (".jpg", ".jpeg") else ".jpg"
        options = {"format": "JPEG", "quality": JPEG_QUALITY, "subsampling": 0}
    else:
        suffix, options = ".png", {"format": "PNG"}
    with atomic_write(target.with_name(f"{target.name}{suffix}")) as beside:
        Image.fromarray(pixels).save(beside, **options)
    return suffix


def _copy_or_link(source: Path, target: Path, *, link: bool) -> None:
    if link:
        target.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), target)
            return
        except OSError:  # another file system
            pass
    copy_file(source, target)
