"""The noise view: MNFM and its three extractors (paper section 3.2)."""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .precision import HALF_PRECISION, float32
from .winograd import streamed

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Standard deviation of each raw view over the photographs of scikit-image and scikit-learn,
# recompressed at JPEG quality 90 (benchmarks/view_scales.py prints them); dividing by it
# brings the view to unit scale before the fusion conv.
VIEW_STD = {"srm": 35.0, "bayar": 0.18, "noiseprint": 0.17}


def normalised(pixels: np.ndarray, device: torch.device | None = None) -> Tensor:
    """uint8 ``(H, W, 3)`` RGB to the model's float32 ``(1, 3, H, W)``."""
    image = torch.tensor(pixels, device=device).permute(2, 0, 1)[None]
    mean, std = (torch.tensor(v, device=device) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (image.float() - 255 * mean.view(3, 1, 1)) / (255 * std.view(3, 1, 1))


class SRM(nn.Module):
    """Spatial Rich Model residuals: three fixed high-pass kernels (Zhou et al. 2018).

    Each kernel runs over all three channels of an image in 0..255. The residuals are not
    truncated at +-3 as in steganalysis, where each channel has its own: of a sum over three
    channels more than half would be cut (docs/reading-the-paper.md), and little but signs left.

    Shapes: ``(B, 3, H, W)`` in 0..1 to ``(B, 3, H, W)`` in grey levels.
    """

    channels = 3
    reach = 2

    def __init__(self):
        super().__init__()
        second_order = torch.zeros(5, 5)
        second_order[1:4, 1:4] = torch.tensor([[-1.0, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4
        fifth_square = (
            torch.tensor(
                [
                    [-1.0, 2, -2, 2, -1],
                    [2, -6, 8, -6, 2],
                    [-2, 8, -12, 8, -2],
                    [2, -6, 8, -6, 2],
                    [-1, 2, -2, 2, -1],
                ]
            )
            / 12
        )
        second_line = torch.zeros(5, 5)
        second_line[2, 1:4] = torch.tensor([1.0, -2, 1]) / 2
        kernels = torch.stack([second_order, fifth_square, second_line])  # (3, 5, 5)
        kernels = kernels[:, None].repeat(1, 3, 1, 1)  # (3, 3, 5, 5)
        self.register_buffer("kernels", kernels, persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        return F.conv2d(_reflect(rgb * 255), self.kernels)


class Bayar(nn.Module):
    """Constrained convolution: learned prediction errors (Bayar & Stamm 2018).

    Every 5x5 kernel has centre -1 and its other 24 weights sum to 1. The constraint is part
    of the forward pass and shifts rather than divides: dividing by the sum blows up near zero.

    Shapes: ``(B, 3, H, W)`` in 0..1 to ``(B, 3, H, W)``.
    """

    channels = 3
    reach = 2

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, 24) / 24)  # every tap but the centre

    def kernels(self) -> Tensor:
        """The constrained kernels, ``(3, 3, 5, 5)``; differentiable in the free weights."""
        taps = self.weight - self.weight.mean(dim=-1, keepdim=True) + 1 / 24
        centre = taps.new_full((3, 3, 1), -1.0)
        return torch.cat([taps[..., :12], centre, taps[..., 12:]], dim=-1).view(3, 3, 5, 5)

    def forward(self, rgb: Tensor) -> Tensor:
        return F.conv2d(_reflect(rgb), self.kernels())


class NoisePrint(nn.Module):
    """NoisePrint++, the learned camera fingerprint (Guillaro et al. 2023): a frozen DnCNN.

    17 convolutions 3x3, 64 channels, ReLU between them. The published batch norms are folded
    into the convolutions when loaded (:func:`fold_noiseprint`), so nothing in it can drift.
    It amplifies rounding and therefore runs in float32 (or float64), whatever surrounds it. On a
    CPU it runs row by row (:mod:`.winograd`).

    Shapes: RGB/256 ``(B, 3, H, W)`` to ``(B, 1, H, W)``.
    """

    channels = 1
    depth = 17
    width = 64
    reach = depth  # a pixel for every convolution

    def __init__(self):
        super().__init__()
        sizes = [3] + [self.width] * (self.depth - 1) + [self.channels]
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 3, padding=1) for c_in, c_out in pairwise(sizes)
        )
        self.requires_grad_(False)

    @torch.no_grad()
    @float32
    def forward(self, rgb: Tensor) -> Tensor:
        if rgb.device.type == "cpu" and not (
            torch.compiler.is_exporting() or torch.jit.is_tracing()
        ):
            return streamed(self.convs, rgb)
        x = rgb
        for conv in self.convs[:-1]:
            x = F.relu(conv(x), inplace=True)
        return self.convs[-1](x)


def fold_noiseprint(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """State of :class:`NoisePrint` from the published DnCNN's, batch norms folded in float64.

    The published network is a sequence conv, ReLU, (conv, batch norm, ReLU) x 15, conv: its
    convolutions stand at 0, 2, 5, ..., 47 and each norm one place after its convolution.

    Raises:
        KeyError: when a tensor of that layout is absent.
    """
    folded = {}
    for i in range(NoisePrint.depth):
        place = max(0, 3 * i - 1)
        weight = published[f"{place}.weight"].double()
        if 0 < i < NoisePrint.depth - 1:
            norm = {
                name: published[f"{place + 1}.{name}"].double()
                for name in ("weight", "bias", "running_mean", "running_var")
            }
            gain = norm["weight"] / (norm["running_var"] + nn.BatchNorm2d(1).eps).sqrt()
            weight = weight * gain[:, None, None, None]
            bias = norm["bias"] - norm["running_mean"] * gain
        else:
            bias = published[f"{place}.bias"].double()
        folded[f"convs.{i}.weight"] = weight
        folded[f"convs.{i}.bias"] = bias
    return folded


class MNFM(nn.Module):
    """Multi-domain Noise-sensitive Fusion Module: the noise view N_0 of a photograph.

    De-normalises what BenCo hands over, extracts the chosen views, brings each to unit scale
    and fuses them with one convolution. All of it in float32: see :mod:`.precision`.

    Args:
        views: any of ``"srm"``, ``"bayar"``, ``"noiseprint"``, in that order.

    Shapes: ImageNet-normalised ``(B, 3, H, W)`` to ``(B, 3, H, W)``.

    Attributes:
        reach: pixels to every side that a pixel of the view depends on; the widest reach of its
            views, and one for the fusion. Farther than that from a cut, a part of a photograph
            gives what the whole gives, up to rounding.
    """

    def __init__(self, views: tuple[str, ...]):
        super().__init__()
        self.views = views
        self.srm = SRM() if "srm" in views else None
        self.bayar = Bayar() if "bayar" in views else None
        self.noiseprint = NoisePrint() if "noiseprint" in views else None
        channels = sum(getattr(self, view).channels for view in views)
        self.reach = max(getattr(self, view).reach for view in views) + 1
        self.fusion = nn.Conv2d(channels, 3, 3, padding=1, padding_mode="reflect")
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return self._fuse(image).to(image.dtype)

    @float32
    def _fuse(self, image: Tensor) -> Tensor:
        rgb = image * self.std + self.mean  # 0..1
        views = []
        for view in self.views:
            pixels = rgb * (255 / 256) if view == "noiseprint" else rgb
            views.append(getattr(self, view)(pixels) / VIEW_STD[view])
        return self.fusion(torch.cat(views, dim=1))

    def _apply(self, fn, recurse=True):
        """Moves with the model but never narrows: ``model.half()`` leaves this part float32."""

        def keep_precision(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype in HALF_PRECISION else moved

        return super()._apply(keep_precision, recurse)


def _reflect(x: Tensor) -> Tensor:
    """Reflection for a 5x5 kernel: a border of zeros would itself be a noise edge."""
    return F.pad(x, (2, 2, 2, 2), mode="reflect")
