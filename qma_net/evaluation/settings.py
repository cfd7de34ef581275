"""How images reach the model that is evaluated."""

from dataclasses import dataclass, replace

from ..core.errors import QMANetError
from ..modeling.config import FITS, Preprocessing


class EvaluationError(QMANetError):
    """Input that cannot be evaluated; one line says got, expected and remedy."""


@dataclass(frozen=True)
class Settings:
    """How the images reach the model.

    Args:
        fit: ``"resize"`` to or ``"pad"`` into a square of ``image_size`` pixels, as BenCo trains,
            or ``"native"``: every image at its own size, one at a time. Empty: as trained.
        image_size: side of that square in pixels. 0: as trained.
        batch_size: images per forward pass and process.
    """

    fit: str = ""
    image_size: int = 0
    batch_size: int = 4

    def __post_init__(self):
        if self.fit not in ("", *FITS):
            raise EvaluationError(f"got fit {self.fit!r}, expected {', '.join(FITS)}")
        if self.batch_size < 1 or (self.image_size and self.image_size < 32):
            raise EvaluationError(
                f"got batch size {self.batch_size} and image size {self.image_size}, expected at "
                "least 1 and 32"
            )

    def completed(self, trained: Preprocessing | None) -> "Settings":
        """The settings with what is left open filled in: as trained, else as the paper's."""
        known = trained or Preprocessing()
        return replace(
            self, fit=self.fit or known.fit, image_size=self.image_size or known.image_size
        )


AS_TRAINED = Settings()
