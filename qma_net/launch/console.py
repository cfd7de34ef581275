"""Console output: the launcher's messages, the startup log and the summary of a training run."""

import argparse
import io
import logging
import sys
import warnings
from pathlib import Path
from typing import Any, TextIO

from ..data.listing import Listing
from .torchrun import rank
from .unreadable_images import EVERY_RANK, member_datasets

logger = logging.getLogger(__name__)

MARK = "[qma-net] "  # Every message of the launcher begins with it.
STARTUP_FILE = "startup.txt"  # In the output folder: the output before the first epoch.
LAST_LINES = 30  # Lines of the startup log that are printed if the start fails.

# Lines of the launcher and of BenCo that contain one of these are printed as well as logged.
PRINTED = (MARK, "distributed init", "effective batch size", "Resume checkpoint")


class _ConsoleHandler(logging.Handler):
    """Print messages from the first rank, and messages marked as coming from every rank."""

    def emit(self, record: logging.LogRecord) -> None:
        if rank() == 0 or getattr(record, EVERY_RANK, False):
            sys.stdout.write(f"{MARK}{self.format(record)}\n")
            sys.stdout.flush()


def configure_logging() -> None:
    """Print the messages of ``qma_net`` at level INFO and above as plain lines."""
    package = logging.getLogger("qma_net")
    package.handlers = [_ConsoleHandler()]
    package.setLevel(logging.INFO)
    package.propagate = False


def log_own_warnings() -> None:
    """Log QMA-Net's warnings; BenCo's models switch off all warnings when they are imported."""

    def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        logger.warning("%s", message)

    warnings.filterwarnings("default", module=r"qma_net\.")
    warnings.showwarning = show


class StartupLog(io.TextIOBase):
    """Replaces ``sys.stdout`` on the first rank from the start to the first epoch.

    BenCo prints about a thousand lines before the first epoch. They go to a file, and only those
    that match :data:`PRINTED` to the console. Without ``capture``, nothing is changed.
    """

    def __init__(self, *, capture: bool) -> None:
        self._console = sys.stdout
        self._file: TextIO | None = None
        self._lines: list[str] = []
        self._unfinished_line = ""
        self.path: Path | None = None
        if capture:
            sys.stdout = self

    def write_to(self, folder: Path | None) -> None:
        """Write the log to a file in the output folder; without a folder, print everything."""
        if sys.stdout is not self:
            return
        if folder is None:
            sys.stdout = self._console
            self._console.writelines(line for line in self._lines if not _is_printed(line))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self.path = folder / STARTUP_FILE
            self._file = open(self.path, "w", buffering=1, encoding="utf-8")  # noqa: SIM115
            self._file.writelines(self._lines)

    def write(self, text: str) -> int:
        """Add text to the log."""
        *lines, self._unfinished_line = (self._unfinished_line + text).split("\n")
        for line in lines:
            self._lines.append(line + "\n")
            if self._file:
                self._file.write(line + "\n")
            if _is_printed(line):
                self._console.write(line + "\n")
        return len(text)

    def flush(self) -> None:
        """Flush the console."""
        self._console.flush()

    def end(self, *, failed: bool = False) -> None:
        """Stop capturing and close the file; if the start has failed, print the last lines."""
        if sys.stdout is not self:
            return
        if self._unfinished_line:
            self.write("\n")
        sys.stdout = self._console
        if self._file:
            self._file.close()
            logger.info("full startup log (%d lines): %s", len(self._lines), self.path)
        if failed:
            self._console.writelines(self._lines[-LAST_LINES:])
        self.flush()


def _is_printed(line: str) -> bool:
    return any(words in line for words in PRINTED)


def training_summary(
    model: Any, data_loader: Any, test_sets: list[Listing], args: argparse.Namespace
) -> list[str]:
    """Describe a training run in a few lines; ``model`` is the model without DDP."""
    import torch

    parameters = list(model.parameters())
    count = sum(parameter.numel() for parameter in parameters)
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    total = args.batch_size * args.accum_iter * processes
    members = member_datasets(data_loader.dataset)
    data = ", ".join(f"{Path(str(m.entry_path)).stem} {len(m):,}" for m in members)
    if len(members) > 1:
        data += f"; {len(data_loader.dataset):,} drawn per epoch"
    tests = ", ".join(f"{test.name} {len(test.pairs):,}" for test in test_sets)
    amp = not args.if_not_amp and torch.cuda.is_available()
    as_flags = getattr(getattr(model, "config", None), "as_flags", None)
    flags = f", {' '.join(as_flags())}" if as_flags else ""
    return [
        f"model: {args.model}, {count / 1e6:.1f} M parameters, "
        f"{trainable / 1e6:.1f} M of them trainable{flags}",
        f"data: {data}",
        f"test sets: {tests}",
        f"steps: batch {args.batch_size} x accumulation {args.accum_iter} x {processes} "
        f"process{'es' * (processes > 1)} = {total} images, "
        f"{len(data_loader) // args.accum_iter} steps per epoch",
        f"run: epochs {args.start_epoch} to {args.epochs - 1}, "
        f"learning rate {args.lr:g} to {args.min_lr:g}, {'fp16 AMP' if amp else 'no AMP'}, "
        f"cuDNN {'on' if torch.backends.cudnn.enabled else 'off (enable it with --cudnn)'}",
    ]
