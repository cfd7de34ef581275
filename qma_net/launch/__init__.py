"""BenCo's own scripts, unmodified, with QMA-Net registered: see :mod:`.scripts`."""

from .scripts import BENCO_VERSION, SCRIPTS, main

__all__ = ["BENCO_VERSION", "SCRIPTS", "main", "redirect_cuda_to_cpu"]


def redirect_cuda_to_cpu() -> None:
    """For a script of ``benco init``, as its first lines: without a GPU it then runs on the CPU.

    ::

        from qma_net.launch import redirect_cuda_to_cpu
        redirect_cuda_to_cpu()

    Where there is CUDA it changes nothing. BenCo's scripts want torchrun, one process or more.
    """
    import torch

    if not torch.cuda.is_available():
        from .cuda_to_cpu import redirect_cuda_to_cpu as redirect

        redirect()
