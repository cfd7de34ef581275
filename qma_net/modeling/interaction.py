"""Interaction of the RGB and noise features after every stage (section 3.2, equations 2-4)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .precision import to_autocast

GROUPS = 8


class GCM(nn.Module):
    """Group Convolution Module, G in equation 4: the query, key or value map of the attention.

    A grouped 3x3 convolution followed by a group norm. With ``reduction`` > 1 the kernel and the
    stride equal the reduction, which shortens keys and values as in SegFormer. Keys do not need an
    affine norm: the queries already learn such a scale, and the softmax cancels the shift.
    """

    def __init__(self, channels: int, reduction: int = 1, affine: bool = True):
        super().__init__()
        kernel, padding = (3, 1) if reduction == 1 else (reduction, 0)
        self.conv = nn.Conv2d(
            channels, channels, kernel, reduction, padding, groups=GROUPS, bias=False
        )
        self.norm = nn.GroupNorm(GROUPS, channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, h, w)`` to ``(B, C, h / reduction, w / reduction)``."""
        return self.norm(self.conv(x))


class Recalibration(nn.Module):
    """Channel attention, Gamma in equation 3; each modality has its own."""

    def __init__(self, channels: int):
        super().__init__()
        self.project = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 4, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Weight the channels of a map ``(B, C, h, w)``."""
        pooled = x.mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
        return x * self.project(pooled).sigmoid()  # (B, C, h, w)


class CrossAttention(nn.Module):
    """Cross-attention between the modalities, Attn in equation 4, with GCMs as linear maps.

    Both directions share its three GCMs, which gives "a unified representation space for features
    originating from different modalities" (section 3.2).
    """

    def __init__(self, channels: int, heads: int, reduction: int):
        super().__init__()
        self.heads = heads
        self.query = GCM(channels)
        self.key = GCM(channels, reduction, affine=False)
        self.value = GCM(channels, reduction)

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """Attend from target (queries) to source (keys and values), all ``(B, C, h, w)``."""
        q = self._split_heads(self.query(target))  # (B, heads, h w, C / heads)
        k = self._split_heads(self.key(source))  # (B, heads, h w / reduction^2, C / heads)
        v = self._split_heads(self.value(source))  # (B, heads, h w / reduction^2, C / heads)
        attended = F.scaled_dot_product_attention(q, k, v)  # (B, heads, h w, C / heads)
        return attended.transpose(2, 3).reshape(target.shape)  # (B, C, h, w)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)


class DFCM(nn.Module):
    """Dual-modal Feature Cross-guided Module with the alignment delta (equations 2-4).

    A 1x1 convolution maps the attention output back to the feature space of its modality. It is
    then added to the stage's features, scaled per channel by a learned factor that starts at
    ``scale``, by default 0.1 so that the residual does not overwhelm pretrained features.
    Equation 4 as printed has no such factor, which corresponds to a scale of 1, and the text
    projects only the RGB features back (``back_noise=False``).
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        reduction: int,
        scale: float = 0.1,
        back_noise: bool = True,
    ):
        super().__init__()
        self.align = nn.Conv2d(channels, channels, 1)
        self.recalibrate_rgb = Recalibration(channels)
        self.recalibrate_noise = Recalibration(channels)
        self.attend = CrossAttention(channels, heads, reduction)
        self.back_rgb = nn.Conv2d(channels, channels, 1)
        self.back_noise = nn.Conv2d(channels, channels, 1) if back_noise else nn.Identity()
        self.scale_rgb = nn.Parameter(torch.full((channels,), scale))
        self.scale_noise = nn.Parameter(torch.full((channels,), scale))

    def forward(self, rgb_init: Tensor, noise_init: Tensor) -> tuple[Tensor, Tensor]:
        """Map R_init and N_init, ``(B, C, h, w)``, to R and N of the same shape."""
        rgb_mid = self.recalibrate_rgb(self.align(rgb_init))  # eq 2-3
        noise_mid = to_autocast(self.recalibrate_noise(noise_init))  # eq 3
        rgb_update = self.back_rgb(self.attend(rgb_mid, noise_mid))  # eq 4
        noise_update = self.back_noise(self.attend(noise_mid, rgb_mid))  # eq 4
        return (
            rgb_init + self.scale_rgb.view(-1, 1, 1) * rgb_update,
            noise_init + self.scale_noise.view(-1, 1, 1) * noise_update,
        )


class SimpleFusion(nn.Module):
    """Addition or concatenation in place of a DFCM, a variant that is not in the paper.

    Each modality receives a 1x1 projection of the other one (``"add"``) or of both (``"concat"``),
    scaled like the update of a DFCM, so that only recalibration and attention differ.
    """

    def __init__(self, kind: str, channels: int, scale: float = 0.1):
        super().__init__()
        self.concatenates = kind == "concat"
        in_channels = 2 * channels if self.concatenates else channels
        self.to_rgb = nn.Conv2d(in_channels, channels, 1)
        self.to_noise = nn.Conv2d(in_channels, channels, 1)
        self.scale_rgb = nn.Parameter(torch.full((channels,), scale))
        self.scale_noise = nn.Parameter(torch.full((channels,), scale))

    def forward(self, rgb_init: Tensor, noise_init: Tensor) -> tuple[Tensor, Tensor]:
        """Map R_init and N_init, ``(B, C, h, w)``, to R and N of the same shape."""
        for_rgb, for_noise = noise_init, rgb_init
        if self.concatenates:
            for_rgb = for_noise = torch.cat([rgb_init, noise_init], dim=1)  # (B, 2 C, h, w)
        return (
            rgb_init + self.scale_rgb.view(-1, 1, 1) * self.to_rgb(for_rgb),
            noise_init + self.scale_noise.view(-1, 1, 1) * self.to_noise(for_noise),
        )


class NoInteraction(nn.Module):
    """Identity in place of a DFCM (Table 2, "w/o DFCM" and "Only Stage#4")."""

    def forward(self, rgb_init: Tensor, noise_init: Tensor) -> tuple[Tensor, Tensor]:
        """Return both arguments unchanged."""
        return rgb_init, noise_init


def build_interaction(
    kind: str, channels: int, heads: int, reduction: int, scale: float
) -> nn.Module:
    """Build the interaction of one stage; ``kind`` is ``interaction`` in the configuration."""
    if kind in ("add", "concat"):
        return SimpleFusion(kind, channels, scale)
    return DFCM(channels, heads, reduction, scale, back_noise=kind != "equation-4")
