"""What is put around BenCo's training loop: a check, seeds, more checkpoints, the best of them.

BenCo's train.py calls ``train_one_epoch`` once an epoch, and after it ``test_one_epoch`` once per
test set where an epoch is tested. Both are wrapped; neither is changed.
"""

import functools
import json
import os
import random
import shutil
from pathlib import Path

from ..files import copy_file, write_text
from .process import LaunchError, say

BEST = "best"  # folder beside the checkpoints: BenCo's test.py reads every file beside it
BEST_NOTE = "best.json"


class Training:
    """One run of BenCo's train.py.

    Args:
        save_period: a checkpoint is kept every so many epochs; 0 leaves it at BenCo's every 25.
    """

    def __init__(self, save_period: int):
        self.save_period = save_period
        self.figures: dict[str, float] = {}  # of the epoch under test, by test set

    def wrap(self) -> None:
        """Puts this around BenCo's functions, which train.py imports when it starts."""
        import IMDLBenCo.training_scripts.tester as tester
        import IMDLBenCo.training_scripts.trainer as trainer
        import IMDLBenCo.training_scripts.utils.misc as misc

        train_one_epoch, test_one_epoch = trainer.train_one_epoch, tester.test_one_epoch

        @functools.wraps(train_one_epoch)
        def train(model, data_loader, optimizer, device, epoch, loss_scaler, *, args, **kwargs):
            _require_steps(data_loader, args.accum_iter)
            _seed(args.seed, epoch)
            stats = train_one_epoch(
                model, data_loader, optimizer, device, epoch, loss_scaler, args=args, **kwargs
            )
            if self.save_period and (epoch + 1) % self.save_period == 0:
                misc.save_model(args, epoch, model, model.module, optimizer, loss_scaler)
            self.figures = {}
            return stats

        @functools.wraps(test_one_epoch)
        def test(model, data_loader, evaluator_list, device, epoch, name="", *, args, **kwargs):
            stats = test_one_epoch(
                model, data_loader, evaluator_list, device, epoch, name, args=args, **kwargs
            )
            figures = [stats[evaluator.name] for evaluator in evaluator_list]
            self.figures[name] = float(sum(figures) / len(figures))
            if misc.is_main_process() and len(self.figures) == _test_sets(args.test_data_path):
                self._keep_best(Path(args.output_dir), epoch)
            return stats

        trainer.train_one_epoch, tester.test_one_epoch = train, test

    def _keep_best(self, folder: Path, epoch: int) -> None:
        """Copies the epoch's checkpoint to ``best/`` where its mean over the sets is higher."""
        mean = sum(self.figures.values()) / len(self.figures)
        note, saved = folder / BEST / BEST_NOTE, folder / f"checkpoint-{epoch}.pth"
        before = json.loads(note.read_text())["mean"] if note.is_file() else None
        if not saved.is_file() or (before is not None and mean <= before):
            return
        shutil.rmtree(folder / BEST, ignore_errors=True)
        copy_file(saved, folder / BEST / saved.name)
        found = {"epoch": epoch, "mean": mean, "test_sets": self.figures}
        write_text(note, json.dumps(found, indent=1) + "\n")
        say(f"{folder / BEST / saved.name}: the best so far on training's test sets ({mean:.4f})")


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

    rank = int(os.environ.get("RANK", 0))
    state = numpy.random.SeedSequence((seed, rank, epoch)).generate_state(1)[0]
    random.seed(int(state))
    numpy.random.seed(state)
    torch.manual_seed(int(state))


def _test_sets(path: str) -> int:
    """How many test sets ``--test_data_path`` names."""
    return 1 if os.path.isdir(path) else len(json.loads(Path(path).read_text()))
