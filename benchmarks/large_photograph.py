"""Time and peak memory of a mask at a large photograph's own size.

    python -m benchmarks.large_photograph [--size b3] [--width 5616 --height 3744] [--tile 1024]

The largest photographs of NIST16 are 5616x3744. Weights are random; neither number depends on them.
Peak memory is the process's largest resident set, Python and torch included.
"""

import argparse
import resource
import time

import numpy as np
import torch

from qma_net.inference.predictor import QMANetPredictor
from qma_net.modeling.config import QMANetConfig
from qma_net.modeling.qma_net import QMANetModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="b3")
    parser.add_argument("--width", type=int, default=5616)
    parser.add_argument("--height", type=int, default=3744)
    parser.add_argument("--tile", type=int, default=1024)
    args = parser.parse_args()
    torch.manual_seed(0)
    predictor = QMANetPredictor(
        QMANetModel.from_config(QMANetConfig(size=args.size)), tile=args.tile
    )
    shape = (args.height, args.width, 3)
    photograph = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    before = peak()
    start = time.perf_counter()
    prediction = predictor.predict(photograph, native=True)
    seconds = time.perf_counter() - start
    assert prediction.mask.shape == shape[:2]
    print("| size | photograph | tile | threads | time (s) | peak memory (GiB) | before it (GiB) |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {args.size} | {args.width}x{args.height} | {args.tile} | {torch.get_num_threads()} | "
        f"{seconds:.0f} | {peak():.2f} | {before:.2f} |"
    )


def peak() -> float:
    """Largest resident set so far, in GiB (Linux counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
