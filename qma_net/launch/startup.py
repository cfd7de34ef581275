"""The thousand lines before the first epoch go to a file; the console gets a summary."""

import io
import sys
from pathlib import Path

from .process import MARK, rank, say

STARTUP = "startup.txt"  # in the output folder: what was printed before the first epoch
TAIL = 30  # lines of it that are shown where the start fails

# BenCo's lines that the console gets too, beside the launcher's.
SHOWN = (MARK, "distributed init", "effective batch size", "Resume checkpoint", "Start training")


class Startup(io.TextIOBase):
    """In place of ``sys.stdout`` on the first rank, from the start to the first epoch."""

    def __init__(self):
        self._console, self._file, self._line = sys.stdout, None, ""
        self._lines: list[str] = []
        self.path: Path | None = None

    def begin(self) -> None:
        """What is printed from here on is kept."""
        if rank() == 0:
            sys.stdout = self

    def write_to(self, folder: Path | None) -> None:
        """Keeps it in the output folder, what was kept before too; without one it is printed."""
        if sys.stdout is not self:
            return
        if folder is None:
            sys.stdout = self._console
            self._console.writelines(line for line in self._lines if not _is_shown(line))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self.path = folder / STARTUP
            self._file = open(self.path, "w", encoding="utf-8")  # noqa: SIM115
            self._file.writelines(self._lines)
            self._file.flush()

    def write(self, text: str) -> int:
        """Keeps whole lines; those of :data:`SHOWN` are passed on."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._lines.append(line + "\n")
            if self._file:
                self._file.write(line + "\n")
            if _is_shown(line):
                self._console.write(line + "\n")
        return len(text)

    def flush(self) -> None:
        """Passes on to the file and the console."""
        if self._file:
            self._file.flush()
        self._console.flush()

    def end(self) -> None:
        """What is printed from here on is for the console again."""
        if sys.stdout is not self:
            return
        if self._line:
            self.write("\n")
        self.flush()
        sys.stdout = self._console
        if self._file:
            self._file.close()
            say(f"the whole start, {len(self._lines)} lines: {self.path}")

    def fail(self) -> None:
        """The start has failed: what was printed last is for the console."""
        if sys.stdout is not self:
            return
        self.end()
        self._console.write("".join(self._lines[-TAIL:]))
        self._console.flush()


def _is_shown(line: str) -> bool:
    return any(words in line for words in SHOWN)


def summary(model, data_loader, args) -> list[str]:
    """What a person wants to read before the first epoch.

    Args:
        model: the model that is trained, without DDP.
        data_loader: BenCo's, of the training set.
        args: BenCo's flags.
    """
    import torch

    parameters = list(model.parameters())
    trained = sum(one.numel() for one in parameters if one.requires_grad)
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    total = args.batch_size * args.accum_iter * processes
    amp = not args.if_not_amp and torch.cuda.is_available()
    last = args.epochs - 1
    config = getattr(model, "config", None)
    flags = f", {' '.join(config.as_flags())}" if hasattr(config, "as_flags") else ""
    return [
        f"model: {args.model}, {sum(one.numel() for one in parameters) / 1e6:.1f} M parameters, "
        f"{trained / 1e6:.1f} M of them trained{flags}",
        f"data: {_training_counts(data_loader.dataset)}",
        f"test sets: {_test_counts(args.test_data_path)}",
        f"steps: batch {args.batch_size} x accumulation {args.accum_iter} x {processes} "
        f"process{'es' * (processes > 1)} = {total} images, "
        f"{len(data_loader) // args.accum_iter} an epoch",
        f"run: epochs {args.start_epoch} to {last}, learning rate {args.lr:g} to {args.min_lr:g}, "
        f"{'fp16 AMP' if amp else 'no AMP'}, cuDNN "
        f"{'on' if torch.backends.cudnn.enabled else 'off (--cudnn turns it on)'}",
    ]


def lists_of(dataset) -> list:
    """The datasets that a training set of BenCo's is made of: itself, or those of a protocol."""
    return getattr(dataset, "dataset_list", [dataset])


def _training_counts(dataset) -> str:
    lists = lists_of(dataset)
    counts = [f"{Path(str(one.entry_path)).stem} {len(one):,}" for one in lists]
    drawn = f"; {len(dataset):,} drawn an epoch" if len(lists) > 1 else ""
    return f"{', '.join(counts)}{drawn}"


def _test_counts(path: str) -> str:
    from ..data.listing import read_listings

    return ", ".join(f"{one.name} {len(one.pairs):,}" for one in read_listings(path))
