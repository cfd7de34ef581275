"""What IMDL-BenCo's registry gets from here: the model, and datasets to train on.

Importing this package registers them.
"""

import sys

import torch

from .datasets import NativeDataset, SynthDataset
from .model import QMANet

__all__ = ["NativeDataset", "QMANet", "SynthDataset"]


def _warn_of_missing_gpu() -> None:
    """A script of ``benco init`` calls for CUDA in many places; two lines take it to the CPU."""
    benco = sys.modules.get("IMDLBenCo.training_scripts.utils.misc")
    by_script = benco is not None and vars(sys.modules["__main__"]).get("misc") is benco
    redirected = not torch.cuda.set_device.__module__.startswith("torch")
    if by_script and not redirected and not torch.cuda.is_available():
        print(  # BenCo's models turn all warnings off
            "qma_net: no CUDA here, which BenCo's scripts call for: make these the script's first "
            "two lines to run it on the CPU\n"
            "from qma_net.launch import redirect_cuda_to_cpu\n"
            "redirect_cuda_to_cpu()",
            file=sys.stderr,
        )


_warn_of_missing_gpu()
