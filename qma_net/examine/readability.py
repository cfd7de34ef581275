"""Where a photograph holds nothing that could be read: found in its pixels, not learnt.

A manipulation shows in what a camera and a compression leave behind: noise and its statistics.
Where these are not there any more, a model's answer there rests on nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

BLOCK = 8  # pixels; that of JPEG, so that its blocks can be judged each by itself
STRIP = 32  # rows of blocks that are looked at together, to bound memory

# What a pixel's value in `Readability.reasons` means.
READABLE, CLIPPED, FLAT, COMPRESSED, SMOOTH = range(5)
REASONS = {
    CLIPPED: "clipped: black or white beyond what the camera could record",
    FLAT: "flat: every pixel exactly the same, as in graphics and borders",
    COMPRESSED: "compressed away: JPEG left the mean brightness of the block and nothing else",
    SMOOTH: "smooth: less noise than rounding to 8 bits leaves, through blur or compression",
}
NAMES = {CLIPPED: "clipped", FLAT: "flat", COMPRESSED: "compressed", SMOOTH: "smooth"}

# A pixel is clipped where all three channels lie at an end of the range: one channel alone leaves
# noise in the others. One grey level short of the end, because JPEG rounds back across it.
DARKEST, BRIGHTEST = 1, 254
# Three quarters of a block: in the rest a border of something bright may pass.
CLIPPED_SHARE = 0.75

# Luma of a block whose JPEG coefficients are all zero but the mean is constant; that of its RGB
# pixels then differs by their rounding alone, half a level each way. The smallest coefficient that
# quality 95 keeps (2) moves luma by more in nearly every place.
LUMA = (0.299, 0.587, 0.114)
ROUNDING_RANGE = 1.01

# Rounding to whole grey levels is itself noise of standard deviation 1 / sqrt(12) = 0.29; measured
# over one block, that comes out below 0.35 nearly always. Noise is estimated by second differences,
# which are blind to slopes: along rows, along columns, and along both, as Immerkaer does (1996).
# All three must be that small, or an edge along a row or column would pass for smoothness.
ROUNDING_NOISE = 0.35
SECOND_NORM, BOTH_NORM = 6**0.5, 6.0  # of the kernels (1, -2, 1) and that times itself


@dataclass(frozen=True)
class Readability:
    """Where nothing can be read, and why.

    Attributes:
        reasons: uint8 ``(H, W)``: 0 where the photograph can be read, else a key of ``REASONS``.
    """

    reasons: np.ndarray

    @property
    def unreadable(self) -> np.ndarray:
        """Bool ``(H, W)``."""
        return self.reasons != READABLE

    @property
    def share(self) -> float:
        """Of all pixels, those that cannot be read."""
        return float(np.count_nonzero(self.reasons) / self.reasons.size)

    @property
    def shares(self) -> Mapping[str, float]:
        """By reason's name."""
        return {name: float(np.mean(self.reasons == value)) for value, name in NAMES.items()}


def readability(pixels: np.ndarray, *, is_jpeg: bool = False, orientation: int = 1) -> Readability:
    """The readability map of a photograph, in blocks of 8x8.

    Args:
        pixels: uint8 ``(H, W, 3)`` RGB, as displayed.
        is_jpeg: whether the pixels come from a JPEG as they are, so that its blocks can be judged.
        orientation: EXIF's, by which the pixels were turned: it says where the JPEG's blocks lie.
    """
    height, width = pixels.shape[:2]
    # Turned by mirroring, the last block of the stored picture, often narrower, comes first.
    top = height % BLOCK if is_jpeg and orientation in (3, 4, 7, 8) else 0
    left = width % BLOCK if is_jpeg and orientation in (2, 3, 6, 7) else 0
    rows, first_row = _covered(height, top)
    columns, first_column = _covered(width, left)
    reasons = np.empty((len(rows) // BLOCK, len(columns) // BLOCK), np.uint8)
    for start in range(0, len(reasons), STRIP):
        wanted = rows[start * BLOCK : (start + STRIP) * BLOCK]
        strip = pixels[wanted][:, columns]  # (h, w, 3)
        blocks = strip.reshape(len(wanted) // BLOCK, BLOCK, -1, BLOCK, 3).swapaxes(1, 2)
        reasons[start : start + STRIP] = _reasons(blocks, is_jpeg)  # of (n, m, 8, 8, 3)
    full = reasons.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
    return Readability(full[first_row:, first_column:][:height, :width])


def hatched(picture: np.ndarray, region: np.ndarray) -> np.ndarray:
    """A picture with diagonal lines over a region, dark beside bright to show on anything.

    Args:
        picture: uint8 ``(H, W)`` or ``(H, W, 3)``.
        region: bool ``(H, W)``.
    """
    height, width = region.shape
    line = max(1, round(max(height, width) / 600))
    diagonal = (np.arange(height)[:, None] + np.arange(width)) // line % 8
    drawn = picture.copy()
    drawn[region & (diagonal == 0)] = 235
    drawn[region & (diagonal == 1)] = 20
    return drawn


def _covered(length: int, first: int) -> tuple[np.ndarray, int]:
    """Which rows (or columns) fill whole blocks, and where the first true one stands.

    What is missing at either end is reflected.
    """
    before = -first % BLOCK
    after = -(before + length) % BLOCK
    mode = "reflect" if length > 1 else "edge"
    return np.pad(np.arange(length), (before, after), mode), before


def _reasons(blocks: np.ndarray, is_jpeg: bool) -> np.ndarray:
    """uint8 ``(n, m, 8, 8, 3)`` to ``(n, m)``."""
    luma = blocks.astype(np.float32) @ np.array(LUMA, np.float32)  # (n, m, 8, 8)
    at_end = ((blocks <= DARKEST).all(axis=-1)) | ((blocks >= BRIGHTEST).all(axis=-1))
    clipped = at_end.mean(axis=(2, 3)) >= CLIPPED_SHARE
    flat = (blocks == blocks[:, :, :1, :1]).all(axis=(2, 3, 4))
    range_of_luma = luma.max(axis=(2, 3)) - luma.min(axis=(2, 3))
    compressed = is_jpeg & (range_of_luma <= ROUNDING_RANGE)
    across = luma[..., :-2] - 2 * luma[..., 1:-1] + luma[..., 2:]  # (n, m, 8, 6)
    down = luma[..., :-2, :] - 2 * luma[..., 1:-1, :] + luma[..., 2:, :]  # (n, m, 6, 8)
    both = across[..., :-2, :] - 2 * across[..., 1:-1, :] + across[..., 2:, :]  # (n, m, 6, 6)
    residuals = ((across, SECOND_NORM), (down, SECOND_NORM), (both, BOTH_NORM))
    noise = np.max([np.sqrt((r**2).mean(axis=(2, 3))) / norm for r, norm in residuals], axis=0)
    found = (clipped, flat, compressed, noise < ROUNDING_NOISE)
    return np.select(found, (CLIPPED, FLAT, COMPRESSED, SMOOTH), READABLE).astype(np.uint8)
