"""Traces of cameras and editors: noise, blur and JPEG compression."""

from typing import Any

import cv2
import numpy as np

from .recipe import Recipe


def maybe_compress(
    rng: np.random.Generator, image: np.ndarray, *, probability: float, quality: tuple[int, int]
) -> tuple[np.ndarray, int | None]:
    """Save an image as JPEG with a probability; return it and the quality, None if not saved."""
    if rng.random() >= probability:
        return image, None
    drawn = int(rng.integers(*quality, endpoint=True))
    return _compressed(image, drawn), drawn


def encode_final(
    rng: np.random.Generator, image: np.ndarray, recipe: Recipe
) -> tuple[bytes, dict[str, Any]]:
    """Blur an image, uint8 ``(H, W, 3)``, add noise and encode it, as drawn from the recipe.

    Returns:
        The bytes of a JPEG or PNG file, and the drawn values for the manifest; ``final_quality``
        is None for a PNG.
    """
    blur = rng.uniform(*recipe.blur_sigma) if rng.random() < recipe.blur else None
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    noise = rng.uniform(*recipe.noise_sigma) if rng.random() < recipe.noise else None
    if noise:
        image = add_noise(rng, image, noise)
    quality = int(rng.integers(*recipe.final_quality, endpoint=True))
    full_colour = bool(rng.random() < recipe.final_full_colour)
    drawn = dict(blur=blur, noise=noise, final_quality=quality, final_full_colour=full_colour)
    if recipe.lossless and rng.random() < recipe.lossless:
        return encode_png(image), drawn | {"final_quality": None}
    return _encode_jpeg(image, quality, full_colour), drawn


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
    data = np.frombuffer(_encode_jpeg(image, quality), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def _encode_jpeg(image: np.ndarray, quality: int, full_colour: bool = False) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if full_colour:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", image, options)[1].tobytes()
