"""What a camera and an editor leave in pixels: noise, blur, JPEG."""

import cv2
import numpy as np

from .recipe import Recipe


def perhaps_saved_before(
    rng: np.random.Generator, image: np.ndarray, *, chance: float, quality: tuple[int, int]
) -> tuple[np.ndarray, int | None]:
    """The image, uint8 ``(H, W, 3)``, saved as JPEG by chance, and the quality if it was."""
    if rng.random() >= chance:
        return image, None
    quality = int(rng.integers(*quality, endpoint=True))
    return _saved(image, quality), quality


def final_file(rng: np.random.Generator, image: np.ndarray, recipe: Recipe) -> tuple[bytes, dict]:
    """The file that an image, uint8 ``(H, W, 3)``, ends as: blurred and noisy by chance.

    A JPEG, or where the recipe has it and by chance a PNG: its ``final_quality`` is ``None``.

    Returns:
        The file's bytes, and what was drawn for them, as the manifest has it.
    """
    blur = rng.uniform(*recipe.blur_sigma) if rng.random() < recipe.blur else None
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    noise = rng.uniform(*recipe.noise_sigma) if rng.random() < recipe.noise else None
    if noise:
        image = with_noise(rng, image, noise)
    quality = int(rng.integers(*recipe.final_quality, endpoint=True))
    full_colour = bool(rng.random() < recipe.final_full_colour)
    drawn = {
        "blur": blur,
        "noise": noise,
        "final_quality": quality,
        "final_full_colour": full_colour,
    }
    if recipe.lossless and rng.random() < recipe.lossless:
        return png_bytes(image), drawn | {"final_quality": None}
    return _jpeg_bytes(image, quality, full_colour), drawn


def saved_on_another_grid(image: np.ndarray, quality: int, shift: tuple[int, int]) -> np.ndarray:
    """The image, uint8 ``(H, W, 3)``, saved as JPEG with its blocks shifted by (rows, columns)."""
    rows, columns = shift
    padded = cv2.copyMakeBorder(image, rows, 0, columns, 0, cv2.BORDER_REFLECT_101)
    return _saved(padded, quality)[rows:, columns:]


def with_noise(rng: np.random.Generator, image: np.ndarray, sigma: float) -> np.ndarray:
    """The image, uint8 ``(H, W, 3)``, with white noise of ``sigma`` grey levels."""
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(sigma)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def is_grey(photo: np.ndarray) -> bool:
    """Whether a photograph, uint8 ``(H, W, 3)``, has three equal channels."""
    return bool((photo == photo[..., :1]).all())


def png_bytes(image: np.ndarray) -> bytes:
    """The PNG file of an image or a mask, uint8 ``(H, W, 3)`` or ``(H, W)``."""
    return cv2.imencode(".png", image)[1].tobytes()


def _saved(image: np.ndarray, quality: int) -> np.ndarray:
    """What is read of an image, uint8 ``(H, W, 3)``, that was saved as JPEG."""
    data = np.frombuffer(_jpeg_bytes(image, quality), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def _jpeg_bytes(image: np.ndarray, quality: int, full_colour: bool = False) -> bytes:
    """The JPEG file; colour at half resolution as cameras save it, or in full as editors do."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if full_colour:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", image, options)[1].tobytes()
