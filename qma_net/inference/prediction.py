"""What the model says of one photograph."""

from dataclasses import dataclass

import cv2
import numpy as np

from .photograph import Photograph


def as_grey(mask: np.ndarray) -> np.ndarray:
    """Probabilities ``(H, W)`` as a picture, uint8: 255 where the model gives 1."""
    return np.rint(mask * 255).astype(np.uint8)


@dataclass(frozen=True)
class Prediction:
    """What the model says of one photograph.

    Attributes:
        mask: float32 ``(H, W)`` in 0..1, the probability that a pixel was manipulated; H and W are
            those of the photograph as displayed.
        score: of the whole photograph, in 0..1: the mean of the most suspicious 1 % of pixels. No
            probability that it is a forgery: what untouched photographs score differs by model.
        threshold: above it a pixel is called manipulated.
        photograph: what was looked at, with notes on how it was read.
        notes: how it was read, how it reached the model, and what is to be known of the model.
    """

    mask: np.ndarray
    score: float
    threshold: float
    photograph: Photograph
    notes: tuple[str, ...] = ()

    @property
    def binary(self) -> np.ndarray:
        """Bool ``(H, W)``: probability strictly above the threshold."""
        return self.mask > self.threshold

    def overlay(self, colour: tuple[int, int, int] = (255, 40, 40)) -> np.ndarray:
        """The photograph with the manipulated region tinted and outlined, uint8 ``(H, W, 3)``."""
        picture = self.photograph.pixels.copy()
        marked = self.binary
        picture[marked] = (0.55 * picture[marked] + 0.45 * np.array(colour)).astype(np.uint8)
        outlines, _ = cv2.findContours(
            marked.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
        )
        width = max(1, round(max(marked.shape) / 400))
        return cv2.drawContours(picture, outlines, -1, colour, width)
