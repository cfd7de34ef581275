"""Time, memory and seams of native prediction for a large photo.

    python -m benchmarks.large_photograph [--size b3] [--width 5616 --height 3744]
        [--tile N --overlap N] [--every 3] [--checkpoint qma-net-small]

The largest photos of NIST16 have 5616x3744 pixels. The time is compared with single forward passes
of 512x512 squares, timed between the tiles, so that other load on the machine affects both. The
weights are random, since neither time nor memory depends on them. Peak memory is the largest
resident set of the process, including Python and torch. ``--size none`` omits this part.

Seams are measured with a trained checkpoint, because random weights hardly mark anything, on photos
of 2560x2560 pixels that a single forward pass can process: the two of scikit-learn, mirrored, with
patches of stronger noise. D is the tiled mask minus the mask of the single pass; a border is the
middle of the overlap of two tiles. The previous tiles, used until 2026-11-29, had at most 768
pixels and an overlap of 160.

- *near* and *elsewhere*: mean of abs(D) within 128 pixels of a border, and farther away.
- *step*: largest change over 16 pixels, near a border, of D averaged along the tile;
  mean over all borders. *no border*: the same around the centers of the tiles, where nothing is
  blended, which shows the influence of the photo's content.
"""

import argparse
import resource
import time
from collections.abc import Callable
from itertools import pairwise, product

import numpy as np
import torch

from qma_net.inference.predictor import QMANetPredictor
from qma_net.inference.tiles import Region, tile_spans
from qma_net.modeling.config import DEFAULT_THRESHOLD, QMANetConfig
from qma_net.modeling.noise import normalized
from qma_net.modeling.qma_net import QMANetModel
from qma_net.weights.locate import load_model
from qma_net.weights.names import NONE, SMALL

SQUARE = 512
PREVIOUS = {"tile": 768, "overlap": 160}
SEAM_SIDE = 2560
NEAR, STEP = 128, 16  # Pixels.


def main() -> None:
    """Parse the command line and print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="b3", help="model whose time is measured, or none")
    parser.add_argument("--width", type=int, default=5616)
    parser.add_argument("--height", type=int, default=3744)
    parser.add_argument("--tile", type=int)
    parser.add_argument("--overlap", type=int)
    parser.add_argument("--every", type=int, default=3, help="number of tiles between squares")
    parser.add_argument("--checkpoint", default=SMALL, help="checkpoint for the seams, or none")
    args = parser.parse_args()
    torch.manual_seed(0)
    options = {key: getattr(args, key) for key in ("tile", "overlap") if getattr(args, key)}
    if args.size != NONE:
        model = QMANetModel.from_config(QMANetConfig(size=args.size)).eval()
        print_speed(args, QMANetPredictor(model, **options))
    if args.checkpoint != NONE:
        model = load_model(args.checkpoint)
        predictors = {
            "previous": QMANetPredictor(model, **PREVIOUS),
            "current": QMANetPredictor(model, **options),
        }
        for name in ("china.jpg", "flower.jpg"):
            print_seams(predictors, name)


def print_speed(args: argparse.Namespace, predictor: QMANetPredictor) -> None:
    """Print the table of time and memory."""
    shape = (args.height, args.width, 3)
    photograph = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    square = np.s_[:SQUARE, :SQUARE]
    forward = single_forward(predictor.model, photograph)
    forward(square)
    clock, squares = Clock(predictor.model), []
    memory_before = peak_memory()

    def time_square(finished: int, _: int) -> None:
        if finished == args.every * len(squares):
            squares.append(clock.time(lambda: forward(square)))

    with_squares = clock.time(
        lambda: predictor.predict(photograph, native=True, progress=time_square)
    )
    memory_after = peak_memory()
    photo_time = with_squares - np.sum(squares, axis=0)
    square_count = args.height * args.width / SQUARE**2
    square_time = np.mean(squares, axis=0)
    ratios = photo_time / square_time / square_count
    print(
        f"{args.size}, {args.width}x{args.height}, {square_count:.1f} squares of {SQUARE}; "
        f"{torch.get_num_threads()} threads; tiles of at most {predictor.tile} with an overlap of "
        f"{predictor.overlap}\n"
    )
    print("| | wall (s) | processor (s) | noise view | encoders and decoder |")
    print("|---|---|---|---|---|")
    deviation = np.std(squares, axis=0, ddof=1)
    all_squares = square_count * square_time
    print(f"| one square of {SQUARE}, mean of {len(squares)} | {cells(square_time, '.2f')} |")
    print(f"| standard deviation | {cells(deviation, '.2f')} |")
    print(f"| {square_count:.1f} squares | {cells(all_squares, '.0f')} |")
    print(f"| the photo | {cells(photo_time, '.0f')} |")
    print(f"| **ratio** | **{ratios[0]:.3f}** | {cells(ratios[1:], '.3f')} |")
    print(f"\nPeak memory: {memory_after:.2f} GiB, before: {memory_before:.2f} GiB\n", flush=True)


def print_seams(predictors: dict[str, QMANetPredictor], name: str) -> None:
    """Print the table of seams of several predictors for one of scikit-learn's photos."""
    photograph = seam_photograph(SEAM_SIDE, name)
    whole = single_forward(predictors["current"].model, photograph)(np.s_[:, :])
    marked = (whole > DEFAULT_THRESHOLD).mean()
    print(f"Seams, {name} at {SEAM_SIDE}, {marked:.1%} marked by a single pass\n")
    print("| | tiles | near | elsewhere | step | no border |\n|---|---|---|---|---|---|")
    for title, predictor in predictors.items():
        tiles = tile_spans(SEAM_SIDE, predictor.tile, predictor.overlap)
        mask = predictor.predict(photograph, native=True).mask
        values = " | ".join(f"{value:.4f}" for value in seams(mask - whole, tiles))
        overlap = tiles[0].stop - tiles[1].start
        size = tiles[0].stop
        print(f"| {title} | {len(tiles) ** 2} of {size}, overlap {overlap} | {values} |")
    print(flush=True)


class Clock:
    """Stopwatch for a model and its noise view.

    Args:
        model: The model.
    """

    def __init__(self, model: QMANetModel):
        self.noise = self.rest = 0.0
        view, now = model.noise_view, time.perf_counter
        view.register_forward_pre_hook(lambda *_: self.add(noise=-now()))
        view.register_forward_hook(lambda *_: self.add(noise=now()))
        model.register_forward_pre_hook(lambda *_: self.add(rest=self.noise - now()))
        model.register_forward_hook(lambda *_: self.add(rest=now() - self.noise))

    def add(self, noise: float = 0.0, rest: float = 0.0) -> None:
        """Add seconds to the time of the noise view and of the rest of the model."""
        self.noise += noise
        self.rest += rest

    def time(self, work: Callable[[], object]) -> np.ndarray:
        """Return the seconds of wall time, processor time, the noise view, and the rest."""
        start = self.now()
        work()
        return self.now() - start

    def now(self) -> np.ndarray:
        """Return the current values of these four times."""
        return np.array([time.perf_counter(), time.process_time(), self.noise, self.rest])


def cells(values: np.ndarray, style: str) -> str:
    """Format the cells of a table row."""
    return " | ".join(format(value, style) for value in values)


def single_forward(model: QMANetModel, pixels: np.ndarray) -> Callable[[Region], np.ndarray]:
    """Return a function that predicts a region in one forward pass, including its noise view."""

    @torch.inference_mode()
    def predict(region: Region) -> np.ndarray:
        return model(normalized(pixels[region]), edges=False).mask_logits[0, 0].sigmoid().numpy()

    return predict


def seam_photograph(side: int, name: str) -> np.ndarray:
    """Return a photo with patches of stronger noise, uint8 ``(side, side, 3)``."""
    from sklearn.datasets import load_sample_image

    image = load_sample_image(name)
    height, width = image.shape[:2]
    image = np.pad(image, ((0, side - height), (0, side - width), (0, 0)), mode="symmetric")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    marked = np.zeros((side, side, 1), bool)
    for _ in range(12):
        (top, left), (down, across) = rng.integers(0, side, 2), rng.integers(60, 200, 2)
        marked[((y - top) / down) ** 2 + ((x - left) / across) ** 2 < 1] = True
    noise = marked * rng.normal(0, 15, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def seams(difference: np.ndarray, tiles: list[slice]) -> tuple[float, float, float, float]:
    """Return *near*, *elsewhere*, *step* and *no border* as defined above.

    Args:
        difference: D, ``(S, S)``.
        tiles: The spans of the tiles, both the rows and the columns.
    """
    centers = [(span.start + span.stop) // 2 for span in tiles]
    borders = [(a.stop + b.start) // 2 for a, b in pairwise(tiles)]
    is_near = np.zeros(len(difference), bool)
    for border in borders:
        is_near[border - NEAR : border + NEAR] = True
    near = is_near[:, None] | is_near
    return (
        float(np.abs(difference[near]).mean()),
        float(np.abs(difference[~near]).mean()),
        step(difference, tiles, borders),
        step(difference, tiles, centers),
    )


def step(difference: np.ndarray, tiles: list[slice], positions: list[int]) -> float:
    """Return the mean, over tiles and positions, of the largest change near a position."""
    changes = []
    for oriented in (difference, difference.T):
        for span, position in product(tiles, positions):
            profile = oriented[span, position - NEAR : position + NEAR].mean(axis=0)
            changes.append(np.abs(profile[STEP:] - profile[:-STEP]).max())
    return float(np.mean(changes))


def peak_memory() -> float:
    """Return the largest resident set of the process in GiB; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
