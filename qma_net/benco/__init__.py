"""QMA-Net's model and datasets for IMDL-BenCo, which are registered on import."""

import logging
import sys

import torch

from .datasets import NativeDataset, SynthDataset
from .model import QMANet

__all__ = ["NativeDataset", "QMANet", "SynthDataset"]

logger = logging.getLogger(__name__)


def _warn_about_missing_cuda() -> None:
    """Explain how to run a script of ``benco init`` on the CPU, since it calls CUDA directly.

    The message is logged, because BenCo's models switch off all warnings.
    """
    benco = sys.modules.get("IMDLBenCo.training_scripts.utils.misc")
    is_benco_script = benco is not None and vars(sys.modules["__main__"]).get("misc") is benco
    is_redirected = not torch.cuda.set_device.__module__.startswith("torch")
    if is_benco_script and not is_redirected and not torch.cuda.is_available():
        logger.warning(
            "qma_net: CUDA is not available, but BenCo's scripts need it. To run this script on "
            "the CPU, begin it with these two lines:\n"
            "from qma_net.launch import redirect_cuda_to_cpu\nredirect_cuda_to_cpu()"
        )


_warn_about_missing_cuda()
