"""Replacements of torch and BenCo functions that apply to every script."""

import argparse
import logging
import os
from collections.abc import Callable
from typing import Any

from .contracts import MISC, replaces

logger = logging.getLogger(__name__)


def load_tensors_only() -> None:
    """Make ``torch.load`` reject pickled objects other than tensors and BenCo's Namespace.

    BenCo's test scripts switch the check off, and ``--resume`` would fail on the Namespace.
    """
    import torch

    @replaces("torch:load")
    def load(original: Callable, *args: Any, **kwargs: Any) -> Any:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return original(*args, **{**kwargs, "weights_only": True})


def accept_empty_scaler_state() -> None:
    """Let a GPU resume from a checkpoint of a CPU, which contains an empty AMP scaler state.

    The loss scale is then determined again. The opposite case works without help.
    """

    @replaces(f"{MISC}:NativeScalerWithGradNormCount.load_state_dict")
    def load_state_dict(original: Callable, self: Any, state_dict: dict) -> None:
        if state_dict:
            original(self, state_dict)
        elif self._scaler.is_enabled():
            logger.info("the checkpoint was saved without AMP; the loss scale starts again")


def separate_restarts() -> None:
    """Give every restart by torchrun its own part of the store.

    The store outlives the processes and contains their addresses; without this, restarted
    processes would try to connect to those that have died.
    """
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    if attempt == 0 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    import torch

    @replaces("torch.distributed:init_process_group")
    def init_process_group(
        original: Callable, backend: Any = None, init_method: str = "env://", **kwargs: Any
    ) -> None:
        given = {name: kwargs.pop(name) for name in ("rank", "world_size") if name in kwargs}
        store, rank, world_size = next(torch.distributed.rendezvous(init_method, **given))
        store = torch.distributed.PrefixStore(f"attempt_{attempt}", store)
        original(backend, store=store, rank=rank, world_size=world_size, **kwargs)


def keep_cudnn_on() -> None:
    """Turn cuDNN back on after BenCo's ``seed_torch`` has turned it off (``--cudnn``)."""
    import torch

    @replaces(f"{MISC}:seed_torch")
    def seed_torch(original: Callable, seed: int) -> None:
        original(seed)
        torch.backends.cudnn.enabled = True
        logger.info("cuDNN is on (--cudnn); BenCo's seed_torch had turned it off")
