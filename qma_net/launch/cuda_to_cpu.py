"""Redirection of CUDA calls to the CPU, for BenCo's code on a machine without CUDA.

Used by the launcher and, since BenCo's other models refer to CUDA in their forward pass, by
``qma-net evaluate``, ``robust`` and ``serve``. It is installed only if CUDA is not available or
``--device cpu`` was given, and stays for the life of the process. :mod:`.contracts` lists what is
redirected.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from .contracts import install, replaces


class _CudaToCpu(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable, types: Iterable, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is torch.Tensor.cuda:
            return args[0]
        kwargs = {name: _on_cpu(value) for name, value in (kwargs or {}).items()}
        return func(*map(_on_cpu, args), **kwargs)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, str):
        return "cpu" if value == "cuda" or value.startswith("cuda:") else value
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    return value


class _CpuDistributedDataParallel(torch.nn.parallel.DistributedDataParallel):
    def __init__(
        self, module: Any, device_ids: Any = None, output_device: Any = None, **options: Any
    ):
        super().__init__(module, **options)


def redirect_cuda_to_cpu() -> None:
    """Redirect CUDA calls to the CPU until this process ends."""
    _CudaToCpu().__enter__()
    install("torch.cuda:synchronize", lambda device=None: None)
    install("torch.cuda:set_device", lambda device: None)
    install(
        "torch.nn:SyncBatchNorm.convert_sync_batchnorm",
        staticmethod(lambda module, process_group=None: module),
    )
    install("torch.nn.parallel:DistributedDataParallel", _CpuDistributedDataParallel)

    @replaces("torch:load")
    def load(original: Callable, *args: Any, **kwargs: Any) -> Any:
        return original(*args, **{name: _on_cpu(value) for name, value in kwargs.items()})

    @replaces("torch.distributed:init_process_group")
    def init_with_gloo(original: Callable, backend: Any = None, *args: Any, **kwargs: Any) -> None:
        original("gloo", *args, **kwargs)
