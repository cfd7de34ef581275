"""Overlapping tiles of a large photo, blended smoothly; the noise view is computed once."""

from collections.abc import Callable
from itertools import pairwise, product
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..modeling.noise import normalized
from ..modeling.qma_net import STRIDE

BAND_ROWS = 1024  # Approximate number of rows of the noise view to compute together.
BLOCK_PIXELS = 2**20  # Pixels to compute at a time; this takes seconds on a CPU and 0.25 GiB.

Region: TypeAlias = tuple[slice, slice]  # Rows and columns of a photo.
ProgressCallback: TypeAlias = Callable[[int, int], None]  # Receives (finished, total) tiles.


class TileProgress:
    """Counts finished tiles and reports them.

    Args:
        total: Number of tiles.
        report: Called with (finished, total): first with (0, total), then after every tile, and in
            between with unchanged numbers. An exception that it raises ends the prediction.
    """

    def __init__(self, total: int, report: ProgressCallback | None = None):
        self.finished, self.total, self._report = 0, total, report
        self.ping()

    def ping(self) -> None:
        """Report unchanged numbers, so that the caller can stop the prediction."""
        if self._report:
            self._report(self.finished, self.total)

    def step(self) -> None:
        """Count one finished tile."""
        self.finished += 1
        self.ping()


class NoiseRows:
    """The noise view of a photo, for tiles that are requested from top to bottom.

    Rows are computed when a tile first needs them, and freed when no further tile will. They are
    computed in blocks with a margin as wide as the view's reach, so that the result equals the view
    of the whole photo up to rounding.

    Args:
        view: The model's noise view, from normalized ``(1, 3, h, w)`` to ``(1, 3, h, w)``.
        pixels: uint8 ``(H, W, 3)``.
        device: The device to compute on.
        ping: Called after every block.
    """

    def __init__(
        self,
        view: nn.Module,
        pixels: NDArray[np.uint8],
        device: torch.device,
        ping: Callable[[], None],
    ):
        self._view, self._pixels, self._device, self._ping = view, pixels, device, ping
        self._reach = int(view.reach)  # type: ignore[arg-type]
        self._top = 0  # The first row in memory.
        self._rows = torch.empty(1, 3, 0, pixels.shape[1], device=device)

    def crop(self, region: Region) -> Tensor:
        """Return the view ``(1, 3, h, w)`` of a tile, which must not be above any earlier tile."""
        rows, columns = region
        if rows.stop > self._top + self._rows.shape[2]:
            self._compute(rows)
        return self._rows[:, :, rows.start - self._top : rows.stop - self._top, columns]

    def _compute(self, rows: slice) -> None:
        """Keep the computed rows that this tile shares, and compute those below."""
        shared = self._rows[:, :, rows.start - self._top :]
        end, (height, width) = rows.start + shared.shape[2], self._pixels.shape[:2]
        bottom = max(rows.stop, end + BAND_ROWS)
        bottom = height if height - bottom < BAND_ROWS // 2 else bottom
        self._top, self._rows = rows.start, shared.new_empty(1, 3, bottom - rows.start, width)
        self._rows[:, :, : shared.shape[2]] = shared
        del shared  # Frees the rows above.
        count = -(-(bottom - end) * width // BLOCK_PIXELS)
        bounds = [width * i // count for i in range(count + 1)]
        for left, right in pairwise(bounds):
            block = self._block(end, bottom, left, right)
            self._rows[:, :, end - self._top :, left:right] = block
            self._ping()

    def _block(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        above, before = min(self._reach, top), min(self._reach, left)
        rows = slice(top - above, bottom + self._reach)
        columns = slice(left - before, right + self._reach)
        noise: Tensor = self._view(normalized(self._pixels[rows, columns], self._device))
        return noise[:, :, above : above + bottom - top, before : before + right - left]


def blend_tiles(
    rows: list[slice], columns: list[slice], predict: Callable[[Region], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Predict overlapping tiles and blend them smoothly.

    The weight of a tile falls smoothly towards its inner borders over the overlap. The weights
    leave no step where a tile ends, and its outermost pixels, which the border disturbs, hardly
    count; the tiles' predictions may still differ (docs/benchmarks.md). Rows and columns are those
    of :func:`tile_spans`; ``predict`` returns the mask values ``(h, w)`` of a tile and is called
    row by row. The result is float32 ``(H, W)``.
    """
    total = np.zeros((rows[-1].stop, columns[-1].stop), np.float32)
    for (down, row_weight), (across, column_weight) in product(
        _with_weights(rows), _with_weights(columns)
    ):
        total[down, across] += np.outer(row_weight, column_weight) * predict((down, across))
    return total


def tile_spans(length: int, tile: int, overlap: int) -> list[slice]:
    """Divide a length into evenly spaced, overlapping spans of equal size.

    The spans are as small as their number allows. They begin at multiples of the encoders' stride,
    so that neighbors see the overlap on the same grid; the last one ends with the photo. ``tile``,
    the largest length of a span, and ``overlap``, the smallest overlap, are multiples of 32 pixels.
    """
    if length <= tile:
        return [slice(0, length)]
    units, shared = -(-length // STRIDE), overlap // STRIDE
    count = -(-(units - shared) // (tile // STRIDE - shared))
    size = -(-(units + (count - 1) * shared) // count)
    starts = [round(i * (units - size) / (count - 1)) for i in range(count)]
    return [slice(STRIDE * i, min(STRIDE * (i + size), length)) for i in starts]


def _with_weights(spans: list[slice]) -> list[tuple[slice, NDArray[np.float32]]]:
    """Pair each span with its weights, which rise and fall in the overlaps and add up to 1."""
    weights = [np.ones(span.stop - span.start, np.float32) for span in spans]
    for (before, fall), (after, rise) in pairwise(zip(spans, weights, strict=True)):
        shared = before.stop - after.start
        t = (np.arange(shared, dtype=np.float32) + 0.5) / shared
        ramp = t**3 * (t * (6 * t - 15) + 10)
        rise[:shared] *= ramp
        fall[-shared:] *= ramp[::-1]
    total = np.zeros(spans[-1].stop, np.float32)
    for span, weight in zip(spans, weights, strict=True):
        total[span] += weight
    return [(span, weight / total[span]) for span, weight in zip(spans, weights, strict=True)]
