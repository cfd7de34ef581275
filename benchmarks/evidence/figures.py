"""Figures of docs/evidence.md: learning curves, example masks of the first row, ROC curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from qma_net.core.images import read_rgb
from qma_net.data.listing import read_listings
from qma_net.demo import copy_packaged_photos
from qma_net.inference.predictor import QMANetPredictor
from qma_net.launch.checkpoints import checkpoint_path, saved_epochs
from qma_net.synth.curriculum import stages
from qma_net.synth.synthesise import synthesise

from .plan import Plan

if TYPE_CHECKING:
    from .page import Results

IMAGES = 1840  # Per epoch, as in BenCo's BalancedDataset.
EXAMPLES = 10  # Images to show, one per column.
SMOOTHED = 5  # Points to average; BenCo logs about every twentieth batch.
# Shares above each threshold, by the name of a set and whether it is tampered.
Curves = dict[tuple[str, bool], np.ndarray]


def curves(results: Results) -> Figure:
    """Plot the mask loss over the number of images: mean and range of the seeds."""
    canvas = Figure(figsize=(11, 4), layout="constrained")
    panels = canvas.subplots(1, len(results.tables), sharey=True, squeeze=False)[0]
    for axes, questions in zip(panels, results.tables, strict=True):
        for row in results.of_questions(*questions):
            smoothed = [_smooth(run.curve) for run in results.records.of(row.name) if run.curve]
            if not smoothed:
                continue
            length = min(map(len, smoothed))
            points = np.array([curve[:length] for curve in smoothed])
            seen, losses = IMAGES * points[0, :, 0] / 1000, points[..., 1]
            style = {"color": "black", "lw": 2.2} if row is results.rows[0] else {"lw": 1.2}
            (line,) = axes.plot(seen, losses.mean(0), label=row.name, **style)
            color = line.get_color()
            axes.fill_between(seen, losses.min(0), losses.max(0), color=color, alpha=0.08, lw=0)
        axes.set(xlabel="images seen (thousands)", ylim=(0, 0.9))
        axes.legend(frameon=False, fontsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(f"Dice loss of the mask ({results.plan.stage})")
    return canvas


def _smooth(curve: list[tuple[float, float]]) -> np.ndarray:
    """Return pairs of epoch and loss, averaged over neighboring points."""
    kernel = np.ones(SMOOTHED) / SMOOTHED
    columns = [np.convolve(column, kernel, mode="valid") for column in np.array(curve).T]
    return np.stack(columns, axis=1)


def examples(plan: Plan, out: Path) -> Figure | None:
    """Plot image, ground truth and mask of synthetic images from freely distributed photos.

    Returns:
        The figure, or None if ``out`` has no checkpoint of the first row.
    """
    runs = sorted(path for path in out.glob(f"{plan.rows[0].folder}/*") if saved_epochs(path))
    if not runs:
        return None
    data = synthesise(
        copy_packaged_photos(out / "data/packaged"),
        out / "data/examples",
        count=1,
        test_count=EXAMPLES,
        image_size=plan.image_size,
        recipe=stages()[plan.stage],
    )
    checkpoint = checkpoint_path(runs[0], saved_epochs(runs[0])[-1])
    predictor = QMANetPredictor.from_pretrained(checkpoint)
    (listing,) = read_listings(data / "test.json")
    canvas = Figure(figsize=(1.2 * EXAMPLES, 3.9), layout="constrained")
    axes = canvas.subplots(3, EXAMPLES)
    for column, pair in zip(axes.T, listing.pairs, strict=True):
        rgb = read_rgb(pair.image)
        truth = read_rgb(pair.mask)[..., 0] if pair.mask else np.zeros(rgb.shape[:2])
        column[0].imshow(rgb)
        column[1].imshow(truth, cmap="gray", vmin=0, vmax=255)
        column[2].imshow(predictor.predict(pair.image).mask, cmap="gray", vmin=0, vmax=1)
        column[0].set_title(pair.image.name.split("_")[0], fontsize=9)
    for axis, name in zip(axes[:, 0], ("image", "ground truth", "mask"), strict=True):
        axis.set_ylabel(name)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return canvas


def roc_curves(pixels: Curves, images: Curves) -> Figure:
    """Plot ROC curves of every tampered set against all authentic photos, by pixel and by image.

    Every group of authentic photos has the same weight in the false positive rates.
    """
    canvas = Figure(figsize=(11, 4.6), layout="constrained")
    titles = ("share of authentic pixels marked", "authentic photos above the threshold")
    quantities = ("share of tampered pixels marked", "tampered images above the threshold")
    panels = canvas.subplots(1, 2)
    for axes, curves, x, y in zip(panels, (pixels, images), titles, quantities, strict=True):
        false = np.mean([curve for (_, tampered), curve in curves.items() if not tampered], axis=0)
        for (name, tampered), curve in curves.items():
            if tampered:
                axes.plot(false, curve, label=name)
        axes.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_xlim(0, 0.2)  # Higher false positive rates are of no practical use.
    panels[0].legend(frameon=False, fontsize=8)
    return canvas
