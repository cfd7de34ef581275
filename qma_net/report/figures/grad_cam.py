"""Grad-CAM: the contributions of a model's layers to its mask."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ...modeling.qma_net import QMANetModel
from ..collect import ModelResults
from . import FigureError
from .examples import Example, model_input
from .image_grid import Panel, heat_image, mask_image


class MaskLogits(nn.Module):
    """A wrapper for Grad-CAM that returns only the logits of the mask, ``(B, 1, H, W)``."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits for an image, ``(B, 3, H, W)``."""
        return self.model(image).mask_logits


class TappedInteraction(nn.Module):
    """An interaction whose two outputs pass through modules that Grad-CAM can observe."""

    def __init__(self, interaction: nn.Module):
        super().__init__()
        self.interaction = interaction
        self.rgb, self.noise = nn.Identity(), nn.Identity()

    def forward(self, rgb_init: Tensor, noise_init: Tensor) -> tuple[Tensor, Tensor]:
        """Return R and N of the interaction, both ``(B, C, h, w)``."""
        rgb, noise = self.interaction(rgb_init, noise_init)
        return self.rgb(rgb), self.noise(noise)


@contextmanager
def tapped_interaction(network: QMANetModel) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Yield modules whose outputs are R_4 and N_4, after the last interaction of the encoders.

    The network's own interaction is restored on exit.
    """
    interaction = network.interactions[-1]
    tapped = TappedInteraction(interaction)
    network.interactions[-1] = tapped
    try:
        yield tapped.rgb, tapped.noise
    finally:
        network.interactions[-1] = interaction


def predicted_region(logits: Tensor) -> Tensor:
    """Return the pixels with a mask value above 0.5, or the top 1% if there are none."""
    region = logits > 0
    if region.any():
        return region
    return logits >= logits.flatten().topk(max(1, logits.numel() // 100)).values[-1]


def mean_logit(logits: Tensor) -> Tensor:
    """Return the mean logit over the predicted region, which is the target of Grad-CAM."""
    return logits[predicted_region(logits)].mean()


def grad_cams(
    model: nn.Module, image: Tensor, layers: Sequence[nn.Module]
) -> tuple[np.ndarray, np.ndarray]:
    """Compute Grad-CAM (Selvaraju et al. 2017) of several layers in one pass.

    Args:
        model: A model in evaluation mode whose output has ``mask_logits``.
        image: The input, ``(1, 3, H, W)``.
        layers: Modules with output ``(1, C, h, w)``, in the order of their execution.

    Returns:
        The maps ``(layers, H, W)``, each from 0 to 1, and the mask's logits ``(H, W)``.

    Raises:
        FigureError: If the package grad-cam is not installed.
    """
    try:
        from pytorch_grad_cam import GradCAM
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed; run: pip install 'qma-net[report]'"
        raise FigureError(message) from None
    targets = [mean_logit]
    with GradCAM(MaskLogits(model), list(layers)) as cam:
        cam(image, targets)
        maps = cam.compute_cam_per_layer(image, targets, eigen_smooth=False)
        model.zero_grad()
        return np.concatenate(maps)[:, 0], cam.outputs[0, 0].detach().cpu().numpy()


def cam_panels(
    model: ModelResults, network: nn.Module, example: Example, layers: Sequence[nn.Module]
) -> list[Panel]:
    """Draw the prediction for an image, and the Grad-CAM of every layer over the image."""
    thumbnail = example.thumbnail
    prepared = model_input(example.pixels, model)
    image = prepared.tensor(next(network.parameters()).device)
    maps, logits = grad_cams(network, image, layers)
    region = predicted_region(torch.from_numpy(logits)).numpy()
    prediction = mask_image(prepared.crop_padding(region), thumbnail.shape)
    f1 = example.f1_of(model)
    texts = [] if f1 is None else [f"F1 {f1:.2f}"]
    texts += [] if (logits > 0).any() else ["no pixel above 0.5"]
    panels = [Panel(prediction, ", ".join(texts))]
    for cam in map(prepared.crop_padding, maps):
        pixels = heat_image(thumbnail, cam, prediction[..., 0] > 0)
        panels.append(Panel(pixels, "" if cam.any() else "no positive values"))
    return panels
