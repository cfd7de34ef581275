"""The network, one role of the paper's Figure 2 to a file."""

from .qma_net import QMANetModel, QMANetOutput

__all__ = ["QMANetModel", "QMANetOutput"]
