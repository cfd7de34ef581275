"""The curves of BenCo's logs: TensorBoard's files, and ``log.txt``."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..core.files import read_journal

BENCO_F1 = "test_pixel-level F1"
EVENTS = "events.out.tfevents."  # how the names of TensorBoard's files start


@dataclass(frozen=True)
class Curves:
    """The scalars of one training: points (epoch, value) by name, and which files gave them."""

    folder: Path
    source: str
    series: dict[str, list[tuple[float, float]]]


def read_sweeps(folders: Iterable[Path]) -> dict[Path, dict[str, list[tuple[float, float]]]]:
    """What BenCo's ``test_robust.py`` logged: by its folder and transform, (level, pixel F1).

    It names a folder per setting after the transform's text, ``GaussianBlur(...)``.
    """
    sweeps = {}
    for folder in sorted(folders):
        transform, bracket, _ = folder.name.partition("(")
        point = read_sweep_point(folder) if bracket and transform.isalnum() else None
        if point:
            sweeps.setdefault(folder.parent, {}).setdefault(transform, []).append(point)
    return {
        place: {transform: sorted(points) for transform, points in found.items()}
        for place, found in sweeps.items()
    }


def read_sweep_point(folder: Path) -> tuple[float, float] | None:
    """Level and pixel F1 of one setting of ``test_robust.py``; None where it logged none."""
    rows = read_journal(folder / "log.txt")
    if not rows or not {"epoch", BENCO_F1} <= set(rows[-1]):
        return None
    return float(rows[-1]["epoch"]), float(rows[-1][BENCO_F1])


def read_curves(folders: Iterable[Path], notes: list[str]) -> list[Curves]:
    """The curves of BenCo's trainings and tests: TensorBoard's, or where it is not, ``log.txt``.

    What was written once is no curve. What BenCo splits by test set into folders of their own
    belongs to the folder above.
    """
    found = []
    for folder in sorted(folders):
        if "_Metric_" in folder.name:
            continue
        series = _read_events(folder, notes)
        for inner in sorted(folder.glob("*_Metric_*/")):
            metric, _, name = inner.name.partition("_Metric_")
            for points in _read_events(inner, notes).values():
                series[f"{metric} ({name})"] = points
        source = "TensorBoard"
        if not any(len(points) > 1 for points in series.values()):
            series, source = _read_log(folder / "log.txt"), "log.txt"
        series = {name: points for name, points in series.items() if len(points) > 1}
        if series:
            found.append(Curves(folder, source, series))
    return found


def _read_events(folder: Path, notes: list[str]) -> dict[str, list[tuple[float, float]]]:
    """All scalars of TensorBoard's files in one folder, by epoch; none without TensorBoard."""
    if not any(folder.glob(f"{EVENTS}*")):
        return {}
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ModuleNotFoundError:
        note = "TensorBoard is not installed: curves come from log.txt where it is there"
        notes += [] if note in notes else [note]
        return {}
    events = EventAccumulator(str(folder), {"scalars": 0, "images": 1, "tensors": 1})
    events.Reload()
    series = {}
    for tag in events.Tags()["scalars"]:
        # BenCo counts thousandths of an epoch while training
        per_epoch = 1000 if tag == "lr" or tag.startswith("train_loss/") else 1
        series[tag] = [(event.step / per_epoch, event.value) for event in events.Scalars(tag)]
    return series


def _read_log(path: Path) -> dict[str, list[tuple[float, float]]]:
    """The numbers of BenCo's ``log.txt`` by epoch, under TensorBoard's names; a resumed epoch
    counts once."""
    series = {}
    for row in read_journal(path):
        try:
            epoch = float(row.pop("epoch"))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        for name, value in row.items():
            if isinstance(value, int | float):
                series.setdefault(_tag(name), {})[epoch] = float(value)
    return {name: sorted(points.items()) for name, points in series.items()}


def _tag(name: str) -> str:
    """TensorBoard's name of a column of ``log.txt``."""
    if name == "train_lr":
        return "lr"
    return re.sub(r"^train_", "train_loss/", re.sub(r"^test_", "", name))
