"""What needs no training: marking everything, and the noise of the photograph itself."""

import cv2
import numpy as np

BLOCK = 8  # of the finest wavelet band: 16 pixels of the photograph
MAD_OF_GAUSSIAN = 0.6745


def everything(rgb: np.ndarray) -> np.ndarray:
    """A mask of ones, float ``(H, W)``, for uint8 ``(H, W, 3)``."""
    return np.ones(rgb.shape[:2])


def noise_inconsistency(rgb: np.ndarray) -> np.ndarray:
    """Blocks whose noise differs from the photograph's (Mahdian & Saic 2009).

    Their steps: the diagonal band of a wavelet transform of the luminance; in every block the
    median of its absolute values over 0.6745, which estimates the noise's standard deviation;
    blocks of like noise belong together. Here: the wavelet is Haar's, and two groups are
    told apart by Otsu's threshold on the distance of a block's noise from the median block's, in
    octaves.

    Args:
        rgb: uint8 ``(H, W, 3)``.

    Returns:
        float ``(H, W)`` in 0..1, above 0.5 beyond the threshold.
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float64)
    height, width = (side // (2 * BLOCK) * (2 * BLOCK) for side in grey.shape)
    grey = grey[:height, :width]
    diagonal = (grey[::2, ::2] - grey[1::2, ::2] - grey[::2, 1::2] + grey[1::2, 1::2]) / 2
    blocks = diagonal.reshape(height // 2 // BLOCK, BLOCK, width // 2 // BLOCK, BLOCK)
    noise = np.median(np.abs(blocks), axis=(1, 3)) / MAD_OF_GAUSSIAN
    octaves = np.log2(noise + 0.25)  # a quarter of a grey level is no noise
    distance = np.abs(octaves - np.median(octaves))
    scaled = np.uint8(np.round(255 * distance / max(distance.max(), 1e-9)))
    threshold, _ = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    above = np.where(
        scaled > threshold,
        0.5 + (scaled - threshold) / (2 * max(255 - threshold, 1)),
        0.5 * scaled / max(threshold, 1),
    )
    return cv2.resize(above, rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST)


BASELINES = {"marking everything": everything, "noise of blocks": noise_inconsistency}
