"""Float32 computation inside models that run in half precision or TF32.

docs/reading-the-paper.md, "Precision of the noise view", states where this is needed and how large
the errors would be otherwise.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor

HALF_PRECISION = (torch.float16, torch.bfloat16)


def widen(tensor: Tensor) -> Tensor:
    """Convert half precision to float32; leave float32 and float64 unchanged."""
    return tensor.float() if tensor.dtype in HALF_PRECISION else tensor


def float32(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorate a ``forward`` so that it computes in float32 (or float64) inside any autocast.

    Autocast and TF32 are switched off inside, and tensors in half precision are converted to
    float32. The result keeps the precision of the computation.

    PyTorch can switch TF32 only for the whole process. On CUDA, kernels that other threads start
    until ``forward`` returns also run without TF32, which makes them slower but not wrong.
    """

    @wraps(forward)
    def in_float32(self: Any, *tensors: Tensor) -> Tensor:
        device = tensors[0].device.type
        with torch.autocast(device, enabled=False), _without_tf32(device):
            return forward(self, *map(widen, tensors))

    return in_float32


@contextmanager
def _without_tf32(device: str) -> Iterator[None]:
    conv: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    switches = (conv, torch.backends.cuda.matmul) if device == "cuda" else ()
    previous = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "ieee"
        yield
    finally:
        for switch, precision in zip(switches, previous, strict=True):
            switch.fp32_precision = precision
