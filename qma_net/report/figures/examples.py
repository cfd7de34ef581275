"""Which photographs a figure shows: every so many in the order of their F1, none picked."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ...core.errors import QMANetError
from ...core.images import read_rgb
from ...data.facts import mask_as_benco
from ...data.listing import ListingError, read_listings
from ..paper import SETS
from ..results import Result, Run
from .panels import Panel, black_and_white

THUMBNAIL = 220  # longest side of a photograph in a figure, in pixels
EVALUATE = "qma-net evaluate --checkpoint FILE --test-sets SETS --out DIR --save-masks"


class NotDrawn(QMANetError):
    """A figure, or a part of one, without what it is made of; one line says what is missing."""


@dataclass(frozen=True)
class Example:
    """A tampered photograph of a test set, and its truth: the files."""

    set: str
    image: Path
    truth: Path

    @property
    def pixels(self) -> np.ndarray:
        """uint8 ``(H, W, 3)``, turned no other way than BenCo reads it."""
        return read_rgb(self.image)

    @property
    def thumbnail(self) -> np.ndarray:
        """The same, uint8 ``(h, w, 3)``, its longer side ``THUMBNAIL`` pixels."""
        pixels = self.pixels
        scale = THUMBNAIL / max(pixels.shape[:2])
        size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)

    @property
    def truth_panel(self) -> Panel:
        """White where it was manipulated."""
        truth = mask_as_benco(self.truth)
        return Panel(black_and_white(truth, self.thumbnail.shape))


def examples(run: Run, total: int, notes: list[str]) -> list[Example]:
    """Photographs of a run's test sets, at even steps of their rank by F1; about ``total``.

    ``notes`` gets a line for every test set that is left out.

    Raises:
        NotDrawn: where no test set has its photographs and truths where they were.
    """
    found, missing = [], []
    names = in_paper_order(run.clean)
    for name in names:
        try:
            if len(found) == total:
                raise NotDrawn(f"{total} photographs of other test sets fill them")
            found += _of_one_set(run.clean[name], max(1, total // len(names)))
        except (NotDrawn, ListingError) as error:
            missing.append(f"{name} is not in every figure with photographs: {error}")
    if not found:
        raise NotDrawn(missing[0])
    notes += [note for note in missing if note not in notes]
    return found


def _of_one_set(result: Result, count: int) -> list[Example]:
    """``count`` photographs of one test set, or all where it has fewer."""
    ranked = sorted(result.values("f1").items(), key=lambda item: (item[1], item[0]))
    if not ranked:
        raise NotDrawn(f"{result.path.with_suffix('.csv')} has no tampered photograph; {EVALUATE}")
    truths = {
        pair.image: pair.mask
        for listing in read_listings(result.header["path"])
        for pair in listing.pairs
    }
    count = min(count, len(ranked))
    chosen = [Path(ranked[int((i + 0.5) / count * len(ranked))][0]) for i in range(count)]
    found = []
    for image in chosen:
        truth = truths.get(image)
        for path in (image, truth):
            if path is None or not path.is_file():
                raise NotDrawn(f"{path or f'the truth of {image}'} is not there any more")
        found.append(Example(result.set, image, truth))
    return found


def in_paper_order(names: Iterable[str]) -> list[str]:
    """The paper's test sets first, in its order."""
    order = list(dict.fromkeys(SETS.values()))
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def evaluated_f1(run: Run, example: Example) -> float | None:
    """The pixel F1 of one photograph in a run's results; None without one."""
    result = run.clean.get(example.set)
    return result.values("f1").get(str(example.image)) if result else None
