"""The checkpoints of a training: whole or not there, few on disk, the best of them apart.

Files are BenCo's ``checkpoint-<epoch>.pth`` in ``--output_dir``. ``best/`` is a folder beside them,
as BenCo's test.py reads every file beside a checkpoint as one.
"""

import argparse
import functools
import json
import math
import os
import re
import shutil
import zipfile
from pathlib import Path

from ..core.files import copy_file, read_journal, read_object, write_text, written_beside
from .process import LaunchError, say

BEST = "best"  # folder of the epoch that is best on training's test sets
BEST_NOTE = "best.json"  # in it: epoch, mean and the test sets' figures
LOG = "log.txt"  # BenCo's, a row of JSON an epoch

KEPT_NEWEST = 2  # checkpoints: one more than is needed, should the newest be damaged
KEPT_PERIOD = 25  # epochs: those that BenCo alone would save
NAME = re.compile(r"checkpoint-(\d+)\.pth")


def save_atomically() -> None:
    """A run killed while saving must not leave half a checkpoint under a checkpoint's name.

    A disk that refuses the bytes (full, over quota) ends the run with a :class:`LaunchError`.
    """
    import IMDLBenCo.training_scripts.utils.misc as misc
    import torch

    def save_on_master(content, path):
        if not misc.is_main_process():
            return
        try:
            with written_beside(path) as beside:
                torch.save(content, beside)
        except (OSError, RuntimeError) as error:
            # torch's own writer names a full disk a RuntimeError of its file and line
            if isinstance(error, RuntimeError) and "inline_container" not in str(error):
                raise
            free = shutil.disk_usage(Path(path).parent).free
            reason = str(error).splitlines()[0][:200]
            raise LaunchError(
                f"got a disk that refused {path} ({free / 2**20:,.0f} MiB free: {reason}), "
                "expected room for one more checkpoint: make room and go on with --resume auto; "
                "what was saved before is whole"
            ) from error

    misc.save_on_master = save_on_master


def output_folder(args: argparse.Namespace) -> Path | None:
    """``--output_dir`` of BenCo's flags; empty, it means that nothing is saved."""
    return Path(args.output_dir) if args.output_dir else None


def saved_epochs(folder: Path) -> list[int]:
    """Epochs of the checkpoints in a folder, the newest last; damaged ones too."""
    names = (NAME.fullmatch(file.name) for file in folder.glob("checkpoint-*.pth"))
    return sorted(int(name[1]) for name in names if name)


def checkpoint_path(folder: Path, epoch: int) -> Path:
    """Where BenCo saves an epoch."""
    return folder / f"checkpoint-{epoch}.pth"


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint of a folder that can be resumed from, None without one."""
    for epoch in reversed(saved_epochs(folder)):
        path = checkpoint_path(folder, epoch)
        if fault := _fault(path):
            say(f"{path} is passed over: {fault}")
        else:
            return path
    return None


def _fault(path: Path) -> str:
    """Why a file is no whole checkpoint of a training; empty for one that is."""
    from ..modeling.state import WeightsError
    from ..weights.reading import read_checkpoint

    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                return f"{damaged} in it is damaged"
        content = read_checkpoint(path, mapped=True)
    except (WeightsError, zipfile.BadZipFile, OSError, EOFError) as error:
        return f"it is not whole ({str(error).splitlines()[0][:120]})"
    lacking = {"model", "optimizer", "epoch"} - set(content)
    return f"it holds no {', '.join(sorted(lacking))}" if lacking else ""


def clean(folder: Path) -> None:
    """Removes what a killed run left half written: checkpoints, their best, a row of the log."""
    for half in folder.glob(".checkpoint-*.pth.*.tmp"):
        half.unlink()
    best = folder / BEST
    if (best / BEST_NOTE).is_file():
        _keep_only(best, _read_best(best / BEST_NOTE)["epoch"])
    log = folder / LOG
    if log.is_file() and not (text := log.read_text(errors="replace")).endswith("\n") and text:
        write_text(log, text[: text.rfind("\n") + 1])


def is_logged(folder: Path, epoch: int) -> bool:
    """Whether BenCo has written an epoch's row, the last thing that it does in an epoch."""
    return any(row.get("epoch") == epoch for row in read_journal(folder / LOG))


def stats_of(checkpoint: Path) -> dict[str, float]:
    """The losses of a checkpoint's epoch; none where another launcher saved it."""
    from ..weights.reading import read_checkpoint

    return getattr(read_checkpoint(checkpoint, mapped=True).get("args"), "train_stats", {})


class Saving:
    """When a training saves, and what it keeps.

    Args:
        period: a checkpoint every so many epochs, besides BenCo's own (every 25 and the last);
            0: BenCo's own alone, of which none is deleted.
    """

    def __init__(self, period: int):
        self.period = period
        self.newest: int | None = None  # the epoch saved last: BenCo saves some of them again

    def wrap(self) -> None:
        """Puts this around BenCo's ``save_model``."""
        import IMDLBenCo.training_scripts.utils.misc as misc

        save_model = misc.save_model

        @functools.wraps(save_model)
        def save_and_prune(args, epoch, **parts):
            if self.newest == epoch:
                return
            save_model(args=args, epoch=epoch, **parts)
            self.newest = epoch
            if self.period and misc.is_main_process():
                self._prune(Path(args.output_dir), epoch, args.epochs)

        misc.save_model = save_and_prune

    def is_due(self, epoch: int) -> bool:
        """Whether an epoch is to be saved that BenCo may not save."""
        return bool(self.period) and (epoch + 1) % self.period == 0

    def _prune(self, folder: Path, newest: int, epochs: int) -> None:
        """Deletes what is older than the last two, but every 25th and the run's last epoch."""
        older = [epoch for epoch in saved_epochs(folder) if epoch <= newest]
        for epoch in older[:-KEPT_NEWEST]:
            if epoch % KEPT_PERIOD and epoch + 1 != epochs:
                checkpoint_path(folder, epoch).unlink()


def is_best(folder: Path, mean: float) -> bool:
    """Whether a mean over the test sets is above that of ``best/``, if there is one."""
    note = folder / BEST / BEST_NOTE
    before = _read_best(note)["mean"] if note.is_file() else -math.inf
    return mean > before


def _read_best(note: Path) -> dict:
    best = read_object(note, f"the note of the best epoch: delete {note.parent}")
    return {"epoch": -1, "mean": -math.inf} | best


def keep_best(folder: Path, epoch: int, test_sets: dict[str, float]) -> None:
    """Copies an epoch's checkpoint to ``best/`` in place of the one there."""
    mean = sum(test_sets.values()) / len(test_sets)
    best = checkpoint_path(folder / BEST, epoch)
    copy_file(checkpoint_path(folder, epoch), best)
    found = {"epoch": epoch, "mean": mean, "test_sets": test_sets}
    write_text(folder / BEST / BEST_NOTE, json.dumps(found, indent=1) + "\n")
    _keep_only(folder / BEST, epoch)
    say(f"{best}: the best so far on training's test sets ({mean:.4f})")


def _keep_only(best: Path, epoch: int) -> None:
    for file in [*best.glob("checkpoint-*.pth"), *best.glob(".*.tmp")]:
        if file != checkpoint_path(best, epoch):
            os.unlink(file)
