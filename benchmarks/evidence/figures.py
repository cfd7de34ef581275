"""The pictures of docs/evidence.md: learning curves, and what the first row finds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from qma_net.data.listing import read_listings
from qma_net.demo import packaged_photographs
from qma_net.inference.predictor import QMANetPredictor
from qma_net.launch.saving import checkpoint_path, saved_epochs
from qma_net.pictures import read_rgb
from qma_net.report.logs import read_curves
from qma_net.synth.curriculum import stages
from qma_net.synth.synthesise import synthesise

if TYPE_CHECKING:
    from .page import Results

IMAGES = 1840  # of an epoch: BenCo's BalancedDataset
EXAMPLES = 10  # columns
SMOOTHED = 5  # points of BenCo's log: a batch each, every twentieth of them or so


def curves(results: Results) -> Figure:
    """The mask's loss over the images seen: the seeds' mean, and from best to worst."""
    canvas = Figure(figsize=(11, 4), layout="constrained")
    panels = canvas.subplots(1, 2, sharey=True)
    first = results.rows[0]
    for axes, question in zip(panels, ("idea", "reading"), strict=True):
        for row in [first, *(one for one in results.rows if one.question == question)]:
            found = [_seg_loss(results.folder(row, seed)) for seed in results.seeds(row.name)]
            found = np.array([one[: min(map(len, found))] for one in found])
            if not found.size:
                continue
            epochs, found = found[0, :, 0], found[..., 1]
            seen = IMAGES * epochs / 1000
            style = {"color": "black", "lw": 2.2} if row is first else {"lw": 1.2}
            (line,) = axes.plot(seen, found.mean(0), label=row.name, **style)
            colour = line.get_color()
            axes.fill_between(seen, found.min(0), found.max(0), color=colour, alpha=0.08, lw=0)
        axes.set(xlabel="images seen (thousands)", ylim=(0, 0.9))
        axes.legend(frameon=False, fontsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(f"the mask's Dice loss on images never seen, {results.plan.stage}")
    return canvas


def _seg_loss(folder: Path) -> list[tuple[float, float]]:
    """(epoch, loss) of a training, each the mean of a few neighbours."""
    (found,) = read_curves([folder], []) or [None]
    points = np.array(found.series.get("train_loss/seg_loss", []) if found else []).reshape(-1, 2)
    kernel = np.ones(SMOOTHED) / SMOOTHED
    smooth = [np.convolve(column, kernel, mode="valid") for column in points.T if len(points)]
    return list(zip(*smooth, strict=True))


def examples(results: Results) -> Figure:
    """Image, truth and mask of photographs that ship in packages, made as for the training."""
    plan, first = results.plan, results.rows[0]
    recipe = stages()[plan.stage]
    photos = packaged_photographs(results.out / "data/packaged")
    made = synthesise(
        photos,
        results.out / "data/examples",
        count=1,
        test_count=EXAMPLES,
        image_size=plan.image_size,
        recipe=recipe,
    )
    folder = results.folder(first, results.seeds(first.name)[0])
    checkpoint = checkpoint_path(folder, saved_epochs(folder)[-1])
    predictor = QMANetPredictor.from_pretrained(checkpoint)
    (listing,) = read_listings(made / "test.json")
    canvas = Figure(figsize=(1.2 * EXAMPLES, 3.9), layout="constrained")
    axes = canvas.subplots(3, EXAMPLES)
    for column, pair in zip(axes.T, listing.pairs, strict=True):
        rgb = read_rgb(pair.image)
        truth = read_rgb(pair.mask)[..., 0] if pair.mask else np.zeros(rgb.shape[:2])
        column[0].imshow(rgb)
        column[1].imshow(truth, cmap="gray", vmin=0, vmax=255)
        column[2].imshow(predictor.predict(pair.image).mask, cmap="gray", vmin=0, vmax=1)
        column[0].set_title(pair.image.name.split("_")[0], fontsize=9)
    for axis, name in zip(axes[:, 0], ("image", "truth", "mask"), strict=True):
        axis.set_ylabel(name)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return canvas
