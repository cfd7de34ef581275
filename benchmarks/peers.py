"""QMA-Net beside BenCo's own models: time, throughput, memory and arithmetic on this machine.

    python -m benchmarks.peers [--sizes 256 512 1024] [--batches 1 2 4 8] [--compile] [--out DIR]

Everything is built with random weights, without downloads, and measured in one process, in turn:
every round runs all models at all sizes (and, for scale, a 3x3 convolution of 64 channels and a
matrix product), so that the noise of a shared machine falls on all alike. A ratio is the median
of the rounds' ratios.

Forward: eval mode, no gradients. BenCo's models run as its tester runs them, unchanged: their
forward includes their loss. QMA-Net runs as its predictor does, without the edge heads. Training:
forward, backward and a step of AdamW (TruFor: phase 2); QMA-Net with its edge heads and loss.
"mixed" is autocast to bfloat16. Peak memory is what a step (or forward) adds at its peak to the
weights and AdamW's state; on a CPU, each in a process of its own. A multiply-add is one FLOP,
counted by fvcore in the plain arithmetic: the Winograd transform of NoisePrint++ on a CPU does
fewer, so that a share of the machine may pass 1. Compiled rows have neither training nor memory.
"""

import argparse
import copy
import ctypes
import gc
import io
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import IMDLBenCo.model_zoo
import numpy as np
import torch
from fvcore.nn import FlopCountAnalysis
from IMDLBenCo.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

import qma_net.benco  # noqa: F401  (teaches fvcore to count fused attention)
from qma_net.files import write_text, written_beside
from qma_net.modeling.config import QMANetConfig
from qma_net.modeling.losses import edge_target, mask_and_edge_losses
from qma_net.modeling.qma_net import QMANetModel

from .training import random_noiseprint

ROOT = Path(__file__).resolve().parents[1]
OURS = "QMA-Net b3"
REFERENCE = 512  # side of the image, in pixels, at which models are compared


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    if args.peak:
        name, kind, *numbers = args.peak
        print(peak(name, kind, *map(int, numbers), args.device))
        return
    names = args.models or rows(args.compile, args.mixed_peers)
    if unknown := {base(name) for name in names} - {OURS, *PEERS}:
        parser.error(f"got {', '.join(unknown)}, expected some of {', '.join([OURS, *PEERS])}")
    results = measure(names, args)
    text = tables(results)
    print(text)
    if args.out:
        write_text(args.out / "peers.json", json.dumps(results, indent=1))
        write_text(args.out / "peers.md", text)
        draw(results, args.out / "peers.png")


def rows(compiled: bool, mixed_peers: bool) -> list[str]:
    ours = [OURS, f"{OURS} mixed"]
    return [
        *ours,
        *(f"{name} compiled" for name in ours if compiled),
        *PEERS,
        *(f"{name} mixed" for name in PEERS if mixed_peers),
    ]


def base(name: str) -> str:
    return name.removesuffix(" compiled").removesuffix(" mixed")


# Models: built for a side in pixels, with files of weights, where they insist, in a folder.


def trufor(size: int, folder: Path, device: str) -> nn.Module:
    torch.save(random_noiseprint(), folder / "noiseprint.pth")
    config = Path(IMDLBenCo.__file__).parent / "statics/model_zoo/configs/trufor.yaml"
    return MODELS.get("Trufor")(2, str(folder / "noiseprint.pth"), empty(folder), str(config))


def empty(folder: Path) -> str:
    """A state file without tensors, for what is loaded with ``strict=False``."""
    torch.save({}, folder / "empty.pth")
    return str(folder / "empty.pth")


def mesorch(size: int, folder: Path, device: str) -> nn.Module:
    model = MODELS.get("Mesorch")(empty(folder))
    model.resize.size = (size, size)
    return model


def mvss_net(size: int, folder: Path, device: str) -> nn.Module:
    """It fetches a ResNet-50, unless the hub's folder has a file of that name."""
    (folder / "hub/checkpoints").mkdir(parents=True)
    torch.save({}, folder / "hub/checkpoints/resnet50-19c8e357.pth")
    with patch.dict(os.environ, TORCH_HOME=str(folder)):
        return MODELS.get("MVSSNet")()


# Left out: SPAN draws its last layers anew in every forward, CAT-Net reads JPEG coefficients.
PEERS = {
    "TruFor": trufor,
    "Mesorch": mesorch,
    "SparseViT": lambda size, folder, device: MODELS.get("SparseViT")(img_size=size),
    "IML-ViT": lambda size, folder, device: MODELS.get("IML_ViT")(input_size=size),
    "ObjectFormer": lambda size, folder, device: MODELS.get("ObjectFormer")(
        input_size=size, num_prototypes=2 * (size // 16) ** 2
    ),
    "PSCC-Net": lambda size, folder, device: MODELS.get("PSCC_Net")(size, pretrain_path=""),
    "MVSS-Net": mvss_net,
    "MSCDI-Net": lambda size, folder, device: MODELS.get("MSCDI_Net")(
        backbone_weights_path=empty(folder)
    ),
    "MantraNet": lambda size, folder, device: MODELS.get("MantraNet")(device=torch.device(device)),
}


def build(name: str, size: int, device: str) -> nn.Module:
    torch.manual_seed(0)
    if name == OURS:
        return QMANetModel.from_config(QMANetConfig(size="b3")).to(device)
    with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        return PEERS[name](size, Path(folder), device).to(device)


def loaded(size: int, count: int, device: str) -> dict[str, Tensor]:
    """A batch as BenCo's loaders give it: noise, a square forgery in it, float64 masks."""
    mask = torch.zeros(count, 1, size, size, dtype=torch.float64)
    mask[..., size // 4 : size // 2, size // 4 : size // 2] = 1
    batch = {
        "image": torch.randn(count, 3, size, size),
        "mask": mask,
        "label": torch.ones(count, dtype=torch.int64),
        "edge_mask": edge_target(mask).double(),
        "shape": torch.full((count, 2), size),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def predict(name: str, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mask ``(B, 1, H, W)``, as logits or probabilities."""
    with torch.no_grad(), precision(name, batch):
        if base(name) == OURS:
            return network(batch["image"], edges=False).mask_logits
        return network(**batch)["pred_mask"]


def precision(name: str, batch: dict[str, Tensor]) -> torch.autocast:
    return torch.autocast(batch["image"].device.type, torch.bfloat16, enabled=" mixed" in name)


def trainer(name: str, network: nn.Module, batch: dict[str, Tensor]) -> Callable[[], None]:
    """A step of training, with AdamW's state already there."""
    parameters = [p for p in network.train().parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()

    def step() -> None:
        with precision(name, batch):
            if base(name) == OURS:
                mask, edge = mask_and_edge_losses(network(batch["image"]), batch["mask"])
                loss = 0.2 * mask + 0.8 * edge
            else:
                loss = network(**batch)["backward_loss"]
        if not loss.isfinite():
            raise ArithmeticError(f"got a loss of {loss.item()}, expected a finite one")
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


# Measurements. What fails is a line in ``failed``, and the run goes on.


@contextmanager
def noted(failed: dict[str, str], what: str):
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or "no message").splitlines()[0][:160]
        failed[what] = f"{type(error).__name__}: {reason}"
        print(f"{what}: {failed[what]}", file=sys.stderr, flush=True)


def interleaved(actions: dict[str, Callable], rounds: int, device: str, failed: dict):
    """Seconds of every action in every round, and seconds of its first call (a warm-up)."""
    first, seconds = {}, {name: [] for name in actions}
    for number in range(-3 if device == "cuda" else -1, rounds):
        for name in list(seconds):
            with noted(failed, name):
                elapsed = timed(actions[name], device)
                first.setdefault(name, elapsed)
                if number >= 0:
                    seconds[name].append(elapsed)
            if name in failed:
                del seconds[name]
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return seconds, first


def timed(action: Callable, device: str) -> float:
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    action()
    synchronize()
    return time.perf_counter() - start


def measure(names: list[str], args: argparse.Namespace) -> dict:
    """Everything, raw: seconds by what was run (``TruFor, forward 512``), counts, reasons."""
    device, failed = args.device, {}
    half = device == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    shown = REFERENCE if REFERENCE in args.sizes else min(args.sizes)
    results = {
        "machine": machine(device, half),
        "options": vars(args) | {"out": str(args.out)},
        "rows": names,
        "shown": shown,
        "failed": failed,
        "peak_mib": {},
    }
    results |= measure_forward(names, shown, half, args, failed)
    eager = [name for name in names if not name.endswith("compiled")]
    if not args.no_train:
        results["seconds"] |= measure_training(eager, args, failed)
    kinds = {"forward": (shown, 1), "training": (args.train_size, args.train_batch)}
    for kind in [] if args.no_memory else ["forward"] if args.no_train else list(kinds):
        for name in eager:
            with noted(failed, f"{name}, memory of {kind}"):
                run = peak if device == "cuda" else peak_apart
                results["peak_mib"][f"{name}, {kind}"] = run(name, kind, *kinds[kind], device)
    return results


def measure_forward(names: list[str], shown: int, half: bool, args, failed: dict) -> dict:
    """Times at all sizes and batches, beside the machine's; parameters and multiply-adds."""
    kernels = machine_kernels(args.device, half)
    actions = {name: kernel for name, (kernel, _) in kernels.items()}
    built, networks, parameters, flops = {}, {}, {}, {}
    for size in args.sizes:
        batch = loaded(size, 1, args.device)
        for name in names:
            model = base(name)
            with noted(failed, f"{name}, forward {size}"):
                key = model, None if model == OURS else size  # QMA-Net's rows share its weights
                if key not in built:
                    built[key] = build(model, size, args.device).eval()
                network = built[key]
                parameters[model] = sum(p.numel() for p in network.parameters())
                if name.endswith("compiled"):
                    network = copy.deepcopy(network)
                    network.compile_for_inference()
                if size == shown:
                    networks[name] = network
                actions[f"{name}, forward {size}"] = partial(predict, name, network, batch)
        for model in {base(name): None for name in networks} if size == shown else ():
            with noted(failed, f"{model}, FLOPs"):
                network = built[model, None if model == OURS else size]
                flops[model] = count(model, network, batch)
    seconds, first = interleaved(actions, args.rounds, args.device, failed)
    networks = {n: net for n, net in networks.items() if f"{n}, forward {shown}" in seconds}
    if not args.no_batches:
        seconds |= measure_batches(networks, shown, args, failed)
    return {
        "parameters": parameters,
        "flops": flops,
        "kernels": {name: work for name, (_, work) in kernels.items()},
        "seconds": seconds,
        "first_call_seconds": first,
    }


def measure_training(names: list[str], args: argparse.Namespace, failed: dict) -> dict:
    """Seconds of steps of training, all models' states in memory."""
    steps = {}
    batch = loaded(args.train_size, args.train_batch, args.device)
    for name in names:
        with noted(failed, f"{name}, training"):
            network = build(base(name), args.train_size, args.device)
            steps[f"{name}, training"] = trainer(name, network, batch)
    return interleaved(steps, args.rounds, args.device, failed)[0]


def measure_batches(networks: dict, size: int, args: argparse.Namespace, failed: dict) -> dict:
    """Seconds of ever larger batches, for each model until its images per second stop growing."""
    seconds, best, growing = {}, {}, list(networks)
    for batch in sorted(args.batches):
        given = loaded(size, batch, args.device)
        names = {f"{name}, batch {batch}": name for name in growing}
        actions = {
            key: partial(predict, name, networks[name], given) for key, name in names.items()
        }
        found = interleaved(actions, args.rounds, args.device, failed)[0]
        speeds = {names[key]: batch / np.median(runs) for key, runs in found.items()}
        growing = [name for name, speed in speeds.items() if speed > best.get(name, 0)]
        best |= {name: speeds[name] for name in growing}
        seconds |= found
    return seconds


class _Masks(nn.Module):
    """Tracing accepts tensors only."""

    def __init__(self, name: str, network: nn.Module, batch: dict[str, Tensor]):
        super().__init__()
        self.name, self.network, self.batch = name, network, batch

    def forward(self, image: Tensor) -> Tensor:
        return predict(self.name, self.network, {**self.batch, "image": image})


def count(name: str, network: nn.Module, batch: dict[str, Tensor]) -> float:
    flops = FlopCountAnalysis(_Masks(name, network, batch), batch["image"])
    return float(flops.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())


def machine_kernels(device: str, half: bool) -> dict[str, tuple[Callable, float]]:
    """What the machine can do: kernels with their multiply-adds, in float32 and bfloat16.

    The whole convolution writes 64 MiB of float32, and on a CPU much of its time goes into fresh
    memory; the same work in strips of rows keeps to the cache.
    """
    kernels, channels, side, n = {}, 64, REFERENCE, 2048 if device == "cpu" else 4096
    for dtype in (torch.float32, torch.bfloat16)[: 1 + half]:
        prefix = "bf16 " if dtype == torch.bfloat16 else ""
        weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
        image = torch.randn(1, channels, side, side, device=device, dtype=dtype)
        last = [x.contiguous(memory_format=torch.channels_last) for x in (image, weight)]
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in "ab")
        work = [partial(F.conv2d, image, weight, padding=1), partial(F.conv2d, *last, padding=1)]
        if device == "cpu":
            work += [partial(in_strips, image, weight, rows) for rows in (64, 16)]
        flops = 9 * channels**2 * side**2
        kernels |= {
            f"{prefix}{name}": (run, flops)
            for name, run in zip(CONVOLUTIONS[: len(work)], work, strict=True)
        }
        kernels[f"{prefix}matmul"] = (partial(torch.matmul, a, b), n**3)
    return kernels


def in_strips(image: Tensor, weight: Tensor, rows: int) -> None:
    for strip in image.split(rows, dim=2):
        F.conv2d(strip, weight, padding=1)


def peak(name: str, kind: str, size: int, count: int, device: str) -> float:
    """MiB that a training step or a forward adds at its peak to what is there before it."""
    network, batch = build(base(name), size, device), loaded(size, count, device)
    action = (
        trainer(name, network, batch)
        if kind == "training"
        else partial(predict, name, network.eval(), batch)
    )
    gc.collect()
    if device == "cuda":
        action()  # workspaces of the libraries
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        action()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    return resident_peak(action)


def resident_peak(action: Callable) -> float:
    """MiB that a call adds to the process's resident memory at its peak (Linux)."""

    def status(field: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024

    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, or it would count as there
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts here
    before = status("VmRSS")
    action()
    return status("VmHWM") - before


def peak_apart(name: str, kind: str, size: int, count: int, device: str) -> float:
    """:func:`peak` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.peers", "--device", device, "--peak"]
    command += [name, kind, str(size), str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1])
    return float(done.stdout.splitlines()[-1])


def machine(device: str, half: bool) -> dict:
    name = platform.processor() or platform.machine()
    if device == "cuda":
        name = torch.cuda.get_device_name()
    elif (cpuinfo := Path("/proc/cpuinfo")).exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((x.split(": ", 1)[1] for x in lines if x.startswith("model name")), name)
    return {
        "name": name,
        "platform": platform.platform(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "bfloat16": half,
        "date": datetime.now().isoformat(timespec="seconds"),
    }


# From raw results to tables and a picture: nothing below measures.

MISSING = "not measured"
# Kernels that a share is of: the fastest of each group.
WHOLE = ("convolution NCHW", "convolution channels last")
CONVOLUTIONS = (*WHOLE, "convolution in strips of 64 rows", "convolution in strips of 16 rows")
MATMUL = ("matmul",)


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile; linear between the values."""
    return tuple(float(q) for q in np.percentile(values, (25, 50, 75)))


def ratio(results: dict, above: str, below: str) -> float | None:
    """Median over the rounds of one time over another; None where one was not measured."""
    pair = [results["seconds"].get(key) for key in (above, below)]
    if not all(pair):
        return None
    return quartiles([a / b for a, b in zip(*pair, strict=True)])[1]


def share(results: dict, name: str, kernels: tuple[str, ...]) -> float | None:
    """A model's multiply-adds per second over those of the fastest of some kernels.

    Autocast is held against bfloat16 where the machine computes in it.
    """
    prefix = "bf16 " if " mixed" in name and results["machine"]["bfloat16"] else ""
    found = [f"{prefix}{kernel}" for kernel in kernels if f"{prefix}{kernel}" in results["seconds"]]
    flops = results["flops"].get(base(name))
    if not found or flops is None:
        return None
    fastest = min(found, key=lambda kernel: quartiles(results["seconds"][kernel])[1])
    of_time = ratio(results, fastest, f"{name}, forward {results['shown']}")
    return of_time and of_time * flops / results["kernels"][fastest]


def memory_ratio(results: dict, name: str, kind: str) -> float | None:
    pair = [results["peak_mib"].get(f"{model}, {kind}") for model in (name, "TruFor")]
    return pair[0] / pair[1] if all(pair) else None


def per_second(results: dict, name: str) -> tuple[float, int] | None:
    """Images per second at the best batch size, and that size."""
    runs = results["seconds"].items()
    found = {int(key.rsplit(" ", 1)[1]): v for key, v in runs if key.startswith(f"{name}, batch ")}
    return max(((n / quartiles(v)[1], n) for n, v in found.items()), default=None)


def cell(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def spread(values: list[float] | None) -> str:
    """Milliseconds: median [quartiles]."""
    if not values:
        return "-"
    low, middle, high = (1e3 * q for q in quartiles(values))
    return f"{middle:.1f} [{low:.1f}, {high:.1f}]"


def table(title: str, head: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join([f"\n{title}\n", *(f"| {' | '.join(row)} |" for row in [head, rule, *lines])])


def tables(results: dict) -> str:
    """The report in Markdown."""
    where, options, names = results["machine"], results["options"], results["rows"]
    seconds, peaks, shown = results["seconds"], results["peak_mib"], results["shown"]
    models, growth, training = [], [], []
    sizes = sorted(options["sizes"])
    for name in names:
        parameters, flops = (results[of].get(base(name)) for of in ("parameters", "flops"))
        best = per_second(results, name)
        compiled = results["first_call_seconds"].get(f"{name}, forward {shown}")
        models.append(
            [
                name,
                cell(parameters and parameters / 1e6, ".1f"),
                cell(flops and flops / 1e9, ".1f"),
                spread(seconds.get(f"{name}, forward {shown}")),
                cell(ratio(results, *(f"{n}, forward {shown}" for n in (name, "TruFor")))),
                f"{best[0]:.2f} ({best[1]})" if best else "-",
                cell(peaks.get(f"{name}, forward"), ".0f"),
                *(cell(share(results, name, kernels)) for kernels in (WHOLE, CONVOLUTIONS, MATMUL)),
                cell(compiled if name.endswith("compiled") else None, ".1f"),
            ]
        )
        times = [f"{name}, forward {size}" for size in sizes]
        steps = [ratio(results, time, times[0]) for time in times]
        growth.append(
            [name, *(spread(seconds.get(time)) for time in times)]
            + [cell(r and r * (sizes[0] / s) ** 2) for r, s in zip(steps, sizes, strict=True)][1:]
        )
        if not name.endswith("compiled"):
            training.append(
                [
                    name,
                    spread(seconds.get(f"{name}, training")),
                    cell(ratio(results, f"{name}, training", "TruFor, training")),
                    cell(peaks.get(f"{name}, training"), ".0f"),
                    cell(memory_ratio(results, name, "training")),
                ]
            )
    square = f"{shown}x{shown}"
    head = "model, parameters (M), GFLOPs, ms per image, of TruFor's, images/s (batch), peak MiB"
    head += ", of whole convolution's FLOP/s, of best convolution's, of matmul's, start-up (s)"
    kernels = [
        [name, cell(flops / quartiles(seconds[name])[1] / 1e9, ".0f")]
        for name, flops in results["kernels"].items()
        if seconds.get(name)
    ]
    batch = f"{options['train_batch']} of {options['train_size']}x{options['train_size']}"
    parts = [
        f"{where['name']}, {where['threads']} threads, torch {where['torch']}, {where['date']}; "
        f"medians [quartiles] of {options['rounds']} rounds",
        table(f"Forward, {square}, batch 1", head.split(", "), models),
        table(
            f"The machine (convolution of 64 channels, {REFERENCE}x{REFERENCE})",
            ["kernel", "GFLOP/s"],
            kernels,
        ),
    ]
    if len(sizes) > 1:
        head = ["model", *(f"{s} (ms)" for s in sizes), *(f"growth to {s}" for s in sizes[1:])]
        parts.append(
            table("Growth of time over growth of pixels, from the smallest size", head, growth)
        )
    if not options["no_train"]:
        head = ["model", "ms per step", "of TruFor's", "peak MiB", "of TruFor's"]
        parts.append(table(f"Training step, {batch}", head, training))
    parts.append(table("Targets", ["what", "target", "got", "met"], targets(results, batch)))
    if not where["bfloat16"]:
        parts.append("\nThis CPU has no bfloat16 arithmetic: mixed rows emulate it.")
    parts += [f"\n`-` {what}: {reason}" for what, reason in results["failed"].items()]
    return "\n".join(parts) + "\n"


def targets(results: dict, batch: str) -> list[list[str]]:
    """What was asked of the paper's model, and what this run got."""
    ours, mixed, trufor, mesorch, larger = (
        f"{name}, forward {side}"
        for name, side in (
            (OURS, REFERENCE),
            (f"{OURS} mixed", REFERENCE),
            ("TruFor", REFERENCE),
            ("Mesorch", REFERENCE),
            (OURS, 2 * REFERENCE),
        )
    )
    shares = [
        share(results, OURS, kernels) if results["shown"] == REFERENCE else None
        for kernels in (WHOLE, CONVOLUTIONS)
    ]
    step = ratio(results, f"{OURS}, training", "TruFor, training")
    memory = memory_ratio(results, OURS, "training")
    lines = []
    for what, sign, target, got in (
        (f"time of {ours} / TruFor's", "<=", 0.48, ratio(results, ours, trufor)),
        (f"time of {mixed} / Mesorch's in float32", "<=", 0.95, ratio(results, mixed, mesorch)),
        (f"FLOP/s of {ours} / of the whole convolution", ">=", 0.80, shares[0]),
        (f"FLOP/s of {ours} / of the best convolution", ">=", 0.80, shares[1]),
        (f"time of {larger} / at {REFERENCE}", "<=", 4.6, ratio(results, larger, ours)),
        (f"time of {OURS}, training step, {batch} / TruFor's", "<=", 0.68, step),
        ("peak memory of that step / TruFor's", "<=", 1.0, memory),
    ):
        met = got is not None and (got <= target if sign == "<=" else got >= target)
        verdict = [MISSING, "-"] if got is None else [f"{got:.3f}", "yes" if met else "no"]
        lines.append([what, f"{sign} {target:.2f}", *verdict])
    return lines


def draw(results: dict, path: Path) -> None:
    """Time against pixels; and times as a share of TruFor's, where TruFor was measured."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter, NullLocator

    names, sizes = results["rows"], sorted(results["options"]["sizes"])
    panels = {
        what: {name: ratio(results, f"{name}, {what}", f"TruFor, {what}") for name in names}
        for what in (f"forward {results['shown']}", "training")
    }
    panels = {what: {n: r for n, r in of.items() if r} for what, of in panels.items()}
    panels = {what: of for what, of in panels.items() if of}
    peers = [name for name in PEERS if name in map(base, names)]
    colours = {name: f"C{i if i < 3 else i + 1}" for i, name in enumerate(peers)} | {OURS: "C3"}
    styles = {"mixed": "--", "compiled": ":"}
    figure = Figure(figsize=(5.6 + 3.4 * len(panels), 4.4), layout="constrained")
    widths = [1.5] + [1] * len(panels)
    axes, *bars = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    for name in names:
        times = {s: results["seconds"].get(f"{name}, forward {s}") for s in sizes}
        points = [(s * s, 1e3 * quartiles(times[s])[1]) for s in sizes if times[s]]
        if points:
            style = dict(color=colours[base(name)], ls=styles.get(name.split()[-1], "-"))
            axes.loglog(*zip(*points, strict=True), marker="o", ms=4, label=name, **style)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([s * s for s in sizes], [f"{s}x{s}" for s in sizes])
    axes.set(title="Forward, batch 1", xlabel="pixels", ylabel="ms per image")
    axes.legend(frameon=False, fontsize=8)
    for of, (what, found) in zip(bars, panels.items(), strict=True):
        drawn = of.barh(list(found), list(found.values()), color=[colours[base(n)] for n in found])
        of.bar_label(drawn, fmt="%.2f", padding=3, fontsize=8)
        of.axvline(1, color="grey", lw=0.8)
        of.invert_yaxis()
        of.margins(x=0.15)
        side = f"{results['shown']}x{results['shown']}"
        title = "Training step" if what == "training" else f"Forward, {side}"
        of.set(title=title, xlabel="time over TruFor's")
    for panel in (axes, *bars):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25, axis="both" if panel is axes else "x")
    with written_beside(path) as beside:
        figure.savefig(beside, format="png", dpi=130)


if __name__ == "__main__":
    main()
