"""What the paper printed, read from ``benco_configs/``, and what its columns and rows mean."""

import re
from dataclasses import dataclass
from functools import cache

from ..core.files import config_path
from ..data.published import DATASETS
from .layout import DASH, MINUS, TIMES, Table

# The key in a result file by a heading of the paper's, letters and digits alone.
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

# The paper's short names of test sets.
SHORT = {
    "cas": "CASIAv1",
    "col": "Columbia",
    "coi": "Columbia",
    "cov": "Coverage",
    "nist": "NIST16",
}

ATTACKS = {"JC": "jpeg", "GB": "gaussian-blur", "GN": "gaussian-noise-variance"}


def normalised_name(name: str) -> str:
    """Letters and digits alone, in lower case: how names of models and datasets are compared."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


# Test sets by their names and short names, the paper's four first, in its order.
SETS = SHORT | {normalised_name(name): name for name, one in DATASETS.items() if one.role == "test"}


@dataclass(frozen=True)
class Column:
    """A column of the paper's, by its heading and name."""

    group: str
    name: str

    @property
    def set(self) -> str | None:
        """The test set; None for averages and for what is not about one."""
        return SETS.get(normalised_name(self.name)) or SETS.get(normalised_name(self.group))

    @property
    def metric(self) -> str:
        """The key in a result file; Tables 7 and 8 name theirs, pixel F1, in the title only."""
        names = (normalised_name(self.name), normalised_name(self.group))
        return next((METRICS[name] for name in names if name in METRICS), "pixel_f1")

    @property
    def attack(self) -> str | None:
        """The attack's name in ``robustness.yaml``; None for photographs as they are."""
        return ATTACKS.get(self.name)

    @property
    def is_average(self) -> bool:
        """Whether it is the mean of the other columns of its group."""
        return self.name.lower() == "avg"


@dataclass(frozen=True)
class PublishedTable:
    """One of the paper's tables, as ``paper_tables.yaml`` holds it.

    Args:
        groups: pairs of a heading and the columns' names under it.
        ours: the label of QMA-Net's row; None where the table has none.
        rows: pairs of labels and cells.
    """

    number: int
    title: str
    labels: tuple[str, ...]
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    decimals: int
    ours: str | None
    rows: tuple[tuple[tuple[str, ...], tuple], ...]
    notes: tuple[str, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns of cells, from left to right."""
        return tuple(Column(group, name) for group, names in self.groups for name in names)

    @property
    def our_cells(self) -> tuple:
        """The cells of QMA-Net's row."""
        return next(cells for labels, cells in self.rows if labels[0] == self.ours)

    def averaged(self, column: Column) -> list[Column]:
        """The columns that an average is of."""
        return [one for one in self.columns if one.group == column.group and not one.is_average]

    def empty_table(self) -> Table:
        """A table of the report with this one's headings and notes, without rows."""
        groups = [(group, list(names)) for group, names in self.groups]
        title = f"Table {self.number}: {self.title}"
        return Table(f"table-{self.number}", title, self.labels, groups, notes=list(self.notes))

    def show(self, value: float | str | None, *, sign: bool = False) -> str:
        """A number as the paper prints it; text as it is."""
        if value is None:
            return DASH
        if isinstance(value, str):
            return value.replace("x", TIMES) if re.fullmatch(r"\d+x\d+", value) else value
        return f"{value:{'+' if sign else ''}.{self.decimals}f}".replace("-", MINUS)


@cache
def published_tables() -> dict[int, PublishedTable]:
    """The paper's ten tables by number."""
    import yaml

    tables = {}
    for entry in yaml.safe_load(config_path("paper_tables.yaml").read_text()):
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
    """A row of Table 2 or 9 as flags of the model (``benco_configs/ablations.yaml``)."""

    name: str
    table: int
    row: str
    flags: dict


def read_ablations() -> list[Ablation]:
    """The settings of Tables 2 and 9."""
    import yaml

    entries = yaml.safe_load(config_path("ablations.yaml").read_text())
    return [
        Ablation(entry["name"], entry.get("table"), entry.get("row"), entry["flags"])
        for entry in entries
    ]


@cache
def paper_model(name: str) -> str:
    """The paper's name of a model of BenCo's registry; its own where the paper has none."""
    labels = (labels[0] for one in published_tables().values() for labels, _ in one.rows)
    return next((one for one in labels if normalised_name(one) == normalised_name(name)), name)


def paper_set(name: str) -> str | None:
    """The paper's test set that a name in a result file means."""
    return SETS.get(normalised_name(name))


@cache
def paper_levels() -> dict[str, list[int]]:
    """The levels of every attack in ``robustness.yaml``."""
    import yaml

    entries = yaml.safe_load(config_path("robustness.yaml").read_text())
    return {entry["name"]: entry["levels"] for entry in entries}
