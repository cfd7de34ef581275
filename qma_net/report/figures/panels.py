"""Pictures side by side: panels, and grids of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure as Canvas

PANEL = 1.35  # width of a panel in inches
HEAT = "inferno"  # even steps look even, also without colour
OUTLINE = (255, 255, 255)  # RGB


@dataclass(frozen=True)
class Panel:
    """One picture of a grid, uint8 ``(h, w, 3)``, and the words under it."""

    pixels: np.ndarray
    below: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure before it is a file; ``title`` goes without its number."""

    canvas: Canvas
    title: str
    caption: str


def black_and_white(region: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Bool of any size as uint8 ``(h, w, 3)`` of ``shape``, white where it is True."""
    size = (shape[1], shape[0])
    fitted = cv2.resize(region.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
    return np.repeat(fitted[..., None], 3, axis=2).astype(np.uint8) * 255


def heat_over(pixels: np.ndarray, heat: np.ndarray, region: np.ndarray) -> np.ndarray:
    """A map in 0..1 over the grey photograph, both uint8 ``(h, w, 3)``, the region outlined."""
    height, width = pixels.shape[:2]
    heat = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None] / 255
    share = 0.3 + 0.5 * heat[..., None]  # the photograph shows where the map says little
    mixed = np.uint8(255 * ((1 - share) * grey + share * colormaps[HEAT](heat)[..., :3]))
    outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.ascontiguousarray(mixed), outlines, -1, OUTLINE, 1)


def grid(
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Panel | None]]],
    heat: bool = False,
) -> Canvas:
    """Panels in rows with a name each, under headings; rows are as high as their photographs.

    Args:
        columns: headings.
        rows: pairs of the name (shown where it changes) and the panels; None is left blank.
        heat: whether to add the scale of Grad-CAM.
    """
    heights = [
        min(1.5, max(one.pixels.shape[0] / one.pixels.shape[1] for one in panels if one))
        for _, panels in rows
    ]
    below = 0.17 if any(one and one.below for _, panels in rows for one in panels) else 0
    inches = [PANEL * height + below for height in heights]
    headings = [
        [line for part in heading.split("\n") for line in wrap(part, 19)] for heading in columns
    ]
    top = 0.16 * max(map(len, headings)) + 0.09
    width = (PANEL + 0.04) * len(columns) + 0.25 + (0.6 if heat else 0)
    canvas = Canvas(figsize=(width, sum(inches) + top), layout="constrained")
    canvas.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    places = canvas.subplots(
        len(rows), len(columns), squeeze=False, gridspec_kw={"height_ratios": inches}
    )
    for axes, heading in zip(places[0], headings, strict=True):
        axes.set_title("\n".join(heading), fontsize=8)
    last = None
    for line, (name, panels) in zip(places, rows, strict=True):
        for axes, panel in zip(line, panels, strict=True):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if panel is None:
                axes.text(0.5, 0.5, "no result", ha="center", va="center", fontsize=7, color="grey")
                continue
            axes.imshow(panel.pixels)
            axes.set_xlabel(panel.below, fontsize=7, labelpad=2)
        line[0].set_ylabel(name if name != last else "", fontsize=8)
        last = name
    if heat:
        scale = canvas.colorbar(
            ScalarMappable(cmap=HEAT), ax=places, fraction=0.1 / width, pad=0.1 / width, aspect=40
        )
        scale.ax.tick_params(labelsize=7)
        scale.set_label("Grad-CAM", fontsize=8)
    return canvas
