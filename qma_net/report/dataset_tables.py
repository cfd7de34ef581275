"""Tables 3 and 4: the datasets as counted by ``data prepare`` and ``data check --json``."""

import math
from typing import Any

from ..data.published import DATASETS, TYPES, PublishedDataset
from .collect import Results
from .paper_tables import PublishedTable, Value, normalized_name
from .table import DASH, DIFFERENCE, MEASURED, MISSING, NO_RESULT, Cell, Row, Table

# Manipulation types by the paper's headings.
TYPE_HEADINGS = dict(zip(("cope-move", "splice", "remove", "AI-Gen"), TYPES, strict=True))

UNKNOWN = "N/K"  # The paper's abbreviation of "not known".

# Known values by the paper's headings; the text under `reason` explains missing ones.
Counts = dict[str, Any]


def dataset_table(published: PublishedTable, results: Results) -> Table:
    """Create Table 3 or 4: the published counts, ours, and the difference."""
    table = published.new_table()
    all_counts: list[Counts] = []
    for labels, cells in published.rows:
        is_total = labels[0] == "Total"
        counts = _add_up(all_counts) if is_total else _count(labels[0], results, table)
        all_counts.append(counts)
        measured, gaps = [], []
        for column, paper in zip(published.columns, cells, strict=True):
            measured.append(_cell(counts, column.name, paper, published))
            gaps.append(_difference_cell(counts.get(column.name), paper, published))
        table.rows += [Row(MEASURED, labels, measured), Row(DIFFERENCE, labels, gaps)]
    return table


def _cell(counts: Counts, heading: str, paper: Value, published: PublishedTable) -> Cell:
    """Show a count; "N/K" for types that are unknown both here and in the paper."""
    if heading in counts:
        return Cell(published.show(counts[heading]))
    if heading in TYPE_HEADINGS and "Number" in counts:
        hint = "the manipulation type of every image is not known"
        return Cell(UNKNOWN if paper == UNKNOWN else DASH, hint=hint)
    return Cell(DASH, hint=counts.get("reason", NO_RESULT))


def _difference_cell(count: int | None, paper: Value, published: PublishedTable) -> Cell:
    """Show our count minus the published one; empty if the paper's cell is not a count."""
    if not isinstance(paper, int):
        return Cell()
    return MISSING if count is None else Cell(published.show(count - paper, sign=True))


def _count(label: str, results: Results, table: Table) -> Counts:
    """Return a dataset's counts, and add the commands that produce missing counts to the table."""
    key = normalized_name(label)
    dataset = next(d for d in DATASETS.values() if normalized_name(d.name) == key)
    prepared = results.prepared.get(key)
    checked = _combine_subsets(dataset, results.checked.get(key, {}))
    folder = f"ROOT/{dataset.name}"
    if "Number" not in checked:
        if not prepared:
            command = (
                f"qma-net data prepare {dataset.name} --source UNPACKED_ARCHIVE --out {folder}"
            )
            table.commands.append(command)
        lists = [f"{folder}/{dataset.list_name.format(part=part)}.json" for part in dataset.parts]
        paths = " ".join(lists or [folder])
        table.commands.append(f"qma-net data check {paths} --json > {folder}.check.json")
    return checked | _arrange(prepared) if prepared else checked


def _combine_subsets(dataset: PublishedDataset, rows: dict[str, dict[str, Any]]) -> Counts:
    """Return the counts of ``data check`` for the whole dataset, or those of its lists combined."""
    parts = dataset.parts if "" not in rows and dataset.parts else ("",)
    counts = [_arrange(rows[part]) for part in parts if part in rows]
    if counts and len(counts) < len(parts):
        return {"reason": f"only {len(counts)} of {len(parts)} lists checked"}
    return _add_up(counts)


def _arrange(row: dict[str, Any]) -> Counts:
    """Convert a row of ``data check`` or the report of ``data prepare`` to counts by heading."""
    types = row.get("types") or {}
    counts = {heading: types.get(name) for heading, name in TYPE_HEADINGS.items()}
    counts |= {"Number": row["tampered"], "min": row.get("smallest"), "max": row.get("largest")}
    return {heading: count for heading, count in counts.items() if count not in (None, "")}


def _add_up(parts: list[Counts]) -> Counts:
    """Add up counts and combine resolutions; omit what is unknown for any of the parts."""
    total: Counts = {}
    for heading in (*TYPE_HEADINGS, "Number", "min", "max"):
        values = [part[heading] for part in parts if heading in part]
        if values and len(values) == len(parts):
            choose = {"min": min, "max": max}.get(heading)
            total[heading] = choose(values, key=_area) if choose else sum(values)
    return total


def _area(size: str) -> int:
    return math.prod(map(int, size.split("x")))
