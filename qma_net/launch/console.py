"""What a run prints: the launcher's messages, the startup log and the summary of a training."""

import argparse
import io
import logging
import sys
import warnings
from pathlib import Path
from typing import Any, TextIO

from .torchrun import rank
from .unreadable_images import EVERY_RANK, member_datasets

logger = logging.getLogger(__name__)

MARK = "[qma-net] "  # Every message of the launcher begins with it.
STARTUP_FILE = "startup.txt"  # In the output folder: what was printed before the first epoch.
LAST_LINES = 30  # Lines of the startup log that are printed if the start fails.

# Lines that are printed as well as written to the startup log, of the launcher and of BenCo.
PRINTED = (MARK, "distributed init", "effective batch size", "Resume checkpoint", "Start training")


class _ConsoleHandler(logging.Handler):
    """Print messages of the first rank, and those of every rank if they are marked so."""

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

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        logger.warning("%s", message)

    warnings.filterwarnings("default", module=r"qma_net\.")
    warnings.showwarning = show


class StartupLog(io.TextIOBase):
    """Takes the place of ``sys.stdout`` on the first rank from the start to the first epoch.

    BenCo prints about a thousand lines before the first epoch. They go to a file, and only those
    that match :data:`PRINTED` to the console.
    """

    def __init__(self) -> None:
        self._console = sys.stdout
        self._file: TextIO | None = None
        self._lines: list[str] = []
        self._unfinished_line = ""
        self.path: Path | None = None

    def begin(self) -> None:
        """Capture what is printed from now on."""
        if rank() == 0:
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
            self._file = open(self.path, "w", encoding="utf-8")  # noqa: SIM115
            self._file.writelines(self._lines)
            self._file.flush()

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
        """Flush the file and the console."""
        if self._file:
            self._file.flush()
        self._console.flush()

    def end(self) -> None:
        """Stop capturing and close the file."""
        if sys.stdout is not self:
            return
        if self._unfinished_line:
            self.write("\n")
        self.flush()
        sys.stdout = self._console
        if self._file:
            self._file.close()
            logger.info("full startup log (%d lines): %s", len(self._lines), self.path)

    def fail(self) -> None:
        """Stop capturing and print the last lines, since the start has failed."""
        if sys.stdout is not self:
            return
        self.end()
        self._console.write("".join(self._lines[-LAST_LINES:]))
        self._console.flush()


def _is_printed(line: str) -> bool:
    return any(words in line for words in PRINTED)


def training_summary(model: Any, data_loader: Any, args: argparse.Namespace) -> list[str]:
    """Describe a training in a few lines.

    Args:
        model: The model to train, without DDP.
        data_loader: BenCo's loader of the training set.
        args: BenCo's flags.
    """
    import torch

    parameters = list(model.parameters())
    count = sum(parameter.numel() for parameter in parameters)
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    total = args.batch_size * args.accum_iter * processes
    amp = not args.if_not_amp and torch.cuda.is_available()
    as_flags = getattr(getattr(model, "config", None), "as_flags", None)
    flags = f", {' '.join(as_flags())}" if as_flags else ""
    return [
        f"model: {args.model}, {count / 1e6:.1f} M parameters, "
        f"{trainable / 1e6:.1f} M of them trainable{flags}",
        f"data: {_training_counts(data_loader.dataset)}",
        f"test sets: {_test_counts(args.test_data_path)}",
        f"steps: batch {args.batch_size} x accumulation {args.accum_iter} x {processes} "
        f"process{'es' * (processes > 1)} = {total} images, "
        f"{len(data_loader) // args.accum_iter} steps per epoch",
        f"run: epochs {args.start_epoch} to {args.epochs - 1}, "
        f"learning rate {args.lr:g} to {args.min_lr:g}, {'fp16 AMP' if amp else 'no AMP'}, "
        f"cuDNN {'on' if torch.backends.cudnn.enabled else 'off (enable it with --cudnn)'}",
    ]


def _training_counts(dataset: Any) -> str:
    members = member_datasets(dataset)
    counts = [f"{Path(str(member.entry_path)).stem} {len(member):,}" for member in members]
    drawn = f"; {len(dataset):,} drawn per epoch" if len(members) > 1 else ""
    return f"{', '.join(counts)}{drawn}"


def _test_counts(path: str) -> str:
    from ..data.listing import read_listings

    return ", ".join(f"{listing.name} {len(listing.pairs):,}" for listing in read_listings(path))
