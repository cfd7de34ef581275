"""Noise views of a photo: SRM, NoisePrint++ and error levels."""

import io

import cv2
import numpy as np
import torch
from PIL import Image

from ...core.images import open_image, rgb_pixels
from ...modeling.noise import SRM, NoisePrint
from .lead import WINDOW, Lead, middle

NOISEPRINT_WINDOW = 1536  # Pixels; NoisePrint++ takes seconds per million pixels.

# Near the image border NoisePrint++ sees its zero padding, which looks like an edge.
BORDER = NoisePrint.depth

WHITE_PERCENTILE = 99.5  # This percentile of a view is shown as white.

ELA_QUALITY = 90  # Higher than on most websites, lower than in most cameras.
ELA_GAIN = 25

SRM_REFERENCE = "Fridrich and Kodovsky, Rich models for steganalysis of digital images, 2012"
NOISEPRINT_REFERENCE = (
    "Guillaro et al., TruFor: leveraging all-round clues for trustworthy image forgery detection "
    "and localization, 2023"
)
ELA_REFERENCE = "Krawetz, A picture's worth: digital image analysis and forensics, 2007"

SRM_WORDS = (
    "The noise residual: the output of three small high-pass filters from the steganalysis rich "
    "model (SRM). A pasted or repainted part can be smoother or rougher than the rest.",
    "Sky, defocused areas, heavily compressed areas and skin smoothed by a phone are dark; "
    "foliage, gravel, fabric and every edge are bright.",
)
NOISEPRINT_WORDS = (
    "The output of a network trained to distinguish cameras (NoisePrint++). A different "
    "camera or processing history can have a different texture; the shape of an inserted object "
    "can appear.",
    "Saturated, dark and plain areas look different in every photo, and heavy compression or "
    "resizing replaces the texture everywhere. The frame along the border is an artifact "
    "of the network.",
)
ELA_WORDS = (
    "How much each pixel changes when the image is saved again as JPEG with quality "
    f"{ELA_QUALITY}, amplified {ELA_GAIN} times (error level analysis). A part with a different "
    "compression history can stand out among parts that otherwise look similar.",
    "Edges, texture, text and saturated colors are usually bright, and plain areas dark. In images "
    "from messaging apps or websites, all levels are often similar, so nothing stands out.",
)


def noise_views(pixels: np.ndarray, noiseprint: NoisePrint | None = None) -> list[Lead]:
    """Compute the views of a photo: SRM, NoisePrint++ if it is given, and error levels.

    Args:
        pixels: uint8 ``(H, W, 3)`` RGB, at least 32x32.
        noiseprint: NoisePrint++ with its weights; None to omit its view.
    """
    inner, _, window = middle(pixels, WINDOW)
    views = [Lead("SRM", srm_strength(inner), *SRM_WORDS, window, reference=SRM_REFERENCE)]
    if noiseprint is not None:
        part, _, part_window = middle(pixels, NOISEPRINT_WINDOW)
        picture = noiseprint_texture(part, noiseprint)
        views.append(
            Lead(
                "NoisePrint++",
                picture,
                *NOISEPRINT_WORDS,
                part_window,
                reference=NOISEPRINT_REFERENCE,
            )
        )
    levels = error_levels(inner)
    views.append(Lead("Error levels", levels, *ELA_WORDS, window, reference=ELA_REFERENCE))
    return views


def srm_strength(pixels: np.ndarray) -> np.ndarray:
    """Compute the mean strength of the three residuals of :class:`SRM`, uint8 ``(H, W)``."""
    channel_sum = pixels.sum(axis=2, dtype=np.float32)  # Each kernel runs over all channels.
    strength = np.zeros_like(channel_sum)
    for kernel in SRM().kernels[:, 0].numpy():
        strength += np.abs(cv2.filter2D(channel_sum, -1, kernel, borderType=cv2.BORDER_REFLECT_101))
    return _stretched(strength, 0.0, float(np.percentile(strength, WHITE_PERCENTILE)))


@torch.inference_mode()
def noiseprint_texture(pixels: np.ndarray, noiseprint: NoisePrint) -> np.ndarray:
    """Compute NoisePrint++, uint8 ``(H, W)``, with its contrast stretched to fit its inner part."""
    device = next(noiseprint.parameters()).device
    image = torch.tensor(pixels, device=device).permute(2, 0, 1)[None]  # (1, 3, H, W)
    texture = noiseprint(image.float() / 256)[0, 0].cpu().numpy()  # (H, W)
    inner = texture[BORDER:-BORDER, BORDER:-BORDER] if min(texture.shape) > 4 * BORDER else texture
    return _stretched(texture, *np.percentile(inner, (100 - WHITE_PERCENTILE, WHITE_PERCENTILE)))


def error_levels(pixels: np.ndarray) -> np.ndarray:
    """Compute the amplified change of pixels saved again as JPEG, uint8 ``(H, W, 3)``."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=ELA_QUALITY)
    resaved = rgb_pixels(open_image(file.getvalue(), max_pixels=pixels.size))
    return cv2.convertScaleAbs(cv2.absdiff(pixels, resaved), alpha=ELA_GAIN)


def _stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = (values - low) * (255 / max(high - low, 1e-6))
    return scaled.clip(0, 255).astype(np.uint8)
