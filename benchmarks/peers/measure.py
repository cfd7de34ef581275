"""Measurement of run times, peak memory, and the speed of the machine's kernels.

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

from .models import OURS, REFERENCE, build, count_flops, make_step, model_of, predict, random_batch

ROOT = Path(__file__).resolve().parents[2]

# Groups of kernels, of which the fastest is the reference.
WHOLE_CONVOLUTIONS = ("convolution NCHW", "convolution channels last")
ALL_CONVOLUTIONS = (
    *WHOLE_CONVOLUTIONS,
    "convolution in strips of 64 rows",
    "convolution in strips of 16 rows",
)
MATMUL = ("matmul",)


def measure(rows: list[str], args: argparse.Namespace) -> dict:
    """Measure everything and return the raw results.

    Args:
        rows: The rows; see :mod:`.models`.
        args: The options of the command line.

    Returns:
        Seconds by measurement (``"TruFor, forward 512"``), counts, and the reasons of failures.
        ``"shown"`` is the image size for which counts, throughput and memory are measured.
    """
    device, failed = args.device, {}
    bfloat16 = device == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    size = REFERENCE if REFERENCE in args.sizes else min(args.sizes)
    results = {
        "machine": describe_machine(device, bfloat16),
        "options": vars(args) | {"out": str(args.out)},
        "rows": rows,
        "shown": size,
        "failed": failed,
        "peak_mib": {},
    }
    results |= measure_forward(rows, size, bfloat16, args, failed)
    eager = [row for row in rows if not row.endswith("compiled")]
    shapes = {"forward": {"size": size, "batch_size": 1}}
    if not args.no_train:
        results["seconds"] |= measure_training(eager, args, failed)
        shapes["training"] = {"size": args.train_size, "batch_size": args.train_batch}
    measure_peak = peak_memory if device == "cuda" else peak_memory_of_process
    for kind, shape in () if args.no_memory else shapes.items():
        for row in eager:
            with record_failure(failed, f"{row}, memory of {kind}"):
                mib = measure_peak(row=row, kind=kind, **shape, device=device)
                results["peak_mib"][f"{row}, {kind}"] = mib
    return results


@contextmanager
def record_failure(failed: dict[str, str], title: str) -> Iterator[None]:
    """Convert an exception to an entry of ``failed`` and print it."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or "no message").splitlines()[0][:160]
        failed[title] = f"{type(error).__name__}: {reason}"
        print(f"{title}: {failed[title]}", file=sys.stderr, flush=True)


def time_in_turn(
    actions: dict[str, Callable], rounds: int, device: str, failed: dict[str, str]
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return the seconds of every action per round, and of its first call (a warm-up)."""
    first, seconds = {}, {key: [] for key in actions}
    for number in range(-3 if device == "cuda" else -1, rounds):
        for key in list(seconds):
            with record_failure(failed, key):
                elapsed = time_call(actions[key], device)
                first.setdefault(key, elapsed)
                if number >= 0:
                    seconds[key].append(elapsed)
            if key in failed:
                del seconds[key]
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return seconds, first


def time_call(action: Callable, device: str) -> float:
    """Return the seconds of one call, including the work on the device."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    action()
    synchronize()
    return time.perf_counter() - start


# Run times


def measure_forward(
    rows: list[str], size: int, bfloat16: bool, args: argparse.Namespace, failed: dict[str, str]
) -> dict:
    """Measure forward passes at all sizes and batch sizes, kernels, parameters and multiply-adds.

    Args:
        rows: The rows.
        size: The image size for multiply-adds and for larger batches.
        bfloat16: Whether the machine supports bfloat16 arithmetic.
        args: The options of the command line.
        failed: Receives the reasons of failures.
    """
    kernels = machine_kernels(args.device, bfloat16)
    actions = {name: kernel for name, (kernel, _) in kernels.items()}
    built, networks, parameters, flops = {}, {}, {}, {}
    for side in args.sizes:
        batch = random_batch(side, 1, args.device)
        for row in rows:
            model = model_of(row)
            with record_failure(failed, f"{row}, forward {side}"):
                # QMA-Net does not depend on the size, so all of its rows share one network.
                key = model, None if model == OURS else side
                if key not in built:
                    built[key] = build(model, side, args.device).eval()
                network = built[key]
                parameters[model] = sum(p.numel() for p in network.parameters())
                if row.endswith("compiled"):
                    network = copy.deepcopy(network)
                    network.compile_for_inference()
                if side == size:
                    networks[row] = network
                actions[f"{row}, forward {side}"] = partial(predict, row, network, batch)
        for model in {model_of(row): None for row in networks} if side == size else ():
            with record_failure(failed, f"{model}, FLOPs"):
                network = built[model, None if model == OURS else side]
                flops[model] = count_flops(model, network, batch)
    seconds, first = time_in_turn(actions, args.rounds, args.device, failed)
    networks = {row: net for row, net in networks.items() if f"{row}, forward {size}" in seconds}
    if not args.no_batches:
        seconds |= measure_batches(networks, size, args, failed)
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
        keys = {f"{row}, batch {batch_size}": row for row in growing}
        actions = {key: partial(predict, row, networks[row], batch) for key, row in keys.items()}
        times = time_in_turn(actions, args.rounds, args.device, failed)[0]
        speeds = {keys[key]: batch_size / np.median(runs) for key, runs in times.items()}
        growing = [row for row, speed in speeds.items() if speed > best.get(row, 0)]
        best |= {row: speeds[row] for row in growing}
        seconds |= times
    return seconds


def measure_training(
    rows: list[str], args: argparse.Namespace, failed: dict[str, str]
) -> dict[str, list[float]]:
    """Measure training steps, with the states of all models in memory."""
    steps = {}
    batch = random_batch(args.train_size, args.train_batch, args.device)
    for row in rows:
        with record_failure(failed, f"{row}, training"):
            network = build(model_of(row), args.train_size, args.device)
            steps[f"{row}, training"] = make_step(row, network, batch)
    return time_in_turn(steps, args.rounds, args.device, failed)[0]


# Memory


def peak_memory(*, row: str, kind: str, size: int, batch_size: int, device: str) -> float:
    """Return the peak memory in MiB that a training step or forward pass needs in addition."""
    network, batch = build(model_of(row), size, device), random_batch(size, batch_size, device)
    action = (
        make_step(row, network, batch)
        if kind == "training"
        else partial(predict, row, network.eval(), batch)
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
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024

    ctypes.CDLL(None).malloc_trim(0)  # Return freed memory to the system first.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # Reset the high-water mark.
    before = status("VmRSS")
    action()
    return status("VmHWM") - before


def peak_memory_of_process(
    *, row: str, kind: str, size: int, batch_size: int, device: str
) -> float:
    """Run :func:`peak_memory` in a new process."""
    command = [sys.executable, "-m", "benchmarks.peers", "--device", device, "--peak"]
    command += [row, kind, str(size), str(batch_size)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1])
    return float(done.stdout.splitlines()[-1])


# The machine


def describe_machine(device: str, bfloat16: bool) -> dict:
    """Return the processor or GPU, versions and the date."""
    name = platform.processor() or platform.machine()
    if device == "cuda":
        name = torch.cuda.get_device_name()
    elif (cpuinfo := Path("/proc/cpuinfo")).exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        name = next((x.split(": ", 1)[1] for x in lines if x.startswith("model name")), name)
    return {
        "name": name,
        "platform": platform.platform(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "bfloat16": bfloat16,
        "date": datetime.now().isoformat(timespec="seconds"),
    }


def machine_kernels(device: str, bfloat16: bool) -> dict[str, tuple[Callable, float]]:
    """Return reference kernels with their multiply-adds, in float32 and possibly bfloat16.

    The whole convolution writes 64 MiB in float32; on a CPU much of its time is spent on newly
    allocated memory. The same work in strips of rows stays in the cache.
    """
    kernels, channels, side, n = {}, 64, REFERENCE, 2048 if device == "cpu" else 4096
    for dtype in (torch.float32, torch.bfloat16)[: 1 + bfloat16]:
        prefix = "bf16 " if dtype == torch.bfloat16 else ""
        weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
        image = torch.randn(1, channels, side, side, device=device, dtype=dtype)
        last = [x.contiguous(memory_format=torch.channels_last) for x in (image, weight)]
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in "ab")
        calls = [partial(F.conv2d, image, weight, padding=1), partial(F.conv2d, *last, padding=1)]
        if device == "cpu":
            calls += [partial(convolve_strips, image, weight, rows) for rows in (64, 16)]
        flops = 9 * channels**2 * side**2
        kernels |= {
            f"{prefix}{name}": (call, flops)
            for name, call in zip(ALL_CONVOLUTIONS[: len(calls)], calls, strict=True)
        }
        kernels[f"{prefix}matmul"] = (partial(torch.matmul, a, b), n**3)
    return kernels


def convolve_strips(image: Tensor, weight: Tensor, rows: int) -> None:
    """Convolve an image in strips of ``rows`` rows."""
    for strip in image.split(rows, dim=2):
        F.conv2d(strip, weight, padding=1)
