"""Grids of images with headings and captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from . import escape_math

PANEL_WIDTH = 1.35  # inches
HEAT_COLORS = "inferno"  # Perceptually uniform, even in grayscale.
OUTLINE_COLOR = (255, 255, 255)


@dataclass(frozen=True)
class Panel:
    """An image in a grid, uint8 ``(h, w, 3)``, and the text below it."""

    pixels: np.ndarray
    text: str = ""


def mask_image(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resize a bool mask to ``shape`` and convert it to black and white, uint8 ``(h, w, 3)``."""
    size = (shape[1], shape[0])
    resized = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
    return np.repeat(resized[..., None], 3, axis=2).astype(np.uint8) * 255


def heat_image(pixels: np.ndarray, heat: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Overlay a map with values in 0..1 on a grayscale copy of an image, and outline a bool mask.

    The image and the result are uint8 ``(h, w, 3)``, the mask is ``(h, w)``, and the map may have
    any size.
    """
    height, width = pixels.shape[:2]
    heat = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR)
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None] / 255
    opacity = 0.3 + 0.5 * heat[..., None]  # The image remains visible where the map is low.
    colors = colormaps[HEAT_COLORS](heat)[..., :3]
    blended = np.ascontiguousarray(np.uint8(255 * ((1 - opacity) * gray + opacity * colors)))
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(blended, outlines, -1, OUTLINE_COLOR, 1)


def draw_grid(
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Panel | None]]],
    *,
    with_heat_scale: bool = False,
) -> Figure:
    """Draw rows of panels under headings, optionally with the color scale of Grad-CAM.

    Every row has a name, which is shown unless it repeats the previous one, and the height of its
    tallest image. A panel that is None is shown as "no result".
    """
    panels = [panel for _, row in rows for panel in row if panel]
    text_height = 0.17 if any(panel.text for panel in panels) else 0
    ratios = [max(p.pixels.shape[0] / p.pixels.shape[1] for p in row if p) for _, row in rows]
    heights = [PANEL_WIDTH * min(1.5, ratio) + text_height for ratio in ratios]
    headings = [
        [line for part in heading.split("\n") for line in wrap(part, 19)] for heading in columns
    ]
    top = 0.16 * max(map(len, headings)) + 0.09
    width = (PANEL_WIDTH + 0.04) * len(columns) + 0.25 + (0.6 if with_heat_scale else 0)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    canvas = Figure(figsize=(width, sum(heights) + top), layout=layout)
    grid = canvas.subplots(
        len(rows), len(columns), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes, heading in zip(grid[0], headings, strict=True):
        axes.set_title(escape_math("\n".join(heading)), fontsize=8)
    previous = None
    for axes_row, (name, row) in zip(grid, rows, strict=True):
        for axes, panel in zip(axes_row, row, strict=True):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if panel is None:
                axes.text(0.5, 0.5, "no result", ha="center", va="center", fontsize=7, color="gray")
                continue
            axes.imshow(panel.pixels)
            axes.set_xlabel(escape_math(panel.text), fontsize=7, labelpad=2)
        axes_row[0].set_ylabel(escape_math(name) if name != previous else "", fontsize=8)
        previous = name
    if with_heat_scale:
        scale = canvas.colorbar(
            ScalarMappable(cmap=HEAT_COLORS),
            ax=grid,
            fraction=0.1 / width,
            pad=0.1 / width,
            aspect=40,
        )
        scale.ax.tick_params(labelsize=7)
        scale.set_label("Grad-CAM", fontsize=8)
    return canvas
