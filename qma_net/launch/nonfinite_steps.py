"""Skipping of optimizer steps with a non-finite loss or gradient, on all ranks.

BenCo's trainer passes the loss of every batch to its loss scaler, which takes an optimizer step
after every ``--accum_iter`` batches. :class:`StepGuard` replaces the scaler and calls it, but
the step is taken only after all ranks have agreed that it is finite.

With fp16 AMP, gradients overflow while ``GradScaler`` searches for its scale. It skips such steps
and lowers the scale itself, so they do not count as non-finite until the scale is down to
:data:`SMALLEST_SCALE`.
"""

import logging
from pathlib import Path
from typing import Any

from .torchrun import LaunchError, max_over_ranks, rank

logger = logging.getLogger(__name__)

SKIPPED_FILE = "skipped.txt"  # In the output folder: skipped steps and replaced images.
SMALLEST_SCALE = 1.0
MAX_SKIPPED_SHARE = 0.01  # Allowed fraction of an epoch's steps, if that exceeds --max_skipped.
LOGGED_IMAGES = 8

_FINITE, _OVERFLOW, _NON_FINITE = range(3)


def record_skipped(folder: Path | None, line: str) -> None:
    """Append a line to ``skipped.txt`` in the output folder, if any; every rank may call this."""
    if folder is not None:
        with open(folder / SKIPPED_FILE, "a", encoding="utf-8") as file:
            file.write(line + "\n")


class StepGuard:
    """A wrapper of BenCo's loss scaler that skips non-finite steps.

    Args:
        max_skipped: The number of steps that may be skipped in a row, and in an epoch unless 1% of
            its steps is a higher number.
        clip_grad: The largest gradient norm of a step; 0 for no limit.
    """

    def __init__(self, *, max_skipped: int, clip_grad: float):
        self.max_skipped, self.clip_grad = max_skipped, clip_grad
        self._skipped_in_a_row = 0
        self.skipped = 0  # In this epoch, not counting
        self.overflows = 0  # the steps that AMP's scale search skipped.

    def begin_epoch(
        self, epoch: int, steps: int, folder: Path | None, model: Any, loss_scaler: Any
    ) -> None:
        """Begin an epoch with the given number of optimizer steps."""
        self._epoch, self._steps, self._folder = epoch, steps, folder
        self._loss_scaler = loss_scaler
        self.skipped = self.overflows = self._step = 0
        # A forward pass changes the statistics of batch norms, and a NaN would stay in them. The
        # buffers outside the state dict are constants.
        saved = model.state_dict(keep_vars=True)
        self._buffers = [
            buffer
            for name, buffer in model.named_buffers()
            if name in saved and buffer.is_floating_point()
        ]
        self._begin_step()

    def _begin_step(self) -> None:
        self._names: list[list[str]] = []
        self._finite_losses: list[Any] = []
        self._saved_buffers = [buffer.detach().clone() for buffer in self._buffers]

    def begin_batch(self, names: list[str]) -> None:
        """Remember the images of the next batch."""
        self._names.append(list(names))

    def __call__(
        self, loss: Any, optimizer: Any, parameters: Any = None, update_grad: bool = True
    ) -> Any:
        """Do the backward pass and, with ``update_grad``, the optimizer step if it is finite."""
        self._finite_losses.append(loss.detach().isfinite().all())
        requested = []
        optimizer.step = lambda: requested.append(True)  # Delay the step.
        try:
            norm = self._loss_scaler(
                loss,
                optimizer,
                clip_grad=self.clip_grad or None,
                parameters=list(parameters),
                update_grad=update_grad,
            )
        finally:
            del optimizer.step
        if not update_grad:
            return None
        state = _NON_FINITE
        finite_losses = [bool(finite) for finite in self._finite_losses]
        if all(finite_losses) and requested:
            state = _FINITE if norm.isfinite() else _NON_FINITE
        elif all(finite_losses) and (self.amp_scale or 0) > SMALLEST_SCALE:
            state = _OVERFLOW  # GradScaler found a non-finite gradient and lowered the scale.
        state = max_over_ranks(state)
        self._step += 1
        if state == _FINITE:
            optimizer.step()
            self._skipped_in_a_row = 0
        elif state == _OVERFLOW:
            self.overflows += 1
        else:
            self._skip(finite_losses)
        self._begin_step()
        return norm

    @property
    def amp_scale(self) -> float | None:
        """The factor that fp16 losses are multiplied by; None without AMP."""
        scaler = self._loss_scaler._scaler
        return scaler.get_scale() if scaler.is_enabled() else None

    def _skip(self, finite_losses: list[bool]) -> None:
        for buffer, saved in zip(self._buffers, self._saved_buffers, strict=True):
            buffer.detach().copy_(saved)
        self.skipped += 1
        self._skipped_in_a_row += 1
        step = f"epoch {self._epoch}, step {self._step} of {self._steps}"
        kind, images = self._affected_images(finite_losses)
        if rank() == 0:
            record_skipped(self._folder, f"{step}: {kind} is not finite: {' '.join(images)}")
        names = " ".join(images[:LOGGED_IMAGES]) + " ..." * (len(images) > LOGGED_IMAGES)
        logger.info("%s was skipped because its %s is not finite: %s", step, kind, names)
        limit = max(self.max_skipped, int(MAX_SKIPPED_SHARE * self._steps))
        if self._skipped_in_a_row > self.max_skipped or self.skipped > limit:
            raise LaunchError(
                f"training diverged: {self._skipped_in_a_row} optimizer steps in a row had a "
                f"non-finite loss or gradient (at most {self.max_skipped} are allowed), and "
                f"{self.skipped} in epoch {self._epoch} (at most {limit}); their images are in "
                f"{SKIPPED_FILE}. Try --clip_grad 1, a lower --lr or --if_not_amp; earlier "
                "checkpoints are intact, and --resume auto resumes from the newest"
            )

    def _affected_images(self, finite_losses: list[bool]) -> tuple[str, list[str]]:
        """Return what was not finite, and the images of all ranks that it was computed from."""
        import torch

        own_batches = list(zip(self._names, finite_losses, strict=True))
        every_rank: list[Any] = [own_batches]
        if torch.distributed.is_initialized():
            every_rank = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(every_rank, own_batches)
        images = [
            (name, finite) for batches in every_rank for names, finite in batches for name in names
        ]
        with_non_finite_loss = [name for name, finite in images if not finite]
        if with_non_finite_loss:
            return "loss", with_non_finite_loss
        return "gradient", [name for name, _ in images]
