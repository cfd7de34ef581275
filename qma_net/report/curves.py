"""The curves of BenCo's logs as pictures: losses, learning rate, and metrics on test sets."""

import re
from collections.abc import Iterable
from pathlib import Path

from ..core.files import written_beside
from .layout import Figure
from .logs import Curves


def draw_curves(curves: Iterable[Curves], folder: Path, notes: list[str]) -> list[Figure]:
    """``curves-<training>.png`` for each training; none, and a note, without matplotlib."""
    curves = list(curves)
    if not curves:
        return []
    try:
        from matplotlib.figure import Figure as Canvas
    except ModuleNotFoundError:
        notes.append("matplotlib is not installed: no curves (pip install matplotlib)")
        return []
    drawn = []
    for one, name in zip(curves, _names(curves), strict=True):
        panels = _panels(one)
        canvas = Canvas(figsize=(4.6 * len(panels), 3.3), layout="constrained")
        places = canvas.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, series) in zip(places, panels, strict=True):
            for label, points in series.items():
                marker = "o" if len(points) < 30 else ""
                axes.plot(*zip(*points, strict=True), label=label, lw=1.3, marker=marker, ms=3)
            axes.set(title=title, xlabel="epoch")
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
            if title == "learning rate":
                axes.set_yscale("log")
            else:
                axes.legend(frameon=False, fontsize=8)
        path = folder / f"curves-{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')[-200:]}.png"
        with written_beside(path) as beside:
            canvas.savefig(beside, format="png", dpi=130)
        caption = f"{one.source} in {one.folder}, written by BenCo's scripts."
        drawn.append(Figure(path, f"Training curves: {name}", caption))
    return drawn


def _names(curves: list[Curves]) -> list[str]:
    """The ends of the folders' paths that tell them apart."""
    parts = [one.folder.resolve().parts[1:] or ("root",) for one in curves]
    count = 2
    while len({one[-count:] for one in parts}) < len(parts):
        count += 1
    return ["/".join(one[-count:]) for one in parts]


def _panels(curves: Curves) -> list[tuple[str, dict]]:
    """The series by kind; a panel without any is left out."""
    losses, rate, tests = {}, {}, {}
    for name, points in sorted(curves.series.items()):
        if name == "lr":
            rate["lr"] = points
        elif name.startswith("train_loss/"):
            losses[name.removeprefix("train_loss/").replace("_", " ")] = points
        else:
            tests[name.removeprefix("normal_test_evaluators/")] = points
    if len(tests) == 2:  # BenCo's average of one test set is that set
        tests.pop("Average", None)
    panels = [("losses", losses), ("on the test sets", tests), ("learning rate", rate)]
    return [(title, series) for title, series in panels if series]
