"""Conversion of one image and its mask from a published archive to what BenCo reads."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..core.files import ContentError, PathError, atomic_write, copy_file, safe_path, write_png
from ..core.images import (
    INVERSE_TRANSPOSE,
    ORIENTED_BY_PILLOW,
    TRANSPOSED_ORIENTATIONS,
    TRANSPOSES,
    ImageError,
    decoding,
    exif_orientation,
    open_image,
    rgb_pixels,
)
from .facts import read_array
from .plan import Job
from .published import PublishedDataset, channel_sum

JPEG_QUALITY = 95  # Of downscaled images, without chroma subsampling.


@dataclass(frozen=True)
class Conversion:
    """The settings that all images of a dataset share; see :func:`.prepare.prepare`."""

    dataset: PublishedDataset
    source: Path
    out: Path
    max_side: int
    repair: bool
    link: bool


class _LeftOutError(Exception):
    """An image that cannot be used; the message states why."""


def convert(conversion: Conversion, job: Job) -> dict:
    """Convert one image and its mask.

    Returns:
        ``image``, ``target`` and, if there is a mask, ``mask_target``; ``repaired`` (how) if the
        mask's size was wrong; ``grey``, the fraction of the mask's pixels that are neither black
        nor white, if there are any. If nothing was written, only ``image`` and ``left_out`` (why).
    """
    try:
        return {"image": job.image} | _convert(conversion, job)
    except (PathError, ContentError) as error:
        return {"image": job.image, "left_out": str(error)}
    except (ImageError, _LeftOutError) as error:
        # An interrupted run may have written the image from different sources.
        target = conversion.out / f"{job.target}{PurePosixPath(job.image).suffix}"
        target.unlink(missing_ok=True)
        reason = _fault("it", error) if isinstance(error, ImageError) else str(error)
        return {"image": job.image, "left_out": reason}


def reduce_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Reduce a mask, bool ``(H, W)``, to ``(width, height)``: average and threshold at one half.

    If no pixel exceeds one half, mark every pixel that the mask touches.
    """
    shares = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    reduced = shares > 0.5
    return reduced if reduced.any() else shares > 0


def rotate_mask(mask: np.ndarray, orientation: int, *, is_oriented: bool) -> np.ndarray:
    """Rotate a mask, bool or uint8 ``(H, W)``, whose sides are swapped, so that it fits the image.

    Args:
        mask: The mask.
        orientation: The image's EXIF orientation, 5 to 8.
        is_oriented: Whether BenCo applies the orientation. If it does, the mask is one of the
            stored pixels, otherwise one of the displayed image.
    """
    transposes = TRANSPOSES if is_oriented else INVERSE_TRANSPOSE
    return np.asarray(Image.fromarray(mask).transpose(transposes[orientation]))


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write tampered pixels, bool ``(H, W)``, as a single-channel PNG of 0 and 255."""
    write_png(path, np.where(mask, 255, 0).astype(np.uint8))


def _convert(conversion: Conversion, job: Job) -> dict:
    source, out = conversion.source / job.image, conversion.out
    suffix = source.suffix
    target = safe_path(out, f"{job.target}{suffix}", nested=True)
    mask_target = safe_path(out, job.mask_target, nested=True) if job.mask is not None else None
    mask: np.ndarray | None = None
    record: dict = {}
    with open_image(source) as image:
        size = _reduced_size(image.size, conversion.max_side)
        is_reduced = size != image.size
        if job.mask is not None:
            mask, record = _read_mask(conversion.source / job.mask, image, conversion, job)
        if is_reduced:
            suffix = _save_reduced(image, size, out / job.target, suffix)
        else:
            _copy_or_link(source, target, link=conversion.link)
    record["target"] = f"{job.target}{suffix}"
    if mask is not None and mask_target is not None:
        write_mask(mask_target, reduce_mask(mask, size) if is_reduced else mask)
        record["mask_target"] = job.mask_target
    return record


def _fault(name: str, error: ImageError) -> str:
    remedy = ": download it again" if error.reason.startswith("is empty") else ""
    return f"{name} {error.reason}{remedy}"


def _read_mask(
    path: Path, image: Image.Image, conversion: Conversion, job: Job
) -> tuple[np.ndarray, dict]:
    """Return the tampered pixels, bool and of the image's size, and the fields to record."""
    dataset = conversion.dataset
    record: dict = {}
    is_array = path.suffix.lower() == ".npz"
    try:
        values = read_array(path) if is_array else _read_rgb_mask(path)
    except ImageError as error:
        raise _LeftOutError(_fault(f"its mask {path.name}", error)) from None
    mask = dataset.read_mask(values)
    if dataset.mask_rule in ("white", "black"):
        sums = channel_sum(values)
        if grey := round(float(((sums > 0) & (sums < 765)).mean()), 4):
            record["grey"] = grey
    if mask.shape[::-1] != image.size:
        mask, record["repaired"] = _fit_mask(mask, image, conversion, job)
    if not mask.any():
        raise _LeftOutError(f"its mask {path.name} is empty ({dataset.rule})")
    return mask, record


def _read_rgb_mask(path: Path) -> np.ndarray:
    """Read a mask's values, uint8 ``(H, W, 3)``; 16-bit values are reduced to 8 bits."""
    with open_image(path) as image:
        if not image.mode.startswith(("I", "F")):
            return rgb_pixels(image)
        with decoding():
            values = np.asarray(image).astype(np.float32)
    values = (values / 257 if values.max() > 255 else values).astype(np.uint8)
    return np.repeat(values[..., None], 3, axis=-1)


def _fit_mask(
    mask: np.ndarray, image: Image.Image, conversion: Conversion, job: Job
) -> tuple[np.ndarray, str]:
    """Fit a mask of a different size to its image, and describe how."""
    (height, width), size = mask.shape, image.size
    transposed = mask.shape == size
    orientation = exif_orientation(image)
    if transposed and orientation in TRANSPOSED_ORIENTATIONS:
        is_oriented = image.format in ORIENTED_BY_PILLOW
        how = "mask rotated according to the image's EXIF orientation"
        return rotate_mask(mask, orientation, is_oriented=is_oriented), how
    dataset = conversion.dataset
    known = "known fault: " if PurePosixPath(job.image).stem in dataset.known_faults else ""
    fault = f"{known}mask {width}x{height}, image {size[0]}x{size[1]}"
    if PurePosixPath(job.target).parents[1] != PurePosixPath(job.mask_target).parents[1]:
        raise _LeftOutError(f"{fault}, and the mask is shared with another subset")
    if not conversion.repair:
        raise _LeftOutError(f"{fault}; {dataset.remedy}, or use --repair")
    if transposed:
        how = "mask rotated by 90 degrees counter-clockwise; check whether this is correct"
        return np.ascontiguousarray(np.rot90(mask)), f"{fault}; {how}"
    resized = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return resized > 0, f"{fault}; mask resized with nearest-neighbor interpolation"


def _reduced_size(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Limit the longer side to ``max_side`` unless that is 0."""
    scale = max_side / max(size)
    if not max_side or scale >= 1:
        return size
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _save_reduced(image: Image.Image, size: tuple[int, int], target: Path, suffix: str) -> str:
    """Write a downscaled image as JPEG if it was one, else as PNG; return its suffix."""
    with decoding():
        pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    reduced = Image.fromarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    options: dict[str, Any] = {"format": "JPEG", "quality": JPEG_QUALITY, "subsampling": 0}
    if image.format not in ("JPEG", "MPO"):
        suffix, options = ".png", {"format": "PNG"}
    elif suffix.lower() not in (".jpg", ".jpeg"):
        suffix = ".jpg"
    with atomic_write(target.with_name(f"{target.name}{suffix}")) as temporary:
        reduced.save(temporary, **options)
    return suffix


def _copy_or_link(source: Path, target: Path, *, link: bool) -> None:
    if link:
        target.unlink(missing_ok=True)
        with suppress(OSError):  # For example, the target is on another file system.
            os.link(source.resolve(), target)
            return
    copy_file(source, target)
