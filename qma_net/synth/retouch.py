"""Local edits of a region: blur, sharpening, tones, colors, noise and mosaics."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from .camera import add_noise
from .recipe import Recipe


def retouch(
    rng: np.random.Generator, host: np.ndarray, region: np.ndarray, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return the edited region, the host after the edit (uint8 ``(H, W, 3)``), and its history.

    An edit that changes no pixel of the region, such as other colors in a gray photo, is replaced
    by the next one.
    """
    names = list(EDITS)
    first = rng.integers(len(names))
    for name in (*names[first:], *names[:first]):
        edited = EDITS[name](rng, host)
        if (edited != host)[region > 0].any():
            break
    return region, edited, {"edit": name}


def _blur(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(1.0, 4.0))


def _sharpen(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.8, 2.0))
    amount = rng.uniform(0.8, 2.0)
    return cv2.addWeighted(image, 1 + amount, blurred, -amount, 0)


def _tones(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    gain, shift = rng.uniform(0.6, 1.5), rng.uniform(20, 50) * rng.choice([-1, 1])
    levels = 128 + gain * (np.arange(256) - 128) + shift
    return cv2.LUT(image, np.rint(levels).clip(0, 255).astype(np.uint8))


def _colors(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + rng.uniform(15, 165)) % 180
    hsv[..., 1] = (hsv[..., 1] * rng.uniform(0.5, 1.8)).clip(0, 255)
    return cv2.cvtColor(np.rint(hsv).astype(np.uint8), cv2.COLOR_HSV2BGR)


def _noise(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    return add_noise(rng, image, rng.uniform(3.0, 10.0))


def _mosaic(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    side = int(rng.integers(4, 12))
    small = cv2.resize(
        image, (max(1, width // side), max(1, height // side)), interpolation=cv2.INTER_AREA
    )
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


Edit = Callable[[np.random.Generator, np.ndarray], np.ndarray]
EDITS: dict[str, Edit] = {
    "blur": _blur,
    "sharpen": _sharpen,
    "tones": _tones,
    "colors": _colors,
    "noise": _noise,
    "mosaic": _mosaic,
}
