"""Compare QMA-Net with BenCo's models on this machine: time, throughput and memory.

    python -m benchmarks.peers [--sizes 256 512 1024] [--batches 1 2 4 8] [--compile] [--out DIR]

All models are built with random weights, without downloads, and measured in one process. Every
round runs all models at all sizes and, for reference, a 3x3 convolution with 64 channels and a
matrix product, so that other load on the machine affects all of them equally. A ratio is the median
of the ratios of all rounds.

Forward pass: evaluation mode, without gradients. BenCo's models run unchanged, as in its tester, so
their forward pass includes the loss. QMA-Net runs as in its predictor, without the edge
supervision.

Training step: forward pass, backward pass and AdamW, with all losses (TruFor: phase 2).

Precision: "mixed" is autocast to bfloat16.

Peak memory: what a training step or forward pass needs in addition to the weights and the state of
AdamW. On a CPU, each is measured in a separate process.

FLOPs: one multiply-add is one FLOP, counted by fvcore for direct convolutions. On a CPU,
NoisePrint++ uses a Winograd transform that needs fewer, so the speed relative to the machine's
kernels may exceed 1.

Compiled rows are measured in forward passes only, without their memory.
"""

import argparse
import json
import warnings
from pathlib import Path

import torch

from qma_net.core.files import write_text

from .measure import measure, peak_memory
from .models import OURS, PEERS, REFERENCE, default_rows, model_of
from .tables import format_report

MODELS = [OURS, *PEERS]


def main(argv: list[str] | None = None) -> None:
    """Measure, print the tables, and write them to ``--out``."""
    parser = _parser()
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    if args.peak:
        row, kind, size, batch_size = args.peak
        shape = {"size": int(size), "batch_size": int(batch_size)}
        print(peak_memory(row=row, kind=kind, **shape, device=args.device))
        return
    rows = args.models or default_rows(args.compile, args.mixed_peers)
    if unknown := {model_of(row) for row in rows} - {*MODELS}:
        parser.error(f"unknown model {', '.join(unknown)}; choose from {', '.join(MODELS)}")
    results = measure(rows, args)
    text = format_report(results)
    print(text)
    if args.out:
        from .plot import plot

        write_text(args.out / "peers.json", json.dumps(results, indent=1))
        write_text(args.out / "peers.md", text)
        plot(results, args.out / "peers.png")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL",
        help=f"{', '.join(MODELS)}; append ' mixed' for bfloat16 (default: all)",
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[REFERENCE], help="image sizes (default: 512)"
    )
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[1, 2, 4, 8], help="batch sizes for throughput"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train-size", type=int, default=256, help="image size in training")
    parser.add_argument("--train-batch", type=int, default=4, help="batch size in training")
    parser.add_argument(
        "--compile", action="store_true", help="also measure QMA-Net with torch.compile"
    )
    parser.add_argument(
        "--mixed-peers", action="store_true", help="also measure BenCo's models in bfloat16"
    )
    parser.add_argument("--no-train", action="store_true", help="skip training steps")
    parser.add_argument("--no-memory", action="store_true", help="skip peak memory")
    parser.add_argument("--no-batches", action="store_true", help="skip larger batches")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for peers.json, peers.md and peers.png"
    )
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)  # row, kind, size, batch size
    return parser


if __name__ == "__main__":
    main()
