"""Settings of an evaluation: how images are fed to the model."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from ..core.errors import QMANetError
from ..modeling.config import FITS, Preprocessing


class EvaluationError(QMANetError):
    """Raised if the input cannot be evaluated."""


@dataclass(frozen=True)
class Settings:
    """How images are fed to the model.

    Args:
        fit: ``"resize"`` or ``"pad"`` to a square of ``image_size`` pixels, as in BenCo, or
            ``"native"`` to evaluate one image at a time at its original resolution. Empty: as in
            training.
        image_size: Side of the square in pixels. 0: as in training. It has no effect on images at
            their original resolution.
        batch_size: Images per forward pass and process.
        ignore_border: Width of the band on both sides of the mask's boundary that pixel-level
            metrics exclude, in pixels of the evaluated mask; see
            :func:`.metrics.boundary_band`.

    Raises:
        EvaluationError: If a value is invalid.
    """

    fit: str = ""
    image_size: int = 0
    batch_size: int = 4
    ignore_border: int = 0

    def __post_init__(self) -> None:
        if self.fit not in ("", *FITS):
            raise EvaluationError(f"unknown fit {self.fit!r}; choose from {', '.join(FITS)}")
        if self.batch_size < 1 or (self.image_size and self.image_size < 32):
            raise EvaluationError(
                f"invalid batch size {self.batch_size} or image size {self.image_size}: expected "
                "at least 1 and 32"
            )
        if self.ignore_border < 0:
            raise EvaluationError(
                f"invalid border {self.ignore_border}: expected a number of pixels, at least 0"
            )

    def as_header(self) -> dict[str, Any]:
        """Return the settings for a result file; ``ignore_border`` only if it is not 0."""
        settings = asdict(self)
        if not self.ignore_border:  # Earlier versions did not record it.
            del settings["ignore_border"]
        return settings

    def completed(self, trained: Preprocessing | None) -> "Settings":
        """Fill in missing values as in training, or as in the paper if that is unknown."""
        default = trained or Preprocessing()
        fit = self.fit or default.fit
        size = 0 if fit == "native" else self.image_size
        return replace(self, fit=fit, image_size=size or default.image_size)


AS_TRAINED = Settings()
