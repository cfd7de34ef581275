"""``qma-net query-maps``: what each query contributes to the mask of a photo, level by level."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...core.files import atomic_write
from ...inference.photograph import PhotographError, PhotoSource, read_photograph
from ...inference.predictor import QMANetPredictor
from ...inference.preprocessing import fit_to_model
from ...modeling.decoder import QMFD
from ...modeling.qma_net import SMALLEST_SIDE, STRIDE, to_image_size
from . import Figure, FigureError
from .examples import THUMBNAIL_SIDE
from .image_grid import PANEL_WIDTH, mask_image

COLORS = "RdBu_r"  # Red raises the logit, blue lowers it.
MAX_SIDE = 1024  # Of a photo at original resolution: its 4 x 16 maps take 268 MB.
CLIPPED = 0.5  # Percentage of values beyond the ends of the color scale.


def query_contributions(
    model: torch.nn.Module, image: Tensor
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Split the mask's logits into the contributions of each query at each level.

    The contribution of query n at level i is its map M_i (equation 7) times the weight of that map
    in the decoder's final convolution. All contributions and the bias of that convolution add up
    to the logits.

    Args:
        model: A QMA-Net with queries, in evaluation mode.
        image: A normalized photo, ``(1, 3, H, W)``.

    Returns:
        The contributions at each decoded level, ``(levels, N, H, W)``, and the logits, ``(H, W)``.

    Raises:
        FigureError: If the model has no queries.
    """
    decoder = getattr(model, "decoder", None)
    if not isinstance(decoder, QMFD):
        raise FigureError("the model has no queries; use one that was trained with --decoder query")
    size = image.shape[2:]
    with _recorded_maps(decoder) as maps, torch.inference_mode():
        logits = model(image).mask_logits[0, 0]
        # Upsampled in the same two steps as the logits: to level 1, then to the photo.
        finest = tuple(-(-side // STRIDE) * STRIDE // 4 for side in size)
        resized = [F.interpolate(m.float(), finest, mode="bilinear") for m in maps]
        weights = decoder.predict.weight.view(1, -1, 1, 1)
        parts = to_image_size(torch.cat(resized, dim=1) * weights, size)[0]
    parts = parts.unflatten(0, (len(maps), -1))
    return parts.cpu().numpy(), logits.float().cpu().numpy()


@contextmanager
def _recorded_maps(decoder: QMFD) -> Iterator[list[Tensor]]:
    """Yield a list to which the maps M_i, ``(1, N, h_i, w_i)``, are added level by level."""
    maps: list[Tensor] = []
    hooks = [
        select.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
        for select in decoder.select
    ]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def draw_query_maps(
    predictor: QMANetPredictor, photo: PhotoSource, *, native: bool = False
) -> Figure:
    """Draw the contributions of every query to the mask of a photo.

    Args:
        predictor: A predictor with a QMA-Net.
        photo: A path, or any other source that :meth:`.QMANetPredictor.predict` accepts.
        native: Process the photo at original resolution instead of resizing it as in training.

    Raises:
        FigureError: If the model has no queries, or if the photo is too small or too large to be
            drawn at original resolution.
        PhotographError: If the source is not a photo or is so truncated that no row is reliable.
    """
    photograph = read_photograph(photo)
    if not photograph.present_pixels.size:
        raise PhotographError(f"cannot judge {photograph.name}: {photograph.truncation}")
    prepared = fit_to_model(photograph.present_pixels, predictor.preprocessing, native=native)
    height, width = prepared.size
    fits = SMALLEST_SIDE <= min(prepared.size) <= max(prepared.size) <= MAX_SIDE
    if prepared.is_native and not fits:
        raise FigureError(
            f"got {photograph.name} of {width}x{height} pixels, expected sides of {SMALLEST_SIDE} "
            f"to {MAX_SIDE} pixels at original resolution; crop it"
        )
    parts, logits = query_contributions(predictor.model, prepared.tensor(predictor.device))
    scale = THUMBNAIL_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    thumbnail = cv2.resize(photograph.present_pixels, size, interpolation=cv2.INTER_AREA)
    maps = [
        [
            cv2.resize(prepared.crop_padding(part), size, interpolation=cv2.INTER_AREA)
            for part in level
        ]
        for level in parts
    ]
    levels = predictor.model.decoder.levels
    # The mask value is above 0.5 where the logit is positive.
    mask = mask_image(prepared.crop_padding(logits) > 0, thumbnail.shape)
    canvas = _draw(thumbnail, mask, maps, [f"$M_{i + 1}$ (1/{4 << i})" for i in levels])
    caption = (
        "Contribution of every query at every level to the logit of the mask: the map M_i times "
        "its weight in the final convolution. Red raises the mask value of a pixel, blue "
        f"lowers it. All maps share one color scale, which covers {100 - CLIPPED:g}% of their "
        "values; every sum in the first row has a separate one."
    )
    return Figure("query-maps", f"Queries: {photograph.name}", caption, canvas)


def write_query_maps(
    predictor: QMANetPredictor,
    photo: PhotoSource,
    out: str | os.PathLike[str],
    *,
    native: bool = False,
) -> Figure:
    """Draw the contributions of every query to a PNG file; see :func:`draw_query_maps`.

    Raises:
        FigureError: If ``out`` is not the name of a PNG file; see also :func:`draw_query_maps`.
        PhotographError: See :func:`draw_query_maps`.
    """
    if not os.fspath(out).lower().endswith(".png"):
        raise FigureError(f"--out {os.fspath(out)} is not the name of a PNG file, such as maps.png")
    figure = draw_query_maps(predictor, photo, native=native)
    with atomic_write(out) as temporary:
        figure.canvas.savefig(temporary, format="png", dpi=110)
    return figure


def _draw(
    photo: np.ndarray,
    mask: np.ndarray,
    maps: Sequence[Sequence[np.ndarray]],
    headings: Sequence[str],
) -> Canvas:
    """Draw photo, mask and the sum of each level in the first row, and every map below it.

    The queries are arranged in blocks side by side; each block has a column per level.
    """
    values = np.concatenate([np.ravel(part) for level in maps for part in level])
    limit = float(np.percentile(np.abs(values), 100 - CLIPPED)) or 1.0
    count, blocks = len(maps[0]), max(2, 8 // len(maps))
    rows = -(-count // blocks)
    columns = blocks * len(maps)
    ratio = min(1.5, photo.shape[0] / photo.shape[1])
    shape = ((PANEL_WIDTH + 0.04) * columns + 0.8, (PANEL_WIDTH * ratio + 0.05) * (rows + 1) + 0.6)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    canvas = Canvas(figsize=shape, layout=layout)
    grid = canvas.subplots(rows + 1, columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    first = [("photo", photo), ("predicted mask", mask)]
    for heading, parts in zip(headings, maps, strict=True):
        total = np.sum(parts, axis=0)
        largest = float(np.abs(total).max()) or 1.0
        first.append(
            (f"sum of {heading}\ncolors: $\\pm${largest:.1f}", _blend(photo, total, largest))
        )
    for axes, (title, pixels) in zip(grid[0], first, strict=False):
        _show(axes, pixels, title)
    for query in range(count):
        block, row = divmod(query, rows)
        for level, (heading, parts) in enumerate(zip(headings, maps, strict=True)):
            axes = grid[row + 1, block * len(maps) + level]
            _show(axes, _blend(photo, parts[query], limit), heading if row == 0 else "")
            if level == 0:
                axes.set_ylabel(f"query {query + 1}", fontsize=8)
    colors = ScalarMappable(Normalize(-limit, limit), COLORS)
    scale = canvas.colorbar(colors, ax=grid, fraction=0.01, pad=0.005, aspect=60)
    scale.ax.tick_params(labelsize=7)
    scale.set_label("contribution to the logit", fontsize=8)
    return canvas


def _show(axes: Axes, pixels: np.ndarray, title: str) -> None:
    axes.imshow(pixels)
    axes.set_title(title, fontsize=8)


def _blend(photo: np.ndarray, values: np.ndarray, limit: float) -> np.ndarray:
    """Blend a signed map ``(h, w)`` with a gray photo, uint8 ``(h, w, 3)``; zero is transparent."""
    values = values / limit
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None] / 255
    opacity = np.clip(np.abs(values), 0, 1)[..., None] * 0.9
    colors = colormaps[COLORS](np.clip(values, -1, 1) / 2 + 0.5)[..., :3]
    blended = (1 - opacity) * (0.3 + 0.7 * gray) + opacity * colors
    return (255 * blended).astype(np.uint8)
