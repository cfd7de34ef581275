"""Measure run times in turn, memory, and the speed of the machine's kernels.

A failed measurement becomes an entry in ``failed``, and the run continues.
"""

import argparse
import copy
import ctypes
import gc
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .models import OURS, REFERENCE, base, build, count_flops, predict, random_batch, trainer

ROOT = Path(__file__).resolve().parents[2]

# Kernels of the machine, in groups of which the fastest is used.
WHOLE = ("convolution NCHW", "convolution channels last")
CONVOLUTIONS = (*WHOLE, "convolution in strips of 64 rows", "convolution in strips of 16 rows")
MATMUL = ("matmul",)


def measure(names: list[str], args: argparse.Namespace) -> dict:
    """Measure everything and return the raw results.

    Args:
        names: The rows; see :mod:`.models`.
        args: The options of the command line.

    Returns:
        Seconds by measurement (``"TruFor, forward 512"``), counts, and the reasons of failures.
    """
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
    kinds = {"forward": {"size": shown, "batch_size": 1}}
    if not args.no_train:
        results["seconds"] |= measure_training(eager, args, failed)
        kinds["training"] = {"size": args.train_size, "batch_size": args.train_batch}
    run = peak if device == "cuda" else peak_apart
    for kind, shape in () if args.no_memory else kinds.items():
        for name in eager:
            with noted(failed, f"{name}, memory of {kind}"):
                mib = run(name=name, kind=kind, **shape, device=device)
                results["peak_mib"][f"{name}, {kind}"] = mib
    return results


@contextmanager
def noted(failed: dict[str, str], what: str) -> Iterator[None]:
    """Convert an exception to an entry of ``failed`` and print it."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or "no message").splitlines()[0][:160]
        failed[what] = f"{type(error).__name__}: {reason}"
        print(f"{what}: {failed[what]}", file=sys.stderr, flush=True)


def interleaved(
    actions: dict[str, Callable], rounds: int, device: str, failed: dict[str, str]
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return the seconds of every action per round, and of its first call (a warm-up)."""
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
    """Return the seconds of one call, until the device has finished."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    action()
    synchronize()
    return time.perf_counter() - start


# Times


def measure_forward(
    names: list[str], shown: int, half: bool, args: argparse.Namespace, failed: dict[str, str]
) -> dict:
    """Measure forward passes at all sizes and batch sizes, kernels, parameters and multiply-adds.

    Args:
        names: The rows.
        shown: The image side for counting multiply-adds and for larger batches.
        half: Whether the machine supports bfloat16 arithmetic.
        args: The options of the command line.
        failed: Receives the reasons of failures.
    """
    kernels = machine_kernels(args.device, half)
    actions = {name: kernel for name, (kernel, _) in kernels.items()}
    built, networks, parameters, flops = {}, {}, {}, {}
    for size in args.sizes:
        batch = random_batch(size, 1, args.device)
        for name in names:
            model = base(name)
            with noted(failed, f"{name}, forward {size}"):
                key = model, None if model == OURS else size  # All rows of QMA-Net share its weights.
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
                flops[model] = count_flops(model, network, batch)
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


def measure_batches(
    networks: dict[str, nn.Module], size: int, args: argparse.Namespace, failed: dict[str, str]
) -> dict[str, list[float]]:
    """Measure increasing batch sizes of each row until its images per second stop increasing."""
    seconds, best, growing = {}, {}, list(networks)
    for batch_size in sorted(args.batches):
        batch = random_batch(size, batch_size, args.device)
        names = {f"{name}, batch {batch_size}": name for name in growing}
        actions = {
            key: partial(predict, name, networks[name], batch) for key, name in names.items()
        }
        times = interleaved(actions, args.rounds, args.device, failed)[0]
        speeds = {names[key]: batch_size / np.median(runs) for key, runs in times.items()}
        growing = [name for name, speed in speeds.items() if speed > best.get(name, 0)]
        best |= {name: speeds[name] for name in growing}
        seconds |= times
    return seconds


def measure_training(
    names: list[str], args: argparse.Namespace, failed: dict[str, str]
) -> dict[str, list[float]]:
    """Measure training steps, with the states of all models in memory."""
    steps = {}
    batch = random_batch(args.train_size, args.train_batch, args.device)
    for name in names:
        with noted(failed, f"{name}, training"):
            network = build(base(name), args.train_size, args.device)
            steps[f"{name}, training"] = trainer(name, network, batch)
    return interleaved(steps, args.rounds, args.device, failed)[0]


# Memory


def peak(*, name: str, kind: str, size: int, batch_size: int, device: str) -> float:
    """Return the peak memory in MiB that a training step or forward pass needs in addition."""
    network, batch = build(base(name), size, device), random_batch(size, batch_size, device)
    action = (
        trainer(name, network, batch)
        if kind == "training"
        else partial(predict, name, network.eval(), batch)
    )
    gc.collect()
    if device == "cuda":
        action()  # Allocates the workspaces of the libraries.
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        action()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    return resident_peak(action)


def resident_peak(action: Callable) -> float:
    """Return the peak in MiB that a call adds to the process's resident memory (Linux only)."""

    def status(field: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024

    ctypes.CDLL(None).malloc_trim(0)  # Return freed memory to the system first.
    Path("/proc/self/clear_refs").write_text("5")  # Reset the high-water mark.
    before = status("VmRSS")
    action()
    return status("VmHWM") - before


def peak_apart(*, name: str, kind: str, size: int, batch_size: int, device: str) -> float:
    """Run :func:`peak` in a new process."""
    command = [sys.executable, "-m", "benchmarks.peers", "--device", device, "--peak"]
    command += [name, kind, str(size), str(batch_size)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1])
    return float(done.stdout.splitlines()[-1])


# The machine


def machine(device: str, half: bool) -> dict:
    """Describe the machine: processor or GPU, versions and date."""
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


def machine_kernels(device: str, half: bool) -> dict[str, tuple[Callable, float]]:
    """Return reference kernels with their multiply-adds, in float32 and bfloat16.

    The whole convolution writes 64 MiB in float32; on a CPU much of its time is spent on newly
    allocated memory. The same work in strips of rows stays in the cache.
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
    """A convolution of so many rows at a time."""
    for strip in image.split(rows, dim=2):
        F.conv2d(strip, weight, padding=1)
