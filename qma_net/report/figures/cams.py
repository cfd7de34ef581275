"""What a checkpoint says of a photograph, and Grad-CAM of how it comes to it."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ...inference.predictor import normalised
from ...weights.checkpoint import load_checkpoint
from ...weights.reading import sha256
from ..results import Result, Run
from .examples import EVALUATE, Example, NotDrawn, f1_of
from .panels import Panel, black_and_white, heat_over

# What a checkpoint says


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
    return load_checkpoint(path).eval().to("cuda" if torch.cuda.is_available() else "cpu")


@cache
def _sha256(path: Path, changed: int) -> str:
    return sha256(path)


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
    if stem.with_name(f"{stem.name}.png").is_file():
        return np.asarray(Image.open(stem.with_name(f"{stem.name}.png"))) / np.float32(255)
    return None


# Grad-CAM


class MaskLogits(nn.Module):
    """A model that answers with its mask's logits alone, ``(B, 1, H, W)``: what Grad-CAM takes."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image).mask_logits


def predicted_region(logits: Tensor) -> Tensor:
    """Bool, of the same shape: above a probability of 0.5; where none is, the highest 1 %."""
    region = logits > 0
    if region.any():
        return region
    count = max(1, logits.numel() // 100)
    return logits >= logits.flatten().topk(count).values[-1]


def mean_logit(logits: Tensor) -> Tensor:
    """The scalar that Grad-CAM explains: the mean logit over the predicted region."""
    return logits[predicted_region(logits)].mean()


def grad_cams(
    model: nn.Module, image: Tensor, layers: Sequence[nn.Module]
) -> tuple[np.ndarray, np.ndarray]:
    """Grad-CAM (Selvaraju 2017) of several layers, in one pass forward and back.

    Args:
        model: from ``image`` to an output with ``mask_logits``; in eval mode.
        image: ``(1, 3, H, W)``.
        layers: modules with output ``(1, C, h, w)``, in the order in which they run; all matter
            to the mask.

    Returns:
        The maps ``(layers, H, W)``, each from 0 to 1, and the mask's logits ``(H, W)``.

    Raises:
        NotDrawn: without the grad-cam package.
    """
    try:
        from pytorch_grad_cam import GradCAM
    except ModuleNotFoundError as error:
        raise NotDrawn(f"{error.name} is not installed: pip install 'qma-net[report]'") from None
    targets = [mean_logit]
    with GradCAM(MaskLogits(model), list(layers)) as cam:
        cam(image, targets)
        maps = cam.compute_cam_per_layer(image, targets, eigen_smooth=False)
        model.zero_grad()
        return np.concatenate(maps)[:, 0], cam.outputs[0, 0].detach().cpu().numpy()


def cam_panels(
    run: Run, model: nn.Module, example: Example, layers: Sequence[nn.Module]
) -> tuple[list[Panel], Panel]:
    """A panel with every layer's Grad-CAM over the photograph, and one with the prediction."""
    pixels, thumbnail = example.pixels, example.thumbnail
    image = model_input(pixels, run.header, next(model.parameters()).device)
    maps, logits = grad_cams(model, image, layers)
    region = predicted_region(torch.from_numpy(logits)).numpy()
    maps = [without_padding(one, pixels, run.header) for one in maps]
    region = without_padding(region, pixels, run.header)
    predicted = black_and_white(region, thumbnail.shape)
    f1 = f1_of(run, example)
    words = [] if f1 is None else [f"F1 {f1:.2f}"]
    words += [] if (logits > 0).any() else ["none above 0.5"]
    outlined = predicted[..., 0] > 0
    cams = [
        Panel(heat_over(thumbnail, one, outlined), "" if one.any() else "nothing positive")
        for one in maps
    ]
    return cams, Panel(predicted, ", ".join(words))
