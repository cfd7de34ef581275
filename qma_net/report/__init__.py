"""``qma-net report``: the paper's tables and figures next to our results.

``collect.py`` finds result files, ``model_tables.py`` and ``dataset_tables.py`` build tables from
them, ``figures/`` draws, and ``table.py`` and ``page.py`` write the files.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from ..core.files import atomic_write, remove_temporary_files, write_text
from ..core.runs import FolderLock
from .collect import ReportError, Results, collect
from .dataset_tables import dataset_table
from .figures import Figure
from .model_tables import (
    ablation_table,
    benco_sweeps,
    checkpoint_comparisons,
    comparison_table,
    complexity_table,
    other_attacks,
    other_test_sets,
)
from .page import render_page
from .paper_tables import published_tables
from .table import Table, write_table

__all__ = ["build_tables", "report"]

BUILDERS = {
    **dict.fromkeys((1, 5, 6, 7, 8), comparison_table),
    **dict.fromkeys((2, 9), ablation_table),
    **dict.fromkeys((3, 4), dataset_table),
    10: complexity_table,
}


def report(dirs: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> list[Path]:
    """Write the report as an HTML page, with its tables and figures as files next to it.

    Args:
        dirs: Folders with results, which are searched with all subfolders.
        out: The HTML file. ``tables/*.md``, ``tables/*.tex`` and ``figures/*.png`` are written
            to the same folder.

    Returns:
        All files that were written; the page is the last one.

    Raises:
        ReportError: If the folders contain no result, or ``out`` is not the name of an HTML file.
        BusyError: If another run is writing to the folder.
    """
    out = Path(out)
    if out.is_dir() or out.suffix.lower() not in (".html", ".htm"):
        raise ReportError(f"got --out {out}, expected the name of an HTML file, e.g. report.html")
    results = collect(dirs)
    tables = build_tables(results)
    table_folder, figure_folder = out.parent / "tables", out.parent / "figures"
    written = []
    with FolderLock(out.parent):
        for folder in (out.parent, table_folder, figure_folder):
            remove_temporary_files(folder)
        for table in tables:
            for suffix in ("md", "tex"):
                written.append(table_folder / f"{table.key}.{suffix}")
                write_text(written[-1], write_table(table, suffix))
        figures = _draw_figures(results)
        for figure in figures:
            written.append(figure_folder / f"{figure.stem}.png")
            with atomic_write(written[-1]) as temporary:
                temporary.write_bytes(figure.png)
        write_text(out, render_page(results, tables, figures, dirs))
    return [*written, out]


def build_tables(results: Results) -> list[Table]:
    """Build the paper's ten tables, and the other tables for which there are results."""
    tables = [BUILDERS[number](table, results) for number, table in published_tables().items()]
    for build in (other_test_sets, other_attacks, checkpoint_comparisons, benco_sweeps):
        table = build(results)
        tables += [table] if table.rows else []
    return tables


def _draw_figures(results: Results) -> list[Figure]:
    try:
        from .figures.draw import draw_figures
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        note = "matplotlib is not installed, so there are no figures; run: pip install matplotlib"
        results.notes.append(note)
        return []
    return draw_figures(results)
