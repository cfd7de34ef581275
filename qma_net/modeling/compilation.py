"""Compilation of a model's parts with torch.compile."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import nn

from ..core.errors import QMANetError, first_line

# A part has a graph for every combination of training or evaluation, batch size and image size, and
# the graphs of all blocks of both encoders count together. PyTorch would stop compiling after 8.
MAX_GRAPHS = 256


OPTIONS = {
    # Maps are already channels-last, and Inductor would copy the queries, keys and values.
    "layout_optimization": False,
    # On a GPU, independent kernels are launched together, such as the sums of all bias gradients.
    # The graphs are small, so the additional memory needs no limit.
    "combo_kernels": True,
    "combo_kernel_max_num_nodes": 64,
    "combo_kernel_peak_memory_pct_threshold": None,
}


class CompilationError(QMANetError):
    """Raised if torch.compile fails, for example for lack of a C++ compiler."""


def compile_parts(
    parts: Iterable[nn.Module], backend: str | Callable[..., Any], *, fullgraph: bool
) -> None:
    """Compile modules for fixed shapes when they are first called.

    They stay the same objects, so that the names in the state dict do not change. With
    ``fullgraph``, each is compiled as a whole or an error is raised. Without it, once there are
    :data:`MAX_GRAPHS` graphs, images of further sizes are computed without compilation.
    """
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, MAX_GRAPHS)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 4 * MAX_GRAPHS)
    # DistributedDataParallel can start to exchange gradients after the backward pass of every part,
    # so the graphs need not be split for it.
    config.optimize_ddp = False
    for part in parts:
        part.compile(**_arguments(backend), fullgraph=fullgraph)


def compile_function(
    function: Callable[..., Any], backend: str | Callable[..., Any]
) -> Callable[..., Any]:
    """Return a function that is compiled as a whole for fixed shapes when it is first called."""
    compiled = torch.compile(function, **_arguments(backend), fullgraph=True)

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with compilation_errors():
            return compiled(*args, **kwargs)

    return run


def _arguments(backend: str | Callable[..., Any]) -> dict[str, Any]:
    if backend != "inductor":
        return {"dynamic": False, "backend": backend}
    from torch._inductor import list_options

    known = list_options()  # Some versions of PyTorch lack some options.
    return {"dynamic": False, "options": {k: v for k, v in OPTIONS.items() if k in known}}


@contextmanager
def compilation_errors() -> Iterator[None]:
    """Turn errors of torch.compile into a :class:`CompilationError` with a one-line message."""
    try:
        yield
    except Exception as error:
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

        if isinstance(error, FailOnRecompileLimitHit):  # Not a TorchDynamoException.
            raise CompilationError(
                "torch.compile has reached its limit of graphs, one for every batch and image "
                "size; use fewer sizes or omit --compile"
            ) from error
        if not isinstance(error, TorchDynamoException):
            raise
        cause = getattr(error, "inner_exception", error)
        if type(cause).__name__ == "InvalidCxxCompiler":
            raise CompilationError(
                "torch.compile needs a C++ compiler, and none was found; install g++ or set CXX, "
                "or omit --compile"
            ) from error
        raise CompilationError(
            f"torch.compile failed ({type(cause).__name__}: {first_line(cause)}); omit --compile"
        ) from error
