"""Float32 inside models that run in half precision or TF32, and fewer casts by autocast.

docs/reading-the-paper.md, "Precision of the noise view", states where float32 is needed and how
large the errors would be without it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

HALF_PRECISION = (torch.float16, torch.bfloat16)


def widen(tensor: Tensor) -> Tensor:
    """Convert half precision to float32; leave float32 and float64 unchanged."""
    return tensor.float() if tensor.dtype in HALF_PRECISION else tensor


def float32(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorate a ``forward`` so that it computes in float32 (or float64) inside any autocast.

    Autocast and TF32 are switched off inside, and tensors in half precision are converted to
    float32. The result keeps the precision of the computation.

    PyTorch can switch TF32 only for the whole process. On CUDA, kernels that other threads launch
    until ``forward`` returns also run without TF32, which makes them slower but not wrong.
    """

    @wraps(forward)
    def in_float32(self: Any, *tensors: Tensor) -> Tensor:
        device = tensors[0].device.type
        with torch.autocast(device, enabled=False), _without_tf32(device):
            return forward(self, *map(widen, tensors))

    in_float32.keeps_weights = True  # type: ignore[attr-defined]  # for cast_weights
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


def to_autocast(tensor: Tensor) -> Tensor:
    """Convert to the data type of the surrounding autocast, if there is one.

    Autocast itself would convert the tensor separately for every layer that receives it.
    """
    dtype = _autocast_dtype(tensor.device)
    return tensor if dtype is None else tensor.to(dtype)


@contextmanager
def cast_weights(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Convert the weights of linear and convolutional layers to autocast's data type all at once.

    Autocast itself launches one kernel for every weight and another for its gradient, together a
    quarter of all kernels in a training step. The values are the same. The original weights are
    restored on exit. Without autocast or without gradients, this does nothing.

    Args:
        parts: Parts of the model. The gradients of a part's weights are ready at the same time, so
            DistributedDataParallel can start to exchange them while others are computed.
    """
    replaced = []
    try:
        for part in parts:
            slots = [
                (module._parameters, name, weight)
                for module in part.modules()
                if isinstance(module, nn.Linear | nn.Conv2d) and not _is_float32(module)
                for name, weight in module.named_parameters(recurse=False)
                if weight.dtype == torch.float32
            ]
            dtype = _autocast_dtype(slots[0][2].device) if slots and _is_eager_training() else None
            if dtype is None:
                continue
            casts = _CastTogether.apply(dtype, *(weight for _, _, weight in slots))
            replaced += slots
            for (parameters, name, _), cast in zip(slots, casts, strict=True):
                parameters[name] = cast
        yield
    finally:
        for parameters, name, weight in replaced:
            parameters[name] = weight


def _autocast_dtype(device: torch.device) -> torch.dtype | None:
    is_enabled = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if is_enabled else None


def _is_float32(module: nn.Module) -> bool:
    return getattr(type(module).forward, "keeps_weights", False)


def _is_eager_training() -> bool:
    is_traced = torch.jit.is_tracing() or torch.compiler.is_compiling()
    return torch.is_grad_enabled() and not is_traced


class _CastTogether(torch.autograd.Function):
    """Conversion of many float32 tensors with one kernel, and of their gradients with another."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(_cast_together(tensors, dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        wide = iter(_cast_together([g for g in gradients if g is not None], torch.float32))
        return None, *(None if g is None else next(wide) for g in gradients)


def _cast_together(tensors: Iterable[Tensor], dtype: torch.dtype) -> list[Tensor]:
    casts = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    torch._foreach_copy_(casts, list(tensors))
    return casts
