"""Decoders of the mask and of the edges (section 3.3, equation 7, appendix A.2; section 3.4)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .precision import float32

# Queries, RGB features and noise features of one level: (Q_i, R_i, N_i). The ablations without
# queries have None instead of Q_i.
Triplet = tuple[Tensor | None, Tensor, Tensor]

# Number of groups in the group norms and in the grouped convolutions of the DCM.
GROUPS = 8


class DCM(nn.Sequential):
    """Dilated Convolution Module, which fuses the two modalities of a level (section 3.3).

    Hybrid dilated convolution (Wang et al. 2018, cited by the paper) with rates 1, 2 and 5. It
    avoids the gridding artifacts of a single rate and has a receptive field of 8 pixels in each
    direction. The first convolution reduces 2 C channels to C; the others are grouped, since three
    full convolutions would exceed the paper's number of parameters.
    """

    def __init__(self, channels: int):
        super().__init__(
            nn.Conv2d(2 * channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=2, dilation=2, groups=GROUPS, bias=False),
            nn.GroupNorm(GROUPS, channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=5, dilation=5, groups=GROUPS, bias=False),
            nn.GroupNorm(GROUPS, channels),
        )

    def forward(self, rgb: Tensor, noise: Tensor) -> Tensor:  # type: ignore[override]
        """Map R and N ``(B, C, h, w)`` to F ``(B, C, h, w)``."""
        fused = torch.cat([rgb, noise], dim=1)  # (B, 2 C, h, w)
        return super().forward(fused)  # type: ignore[no-untyped-call]


class QuerySelection(nn.Module):
    """Product of queries and features, M_i = Q_i (x) F_i (equation 7, appendix A.2).

    Each query weighs the channels of every pixel: ``LayerNorm(Q) . F / sqrt(C)``, in float32.
    Without the scale, level 4 would start ten times larger than level 1 and half precision would
    overflow.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.scale = channels**-0.5

    @float32
    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        """Map Q ``(B, N, C)`` and F ``(B, C, h, w)`` to M ``(B, N, h, w)``."""
        maps = self.norm(queries) * self.scale @ features.flatten(2)  # (B, N, h w)
        return maps.unflatten(2, features.shape[2:])  # (B, N, h, w)


class PredictHead(nn.Conv2d):
    """Final 1x1 convolution of the decoders, in float32 (appendix A.2)."""

    def __init__(self, channels: int):
        super().__init__(channels, 1, 1)

    @float32
    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(B, C, h, w)`` to logits ``(B, 1, h, w)``."""
        return super().forward(maps)


class QMFD(nn.Module):
    """Query-driven Multi-level Feature Decoder (equation 7, Figure 5).

    It decodes the chosen levels, which are numbered from 0.
    """

    def __init__(self, channels: Sequence[int], levels: Sequence[int], query_count: int):
        super().__init__()
        self.levels = levels
        self.fuse = nn.ModuleList(DCM(channels[i]) for i in levels)
        self.select = nn.ModuleList(QuerySelection(channels[i]) for i in levels)
        self.predict = PredictHead(query_count * len(levels))

    def forward(self, triplets: Sequence[Triplet]) -> Tensor:
        """Map the triplets (Q_i, R_i, N_i) of four levels to mask logits ``(B, 1, H/4, W/4)``."""
        size = triplets[0][1].shape[2:]  # H/4, W/4
        maps = []
        for level, fuse, select in zip(self.levels, self.fuse, self.select, strict=True):
            queries, rgb, noise = triplets[level]
            selected = select(queries, fuse(rgb, noise))  # (B, N, h_i, w_i)
            maps.append(_resize(selected, size))  # (B, N, H/4, W/4)
        return self.predict(torch.cat(maps, dim=1))  # (B, 1, H/4, W/4)


class ConvNormReLU(nn.Sequential):
    """Convolution, group norm and ReLU, from ``(B, C, h, w)`` to ``(B, width, h, w)``."""

    def __init__(self, channels: int, width: int, kernel: int):
        super().__init__(
            nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False),
            nn.GroupNorm(GROUPS, width),
            nn.ReLU(inplace=True),
        )


class PyramidDecoder(nn.Module):
    """Decoder on [R_i ; N_i] without queries, DCM or selection (Table 2).

    The "Conv Decoder", of kind ``"conv"``, has a 3x3 convolution per level and another one on all
    levels together. The "MLP Decoder", of kind ``"mlp"``, has linear layers, as SegFormer does.
    """

    width = 256  # as in the decoders of SegFormer-B0 and B1

    def __init__(self, channels: Sequence[int], levels: Sequence[int], kind: str):
        super().__init__()
        self.levels = levels
        self.embed = nn.ModuleList(
            ConvNormReLU(2 * channels[i], self.width, kernel=3)
            if kind == "conv"
            else nn.Conv2d(2 * channels[i], self.width, 1)
            for i in levels
        )
        self.predict = nn.Sequential(
            ConvNormReLU(self.width * len(levels), self.width, kernel=3 if kind == "conv" else 1),
            PredictHead(self.width),
        )

    def forward(self, triplets: Sequence[Triplet]) -> Tensor:
        """Map the triplets (None, R_i, N_i) of four levels to mask logits ``(B, 1, H/4, W/4)``."""
        size = triplets[0][1].shape[2:]  # H/4, W/4
        maps = []
        for level, embed in zip(self.levels, self.embed, strict=True):
            _, rgb, noise = triplets[level]
            embedded = embed(torch.cat([rgb, noise], dim=1))  # (B, width, h_i, w_i)
            maps.append(_resize(embedded, size))  # (B, width, H/4, W/4)
        return self.predict(torch.cat(maps, dim=1))  # (B, 1, H/4, W/4)


class ESM(nn.Module):
    """Edge Supervision Module: one edge map, for training, from all RGB features (section 3.4)."""

    width = 16  # channels per level

    def __init__(self, channels: Sequence[int]):
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(c, self.width, 1) for c in channels)
        self.head = nn.Sequential(
            nn.Conv2d(self.width * len(channels), self.width, 3, padding=1, bias=False),
            nn.GroupNorm(1, self.width),
            nn.ReLU(inplace=True),
            nn.Conv2d(self.width, 1, 1),
        )

    def forward(self, rgb: Sequence[Tensor]) -> Tensor:
        """Map R_1..R_4, each ``(B, C_i, h_i, w_i)``, to edge logits ``(B, 1, H/4, W/4)``."""
        size = rgb[0].shape[2:]  # H/4, W/4
        maps = [_resize(reduce(r), size) for reduce, r in zip(self.reduce, rgb, strict=True)]
        return self.head(torch.cat(maps, dim=1))  # (B, 1, H/4, W/4)


def _resize(maps: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)
