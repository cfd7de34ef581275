"""What is put in place of parts of BenCo and torch while a script runs."""

import argparse
import functools
import os

from .process import say


def load_tensors_only() -> None:
    """``--resume`` meets a Namespace that torch refuses; test.py asks for no check at all."""
    import torch

    load = torch.load

    @functools.wraps(load)
    def load_weights_only(*args, **kwargs):
        with torch.serialization.safe_globals([argparse.Namespace]):
            return load(*args, **{**kwargs, "weights_only": True})

    torch.load = load_weights_only


def take_empty_scalers() -> None:
    """A CPU saves an AMP scaler without content, which a GPU's refuses to load.

    The GPU then searches its scale as at a start. The other way round torch ignores the content.
    """
    import IMDLBenCo.training_scripts.utils.misc as misc

    scaler = misc.NativeScalerWithGradNormCount
    load_state_dict = scaler.load_state_dict

    @functools.wraps(load_state_dict)
    def load_if_any(self, state_dict):
        if state_dict:
            load_state_dict(self, state_dict)
        elif self._scaler.is_enabled():
            say("the checkpoint was saved without AMP: its scale is searched anew")

    scaler.load_state_dict = load_if_any


def number_the_attempts() -> None:
    """Lets processes that torchrun has restarted find each other, and not those before them.

    The store of torchrun's agent outlives its workers and holds their addresses; each attempt of
    ``--max-restarts`` gets its own part of it.
    """
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    if attempt == 0 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    import torch

    init_process_group = torch.distributed.init_process_group

    @functools.wraps(init_process_group)
    def init_in_own_part(backend=None, init_method="env://", **kwargs):
        places = {name: kwargs.pop(name) for name in ("rank", "world_size") if name in kwargs}
        store, number, size = next(torch.distributed.rendezvous(init_method, **places))
        store = torch.distributed.PrefixStore(f"attempt_{attempt}", store)
        return init_process_group(backend, store=store, rank=number, world_size=size, **kwargs)

    torch.distributed.init_process_group = init_in_own_part


def keep_cudnn_on() -> None:
    """``--cudnn``: BenCo's ``seed_torch`` turns cuDNN off, and this on again."""
    import IMDLBenCo.training_scripts.utils.misc as misc
    import torch

    seed_torch = misc.seed_torch

    @functools.wraps(seed_torch)
    def seed_and_keep_cudnn(seed):
        seed_torch(seed)
        torch.backends.cudnn.enabled = True
        say("--cudnn: cuDNN is on (BenCo's seed_torch had turned it off)")

    misc.seed_torch = seed_and_keep_cudnn
