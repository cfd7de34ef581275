"""Time, peak memory and seams of a mask at a large photograph's own size, the old way and now.

    python -m benchmarks.large_photograph [--size b3] [--width 5616 --height 3744]
        [--tile N --overlap N] [--every 3] [--checkpoint qma-net-small]

The largest photographs of NIST16 are 5616x3744. Its time is measured against the squares of 512
that it holds, each a single forward, timed between its tiles: what slows the machine for a while
slows both. The old way, until 2026-11-24, looked at tiles of 1024 that share 256, each with a
noise view of its own; its time is that of one tile for each. Weights are random: neither time nor
memory depends on them. Peak memory is the process's largest resident set, Python and torch
included.

Seams are those of a checkpoint, since a model that has learnt nothing hardly marks anything, on
photographs of 2560x2560 that one forward can see whole: scikit-learn's two, mirrored, with
patches of stronger noise. D is the tiled mask less that of the one forward; a side is where two
tiles meet, in the middle of what they share.

- *near* and *elsewhere*: the mean of abs(D) within 128 pixels of a side, and farther away.
- *step*: D averaged along a tile's length; its largest change over 16 pixels within 128 of a side;
  the mean of all sides. *no side*: the same around the middles of the tiles, where nothing is
  blended: what a photograph's content makes of it.
"""

import argparse
import resource
import time
from collections.abc import Callable
from itertools import pairwise, product

import numpy as np
import torch

from qma_net.inference.predictor import QMANetPredictor
from qma_net.inference.tiles import Place, spans
from qma_net.modeling.config import QMANetConfig
from qma_net.modeling.noise import normalised
from qma_net.modeling.qma_net import QMANetModel
from qma_net.weights.locate import load_model
from qma_net.weights.names import NONE, SMALL

SQUARE = 512
OLD_TILE, OLD_OVERLAP = 1024, 256
SEAM_SIDE = 2560  # three of the old tiles that share exactly 256, three of the new, 160
NEAR, STEP = 128, 16  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="b3")
    parser.add_argument("--width", type=int, default=5616)
    parser.add_argument("--height", type=int, default=3744)
    parser.add_argument("--tile", type=int)
    parser.add_argument("--overlap", type=int)
    parser.add_argument("--every", type=int, default=3, help="tiles from square to square")
    parser.add_argument("--checkpoint", default=SMALL, help="whose seams are measured, or none")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = QMANetModel.from_config(QMANetConfig(size=args.size)).eval()
    options = {key: getattr(args, key) for key in ("tile", "overlap") if getattr(args, key)}
    print_speed(args, QMANetPredictor(model, **options))
    if args.checkpoint != NONE:
        predictor = QMANetPredictor(load_model(args.checkpoint), **options)
        for name in ("china.jpg", "flower.jpg"):
            print_seams(predictor, name)


def print_speed(args: argparse.Namespace, predictor: QMANetPredictor) -> None:
    """The table of time and memory."""
    shape = (args.height, args.width, 3)
    photograph = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    square, old_tile = (np.s_[:side, :side] for side in (SQUARE, OLD_TILE))
    one = tile_alone(predictor.model, photograph)
    one(square)
    clock, found = Clock(predictor.model), []
    memory = peak()

    def between(done: int, _: int) -> None:
        if done == args.every * len(found):
            found.append(clock.timed(lambda: one(square)))

    with_squares = clock.timed(lambda: predictor.predict(photograph, native=True, progress=between))
    memory_then = peak()
    in_photograph = with_squares - np.sum(found, axis=0)
    old = clock.timed(lambda: one(old_tile))
    squares = args.height * args.width / SQUARE**2
    count = len(old_spans(args.height)) * len(old_spans(args.width))
    single = np.mean(found, axis=0)
    ratios = in_photograph / single / squares
    print(
        f"{args.size}, {args.width}x{args.height}, {squares:.1f} squares of {SQUARE}; "
        f"{torch.get_num_threads()} threads; tiles of at most {predictor.tile} that share "
        f"{predictor.overlap}\n"
    )
    print("| | wall (s) | processor (s) | noise view | encoders and decoder |")
    print("|---|---|---|---|---|")
    spread = np.std(found, axis=0, ddof=1)
    print(f"| a forward of {SQUARE}, {len(found)} of them: mean | {joined(single, '.2f')} |")
    print(f"| standard deviation | {joined(spread, '.2f')} |")
    print(f"| {squares:.1f} of them | {joined(squares * single, '.0f')} |")
    print(f"| the photograph | {joined(in_photograph, '.0f')} |")
    print(f"| **their ratio** | **{ratios[0]:.3f}** | {joined(ratios[1:], '.3f')} |")
    print(f"| the old way: {count} tiles | {joined(count * old, '.0f')} |")
    print(f"| its ratio | {joined(count * old / single / squares, '.3f')} |")
    print(f"\nPeak memory: {memory_then:.2f} GiB, before it {memory:.2f}\n", flush=True)


def print_seams(predictor: QMANetPredictor, name: str) -> None:
    """The table of seams on one of scikit-learn's photographs."""
    photograph = seam_photograph(SEAM_SIDE, name)
    one = tile_alone(predictor.model, photograph)
    whole = one(np.s_[:, :])
    old = old_spans(SEAM_SIDE)
    new = spans(SEAM_SIDE, predictor.tile, predictor.overlap)
    masks = old_mask(old, one), predictor.predict(photograph, native=True).mask
    print(f"Seams, {name} at {SEAM_SIDE}, {(whole > 0.5).mean():.1%} marked by one forward\n")
    print("| | tiles | near | elsewhere | step | no side |\n|---|---|---|---|---|---|")
    for way, found, mask in zip(("old", "new"), (old, new), masks, strict=True):
        values = " | ".join(f"{value:.4f}" for value in seams(mask - whole, found))
        shared = found[0].stop - found[1].start
        print(f"| {way} | {len(found) ** 2} of {found[0].stop}, {shared} shared | {values} |")
    print(flush=True)


class Clock:
    """Seconds of a model's work, and how much of them its noise view and all else of it took."""

    def __init__(self, model: QMANetModel):
        self.noise = self.rest = 0.0
        view, now = model.noise_view, time.perf_counter
        view.register_forward_pre_hook(lambda *_: self.add(noise=-now()))
        view.register_forward_hook(lambda *_: self.add(noise=now()))
        model.register_forward_pre_hook(lambda *_: self.add(rest=self.noise - now()))
        model.register_forward_hook(lambda *_: self.add(rest=now() - self.noise))

    def add(self, noise: float = 0.0, rest: float = 0.0) -> None:
        self.noise += noise
        self.rest += rest

    def timed(self, work: Callable[[], object]) -> np.ndarray:
        """Seconds of the clock, of the processor, of the noise view and of the rest of forwards."""
        start = self.now()
        work()
        return self.now() - start

    def now(self) -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time(), self.noise, self.rest])


def joined(values: np.ndarray, form: str) -> str:
    """Cells of a table."""
    return " | ".join(format(value, form) for value in values)


def tile_alone(model: QMANetModel, pixels: np.ndarray) -> Callable[[Place], np.ndarray]:
    """A part of a photograph by a forward of its own, the noise view included."""

    @torch.inference_mode()
    def look(place: Place) -> np.ndarray:
        return model(normalised(pixels[place]), edges=False).mask_logits[0, 0].sigmoid().numpy()

    return look


def old_spans(length: int) -> list[slice]:
    """Spans of the largest size, evenly placed, on no grid."""
    if length <= OLD_TILE:
        return [slice(0, length)]
    count = -(-(length - OLD_OVERLAP) // (OLD_TILE - OLD_OVERLAP))
    starts = np.linspace(0, length - OLD_TILE, count).round().astype(int).tolist()
    return [slice(start, start + OLD_TILE) for start in starts]


def old_mask(tiles: list[slice], look: Callable[[Place], np.ndarray]) -> np.ndarray:
    """Tiles blended along straight ramps; ``tiles`` along rows and columns alike."""
    total, weights = np.zeros((2, tiles[-1].stop, tiles[-1].stop))
    slope = np.minimum(1, (np.arange(OLD_TILE) + 0.5) / OLD_OVERLAP)
    for place in product(tiles, tiles):
        down, across = (
            np.where(span.start > 0, slope, 1) * np.where(span.stop < len(total), slope[::-1], 1)
            for span in place
        )
        total[place] += np.outer(down, across) * look(place)
        weights[place] += np.outer(down, across)
    return total / weights


def seam_photograph(side: int, name: str) -> np.ndarray:
    """Real texture of that size with patches of stronger noise; uint8 ``(side, side, 3)``."""
    from sklearn.datasets import load_sample_image

    picture = load_sample_image(name)
    height, width = picture.shape[:2]
    picture = np.pad(picture, ((0, side - height), (0, side - width), (0, 0)), mode="symmetric")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    marked = np.zeros((side, side, 1), bool)
    for _ in range(12):
        (top, left), (down, across) = rng.integers(0, side, 2), rng.integers(60, 200, 2)
        marked[((y - top) / down) ** 2 + ((x - left) / across) ** 2 < 1] = True
    noise = marked * rng.normal(0, 15, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def seams(difference: np.ndarray, tiles: list[slice]) -> tuple[float, float, float, float]:
    """Near, elsewhere, step, no side; see above.

    Args:
        difference: D, ``(S, S)``.
        tiles: their spans, along rows and columns alike.
    """
    middles = [(span.start + span.stop) // 2 for span in tiles]
    sides = [(a.stop + b.start) // 2 for a, b in pairwise(tiles)]
    beside = np.zeros(len(difference), bool)
    for side in sides:
        beside[side - NEAR : side + NEAR] = True
    near = beside[:, None] | beside
    return (
        float(np.abs(difference[near]).mean()),
        float(np.abs(difference[~near]).mean()),
        step(difference, tiles, sides),
        step(difference, tiles, middles),
    )


def step(difference: np.ndarray, tiles: list[slice], places: list[int]) -> float:
    """The largest change over :data:`STEP` pixels near each place, of means along each tile."""
    found = []
    for turned in (difference, difference.T):
        for span, place in product(tiles, places):
            along = turned[span, place - NEAR : place + NEAR].mean(axis=0)
            found.append(np.abs(along[STEP:] - along[:-STEP]).max())
    return float(np.mean(found))


def peak() -> float:
    """Largest resident set so far, in GiB (Linux counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
