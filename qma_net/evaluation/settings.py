"""How images reach the model that is evaluated."""

from dataclasses import dataclass

from ..errors import QMANetError


class EvaluationError(QMANetError):
    """Input that cannot be evaluated; one line says got, expected and remedy."""


@dataclass(frozen=True)
class Settings:
    """How the images reach the model.

    Args:
        fit: ``"resize"`` to or ``"pad"`` into a square of ``image_size`` pixels, as BenCo trains,
            or ``"native"``: every image at its own size, one at a time.
        image_size: side of that square in pixels.
        batch_size: images per forward pass and process.
    """

    fit: str = "resize"
    image_size: int = 512
    batch_size: int = 4

    def __post_init__(self):
        if self.fit not in ("resize", "pad", "native"):
            raise EvaluationError(f"got fit {self.fit!r}, expected resize, pad or native")
        if self.batch_size < 1 or self.image_size < 32:
            raise EvaluationError(
                f"got batch size {self.batch_size} and image size {self.image_size}, expected at "
                "least 1 and 32"
            )


AS_TRAINED = Settings()  # as the paper's models are trained
