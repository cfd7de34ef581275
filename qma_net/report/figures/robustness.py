"""Figure 4: pixel F1 against the strength of every attack."""

from matplotlib.figure import Figure as Canvas

from ..measured import name_of
from ..paper import ATTACKS, SHORT, paper_levels
from ..results import Result, Results, Run
from .examples import NotDrawn, in_paper_order
from .panels import Picture

# Okabe and Ito's colours (2008), which colour-blind readers tell apart.
CURVES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"


def robustness(results: Results) -> Picture:
    """Figure 4: pixel F1 against the strength of every attack, on every test set."""
    runs = [run for run in results.runs if run.attacked]
    if not runs:
        raise NotDrawn(
            "no results under attack: qma-net robust --checkpoint FILE --test-sets SETS --out DIR"
        )
    names = in_paper_order({name for run in runs for name in run.attacked})
    names = [name for name in names if name in SHORT.values()] or names
    there = {attack for run in runs for name in names for attack, _ in run.attacked.get(name, {})}
    attacks = [one for one in ATTACKS.values() if one in there] or sorted(there)
    size = (max(5, 2.3 * len(names) + 0.6), 2.1 * len(attacks) + 0.7)
    canvas = Canvas(figsize=size, layout="constrained")
    places = canvas.subplots(len(attacks), len(names), squeeze=False, sharey=True)
    for line, attack in zip(places, attacks, strict=True):
        at = {level for run in runs for name in names for level in _levels(run, name, attack)}
        levels = [level for level in paper_levels().get(attack, []) if level in at]
        levels += sorted(at - set(levels))
        for axes, name in zip(line, names, strict=True):
            _draw_attack(axes, runs, name, attack, levels)
        line[0].set_ylabel(f"{attack.replace('-', ' ')}\npixel F1", fontsize=8)
    for axes, name in zip(places[0], names, strict=True):
        axes.set_title(name, fontsize=9)
    places[0, 0].set_ylim(bottom=0)
    lines = {line.get_label(): line for axes in places.flat for line in axes.get_lines()}
    shown = {label: line for label, line in lines.items() if not label.startswith("_")}
    canvas.legend(
        shown.values(),
        shown,
        loc="outside lower center",
        ncols=2 if places.shape[1] > 1 else 1,  # one column of panels is as wide as one label
        frameon=False,
        fontsize=8,
    )
    caption = (
        "Mean pixel F1 of the tampered photographs at every strength of an attack, weak to strong "
        "from left to right; dashed: the photographs as they are, which are no point of a curve. "
        "Attacks come before resizing."
    )
    return Picture(canvas, "robustness", caption)


def _levels(run: Run, name: str, attack: str) -> dict[int, Result]:
    """A run's results under one attack on one test set, by level."""
    place = run.attacked.get(name, {})
    return {level: result for (one, level), result in place.items() if one == attack}


def _draw_attack(axes, runs: list[Run], name: str, attack: str, levels: list[int]) -> None:
    """One panel: a curve for each run that has this attack on this test set."""
    for i, run in enumerate(runs):
        found = _levels(run, name, attack)
        points = [
            (at, found[level].summary["pixel_f1"])
            for at, level in enumerate(levels)
            if level in found
        ]
        if not points:
            continue
        unit = next(iter(found.values())).header["attack"].get("unit", "").split(" (")[0]
        axes.set_xlabel(unit, fontsize=7)
        style = {"color": CURVES[i % len(CURVES)], "lw": 2 if run.is_default else 1.2}
        marker = MARKERS[i // len(CURVES) % len(MARKERS)]
        axes.plot(*zip(*points, strict=True), label=name_of(run), marker=marker, ms=3.5, **style)
        if name in run.clean:
            clean = run.clean[name].summary["pixel_f1"]
            axes.axhline(clean, label="_clean", ls="--", color=style["color"], lw=0.9, alpha=0.7)
    axes.set_xticks(range(len(levels)), levels)
    axes.set_xlim(-0.3, len(levels) - 0.7)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
