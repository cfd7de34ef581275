"""A training step, the same for every benchmark that times or profiles one."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from qma_net.modeling.losses import EDGE_WEIGHT, MASK_WEIGHT, mask_and_edge_losses
from qma_net.modeling.qma_net import QMANetModel


def training_step(network: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward, backward and a step of AdamW, with AdamW's state already there.

    Args:
        network: put into training mode; parameters that are frozen stay so.
        loss: the forward pass and what it is trained on, a scalar.

    Returns:
        The step; it raises ArithmeticError for a loss that is not finite.
    """
    parameters = [p for p in network.train().parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()

    def step() -> None:
        value = loss()
        if not value.isfinite():
            raise ArithmeticError(f"got a loss of {value.item()}, expected a finite one")
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def qma_net_loss(network: QMANetModel, image: Tensor, mask: Tensor) -> Tensor:
    """What QMA-Net is trained on (equation 8), the edge supervision included.

    Args:
        network: in training mode.
        image: ``(B, 3, H, W)``.
        mask: ``(B, 1, H, W)`` of 0 and 1.
    """
    mask_loss, edge_loss = mask_and_edge_losses(network(image), mask)
    return MASK_WEIGHT * mask_loss + EDGE_WEIGHT * edge_loss
