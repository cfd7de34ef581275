"""Dice losses on the mask and on its edges (paper section 3.4, equation 8)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .config import EDGE_WIDTH
from .precision import widen
from .qma_net import QMANetOutput, to_image_size

# Weights of the mask's and of the edges' loss (equation 8).
MASK_WEIGHT, EDGE_WEIGHT = 0.2, 0.8

# Smoothing of the Dice loss as a share of the image area; docs/reading-the-paper.md, section
# "The smoothing of the Dice loss", has the measured trade-off.
DICE_SMOOTHING = 3e-3


def dice_loss(
    logits: Tensor,
    target: Tensor,
    valid: Tensor | None = None,
    smoothing: float = DICE_SMOOTHING,
) -> Tensor:
    """1 - Dice with squared denominators (Milletari et al. 2016), mean over the batch.

    Per image ``1 - (2 sum(p t) + s) / (sum(p^2) + sum(t^2) + s)`` in float32, where s is
    ``smoothing`` times the area: a constant would leave an authentic image (t = 0 everywhere)
    without gradient.

    Args:
        logits: ``(B, 1, H, W)``; p is their sigmoid.
        target: ``(B, 1, H, W)`` of 0 and 1.
        valid: ``(B, 1, H, W)``, 1 where a pixel counts, or None for everywhere.
        smoothing: share of the area.
    """
    probability = widen(logits).sigmoid()
    target = target.to(probability.dtype)
    valid = torch.ones_like(target) if valid is None else valid.to(target.dtype)
    probability, target = probability * valid, target * valid
    s = smoothing * valid.sum(dim=(1, 2, 3))  # (B,)
    overlap = (probability * target).sum(dim=(1, 2, 3))
    mass = (probability.square() + target.square()).sum(dim=(1, 2, 3))
    return (1 - (2 * overlap + s) / (mass + s)).mean()


def cross_entropy_loss(logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of the mask in float32, mean over the pixels that count; ours.

    Args: as in :func:`dice_loss`.
    """
    logits = widen(logits)
    loss = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    if valid is None:
        return loss.mean()
    valid = valid.to(loss.dtype)
    return (loss * valid).sum() / valid.sum()


def edge_target(mask: Tensor, valid: Tensor | None = None, width: int = EDGE_WIDTH) -> Tensor:
    """The ring around every mask boundary: where dilated mask and dilated background meet.

    BenCo's operator (a cross of ``width`` pixels), at the resolution of the mask given, so
    that the ring is whole however large the photograph was.

    Shapes: ``(B, 1, H, W)`` of 0 and 1, to float32 of the same shape.
    """
    mask = mask.float()
    background = 1 - mask
    if valid is not None:
        mask, background = mask * valid.float(), background * valid.float()
    ring = _dilate(mask, width) * _dilate(background, width)
    return ring if valid is None else ring * valid.float()


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
    """Loss_seg and Loss_edg: Dice of the mask, and Dice of the edge map.

    Args:
        output: of the model on a batch.
        mask: ``(B, 1, H, W)`` of 0 and 1.
        valid: BenCo's ``shape_mask`` when it pads, ``(B, 1, H, W)``; None otherwise.
        smoothing: of both; see :func:`dice_loss`.
    """
    (edge_logits,) = output.edge_logits
    edge = to_image_size(edge_logits, mask.shape[2:])
    return (
        dice_loss(output.mask_logits, mask, valid, smoothing),
        dice_loss(edge, edge_target(mask, valid), valid, smoothing),
    )
