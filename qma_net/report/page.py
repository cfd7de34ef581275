"""The HTML page with all tables and figures.

The evaluated models come first, then the tables with results of ours and the figures. The
paper's other tables follow, folded, with the commands that produce their results.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING

from .. import __version__
from ..core.html import data_uri, render
from .collect import DEFAULTS, ModelResults, Results
from .model_tables import full_name
from .paper_tables import published_tables
from .table import Row, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

MODEL_HEADINGS = (
    "Model",
    "Flags other than the defaults",
    "Checkpoint",
    "SHA-256",
    "Images",
    "Test sets",
    "qma-net",
)


@dataclass(frozen=True)
class Figure:
    """A figure of the report; ``stem`` is the name of its file."""

    stem: str
    title: str
    caption: str
    canvas: "Canvas"

    @cached_property
    def png(self) -> bytes:
        """The figure as a PNG file."""
        buffer = BytesIO()
        self.canvas.savefig(buffer, format="png", dpi=130)
        return buffer.getvalue()

    @property
    def data_uri(self) -> str:
        """The image, for embedding it in the page."""
        return data_uri(self.png, "image/png")


def render_page(
    results: Results, tables: Sequence[Table], figures: Sequence[Figure], dirs: Sequence[object]
) -> str:
    """Render the page as HTML.

    Args:
        results: The evaluated models, and notes about files and figures.
        tables: The paper's tables in its order, followed by the others.
        figures: The figures.
        dirs: The folders with the results.
    """
    paper = {f"table-{number}" for number in published_tables()}
    return render(
        __package__,
        "report.html.j2",
        version=__version__,
        dirs=dirs,
        models=_model_table(results.models),
        measured=sorted((t for t in tables if t.is_measured), key=lambda table: table.key in paper),
        unmeasured=[table for table in tables if not table.is_measured],
        figures=figures,
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
