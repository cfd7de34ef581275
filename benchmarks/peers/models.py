"""The models that are compared: built with random weights, and run as each is used.

A row of the tables is a model by its name, with " mixed" behind it for autocast to bfloat16 and
then " compiled" for torch.compile.
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
from IMDLBenCo.registry import MODELS
from torch import Tensor, nn

import qma_net.benco  # noqa: F401  (teaches fvcore to count fused attention)
from qma_net.modeling.config import QMANetConfig
from qma_net.modeling.losses import edge_target
from qma_net.modeling.qma_net import QMANetModel

from ..step import qma_net_loss, training_step
from ..training import random_noiseprint

OURS = "QMA-Net b3"
REFERENCE = 512  # side of the image, in pixels, at which models are compared


def rows(compiled: bool, mixed_peers: bool) -> list[str]:
    """All rows; those of QMA-Net compiled and of BenCo's models in bfloat16 where asked for."""
    ours = [OURS, f"{OURS} mixed"]
    return [
        *ours,
        *(f"{name} compiled" for name in ours if compiled),
        *PEERS,
        *(f"{name} mixed" for name in PEERS if mixed_peers),
    ]


def base(name: str) -> str:
    """The model of a row."""
    return name.removesuffix(" compiled").removesuffix(" mixed")


# Builders: for a side in pixels, with files of weights, where a model insists on them, in a folder.


def trufor(size: int, folder: Path, device: str) -> nn.Module:
    """In phase 2, which trains the mask; its NoisePrint++ is random in the published layout."""
    torch.save(random_noiseprint(), folder / "noiseprint.pth")
    config = Path(IMDLBenCo.__file__).parent / "statics/model_zoo/configs/trufor.yaml"
    return MODELS.get("Trufor")(2, str(folder / "noiseprint.pth"), empty(folder), str(config))


def empty(folder: Path) -> str:
    """A state file without tensors, for what is loaded with ``strict=False``."""
    torch.save({}, folder / "empty.pth")
    return str(folder / "empty.pth")


def mesorch(size: int, folder: Path, device: str) -> nn.Module:
    """It brings its mask to 512x512, whatever the image; here to the side of the image."""
    model = MODELS.get("Mesorch")(empty(folder))
    model.resize.size = (size, size)
    return model


def mvss_net(size: int, folder: Path, device: str) -> nn.Module:
    """It fetches a ResNet-50, unless the hub's folder has a file of that name."""
    (folder / "hub/checkpoints").mkdir(parents=True)
    torch.save({}, folder / "hub/checkpoints/resnet50-19c8e357.pth")
    with patch.dict(os.environ, TORCH_HOME=str(folder)):
        return MODELS.get("MVSSNet")()


# Left out: SPAN draws its last layers anew in every forward, CAT-Net reads JPEG coefficients.
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
        backbone_weights_path=empty(folder)
    ),
    "MantraNet": lambda size, folder, device: MODELS.get("MantraNet")(device=torch.device(device)),
}


def build(name: str, size: int, device: str) -> nn.Module:
    """A model by its name (without " mixed" or " compiled"), for images of a side."""
    torch.manual_seed(0)
    if name == OURS:
        return QMANetModel.from_config(QMANetConfig(size="b3")).to(device)
    with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        return PEERS[name](size, Path(folder), device).to(device)


def random_batch(size: int, batch_size: int, device: str) -> dict[str, Tensor]:
    """A batch as BenCo's loaders give it: noise, a square forgery in it, float64 masks."""
    mask = torch.zeros(batch_size, 1, size, size, dtype=torch.float64)
    mask[..., size // 4 : size // 2, size // 4 : size // 2] = 1
    batch = {
        "image": torch.randn(batch_size, 3, size, size),
        "mask": mask,
        "label": torch.ones(batch_size, dtype=torch.int64),
        "edge_mask": edge_target(mask).double(),
        "shape": torch.full((batch_size, 2), size),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def predict(name: str, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mask ``(B, 1, H, W)``, as logits or probabilities."""
    with torch.no_grad(), precision(name, batch):
        if base(name) == OURS:
            return network(batch["image"], edges=False).mask_logits
        return network(**batch)["pred_mask"]


def precision(name: str, batch: dict[str, Tensor]) -> torch.autocast:
    """Autocast to bfloat16 for a mixed row, without effect for another."""
    return torch.autocast(batch["image"].device.type, torch.bfloat16, enabled=" mixed" in name)


def trainer(name: str, network: nn.Module, batch: dict[str, Tensor]) -> Callable[[], None]:
    """A step of training on one batch; see :func:`benchmarks.step.training_step`."""

    def loss() -> Tensor:
        with precision(name, batch):
            if base(name) == OURS:
                return qma_net_loss(network, batch["image"], batch["mask"])
            return network(**batch)["backward_loss"]

    return training_step(network, loss)


class Masks(nn.Module):
    """A row as a function of images alone, because tracing accepts tensors only."""

    def __init__(self, name: str, network: nn.Module, batch: dict[str, Tensor]):
        super().__init__()
        self.name, self.network, self.batch = name, network, batch

    def forward(self, image: Tensor) -> Tensor:
        return predict(self.name, self.network, {**self.batch, "image": image})


def count_flops(name: str, network: nn.Module, batch: dict[str, Tensor]) -> float:
    """Multiply-adds of a forward pass on a batch."""
    flops = FlopCountAnalysis(Masks(name, network, batch), batch["image"])
    return float(flops.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())
