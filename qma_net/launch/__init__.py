"""BenCo's training and test scripts, unmodified, with QMA-Net registered."""

from .scripts import BENCO_VERSION, SCRIPTS, benco_left_out, main

__all__ = ["BENCO_VERSION", "SCRIPTS", "benco_left_out", "main", "redirect_cuda_to_cpu"]


def redirect_cuda_to_cpu() -> None:
    """Run a script created by ``benco init`` on the CPU if CUDA is not available.

    Call this in the script's first lines::

        from qma_net.launch import redirect_cuda_to_cpu
        redirect_cuda_to_cpu()

    It does nothing if CUDA is available. Start the script with torchrun, even for a single process.
    """
    import torch

    if not torch.cuda.is_available():
        from .cuda_to_cpu import redirect_cuda_to_cpu as redirect

        redirect()
