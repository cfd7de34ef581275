"""Grad-CAM: what layers of a model contribute to its mask, as panels over the photograph."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..results import Run
from .answers import model_input, without_padding
from .examples import Example, NotDrawn, evaluated_f1
from .panels import Panel, black_and_white, heat_over


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
    """A panel with every layer's Grad-CAM over the photograph, and one with the prediction.

    Under a map without a positive part stands that it is none.
    """
    pixels, thumbnail = example.pixels, example.thumbnail
    image = model_input(pixels, run.header, next(model.parameters()).device)
    maps, logits = grad_cams(model, image, layers)
    region = predicted_region(torch.from_numpy(logits)).numpy()
    maps = [without_padding(one, pixels, run.header) for one in maps]
    region = without_padding(region, pixels, run.header)
    predicted = black_and_white(region, thumbnail.shape)
    f1 = evaluated_f1(run, example)
    words = [] if f1 is None else [f"F1 {f1:.2f}"]
    words += [] if (logits > 0).any() else ["none above 0.5"]
    outlined = predicted[..., 0] > 0
    cams = [
        Panel(heat_over(thumbnail, one, outlined), "" if one.any() else "nothing positive")
        for one in maps
    ]
    return cams, Panel(predicted, ", ".join(words))
