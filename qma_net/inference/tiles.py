"""A photograph looked at in overlapping tiles, blended without seams; its noise view only once."""

from collections.abc import Callable
from itertools import pairwise, product

import numpy as np
import torch
from torch import Tensor, nn

from ..modeling.noise import normalised
from ..modeling.qma_net import STRIDE

BAND = 1024  # rows of the noise view to compute at once, about: each band has two margins
BLOCK_PIXELS = 2**20  # of them at a time: seconds of a processor's work, 0.25 GiB

Place = tuple[slice, slice]  # rows and columns of a photograph


class Progress:
    """Counts what is looked at, and says so.

    Args:
        total: how many tiles there are.
        report: called with (done, total), first with (0, total), after every tile, and between
            with the numbers as they were; what it raises ends the work.
    """

    def __init__(self, total: int, report: Callable[[int, int], None] | None = None):
        self.done, self.total, self.report = 0, total, report
        self.beat()

    def beat(self) -> None:
        """Work goes on: a chance to stop it."""
        if self.report:
            self.report(self.done, self.total)

    def step(self) -> None:
        """One tile is done."""
        self.done += 1
        self.beat()


class NoiseRows:
    """The noise view of a photograph as tiles from top to bottom need it, computed once.

    Rows are computed when a tile reaches them and forgotten when none will, in blocks with a
    margin of the view's reach, where a block's border would show. The photograph's own borders
    are the view's: what it gives is the view of the whole photograph, up to rounding.

    Args:
        view: the model's, from normalised ``(1, 3, h, w)`` to ``(1, 3, h, w)``.
        pixels: uint8 ``(H, W, 3)``.
        device: where to compute.
        beat: called after every block.
    """

    def __init__(
        self, view: nn.Module, pixels: np.ndarray, device: torch.device, beat: Callable[[], None]
    ):
        self.view, self.pixels, self.device, self.beat = view, pixels, device, beat
        self.top, self.kept = 0, torch.empty(1, 3, 0, pixels.shape[1], device=device)

    def of(self, place: Place) -> Tensor:
        """``(1, 3, h, w)`` of a tile no higher than the ones before it."""
        rows, columns = place
        if rows.stop > self.top + self.kept.shape[2]:
            self._reach(rows)
        return self.kept[:, :, rows.start - self.top : rows.stop - self.top, columns]

    def _reach(self, rows: slice) -> None:
        """Keeps what these rows have in common with what is known, and computes what follows."""
        known = self.kept[:, :, rows.start - self.top :]
        end, (height, width) = rows.start + known.shape[2], self.pixels.shape[:2]
        bottom = max(rows.stop, end + BAND)
        bottom = height if height - bottom < BAND // 2 else bottom
        self.top, self.kept = rows.start, known.new_empty(1, 3, bottom - rows.start, width)
        self.kept[:, :, : known.shape[2]] = known
        del known  # and with it all that was kept
        count = -(-(bottom - end) * width // BLOCK_PIXELS)
        bounds = [width * i // count for i in range(count + 1)]
        for left, right in pairwise(bounds):
            block = self._block(end, bottom, left, right)
            self.kept[:, :, end - self.top :, left:right] = block
            self.beat()

    def _block(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        reach = self.view.reach
        above, before = min(reach, top), min(reach, left)
        seen = self.pixels[top - above : bottom + reach, left - before : right + reach]
        noise = self.view(normalised(seen, self.device))
        return noise[:, :, above : above + bottom - top, before : before + right - left]


def blended(
    rows: list[slice], columns: list[slice], look: Callable[[Place], np.ndarray]
) -> np.ndarray:
    """Looks at a photograph in overlapping tiles and blends them without seams.

    A tile's weight falls smoothly to its inner borders over what it shares: no step is left where
    one ends, and its last pixels, which the border disturbs, hardly count.

    Args:
        rows, columns: the tiles', see :func:`spans`.
        look: from the place of a tile to its probabilities ``(h, w)``; asked row by row.

    Returns:
        float32 ``(H, W)``.
    """
    total = np.zeros((rows[-1].stop, columns[-1].stop), np.float32)
    for (down, falling), (across, leaving) in product(_weighted(rows), _weighted(columns)):
        total[down, across] += np.outer(falling, leaving) * look((down, across))
    return total


def spans(length: int, tile: int, overlap: int) -> list[slice]:
    """Evenly placed spans of at most ``tile`` that cover ``length`` and share ``overlap`` or more.

    All are of one size, as small as their number allows, and begin at multiples of the encoders'
    stride, so that neighbours see what they share on one grid; the last ends with the photograph.

    Args:
        length: in pixels.
        tile, overlap: in pixels, multiples of 32.
    """
    if length <= tile:
        return [slice(0, length)]
    units, shared = -(-length // STRIDE), overlap // STRIDE
    count = -(-(units - shared) // (tile // STRIDE - shared))
    size = -(-(units + (count - 1) * shared) // count)
    starts = [round(i * (units - size) / (count - 1)) for i in range(count)]
    return [slice(STRIDE * i, min(STRIDE * (i + size), length)) for i in starts]


def _weighted(found: list[slice]) -> list[tuple[slice, np.ndarray]]:
    """Every span with its weights, which rise and fall where it shares pixels and add up to 1."""
    weights = [np.ones(span.stop - span.start, np.float32) for span in found]
    for (before, fall), (after, rise) in pairwise(zip(found, weights, strict=True)):
        shared = before.stop - after.start
        t = (np.arange(shared, dtype=np.float32) + 0.5) / shared
        ramp = t**3 * (t * (6 * t - 15) + 10)
        rise[:shared] *= ramp
        fall[-shared:] *= ramp[::-1]
    added = np.zeros(found[-1].stop, np.float32)
    for span, weight in zip(found, weights, strict=True):
        added[span] += weight
    return [(span, weight / added[span]) for span, weight in zip(found, weights, strict=True)]
