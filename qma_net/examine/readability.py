"""Regions that the model cannot judge, detected by fixed rules.

The model looks for differences in noise and detail. Where a photo has too little of both, its
output is unreliable.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

BLOCK = 8  # Pixels; the block size of JPEG.
STRIP = 32  # Rows of blocks that are processed together, to bound memory.

# The values of `Readability.reasons`.
READABLE, CLIPPED, FLAT, COMPRESSED, SMOOTH, MISSING = range(6)
REASONS = {
    CLIPPED: "clipped: black or white, for example under- or overexposed",
    FLAT: "flat: all pixels are exactly equal, as in graphics and borders",
    COMPRESSED: "compressed: no brightness detail is left in the block",
    SMOOTH: "smooth: less noise than rounding to 8 bits causes, for example because of blur, "
    "denoising or compression",
    MISSING: "missing: the file ends before the data of these pixels is complete",
}
NAMES = {
    CLIPPED: "clipped",
    FLAT: "flat",
    COMPRESSED: "compressed",
    SMOOTH: "smooth",
    MISSING: "missing",
}

# A pixel is clipped if all three channels are at an end of the range; a single clipped channel
# leaves noise in the others. The limits are one level short of the end because of JPEG's rounding.
DARKEST, BRIGHTEST = 1, 254
# The rest of the block may contain the edge of a bright object.
CLIPPED_SHARE = 0.75

# If all JPEG coefficients of a block except the mean are zero, its luma is constant, and the luma
# of its RGB pixels varies only by rounding, half a level in each direction. The smallest
# coefficient that quality 95 keeps (2) changes luma by more at nearly every pixel.
LUMA = (0.299, 0.587, 0.114)
ROUNDING_RANGE = 1.01

# Rounding to whole levels is noise with standard deviation 1 / sqrt(12) = 0.29; measured over one
# block, it is nearly always below 0.35. Noise is estimated from second differences, which ignore
# slopes: along rows, along columns, and along both (Immerkaer 1996). All three must be small, or an
# edge along a row or column would count as smooth.
ROUNDING_NOISE = 0.35
SECOND_NORM, BOTH_NORM = 6**0.5, 6.0  # Norms of (1, -2, 1) and of its outer product.


@dataclass(frozen=True)
class Readability:
    """Where a photo has too little noise or detail for the model, and why.

    Attributes:
        reasons: uint8 ``(H, W)``: 0 where the photo is readable, otherwise a key of ``REASONS``.
    """

    reasons: np.ndarray

    @property
    def unreadable(self) -> np.ndarray:
        """Bool ``(H, W)``: the pixels that the model cannot judge."""
        return self.reasons != READABLE

    @property
    def share(self) -> float:
        """Fraction of the pixels that the model cannot judge."""
        return float(np.count_nonzero(self.reasons) / self.reasons.size)

    @property
    def shares(self) -> Mapping[str, float]:
        """Fraction of the pixels for each reason, by the name of the reason."""
        return {name: float(np.mean(self.reasons == value)) for value, name in NAMES.items()}


def readability(
    pixels: np.ndarray,
    *,
    is_jpeg: bool = False,
    orientation: int = 1,
    present: tuple[slice, slice] = (slice(None), slice(None)),
) -> Readability:
    """Map the readability of pixels in blocks of 8x8 pixels.

    Args:
        pixels: uint8 ``(H, W, 3)`` RGB, as displayed.
        is_jpeg: Whether the pixels come directly from a JPEG. The blocks are then its own, and
            those that have lost their detail count as compressed.
        orientation: The EXIF orientation that was applied; it determines where the blocks are.
        present: The rows and columns that the file contains if it is truncated; by default all.
    """
    height, width = pixels.shape[:2]
    left, top = first_block(width, height, orientation) if is_jpeg else (0, 0)
    rows, first_row = _covered(height, top)
    columns, first_column = _covered(width, left)
    reasons = np.empty((len(rows) // BLOCK, len(columns) // BLOCK), np.uint8)
    for start in range(0, len(reasons), STRIP):
        strip_rows = rows[start * BLOCK : (start + STRIP) * BLOCK]
        strip = pixels[strip_rows][:, columns]  # (h, w, 3)
        blocks = strip.reshape(len(strip_rows) // BLOCK, BLOCK, -1, BLOCK, 3).swapaxes(1, 2)
        reasons[start : start + STRIP] = _reasons(blocks, is_jpeg)
    full = reasons.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
    full = full[first_row:, first_column:][:height, :width]
    reasons = np.full_like(full, MISSING)
    reasons[present] = full[present]
    return Readability(reasons)


def first_block(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Return the position ``(x, y)`` of the first complete block of a displayed JPEG.

    After mirroring, the last block of the stored image, which is often narrower, comes first.
    """
    left = width % BLOCK if orientation in (2, 3, 6, 7) else 0
    top = height % BLOCK if orientation in (3, 4, 7, 8) else 0
    return left, top


def hatched(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Draw diagonal lines, dark next to bright, over a bool ``(H, W)`` region of a uint8 image."""
    height, width = region.shape
    line = max(1, round(max(height, width) / 600))
    diagonal = (np.arange(height)[:, None] + np.arange(width)) // line % 8
    drawn = image.copy()
    drawn[region & (diagonal == 0)] = 235
    drawn[region & (diagonal == 1)] = 20
    return drawn


def _covered(length: int, first: int) -> tuple[np.ndarray, int]:
    """Return row (or column) indices that fill complete blocks, and where the real rows begin.

    Incomplete blocks at either end are completed by reflection.
    """
    before = -first % BLOCK
    padding = (before, -(before + length) % BLOCK)
    return np.pad(np.arange(length), padding, "edge" if length == 1 else "reflect"), before


def _reasons(blocks: np.ndarray, is_jpeg: bool) -> np.ndarray:
    """Classify blocks, uint8 ``(n, m, 8, 8, 3)``; return their reasons, uint8 ``(n, m)``."""
    luma = blocks.astype(np.float32) @ np.array(LUMA, np.float32)  # (n, m, 8, 8)
    at_limit = ((blocks <= DARKEST).all(axis=-1)) | ((blocks >= BRIGHTEST).all(axis=-1))
    clipped = at_limit.mean(axis=(2, 3)) >= CLIPPED_SHARE
    flat = (blocks == blocks[:, :, :1, :1]).all(axis=(2, 3, 4))
    luma_range = luma.max(axis=(2, 3)) - luma.min(axis=(2, 3))
    compressed = is_jpeg & (luma_range <= ROUNDING_RANGE)
    across = luma[..., :-2] - 2 * luma[..., 1:-1] + luma[..., 2:]  # (n, m, 8, 6)
    down = luma[..., :-2, :] - 2 * luma[..., 1:-1, :] + luma[..., 2:, :]  # (n, m, 6, 8)
    both = across[..., :-2, :] - 2 * across[..., 1:-1, :] + across[..., 2:, :]  # (n, m, 6, 6)
    residuals = ((across, SECOND_NORM), (down, SECOND_NORM), (both, BOTH_NORM))
    noise = np.max([np.sqrt((r**2).mean(axis=(2, 3))) / norm for r, norm in residuals], axis=0)
    conditions = (clipped, flat, compressed, noise < ROUNDING_NOISE)
    return np.select(conditions, (CLIPPED, FLAT, COMPRESSED, SMOOTH), READABLE).astype(np.uint8)
