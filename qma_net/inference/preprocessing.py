"""Preprocessing: from the pixels of a photo to the input of a model, and back to the photo's size.

All inference code uses these steps: :func:`read_photograph` decodes the photo and applies its
orientation, :func:`fit_to_model` resizes or pads it as in training, :func:`normalized` or
:meth:`ModelInput.tensor` normalizes it, and :meth:`ModelInput.restore` maps the result back.
"""

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..modeling.config import Preprocessing
from ..modeling.noise import normalized


@dataclass(frozen=True)
class ModelInput:
    """A photo as a model receives it.

    Attributes:
        pixels: uint8 ``(h, w, 3)`` RGB.
        content: Height and width of the part of ``pixels`` that shows the photo; the rest, at the
            right and at the bottom, is padding.
        size: Height and width of the photo.
        is_native: Whether the pixels are those of the photo, neither resized nor padded.
    """

    pixels: NDArray[np.uint8]
    content: tuple[int, int]
    size: tuple[int, int]
    is_native: bool = False

    def tensor(self, device: torch.device | None = None) -> Tensor:
        """Return the pixels with ImageNet normalization, float32 ``(1, 3, h, w)``."""
        return normalized(self.pixels, device)

    def crop_padding(self, values: NDArray[Any]) -> NDArray[Any]:
        """Remove the padding from a map ``(h, w)`` of the model."""
        height, width = self.content
        return values[:height, :width]

    def restore(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map float values ``(h, w)`` of the model to the photo's size ``(H, W)``."""
        values, (height, width) = self.crop_padding(values), self.size
        if values.shape == self.size:
            return values
        resized = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(resized, np.float32)


def fit_to_model(
    pixels: NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    native: bool = False,
    oversize: Literal["native", "crop", "shrink"] = "native",
) -> ModelInput:
    """Resize or pad a photo as in training.

    Args:
        pixels: uint8 ``(H, W, 3)`` RGB.
        preprocessing: How images were fed to the model in training.
        native: Keep the original resolution instead.
        oversize: What happens to a photo that is larger than the square into which it should be
            padded: ``"native"`` keeps its size; ``"crop"`` crops it, as BenCo does in evaluation;
            ``"shrink"`` shrinks it.
    """
    height, width = pixels.shape[:2]
    size = (height, width)
    side = preprocessing.image_size
    is_oversize = max(size) > side
    if (
        native
        or preprocessing.fit == "native"
        or (preprocessing.fit == "pad" and is_oversize and oversize == "native")
    ):
        return ModelInput(pixels, content=size, size=size, is_native=True)
    if preprocessing.fit == "resize":
        resized = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_LINEAR)
        return ModelInput(np.asarray(resized, np.uint8), content=(side, side), size=size)
    if is_oversize and oversize == "shrink":
        scale = side / max(size)
        shrunk = max(1, int(width * scale)), max(1, int(height * scale))
        pixels = np.asarray(cv2.resize(pixels, shrunk, interpolation=cv2.INTER_AREA), np.uint8)
    elif is_oversize:
        pixels = pixels[:side, :side]
        size = (min(height, side), min(width, side))
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, side - height), (0, side - width), (0, 0)))
    return ModelInput(padded, content=(height, width), size=size)
