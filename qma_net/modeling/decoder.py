"""From triplets (Q_i, R_i, N_i) to a mask, and edges from R_i (section 3.3, equation 7; A.2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .precision import float32

Triplet = tuple[Tensor, Tensor, Tensor]


GROUPS = 8  # of the group norms, and of the grouped convolutions in the DCM


class DCM(nn.Sequential):
    """Dilated Convolution Module: fuses the two modalities of one level.

    Hybrid dilated convolution (Wang et al. 2018, which the paper cites) at rates 1, 2 and 5: made
    against the gridding of a single rate, with a reach of 8 pixels to every side. The first
    convolution brings 2 C channels to C; the wide ones are grouped, three full ones would not
    fit the paper's parameters.

    Shapes: R, N ``(B, C, h, w)`` to F ``(B, C, h, w)``.
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

    def forward(self, rgb: Tensor, noise: Tensor) -> Tensor:
        return super().forward(torch.cat([rgb, noise], dim=1))


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


class PredictHead(nn.Conv2d):
    """The 1x1 convolution of appendix A.2, ``(B, C, h, w)`` to ``(B, 1, h, w)``, in float32."""

    def __init__(self, channels: int):
        super().__init__(channels, 1, 1)

    @float32
    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps)


class QMFD(nn.Module):
    """Query-driven Multi-level Feature Decoder (equation 7, Figure 5).

    Args:
        channels: C_1..C_4.
        levels: which levels are decoded, as indices from 0.
        query_count: number of queries.

    Shapes: four triplets (Q_i, R_i, N_i) to mask logits at stride 4, ``(B, 1, H/4, W/4)``.
    """

    def __init__(self, channels: tuple[int, ...], levels: tuple[int, ...], query_count: int):
        super().__init__()
        self.levels = levels
        self.fuse = nn.ModuleList(DCM(channels[i]) for i in levels)
        self.select = nn.ModuleList(QuerySelection(channels[i]) for i in levels)
        self.predict = PredictHead(query_count * len(levels))

    def forward(self, triplets: list[Triplet]) -> Tensor:
        size = triplets[0][1].shape[2:]  # stride 4
        maps = []
        for level, fuse, select in zip(self.levels, self.fuse, self.select, strict=True):
            queries, rgb, noise = triplets[level]
            selected = select(queries, fuse(rgb, noise))  # (B, query_count, h_i, w_i)
            maps.append(upsampled(selected, size))
        return self.predict(torch.cat(maps, dim=1))  # (B, 1, H/4, W/4)


class ConvNormReLU(nn.Sequential):
    """A convolution without a change of size, group norm and ReLU. NCHW in and out."""

    def __init__(self, channels: int, width: int, kernel: int):
        super().__init__(
            nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False),
            nn.GroupNorm(GROUPS, width),
            nn.ReLU(inplace=True),
        )


class PyramidDecoder(nn.Module):
    """What Table 2 puts in the place of queries, DCM and selection: a decoder on [R_i ; N_i].

    "Conv Decoder": a 3x3 convolution per level, one more on all. "MLP Decoder": a linear layer
    per level and one on all, as in SegFormer.

    Args:
        channels: C_1..C_4.
        levels: which levels are decoded, as indices from 0.
        kind: ``"conv"`` or ``"mlp"``.

    Shapes: as :class:`QMFD`; the queries are None.
    """

    width = 256  # of SegFormer-B0's and B1's decoder

    def __init__(self, channels: tuple[int, ...], levels: tuple[int, ...], kind: str):
        super().__init__()
        if kind not in ("conv", "mlp"):
            raise ValueError(f"got a decoder of kind {kind!r}, expected conv or mlp")
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

    def forward(self, triplets: list[Triplet]) -> Tensor:
        size = triplets[0][1].shape[2:]  # stride 4
        maps = []
        for level, embed in zip(self.levels, self.embed, strict=True):
            _, rgb, noise = triplets[level]
            maps.append(upsampled(embed(torch.cat([rgb, noise], dim=1)), size))
        return self.predict(torch.cat(maps, dim=1))  # (B, 1, H/4, W/4)


class ESM(nn.Module):
    """Edge Supervision Module: one edge map from the RGB features of all stages (section 3.4).

    Each level is brought to a few channels and to stride 4; a 3x3 and a 1x1 convolution read the
    edges from all of them. Training alone uses it.

    Shapes: R_1..R_4, each ``(B, C_i, h_i, w_i)``, to edge logits ``(B, 1, H/4, W/4)``.
    """

    width = 16  # channels per level

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(c, self.width, 1) for c in channels)
        self.head = nn.Sequential(
            nn.Conv2d(self.width * len(channels), self.width, 3, padding=1, bias=False),
            nn.GroupNorm(1, self.width),
            nn.ReLU(inplace=True),
            nn.Conv2d(self.width, 1, 1),
        )

    def forward(self, rgb: list[Tensor]) -> Tensor:
        size = rgb[0].shape[2:]  # stride 4
        maps = [
            upsampled(reduce(level), size) for reduce, level in zip(self.reduce, rgb, strict=True)
        ]
        return self.head(torch.cat(maps, dim=1))


def upsampled(maps: Tensor, size: torch.Size) -> Tensor:
    """``(B, C, h, w)`` to another height and width, bilinear."""
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)
