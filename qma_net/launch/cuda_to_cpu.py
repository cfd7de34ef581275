"""BenCo's scripts on a machine without CUDA: what they hard-code to it goes to the CPU.

Used by :mod:`qma_net.launch.scripts` and by ``qma-net evaluate`` and ``robust`` (BenCo's other
models name CUDA in their forward pass), only where CUDA is absent or ``--device cpu`` was given.
It is one way, for the life of the process. What it redirects:

- tensors made with ``device="cuda"``, moved by ``.to("cuda")`` or ``.cuda()``: stay on the CPU;
- ``torch.cuda.synchronize`` and ``set_device``: do nothing;
- ``torch.distributed.init_process_group("nccl")``: uses gloo;
- ``DistributedDataParallel(device_ids=...)``: without device ids;
- ``SyncBatchNorm.convert_sync_batchnorm``: returns the model (it refuses CPU tensors).
"""

import torch
from torch.overrides import TorchFunctionMode


class _CudaToCpu(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.cuda:
            return args[0]
        kwargs = {name: _on_cpu(value) for name, value in (kwargs or {}).items()}
        return func(*map(_on_cpu, args), **kwargs)


def _on_cpu(value):
    if isinstance(value, str):
        return "cpu" if value == "cuda" or value.startswith("cuda:") else value
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    return value


def redirect_cuda_to_cpu() -> None:
    """Redirects, from here on and in this process, everything listed above."""
    _CudaToCpu().__enter__()
    torch.cuda.synchronize = lambda device=None: None
    torch.cuda.set_device = lambda device: None
    torch.nn.SyncBatchNorm.convert_sync_batchnorm = staticmethod(lambda module, group=None: module)

    init_process_group = torch.distributed.init_process_group

    def init_with_gloo(backend=None, *args, **kwargs):
        return init_process_group("gloo", *args, **kwargs)

    torch.distributed.init_process_group = init_with_gloo

    class DistributedDataParallel(torch.nn.parallel.DistributedDataParallel):
        def __init__(self, module, device_ids=None, output_device=None, **kwargs):
            super().__init__(module, **kwargs)

    torch.nn.parallel.DistributedDataParallel = DistributedDataParallel
