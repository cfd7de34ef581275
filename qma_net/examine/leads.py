"""Noise views of a photograph for a person to look at: leads, not findings."""

import io
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image

from ..core.images import open_image, rgb_pixels
from ..modeling.noise import SRM, NoisePrint

WINDOW = 8192  # pixels; of a longer side, the middle is looked at
NOISEPRINT_WINDOW = 1536  # the same for NoisePrint++, which takes seconds for each million pixels

# As far in as NoisePrint++ sees beyond the picture's edge, where its zeros look like an edge.
BORDER = NoisePrint.depth

STRONGEST = 99.5  # percentile of a view that is shown as white

ELA_QUALITY = 90  # of the second compression: above most of the web's, below most cameras'
ELA_GAIN = 25

SRM_WORDS = (
    "The picture without its content: what three small high-pass filters leave (the rich models of "
    "steganalysis). A pasted or repainted part can be smoother or rougher than what surrounds it.",
    "Sky, defocus, skin smoothed by a phone and strong compression are dark; foliage, gravel, "
    "fabric and every edge are bright. None of this is a trace.",
)
NOISEPRINT_WORDS = (
    "What a network trained to tell cameras apart sees (NoisePrint++). Parts from another camera "
    "or another history can have another texture; the shape of an object cut out can appear.",
    "Saturated, dark and plain areas look different in every photograph, and strong compression or "
    "resizing replaces the texture everywhere. The frame along the border is the network's own.",
)
ELA_WORDS = (
    "How much each pixel changes when the picture is saved again as JPEG of quality "
    f"{ELA_QUALITY}, {ELA_GAIN} times enlarged (error-level analysis). A part with another history "
    "of compression can stand out among parts that look alike otherwise.",
    "Edges, texture, text and saturated colours are always bright and plain areas dark. On a "
    "picture that passed a messenger or a web site all levels are alike, and nothing can be seen.",
)


@dataclass(frozen=True)
class Lead:
    """One view for a person to look at.

    Attributes:
        name: what it is called.
        picture: uint8 ``(h, w)`` or ``(h, w, 3)``, at the photograph's own size.
        meaning: what it shows.
        innocent: what looks suspicious in it and is not.
        window: which part of the photograph it covers, in words; empty for the whole.
    """

    name: str
    picture: np.ndarray
    meaning: str
    innocent: str
    window: str = ""


def leads(pixels: np.ndarray, noiseprint: NoisePrint | None = None) -> tuple[Lead, ...]:
    """The views of a photograph: SRM, NoisePrint++ where its weights are there, error levels.

    Args:
        pixels: uint8 ``(H, W, 3)`` RGB, at least 32x32.
        noiseprint: with its weights, where they are given.
    """
    middle, window = _middle(pixels, WINDOW)
    views = [Lead("SRM", srm_strength(middle), *SRM_WORDS, window)]
    if noiseprint is not None:
        seen, where = _middle(pixels, NOISEPRINT_WINDOW)
        views.append(
            Lead("NoisePrint++", noiseprint_texture(seen, noiseprint), *NOISEPRINT_WORDS, where)
        )
    views.append(Lead("Error levels", error_levels(middle), *ELA_WORDS, window))
    return tuple(views)


def srm_strength(pixels: np.ndarray) -> np.ndarray:
    """Mean strength of the three residuals of :class:`SRM`, uint8 ``(H, W)``, scaled to itself."""
    added = pixels.sum(axis=2, dtype=np.float32)  # each kernel runs over all three channels
    strength = np.zeros_like(added)
    for kernel in SRM().kernels[:, 0].numpy():
        strength += np.abs(cv2.filter2D(added, -1, kernel, borderType=cv2.BORDER_REFLECT_101))
    return _stretched(strength, 0.0, float(np.percentile(strength, STRONGEST)))


@torch.inference_mode()
def noiseprint_texture(pixels: np.ndarray, noiseprint: NoisePrint) -> np.ndarray:
    """NoisePrint++, uint8 ``(H, W)``, stretched over what it has inside the border."""
    device = next(noiseprint.parameters()).device
    image = torch.tensor(pixels, device=device).permute(2, 0, 1)[None]  # (1, 3, H, W)
    texture = noiseprint(image.float() / 256)[0, 0].cpu().numpy()  # (H, W)
    inner = texture[BORDER:-BORDER, BORDER:-BORDER] if min(texture.shape) > 4 * BORDER else texture
    return _stretched(texture, *np.percentile(inner, (100 - STRONGEST, STRONGEST)))


def error_levels(pixels: np.ndarray) -> np.ndarray:
    """Difference to the same picture saved again as JPEG, uint8 ``(H, W, 3)``."""
    saved = io.BytesIO()
    Image.fromarray(pixels).save(saved, "JPEG", quality=ELA_QUALITY)
    again = rgb_pixels(open_image(saved.getvalue()))
    return cv2.convertScaleAbs(cv2.absdiff(pixels, again), alpha=ELA_GAIN)


def _stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = (values - low) * (255 / max(high - low, 1e-6))
    return scaled.clip(0, 255).astype(np.uint8)


def _middle(pixels: np.ndarray, most: int) -> tuple[np.ndarray, str]:
    """The middle of a picture whose sides are longer than ``most``, and words on it."""
    height, width = pixels.shape[:2]
    h, w = min(height, most), min(width, most)
    if (h, w) == (height, width):
        return pixels, ""
    top, left = (height - h) // 2, (width - w) // 2
    return pixels[top : top + h, left : left + w], f"the middle {w}x{h} pixels"
