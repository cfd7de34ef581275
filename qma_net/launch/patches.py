"""What is put in place of parts of BenCo and torch while a script runs."""

import argparse
import functools

from ..files import written_beside
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


def save_atomically() -> None:
    """A run killed while saving must not leave half a checkpoint under a checkpoint's name."""
    import IMDLBenCo.training_scripts.utils.misc as misc
    import torch

    def save_on_master(content, path):
        if misc.is_main_process():
            with written_beside(path) as beside:
                torch.save(content, beside)

    misc.save_on_master = save_on_master


def keep_cudnn_on() -> None:
    import IMDLBenCo.training_scripts.utils.misc as misc
    import torch

    seed_torch = misc.seed_torch

    @functools.wraps(seed_torch)
    def seed_and_keep_cudnn(seed):
        seed_torch(seed)
        torch.backends.cudnn.enabled = True
        say("--cudnn: cuDNN is on (BenCo's seed_torch had turned it off)")

    misc.seed_torch = seed_and_keep_cudnn
