"""The picture of a run: time against pixels, and times as a share of TruFor's."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullLocator

from qma_net.core.files import atomic_write

from .models import OURS, PEERS, base
from .tables import quartiles, ratio

STYLES = {"mixed": "--", "compiled": ":"}


def draw(results: dict, path: Path) -> None:
    """Writes a PNG; panels of shares only where TruFor was measured."""
    names = results["rows"]
    peers = [name for name in PEERS if name in map(base, names)]
    colours = {name: f"C{i if i < 3 else i + 1}" for i, name in enumerate(peers)} | {OURS: "C3"}
    side = f"{results['shown']}x{results['shown']}"
    panels = {f"Forward, {side}": f"forward {results['shown']}", "Training step": "training"}
    shares = {title: of_trufor(results, what) for title, what in panels.items()}
    shares = {title: found for title, found in shares.items() if found}
    canvas = Figure(figsize=(5.6 + 3.4 * len(shares), 4.4), layout="constrained")
    widths = [1.5] + [1] * len(shares)
    times, *bars = canvas.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    draw_times(times, results, colours)
    for axes, (title, found) in zip(bars, shares.items(), strict=True):
        draw_shares(axes, title, found, colours)
    for axes in (times, *bars):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, axis="both" if axes is times else "x")
    with atomic_write(path) as beside:
        canvas.savefig(beside, format="png", dpi=130)


def of_trufor(results: dict, what: str) -> dict[str, float]:
    """Time over TruFor's, of every row that was measured beside it."""
    found = {name: ratio(results, f"{name}, {what}", f"TruFor, {what}") for name in results["rows"]}
    return {name: share for name, share in found.items() if share}


def draw_times(axes: Axes, results: dict, colours: dict[str, str]) -> None:
    """A line per row over the pixels of the image."""
    sizes = sorted(results["options"]["sizes"])
    for name in results["rows"]:
        times = {s: results["seconds"].get(f"{name}, forward {s}") for s in sizes}
        points = [(s * s, 1e3 * quartiles(times[s])[1]) for s in sizes if times[s]]
        if points:
            style = dict(color=colours[base(name)], ls=STYLES.get(name.split()[-1], "-"))
            axes.loglog(*zip(*points, strict=True), marker="o", ms=4, label=name, **style)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([s * s for s in sizes], [f"{s}x{s}" for s in sizes])
    axes.set(title="Forward, batch 1", xlabel="pixels", ylabel="ms per image")
    axes.legend(frameon=False, fontsize=8)


def draw_shares(axes: Axes, title: str, shares: dict[str, float], colours: dict[str, str]) -> None:
    """A bar per row; 1 is TruFor."""
    colour = [colours[base(name)] for name in shares]
    bars = axes.barh(list(shares), list(shares.values()), color=colour)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.axvline(1, color="grey", lw=0.8)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(title=title, xlabel="time over TruFor's")
