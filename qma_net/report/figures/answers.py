"""What a checkpoint answers to a photograph: its mask, as it was saved or made anew."""

from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ...core.images import decode, open_picture
from ...inference.predictor import normalised
from ...weights.locate import load_model
from ...weights.reading import sha256
from ..results import Result, Run
from .examples import EVALUATE, Example, NotDrawn


def load(run: Run) -> nn.Module:
    """The model that a run's figures are of, on CUDA where there is one.

    Raises:
        NotDrawn: for other models than QMA-Net, and for a file that is gone or has changed.
    """
    path = Path(run.header["checkpoint"])
    if not run.is_ours:
        raise NotDrawn(f"{run.model} without saved masks ({EVALUATE})")
    if not path.is_file():
        raise NotDrawn(f"checkpoint {path} is not there any more ({EVALUATE})")
    if _sha256(path, path.stat().st_mtime_ns) != run.header["checkpoint_sha256"]:
        raise NotDrawn(f"checkpoint {path} has changed since it was evaluated ({EVALUATE})")
    return _load(path, path.stat().st_mtime_ns)


@cache
def _sha256(path: Path, changed: int) -> str:
    return sha256(path)


@lru_cache(maxsize=2)  # of Figure 1; more would fill the memory
def _load(path: Path, changed: int) -> nn.Module:
    return load_model(path).eval().to("cuda" if torch.cuda.is_available() else "cpu")


def model_input(pixels: np.ndarray, header: dict, device: torch.device) -> Tensor:
    """uint8 ``(H, W, 3)`` as evaluation showed it to the model: float32 ``(1, 3, h, w)``."""
    side = header["image_size"]
    if header["fit"] == "resize":
        pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_LINEAR)
    elif header["fit"] == "pad":
        height, width = pixels.shape[:2]
        padding = ((0, max(0, side - height)), (0, max(0, side - width)), (0, 0))
        pixels = np.pad(pixels, padding)[:side, :side]
    return normalised(pixels, device)


def without_padding(seen: np.ndarray, pixels: np.ndarray, header: dict) -> np.ndarray:
    """A map of what the model saw, ``(h, w)``, without what was added to the photograph."""
    height, width = pixels.shape[:2]
    return seen[:height, :width] if header["fit"] == "pad" else seen


def prediction(run: Run, example: Example, model: Callable[[], nn.Module]) -> np.ndarray:
    """The probabilities of one photograph, ``(h, w)``: as they were saved, or else from the model.

    Raises:
        NotDrawn: where neither is to be had.
    """
    saved = _saved_mask(run.clean[example.set], example.image)
    if saved is not None:
        return saved
    model, pixels = model(), example.pixels
    image = model_input(pixels, run.header, next(model.parameters()).device)
    with torch.inference_mode():
        seen = model(image).mask_logits[0, 0].float().sigmoid().cpu().numpy()
    return without_padding(seen, pixels, run.header)


def _saved_mask(result: Result, image: Path) -> np.ndarray | None:
    """What ``evaluate --save-masks`` kept of a photograph, named by its place in the list."""
    paths = [row["path"] for row in result.rows]
    folder = result.path.with_name(f"{result.path.stem}_masks")
    stem = folder / f"{paths.index(str(image)):06d}_{image.stem}"
    if stem.with_name(f"{stem.name}.npy").is_file():
        return np.load(stem.with_name(f"{stem.name}.npy"))
    png = stem.with_name(f"{stem.name}.png")
    if png.is_file():
        with open_picture(png) as picture:
            decode(picture, str(png))
            return np.asarray(picture) / np.float32(255)
    return None
