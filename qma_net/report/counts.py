"""Tables 3 and 4: datasets as ``data prepare`` and ``data check --json`` counted them."""

from dataclasses import dataclass

from ..data.published import (
    AI_GENERATED,
    COPY_MOVE,
    DATASETS,
    REMOVAL,
    SPLICE,
    PublishedDataset,
)
from .layout import ABSENT, DASH, MISSING, Cell, Row, Table
from .measured import DIFFERENCE, MEASURED, published_row
from .paper import PublishedTable, normalised_name
from .results import Results

# Manipulation types by the paper's headings.
TYPES = {"cope-move": COPY_MOVE, "splice": SPLICE, "remove": REMOVAL, "AI-Gen": AI_GENERATED}

NOT_KNOWN = "N/K"  # the paper's words
UNTOLD = "nothing that was counted tells the type of every image"


@dataclass(frozen=True)
class Counts:
    """What was counted of a dataset.

    Args:
        number: tampered images; None where they were not counted, and ``why`` says why.
        types: how many of them are of each manipulation type; None where that is not told.
        smallest: resolution by area, as ``320x240``; "" where it is not known.
        largest: likewise.
    """

    number: int | None = None
    types: dict[str, int] | None = None
    smallest: str = ""
    largest: str = ""
    why: str = ABSENT

    def value(self, heading: str) -> int | str | None:
        """What stands under one of the paper's headings; None where it is not known."""
        if heading in TYPES:
            return None if self.types is None else self.types.get(TYPES[heading])
        if heading == "Number":
            return self.number
        return {"min": self.smallest, "max": self.largest}[heading] or None


def counts(published: PublishedTable, results: Results) -> Table:
    """Tables 3 and 4: the paper's numbers, those counted here, and the difference."""
    table = published.empty_table()
    headings = [column.name for column in published.columns]
    found, differences = [], []
    for labels, cells in published.rows:
        table.rows.append(published_row(published, labels, cells))
        here = _added_up(found) if labels[0] == "Total" else _counted(labels[0], results, table)
        found.append(here)
        pairs = list(zip(headings, cells, strict=True))
        shown = tuple(_cell(here, heading, cell, published) for heading, cell in pairs)
        table.rows.append(Row(MEASURED, labels, shown))
        gaps = tuple(_difference(here, heading, cell, published) for heading, cell in pairs)
        differences.append(Row(DIFFERENCE, labels, gaps))
    table.rows += differences
    return table


def _cell(here: Counts, heading: str, paper: int | str, published: PublishedTable) -> Cell:
    """A count as the paper prints it; N/K where that is its own answer too."""
    value = here.value(heading)
    if value is not None:
        return Cell(published.show(value))
    if heading in TYPES and here.number is not None:
        return Cell(NOT_KNOWN if paper == NOT_KNOWN else DASH, why=UNTOLD)
    return Cell(DASH, why=here.why)


def _difference(here: Counts, heading: str, paper: int | str, published: PublishedTable) -> Cell:
    """A count minus the paper's; empty for resolutions and for what the paper does not know."""
    if not isinstance(paper, int):
        return Cell("")
    value = here.value(heading)
    return MISSING if value is None else Cell(published.show(value - paper, sign=True))


def _counted(label: str, results: Results, table: Table) -> Counts:
    """What is known of a dataset; the commands that make the rest go to the table."""
    key = normalised_name(label)
    dataset = next(one for one in DATASETS.values() if normalised_name(one.name) == key)
    prepared = results.prepared.get(key)
    checked = _checked(dataset, results.checked.get(key, {}))
    place = f"ROOT/{dataset.name}"
    if not prepared and checked.number is None:
        table.commands.append(f"qma-net data prepare {dataset.name} --source ARCHIVE --out {place}")
    if checked.number is None:
        lists = [f"{place}/{dataset.list_name.format(part=part)}.json" for part in dataset.parts]
        paths = " ".join(lists or [place])
        table.commands.append(f"qma-net data check {paths} --json > {place}.check.json")
    if not prepared:
        return checked
    types = prepared.get("types") or checked.types
    return Counts(prepared["tampered"], types, checked.smallest, checked.largest)


def _checked(dataset: PublishedDataset, rows: dict[str, dict]) -> Counts:
    """What ``data check`` counted, a dataset in subsets added up from all of their lists."""
    if "" in rows or not dataset.parts:
        return _of_row(rows[""]) if rows else Counts()
    there = [_of_row(rows[part]) for part in dataset.parts if part in rows]
    if there and len(there) < len(dataset.parts):
        return Counts(why=f"{len(there)} of {len(dataset.parts)} lists")
    return _added_up(there) if there else Counts()


def _of_row(row: dict) -> Counts:
    """A row of ``data check --json``."""
    return Counts(row["tampered"], row.get("types"), row["smallest"], row["largest"])


def _added_up(found: list[Counts]) -> Counts:
    """Sums, and the range of resolutions; not known where one of them is not."""
    numbers = [one.number for one in found]
    types = [one.types for one in found]
    smallest, largest = [one.smallest for one in found], [one.largest for one in found]
    by_type = None
    if None not in types:
        by_type = {name: sum(one.get(name, 0) for one in types) for name in TYPES.values()}
    return Counts(
        None if None in numbers else sum(numbers),
        by_type,
        min(smallest, key=_area) if all(smallest) else "",
        max(largest, key=_area) if all(largest) else "",
    )


def _area(size: str) -> int:
    width, height = size.split("x")
    return int(width) * int(height)
