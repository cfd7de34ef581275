"""Markdown tables of the raw results."""

import numpy as np

from .measure import ALL_CONVOLUTIONS, MATMUL, WHOLE_CONVOLUTIONS
from .models import OURS, REFERENCE, model_of

MODEL_HEAD = (
    "model",
    "parameters (M)",
    "GFLOPs",
    "ms per image",
    "relative to TruFor",
    "images/s (batch size)",
    "peak MiB",
    "share of convolution speed",
    "share of fastest convolution speed",
    "share of matmul speed",
    "compilation (s)",
)
TRAINING_HEAD = ("model", "ms per step", "relative to TruFor", "peak MiB", "relative to TruFor")


def format_report(results: dict) -> str:
    """Format all tables.

    Args:
        results: The results of :func:`.measure.measure`.
    """
    machine, options, rows = results["machine"], results["options"], results["rows"]
    size, sizes = results["shown"], sorted(options["sizes"])
    batch = f"{options['train_batch']} images of {options['train_size']}x{options['train_size']}"
    parts = [
        f"{machine['name']}, {machine['threads']} threads, torch {machine['torch']}, "
        f"{machine['date']}; medians [quartiles] of {options['rounds']} rounds",
        format_table(
            f"Forward pass, {size}x{size}, batch size 1",
            MODEL_HEAD,
            [model_cells(results, row) for row in rows],
        ),
        format_table(
            f"Kernels of this machine (convolution with 64 channels at {REFERENCE}x{REFERENCE})",
            ["kernel", "GFLOP/s"],
            kernel_rows(results),
        ),
    ]
    if len(sizes) > 1:
        head = ["model", *(f"{s} (ms)" for s in sizes), *(f"growth to {s}" for s in sizes[1:])]
        title = f"Growth of the time relative to that of the number of pixels, from {sizes[0]}"
        lines = [growth_cells(results, row, sizes) for row in rows]
        parts.append(format_table(title, head, lines))
    if not options["no_train"]:
        lines = [training_cells(results, row) for row in rows if not row.endswith("compiled")]
        parts.append(format_table(f"Training step, {batch}", TRAINING_HEAD, lines))
    head = ["measurement", "target", "result", "met"]
    parts.append(format_table("Targets", head, target_rows(results, batch)))
    if not machine["bfloat16"]:
        parts.append("\nThis CPU has no bfloat16 arithmetic; mixed rows emulate it.")
    parts += [f"\n`-` {title}: {reason}" for title, reason in results["failed"].items()]
    return "\n".join(parts) + "\n"


def model_cells(results: dict, row: str) -> list[str]:
    """Return the cells of a row below MODEL_HEAD."""
    forward = f"forward {results['shown']}"
    key, model = f"{row}, {forward}", model_of(row)
    parameters, flops = (results[count].get(model) for count in ("parameters", "flops"))
    throughput = best_throughput(results, row)
    compilation = results["first_call_seconds"].get(key) if row.endswith("compiled") else None
    kernels = (WHOLE_CONVOLUTIONS, ALL_CONVOLUTIONS, MATMUL)
    return [
        row,
        format_number(parameters and parameters / 1e6, ".1f"),
        format_number(flops and flops / 1e9, ".1f"),
        format_times(results["seconds"].get(key)),
        format_number(ratio(results, key, f"TruFor, {forward}")),
        f"{throughput[0]:.2f} ({throughput[1]})" if throughput else "-",
        format_number(results["peak_mib"].get(f"{row}, forward"), ".0f"),
        *(format_number(relative_speed(results, row, group)) for group in kernels),
        format_number(compilation, ".1f"),
    ]


def kernel_rows(results: dict) -> list[list[str]]:
    """Return the speed of every measured kernel in 1e9 multiply-adds per second."""
    return [
        [name, format_number(flops / quartiles(results["seconds"][name])[1] / 1e9, ".0f")]
        for name, flops in results["kernels"].items()
        if results["seconds"].get(name)
    ]


def growth_cells(results: dict, row: str, sizes: list[int]) -> list[str]:
    """Return the times at all sizes, and their growth divided by that of the number of pixels."""
    smallest = sizes[0]
    keys = {size: f"{row}, forward {size}" for size in sizes}
    growths = {size: ratio(results, keys[size], keys[smallest]) for size in sizes[1:]}
    return [
        row,
        *(format_times(results["seconds"].get(key)) for key in keys.values()),
        *(
            format_number(growth and growth * (smallest / size) ** 2)
            for size, growth in growths.items()
        ),
    ]


def training_cells(results: dict, row: str) -> list[str]:
    """Return the cells of a row below TRAINING_HEAD."""
    key = f"{row}, training"
    return [
        row,
        format_times(results["seconds"].get(key)),
        format_number(ratio(results, key, "TruFor, training")),
        format_number(results["peak_mib"].get(key), ".0f"),
        format_number(training_memory_ratio(results, row)),
    ]


def target_rows(results: dict, batch: str) -> list[list[str]]:
    """Compare the default model with its targets.

    Args:
        results: The results of :func:`.measure.measure`.
        batch: Description of the training batch.
    """
    ours = f"{OURS}, forward {REFERENCE}"
    mixed = f"{OURS} mixed, forward {REFERENCE}"
    larger = f"{OURS}, forward {2 * REFERENCE}"
    trufor, mesorch = (f"{name}, forward {REFERENCE}" for name in ("TruFor", "Mesorch"))
    whole, fastest = (
        relative_speed(results, OURS, kernels) if results["shown"] == REFERENCE else None
        for kernels in (WHOLE_CONVOLUTIONS, ALL_CONVOLUTIONS)
    )
    step = ratio(results, f"{OURS}, training", "TruFor, training")
    memory = training_memory_ratio(results, OURS)
    rows = []
    for title, sign, target, value in (
        (
            f"time of {OURS} at {REFERENCE}, relative to TruFor",
            "<=",
            0.48,
            ratio(results, ours, trufor),
        ),
        (
            f"time of {OURS} mixed at {REFERENCE}, relative to Mesorch in float32",
            "<=",
            0.95,
            ratio(results, mixed, mesorch),
        ),
        (f"FLOP/s of {OURS} at {REFERENCE}, relative to the convolution", ">=", 0.80, whole),
        (
            f"FLOP/s of {OURS} at {REFERENCE}, relative to the fastest convolution",
            ">=",
            0.80,
            fastest,
        ),
        (
            f"time of {OURS} at {2 * REFERENCE}, relative to {REFERENCE}",
            "<=",
            4.6,
            ratio(results, larger, ours),
        ),
        (f"time of a training step of {OURS}, {batch}, relative to TruFor", "<=", 0.68, step),
        ("peak memory of this training step, relative to TruFor", "<=", 1.0, memory),
    ):
        if value is None:
            result = ["not measured", "-"]
        else:
            met = value <= target if sign == "<=" else value >= target
            result = [f"{value:.3f}", "yes" if met else "no"]
        rows.append([title, f"{sign} {target:.2f}", *result])
    return rows


# Numbers from the raw results, or None for what was not measured.


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Return the first quartile, the median and the third quartile, linearly interpolated."""
    return tuple(float(q) for q in np.percentile(values, (25, 50, 75)))


def ratio(results: dict, numerator: str, denominator: str) -> float | None:
    """Return the median over all rounds of the ratio of two times, given by their keys."""
    times = [results["seconds"].get(key) for key in (numerator, denominator)]
    if not all(times):
        return None
    return quartiles([a / b for a, b in zip(*times, strict=True)])[1]


def relative_speed(results: dict, row: str, kernels: tuple[str, ...]) -> float | None:
    """Return a row's multiply-adds per second relative to the fastest of some kernels.

    A mixed row is compared with bfloat16 kernels if the machine supports bfloat16 arithmetic.
    """
    prefix = "bf16 " if " mixed" in row and results["machine"]["bfloat16"] else ""
    measured = [prefix + kernel for kernel in kernels if prefix + kernel in results["seconds"]]
    flops = results["flops"].get(model_of(row))
    if not measured or flops is None:
        return None
    fastest = min(measured, key=lambda kernel: quartiles(results["seconds"][kernel])[1])
    time_ratio = ratio(results, fastest, f"{row}, forward {results['shown']}")
    return time_ratio and time_ratio * flops / results["kernels"][fastest]


def training_memory_ratio(results: dict, row: str) -> float | None:
    """Return the peak memory of a training step relative to TruFor."""
    peaks = [results["peak_mib"].get(f"{name}, training") for name in (row, "TruFor")]
    return peaks[0] / peaks[1] if all(peaks) else None


def best_throughput(results: dict, row: str) -> tuple[float, int] | None:
    """Return the highest number of images per second and its batch size."""
    prefix = f"{row}, batch "
    times = {
        int(key.removeprefix(prefix)): seconds
        for key, seconds in results["seconds"].items()
        if key.startswith(prefix)
    }
    return max(((n / quartiles(seconds)[1], n) for n, seconds in times.items()), default=None)


# Formatting


def format_number(value: float | None, spec: str = ".2f") -> str:
    """Format a number; None becomes a dash."""
    return "-" if value is None else format(value, spec)


def format_times(seconds: list[float] | None) -> str:
    """Format times in milliseconds as ``median [first quartile, third quartile]``."""
    if not seconds:
        return "-"
    low, median, high = (1e3 * q for q in quartiles(seconds))
    return f"{median:.1f} [{low:.1f}, {high:.1f}]"


def format_table(title: str, head: tuple[str, ...] | list[str], rows: list[list[str]]) -> str:
    """Format a Markdown table below its title."""
    rule = ["---"] * len(head)
    return "\n".join([f"\n{title}\n", *(f"| {' | '.join(row)} |" for row in [head, rule, *rows])])
