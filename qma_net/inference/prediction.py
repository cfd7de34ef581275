"""The result of a model for one photo."""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..core.errors import QMANetError
from .photograph import Photograph


class NonFiniteError(QMANetError):
    """A model that outputs NaN or infinity instead of a mask."""

    def __init__(self, checkpoint: str, photo: str):
        super().__init__(checkpoint, photo)
        self.checkpoint, self.photo = checkpoint, photo

    def __str__(self) -> str:
        return (
            f"{self.checkpoint or 'the model'} outputs NaN or infinity instead of a mask for "
            f"{self.photo}: its weights are damaged or too large; use a different checkpoint"
        )


class PixelsNotKeptError(QMANetError):
    """A prediction without the pixels that an overlay needs."""


def require_finite(
    mask: NDArray[np.float32], score: float, *, checkpoint: object, photo: str
) -> None:
    """Check the output of a model for one photo.

    Every prediction passes through here, since a mask of NaN looks like that of an authentic photo:
    nothing in it exceeds the threshold.

    Raises:
        NonFiniteError: If the mask or the score contains NaN or infinity.
    """
    if not (np.isfinite(mask).all() and np.isfinite(score)):
        raise NonFiniteError(str(checkpoint or ""), photo)


def as_gray(mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Convert a mask ``(H, W)`` in 0..1 to uint8 in 0..255."""
    return np.asarray(np.rint(mask * 255), np.uint8)


@dataclass(frozen=True)
class Prediction:
    """The result of a model for one photo.

    Attributes:
        mask: float32 ``(H, W)`` in 0..1, the output of the model, at the size of the photo as
            displayed. Higher values suggest tampered pixels; they are not calibrated
            probabilities.
        score: Score of the whole photo in 0..1: the highest mean of the mask in any square whose
            side is about a tenth of the photo's shorter side. It is not the probability that the
            photo has been tampered with.
        threshold: Pixels with a higher mask value count as tampered.
        photograph: The photo, with notes on how it was read; see :meth:`without_pixels`.
        notes: How the photo was read and fed to the model, and caveats about the model.
    """

    mask: NDArray[np.float32]
    score: float
    threshold: float
    photograph: Photograph
    notes: tuple[str, ...] = ()

    @property
    def binary(self) -> NDArray[np.bool_]:
        """Bool ``(H, W)``: where the mask is strictly above the threshold."""
        return self.mask > self.threshold

    @property
    def marked(self) -> float:
        """Fraction of the pixels above the threshold, among those that the file contains."""
        present = self.binary[self.photograph.present]
        return float(present.mean()) if present.size else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the facts of the prediction, without pixels, as values that JSON can represent.

        The keys are ``file`` (the photo's name), ``score``, ``marked``, ``threshold``, ``width``
        and ``height`` (pixels, of the photo as displayed) and ``notes`` (a list of strings). Keys
        may be added in later versions.
        """
        height, width = self.mask.shape
        return {
            "file": self.photograph.name,
            "score": self.score,
            "marked": self.marked,
            "threshold": self.threshold,
            "width": width,
            "height": height,
            "notes": list(self.notes),
        }

    def without_pixels(self) -> "Prediction":
        """Return a copy that does not keep the photo's pixels and so cannot draw an overlay."""
        size = self.photograph.pixels.shape[:2]
        photograph = replace(self.photograph, pixels=np.empty((*size, 0), np.uint8))
        return replace(self, photograph=photograph)

    def overlay(self, colour: tuple[int, int, int] = (255, 40, 40)) -> NDArray[np.uint8]:
        """Draw the photo with the marked region tinted and outlined, as uint8 ``(H, W, 3)``.

        Raises:
            PixelsNotKeptError: If the pixels were removed by :meth:`without_pixels`.
        """
        if self.photograph.pixels.shape != (*self.mask.shape, 3):
            raise PixelsNotKeptError(
                f"the prediction for {self.photograph.name} does not include the photo's pixels, "
                "which overlay() needs; use predict_iter(..., keep_pixels=True)"
            )
        image = self.photograph.pixels.copy()
        marked = self.binary
        image[marked] = (0.55 * image[marked] + 0.45 * np.array(colour)).astype(np.uint8)
        outlines, _ = cv2.findContours(
            marked.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
        )
        width = max(1, round(max(marked.shape) / 400))
        return np.asarray(cv2.drawContours(image, outlines, -1, colour, width), np.uint8)
