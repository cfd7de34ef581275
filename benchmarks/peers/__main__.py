"""QMA-Net beside BenCo's own models: time, throughput, memory and arithmetic on this machine.

    python -m benchmarks.peers [--sizes 256 512 1024] [--batches 1 2 4 8] [--compile] [--out DIR]

Everything is built with random weights, without downloads, and measured in one process, in turn:
every round runs all models at all sizes (and, for scale, a 3x3 convolution of 64 channels and a
matrix product), so that the noise of a shared machine falls on all alike. A ratio is the median
of the rounds' ratios.

Forward: eval mode, no gradients. BenCo's models run as its tester runs them, unchanged: their
forward includes their loss. QMA-Net runs as its predictor does, without its edge supervision.
Training: forward, backward and a step of AdamW (TruFor: phase 2); QMA-Net with its edge supervision
and loss. "mixed" is autocast to bfloat16. Peak memory is what a step (or forward) adds at its peak
to the weights and AdamW's state; on a CPU, each in a process of its own. A multiply-add is one
FLOP, counted by fvcore in the plain arithmetic: the Winograd transform of NoisePrint++ on a CPU
does fewer, so that a share of the machine may pass 1. Compiled rows have neither training nor
memory.
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
    """Measures, prints the tables, and writes them where ``--out`` says."""
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
        parser.error(f"got {', '.join(unknown)}, expected some of {', '.join([OURS, *PEERS])}")
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
    parser.add_argument("--models", nargs="+", help=f"of {', '.join([OURS, *PEERS])}, or mixed")
    parser.add_argument("--sizes", type=int, nargs="+", default=[REFERENCE])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train-size", type=int, default=256)
    parser.add_argument("--train-batch", type=int, default=4)
    parser.add_argument("--compile", action="store_true", help="QMA-Net by torch.compile as well")
    parser.add_argument("--mixed-peers", action="store_true", help="BenCo's in bfloat16 as well")
    for skipped in ("train", "memory", "batches"):
        parser.add_argument(f"--no-{skipped}", action="store_true")
    parser.add_argument("--out", type=Path, help="folder for peers.json, peers.md, peers.png")
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)  # name, kind, size, batch
    return parser


if __name__ == "__main__":
    main()
