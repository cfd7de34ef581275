"""From raw results to tables in Markdown; nothing here measures."""

import numpy as np

from .measure import CONVOLUTIONS, MATMUL, WHOLE
from .models import OURS, REFERENCE, base

MISSING = "not measured"
MODEL_HEAD = (
    "model",
    "parameters (M)",
    "GFLOPs",
    "ms per image",
    "of TruFor's",
    "images/s (batch)",
    "peak MiB",
    "of whole convolution's FLOP/s",
    "of best convolution's",
    "of matmul's",
    "start-up (s)",
)
TRAINING_HEAD = ("model", "ms per step", "of TruFor's", "peak MiB", "of TruFor's")


def tables(results: dict) -> str:
    """The whole report of what :func:`.measure.measure` gives."""
    where, options, names = results["machine"], results["options"], results["rows"]
    shown, sizes = results["shown"], sorted(options["sizes"])
    batch = f"{options['train_batch']} of {options['train_size']}x{options['train_size']}"
    parts = [
        f"{where['name']}, {where['threads']} threads, torch {where['torch']}, {where['date']}; "
        f"medians [quartiles] of {options['rounds']} rounds",
        table(
            f"Forward, {shown}x{shown}, batch 1",
            MODEL_HEAD,
            [model_cells(results, name) for name in names],
        ),
        table(
            f"The machine (convolution of 64 channels, {REFERENCE}x{REFERENCE})",
            ["kernel", "GFLOP/s"],
            kernel_lines(results),
        ),
    ]
    if len(sizes) > 1:
        parts.append(
            table(
                "Growth of time over growth of pixels, from the smallest size",
                ["model", *(f"{s} (ms)" for s in sizes), *(f"growth to {s}" for s in sizes[1:])],
                [growth_cells(results, name, sizes) for name in names],
            )
        )
    if not options["no_train"]:
        eager = [name for name in names if not name.endswith("compiled")]
        lines = [training_cells(results, name) for name in eager]
        parts.append(table(f"Training step, {batch}", TRAINING_HEAD, lines))
    parts.append(table("Targets", ["what", "target", "got", "met"], targets(results, batch)))
    if not where["bfloat16"]:
        parts.append("\nThis CPU has no bfloat16 arithmetic: mixed rows emulate it.")
    parts += [f"\n`-` {what}: {reason}" for what, reason in results["failed"].items()]
    return "\n".join(parts) + "\n"


def model_cells(results: dict, name: str) -> list[str]:
    """A row under MODEL_HEAD."""
    seconds, forward = results["seconds"], f"forward {results['shown']}"
    parameters, flops = (results[of].get(base(name)) for of in ("parameters", "flops"))
    best = images_per_second(results, name)
    start_up = results["first_call_seconds"].get(f"{name}, {forward}")
    return [
        name,
        cell(parameters and parameters / 1e6, ".1f"),
        cell(flops and flops / 1e9, ".1f"),
        spread(seconds.get(f"{name}, {forward}")),
        cell(ratio(results, f"{name}, {forward}", f"TruFor, {forward}")),
        f"{best[0]:.2f} ({best[1]})" if best else "-",
        cell(results["peak_mib"].get(f"{name}, forward"), ".0f"),
        *(cell(share(results, name, kernels)) for kernels in (WHOLE, CONVOLUTIONS, MATMUL)),
        cell(start_up if name.endswith("compiled") else None, ".1f"),
    ]


def kernel_lines(results: dict) -> list[list[str]]:
    """The machine's kernels that were measured, in 1e9 multiply-adds per second."""
    return [
        [name, cell(flops / quartiles(results["seconds"][name])[1] / 1e9, ".0f")]
        for name, flops in results["kernels"].items()
        if results["seconds"].get(name)
    ]


def growth_cells(results: dict, name: str, sizes: list[int]) -> list[str]:
    """Times at all sizes, then how much faster each grew than its pixels, from the smallest."""
    smallest = sizes[0]
    times = {size: f"{name}, forward {size}" for size in sizes}
    growths = {size: ratio(results, times[size], times[smallest]) for size in sizes[1:]}
    return [
        name,
        *(spread(results["seconds"].get(time)) for time in times.values()),
        *(cell(growth and growth * (smallest / size) ** 2) for size, growth in growths.items()),
    ]


def training_cells(results: dict, name: str) -> list[str]:
    """A row under TRAINING_HEAD."""
    return [
        name,
        spread(results["seconds"].get(f"{name}, training")),
        cell(ratio(results, f"{name}, training", "TruFor, training")),
        cell(results["peak_mib"].get(f"{name}, training"), ".0f"),
        cell(memory_ratio(results, name, "training")),
    ]


def targets(results: dict, batch: str) -> list[list[str]]:
    """What was asked of the paper's model, and what this run got.

    Args:
        batch: the training batch in words.
    """
    ours = f"{OURS}, forward {REFERENCE}"
    mixed = f"{OURS} mixed, forward {REFERENCE}"
    larger = f"{OURS}, forward {2 * REFERENCE}"
    trufor, mesorch = (f"{name}, forward {REFERENCE}" for name in ("TruFor", "Mesorch"))
    whole, best = (
        share(results, OURS, kernels) if results["shown"] == REFERENCE else None
        for kernels in (WHOLE, CONVOLUTIONS)
    )
    step = ratio(results, f"{OURS}, training", "TruFor, training")
    memory = memory_ratio(results, OURS, "training")
    lines = []
    for what, sign, target, got in (
        (f"time of {ours} / TruFor's", "<=", 0.48, ratio(results, ours, trufor)),
        (f"time of {mixed} / Mesorch's in float32", "<=", 0.95, ratio(results, mixed, mesorch)),
        (f"FLOP/s of {ours} / of the whole convolution", ">=", 0.80, whole),
        (f"FLOP/s of {ours} / of the best convolution", ">=", 0.80, best),
        (f"time of {larger} / at {REFERENCE}", "<=", 4.6, ratio(results, larger, ours)),
        (f"time of {OURS}, training step, {batch} / TruFor's", "<=", 0.68, step),
        ("peak memory of that step / TruFor's", "<=", 1.0, memory),
    ):
        met = got is not None and (got <= target if sign == "<=" else got >= target)
        verdict = [MISSING, "-"] if got is None else [f"{got:.3f}", "yes" if met else "no"]
        lines.append([what, f"{sign} {target:.2f}", *verdict])
    return lines


# Numbers out of raw results; None where something was not measured


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile; linear between the values."""
    return tuple(float(q) for q in np.percentile(values, (25, 50, 75)))


def ratio(results: dict, above: str, below: str) -> float | None:
    """Median over the rounds of one time over another."""
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
    """Peak memory over TruFor's."""
    pair = [results["peak_mib"].get(f"{model}, {kind}") for model in (name, "TruFor")]
    return pair[0] / pair[1] if all(pair) else None


def images_per_second(results: dict, name: str) -> tuple[float, int] | None:
    """Images per second at the best batch size, and that size."""
    runs = results["seconds"].items()
    found = {int(key.rsplit(" ", 1)[1]): v for key, v in runs if key.startswith(f"{name}, batch ")}
    return max(((n / quartiles(v)[1], n) for n, v in found.items()), default=None)


# Text


def cell(value: float | None, form: str = ".2f") -> str:
    """A number, or a dash for none."""
    return "-" if value is None else format(value, form)


def spread(values: list[float] | None) -> str:
    """Seconds in milliseconds: median [quartiles]."""
    if not values:
        return "-"
    low, middle, high = (1e3 * q for q in quartiles(values))
    return f"{middle:.1f} [{low:.1f}, {high:.1f}]"


def table(title: str, head: tuple[str, ...] | list[str], lines: list[list[str]]) -> str:
    """A Markdown table under its title."""
    rule = ["---"] * len(head)
    return "\n".join([f"\n{title}\n", *(f"| {' | '.join(row)} |" for row in [head, rule, *lines])])
