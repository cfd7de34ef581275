"""Hooks around BenCo's training loop.

BenCo's train.py calls ``load_model`` once. In each epoch, it calls ``train_one_epoch``, then
``save_model`` in some epochs, then ``test_one_epoch`` once per test set if the epoch is tested, and
finally writes the epoch's row to log.txt. All of these functions are wrapped.
"""

import argparse
import functools
import logging
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..data.listing import read_listings
from .checkpoints import (
    changed_flags,
    delete_old_checkpoints,
    is_logged,
    is_new_best,
    keep_parameter_groups,
    output_folder,
    remove_unfinished,
    save_best,
    set_aside_later_epochs,
    training_losses,
)
from .console import StartupLog, training_summary
from .contracts import BENCO, MISC, install, replaces
from .nonfinite_steps import SKIPPED_FILE, StepGuard
from .stop_requests import StopRequests
from .torchrun import LaunchError, max_over_ranks, rank
from .unreadable_images import UnreadableImages, member_datasets

logger = logging.getLogger(__name__)


class TrainingHooks:
    """The hooks of one run of BenCo's train.py.

    Args:
        own: The launcher's flags.
        startup: The log of what is printed before the first epoch.
        command: The command that resumes this run.
    """

    def __init__(self, own: argparse.Namespace, startup: StartupLog, command: str):
        self.own, self.startup = own, startup
        self.stop_requests = StopRequests(command)
        self.guard = StepGuard(max_skipped=own.max_skipped, clip_grad=own.clip_grad)
        self.unreadable = UnreadableImages()
        self.test_set_count = 0
        self.saved: int | None = None  # The epoch saved last; BenCo saves some epochs twice.
        self.test_means: dict[str, float] = {}  # By test set, for the epoch being tested.
        self.to_test: dict[int, dict] = {}  # Losses of the epoch that is tested without training.
        self.save: Callable[[], None]  # Saves the epoch that was trained last.

    def install(self) -> None:
        """Wrap BenCo's functions; call this before train.py imports them."""
        import IMDLBenCo.training_scripts.utils.misc as misc
        from torch.nn.utils import get_total_norm

        self.stop_requests.install_handlers()

        @replaces(f"{MISC}:load_model")
        def load_model(original: Callable, args: Any, **parts: Any) -> None:
            if args.resume:
                model, optimizer = parts["model_without_ddp"], parts["optimizer"]
                keep_parameter_groups(Path(args.resume), model, optimizer, args.weight_decay)
            original(args=args, **parts)
            self._resume(args)

        @replaces(f"{MISC}:save_model")
        def save_model(original: Callable, args: Any, epoch: int, **parts: Any) -> None:
            if self.saved == epoch:
                return
            original(args=args, epoch=epoch, **parts)
            self.saved = epoch
            if self.own.save_period and rank() == 0:
                delete_old_checkpoints(Path(args.output_dir), epochs=args.epochs)

        def get_grad_norm_(parameters: Any, norm_type: float = 2.0) -> Any:
            return get_total_norm([p.grad for p in parameters if p.grad is not None], norm_type)

        install(f"{MISC}:get_grad_norm_", get_grad_norm_)

        @replaces(f"{BENCO}.trainer:train_one_epoch")
        def train_one_epoch(original: Callable, *parts: Any, args: Any, **options: Any) -> dict:
            model, data_loader, optimizer, _, epoch, loss_scaler = parts
            self._begin(model.module, data_loader, args)
            self.stop_requests.check()
            if self.own.fit:
                args.fit = self.own.fit  # Checkpoints contain `args`.
            for member in member_datasets(data_loader.dataset):
                if hasattr(member, "set_epoch"):  # It synthesizes new images for every epoch.
                    member.set_epoch(epoch)
            self.test_means = {}
            self.save = functools.partial(
                misc.save_model,
                args=args,
                epoch=epoch,
                model=model,
                model_without_ddp=model.module,
                optimizer=optimizer,
                loss_scaler=loss_scaler,
            )
            if epoch in self.to_test:
                args.train_stats = self.to_test.pop(epoch)
                return args.train_stats
            _seed(args.seed, epoch)
            steps = len(data_loader) // args.accum_iter
            self.guard.begin_epoch(epoch, steps, output_folder(args), model.module, loss_scaler)
            with self._between_batches(args.accum_iter, training=True):
                losses = original(*parts[:-1], self.guard, args=args, **options)
            self._log_steps(epoch, options["log_writer"])
            # Checkpoints contain `args`, so a resumed run can log these losses.
            args.train_stats = losses
            period = self.own.save_period
            if args.output_dir and period and (epoch + 1) % period == 0:
                self.save()
            return losses

        @replaces(f"{BENCO}.tester:test_one_epoch")
        def test_one_epoch(original: Callable, model: Any, **parts: Any) -> dict:
            with self._between_batches():
                figures = original(model, **parts)
            values = [figures[evaluator.name] for evaluator in parts["evaluator_list"]]
            self.test_means[parts["name"]] = float(sum(values) / len(values))
            folder = output_folder(parts["args"])
            if folder and len(self.test_means) == self.test_set_count:
                self._save_if_best(folder, parts["epoch"])
            return figures

    def release(self) -> None:
        """Release the model at the end of the run."""
        vars(self).pop("save", None)

    def _resume(self, args: Any) -> None:
        """Decide, after BenCo's ``load_model``, which epoch comes next."""
        folder = output_folder(args)
        epoch = args.start_epoch - 1
        if folder and rank() == 0:
            remove_unfinished(folder)
            if args.resume and epoch >= 0:
                set_aside_later_epochs(folder, epoch)
        max_over_ranks(0)  # The other ranks wait until the folder's files are final.
        if not args.resume:
            return
        is_own = folder and Path(args.resume).resolve().parent == folder.resolve()
        if folder and is_own and not is_logged(folder, epoch):
            self.to_test = {epoch: training_losses(Path(args.resume))}
            self.saved = args.start_epoch = epoch
            next_step = f"epoch {epoch} was saved but not logged; testing it without training again"
        elif args.start_epoch >= args.epochs:
            next_step = f"all {args.epochs} epochs are complete"
        else:
            next_step = f"continuing with epoch {args.start_epoch}"
        logger.info("resuming from %s: %s", args.resume, next_step)
        changes = changed_flags(Path(args.resume), args) if rank() == 0 else []
        if changes:
            logger.warning(
                "the checkpoint was trained with different flags (%s); the result will differ from "
                "that of an uninterrupted run",
                "; ".join(changes),
            )

    def _begin(self, model: Any, data_loader: Any, args: Any) -> None:
        """Print the summary and start monitoring the run, if that has not been done yet."""
        if self.stop_requests.training_has_begun:
            return
        test_sets = read_listings(args.test_data_path)
        self.test_set_count = len(test_sets)
        for line in training_summary(model, data_loader, test_sets, args):
            logger.info("%s", line)
        self.startup.end()
        self.unreadable.protect(data_loader.dataset, output_folder(args))
        self.stop_requests.begin(output_folder(args))

    @contextmanager
    def _between_batches(self, accum_iter: int = 1, *, training: bool = False) -> Iterator[None]:
        """After every step of BenCo, check for stop requests and, in training, unreadable images.

        BenCo iterates over batches with ``MetricLogger.log_every``, so the code after its ``yield``
        runs when the step on that batch is complete. In training, non-finite values are left out of
        averages, since their steps are skipped.
        """
        import IMDLBenCo.training_scripts.utils.misc as misc

        hooks = self

        class FiniteMeter(misc.SmoothedValue):
            """The average of finite values; the printed window still shows all values."""

            def update(self, value: float, n: int = 1) -> None:
                if math.isfinite(value):
                    super().update(value, n)
                else:
                    self.deque.append(value)

            @property
            def global_avg(self) -> float:
                return self.total / self.count if self.count else math.nan

        class HookedLogger(misc.MetricLogger):
            def __init__(self, *args: Any, **kwargs: Any):
                super().__init__(*args, **kwargs)
                if training:
                    self.meters: Any = defaultdict(FiniteMeter)

            def log_every(self, *args: Any, **kwargs: Any) -> Iterator[dict]:
                for number, batch in enumerate(super().log_every(*args, **kwargs), 1):
                    if training:
                        hooks.guard.begin_batch(batch.get("name", []))
                    yield batch
                    if training:
                        hooks.unreadable.read_reports()
                    if number % accum_iter == 0:
                        if training and max_over_ranks(int(bool(hooks.unreadable.excess))):
                            raise hooks.unreadable.error()
                        hooks.stop_requests.check()

        original = install(f"{MISC}:MetricLogger", HookedLogger)
        try:
            yield
        except LaunchError:
            raise
        except Exception as error:
            # Errors may be consequences of a signal that has also reached other processes.
            if self.stop_requests.request:
                self.stop_requests.exit(self.stop_requests.request)
            if training:
                self.unreadable.read_reports()
                if self.unreadable.excess:
                    raise self.unreadable.error() from error
            raise
        finally:
            install(f"{MISC}:MetricLogger", original)

    def _log_steps(self, epoch: int, log_writer: Any) -> None:
        scale = self.guard.amp_scale
        if scale is not None:
            overflows = self.guard.overflows
            logger.info("epoch %d: AMP scale %g, %d steps overflowed", epoch, scale, overflows)
            if log_writer is not None:
                log_writer.add_scalar("amp_scale", scale, epoch)
        if self.guard.skipped:
            skipped = self.guard.skipped
            logger.info("epoch %d: %d steps were skipped, see %s", epoch, skipped, SKIPPED_FILE)

    def _save_if_best(self, folder: Path, epoch: int) -> None:
        """Copy the epoch to ``best/`` if its mean over the test sets is the highest so far."""
        mean = sum(self.test_means.values()) / len(self.test_means)
        is_best = rank() == 0 and math.isfinite(mean) and is_new_best(folder, mean)
        if max_over_ranks(int(is_best)):
            self.save()
        if is_best:
            save_best(folder, epoch, self.test_means)


def _seed(seed: int, epoch: int) -> None:
    """Seed from (seed, rank, epoch), so that a resumed run reproduces an uninterrupted one."""
    import numpy
    import torch

    state = numpy.random.SeedSequence((seed, rank(), epoch)).generate_state(1)[0]
    random.seed(int(state))
    numpy.random.seed(state)
    torch.manual_seed(int(state))
