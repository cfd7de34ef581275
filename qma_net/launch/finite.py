"""Optimiser steps whose loss or gradient is not finite are not taken, on any rank.

BenCo's trainer hands every batch's loss to its loss scaler, which takes the optimiser's step after
``--accum_iter`` of them. :class:`FiniteSteps` stands in front of it: BenCo's scaler does all that
it does, only the step itself is held back until all ranks have agreed that it is sound.

Under fp16 AMP gradients overflow while ``GradScaler`` searches its scale. It leaves such a step out
and lowers the scale by itself; that is no fault, and is counted as one only where the scale is
down to :data:`SMALLEST_SCALE` and cannot be what makes them overflow.
"""

from pathlib import Path

from .process import LaunchError, greatest, rank, say

SKIPPED = "skipped.txt"  # in the output folder: steps and images that were left out
SMALLEST_SCALE = 1.0
SHARE = 0.01  # of an epoch's steps may be skipped, where that is more than --max_skipped

_SOUND, _OVERFLOWN, _FAULTY = range(3)


def write_skipped(folder: Path | None, line: str) -> None:
    """Adds a line to ``skipped.txt``, where there is an output folder; every rank may."""
    if folder is None:
        return
    with open(folder / SKIPPED, "a", encoding="utf-8") as file:
        file.write(line + "\n")


class FiniteSteps:
    """BenCo's loss scaler for one training, with the steps that are not finite left out.

    Args:
        max_skipped: steps in a row that may be left out, and in an epoch where that is more than
            1 % of its steps.
        clip_grad: largest norm of a step's gradient, handed to BenCo's scaler; 0: no limit.
    """

    def __init__(self, *, max_skipped: int, clip_grad: float):
        self.max_skipped, self.clip_grad = max_skipped, clip_grad
        self.in_a_row = 0

    def begin(self, epoch: int, steps: int, folder: Path | None, model, loss_scaler) -> None:
        """An epoch begins, of so many optimiser steps."""
        self.epoch, self.steps, self.folder = epoch, steps, folder
        self.loss_scaler = loss_scaler
        self.skipped, self.overflown, self.step = 0, 0, 0
        # What a forward pass changes: means and variances of batch norms, which NaN would stay in.
        self._buffers = [one for one in model.buffers() if one.is_floating_point()]
        self._names, self._finite = [], []
        self._remember()

    def batch(self, names: list[str]) -> None:
        """The images of the batch that comes next."""
        self._names.append(list(names))

    def __call__(self, loss, optimizer, parameters=None, update_grad=True):
        """As BenCo's scaler: a backward pass, and with ``update_grad`` an optimiser step."""
        parameters = list(parameters)
        self._finite.append(loss.detach().isfinite().all())
        clip = self.clip_grad or None
        taken = []
        optimizer.step = lambda: taken.append(True)  # held back
        try:
            norm = self.loss_scaler(
                loss, optimizer, clip_grad=clip, parameters=parameters, update_grad=update_grad
            )
        finally:
            del optimizer.step
        if not update_grad:
            return None
        finite = [bool(one) for one in self._finite]
        verdict = greatest(self._verdict(all(finite), bool(taken), bool(norm.isfinite())))
        self.step += 1
        if verdict == _SOUND:
            optimizer.step()
            self.in_a_row = 0
        elif verdict == _OVERFLOWN:
            self.overflown += 1
        else:
            self._skip(finite)
        self._names, self._finite = [], []
        self._remember()
        return norm

    @property
    def amp_scale(self) -> float | None:
        """The factor that fp16 losses are multiplied with; None without AMP."""
        scaler = self.loss_scaler._scaler
        return scaler.get_scale() if scaler.is_enabled() else None

    def _verdict(self, losses_finite: bool, taken: bool, norm_finite: bool) -> int:
        if not losses_finite:
            return _FAULTY
        if not taken:  # GradScaler saw what is not finite
            return _FAULTY if self.amp_scale <= SMALLEST_SCALE else _OVERFLOWN
        return _SOUND if norm_finite else _FAULTY

    def _skip(self, finite: list[bool]) -> None:
        import torch

        with torch.no_grad():
            for buffer, before in zip(self._buffers, self._before, strict=True):
                buffer.copy_(before)
        self.skipped += 1
        self.in_a_row += 1
        where = f"epoch {self.epoch}, step {self.step} of {self.steps}"
        what, images = self._images(finite)
        if rank() == 0:
            write_skipped(self.folder, f"{where}: {what} is not finite: {' '.join(images)}")
        shown = " ".join(images[:8]) + (" ..." if len(images) > 8 else "")
        say(f"{where} is left out, its {what} is not finite: {shown}")
        limit = max(self.max_skipped, int(SHARE * self.steps))
        if self.in_a_row > self.max_skipped or self.skipped > limit:
            raise LaunchError(
                f"got {self.in_a_row} optimiser steps in a row with a non-finite loss or gradient "
                f"({self.skipped} in epoch {self.epoch}), expected at most {self.max_skipped} "
                f"({limit} in an epoch): the images are in {SKIPPED}; "
                "try --clip_grad 1, a lower --lr or --if_not_amp; what was saved before is whole, "
                "and --resume auto goes on from there"
            )

    def _images(self, finite: list[bool]) -> tuple[str, list[str]]:
        """What was not finite, and the images of all ranks that it was computed from."""
        import torch

        batches = zip(self._names[-len(finite) :], finite, strict=False)
        mine = [(name, ok) for names, ok in batches for name in names]
        everyone = [mine]
        if torch.distributed.is_initialized():
            everyone = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(everyone, mine)
        images = [image for one in everyone for image in one]
        with_bad_loss = [name for name, ok in images if not ok]
        if with_bad_loss:
            return "loss", with_bad_loss
        return "gradient", [name for name, _ in images]

    def _remember(self) -> None:
        import torch

        with torch.no_grad():
            self._before = [buffer.clone() for buffer in self._buffers]
