"""What is put in place of parts of BenCo and torch while a script runs."""

import argparse
import functools
import os
import random

from ..files import written_beside
from .process import LaunchError, say


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


def guard_training(save_period: int) -> None:
    """Around BenCo's ``train_one_epoch``: a check, seeds that a resume repeats, more saving."""
    import IMDLBenCo.training_scripts.trainer as trainer
    import IMDLBenCo.training_scripts.utils.misc as misc
    import numpy
    import torch

    train_one_epoch = trainer.train_one_epoch

    @functools.wraps(train_one_epoch)
    def guarded(model, data_loader, optimizer, device, epoch, loss_scaler, *, args, **kwargs):
        if len(data_loader) < args.accum_iter:
            raise LaunchError(
                f"got --accum_iter {args.accum_iter} with {len(data_loader)} batches per process "
                "and epoch, expected no more than there are batches: BenCo would never take an "
                "optimiser step; lower --accum_iter (or --batch_size)"
            )
        rank = int(os.environ.get("RANK", 0))
        state = numpy.random.SeedSequence((args.seed, rank, epoch)).generate_state(1)[0]
        random.seed(int(state))
        numpy.random.seed(state)
        torch.manual_seed(int(state))
        stats = train_one_epoch(
            model, data_loader, optimizer, device, epoch, loss_scaler, args=args, **kwargs
        )
        if save_period and (epoch + 1) % save_period == 0:
            misc.save_model(args, epoch, model, model.module, optimizer, loss_scaler)
        return stats

    trainer.train_one_epoch = guarded


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
