"""Training step shared by the benchmarks that time or profile one."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from qma_net.modeling.losses import EDGE_WEIGHT, MASK_WEIGHT, mask_and_edge_losses
from qma_net.modeling.qma_net import QMANetModel


def training_step(network: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Prepare a step of forward pass, backward pass and AdamW, whose state is allocated here.

    Args:
        network: Model, which is put into training mode; frozen parameters stay frozen.
        loss: Function that runs the forward pass and returns the loss, a scalar.

    Returns:
        The step. It raises ArithmeticError if the loss is not finite.
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
            raise ArithmeticError(f"the loss is {value.item()}; expected a finite number")
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def qma_net_loss(network: QMANetModel, image: Tensor, mask: Tensor) -> Tensor:
    """Compute the loss of QMA-Net (equation 8), including the edge supervision.

    Args:
        network: Model in training mode.
        image: ``(B, 3, H, W)``.
        mask: ``(B, 1, H, W)`` of 0 and 1.
    """
    mask_loss, edge_loss = mask_and_edge_losses(network(image), mask)
    return MASK_WEIGHT * mask_loss + EDGE_WEIGHT * edge_loss
