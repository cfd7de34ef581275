"""From triplets (Q_i, R_i, N_i) to a mask, and edges from R_i (section 3.3, equation 7; A.2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .precision import float32

Triplet = tuple[Tensor, Tensor, Tensor]


class DCM(nn.Module):
    """Dilated Convolution Module: fuses the two modalities of one level.

    Shapes: R, N ``(B, C, h, w)`` to F ``(B, C, h, w)``.
    """

    def __init__(self, channels: int, dilation: int = 2):
        super().__init__()
        self.conv = nn.Conv2d(
            2 * channels, channels, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.norm = nn.GroupNorm(8, channels)

    def forward(self, rgb: Tensor, noise: Tensor) -> Tensor:
        return self.norm(self.conv(torch.cat([rgb, noise], dim=1)))


class QuerySelection(nn.Module):
    """M_i = Q_i (x) F_i: every query weighs the channels of every pixel (appendix A.2).

    ``LayerNorm(Q) . F / sqrt(C)`` in float32: unscaled, level 4 would start ten times larger
    than level 1, and half precision overflows.

    Shapes: Q ``(B, N, C)``, F ``(B, C, h, w)`` to ``(B, N, h, w)``.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.scale = channels**-0.5

    @float32
    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        maps = self.norm(queries) * self.scale @ features.flatten(2)  # (B, N, h w)
        return maps.unflatten(2, features.shape[2:])


class ConvSelection(nn.Sequential):
    """A 3x3 convolution in the place of query selection (Table 2, "Conv Decoder")."""

    def __init__(self, channels: int, width: int):
        super().__init__(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.GroupNorm(8, width),
            nn.ReLU(inplace=True),
        )

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        return super().forward(features)


class MLPSelection(nn.Conv2d):
    """A linear layer in the place of query selection (Table 2, "MLP Decoder", as in SegFormer)."""

    def __init__(self, channels: int, width: int):
        super().__init__(channels, width, 1)

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        return super().forward(features)


class PredictHead(nn.Conv2d):
    """The 1x1 convolution of appendix A.2, ``(B, C, h, w)`` to ``(B, 1, h, w)``, in float32."""

    def __init__(self, channels: int):
        super().__init__(channels, 1, 1)

    @float32
    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps)


class FusedPredictHead(nn.Sequential):
    """Fuses wide maps before the 1x1 prediction: the head of the conv and MLP decoders."""

    def __init__(self, channels: int, width: int, kernel: int):
        super().__init__(
            nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False),
            nn.GroupNorm(8, width),
            nn.ReLU(inplace=True),
            PredictHead(width),
        )


class QMFD(nn.Module):
    """Query-driven Multi-level Feature Decoder (equation 7, Figure 5).

    Its two replacements in Table 2 share everything but how a level becomes maps and the head.

    Args:
        channels: C_1..C_4.
        levels: which levels are decoded, as indices from 0.
        kind: ``"query"``, ``"conv"`` or ``"mlp"``.
        query_count: number of queries, for ``"query"``.

    Shapes: four triplets (Q_i, R_i, N_i) to mask logits at stride 4, ``(B, 1, H/4, W/4)``.
    """

    replacement_width = 256

    def __init__(self, channels: tuple[int, ...], levels: tuple[int, ...], kind: str, query_count):
        super().__init__()
        width, count = self.replacement_width, len(levels)
        self.levels = levels
        self.fuse = nn.ModuleList(DCM(channels[i]) for i in levels)
        if kind == "query":
            self.select = nn.ModuleList(QuerySelection(channels[i]) for i in levels)
            self.predict = PredictHead(query_count * count)
        elif kind == "conv":
            self.select = nn.ModuleList(ConvSelection(channels[i], width) for i in levels)
            self.predict = FusedPredictHead(width * count, width, kernel=3)
        elif kind == "mlp":
            self.select = nn.ModuleList(MLPSelection(channels[i], width) for i in levels)
            self.predict = FusedPredictHead(width * count, width, kernel=1)
        else:
            raise ValueError(f"got decoder kind {kind!r}, expected query, conv or mlp")

    def forward(self, triplets: list[Triplet]) -> Tensor:
        size = triplets[0][1].shape[2:]  # stride 4
        maps = []
        for level, fuse, select in zip(self.levels, self.fuse, self.select, strict=True):
            queries, rgb, noise = triplets[level]
            selected = select(queries, fuse(rgb, noise))  # (B, query_count, h_i, w_i)
            maps.append(F.interpolate(selected, size, mode="bilinear", align_corners=False))
        return self.predict(torch.cat(maps, dim=1))  # (B, 1, H/4, W/4)


class ESM(nn.Module):
    """Edge Supervision Module: edge logits of one level from its RGB features (section 3.4).

    Shapes: R ``(B, C, h, w)`` to ``(B, 1, h, w)``.
    """

    width = 16

    def __init__(self, channels: int):
        super().__init__()
        self.head = nn.Sequential(
            nn.Conv2d(channels, self.width, 3, padding=1, bias=False),
            nn.GroupNorm(1, self.width),
            nn.ReLU(inplace=True),
            nn.Conv2d(self.width, 1, 1),
        )

    def forward(self, rgb: Tensor) -> Tensor:
        return self.head(rgb)
