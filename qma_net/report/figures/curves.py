"""Curves: Figure 4 (robustness to attacks), and the training curves in BenCo's logs."""

import re
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from ..benco_logs import Curves, Points
from ..collect import ModelResults, Results
from ..model_tables import full_name
from ..paper_tables import ABBREVIATIONS, ATTACKS, attack_levels, in_paper_order
from . import Figure, FigureError, escape_math

# Colors that color-blind readers can tell apart (Okabe and Ito, 2008).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"


def draw_robustness(results: Results) -> Figure:
    """Draw Figure 4: one row of axes per attack and one column per test set."""
    models = [model for model in results.models if model.attacked]
    if not models:
        raise FigureError(
            "no robustness results found; run qma-net robust --checkpoint FILE "
            "--test-sets SETS --out DIR"
        )
    names = in_paper_order({name for model in models for name in model.attacked})
    names = [name for name in names if name in ABBREVIATIONS.values()] or names
    present = {attack for model in models for n in names for attack in model.attacked.get(n, {})}
    attacks = [attack for attack in ATTACKS.values() if attack in present] or sorted(present)
    size = (max(5, 2.3 * len(names) + 0.6), 2.1 * len(attacks) + 0.7)
    canvas = Canvas(figsize=size, layout="constrained")
    grid = canvas.subplots(len(attacks), len(names), squeeze=False, sharey=True)
    for axes_row, attack in zip(grid, attacks, strict=True):
        attacked = [model.attacked.get(n, {}).get(attack, {}) for model in models for n in names]
        measured = {level for results_by_level in attacked for level in results_by_level}
        listed = [level for level in attack_levels().get(attack, []) if level in measured]
        levels = [*listed, *sorted(measured.difference(listed))]
        for axes, name in zip(axes_row, names, strict=True):
            _draw_axes(axes, models, test_set=name, attack=attack, levels=levels)
        axes_row[0].set_ylabel(escape_math(f"{attack.replace('-', ' ')}\npixel F1"), fontsize=8)
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(escape_math(name), fontsize=9)
    grid[0, 0].set_ylim(bottom=0)
    lines = {line.get_label(): line for axes in grid.flat for line in axes.get_lines()}
    labeled = {label: line for label, line in lines.items() if not label.startswith("_")}
    canvas.legend(
        labeled.values(),
        labeled,
        loc="outside lower center",
        ncols=min(2, len(names)),  # A single column of axes is only as wide as one label.
        frameon=False,
        fontsize=8,
    )
    caption = (
        "Mean pixel F1 of the tampered images at each level of an attack, from weak to strong. The "
        "dashed line is the mean for the clean images, which is not part of the curve. Attacks are "
        "applied before resizing."
    )
    return Figure("figure-4", "Figure 4: Robustness to attacks", caption, canvas)


def _draw_axes(
    axes: Axes, models: list[ModelResults], *, test_set: str, attack: str, levels: list[int]
) -> None:
    """Draw a curve for every model that was tested with an attack on a test set."""
    for i, model in enumerate(models):
        results = model.attacked.get(test_set, {}).get(attack, {})
        f1: dict[int, Any] = {level: r.summary.get("pixel_f1") for level, r in results.items()}
        shown = [level for level in levels if f1.get(level) is not None]
        if not shown:
            continue
        unit = results[shown[0]].header["attack"].get("unit") or ""
        axes.set_xlabel(escape_math(unit.split(" (")[0]), fontsize=7)
        color = COLORS[i % len(COLORS)]
        axes.plot(
            [levels.index(level) for level in shown],
            [f1[level] for level in shown],
            label=escape_math(full_name(model)),
            color=color,
            marker=MARKERS[i // len(COLORS) % len(MARKERS)],
            ms=3.5,
            lw=2 if model.is_default else 1.2,
        )
        clean = model.clean[test_set].summary.get("pixel_f1") if test_set in model.clean else None
        if clean is not None:
            axes.axhline(clean, label="_clean", ls="--", color=color, lw=0.9, alpha=0.7)
    axes.set_xticks(range(len(levels)), list(map(str, levels)))
    axes.set_xlim(-0.3, len(levels) - 0.7)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def draw_training_curves(all_curves: list[Curves]) -> list[Figure]:
    """Draw the curves of every training run, titled with the unique end of its path."""
    parts = [curves.folder.resolve().parts[1:] or ("root",) for curves in all_curves]
    count = 2
    while len({path[-count:] for path in parts}) < len(parts):
        count += 1
    names = ["/".join(path[-count:]) for path in parts]
    return [_draw(curves, name) for curves, name in zip(all_curves, names, strict=True)]


def _draw(curves: Curves, name: str) -> Figure:
    groups = _group_series(curves)
    canvas = Canvas(figsize=(4.6 * len(groups), 3.3), layout="constrained")
    row = canvas.subplots(1, len(groups), squeeze=False)[0]
    for axes, (title, series) in zip(row, groups.items(), strict=True):
        for label, points in series.items():
            marker = "o" if len(points) < 30 else ""
            shown = escape_math(label)
            axes.plot(*zip(*points, strict=True), label=shown, lw=1.3, marker=marker, ms=3)
        axes.set(title=title, xlabel="epoch")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        if title == "learning rate":
            axes.set_yscale("log")
        else:
            axes.legend(frameon=False, fontsize=8)
    caption = f"{curves.source} in {curves.folder}, written by BenCo's scripts."
    stem = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[-200:]
    return Figure(f"curves-{stem}", f"Training curves: {name}", caption, canvas)


def _group_series(curves: Curves) -> dict[str, dict[str, Points]]:
    """Group the series by what they measure; empty groups are omitted."""
    groups: dict[str, dict[str, Points]]
    groups = {"losses": {}, "on the test sets": {}, "learning rate": {}}
    for name, points in sorted(curves.series.items()):
        if name == "lr":
            groups["learning rate"][name] = points
        elif name.startswith("train_loss/"):
            groups["losses"][name.removeprefix("train_loss/").replace("_", " ")] = points
        else:
            groups["on the test sets"][name.removeprefix("normal_test_evaluators/")] = points
    if len(groups["on the test sets"]) == 2:  # The average would repeat the only test set.
        groups["on the test sets"].pop("Average", None)
    return {title: series for title, series in groups.items() if series}
