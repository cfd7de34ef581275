"""Readers for BenCo's logs: training curves, robustness sweeps and model complexity."""

import ast
import math
import re
from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.files import read_json_lines

PIXEL_F1 = "test_pixel-level F1"
EVENT_FILES = "events.out.tfevents."  # Prefix of the names of TensorBoard's files.
COMPLEXITY_FILES = re.compile(r"complexity.*\.(txt|log)$", re.IGNORECASE)

# A row of fvcore's table: a module, and its parameters as a rounded count or a shape.
COMPLEXITY_ROW = re.compile(
    r"^\| +([\w.]+) +\| +(?:(\d+\.?\d*)([KMG]?)|\(([\d, ]+)\)) +\|", re.MULTILINE
)
MAX_DRAWN = 1e100  # Axes overflow with larger numbers.
UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9}

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curves:
    """The scalars of one training run or test: points (epoch, value) by name."""

    folder: Path
    source: str  # "TensorBoard" or "log.txt"
    series: dict[str, Points]


@dataclass(frozen=True)
class Complexity:
    """The output of BenCo's ``test_complexity`` for one model and one image."""

    header: dict[str, Any]  # ``model``, ``model_flags`` and ``image_size`` as in a result file.
    parameters: float
    multiply_adds: float


def read_sweeps(folders: Iterable[Path]) -> dict[Path, dict[str, Points]]:
    """Read the points (level, pixel F1) that BenCo's ``test_robust.py`` logged.

    BenCo creates one folder per setting and names it after the transform, ``GaussianBlur(...)``.
    """
    sweeps: dict[Path, dict[str, Points]] = {}
    for folder in sorted(folders):
        transform, bracket, _ = folder.name.partition("(")
        point = read_sweep_point(folder) if bracket and transform.isalnum() else None
        if point:
            points = sweeps.setdefault(folder.parent, {}).setdefault(transform, [])
            insort(points, point)
    return sweeps


def read_sweep_point(folder: Path) -> tuple[float, float] | None:
    """Read the level and pixel F1 of one setting of ``test_robust.py``; None if not logged."""
    rows = read_json_lines(folder / "log.txt")
    values = [rows[-1].get(key) for key in ("epoch", PIXEL_F1)] if rows else [None, None]
    level, f1 = map(_as_number, values)
    return None if level is None or f1 is None else (level, f1)


def read_curves(folders: Iterable[Path], notes: list[str]) -> list[Curves]:
    """Read the curves of BenCo's training runs and tests from TensorBoard's files or ``log.txt``.

    Series with a single point are omitted. BenCo writes the metrics of each test set to a separate
    subfolder; they are added to the curves of the folder that contains it.
    """
    all_curves = []
    for folder in sorted(folder for folder in folders if "_Metric_" not in folder.name):
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
            all_curves.append(Curves(folder, source, series))
    return all_curves


def _read_events(folder: Path, notes: list[str]) -> dict[str, Points]:
    """Read all scalars of TensorBoard's files in a folder, by epoch."""
    if not any(folder.glob(f"{EVENT_FILES}*")):
        return {}
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ModuleNotFoundError:
        note = "TensorBoard is not installed; training curves are read from log.txt if it exists"
        notes += [] if note in notes else [note]
        return {}
    events = EventAccumulator(str(folder), {"scalars": 0, "images": 1, "tensors": 1})
    events.Reload()
    series = {}
    for tag in events.Tags()["scalars"]:
        # During training, BenCo counts in thousandths of an epoch.
        steps = 1000 if tag == "lr" or tag.startswith("train_loss/") else 1
        series[tag] = [(event.step / steps, event.value) for event in events.Scalars(tag)]
    return series


def _read_log(path: Path) -> dict[str, Points]:
    """Read the numbers in BenCo's ``log.txt`` by epoch, with the names that TensorBoard uses.

    If a run was resumed, the last row of each epoch is used.
    """
    series: dict[str, dict[float, float]] = {}
    for row in read_json_lines(path):
        epoch = row.pop("epoch", None)
        for column, value in row.items():
            name = re.sub(r"^train_", "train_loss/", column.removeprefix("test_"))
            name = "lr" if name == "train_loss/lr" else name
            x, y = _as_number(epoch), _as_number(value)
            if x is not None and y is not None:
                series.setdefault(name, {})[x] = y
    return {name: sorted(points.items()) for name, points in series.items()}


def _as_number(value: object) -> float | None:
    """Return a logged number, or None for anything else and for numbers that cannot be drawn."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if abs(value) < MAX_DRAWN:
        return float(value)
    return math.nan if value != value else None  # A diverged loss is logged as NaN.


def read_complexity(path: Path) -> Complexity | None:
    """Read a log of BenCo's ``test_complexity``; None if it contains no result."""
    text = path.read_text(encoding="utf-8", errors="replace")
    namespaces = [_parse_flags(block) for block in re.findall(r"Namespace\((.*?)\)\n", text, re.S)]
    total = re.search(r"^(?:\[[\d:.]+\] +)?(\d{6,})$", text, re.MULTILINE)
    rows = {}
    for name, count, unit, shape in COMPLEXITY_ROW.findall(text):
        sides = map(float, re.findall(r"\d+", shape))
        rows[name] = math.prod(sides) if shape else float(count) * UNITS[unit]
    if not total or not rows or not namespaces:
        return None
    return Complexity(
        {
            "model": str(namespaces[0].get("model", "?")),
            "model_flags": namespaces[1] if len(namespaces) > 1 else {},
            "image_size": namespaces[0].get("image_size", 512),
        },
        parameters=_count_parameters(next(iter(rows)), rows, is_top=True),
        multiply_adds=float(total[1]),
    )


def _parse_flags(block: str) -> dict[str, Any]:
    """Parse the ``name=value`` pairs of a printed argparse namespace."""
    flags = {}
    for name, value in re.findall(r"(\w+)=('(?:[^'\\]|\\.)*'|[^,\n]+)", block):
        try:
            flags[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            flags[name] = value
    return flags


def _count_parameters(module: str, rows: dict[str, float], is_top: bool = False) -> float:
    """Count a module's parameters by adding up its parts, because fvcore rounds large counts.

    If the listed parts do not add up to the module, its rounded count is returned.
    """
    parts = [row for row in rows if row != module and (is_top or row.startswith(f"{module}."))]
    direct = [part for part in parts if not any(part.startswith(f"{other}.") for other in parts)]
    total = sum(_count_parameters(part, rows) for part in direct)
    return total if direct and abs(total - rows[module]) <= 0.006 * rows[module] else rows[module]
