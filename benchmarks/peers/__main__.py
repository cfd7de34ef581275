"""Compare QMA-Net with BenCo's models: time, throughput, memory and arithmetic on this machine.

    python -m benchmarks.peers [--sizes 256 512 1024] [--batches 1 2 4 8] [--compile] [--out DIR]

All models are built with random weights, without downloads, and measured in turn in one process.
Every round runs all models at all sizes, as well as a 3x3 convolution of 64 channels and a matrix
product for scale, so that the noise of a shared machine affects all of them equally. A ratio is the
median of the ratios of all rounds.

Forward: evaluation mode, no gradients. BenCo's models run unchanged, as in its tester, so their
forward pass includes the loss. QMA-Net runs as in its predictor, without the edge supervision.
Training: forward pass, backward pass and a step of AdamW (TruFor: phase 2), with all losses. "mixed"
is autocast to bfloat16. Peak memory is the memory that a step (or forward pass) needs in addition to
the weights and AdamW's state; on a CPU, each is measured in a separate process. A multiply-add is
one FLOP, counted by fvcore for direct convolutions. On a CPU, NoisePrint++ uses a Winograd transform
that needs fewer, so the share of the machine's speed may exceed 1. Compiled rows are not measured in
training, and not for memory.
"""

import argparse
import json
import warnings
from pathlib import Path

import torch

from qma_net.core.files import write_text

from .measure import measure, peak
from .models import OURS, PEERS, REFERENCE, base, rows
from .tables import tables


def main(argv: list[str] | None = None) -> None:
    """Measure, print the tables, and write them to ``--out``."""
    parser = _parser()
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    if args.peak:
        name, kind, size, batch_size = args.peak
        shape = {"size": int(size), "batch_size": int(batch_size)}
        print(peak(name=name, kind=kind, **shape, device=args.device))
        return
    names = args.models or rows(args.compile, args.mixed_peers)
    if unknown := {base(name) for name in names} - {OURS, *PEERS}:
        parser.error(f"unknown model {', '.join(unknown)}; choose from {', '.join([OURS, *PEERS])}")
    results = measure(names, args)
    text = tables(results)
    print(text)
    if args.out:
        from .picture import draw

        write_text(args.out / "peers.json", json.dumps(results, indent=1))
        write_text(args.out / "peers.md", text)
        draw(results, args.out / "peers.png")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", nargs="+", help=f"from {', '.join([OURS, *PEERS])}; append ' mixed' for bfloat16")
    parser.add_argument("--sizes", type=int, nargs="+", default=[REFERENCE])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train-size", type=int, default=256)
    parser.add_argument("--train-batch", type=int, default=4)
    parser.add_argument("--compile", action="store_true", help="also measure QMA-Net with torch.compile")
    parser.add_argument("--mixed-peers", action="store_true", help="also measure BenCo's models in bfloat16")
    for skipped in ("train", "memory", "batches"):
        parser.add_argument(f"--no-{skipped}", action="store_true")
    parser.add_argument("--out", type=Path, help="output folder for peers.json, peers.md and peers.png")
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)  # name, kind, size, batch
    return parser


if __name__ == "__main__":
    main()
