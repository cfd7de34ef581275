"""Failure cases: tampered images with the lowest F1, authentic ones with the most marked pixels."""

import cv2
import numpy as np

from ...data.listing import ListingError
from ...modeling.config import DEFAULT_THRESHOLD
from ..collect import ModelResults, ResultFile, Results
from ..model_tables import full_name
from ..paper_tables import in_paper_order
from . import Figure, FigureError
from .examples import EVALUATE, Example, find_examples, predict_mask
from .image_grid import Panel, draw_grid, mask_image

TAMPERED_ROWS, AUTHENTIC_ROWS = 12, 8  # Images in the figure, from all test sets together.
NAME_LENGTH = 26  # Characters below an image.


def draw_failures(results: Results) -> Figure:
    """Draw the failure cases of the first model: image, ground truth, mask and marked pixels."""
    model = next((model for model in results.models if model.clean), None)
    if model is None:
        raise FigureError(f"no results on a test set found; run {EVALUATE}")
    names = in_paper_order(model.clean)
    rows, faults = [], []
    for authentic, total in ((False, TAMPERED_ROWS), (True, AUTHENTIC_ROWS)):
        count = max(1, total // len(names))
        for name in names:
            result = model.clean[name]
            try:
                images = worst_images(result, count, authentic=authentic)
                examples = find_examples(result, images, authentic=authentic)
                title = f"{name}\nauthentic" if authentic else name
                rows += [(title, _panels(model, example)) for example in examples]
            except (FigureError, ListingError) as error:
                faults.append(str(error))
    if not rows:
        raise FigureError(faults[0] if faults else "no image has a result")
    results.notes += [f"Some failure cases are missing: {fault}" for fault in dict.fromkeys(faults)]
    caption = (
        f"The images on which {full_name(model)} performs worst: the tampered images with the "
        "lowest pixel F1, and the authentic images with the most marked pixels. They are not "
        "typical; see the tables for the means. Score: the image-level score. Marked: share of "
        f"pixels above {DEFAULT_THRESHOLD}."
    )
    columns = ["image", "ground truth", "mask", f"pixels above {DEFAULT_THRESHOLD}"]
    return Figure("failures", "Failure cases", caption, draw_grid(columns, rows))


def worst_images(result: ResultFile, count: int, *, authentic: bool) -> list[str]:
    """Return the paths of a test set's images with the worst results, worst first.

    Tampered images are ranked by their F1; those without one are left out. Authentic images are
    ranked by the fraction of marked pixels; those without any are left out.
    """
    if authentic:
        marked = [row for row in result.rows if not row["label"] and row["marked"]]
        ranked = sorted(marked, key=lambda row: (-row["marked"], row["path"]))
    else:
        tampered = [row for row in result.rows if row["f1"] is not None]
        # Of several images without any hit, the one with the most false alarms comes first.
        ranked = sorted(tampered, key=lambda row: (row["f1"], -(row["marked"] or 0), row["path"]))
    return [row["path"] for row in ranked[:count]]


def _panels(model: ModelResults, example: Example) -> list[Panel]:
    photo, ground_truth = example.panels
    row = next(row for row in model.clean[example.test_set].rows if row["path"] == example.path)
    mask = predict_mask(model, example)
    shape = photo.pixels.shape
    resized = cv2.resize(mask, shape[1::-1], interpolation=cv2.INTER_LINEAR)
    values = np.repeat((255 * resized).astype(np.uint8)[..., None], 3, axis=2)
    result = "" if row["f1"] is None else f"F1 {row['f1']:.2f}, "
    return [
        Panel(photo.pixels, _shortened(example.image.name)),
        ground_truth,
        Panel(values, "" if row["score"] is None else f"score {row['score']:.2f}"),
        Panel(mask_image(mask > DEFAULT_THRESHOLD, shape), f"{result}{row['marked']:.1%} marked"),
    ]


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else f"...{name[3 - NAME_LENGTH :]}"
