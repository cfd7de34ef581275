"""Kernels of a training step by part of the model, eager and compiled, counted without a GPU.

    python -m benchmarks.launches [--model b3] [--only eager] [--out FILE]

The step consists of forward pass and loss with AMP, backward pass, the unscaling of BenCo's
trainer, the gradient norm of our launcher, and AdamW. It is run on the CPU with the casts that
autocast makes on CUDA.

- Eager: every operator that PyTorch dispatches and that does not only return a view counts as one
  kernel. The real number is somewhat higher, since an operator such as the backward pass of layer
  norm launches several. Operators on lists of tensors (AdamW) are counted as on CUDA, where a
  kernel accepts a limited number of tensors and of blocks.
- Compiled: what Inductor schedules for an H100, generated kernels and calls of libraries, plus
  the operators of the parts that are not compiled. The kernels are not built.

The images have 64x64 pixels: the operators are the same at any size. NoisePrint++ is counted as on
a GPU (17 convolutions, 16 ReLUs).
"""

import argparse
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from qma_net.benco.model import QMANet
from qma_net.core.files import write_text
from qma_net.modeling import noise
from qma_net.modeling.compilation import OPTIONS
from qma_net.modeling.config import QMANetConfig
from qma_net.modeling.qma_net import QMANetModel

TARGETS = {"eager": 5500, "compiled": 3500}

SIDE = 64  # pixels of the images

# What Inductor asks about a GPU.
H100 = SimpleNamespace(
    name="NVIDIA H100",
    major=9,
    minor=0,
    multi_processor_count=132,
    regs_per_multiprocessor=2**16,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
    total_memory=80 * 2**30,
)

# Operators that launch no kernel, in addition to views.
NO_KERNEL = {
    *("device", "empty", "empty_like", "new_empty", "empty_strided", "_unsafe_view"),
    *("_local_scalar_dense", "_record_function_enter_new", "_record_function_exit", "lift_fresh"),
}

# torch's multi_tensor_apply: tensors per kernel by number of lists, blocks per kernel, and numbers
# per block.
TENSORS_PER_KERNEL = (0, 110, 64, 48, 36, 30)
BLOCKS_PER_KERNEL = 320
BLOCK = 65536


class Kernels(TorchDispatchMode):
    """Counts operators that launch a kernel, by the current part."""

    def __init__(self) -> None:
        super().__init__()
        self.part = "loss"
        self.by_part: Counter[str] = Counter()
        self.by_operator: Counter[str] = Counter()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Let torch.compile work inside this mode."""
        return True

    def add(self, operator: str, count: int = 1) -> None:
        """Count kernels for the current part."""
        self.by_part[self.part] += count
        self.by_operator[operator] += count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and func.overloadpacket.__name__ not in NO_KERNEL:
            self.add(func.overloadpacket.__name__, launches(func, args))
        return func(*args, **(kwargs or {}))

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Count for this part."""
        outer, self.part = self.part, part
        yield
        self.part = outer


def launches(func: Any, args: Any) -> int:
    """Return how many kernels an operator launches: several if it has long lists of tensors."""
    if "_foreach" not in func.__name__ and "_fused" not in func.__name__:
        return 1
    lists = [arg for arg in args if isinstance(arg, list | tuple) and isinstance(arg[0], Tensor)]
    blocks = sum(math.ceil(tensor.numel() / BLOCK) for tensor in lists[0])
    tensors_per_kernel = TENSORS_PER_KERNEL[len(lists)]
    return math.ceil(max(len(lists[0]) / tensors_per_kernel, blocks / BLOCKS_PER_KERNEL))


class CudaCasts(TorchFunctionMode):
    """Autocast of norms to float32, which CUDA does and a CPU does not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.layer_norm, F.group_norm) and torch.is_autocast_enabled("cpu"):
            args = (args[0].float(), *args[1:])
        return func(*args, **(kwargs or {}))


class NotBuiltError(Exception):
    """Raised before Inductor builds kernels."""


class CompiledKernels:
    """Backend for torch.compile that counts what Inductor would launch, and computes nothing.

    Args:
        kernels: The counter.
    """

    def __init__(self, kernels: Kernels):
        self.kernels = kernels

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        """Lower a graph of Dynamo, forward and backward."""
        from torch._inductor.compile_fx import compile_fx

        return compile_fx(graph, inputs, inner_compile=self.lower)

    def lower(self, graph: torch.fx.GraphModule, inputs: list[Tensor], **options: Any) -> Callable:
        """Let Inductor schedule a graph; return a function that counts its kernels."""
        from torch._inductor import config
        from torch._inductor.compile_fx import compile_fx_inner
        from torch._inductor.graph import GraphLowering

        nodes = graph.graph.nodes
        indices = {n: i for i, n in enumerate(n for n in nodes if n.op == "placeholder")}
        outputs = [
            indices.get(node, None if node is None else node.meta["val"])
            for node in next(node for node in nodes if node.op == "output").args[0]
        ]
        scheduled: list[tuple[int, int]] = []

        def schedule(lowering: GraphLowering) -> None:
            lowering.init_wrapper_code()
            lowering._update_scheduler()
            scheduled.append(count_scheduled(lowering.scheduler.nodes))
            raise NotBuiltError

        try:
            with (
                pretended_gpu(),
                patch.object(GraphLowering, "codegen", schedule),
                config.patch(fx_graph_cache=False, **OPTIONS),
            ):
                compile_fx_inner(graph, on_cuda(graph, inputs), **options)
        except Exception:
            if not scheduled:
                raise
        ((generated, external),) = scheduled

        def run(*arguments: Any) -> list[Any]:
            values = arguments[0] if isinstance(arguments[0], list) else arguments
            self.kernels.add("generated kernel", generated)
            self.kernels.add("external call", external)
            return [
                values[out] if isinstance(out, int) else None if out is None else empty(out)
                for out in outputs
            ]

        run._boxed_call = True  # type: ignore[attr-defined]
        return run


def on_cuda(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> list[Tensor]:
    """Move a graph for the CPU to CUDA, and return its inputs there, without data."""
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    device = torch.device("cuda:0")
    for node in graph.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": device}
        if node.target is torch.ops.aten.view.default:  # Convolutions have other strides on CUDA.
            node.target = torch.ops.aten.reshape.default
    fake_mode = torch._guards.detect_fake_mode(inputs)
    with fake_mode:
        moved = [
            torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=device) for x in inputs
        ]
    FakeTensorProp(graph, mode=fake_mode).propagate_dont_convert_inputs(*moved)
    return moved


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Let Inductor believe that there is an H100."""
    from torch._dynamo.device_interface import CudaInterface
    from torch._inductor import scheduler

    def properties(device: Any = None) -> SimpleNamespace:
        return H100

    def index(*_: Any) -> int:
        return 0

    replacements: list[tuple[Any, str, Any]] = [
        (scheduler, "has_triton", lambda: True),
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "get_device_capability", lambda device=None: (H100.major, H100.minor)),
        (torch.cuda, "get_rng_state", lambda: torch.zeros(16, dtype=torch.uint8)),
        (torch.cuda, "set_rng_state", lambda state: None),
        *((torch.cuda, name, index) for name in ("_exchange_device", "_maybe_exchange_device")),
        *((module, "current_device", index) for module in (torch.cuda, CudaInterface)),
        *((module, "device_count", lambda: 1) for module in (torch.cuda, CudaInterface)),
        *((module, "get_device_properties", properties) for module in (torch.cuda, CudaInterface)),
        (CudaInterface.Worker, "get_device_properties", properties),
        (CudaInterface.Worker, "current_device", index),
    ]
    with ExitStack() as stack:
        for target, name, function in replacements:
            value = function if target in (torch.cuda, scheduler) else staticmethod(function)
            stack.enter_context(patch.object(target, name, value))
        yield


def count_scheduled(nodes: list[Any]) -> tuple[int, int]:
    """Count the kernels that Inductor generates and its calls of other libraries."""
    from torch._inductor.ir import MultiOutput
    from torch._inductor.scheduler import ExternKernelSchedulerNode, NopKernelSchedulerNode

    started = [
        node
        for node in nodes
        if not isinstance(node, NopKernelSchedulerNode)
        and not isinstance(getattr(node, "node", None), MultiOutput)
    ]
    external = sum(isinstance(node, ExternKernelSchedulerNode) for node in started)
    return len(started) - external, external


def empty(value: Tensor) -> Tensor:
    """Allocate a tensor of the same shape, without data."""
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)


def main(argv: list[str] | None = None) -> None:
    """Print both counts by part and write them to ``--out``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="b3", help="b0 to b5")
    parser.add_argument("--only", choices=TARGETS, help="count only eager or compiled kernels")
    parser.add_argument("--operators", type=int, default=0, help="also list this many operators")
    parser.add_argument("--out", type=Path, help="file for the table")
    args = parser.parse_args(argv)
    counts = {
        kind: count(args.model, is_compiled=kind == "compiled")
        for kind in TARGETS
        if args.only in (None, kind)
    }
    title = f"Kernels of a training step ({args.model}, AMP, torch {torch.__version__})"
    text = f"{title}\n\n{format_table(counts)}"
    for kind, kernels in counts.items():
        most = kernels.by_operator.most_common(args.operators)
        text += "".join(f"\n{kind}: {name} {number}" for name, number in most)
    print(text)
    if args.out:
        write_text(args.out, text + "\n")


def format_table(counts: dict[str, Kernels]) -> str:
    """Format the counts by part, their sums and the targets."""
    parts = dict.fromkeys(part for kernels in counts.values() for part in kernels.by_part)
    lines = ["| part | " + " | ".join(counts) + " |", "|---" * (1 + len(counts)) + "|"]
    rows = {part: [kernels.by_part[part] for kernels in counts.values()] for part in parts}
    rows["total"] = [kernels.by_part.total() for kernels in counts.values()]
    rows["of which casts"] = [kernels.by_operator["_to_copy"] for kernels in counts.values()]
    rows["target"] = [TARGETS[kind] for kind in counts]
    return "\n".join(lines + [f"| {row} | {' | '.join(map(str, c))} |" for row, c in rows.items()])


def count(model: str, *, is_compiled: bool) -> Kernels:
    """Count the kernels of a training step by part."""
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")
        benco = QMANet(init_from=QMANetModel.from_config(QMANetConfig(size=model)), size=model)
        kernels = Kernels()
        network = benco.train().network
        if is_compiled:
            benco.compile_for_training(backend=CompiledKernels(kernels))
        count_by_part(network, kernels)
        stack.enter_context(patch.object(noise, "streamed", plain_chain))
        parameters = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, foreach=True)
        image = torch.zeros(2, 3, SIDE, SIDE)
        mask = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.float64)
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()  # It allocates its state.
        optimizer.zero_grad()
        for _ in range(1 + is_compiled):  # The first step compiles.
            kernels.by_part.clear(), kernels.by_operator.clear()
            with kernels:
                counted_step(benco, image, mask, optimizer, kernels)
    return kernels


def counted_step(
    benco: QMANet, image: Tensor, mask: Tensor, optimizer: torch.optim.Optimizer, kernels: Kernels
) -> None:
    """Do what BenCo's trainer does with a batch."""
    with CudaCasts(), torch.autocast("cpu", torch.bfloat16), kernels.within("loss and score"):
        loss = benco(image, mask)["backward_loss"]
    with kernels.within("backward pass"):
        (loss * 1.0).backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters]
    with kernels.within("unscaling and gradient norm"):
        one = torch.ones(())
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, torch.zeros(()), one)
        nn.utils.get_total_norm(gradients, foreach=True)
    with kernels.within("AdamW"):
        optimizer.step()
    optimizer.zero_grad()


def count_by_part(network: QMANetModel, kernels: Kernels) -> None:
    """Attribute what the calls of the network's parts start to them."""
    parts = {
        "weight casts and resizing": [network],
        "noise view": [network.noise_view],
        "encoders": [*network.rgb_backbone.stages, *network.noise_backbone.stages],
        "interactions": network.interactions,
        "aggregation": [*network.aggregations, *network.query_mlps],
        "decoder": [network.decoder],
        "edge supervision": [network.edge_head],
    }

    def counted(call: Callable, part: str) -> Callable:
        def run(*args: Any, **kwargs: Any) -> Any:
            with kernels.within(part):
                return call(*args, **kwargs)

        return run

    for part, modules in parts.items():
        for module in modules:
            # Hooks would be compiled.
            call = module._compiled_call_impl or module._call_impl
            module._compiled_call_impl = counted(call, part)


def plain_chain(convs: nn.ModuleList, image: Tensor) -> Tensor:
    """Run NoisePrint++ layer by layer, as on a GPU."""
    for conv in convs[:-1]:
        image = F.relu(conv(image), inplace=True)
    return convs[-1](image)


if __name__ == "__main__":
    main()
