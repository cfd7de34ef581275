"""From a photograph to a mask, at the photograph's own size."""

import os
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ..modeling.noise import IMAGENET_MEAN, IMAGENET_STD
from ..modeling.qma_net import SMALLEST_SIDE, image_score
from ..weights.checkpoint import load_model
from .photograph import Photograph, PhotographError, read_photograph
from .tiles import tiled

FLIPS = ((), (3,), (2,), (2, 3))  # dimensions of (B, C, H, W): none, left-right, top-bottom, both


@dataclass(frozen=True)
class Prediction:
    """What the model says of one photograph.

    Attributes:
        mask: float32 ``(H, W)`` in 0..1, the probability that a pixel was manipulated; H and W are
            those of the photograph as displayed.
        score: of the whole photograph, in 0..1: the mean of the most suspicious 1 % of pixels.
        threshold: above it a pixel is called manipulated.
        photograph: what was looked at, with notes on how it was read.
    """

    mask: np.ndarray
    score: float
    threshold: float
    photograph: Photograph

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


class QMANetPredictor:
    """A model with everything that is needed around it.

    Args:
        model: what :func:`qma_net.build_qma_net` or :func:`qma_net.load_checkpoint` returns.
        device: where to compute; default: where the model is.
        image_size: side in pixels that photographs are resized to, as in training.
        tile: ``native`` photographs with a longer side are cut into tiles of at most this side.
        overlap: pixels that neighbouring tiles share, where they are blended.
        mixed: compute in bfloat16 around the float32 noise view: faster where the processor has
            bfloat16 arithmetic, many times slower where it has not.
        compile: compile the backbones, half a minute for each size of image, to save a tenth of
            the time of every later one; needs a C++ compiler on a CPU.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        device: str | torch.device | None = None,
        image_size: int = 512,
        tile: int = 1024,
        overlap: int = 256,
        mixed: bool = False,
        compile: bool = False,
    ):
        if not SMALLEST_SIDE <= overlap < tile or image_size < SMALLEST_SIDE:
            raise ValueError(
                f"got image_size={image_size}, tile={tile}, overlap={overlap}, expected "
                f"image_size and overlap from {SMALLEST_SIDE} up and overlap below tile"
            )
        self.model = model.eval() if device is None else model.to(device).eval()
        self.image_size, self.tile, self.overlap = image_size, tile, overlap
        self.mixed = mixed
        if compile:
            self.model.compile_for_inference()

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike, device: str | torch.device | None = None, **options
    ) -> "QMANetPredictor":
        """Loads a checkpoint of BenCo's trainer, a directory of ``save_pretrained``, or a hub id.

        Args:
            path: a file, a directory, or ``owner/name`` on the Hugging Face hub.
            device: default CUDA where there is one.
            options: see the constructor.

        Raises:
            WeightsError: for anything that is none of the three, in one line.
        """
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(load_model(path), device, **options)

    def predict(
        self, image, threshold: float = 0.5, native: bool = False, tta: bool = False
    ) -> Prediction | list[Prediction]:
        """The mask of a photograph, or a list of masks for a list of photographs.

        Args:
            image: a path, bytes, an open file, a PIL image, an array (see
                :func:`qma_net.inference.photograph.read_photograph`), or a list of these.
            threshold: above it a pixel is called manipulated.
            native: look at the photograph at its own size, in tiles where it is large, instead of
                resized as in training.
            tta: average over the photograph and its three mirror images.

        Raises:
            PhotographError: naming what is no photograph, or too small for ``native``.
        """
        if isinstance(image, list | tuple):
            return [self.predict(one, threshold, native, tta) for one in image]
        photograph = read_photograph(image)
        height, width = photograph.pixels.shape[:2]
        look = self._averaged if tta else self._probabilities
        if native:
            if min(height, width) < SMALLEST_SIDE:
                raise PhotographError(
                    f"got {photograph.name} of {width}x{height} pixels, expected at least "
                    f"{SMALLEST_SIDE}x{SMALLEST_SIDE} at its own size: leave native away"
                )
            mask = tiled(photograph.pixels, look, self.tile, self.overlap)
            return Prediction(mask, _score(mask), threshold, photograph)
        side = (self.image_size, self.image_size)
        small = cv2.resize(photograph.pixels, side, interpolation=cv2.INTER_LINEAR)
        mask = look(small)
        full = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        return Prediction(full, _score(mask), threshold, photograph)

    @torch.inference_mode()
    def _probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 ``(H, W, 3)`` to float32 ``(H, W)``."""
        return self._look(normalised(pixels, self._device)).cpu().numpy()

    @torch.inference_mode()
    def _averaged(self, pixels: np.ndarray) -> np.ndarray:
        """The same, averaged over the mirror images, each turned back."""
        image = normalised(pixels, self._device)
        turned = [self._look(image.flip(flip)).flip([d - 2 for d in flip]) for flip in FLIPS]
        return torch.stack(turned).mean(dim=0).cpu().numpy()

    def _look(self, image: Tensor) -> Tensor:
        """``(1, 3, H, W)`` to probabilities ``(H, W)``."""
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.mixed):
            return self.model(image, edges=False).mask_logits[0, 0].float().sigmoid()

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def normalised(pixels: np.ndarray, device: torch.device | None = None) -> Tensor:
    """uint8 ``(H, W, 3)`` RGB to the model's float32 ``(1, 3, H, W)``."""
    image = torch.tensor(pixels, device=device).permute(2, 0, 1)[None]
    mean, std = (torch.tensor(v, device=device) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (image.float() - 255 * mean.view(3, 1, 1)) / (255 * std.view(3, 1, 1))


def _score(mask: np.ndarray) -> float:
    return float(image_score(torch.from_numpy(mask)[None, None]))
