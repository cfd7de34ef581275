"""``qma-net export``: the model as ONNX, checked against PyTorch after writing.

The graph takes ``image``, float32 ``(B, 3, H, W)``, ImageNet-normalised, and gives ``mask``,
float32 ``(B, 1, H, W)``, probabilities. B, H and W are free; H and W must be multiples of 32:
padding is the caller's (repeat the last row and column, and cut the mask, as ``QMANetModel``
does). All of it is float32, NoisePrint++ above all.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import QMANetError
from ..core.files import atomic_write
from ..modeling.noise import normalised
from ..modeling.qma_net import STRIDE, QMANetModel
from .photograph import read_photograph

TOLERANCE = 1e-3  # of a probability
SIZES = ((1, 64, 64), (2, 96, 160), (1, 256, 192))  # (B, H, W) that the written file is run at
OPSET = 18


class ExportError(QMANetError):
    """A graph that does not compute what the model computes, or tools that are missing."""


class MaskOnly(nn.Module):
    """The exported computation: ``(B, 3, H, W)`` to probabilities ``(B, 1, H, W)``."""

    def __init__(self, model: QMANetModel):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image).mask_logits.sigmoid()


def export_onnx(
    model: QMANetModel,
    out: str | os.PathLike,
    images: Sequence[str | os.PathLike] = (),
    *,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Writes an ONNX file and verifies it with onnxruntime; nothing is left where it fails.

    Args:
        model: any QMA-Net, on the CPU.
        out: the file; weights beyond 2 GB would go beside it (no size of QMA-Net has them).
        images: photographs to verify it on, beside random inputs of three sizes.
        say: is told what is done at the moment.

    Returns:
        One line with the largest difference of a probability.

    Raises:
        ExportError: when a difference exceeds 1e-3, or onnx, onnxscript or onnxruntime is missing.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ModuleNotFoundError as error:
        raise ExportError(
            f"got no {error.name}, expected the export tools: pip install 'qma-net[export]'"
        ) from None
    network = MaskOnly(model.eval())
    with atomic_write(out) as beside, torch.no_grad():
        say("writing the graph, which takes minutes for a large model")
        _write(network, beside)
        session = onnxruntime.InferenceSession(beside, providers=["CPUExecutionProvider"])
        inputs = [*_random_inputs(), *map(_real_input, images)]
        differences = []
        for image in inputs:
            say(f"checking it on {'x'.join(map(str, image.shape))}")
            differences.append(_difference(session, network, image))
        if not max(differences) <= TOLERANCE:
            raise ExportError(
                f"got differences up to {max(differences):.2g} between onnxruntime and PyTorch, "
                f"expected at most {TOLERANCE}: the file is not written"
            )
    sizes = ", ".join("x".join(map(str, image.shape)) for image in inputs)
    return f"{out}: largest difference to PyTorch {max(differences):.2g}, on {sizes}"


def _write(network: MaskOnly, path: Path) -> None:
    size = {2: STRIDE * torch.export.Dim("rows"), 3: STRIDE * torch.export.Dim("columns")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
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


def _difference(session, network: MaskOnly, image: Tensor) -> float:
    (got,) = session.run(None, {"image": image.numpy()})
    return float(np.abs(got - network(image).numpy()).max())


def _random_inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(b, 3, h, w, generator=generator) for b, h, w in SIZES]


def _real_input(path: str | os.PathLike) -> Tensor:
    """A photograph at its own size, cut to multiples of 32 and to 512, normalised."""
    pixels = read_photograph(path).pixels
    height, width = (min(512, side - side % STRIDE) for side in pixels.shape[:2])
    return normalised(pixels[:height, :width])
