"""Dice losses of the mask and of its edges (section 3.4, equation 8)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .config import EDGE_WIDTH
from .precision import widen
from .qma_net import QMANetOutput, to_image_size

# Weights of the mask loss and of the edge loss (equation 8).
MASK_WEIGHT, EDGE_WEIGHT = 0.2, 0.8

# Smoothing term of the Dice loss as a fraction of the image area. The measured trade-off is in
# docs/reading-the-paper.md, "Smoothing of the Dice loss".
DICE_SMOOTHING = 3e-3

# The value for training data without authentic images, such as Protocol-CAT (shell/train.sh).
# Milletari et al. have no smoothing.
DICE_SMOOTHING_TAMPERED_ONLY = 1e-6


def dice_loss(
    logits: Tensor, target: Tensor, valid: Tensor | None = None, smoothing: float = DICE_SMOOTHING
) -> Tensor:
    """Compute 1 - Dice with squared denominators (Milletari et al. 2016), averaged over the batch.

    For each image this is ``1 - (2 sum(p t) + s) / (sum(p^2) + sum(t^2) + s)`` in float32, where
    the smoothing term s is proportional to the area. A constant s would give an authentic image
    (t = 0 everywhere) almost no gradient.

    Args:
        logits: ``(B, 1, H, W)``; p is their sigmoid.
        target: t, ``(B, 1, H, W)``; every value is 0 or 1.
        valid: ``(B, 1, H, W)``, 1 on pixels that count and 0 on padding; default: all count.
        smoothing: s as a fraction of the area.
    """
    probability = widen(logits).sigmoid()
    target = target.to(probability.dtype)
    valid = torch.ones_like(target) if valid is None else valid.to(target.dtype)
    probability, target = probability * valid, target * valid
    s = smoothing * valid.sum(dim=(1, 2, 3))  # (B,)
    overlap = (probability * target).sum(dim=(1, 2, 3))  # (B,)
    mass = (probability.square() + target.square()).sum(dim=(1, 2, 3))  # (B,)
    return (1 - (2 * overlap + s) / (mass + s)).mean()


def cross_entropy_loss(logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Compute the mean binary cross-entropy in float32, an addition to the paper's loss.

    The arguments are those of :func:`dice_loss`.
    """
    logits = widen(logits)
    loss = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    if valid is None:
        return loss.mean()
    valid = valid.to(loss.dtype)
    return (loss * valid).sum() / valid.sum()


def edge_target(mask: Tensor, valid: Tensor | None = None, width: int = EDGE_WIDTH) -> Tensor:
    """Return the ring along mask boundaries, where dilated mask and dilated background overlap.

    This is BenCo's operator (dilation by a cross of ``width`` pixels) at the resolution of the
    given mask, so that the ring is complete however large the original image was. The mask and the
    float32 result are ``(B, 1, H, W)``, each 0 or 1; ``valid`` is as in :func:`dice_loss`.
    """
    mask = mask.float()
    valid = torch.ones_like(mask) if valid is None else valid.float()
    return _dilate(mask * valid, width) * _dilate((1 - mask) * valid, width) * valid


def _dilate(mask: Tensor, width: int) -> Tensor:
    across = F.max_pool2d(mask, (1, width), 1, (0, width // 2))
    down = F.max_pool2d(mask, (width, 1), 1, (width // 2, 0))
    return torch.maximum(across, down)


def mask_and_edge_losses(
    output: QMANetOutput,
    mask: Tensor,
    valid: Tensor | None = None,
    smoothing: float = DICE_SMOOTHING,
) -> tuple[Tensor, Tensor]:
    """Compute Loss_seg and Loss_edg, the Dice losses of the mask and of the edge map.

    ``mask`` is the ground truth, ``(B, 1, H, W)``, 1 on tampered pixels and 0 elsewhere. ``valid``
    is BenCo's ``shape_mask``; see :func:`dice_loss`.
    """
    (edge_logits,) = output.edge_logits
    edge = to_image_size(edge_logits, mask.shape[2:])
    return (
        dice_loss(output.mask_logits, mask, valid, smoothing),
        dice_loss(edge, edge_target(mask, valid), valid, smoothing),
    )
