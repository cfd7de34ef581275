"""Checkpoints of a training run: safe loading, atomic saving, pruning, resuming and the best epoch.

The files are BenCo's ``checkpoint-<epoch>.pth`` in ``--output_dir``. The best epoch has its own
folder, since BenCo's test.py tests every checkpoint in a folder.
"""

import argparse
import json
import logging
import math
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..core.files import (
    ContentError,
    atomic_write,
    copy_file,
    read_json_lines,
    read_json_object,
    remove_temporary_files,
    write_json,
    write_text,
)
from .contracts import MISC, replaces
from .torchrun import LaunchError, rank

logger = logging.getLogger(__name__)

BEST = "best"  # Folder of the epoch that is best on the test sets used in training.
BEST_NOTE = "best.json"  # In that folder: the epoch and its scores.
SUPERSEDED = "superseded"  # Folder of what a run saved after the epoch that it resumes from.
LOG = "log.txt"  # BenCo's log, a JSON object per epoch.
REQUIRED = {"model", "optimizer", "epoch"}  # Of a checkpoint that can be resumed from.

KEPT_NEWEST = 2  # One checkpoint more than needed, in case the newest is damaged.
KEPT_PERIOD = 25  # BenCo itself saves every 25th epoch.
# BenCo's flags that must stay the same for a resumed run to give the same result.
RESULT_FLAGS = (
    "data_path test_data_path image_size if_resizing if_padding batch_size accum_iter world_size "
    "epochs warmup_epochs lr min_lr weight_decay seed"
).split()
CHECKPOINT_NAME = re.compile(r"checkpoint-(\d+)\.pth")


def load_tensors_only() -> None:
    """Make ``torch.load`` reject pickled objects other than tensors and BenCo's Namespace.

    BenCo's test scripts turn this check off. Importing :mod:`qma_net.benco` permits the Namespace.
    """

    @replaces("torch:load")
    def load(original: Callable, *args: Any, **kwargs: Any) -> Any:
        return original(*args, **{**kwargs, "weights_only": True})


def accept_empty_amp_state() -> None:
    """Let a GPU run resume from a checkpoint saved on a CPU.

    Such a checkpoint has an empty AMP scaler state, so the loss scale is calibrated again. The
    opposite case works without help.
    """

    @replaces(f"{MISC}:NativeScalerWithGradNormCount.load_state_dict")
    def load_state_dict(original: Callable, self: Any, state_dict: dict) -> None:
        if state_dict:
            original(self, state_dict)
        elif self._scaler.is_enabled():
            logger.info("the checkpoint was saved without AMP; the loss scale is calibrated again")


def save_atomically() -> None:
    """Make BenCo write checkpoints atomically and report a full disk as a :class:`LaunchError`."""
    import torch

    @replaces(f"{MISC}:save_on_master")
    def save_on_master(original: Callable, content: Any, path: Path) -> None:
        if rank() == 0:
            with _report_full_disk(path), atomic_write(path) as temporary:
                torch.save(content, temporary)


@contextmanager
def _report_full_disk(path: Path) -> Iterator[None]:
    """Raise a :class:`LaunchError` if a file of a checkpoint cannot be written."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch reports a full disk as a RuntimeError that names its own source file.
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise
        free = shutil.disk_usage(Path(path).parent).free
        reason = str(error).splitlines()[0][:200]
        raise LaunchError(
            f"cannot write {path}: {reason} ({free / 2**20:,.0f} MiB free); free some disk "
            "space and resume with --resume auto. Earlier checkpoints are intact"
        ) from error


def output_folder(args: argparse.Namespace) -> Path | None:
    """Return ``--output_dir``, or None if it is empty, which means that nothing is saved."""
    return Path(args.output_dir) if args.output_dir else None


def saved_epochs(folder: Path) -> list[int]:
    """Return the epochs of a folder's checkpoints in ascending order, including damaged ones."""
    matches = (CHECKPOINT_NAME.fullmatch(file.name) for file in folder.glob("checkpoint-*.pth"))
    return sorted(int(match[1]) for match in matches if match)


def checkpoint_path(folder: Path, epoch: int) -> Path:
    """Return the path where BenCo saves an epoch."""
    return folder / f"checkpoint-{epoch}.pth"


def newest_intact_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint of a folder that can be resumed from, or None."""
    for epoch in reversed(saved_epochs(folder)):
        path = checkpoint_path(folder, epoch)
        if fault := _fault(path):
            logger.info("skipping %s: it %s", path, fault)
        else:
            return path
    return None


def _fault(path: Path) -> str:
    """Describe why a checkpoint cannot be resumed from; empty if it can."""
    from ..modeling.state import WeightsError
    from ..weights.reading import read_checkpoint

    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                return f"is damaged ({damaged})"
        content = read_checkpoint(path, mapped=True)
    except (WeightsError, zipfile.BadZipFile, OSError, EOFError) as error:
        return f"is incomplete or damaged ({str(error).splitlines()[0][:120]})"
    missing = REQUIRED - set(content)
    return f"lacks {', '.join(sorted(missing))}" if missing else ""


def remove_unfinished(folder: Path) -> None:
    """Remove temporary files, superseded best checkpoints and a torn log line of a killed run."""
    best = folder / BEST
    for directory in (folder, best):
        remove_temporary_files(directory)
    if (best / BEST_NOTE).is_file():
        _remove_other_epochs(best, _read_best(best / BEST_NOTE)["epoch"])
    log = folder / LOG
    if log.is_file():
        text = log.read_text(encoding="utf-8", errors="replace")
        if text and not text.endswith("\n"):
            write_text(log, text[: text.rfind("\n") + 1])


def set_aside_later_epochs(folder: Path, epoch: int) -> None:
    """Move the checkpoints of later epochs, and their rows of the log, to ``superseded/``.

    Otherwise, the next ``--resume auto`` would return to them, and an epoch that is trained again
    would count as logged. If this is interrupted, calling it again does the rest.
    """
    superseded = folder / SUPERSEDED
    moved = []
    for source in (folder, folder / BEST):
        for later in (saved for saved in saved_epochs(source) if saved > epoch):
            moved.append(checkpoint_path(source, later).relative_to(folder))
    note = folder / BEST / BEST_NOTE
    if note.is_file() and _read_best(note)["epoch"] > epoch:
        moved.append(note.relative_to(folder))
    for name in moved:
        (superseded / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).replace(superseded / name)
    if moved:
        names = ", ".join(map(str, moved))
        logger.info("moved the epochs after %d to %s: %s", epoch, superseded, names)
    log = folder / LOG
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.is_file() else []
    if later_lines := [line for line in lines if _epoch_of(line) > epoch]:
        superseded.mkdir(exist_ok=True)
        with open(superseded / LOG, "a", encoding="utf-8") as file:
            file.writelines(later_lines)
        write_text(log, "".join(line for line in lines if _epoch_of(line) <= epoch))
        logger.info("moved the rows of epochs after %d from %s to %s", epoch, LOG, superseded)


def _epoch_of(line: str) -> int:
    """Return the epoch of a row of the log; -1 if it has none."""
    with suppress(ValueError, KeyError, TypeError):
        return int(json.loads(line)["epoch"])
    return -1


def is_logged(folder: Path, epoch: int) -> bool:
    """Return whether BenCo has logged an epoch, which is the last thing it does in an epoch."""
    return any(row.get("epoch") == epoch for row in read_json_lines(folder / LOG))


def changed_flags(checkpoint: Path, args: argparse.Namespace) -> list[str]:
    """List flags that affect the result and differ from those that a checkpoint was trained with.

    Flags that the checkpoint does not record are not compared.
    """
    from ..weights.reading import read_checkpoint

    recorded = read_checkpoint(checkpoint, mapped=True).get("args")
    known = vars(recorded) if isinstance(recorded, argparse.Namespace) else {}
    return [
        f"--{name} {known[name]}, now {value}"
        for name in RESULT_FLAGS
        if name in known and (value := getattr(args, name, None)) != known[name]
    ]


def require_resumable(path: Path) -> None:
    """Reject a file for ``--resume`` that is not a complete checkpoint, such as bare weights.

    Raises:
        LaunchError: If the model, the optimizer or the epoch is missing.
        WeightsError: If it cannot be read.
    """
    from ..weights.reading import read_checkpoint

    if missing := REQUIRED - set(read_checkpoint(path, mapped=True)):
        raise LaunchError(
            f"--resume {path}: the file lacks {', '.join(sorted(missing))}; resume from a "
            "checkpoint-<epoch>.pth of train, or start a new run with --init_from"
        )


def keep_parameter_groups(
    checkpoint: Path, model: Any, optimizer: Any, weight_decay: float
) -> None:
    """Group the optimizer's parameters as in the run that saved a checkpoint.

    Runs that began before :meth:`qma_net.benco.QMANet.no_weight_decay` existed decay all matrices.
    They continue to do so, since the state of their optimizer fits only these groups.

    Raises:
        LaunchError: If the checkpoint's groups match neither rule.
    """
    from timm.optim import param_groups_weight_decay

    from ..weights.reading import read_checkpoint

    def sizes(groups: list[dict]) -> list[int]:
        return [len(group["params"]) for group in groups]

    recorded = read_checkpoint(checkpoint, mapped=True).get("optimizer")
    groups = optimizer.param_groups
    if not recorded or sizes(recorded["param_groups"]) == sizes(groups):
        return
    former = param_groups_weight_decay(model, weight_decay)  # Without the model's exceptions.
    if sizes(recorded["param_groups"]) != sizes(former):
        raise LaunchError(
            f"cannot resume from {checkpoint}: its optimizer has groups of "
            f"{sizes(recorded['param_groups'])} parameters instead of {sizes(groups)}; use the "
            "flags of that run (such as --weight_decay), or start a new run with --init_from"
        )
    for group, before in zip(groups, former, strict=True):
        group["params"] = before["params"]
    logger.info(
        "%s is from a run that applies weight decay to queries and Bayar kernels; this run "
        "continues to do so. New runs exclude them from weight decay",
        checkpoint,
    )


def training_losses(checkpoint: Path) -> dict[str, float]:
    """Return the average losses of a checkpoint's epoch, if this launcher saved it."""
    from ..weights.reading import read_checkpoint

    return getattr(read_checkpoint(checkpoint, mapped=True).get("args"), "train_stats", {})


def delete_old_checkpoints(folder: Path, *, epochs: int) -> None:
    """Delete the checkpoints of all epochs but the two newest, every 25th and the last."""
    for epoch in saved_epochs(folder)[:-KEPT_NEWEST]:
        if epoch % KEPT_PERIOD and epoch + 1 != epochs:
            checkpoint_path(folder, epoch).unlink()


def is_new_best(folder: Path, mean: float) -> bool:
    """Return whether a mean over the test sets is higher than that of the epoch in ``best/``."""
    note = folder / BEST / BEST_NOTE
    return not note.is_file() or mean > _read_best(note)["mean"]


def _read_best(note: Path) -> dict:
    expected = "the record of the best epoch; delete this file if the selection no longer matters"
    best = {"epoch": -1, "mean": -math.inf} | read_json_object(note, expected)
    epoch, mean = best["epoch"], best["mean"]
    if type(epoch) is not int or type(mean) not in (int, float) or math.isnan(mean):
        raise ContentError(
            f"cannot read {note}: the epoch is {epoch!r:.40} and the mean {mean!r:.40}, which are "
            f"not numbers; expected {expected}"
        )
    return best


def save_best(folder: Path, epoch: int, test_sets: dict[str, float]) -> None:
    """Copy an epoch's checkpoint to ``best/``, replacing the one there."""
    mean = sum(test_sets.values()) / len(test_sets)
    best = checkpoint_path(folder / BEST, epoch)
    best.parent.mkdir(exist_ok=True)
    with _report_full_disk(best):
        copy_file(checkpoint_path(folder, epoch), best)
        write_json(best.parent / BEST_NOTE, {"epoch": epoch, "mean": mean, "test_sets": test_sets})
    _remove_other_epochs(best.parent, epoch)
    logger.info("epoch %d is the best so far on the test sets (mean %.4f): %s", epoch, mean, best)


def _remove_other_epochs(best: Path, epoch: int) -> None:
    for file in best.glob("checkpoint-*.pth"):
        if file != checkpoint_path(best, epoch):
            file.unlink()
