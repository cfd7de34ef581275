"""What the paper printed and a run measured for a cell of a table, and how a cell shows it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..evaluation.metrics import mean_and_interval
from .layout import ABSENT, DASH, Cell, Row, Table
from .paper import Column, PublishedTable, paper_levels, paper_model, read_ablations
from .results import Run, setting_of

OURS, PAPER = "QMA-Net (ours)", "QMA-Net (paper)"

# The blocks of a table.
PUBLISHED, MEASURED, DIFFERENCE = "As published", "Measured here", "Measured here minus published"
PAIRED = "Measured here: setting minus QMA-Net (ours), on the same images"

UNDEFINED = "undefined on these images"
UNPAIRED = "no CSV files of both on the same images"


@dataclass(frozen=True)
class Measured:
    """A measured mean and its 95 % interval; without a value, why there is none."""

    value: float | None
    interval: list[float] | None = None
    why: str = ABSENT


def measured_by(run: Run, column: Column, published: PublishedTable) -> Measured:
    """What a run has for a column: a mean, or an average where all of its cells are there."""
    if column.is_average:
        return _average(run, published.averaged(column))
    if column.attack:
        return under_attack(run, column.set, attack=column.attack, metric=column.metric)
    result = run.clean.get(column.set)
    if result is None:
        return Measured(None)
    value = result.summary.get(column.metric)
    interval = result.summary.get("intervals", {}).get(column.metric)
    return Measured(value, interval, "" if value is not None else UNDEFINED)


def _average(run: Run, columns: Sequence[Column]) -> Measured:
    found = [run.clean.get(column.set) for column in columns]
    metric = columns[0].metric
    values = [result.summary.get(metric) if result else None for result in found]
    if None in values:
        there = sum(value is not None for value in values)
        return Measured(None, why=f"{there} of {len(values)} test sets" if there else ABSENT)
    per_set = [list(result.values(metric).values()) for result in found]
    interval = mean_and_interval(per_set)[1] if all(per_set) else None
    return Measured(sum(values) / len(values), interval, "")


def under_attack(run: Run, test_set: str, *, attack: str, metric: str) -> Measured:
    """The mean over all levels of an attack, photographs as they are not among them."""
    place = run.attacked.get(test_set, {})
    levels = paper_levels().get(attack) or [level for one, level in place if one == attack]
    found = [place[attack, level] for level in levels if (attack, level) in place]
    if not found or len(found) < len(levels):
        return Measured(None, why=f"{len(found)} of {len(levels)} levels" if found else ABSENT)
    values = [result.summary.get(metric) for result in found]
    if None in values:
        return Measured(None, why=UNDEFINED)
    images = [result.values(metric) for result in found]
    common = [path for path in images[0] if all(path in one for one in images)]
    per_image = [sum(one[path] for one in images) / len(images) for path in common]
    interval = mean_and_interval([per_image])[1] if per_image else None
    return Measured(sum(values) / len(values), interval, "")


def has_any_of(run: Run, published: PublishedTable) -> bool:
    """Whether a run has anything for a table of the paper's, be it unfinished."""
    return any(measured_by(run, column, published).why != ABSENT for column in published.columns)


def is_measured(table: Table) -> bool:
    """Whether anything was measured for a table, be it unfinished."""
    return any(
        cell.text and not (cell.text == DASH and cell.why == ABSENT)
        for row in table.rows
        if row.block != PUBLISHED
        for cell in row.cells
    )


def published_row(
    published: PublishedTable, labels: Iterable[str], cells: Iterable, is_ours: bool = False
) -> Row:
    """A row as the paper prints it."""
    shown = tuple(
        Cell(published.show(cell), why="" if cell is not None else "not in the paper")
        for cell in cells
    )
    return Row(PUBLISHED, tuple(labels), shown, is_ours)


def measured_cell(found: Measured, published: PublishedTable, minus: float | None = None) -> Cell:
    """A measured number as the paper prints its own, with the interval under it.

    ``minus`` is subtracted from both, and the difference shown with its sign.
    """
    if found.value is None:
        return Cell(DASH, why=found.why)
    is_difference, minus = minus is not None, minus or 0.0
    text = published.show(found.value - minus, sign=is_difference)
    if not found.interval:
        return Cell(text, why="no CSV beside the result, hence no interval")
    edges = (published.show(edge - minus, sign=is_difference) for edge in found.interval)
    return Cell(text, f"[{', '.join(edges)}]")


def runs_of_setting(runs: Iterable[Run], variant: tuple[str, ...], flags: dict) -> list[Run]:
    """Runs of one setting of Tables 2 and 9 among models that are otherwise alike."""
    wanted = setting_of(flags)
    return [run for run in runs if run.is_ours and run.variant == variant and run.setting == wanted]


def paired_values(base: Run, run: Run, test_set: str, metric: str) -> list[float]:
    """Differences run - base on the images that both saw, matched by path."""
    found = [one.clean.get(test_set) for one in (base, run)]
    if None in found:
        return []
    first, second = (result.values(metric) for result in found)
    return [second[path] - first[path] for path in first if path in second]


def our_name(run: Run) -> str:
    """The label of a row of ours, with what tells the run apart."""
    return with_label(OURS, run.label)


def with_label(name: str, label: str) -> str:
    """``name (x)`` and a label: ``name (x, label)``."""
    if not label:
        return name
    return f"{name[:-1]}, {label})" if name.endswith(")") else f"{name} ({label})"


def setting_words(run: Run) -> list[str]:
    """A setting's name in ``ablations.yaml``, else its flags; nothing for the default."""
    if not run.is_ours or run.is_default:
        return []
    named = [one for one in read_ablations() if setting_of(one.flags) == run.setting]
    default = setting_of({})
    flags = [f"{key} {value}" for key, value in run.setting.items() if value != default[key]]
    return [named[0].name] if named else flags


def name_of(run: Run) -> str:
    """A run in one cell: model, setting, and what tells it apart."""
    name = "QMA-Net" if run.is_ours else paper_model(run.model)
    words = [*setting_words(run), *([run.label] if run.label else [])]
    return f"{name} ({', '.join(words)})" if words else name
