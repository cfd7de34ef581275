"""Baselines without training: marking every pixel, and detecting inconsistent noise."""

import cv2
import numpy as np

BLOCK = 8  # Block side in the finest wavelet band: 16 pixels of the image.
MAD_OF_GAUSSIAN = 0.6745


def everything(rgb: np.ndarray) -> np.ndarray:
    """Return a mask of ones, float ``(H, W)``, for an image uint8 ``(H, W, 3)``."""
    return np.ones(rgb.shape[:2])


def noise_inconsistency(rgb: np.ndarray) -> np.ndarray:
    """Find blocks whose noise level differs from the rest of the image (Mahdian & Saic 2009).

    The method takes the diagonal band of a wavelet transform of the luminance, estimates the
    standard deviation of the noise in every block as the median of the absolute values divided by
    0.6745, and groups blocks of similar noise. This implementation uses the Haar wavelet and
    separates two groups by Otsu's threshold on the distance, in octaves, between the noise of a
    block and that of the median block.

    Args:
        rgb: Image, uint8 ``(H, W, 3)``.

    Returns:
        Mask, float ``(H, W)`` in 0..1; values above 0.5 are beyond the threshold.
    """
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float64)
    height, width = (side // (2 * BLOCK) * (2 * BLOCK) for side in gray.shape)
    gray = gray[:height, :width]
    diagonal = (gray[::2, ::2] - gray[1::2, ::2] - gray[::2, 1::2] + gray[1::2, 1::2]) / 2
    blocks = diagonal.reshape(height // 2 // BLOCK, BLOCK, width // 2 // BLOCK, BLOCK)
    noise = np.median(np.abs(blocks), axis=(1, 3)) / MAD_OF_GAUSSIAN
    octaves = np.log2(noise + 0.25)  # The offset ignores noise far below a gray level.
    distance = np.abs(octaves - np.median(octaves))
    scaled = np.uint8(np.round(255 * distance / max(distance.max(), 1e-9)))
    threshold, _ = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    above = np.where(
        scaled > threshold,
        0.5 + (scaled - threshold) / (2 * max(255 - threshold, 1)),
        0.5 * scaled / max(threshold, 1),
    )
    return cv2.resize(above, rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST)


# The keys are the names in the CSV files; TITLES has the names on the page.
BASELINES = {"marking everything": everything, "noise of blocks": noise_inconsistency}
TITLES = {"marking everything": "every pixel marked", "noise of blocks": "block noise"}
