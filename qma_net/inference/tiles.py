"""A photograph looked at in overlapping tiles, blended without seams."""

from collections.abc import Callable

import numpy as np


def tiled(
    pixels: np.ndarray, look: Callable[[np.ndarray], np.ndarray], tile: int, overlap: int
) -> np.ndarray:
    """Looks at a photograph in overlapping tiles and blends them without seams.

    A tile's weight falls linearly to its inner borders over ``overlap`` pixels, so that no step is
    left where one ends. One tile, when the photograph fits into it, is looked at as it is.

    Args:
        pixels: ``(H, W, 3)``.
        look: from the pixels of a tile ``(h, w, 3)`` to its probabilities ``(h, w)``.
        tile: largest side of a tile.
        overlap: pixels that neighbours share, at least.

    Returns:
        float32 ``(H, W)``.
    """
    height, width = pixels.shape[:2]
    if max(height, width) <= tile:
        return look(pixels).astype(np.float32, copy=False)
    total, weights = np.zeros((2, height, width), np.float32)
    for top, bottom in _spans(height, tile, overlap):
        for left, right in _spans(width, tile, overlap):
            weight = np.outer(
                _ramp(top, bottom, height, overlap), _ramp(left, right, width, overlap)
            )
            place = np.s_[top:bottom, left:right]
            total[place] += weight * look(pixels[place])
            weights[place] += weight
    total /= weights
    return total


def _spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Evenly placed spans of at most ``tile`` that cover ``length`` and share ``overlap``."""
    if length <= tile:
        return [(0, length)]
    count = -(-(length - overlap) // (tile - overlap))
    starts = np.linspace(0, length - tile, count).round().astype(int)
    return [(int(start), int(start) + tile) for start in starts]


def _ramp(start: int, stop: int, length: int, overlap: int) -> np.ndarray:
    """Weights along one side of a tile: rising from and falling to borders that are inside."""
    weight = np.ones(stop - start, np.float32)
    rise = (np.arange(overlap, dtype=np.float32) + 0.5) / overlap
    if start > 0:
        weight[:overlap] *= rise
    if stop < length:
        weight[-overlap:] *= rise[::-1]
    return weight
