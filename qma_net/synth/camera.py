"""What a camera and an editor leave in pixels: noise, blur, JPEG."""

import cv2
import numpy as np


def _saved_before(rng, image, chance, quality) -> tuple[np.ndarray, int | None]:
    """The image, saved as JPEG by chance, and the quality if it was."""
    if rng.random() >= chance:
        return image, None
    quality = int(rng.integers(*quality, endpoint=True))
    data = np.frombuffer(_jpeg(image, quality), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR), quality


def _finished(rng, image, recipe) -> tuple[bytes, dict]:
    """JPEG bytes of the image after blur and noise, and what was drawn for them."""
    blur = rng.uniform(*recipe.blur_sigma) if rng.random() < recipe.blur else None
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    noise = rng.uniform(*recipe.noise_sigma) if rng.random() < recipe.noise else None
    if noise:
        image = _noisy(rng, image, noise)
    quality = int(rng.integers(*recipe.final_quality, endpoint=True))
    full_colour = bool(rng.random() < recipe.final_full_colour)
    ending = {
        "blur": blur,
        "noise": noise,
        "final_quality": quality,
        "final_full_colour": full_colour,
    }
    return _jpeg(image, quality, full_colour), ending


def _noisy(rng, image, sigma) -> np.ndarray:
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(sigma)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def _is_grey(photo: np.ndarray) -> bool:
    return bool((photo == photo[..., :1]).all())


def _jpeg(image: np.ndarray, quality: int, full_colour: bool = False) -> bytes:
    """JPEG bytes; colour at half resolution as cameras save it, or in full as editors do."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if full_colour:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", image, options)[1].tobytes()


def _png(mask: np.ndarray) -> bytes:
    return cv2.imencode(".png", mask)[1].tobytes()
