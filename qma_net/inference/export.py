"""``qma-net export``: the model as an ONNX graph, verified against PyTorch.

The graph maps ``image``, float32 ``(B, 3, H, W)`` with ImageNet normalization, to probabilities
``mask``, float32 ``(B, 1, H, W)``. B, H and W are free, but H and W must be multiples of 32: the
caller pads the image (repeat the last row and column and crop the mask, as ``QMANetModel`` does).
The whole graph is float32, in particular NoisePrint++.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import QMANetError
from ..core.files import atomic_write
from ..modeling.noise import normalized
from ..modeling.qma_net import STRIDE, QMANetModel
from .photograph import read_photograph

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3  # Largest difference of a probability.
SIZES = ((1, 64, 64), (2, 96, 160), (1, 256, 192))  # (B, H, W) of the verification.
MAX_SIDE = 512  # Pixels of the photos for verification.
OPSET = 18


class ExportError(QMANetError):
    """A graph that differs from the model, or missing tools."""


class MaskOnly(nn.Module):
    """The exported computation: from images ``(B, 3, H, W)`` to probabilities ``(B, 1, H, W)``."""

    def __init__(self, model: QMANetModel):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Return the probabilities of a mini-batch."""
        probabilities: Tensor = self.model(image).mask_logits.sigmoid()
        return probabilities


def export_onnx(
    model: QMANetModel,
    out: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]] = (),
) -> str:
    """Write an ONNX file and verify it with onnxruntime. No file remains if the check fails.

    Args:
        model: A QMA-Net of any size, on the CPU.
        out: The file.
        images: Photos for the verification, in addition to random inputs of three sizes.

    Returns:
        One line with the largest difference of a probability.

    Raises:
        ExportError: If a difference exceeds 1e-3, or onnx, onnxscript or onnxruntime is missing.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ModuleNotFoundError as error:
        raise ExportError(
            f"{error.name} is not installed; run: pip install 'qma-net[export]'"
        ) from None
    network = MaskOnly(model.eval())
    with atomic_write(out) as temporary, torch.no_grad():
        logger.info("writing the graph, which takes minutes for a large model")
        _write(network, temporary)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        generator = torch.Generator().manual_seed(0)
        inputs = [torch.randn(b, 3, h, w, generator=generator) for b, h, w in SIZES]
        inputs += map(_real_input, images)
        sizes = ["x".join(map(str, image.shape)) for image in inputs]
        logger.info("verifying it with inputs of %s", ", ".join(sizes))
        differences = [_difference(session, network, image) for image in inputs]
        if not all(difference <= TOLERANCE for difference in differences):  # One may be NaN.
            raise ExportError(
                f"got differences up to {max(differences):.2g} between onnxruntime and PyTorch, "
                f"expected at most {TOLERANCE}; no file was written"
            )
    largest = f"{out}: largest difference from PyTorch {max(differences):.2g}"
    return f"{largest}, with inputs of {', '.join(sizes)}"


def _write(network: MaskOnly, path: Path) -> None:
    size = {2: STRIDE * torch.export.Dim("rows"), 3: STRIDE * torch.export.Dim("columns")}
    torch.onnx.export(
        network,
        (torch.randn(2, 3, 64, 96),),
        str(path),
        input_names=["image"],
        output_names=["mask"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch"), **size}},
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _difference(session: Any, network: MaskOnly, image: Tensor) -> float:
    (mask,) = session.run(None, {"image": image.numpy()})
    return float(np.abs(mask - network(image).numpy()).max())


def _real_input(path: str | os.PathLike[str]) -> Tensor:
    """Crop a photo to at most 512 pixels and to multiples of 32."""
    pixels = read_photograph(path).pixels
    height, width = (min(MAX_SIDE, side - side % STRIDE) for side in pixels.shape[:2])
    return normalized(pixels[:height, :width])
