"""``qma-net export``: the model as an ONNX graph, verified against PyTorch.

The graph maps ``image``, float32 ``(B, 3, H, W)`` with ImageNet normalization, to mask values
``mask``, float32 ``(B, 1, H, W)``. B, H and W are free, but H and W must be multiples of 32: the
caller pads the image (repeat the last row and column and crop the mask, as ``QMANetModel`` does).
The whole graph is float32, in particular NoisePrint++. The metadata of the file states how to
prepare a photo (:func:`metadata`); docs/using.md contains an example.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import __version__
from ..core.errors import QMANetError
from ..core.files import atomic_write, to_json
from ..modeling.config import Preprocessing
from ..modeling.noise import IMAGENET_MEAN, IMAGENET_STD, normalized
from ..modeling.qma_net import STRIDE, QMANetModel
from .photograph import read_photograph

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3  # Largest accepted difference of a mask value.
SIZES = ((1, 64, 64), (2, 96, 160), (1, 256, 192))  # (B, H, W) of the random inputs.
MAX_SIDE = 512  # Largest side, in pixels, of the crops of photos for verification.
OPSET = 18


class ExportError(QMANetError):
    """A graph that differs from the model, or missing tools."""


class MaskOnly(nn.Module):
    """The exported computation: from images ``(B, 3, H, W)`` to masks ``(B, 1, H, W)``."""

    def __init__(self, model: QMANetModel):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Return the masks of a mini-batch."""
        masks: Tensor = self.model(image).mask_logits.sigmoid()
        return masks


def export_onnx(
    model: QMANetModel,
    out: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]] = (),
) -> str:
    """Write an ONNX file and verify it with onnxruntime.

    No file is written if the check fails.

    Args:
        model: A QMA-Net of any size, on the CPU.
        out: Path of the file.
        images: Photos for the verification, in addition to random inputs of three sizes.

    Returns:
        One line with the largest difference of a mask value.

    Raises:
        ExportError: If a difference exceeds 1e-3, or if onnx, onnxscript or onnxruntime is missing.
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


def metadata(model: QMANetModel) -> dict[str, str]:
    """Return the metadata of the ONNX file, which onnxruntime reads as a custom metadata map.

    ``mean`` and ``std`` are JSON lists, for pixels in 0..1. ``image_size`` and ``fit`` are those of
    :class:`qma_net.modeling.config.Preprocessing`. Height and width must be multiples of
    ``stride``. ``qma_net`` is the version that wrote the file.
    """
    preprocessing = model.preprocessing or Preprocessing()
    return {
        "qma_net": __version__,
        "about": model.about,
        "mean": to_json(IMAGENET_MEAN),
        "std": to_json(IMAGENET_STD),
        "image_size": str(preprocessing.image_size),
        "fit": preprocessing.fit,
        "stride": str(STRIDE),
    }


def trace(network: MaskOnly) -> torch.export.ExportedProgram:
    """Trace the computation for any batch size and for image sizes that are multiples of 32.

    torch.onnx could do this, too, but if a size turns out to be fixed, it falls back to methods
    that do not report it.
    """
    size = {2: STRIDE * torch.export.Dim("rows"), 3: STRIDE * torch.export.Dim("columns")}
    shapes = {"image": {0: torch.export.Dim("batch"), **size}}
    return torch.export.export(network, (torch.randn(2, 3, 64, 96),), dynamic_shapes=shapes)


def _write(network: MaskOnly, path: Path) -> None:
    program = torch.onnx.export(
        trace(network),
        input_names=["image"],
        output_names=["mask"],
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program  # With dynamo=True, it is never None.
    program.model.metadata_props.update(metadata(network.model))
    program.save(str(path), external_data=False)


def _difference(session: Any, network: MaskOnly, image: Tensor) -> float:
    (mask,) = session.run(None, {"image": image.numpy()})
    return float(np.abs(mask - network(image).numpy()).max())


def _real_input(path: str | os.PathLike[str]) -> Tensor:
    """Crop a photo to sides that are multiples of 32 and at most 512 pixels, and normalize it."""
    pixels = read_photograph(path).pixels
    height, width = (min(MAX_SIDE, side - side % STRIDE) for side in pixels.shape[:2])
    return normalized(pixels[:height, :width])
