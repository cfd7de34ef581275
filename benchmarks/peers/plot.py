"""Plot of the results: time over image size, and time relative to TruFor."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullLocator

from qma_net.core.files import atomic_write

from .models import OURS, PEERS, model_of
from .tables import quartiles, ratio

STYLES = {"mixed": "--", "compiled": ":"}


def plot(results: dict, path: Path) -> None:
    """Write the plot as a PNG file; panels relative to TruFor require that it was measured."""
    rows, size = results["rows"], results["shown"]
    peers = [name for name in PEERS if name in map(model_of, rows)]
    colors = {name: f"C{i if i < 3 else i + 1}" for i, name in enumerate(peers)} | {OURS: "C3"}
    titles = {f"Forward pass, {size}x{size}": f"forward {size}", "Training step": "training"}
    panels = {title: relative_times(results, kind) for title, kind in titles.items()}
    panels = {title: ratios for title, ratios in panels.items() if ratios}
    canvas = Figure(figsize=(5.6 + 3.4 * len(panels), 4.4), layout="constrained")
    widths = [1.5] + [1] * len(panels)
    times, *bars = canvas.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    plot_times(times, results, colors)
    for axes, (title, ratios) in zip(bars, panels.items(), strict=True):
        plot_bars(axes, title, ratios, colors)
    for axes in (times, *bars):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, axis="both" if axes is times else "x")
    with atomic_write(path) as temporary:
        canvas.savefig(temporary, format="png", dpi=130)


def relative_times(results: dict, kind: str) -> dict[str, float]:
    """Return the time relative to TruFor of every row for which it is known."""
    ratios = {row: ratio(results, f"{row}, {kind}", f"TruFor, {kind}") for row in results["rows"]}
    return {row: value for row, value in ratios.items() if value}


def plot_times(axes: Axes, results: dict, colors: dict[str, str]) -> None:
    """Draw a line per row: time of a forward pass over the number of pixels."""
    sizes = sorted(results["options"]["sizes"])
    for row in results["rows"]:
        times = {size: results["seconds"].get(f"{row}, forward {size}") for size in sizes}
        points = [(s * s, 1e3 * quartiles(times[s])[1]) for s in sizes if times[s]]
        if points:
            style = {"color": colors[model_of(row)], "ls": STYLES.get(row.split()[-1], "-")}
            axes.loglog(*zip(*points, strict=True), marker="o", ms=4, label=row, **style)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([s * s for s in sizes], [f"{s}x{s}" for s in sizes])
    axes.set(title="Forward pass, batch size 1", xlabel="image size", ylabel="ms per image")
    axes.legend(frameon=False, fontsize=8)


def plot_bars(axes: Axes, title: str, ratios: dict[str, float], colors: dict[str, str]) -> None:
    """Draw a bar per row: time relative to TruFor."""
    color = [colors[model_of(row)] for row in ratios]
    bars = axes.barh(list(ratios), list(ratios.values()), color=color)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.axvline(1, color="gray", lw=0.8)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(title=title, xlabel="time relative to TruFor")
