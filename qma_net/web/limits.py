"""What the page takes on, and the one line for what is beyond it."""

from dataclasses import dataclass

from ..core.errors import QMANetError


class ServeError(QMANetError):
    """What the page cannot do; one line says what was got, what is expected and what to do."""


class Stopped(Exception):
    """Raised inside an examination to end it: its user said stop, or left."""


@dataclass(frozen=True)
class Limits:
    """What one request may cost.

    Attributes:
        megabytes: of an uploaded file.
        megapixels: of a photograph.
        minutes: of one examination; looked at between tiles.
        waiting: examinations that may wait for the one that computes.
    """

    megabytes: int = 50
    megapixels: int = 100
    minutes: float = 30
    waiting: int = 8

    @property
    def bytes(self) -> int:
        """The same in bytes; a megabyte is 2**20 of them, as in Gradio's words on it."""
        return self.megabytes * 2**20

    def require_size(self, name: str, size: int) -> None:
        """Raises :class:`ServeError` for a file of more bytes."""
        if size > self.bytes:
            raise ServeError(
                f"got {name} of {size / 2**20:.0f} MB, expected at most {self.megabytes} MB: "
                "larger ones go through qma-net examine"
            )

    def require_pixels(self, name: str, width: int, height: int) -> None:
        """Raises :class:`ServeError` for a photograph of more pixels."""
        if width * height > self.megapixels * 10**6:
            raise ServeError(
                f"got {name} of {width}x{height} pixels, expected at most {self.megapixels} "
                "million: larger ones go through qma-net examine"
            )

    def require_time(self, seconds: float) -> None:
        """Raises :class:`ServeError` for an examination that has taken longer."""
        if seconds > 60 * self.minutes:
            raise ServeError(
                f"got an examination of more than {self.minutes:g} minutes, expected less: leave "
                "its own size away, or use qma-net examine --native"
            )
