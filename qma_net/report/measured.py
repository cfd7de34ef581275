"""What a run measured for a cell of the paper's, and how a cell shows it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..evaluation.metrics import mean_and_interval
from .layout import ABSENT, DASH, Cell
from .paper import Column, Published, paper_levels, read_ablations
from .results import Run, setting_of

OURS, PAPER = "QMA-Net (ours)", "QMA-Net (paper)"


PUBLISHED, MEASURED, DIFFERENCE = "As published", "Measured here", "Measured here minus published"


PAIRED = "Measured here: setting minus QMA-Net (ours), on the same images"


@dataclass(frozen=True)
class Figure:
    """A measured mean and its interval; without a value, why there is none."""

    value: float | None
    interval: list[float] | None = None
    why: str = ABSENT


def figure(run: Run, column: Column, published: Published) -> Figure:
    """What a run measured for a column: a mean, or an average where all its cells are there."""
    if column.is_average:
        return _average(run, published.averaged(column))
    if column.attack:
        return _under_attack(run, column.set, column.attack, column.metric)
    result = run.clean.get(column.set)
    if result is None:
        return Figure(None)
    value = result.figures.get(column.metric)
    interval = result.figures.get("intervals", {}).get(column.metric)
    return Figure(value, interval, "" if value is not None else "undefined on these images")


def _average(run: Run, columns: Sequence[Column]) -> Figure:
    found = [run.clean.get(column.set) for column in columns]
    metric = columns[0].metric
    values = [result.figures.get(metric) if result else None for result in found]
    if None in values:
        there = sum(value is not None for value in values)
        return Figure(None, why=f"{there} of {len(values)} test sets" if there else ABSENT)
    lists = [list(result.values(metric).values()) for result in found]
    interval = mean_and_interval(lists)[1] if all(lists) else None
    return Figure(sum(values) / len(values), interval, "")


def _under_attack(run: Run, name: str, attack: str, metric: str) -> Figure:
    """The mean over all levels of an attack, photographs as they are not among them."""
    place = run.attacked.get(name, {})
    levels = paper_levels().get(attack) or [level for one, level in place if one == attack]
    found = [place[attack, level] for level in levels if (attack, level) in place]
    if not found or len(found) < len(levels):
        return Figure(None, why=f"{len(found)} of {len(levels)} levels" if found else ABSENT)
    values = [result.figures.get(metric) for result in found]
    if None in values:
        return Figure(None, why="undefined on these images")
    images = [result.values(metric) for result in found]
    common = [path for path in images[0] if all(path in one for one in images)]
    per_image = [sum(one[path] for one in images) / len(images) for path in common]
    interval = mean_and_interval([per_image])[1] if per_image else None
    return Figure(sum(values) / len(values), interval, "")


def _touches(run: Run, published: Published) -> bool:
    """Whether a run has anything for a table of the paper's, be it unfinished."""
    return any(figure(run, column, published).why != ABSENT for column in published.columns)


def our_name(run: Run | None) -> str:
    return _with(OURS, run.label if run else "")


def _with(name: str, label: str) -> str:
    """``name (x)`` and a label: ``name (x, label)``."""
    if not label:
        return name
    return f"{name[:-1]}, {label})" if name.endswith(")") else f"{name} ({label})"


def _cell(found: Figure, published: Published, minus: float | None = None) -> Cell:
    """A figure with its interval, less a published one where it is given."""
    if found.value is None:
        return Cell(DASH, why=found.why)
    is_difference, minus = minus is not None, minus or 0.0
    text = published.show(found.value - minus, is_difference)
    if not found.interval:
        return Cell(text, why="no CSV beside the result, hence no interval")
    edges = (published.show(edge - minus, is_difference) for edge in found.interval)
    return Cell(text, f"[{', '.join(edges)}]")


def _runs_of(runs: Iterable[Run], family: tuple[str, ...], flags: dict) -> list[Run]:
    """Runs of one setting of Tables 2 and 9 among models that are otherwise alike."""
    wanted = setting_of(flags)
    return [run for run in runs if run.is_ours and run.variant == family and run.setting == wanted]


def paired_values(base: Run, run: Run, name: str, metric: str) -> list[float]:
    """Differences run - base on the images that both saw, matched by path."""
    found = [one.clean.get(name) for one in (base, run)]
    if None in found:
        return []
    first, second = (result.values(metric) for result in found)
    return [second[path] - first[path] for path in first if path in second]


def _setting_words(run: Run) -> list[str]:
    """A setting's name in ``ablations.yaml``, else its flags; nothing for the default."""
    if not run.is_ours or run.is_default:
        return []
    named = [one for one in read_ablations() if setting_of(one.flags) == run.setting]
    default = setting_of({})
    flags = [f"{key} {value}" for key, value in run.setting.items() if value != default[key]]
    return [named[0].name] if named else flags


def name_of(run: Run) -> str:
    """A run in one cell: model, setting, and what tells it apart."""
    name = "QMA-Net" if run.is_ours else run.model
    words = [*_setting_words(run), *([run.label] if run.label else [])]
    return f"{name} ({', '.join(words)})" if words else name


def _cell_signed(found: Figure, printed: Published) -> Cell:
    return _cell(found, printed) if found.value is None else _cell(found, printed, 0.0)
