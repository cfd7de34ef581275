"""Noise view of an image: the MNFM and its three extractors (section 3.2)."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from .precision import HALF_PRECISION, float32
from .winograd import streamed

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Standard deviation of each raw view over the photos of scikit-image and scikit-learn,
# recompressed at JPEG quality 90 (measured by benchmarks/view_scales.py). Dividing by it gives the
# views a common scale before the fusion convolution.
VIEW_STD = {"srm": 35.0, "bayar": 0.18, "noiseprint": 0.17}


def normalized(pixels: NDArray[np.uint8], device: torch.device | None = None) -> Tensor:
    """Convert RGB pixels, uint8 ``(H, W, 3)``, to the model's input, float32 ``(1, 3, H, W)``.

    The pixels are normalized with ImageNet's mean and standard deviation.
    """
    image = torch.tensor(pixels, device=device).permute(2, 0, 1)[None]
    mean, std = (torch.tensor(v, device=device) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (image.float() - 255 * mean.view(3, 1, 1)) / (255 * std.view(3, 1, 1))


normalised = normalized  # Deprecated spelling.


class SRM(nn.Module):
    """Spatial Rich Model: the three fixed high-pass kernels of RGB-N (Zhou et al. 2018).

    Each kernel sums over the three channels of an image in 0..255. Unlike in steganalysis, where
    residuals belong to single channels, they are not truncated at +-3: more than half of these
    sums would be cut (docs/reading-the-paper.md).
    """

    channels = 3
    reach = 2

    kernels: Tensor

    def __init__(self) -> None:
        super().__init__()
        square_3x3 = torch.tensor([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4
        square_5x5 = torch.tensor(
            [
                [-1, 2, -2, 2, -1],
                [2, -6, 8, -6, 2],
                [-2, 8, -12, 8, -2],
                [2, -6, 8, -6, 2],
                [-1, 2, -2, 2, -1],
            ]
        )
        line = torch.tensor([[1, -2, 1]]) / 2
        kernels = torch.stack(
            [F.pad(square_3x3, (1, 1, 1, 1)), square_5x5 / 12, F.pad(line, (1, 1, 2, 2))]
        )  # (3, 5, 5)
        kernels = kernels[:, None].repeat(1, 3, 1, 1)  # (3, 3, 5, 5)
        self.register_buffer("kernels", kernels, persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` in 0..1 to residuals ``(B, 3, H, W)`` in gray levels."""
        return F.conv2d(_pad_by_reflection(rgb * 255), self.kernels)


class Bayar(nn.Module):
    """Constrained convolution that learns prediction errors (Bayar & Stamm 2018).

    Every 5x5 kernel has -1 in its center, and its other 24 weights sum to 1. The constraint is
    part of the forward pass. It shifts the weights instead of dividing by their sum, which would
    be unstable near zero.
    """

    channels = 3
    reach = 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, 24) / 24)  # all weights but the center

    def kernels(self) -> Tensor:
        """Return the constrained kernels ``(3, 3, 5, 5)``, differentiable in the free weights."""
        free = self.weight - self.weight.mean(dim=-1, keepdim=True) + 1 / 24
        center = free.new_full((3, 3, 1), -1.0)
        return torch.cat([free[..., :12], center, free[..., 12:]], dim=-1).view(3, 3, 5, 5)

    def forward(self, rgb: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` in 0..1 to residuals ``(B, 3, H, W)``."""
        return F.conv2d(_pad_by_reflection(rgb), self.kernels())


class NoisePrint(nn.Module):
    """NoisePrint++, a learned camera fingerprint (Guillaro et al. 2023): a frozen DnCNN.

    Seventeen 3x3 convolutions with 64 channels and ReLU in between. Loading folds the published
    batch norms into the convolutions (:func:`fold_noiseprint`), so training cannot change it. It
    amplifies rounding errors and therefore always runs in float32 or float64. On CPUs it uses
    :mod:`.winograd`.
    """

    channels = 1
    depth = 17
    width = 64
    reach = depth  # one pixel per convolution

    def __init__(self) -> None:
        super().__init__()
        sizes = [3] + [self.width] * (self.depth - 1) + [self.channels]
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 3, padding=1) for c_in, c_out in pairwise(sizes)
        )
        self.requires_grad_(False)

    @torch.no_grad()
    @float32
    def forward(self, rgb: Tensor) -> Tensor:
        """Map RGB levels divided by 256, ``(B, 3, H, W)``, to the noiseprint ``(B, 1, H, W)``."""
        is_traced = torch.jit.is_tracing() or torch.compiler.is_exporting()
        if rgb.device.type == "cpu" and not is_traced:
            return streamed(self.convs, rgb)
        x = rgb
        for conv in self.convs[:-1]:
            x = F.relu(conv(x), inplace=True)
        return self.convs[-1](x)


def fold_noiseprint(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the published NoisePrint++ to the state of :class:`NoisePrint`.

    The published network is the sequence conv, ReLU, (conv, batch norm, ReLU) x 15, conv. Its
    convolutions have the indices 0, 2, 5, ..., 47, and each norm follows its convolution. The norms
    are folded into the convolutions in float64.

    Raises:
        KeyError: If a tensor of that layout is missing.
    """
    folded = {}
    for i in range(NoisePrint.depth):
        index = max(0, 3 * i - 1)
        weight = published[f"{index}.weight"].double()
        if 0 < i < NoisePrint.depth - 1:
            norm_weight, norm_bias, mean, variance = (
                published[f"{index + 1}.{name}"].double()
                for name in ("weight", "bias", "running_mean", "running_var")
            )
            gain = norm_weight / (variance + nn.BatchNorm2d(1).eps).sqrt()
            weight = weight * gain[:, None, None, None]
            bias = norm_bias - mean * gain
        else:
            bias = published[f"{index}.bias"].double()
        folded[f"convs.{i}.weight"] = weight
        folded[f"convs.{i}.bias"] = bias
    return folded


class MNFM(nn.Module):
    """Multi-domain Noise-sensitive Fusion Module: fuses noise views into N_0 (section 3.2).

    It reverts the ImageNet normalization, extracts the chosen views, brings them to a common scale
    and fuses them with one convolution, all in float32 (:mod:`.precision`).

    Attributes:
        reach: Distance in pixels beyond which the image has no influence on a pixel of N_0. Farther
            than that from its border, a crop has the same N_0 as the whole image, up to rounding.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, views: tuple[str, ...]):
        super().__init__()
        self.views = views
        self.srm = SRM() if "srm" in views else None
        self.bayar = Bayar() if "bayar" in views else None
        self.noiseprint = NoisePrint() if "noiseprint" in views else None
        channels = sum(getattr(self, view).channels for view in views)
        self.reach = max(getattr(self, view).reach for view in views) + 1  # 1 for the fusion
        self.fusion = nn.Conv2d(channels, 3, 3, padding=1, padding_mode="reflect")
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map the ImageNet-normalized image ``(B, 3, H, W)`` to N_0 ``(B, 3, H, W)``."""
        return self._fuse(image).to(image.dtype)

    @float32
    def _fuse(self, image: Tensor) -> Tensor:
        rgb = image * self.std + self.mean  # 0..1
        views = []
        for view in self.views:
            pixels = rgb * (255 / 256) if view == "noiseprint" else rgb
            views.append(getattr(self, view)(pixels) / VIEW_STD[view])  # (B, 1 or 3, H, W)
        return self.fusion(torch.cat(views, dim=1))  # (B, 3, H, W)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move with the model but stay in float32 when ``model.half()`` is called."""

        def keep_precision(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype in HALF_PRECISION else moved

        return super()._apply(keep_precision, recurse)  # type: ignore[no-untyped-call]


def _pad_by_reflection(x: Tensor) -> Tensor:
    """Pad for a 5x5 kernel; zeros would create an edge in the noise view."""
    return F.pad(x, (2, 2, 2, 2), mode="reflect")
