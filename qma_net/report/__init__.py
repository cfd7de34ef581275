"""``qma-net report``: the paper's tables and figures, compared with our results.

``collect.py`` finds result files, ``model_tables.py`` and ``dataset_tables.py`` build tables,
``table.py`` formats them, and ``figures/`` draws the figures. The HTML page starts with the
evaluated models, followed by the tables with our results and by the figures. The paper's other
tables are collapsed at the end, with the commands that produce results for them.
"""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from .. import __version__
from ..core.files import atomic_write, remove_temporary_files, write_text
from ..core.html import data_uri, render
from ..core.runs import FolderLock
from .collect import DEFAULTS, ModelResults, ReportError, Results, collect
from .dataset_tables import dataset_table
from .figures import Figure
from .model_tables import (
    ablation_table,
    benco_sweeps,
    checkpoint_comparisons,
    comparison_table,
    complexity_table,
    full_name,
    further_metrics,
    other_attacks,
    other_test_sets,
    results_by_type,
)
from .paper_tables import published_tables
from .table import Row, Table, write_table

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
        dirs: Folders with results, searched recursively.
        out: The HTML file. ``tables/*.md``, ``tables/*.tex``, ``figures/*.png`` and
            ``figures/*.pdf`` are written to the same folder.

    Returns:
        All files that were written; the page is the last one.

    Raises:
        ReportError: If the folders contain no results, or ``out`` is not the name of an HTML file.
        BusyError: If another run is writing to the folder.
    """
    out = Path(out)
    if out.is_dir() or out.suffix.lower() not in (".html", ".htm"):
        raise ReportError(f"--out {out} is not the name of an HTML file, such as report.html")
    results = collect(dirs)
    tables, models = build_tables(results), _model_table(results.models)
    table_folder, figure_folder = out.parent / "tables", out.parent / "figures"
    written = []
    with FolderLock(out.parent):
        for folder in (out.parent, table_folder, figure_folder):
            remove_temporary_files(folder)
        for table in (models, *tables):
            for suffix in ("md", "tex"):
                written.append(table_folder / f"{table.key}.{suffix}")
                write_text(written[-1], write_table(table, suffix))
        figures = []
        for figure in _draw_figures(results):
            written.append(figure_folder / f"{figure.stem}.png")
            with atomic_write(written[-1]) as temporary:
                figure.canvas.savefig(temporary, format="png", dpi=130)
            figures.append((figure, data_uri(written[-1].read_bytes(), "image/png")))
            written.append(figure_folder / f"{figure.stem}.pdf")
            with atomic_write(written[-1]) as temporary:
                # Without a date, the same results give the same file.
                metadata = {"CreationDate": None}
                figure.canvas.savefig(temporary, format="pdf", dpi=300, metadata=metadata)
        measured = [table for table in tables if table.is_measured]
        page = render(
            __package__,
            "report.html.j2",
            version=__version__,
            dirs=dirs,
            models=models,
            measured=sorted(measured, key=lambda table: table.title.startswith("Table ")),
            unmeasured=[table for table in tables if not table.is_measured],
            figures=figures,
            notes=results.notes,
        )
        write_text(out, page)
    return [*written, out]


def build_tables(results: Results) -> list[Table]:
    """Build the paper's ten tables, and further tables for which there are results."""
    tables = [BUILDERS[number](table, results) for number, table in published_tables().items()]
    further = (other_test_sets, further_metrics, results_by_type)
    for build in (*further, other_attacks, checkpoint_comparisons, benco_sweeps):
        table = build(results)
        tables += [table] if table.rows else []
    return tables


def _draw_figures(results: Results) -> list[Figure]:
    if find_spec("matplotlib") is None:
        note = "matplotlib is not installed, so there are no figures; run: pip install matplotlib"
        results.notes.append(note)
        return []
    from .figures.draw import draw_figures

    return draw_figures(results)


def _model_table(models: Sequence[ModelResults]) -> Table:
    """List the evaluated models and their settings."""
    labels = ("Model", "Non-default flags", "Checkpoint", "SHA-256", "Images", "Test sets")
    table = Table("runs", "Evaluated models", (*labels, "qma-net version"))
    for model in models:
        header = model.header
        flags = [
            f"{key} {value}"
            for key, value in header["model_flags"].items()
            if value != "" and str(value) != str(DEFAULTS.get(key))
        ]
        is_native = header["fit"] == "native"
        row = [
            "; ".join([full_name(model), *filter(None, [header.get("about")])]),
            ", ".join(flags),
            header["checkpoint"],
            header["checkpoint_sha256"][:12],
            "original resolution" if is_native else f"{header['fit']}, {header['image_size']}",
            ", ".join([*model.clean, *(f"{s} (attacked)" for s in model.attacked)]),
            (header.get("versions") or {}).get("qma-net") or "unknown",
        ]
        table.rows.append(Row("", row))
    return table
