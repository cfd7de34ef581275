"""Traces of cameras and editors: noise, blur and JPEG compression."""

import io
import json
from functools import cache
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..core.files import config_path
from .recipe import Recipe

INTERPOLATIONS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)


def maybe_compress(
    rng: np.random.Generator, image: np.ndarray, *, probability: float, quality: tuple[int, int]
) -> tuple[np.ndarray, int | None]:
    """Save an image as JPEG with the given probability; return it and the quality, if saved."""
    if rng.random() >= probability:
        return image, None
    drawn = int(rng.integers(*quality, endpoint=True))
    return _compressed(image, drawn), drawn


def encode_final(
    rng: np.random.Generator, image: np.ndarray, recipe: Recipe
) -> tuple[bytes, dict[str, Any]]:
    """Blur an image, uint8 ``(H, W, 3)``, add noise and encode it, as drawn from the recipe.

    Returns:
        The bytes of a file, and values for the manifest: ``format`` is ``"jpg"`` or ``"png"``, and
        ``final_quality`` and ``final_full_colour`` are None unless the file was saved with them.
    """
    blur = rng.uniform(*recipe.blur_sigma) if rng.random() < recipe.blur else None
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    noise = rng.uniform(*recipe.noise_sigma) if rng.random() < recipe.noise else None
    if noise:
        image = add_noise(rng, image, noise)
    quality = int(rng.integers(*recipe.final_quality, endpoint=True))
    full_colour = bool(rng.random() < recipe.final_full_colour)
    drawn = dict(blur=blur, noise=noise, format="jpg", final_quality=None, final_full_colour=None)
    if recipe.lossless and rng.random() < recipe.lossless:
        return encode_png(image), drawn | {"format": "png"}
    if recipe.found_tables and rng.random() < recipe.found_tables:
        number = int(rng.integers(len(found_tables())))
        return encode_with_tables(image, number), drawn | {"final_tables": number}
    drawn |= {"final_quality": quality, "final_full_colour": full_colour}
    return _encode_jpeg(image, quality, full_colour), drawn


def maybe_reduce(
    rng: np.random.Generator,
    image: np.ndarray,
    mask: np.ndarray,
    frame: tuple[int, int],
    recipe: Recipe,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Adjust the tones, save as JPEG, downscale to ``frame`` and save again, each as drawn.

    Returns:
        The image and the mask, both of the size ``frame`` (height, width), and the drawn values.
    """
    drawn: dict[str, Any] = {}
    if rng.random() < recipe.toned:
        drawn["tone"] = rng.uniform(0.75, 1.3)
        levels = 255 * (np.arange(256) / 255) ** drawn["tone"]
        image = cv2.LUT(image, np.rint(levels).astype(np.uint8))
    height, width = frame
    if image.shape[:2] != frame:
        if rng.random() < recipe.saved_before_reduction:
            image, drawn["saved_before_reduction"] = _saved(rng, image, recipe)
        drawn["interpolation"] = int(rng.integers(len(INTERPOLATIONS)))
        drawn["reduced_from"] = list(image.shape[:2])
        how = INTERPOLATIONS[drawn["interpolation"]]
        image = cv2.resize(image, (width, height), interpolation=how)
        smaller = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
        threshold = min(128, max(1, int(smaller.max())))  # Less than 128 if the region is thin.
        mask = np.where(smaller >= threshold, 255, 0).astype(np.uint8)
    if rng.random() < recipe.saved_twice:
        image, drawn["saved_before"] = _saved(rng, image, recipe)
    return image, mask, drawn


def _saved(rng: np.random.Generator, image: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, str]:
    """Save an image as JPEG and read it back; return it and the tables or quality, as text."""
    if rng.random() < recipe.found_tables:
        number = int(rng.integers(len(found_tables())))
        return _decoded(encode_with_tables(image, number)), f"tables {number}"
    quality = int(rng.integers(*recipe.final_quality, endpoint=True))
    full_colour = bool(rng.random() < recipe.final_full_colour)
    return _decoded(_encode_jpeg(image, quality, full_colour)), f"quality {quality}"


@cache
def found_tables() -> list[dict[str, Any]]:
    """Read the quantization tables that were found in photos.

    Each entry has ``sampling``, ``found`` (numbers of photos by folder) and ``tables``, lists of 64
    numbers in row order. If it has ``libjpeg_quality``, its tables are the standard IJG (libjpeg)
    tables of this quality.
    """
    tables: list[dict[str, Any]] = json.loads(
        config_path("quantization_tables.json").read_text(encoding="utf-8")
    )
    return tables


def encode_with_tables(image: np.ndarray, number: int) -> bytes:
    """Encode an image, uint8 ``(H, W, 3)`` BGR, with tables ``number`` of :func:`found_tables`."""
    entry, file = found_tables()[number], io.BytesIO()
    picture = Image.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    picture.save(file, "JPEG", qtables=entry["tables"], subsampling=entry["sampling"])
    return file.getvalue()


def compress_on_shifted_grid(image: np.ndarray, quality: int, shift: tuple[int, int]) -> np.ndarray:
    """Save an image, uint8 ``(H, W, 3)``, as JPEG with blocks shifted by (rows, columns)."""
    rows, columns = shift
    padded = cv2.copyMakeBorder(image, rows, 0, columns, 0, cv2.BORDER_REFLECT_101)
    return _compressed(padded, quality)[rows:, columns:]


def add_noise(rng: np.random.Generator, image: np.ndarray, sigma: float) -> np.ndarray:
    """Add white noise of ``sigma`` gray levels to an image, uint8 ``(H, W, 3)``."""
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(sigma)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def encode_png(image: np.ndarray) -> bytes:
    """Encode an image or a mask, uint8 ``(H, W, 3)`` or ``(H, W)``, as PNG."""
    return cv2.imencode(".png", image)[1].tobytes()


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    return _decoded(_encode_jpeg(image, quality))


def _decoded(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def _encode_jpeg(image: np.ndarray, quality: int, full_colour: bool = False) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if full_colour:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", image, options)[1].tobytes()
