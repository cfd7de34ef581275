"""The HTML page with all tables and figures.

The evaluated models come first, then the tables with results of ours and the figures. The
paper's other tables follow, folded, with the commands that produce their results.
"""

from collections.abc import Sequence

from .. import __version__
from ..core.html import data_uri, render
from .collect import DEFAULTS, ModelResults, Results
from .figures import Figure
from .model_tables import full_name
from .table import Row, Table

MODEL_HEADINGS = (
    "Model",
    "Flags other than the defaults",
    "Checkpoint",
    "SHA-256",
    "Images",
    "Test sets",
    "qma-net",
)


def render_page(
    results: Results, tables: Sequence[Table], figures: Sequence[Figure], dirs: Sequence[object]
) -> str:
    """Render the page as HTML; ``tables`` has the paper's first, ``dirs`` held the results."""
    measured = [table for table in tables if table.is_measured]
    return render(
        __package__,
        "report.html.j2",
        version=__version__,
        dirs=dirs,
        models=_model_table(results.models),
        measured=sorted(measured, key=lambda table: table.title.startswith("Table ")),
        unmeasured=[table for table in tables if not table.is_measured],
        figures=[(figure, data_uri(figure.png, "image/png")) for figure in figures],
        notes=results.notes,
    )


def _model_table(models: Sequence[ModelResults]) -> Table:
    """List the evaluated models and their settings."""
    table = Table("runs", "Evaluated models", MODEL_HEADINGS)
    for model in models:
        header = model.header
        flags = [
            f"{key} {value}"
            for key, value in header["model_flags"].items()
            if value != "" and str(value) != str(DEFAULTS.get(key))
        ]
        fit = header["fit"]
        labels = (
            "; ".join([full_name(model), *filter(None, [header.get("about")])]),
            ", ".join(flags),
            header["checkpoint"],
            header["checkpoint_sha256"][:12],
            "original size" if fit == "native" else f"{fit}, {header['image_size']}",
            ", ".join([*model.clean, *(f"{name} (attacked)" for name in model.attacked)]),
            (header.get("versions") or {}).get("qma-net") or "unknown",
        )
        table.rows.append(Row("", labels))
    return table
