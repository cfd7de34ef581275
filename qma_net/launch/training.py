"""What is put around BenCo's training loop.

BenCo's train.py calls ``load_model`` once, then ``train_one_epoch`` once an epoch, after it
``save_model`` and, where the epoch is tested, ``test_one_epoch`` once per test set, and writes the
epoch's row to log.txt last. All of these are wrapped; none is changed.
"""

import argparse
import functools
import json
import math
import os
import random
from contextlib import contextmanager
from pathlib import Path

from .finite import FiniteSteps
from .meters import between_batches
from .process import LaunchError, greatest, rank, say
from .saving import Saving, clean, is_best, is_logged, keep_best, output_folder, stats_of
from .startup import Startup, lists_of, summary
from .stopping import Stopping
from .unreadable import Unreadable


class Training:
    """One run of BenCo's train.py.

    Args:
        own: the launcher's flags.
        startup: where what is printed before the first epoch goes.
        command: the command that goes on with the run when it was ended.
    """

    def __init__(self, own: argparse.Namespace, startup: Startup, command: str):
        self.own, self.startup = own, startup
        self.stopping = Stopping(command)
        self.saving = Saving(own.save_period)
        self.finite = FiniteSteps(max_skipped=own.max_skipped, clip_grad=own.clip_grad)
        self.unreadable = Unreadable()
        self.figures: dict[str, float] = {}  # of the epoch under test, by test set
        self.trained: dict[int, dict] = {}  # the epoch to be tested without training: its losses
        self.save = None  # saves the epoch that was trained last

    def wrap(self) -> None:
        """Puts this around BenCo's functions, which train.py imports when it starts."""
        import IMDLBenCo.training_scripts.tester as tester
        import IMDLBenCo.training_scripts.trainer as trainer
        import IMDLBenCo.training_scripts.utils.misc as misc

        self.stopping.listen()
        self.saving.wrap()
        self.is_main_process = misc.is_main_process
        load_model, train_one_epoch = misc.load_model, trainer.train_one_epoch
        test_one_epoch = tester.test_one_epoch

        @functools.wraps(load_model)
        def load(args, **parts):
            load_model(args=args, **parts)
            self._resume(args)

        @functools.wraps(train_one_epoch)
        def train(model, data_loader, optimizer, device, epoch, loss_scaler, *, args, **kwargs):
            self._begin(model.module, data_loader, args)
            self.stopping.check()
            if self.own.fit:
                args.fit = self.own.fit  # a checkpoint keeps BenCo's flags
            for one in lists_of(data_loader.dataset):
                if hasattr(one, "set_epoch"):  # it makes images of its own for every epoch
                    one.set_epoch(epoch)
            self.figures = {}
            self.save = functools.partial(
                misc.save_model,
                args=args,
                epoch=epoch,
                model=model,
                model_without_ddp=model.module,
                optimizer=optimizer,
                loss_scaler=loss_scaler,
            )
            if epoch in self.trained:
                args.train_stats = self.trained.pop(epoch)
                return args.train_stats
            _seed(args.seed, epoch)
            steps = len(data_loader) // args.accum_iter
            self.finite.begin(epoch, steps, output_folder(args), model.module, loss_scaler)
            with self._trained(args.accum_iter):
                stats = train_one_epoch(
                    model, data_loader, optimizer, device, epoch, self.finite, args=args, **kwargs
                )
            self._log_amp(epoch, kwargs.get("log_writer"))
            args.train_stats = stats  # BenCo saves args: a resumed run can log them
            if args.output_dir and self.saving.is_due(epoch):
                self.save()
            return stats

        @functools.wraps(test_one_epoch)
        def test(model, data_loader, evaluator_list, device, epoch, name="", *, args, **kwargs):
            with self._tested():
                stats = test_one_epoch(
                    model, data_loader, evaluator_list, device, epoch, name, args=args, **kwargs
                )
            figures = [stats[evaluator.name] for evaluator in evaluator_list]
            self.figures[name] = float(sum(figures) / len(figures))
            folder = output_folder(args)
            if folder and len(self.figures) == _test_sets(args.test_data_path):
                self._keep_best(folder, epoch)
            return stats

        misc.load_model, trainer.train_one_epoch, tester.test_one_epoch = load, train, test

    def _resume(self, args) -> None:
        """After BenCo's ``load_model``: an epoch that was saved but not logged is tested first."""
        folder = output_folder(args)
        if folder and self.is_main_process():
            clean(folder)
        if not args.resume:
            return
        epoch = args.start_epoch - 1
        here = folder and Path(args.resume).resolve().parent == folder.resolve()
        if here and not is_logged(folder, epoch):
            self.trained = {epoch: stats_of(Path(args.resume))}
            self.saving.newest = args.start_epoch = epoch
            next_comes = f"epoch {epoch} was not logged: without training, its tests come next"
        elif args.start_epoch >= args.epochs:
            next_comes = f"all {args.epochs} epochs are done, nothing is left"
        else:
            next_comes = f"epoch {args.start_epoch} comes next"
        say(f"Resume {args.resume}: {next_comes}")

    def _begin(self, model, data_loader, args) -> None:
        """Before the first epoch."""
        if self.stopping.has_begun:
            return
        _require_steps(data_loader, args.accum_iter)
        for line in summary(model, data_loader, args):
            say(line)
        self.startup.end()
        self.unreadable.protect(data_loader.dataset, output_folder(args))
        self.stopping.begin(output_folder(args))

    @contextmanager
    def _trained(self, accum_iter: int):
        """Around ``train_one_epoch``: between the batches, what was asked or has failed."""

        def before(batch: dict) -> None:
            self.finite.batch(batch.get("name", []))

        def after(number: int) -> None:
            self.unreadable.read_reports()
            if number % accum_iter == 0:
                if greatest(int(bool(self.unreadable.too_many))):
                    raise self.unreadable.error()
                self.stopping.check()

        try:
            with self._ended_as_asked(), between_batches(before, after, finite_only=True):
                yield
        except LaunchError:
            raise
        except Exception as error:
            self.unreadable.read_reports()
            if self.unreadable.too_many:
                raise self.unreadable.error() from error
            raise

    @contextmanager
    def _tested(self):
        """Around ``test_one_epoch``: between the batches, what was asked."""

        def after(number: int) -> None:
            self.stopping.check()

        with self._ended_as_asked(), between_batches(None, after, finite_only=False):
            yield

    @contextmanager
    def _ended_as_asked(self):
        """A loader's process, or another rank, that a signal ended first is no failure."""
        try:
            yield
        except Exception as error:
            if self.stopping.is_asked and not isinstance(error, LaunchError):
                self.stopping.end()
            raise

    def _log_amp(self, epoch: int, log_writer) -> None:
        scale = self.finite.amp_scale
        if scale is not None:
            say(f"epoch {epoch}: AMP scale {scale:g}, {self.finite.overflown} steps overflowed")
            if log_writer is not None:
                log_writer.add_scalar("amp_scale", scale, epoch)
        if self.finite.skipped:
            say(f"epoch {epoch}: {self.finite.skipped} steps left out, see skipped.txt")

    def _keep_best(self, folder: Path, epoch: int) -> None:
        """An epoch with a higher mean over the test sets than any before goes to ``best/``."""
        mean = sum(self.figures.values()) / len(self.figures)
        better = self.is_main_process() and math.isfinite(mean) and is_best(folder, mean)
        if greatest(int(better)):
            self.save()
        if better:
            keep_best(folder, epoch, self.figures)


def _require_steps(data_loader, accum_iter: int) -> None:
    if len(data_loader) < accum_iter:
        raise LaunchError(
            f"got --accum_iter {accum_iter} with {len(data_loader)} batches per process "
            "and epoch, expected no more than there are batches: BenCo would never take an "
            "optimiser step; lower --accum_iter (or --batch_size)"
        )


def _seed(seed: int, epoch: int) -> None:
    """Seeds an epoch by (seed, rank, epoch): a resumed run draws what an uninterrupted one does."""
    import numpy
    import torch

    state = numpy.random.SeedSequence((seed, rank(), epoch)).generate_state(1)[0]
    random.seed(int(state))
    numpy.random.seed(state)
    torch.manual_seed(int(state))


def _test_sets(path: str) -> int:
    """How many test sets ``--test_data_path`` names."""
    return 1 if os.path.isdir(path) else len(json.loads(Path(path).read_text()))
