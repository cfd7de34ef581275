"""Run time of QMA-Net by part of the model and by operator.

    python -m benchmarks.parts [--size 512] [--batch 1] [--training] [--device cpu]

The first table shows the median over several forward passes without gradients, measured by hooks
around every part. The second one is the output of torch's profiler for a forward pass or training
step after a warm-up. The weights are random.
"""

import argparse
import time
from collections import defaultdict

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from qma_net.modeling.config import QMANetConfig
from qma_net.modeling.qma_net import QMANetModel

from .step import qma_net_loss, training_step

OPERATORS = 14  # Number of the most expensive operators to print.


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="b3", help="b0 to b5")
    parser.add_argument("--size", type=int, default=512, help="side of the image")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = QMANetModel.from_config(QMANetConfig(size=args.model)).to(args.device).eval()
    image = torch.randn(args.batch, 3, args.size, args.size, device=args.device)
    print(f"{args.batch} of {args.size}x{args.size}, {args.device}, torch {torch.__version__}\n")
    print_parts(model, image, args.rounds)
    mask = (torch.rand_like(image[:, :1]) > 0.7).double()
    run = (
        training_step(model, lambda: qma_net_loss(model, image, mask))
        if args.training
        else lambda: forward(model, image)
    )
    run()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (args.device == "cuda")
    with profile(activities=activities) as profiled:
        run()
    print(f"\nOperators of a {'training step' if args.training else 'forward pass'}\n")
    print_operators(profiled, "device" if args.device == "cuda" else "cpu")


@torch.no_grad()
def forward(model: QMANetModel, image: Tensor) -> None:
    """Run the model as the predictor does, without the edge supervision (ESM)."""
    model(image, edges=False)


def print_parts(model: QMANetModel, image: Tensor, rounds: int) -> None:
    """Print the median time of every part in a forward pass and its share of the total."""
    parts = {
        "noise view: NoisePrint++": [model.noise_view.noiseprint],
        "noise view: total": [model.noise_view],
        "encoder GAE": model.rgb_backbone.stages,
        "encoder LAE": model.noise_backbone.stages,
        "DFCM": model.interactions,
        "MFAM and query MLP": [*model.aggregations, *model.query_mlps],
        "QMFD": [model.decoder],
        "total": [model],
    }
    elapsed, hooks = defaultdict(float), []
    started = {}

    def now() -> float:
        if image.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    for name, modules in parts.items():
        for module in modules:
            hooks += [
                module.register_forward_pre_hook(lambda m, _, n=name: started.update({n: now()})),
                module.register_forward_hook(
                    lambda m, i, o, n=name: elapsed.update({n: elapsed[n] + now() - started[n]})
                ),
            ]
    forward(model, image)
    seconds = []
    for _ in range(rounds):
        elapsed.clear()
        forward(model, image)
        seconds.append(dict(elapsed))
    for hook in hooks:
        hook.remove()
    print("| part of a forward pass | ms | share |\n|---|---|---|")
    for name in parts:
        median = np.median([run[name] for run in seconds])
        share = np.median([run[name] / run["total"] for run in seconds])
        print(f"| {name} | {median * 1e3:.0f} | {share:.0%} |", flush=True)


def print_operators(profiled: profile, device: str) -> None:
    """Print the operators with the largest own time on the ``"cpu"`` or the ``"device"``."""
    field = f"self_{device}_time_total"
    averages = sorted(profiled.key_averages(), key=lambda a: -getattr(a, field))
    total = sum(getattr(a, field) for a in averages)
    print("| operator | calls | ms | share |\n|---|---|---|---|")
    for average in averages[:OPERATORS]:
        elapsed = getattr(average, field)
        print(f"| {average.key} | {average.count} | {elapsed / 1e3:.0f} | {elapsed / total:.1%} |")


if __name__ == "__main__":
    main()
