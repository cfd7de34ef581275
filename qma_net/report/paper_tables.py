"""The paper's tables as printed (``paper_tables.yaml``), and the meaning of rows and columns."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..core.files import config_path, read_yaml
from ..data.published import DATASETS
from .table import PUBLISHED, TIMES, Cell, Row, Table, format_number

Value = float | str | None  # A cell in the paper; None for a model that it does not include.

# The paper's abbreviations of test sets.
ABBREVIATIONS = {
    "cas": "CASIAv1",
    "col": "Columbia",
    "coi": "Columbia",
    "cov": "Coverage",
    "nist": "NIST16",
}

ATTACKS = {"JC": "jpeg", "GB": "gaussian-blur", "GN": "gaussian-noise-variance"}


def normalized_name(name: str) -> str:
    """Reduce a name to lower-case letters and digits, so that spellings can be compared."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


# Test sets by normalized name and abbreviation; the paper's four come first, in its order.
TEST_SETS = ABBREVIATIONS | {
    normalized_name(name): name for name, dataset in DATASETS.items() if dataset.role == "test"
}


@dataclass(frozen=True)
class Column:
    """A column of one of the paper's tables."""

    name: str
    test_sets: list[str]  # Several for an average; empty for a column without a test set.
    metric: str  # The key in a result file.
    attack: str | None  # The attack's name in ``robustness.yaml``; None for clean images.


def interpret_columns(group: str, names: Sequence[str]) -> list[Column]:
    """Derive the meaning of a group of columns from its headings."""
    columns = []
    for name in names:
        is_average = name.lower() == "avg"  # The mean of the other columns of the group.
        averaged = [other for other in names if other != name] if is_average else [name]
        test_sets = filter(None, (paper_test_set(n) or paper_test_set(group) for n in averaged))
        heading = normalized_name(group + name)
        keys = {"permutef1": "permute_f1", "iou": "iou", "auc": "auc"}
        # Tables 7 and 8 mention their metric, pixel F1, in the title only.
        metric = next((key for word, key in keys.items() if word in heading), "pixel_f1")
        columns.append(Column(name, list(test_sets), metric, ATTACKS.get(name)))
    return columns


@dataclass(frozen=True)
class PublishedTable:
    """A table as the paper prints it."""

    number: int
    title: str
    labels: Sequence[str]
    groups: Mapping[str, Sequence[str]]  # Names of columns by group heading.
    decimals: int
    ours: str | None  # The label of QMA-Net's row.
    rows: Sequence[tuple[Sequence[str], Sequence[float | str]]]  # Labels and cells.
    notes: Sequence[str] = ()

    @property
    def columns(self) -> list[Column]:
        """The columns of cells, from left to right."""
        return [c for group, names in self.groups.items() for c in interpret_columns(group, names)]

    @property
    def our_cells(self) -> Sequence[float | str]:
        """The cells of QMA-Net's row."""
        return next(cells for labels, cells in self.rows if labels[0] == self.ours)

    def cells_of(self, model: str) -> Sequence[Value]:
        """Return the cells of a model's row; each is None if there is no such row."""
        for labels, cells in self.rows:
            if normalized_name(labels[0]) == normalized_name(model):
                return cells
        return [None] * len(self.columns)

    def new_table(self, our_label: str | None = None) -> Table:
        """Create the report's table with the published rows; ``our_label`` replaces QMA-Net's."""
        title = f"Table {self.number}: {self.title}"
        table = Table(f"table-{self.number}", title, self.labels, self.groups)
        table.notes += self.notes
        for labels, cells in self.rows:
            is_ours = labels[0] == self.ours
            if is_ours and our_label:
                labels = (our_label, *labels[1:])
            shown = [Cell(self.show(cell)) for cell in cells]
            table.rows.append(Row(PUBLISHED, labels, shown, is_ours))
        return table

    def show(self, value: float | str, *, sign: bool = False) -> str:
        """Format a number with the decimals of this table; text is returned unchanged."""
        if isinstance(value, str):
            return value.replace("x", TIMES) if re.fullmatch(r"\d+x\d+", value) else value
        return format_number(value, self.decimals, sign=sign)


@cache
def published_tables() -> dict[int, PublishedTable]:
    """Read the paper's ten tables, by number."""
    tables = {}
    for entry in _read_entries("paper_tables.yaml"):
        count = len(entry["labels"])
        rows = [(row[:count], tuple(row[count:])) for row in entry.pop("rows")]
        groups = entry.pop("columns")
        entry.pop("as_printed", None)  # The rows as the paper prints them, for the record.
        tables[entry["number"]] = PublishedTable(rows=rows, groups=groups, **entry)
    return tables


@dataclass(frozen=True)
class Ablation:
    """A row of Table 2 or 9, or a setting that is in no table, as flags of the model."""

    name: str
    table: int | None
    row: str
    flags: dict[str, Any]


@cache
def read_ablations() -> list[Ablation]:
    """Read the settings of Tables 2 and 9 and the further ones (``ablations.yaml``)."""
    return [Ablation(**entry) for entry in _read_entries("ablations.yaml")]


@cache
def attack_levels() -> dict[str, list[int]]:
    """Read the levels of every attack (``robustness.yaml``)."""
    return {entry["name"]: entry["levels"] for entry in _read_entries("robustness.yaml")}


def _read_entries(name: str) -> list[dict[str, Any]]:
    entries = read_yaml(config_path(name), "the package's own settings; reinstall qma-net")
    assert isinstance(entries, list)
    return entries


@cache
def paper_model(name: str) -> str:
    """Return the paper's name for a model in BenCo's registry, or ``name`` if it has none."""
    labels = [labels[0] for table in published_tables().values() for labels, _ in table.rows]
    wanted = normalized_name(name)
    return next((label for label in labels if normalized_name(label) == wanted), name)


def paper_test_set(name: str) -> str | None:
    """Return the published test set that a name in a result file refers to, or None."""
    return TEST_SETS.get(normalized_name(name))


def in_paper_order(names: Iterable[str]) -> list[str]:
    """Sort test sets: the paper's first, in its order."""
    order = list(dict.fromkeys(TEST_SETS.values()))
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))
