"""The models of the comparison, with random weights, and how each is run.

A row of the tables is the name of a model, optionally followed by " mixed" (autocast to bfloat16)
and " compiled" (torch.compile).
"""

import io
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import IMDLBenCo.model_zoo
import torch
from fvcore.nn import FlopCountAnalysis
from IMDLBenCo.model_zoo.span.mantranet import IMTFE
from IMDLBenCo.registry import MODELS
from torch import Tensor, nn

import qma_net.benco  # noqa: F401  (makes fvcore count fused attention)
from qma_net.modeling.config import QMANetConfig
from qma_net.modeling.losses import edge_target
from qma_net.modeling.qma_net import QMANetModel

from ..step import qma_net_loss, training_step
from ..training import random_noiseprint

OURS = "QMA-Net b3"
REFERENCE = 512  # The side of the images, in pixels, for which the targets are defined.


def default_rows(compiled: bool, mixed_peers: bool) -> list[str]:
    """List the rows to measure.

    Args:
        compiled: Whether to add compiled rows of QMA-Net.
        mixed_peers: Whether to add BenCo's models in bfloat16.
    """
    ours = [OURS, f"{OURS} mixed"]
    return [
        *ours,
        *(f"{name} compiled" for name in ours if compiled),
        *PEERS,
        *(f"{name} mixed" for name in PEERS if mixed_peers),
    ]


def model_of(row: str) -> str:
    """Return the name of a row's model."""
    return row.removesuffix(" compiled").removesuffix(" mixed")


CONFIGS = Path(IMDLBenCo.__file__).parent / "statics/model_zoo/configs"


def write_placeholder_weights(folder: Path) -> None:
    """Write the weight files that BenCo's models require, under the names of their recipes.

    Models that load a file with ``strict=False`` get one without tensors, the others random
    weights. With ``TORCH_HOME`` set to the folder, MVSS-Net downloads nothing. Two files are
    omitted because training works without them: the weights of ObjectFormer and timm's ConvNeXt.
    """
    (folder / "hub/checkpoints").mkdir(parents=True)
    empty = ["hub/checkpoints/resnet50-19c8e357.pth", "hrnet_w18_small_v2.pth"]
    for name in (*empty, "mit_b2.pth", "mit_b3.pth", "mit_b4.pth"):
        torch.save({}, folder / name)
    for name in ("mae_pretrain_vit_base.pth", "uniformer_base_in1k.pth"):
        torch.save({"model": {}}, folder / name)
    torch.save(random_noiseprint(), folder / "noiseprint.pth")
    torch.save(IMTFE(device="cpu").state_dict(), folder / "IMTFEv4.pt")


# Functions that build a model for images of a given size, from a folder of placeholder weights.


def trufor(size: int, folder: Path, device: str) -> nn.Module:
    """Build TruFor for phase 2, which trains the mask, with random NoisePrint++ weights."""
    files = (folder / "noiseprint.pth", folder / "mit_b2.pth", CONFIGS / "trufor.yaml")
    return MODELS.get("Trufor")(2, *map(str, files))


def mesorch(size: int, folder: Path, device: str) -> nn.Module:
    """Build Mesorch, with masks in the size of the images instead of 512x512."""
    model = MODELS.get("Mesorch")(str(folder / "mit_b3.pth"))
    model.resize.size = (size, size)
    return model


def mvss_net(size: int, folder: Path, device: str) -> nn.Module:
    """Build MVSS-Net without downloading a ResNet-50."""
    with patch.dict(os.environ, TORCH_HOME=str(folder)):
        return MODELS.get("MVSSNet")()


# Not included: SPAN, which draws new weights for its last layers in every forward pass, and
# CAT-Net, which needs JPEG coefficients.
PEERS = {
    "TruFor": trufor,
    "Mesorch": mesorch,
    "SparseViT": lambda size, folder, device: MODELS.get("SparseViT")(img_size=size),
    "IML-ViT": lambda size, folder, device: MODELS.get("IML_ViT")(input_size=size),
    "ObjectFormer": lambda size, folder, device: MODELS.get("ObjectFormer")(
        input_size=size, num_prototypes=2 * (size // 16) ** 2
    ),
    "PSCC-Net": lambda size, folder, device: MODELS.get("PSCC_Net")(size, pretrain_path=""),
    "MVSS-Net": mvss_net,
    "MSCDI-Net": lambda size, folder, device: MODELS.get("MSCDI_Net")(
        backbone_weights_path=str(folder / "mit_b4.pth")
    ),
    "MantraNet": lambda size, folder, device: MODELS.get("MantraNet")(device=torch.device(device)),
}


def build(model: str, size: int, device: str) -> nn.Module:
    """Build a model by name, for images of ``size`` x ``size`` pixels."""
    torch.manual_seed(0)
    if model == OURS:
        return QMANetModel.from_config(QMANetConfig(size="b3")).to(device)
    with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        write_placeholder_weights(Path(folder))
        return PEERS[model](size, Path(folder), device).to(device)


def random_batch(size: int, batch_size: int, device: str) -> dict[str, Tensor]:
    """Create a batch as BenCo's data loaders do: noise with a square as its mask, in float64."""
    mask = torch.zeros(batch_size, 1, size, size, dtype=torch.float64)
    mask[..., size // 4 : size // 2, size // 4 : size // 2] = 1
    batch = {
        "image": torch.randn(batch_size, 3, size, size),
        "mask": mask,
        "label": torch.ones(batch_size, dtype=torch.int64),
        "edge_mask": edge_target(mask).double(),
        "shape": torch.full((batch_size, 2), size),
    }
    return {key: tensor.to(device) for key, tensor in batch.items()}


def predict(row: str, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Run a forward pass and return the mask ``(B, 1, H, W)``, as logits or probabilities."""
    with torch.no_grad(), autocast(row, batch):
        if model_of(row) == OURS:
            return network(batch["image"], edges=False).mask_logits
        return network(**batch)["pred_mask"]


def autocast(row: str, batch: dict[str, Tensor]) -> torch.autocast:
    """Return autocast to bfloat16, which is disabled unless the row is mixed."""
    return torch.autocast(batch["image"].device.type, torch.bfloat16, enabled=" mixed" in row)


def make_step(row: str, network: nn.Module, batch: dict[str, Tensor]) -> Callable[[], None]:
    """Prepare a training step on a batch; see :func:`benchmarks.step.training_step`."""

    def loss() -> Tensor:
        with autocast(row, batch):
            if model_of(row) == OURS:
                return qma_net_loss(network, batch["image"], batch["mask"])
            return network(**batch)["backward_loss"]

    return training_step(network, loss)


class ImageToMask(nn.Module):
    """A row as a module that only takes images, because tracing accepts nothing but tensors."""

    def __init__(self, row: str, network: nn.Module, batch: dict[str, Tensor]):
        super().__init__()
        self.row, self.network, self.batch = row, network, batch

    def forward(self, image: Tensor) -> Tensor:
        """Return the mask; see :func:`predict`."""
        return predict(self.row, self.network, {**self.batch, "image": image})


def count_flops(model: str, network: nn.Module, batch: dict[str, Tensor]) -> float:
    """Count the multiply-adds of a forward pass."""
    flops = FlopCountAnalysis(ImageToMask(model, network, batch), batch["image"])
    return float(flops.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())
