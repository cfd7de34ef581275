"""Selection of the images that figures show: evenly spaced by F1, not picked by hand."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ...core.errors import QMANetError
from ...core.images import read_rgb
from ...data.facts import mask_as_benco
from ...data.listing import ListingError, read_listings
from ..collect import ModelResults, ResultFile
from ..paper_tables import TEST_SETS
from .image_grid import Panel, mask_image

THUMBNAIL_SIDE = 220  # Longer side of an image in a figure, in pixels.
EVALUATE = "qma-net evaluate --checkpoint FILE --test-sets SETS --out DIR --save-masks"


class FigureError(QMANetError):
    """Missing inputs of a figure or of a part of it."""


@dataclass(frozen=True)
class Example:
    """A tampered image of a test set and its ground truth."""

    test_set: str
    image: Path
    ground_truth: Path

    @property
    def pixels(self) -> np.ndarray:
        """The image as BenCo reads it, without its EXIF orientation; uint8 ``(H, W, 3)``."""
        return read_rgb(self.image)

    @property
    def thumbnail(self) -> np.ndarray:
        """The image with a longer side of ``THUMBNAIL_SIDE`` pixels, uint8 ``(h, w, 3)``."""
        pixels = self.pixels
        scale = THUMBNAIL_SIDE / max(pixels.shape[:2])
        size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)

    @property
    def panels(self) -> list[Panel]:
        """The thumbnail, and the ground truth with tampered pixels in white."""
        thumbnail = self.thumbnail
        mask = mask_as_benco(self.ground_truth)
        return [Panel(thumbnail), Panel(mask_image(mask, thumbnail.shape))]

    def f1_of(self, model: ModelResults) -> float | None:
        """Return the pixel F1 that was evaluated for a model, or None."""
        result = model.clean.get(self.test_set)
        return result.per_image("pixel_f1").get(str(self.image)) if result else None


def select_examples(model: ModelResults, total: int, notes: list[str]) -> list[Example]:
    """Select about ``total`` images of a model's test sets, evenly spaced by their rank by F1.

    Args:
        model: The model whose F1 ranks the images.
        total: Number of images over all test sets.
        notes: A line is added for every test set that is omitted.

    Raises:
        FigureError: If no test set is still where it was when it was evaluated.
    """
    examples: list[Example] = []
    omitted: dict[str, str] = {}
    names = in_paper_order(model.clean)
    for name in names:
        try:
            if len(examples) == total:
                raise FigureError(f"{total} images of other test sets fill the figure")
            examples += _select_from(model.clean[name], max(1, total // len(names)))
        except (FigureError, ListingError) as error:
            omitted[name] = str(error)
    if not examples:
        raise FigureError(next(iter(omitted.values())))
    for name, reason in omitted.items():
        note = f"{name} is not in all figures with images: {reason}"
        notes += [note] if note not in notes else []
    return examples


def _select_from(result: ResultFile, count: int) -> list[Example]:
    """Select ``count`` images of one test set, or all if it has fewer."""
    f1 = result.per_image("pixel_f1")
    ranked = sorted(f1, key=lambda path: (f1[path], path))
    if not ranked:
        table = result.path.with_suffix(".csv")
        raise FigureError(f"{table} contains no tampered image; run {EVALUATE}")
    masks = {
        pair.image: pair.mask
        for listing in read_listings(result.header["path"])
        for pair in listing.pairs
    }
    count = min(count, len(ranked))
    examples = []
    for i in range(count):
        image = Path(ranked[int((i + 0.5) / count * len(ranked))])
        mask = masks.get(image)
        if not image.is_file():
            raise FigureError(f"{image} no longer exists")
        if mask is None or not mask.is_file():
            raise FigureError(f"{mask or f'the ground truth of {image}'} no longer exists")
        examples.append(Example(result.test_set, image, mask))
    return examples


def in_paper_order(names: Iterable[str]) -> list[str]:
    """Sort test sets: the paper's first, in its order."""
    order = list(dict.fromkeys(TEST_SETS.values()))
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))
