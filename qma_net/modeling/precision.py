"""float32 islands: the few places that half precision would ruin.

Which, and by how much: docs/reading-the-paper.md, "The noise view's precision".
"""

from contextlib import contextmanager
from functools import wraps

import torch
from torch import Tensor

HALF_PRECISION = (torch.float16, torch.bfloat16)


def widen(tensor: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 as they are."""
    return tensor.float() if tensor.dtype in HALF_PRECISION else tensor


def float32(forward):
    """Decorates a ``forward`` that computes in float32 whatever surrounds it.

    Autocast and TF32 are off inside, and half-precision tensor arguments are widened;
    float64 passes through untouched. The result keeps the precision it was computed in.

    PyTorch has no TF32 switch of a thread or a block: on CUDA the whole process is without TF32
    until ``forward`` returns. Kernels that other threads start meanwhile are slower, not wrong.
    """

    @wraps(forward)
    def in_float32(self, *tensors):
        device = tensors[0].device.type
        with torch.autocast(device, enabled=False), _process_without_tf32(device):
            return forward(self, *map(widen, tensors))

    return in_float32


@contextmanager
def _process_without_tf32(device: str):
    """Turns TF32 off in all of the process, and afterwards back to what it was."""
    if device != "cuda":
        yield
        return
    switches = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = "ieee"
    try:
        yield
    finally:
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision
