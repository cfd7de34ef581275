"""Interaction of the two modalities after every stage: DFCM (paper section 3.2, equations 2-4)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 8


class GCM(nn.Module):
    """Group Convolution Module G: the query, key or value map of the cross-attention.

    A grouped 3x3 convolution, or with ``reduction`` > 1 one whose kernel and stride are that
    ratio, and a group norm. A norm without affine part serves the keys: what it would scale
    the queries scale already, and what it would add the softmax cancels.

    Shapes: ``(B, C, h, w)`` to ``(B, C, h / reduction, w / reduction)``.
    """

    def __init__(self, channels: int, reduction: int = 1, affine: bool = True):
        super().__init__()
        kernel, padding = (3, 1) if reduction == 1 else (reduction, 0)
        self.conv = nn.Conv2d(
            channels, channels, kernel, reduction, padding, groups=GROUPS, bias=False
        )
        self.norm = nn.GroupNorm(GROUPS, channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Recalibration(nn.Module):
    """Gamma: lightweight channel attention (equation 3), one per modality. NCHW in and out."""

    def __init__(self, channels: int, ratio: int = 4):
        super().__init__()
        self.project = nn.Sequential(
            nn.Conv2d(channels, channels // ratio, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // ratio, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        weights = self.project(x.mean(dim=(2, 3), keepdim=True)).sigmoid()  # (B, C, 1, 1)
        return x * weights


class CrossAttention(nn.Module):
    """Attn: one modality asks (Q), the other answers (K, V), with G in place of linear maps.

    One G each for Q, K and V serves both directions: "a unified representation space for features
    originating from different modalities".

    Shapes: two maps ``(B, C, h, w)`` to ``(B, C, h, w)``.
    """

    def __init__(self, channels: int, heads: int, reduction: int):
        super().__init__()
        self.heads = heads
        self.query = GCM(channels)
        self.key = GCM(channels, reduction, affine=False)
        self.value = GCM(channels, reduction)

    def forward(self, asking: Tensor, answering: Tensor) -> Tensor:
        q = self._split(self.query(asking))  # (B, heads, h w, C / heads)
        k = self._split(self.key(answering))  # (B, heads, h w / reduction^2, C / heads)
        v = self._split(self.value(answering))
        attended = F.scaled_dot_product_attention(q, k, v)
        return attended.transpose(2, 3).reshape(asking.shape)  # (B, C, h, w)

    def _split(self, x: Tensor) -> Tensor:
        return x.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)


class DFCM(nn.Module):
    """Dual-modal Feature Cross-guided Module with its alignment delta (equations 2-4).

    What the attention finds is brought back to each modality's own space by a 1x1 projection
    and added to the stage's features through a learned per-channel scale s, which starts at
    0.1 so that a pretrained path is not drowned.

    Shapes: R_init, N_init ``(B, C, h, w)`` to R, N of the same shape.
    """

    def __init__(self, channels: int, heads: int, reduction: int):
        super().__init__()
        self.align = nn.Conv2d(channels, channels, 1)  # delta
        self.recalibrate_rgb = Recalibration(channels)  # Gamma^R
        self.recalibrate_noise = Recalibration(channels)  # Gamma^N
        self.attend = CrossAttention(channels, heads, reduction)  # G is shared
        self.back_rgb = nn.Conv2d(channels, channels, 1)
        self.back_noise = nn.Conv2d(channels, channels, 1)
        self.scale_rgb = nn.Parameter(torch.full((channels,), 0.1))
        self.scale_noise = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, rgb_init: Tensor, noise_init: Tensor) -> tuple[Tensor, Tensor]:
        rgb_mid = self.recalibrate_rgb(self.align(rgb_init))
        noise_mid = self.recalibrate_noise(noise_init)
        rgb_found = self.back_rgb(self.attend(rgb_mid, noise_mid))
        noise_found = self.back_noise(self.attend(noise_mid, rgb_mid))
        return (
            rgb_init + self.scale_rgb.view(-1, 1, 1) * rgb_found,
            noise_init + self.scale_noise.view(-1, 1, 1) * noise_found,
        )


class NoInteraction(nn.Module):
    """A stage without DFCM (Table 2, "w/o DFCM" and "Only Stage#4")."""

    def forward(self, rgb_init: Tensor, noise_init: Tensor) -> tuple[Tensor, Tensor]:
        return rgb_init, noise_init
