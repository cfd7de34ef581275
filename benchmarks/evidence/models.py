"""Models that are added to BenCo's registry: a baseline and alternative interpretations.

- ``SegFormerB0``: SegFormer from the transformers library on RGB, with our mask loss.
- ``QMANetTruncatedSRM``, ``QMANetOwnGCM``, ``QMANetFourESM``: other interpretations of the paper
  (docs/reading-the-paper.md), each with a single change of ``QMANet`` and the same flags.
"""

from functools import wraps

from IMDLBenCo.registry import MODELS
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from qma_net.benco import QMANet
from qma_net.modeling.backbone import HEADS, REDUCTIONS
from qma_net.modeling.config import SIZES
from qma_net.modeling.decoder import ESM
from qma_net.modeling.interaction import DFCM, CrossAttention
from qma_net.modeling.losses import (
    DICE_SMOOTHING,
    MASK_WEIGHT,
    cross_entropy_loss,
    dice_loss,
    edge_target,
)
from qma_net.modeling.noise import SRM, VIEW_STD
from qma_net.modeling.qma_net import image_score, to_image_size

TRUNCATED_STD = 2.4  # Standard deviation of SRM truncated at +-3, on the photos of VIEW_STD.


@MODELS.register_module()
class SegFormerB0(nn.Module):
    """SegFormer-B0 (Xie et al. 2021) on RGB, from random weights, with one class.

    Args:
        bce: Weight of the cross-entropy loss that is added to Dice, as in ``QMANet``.
    """

    def __init__(self, bce: float = 0.0):
        super().__init__()
        self.bce = bce
        self.network = SegformerForSemanticSegmentation(SegformerConfig(num_labels=1))

    def forward(self, image: Tensor, mask: Tensor, shape_mask: Tensor | None = None, **_) -> dict:
        """Map a batch of BenCo's loaders to BenCo's result, as :meth:`QMANet.forward` does."""
        logits = to_image_size(self.network(image).logits, image.shape[2:])
        pred_mask = logits.sigmoid()
        seg_loss = dice_loss(logits, mask, shape_mask, DICE_SMOOTHING)
        bce_loss = cross_entropy_loss(logits, mask, shape_mask)
        loss = MASK_WEIGHT * seg_loss + self.bce * bce_loss
        return {
            "pred_mask": pred_mask,
            "pred_label": image_score(pred_mask, shape_mask),
            "backward_loss": loss,
            "visual_loss": {"total_loss": loss, "seg_loss": seg_loss, "bce_loss": bce_loss},
            "visual_image": {},
        }


class TruncatedSRM(SRM):
    """SRM residuals truncated at +-3, as in steganalysis, on the scale of :class:`SRM`."""

    def forward(self, rgb: Tensor) -> Tensor:
        """Compute the residuals; see :class:`SRM`."""
        return super().forward(rgb).clamp(-3, 3) * (VIEW_STD["srm"] / TRUNCATED_STD)


class OwnGCM(DFCM):
    """DFCM with one GCM for each of Q, K and V per direction instead of shared ones."""

    def __init__(self, channels: int, heads: int, reduction: int):
        super().__init__(channels, heads, reduction)
        self.attend_noise = CrossAttention(channels, heads, reduction)

    def forward(self, rgb_init: Tensor, noise_init: Tensor) -> tuple[Tensor, Tensor]:
        """Exchange information between the modalities; see :class:`DFCM`."""
        rgb_mid = self.recalibrate_rgb(self.align(rgb_init))
        noise_mid = self.recalibrate_noise(noise_init)
        rgb_update = self.back_rgb(self.attend(rgb_mid, noise_mid))
        noise_update = self.back_noise(self.attend_noise(noise_mid, rgb_mid))
        return (
            rgb_init + self.scale_rgb.view(-1, 1, 1) * rgb_update,
            noise_init + self.scale_noise.view(-1, 1, 1) * noise_update,
        )


class FourESM(nn.Module):
    """A separate edge head for every stage."""

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        self.heads = nn.ModuleList(ESM((width,)) for width in channels)

    def forward(self, rgb: list[Tensor]) -> Tensor:
        """Return the finest edge map, which :class:`QMANet` supervises; keep all in ``maps``."""
        self.maps = [head([level]) for head, level in zip(self.heads, rgb, strict=True)]
        return self.maps[0]


class Variant(QMANet):
    """``QMANet`` with one change and the same flags."""

    @wraps(QMANet.__init__)  # BenCo derives the command-line flags from the signature.
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.change(SIZES[self.config.size][0])

    def change(self, channels: tuple[int, ...]) -> None:
        """Replace a part of ``self.network``, whose stages have these numbers of channels."""
        raise NotImplementedError


@MODELS.register_module()
class QMANetTruncatedSRM(Variant):
    """QMA-Net with truncated SRM residuals."""

    def change(self, channels):
        """Replace the SRM view."""
        self.network.noise_view.srm = TruncatedSRM()


@MODELS.register_module()
class QMANetOwnGCM(Variant):
    """QMA-Net with one GCM per direction."""

    def change(self, channels):
        """Replace the DFCMs."""
        self.network.interactions = nn.ModuleList(map(OwnGCM, channels, HEADS, REDUCTIONS))


@MODELS.register_module()
class QMANetFourESM(Variant):
    """QMA-Net with one ESM per stage."""

    def change(self, channels):
        """Replace the ESM."""
        self.network.edge_head = FourESM(channels)

    def forward(self, image, mask=None, *args, shape_mask=None, **kwargs):
        """Compute the result of ``QMANet`` with the mean of the four edge losses."""
        result = super().forward(image, mask, *args, shape_mask=shape_mask, **kwargs)
        if mask is not None:
            edges = edge_target(mask, shape_mask)
            losses = [
                dice_loss(
                    to_image_size(edge_map, mask.shape[2:]), edges, shape_mask, self.dice_smoothing
                )
                for edge_map in self.network.edge_head.maps
            ]
            mean = sum(losses) / len(losses)
            loss = result["backward_loss"] + self.beta * (mean - losses[0])
            result["backward_loss"] = result["visual_loss"]["total_loss"] = loss
            result["visual_loss"]["edge_loss"] = mean
        return result
