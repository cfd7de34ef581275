"""Predictions of evaluated models for the figures: saved masks, or computed by the checkpoint."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ...core.images import decode, open_image
from ...inference.preprocessing import ModelInput, fit_to_model
from ...modeling.config import Preprocessing
from ...modeling.qma_net import QMANetModel
from ...weights.locate import load_model
from ...weights.reading import sha256
from ..collect import ModelResults, ResultFile
from .example_images import EVALUATE, Example, FigureError


def load_network(model: ModelResults) -> QMANetModel:
    """Load the checkpoint that was evaluated, on CUDA if it is available.

    Raises:
        FigureError: If the model is not a QMA-Net, or its checkpoint is missing or has changed.
    """
    if not model.is_ours:
        raise FigureError(f"{model.name} has no saved masks; run {EVALUATE}")
    return _load_checkpoint(model.header["checkpoint"], model.header["checkpoint_sha256"])


@lru_cache(maxsize=2)  # Figure 1 needs two; more could exceed the memory.
def _load_checkpoint(name: str, checksum: str) -> QMANetModel:
    path = Path(name)
    if not path.is_file():
        raise FigureError(f"checkpoint {path} no longer exists; run {EVALUATE}")
    if sha256(path) != checksum:
        raise FigureError(f"checkpoint {path} has changed since its evaluation; run {EVALUATE}")
    return load_model(path).eval().to("cuda" if torch.cuda.is_available() else "cpu")


def model_input(pixels: np.ndarray, model: ModelResults) -> ModelInput:
    """Prepare an image, uint8 ``(H, W, 3)``, as in the evaluation of the model."""
    preprocessing = Preprocessing(model.header["image_size"], model.header["fit"])
    return fit_to_model(pixels, preprocessing, oversize="crop")


def predict_probabilities(
    model: ModelResults, example: Example, load: Callable[[], QMANetModel]
) -> np.ndarray:
    """Return the probabilities for an image, float ``(h, w)``: the saved mask, or computed.

    Args:
        model: The evaluated model.
        example: The image.
        load: Loads the model's network; called only without a saved mask.

    Raises:
        FigureError: If there is neither a saved mask nor the checkpoint.
    """
    saved = _saved_mask(model.clean[example.test_set], example.image)
    if saved is not None:
        return saved
    network, prepared = load(), model_input(example.pixels, model)
    with torch.inference_mode():
        logits = network(prepared.tensor(next(network.parameters()).device)).mask_logits
    return prepared.crop_padding(logits[0, 0].float().sigmoid().cpu().numpy())


def _saved_mask(result: ResultFile, image: Path) -> np.ndarray | None:
    """Read the mask that ``evaluate --save-masks`` saved; its name starts with the row's index."""
    index = [row["path"] for row in result.rows].index(str(image))
    folder = result.path.with_name(f"{result.path.stem}_masks")
    array, png = (folder / f"{index:06d}_{image.stem}.{suffix}" for suffix in ("npy", "png"))
    if array.is_file():
        return np.load(array)
    if png.is_file():
        with open_image(png) as opened:
            decode(opened, str(png))
            return np.asarray(opened) / np.float32(255)
    return None
