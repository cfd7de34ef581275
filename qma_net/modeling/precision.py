"""float32 islands: the few places that half precision would ruin (SPEC 3.1, 3.10)."""

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
    """

    @wraps(forward)
    def in_float32(self, *tensors):
        device = tensors[0].device.type
        with torch.autocast(device, enabled=False), _without_tf32(device):
            return forward(self, *map(widen, tensors))

    return in_float32


@contextmanager
def _without_tf32(device: str):
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
