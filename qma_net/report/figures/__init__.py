"""The report's figures, drawn from result files, images and checkpoints; see ``draw.py``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...core.errors import QMANetError

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


class FigureError(QMANetError):
    """A figure, or a part of a figure, that cannot be drawn."""


def escape_math(text: str) -> str:
    """Escape dollar signs, between which Matplotlib would parse the text as a formula."""
    return text.replace("$", r"\$")


@dataclass(frozen=True)
class Figure:
    """A figure of the report; ``stem`` is the name of its file."""

    stem: str
    title: str
    caption: str
    canvas: "Canvas"
