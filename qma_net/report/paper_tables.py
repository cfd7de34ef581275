"""The paper's tables as printed (``paper_tables.yaml``), and what their rows and columns mean."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..core.files import config_path, read_yaml
from ..data.published import DATASETS
from .table import DASH, MINUS, PUBLISHED, TIMES, Cell, Row, Table

Value = float | str | None  # A cell of the paper; None if the paper has none.

# The keys of metrics in a result file by the paper's headings, normalized.
METRICS = {
    "pixellevelf1": "pixel_f1",
    "pixellevelf1score": "pixel_f1",
    "pixellevelauc": "auc",
    "pixelleveliou": "iou",
    "permutef1": "permute_f1",
    "f1": "pixel_f1",
    "auc": "auc",
    "iou": "iou",
}

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
    """Reduce a name to lower-case letters and digits, for comparing names."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


# Test sets by normalized name and abbreviation; the paper's four come first, in its order.
TEST_SETS = ABBREVIATIONS | {
    normalized_name(name): name for name, dataset in DATASETS.items() if dataset.role == "test"
}


@dataclass(frozen=True)
class Column:
    """A column of one of the paper's tables."""

    group: str
    name: str

    @property
    def test_set(self) -> str:
        """The test set; empty for averages and for columns that are not about a test set."""
        names = map(normalized_name, (self.name, self.group))
        return next((TEST_SETS[name] for name in names if name in TEST_SETS), "")

    @property
    def metric(self) -> str:
        """The key in a result file; Tables 7 and 8 mention theirs, pixel F1, in the title only."""
        names = map(normalized_name, (self.name, self.group))
        return next((METRICS[name] for name in names if name in METRICS), "pixel_f1")

    @property
    def attack(self) -> str | None:
        """The attack's name in ``robustness.yaml``; None for clean images."""
        return ATTACKS.get(self.name)

    @property
    def is_average(self) -> bool:
        """Whether it is the mean of the other columns of its group."""
        return self.name.lower() == "avg"


@dataclass(frozen=True)
class PublishedTable:
    """A table as the paper prints it; ``groups`` are column names by group heading."""

    number: int
    title: str
    labels: tuple[str, ...]
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    decimals: int
    ours: str | None  # The label of QMA-Net's row.
    rows: tuple[tuple[tuple[str, ...], tuple[Value, ...]], ...]  # Labels and cells.
    notes: tuple[str, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of cells, from left to right."""
        return tuple(Column(group, name) for group, names in self.groups for name in names)

    @property
    def our_cells(self) -> tuple[Value, ...]:
        """The cells of QMA-Net's row."""
        return next(cells for labels, cells in self.rows if labels[0] == self.ours)

    def averaged(self, column: Column) -> list[Column]:
        """List the columns whose mean an average is."""
        return [c for c in self.columns if c.group == column.group and not c.is_average]

    def new_table(self, our_label: str | None = None) -> Table:
        """Create the report's table, filled with the published rows.

        Args:
            our_label: Shown in place of the paper's label of QMA-Net's row.
        """
        table = Table(
            f"table-{self.number}",
            f"Table {self.number}: {self.title}",
            self.labels,
            self.groups,
            notes=list(self.notes),
        )
        for labels, cells in self.rows:
            is_ours = labels[0] == self.ours
            if is_ours and our_label:
                labels = (our_label, *labels[1:])
            shown = tuple(Cell(self.show(cell)) for cell in cells)
            table.rows.append(Row(PUBLISHED, labels, shown, is_ours))
        return table

    def show(self, value: Value, *, sign: bool = False) -> str:
        """Format a number with the decimals of this table; text stays as it is."""
        if value is None:
            return DASH
        if isinstance(value, str):
            return value.replace("x", TIMES) if re.fullmatch(r"\d+x\d+", value) else value
        return f"{value:{'+' if sign else ''}.{self.decimals}f}".replace("-", MINUS)


@cache
def published_tables() -> dict[int, PublishedTable]:
    """Read the paper's ten tables, by number."""
    tables = {}
    for entry in _read_entries("paper_tables.yaml"):
        count = len(entry["labels"])
        tables[entry["number"]] = PublishedTable(
            number=entry["number"],
            title=entry["title"],
            labels=tuple(entry["labels"]),
            groups=tuple((group, tuple(names)) for group, names in entry["columns"].items()),
            decimals=entry["decimals"],
            ours=entry["ours"],
            rows=tuple((tuple(row[:count]), tuple(row[count:])) for row in entry["rows"]),
            notes=tuple(entry.get("notes", ())),
        )
    return tables


@dataclass(frozen=True)
class Ablation:
    """A row of Table 2 or 9 as flags of the model."""

    name: str
    table: int
    row: str
    flags: dict[str, Any]


@cache
def read_ablations() -> tuple[Ablation, ...]:
    """Read the settings of Tables 2 and 9 (``ablations.yaml``)."""
    return tuple(Ablation(**entry) for entry in _read_entries("ablations.yaml"))


@cache
def attack_levels() -> dict[str, list[int]]:
    """Read the levels of every attack (``robustness.yaml``)."""
    return {entry["name"]: entry["levels"] for entry in _read_entries("robustness.yaml")}


@cache
def paper_model(name: str) -> str:
    """Return the paper's name of a model of BenCo's registry, or the name itself."""
    labels = (labels[0] for table in published_tables().values() for labels, _ in table.rows)
    return next(
        (label for label in labels if normalized_name(label) == normalized_name(name)), name
    )


def paper_test_set(name: str) -> str | None:
    """Return the published test set that a name in a result file refers to, or None."""
    return TEST_SETS.get(normalized_name(name))


def _read_entries(name: str) -> list[dict[str, Any]]:
    entries = read_yaml(config_path(name), "the package's own settings; reinstall qma-net")
    assert isinstance(entries, list)
    return entries
