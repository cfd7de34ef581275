"""Limits of what the page accepts, and the errors for requests beyond them."""

from dataclasses import dataclass

from ..core.errors import QMANetError


class ServeError(QMANetError):
    """A request that the page refuses."""


class Stopped(Exception):
    """Raised inside an examination to end it, because its user stopped it or left the page."""


@dataclass(frozen=True)
class Limits:
    """What one request may cost.

    Attributes:
        megabytes: Size of an uploaded file.
        megapixels: Size of a photo.
        minutes: Duration of one examination; checked between tiles.
        waiting: Examinations that may wait while another one is computed.
    """

    megabytes: int = 50
    megapixels: int = 100
    minutes: float = 30
    waiting: int = 8

    @property
    def bytes(self) -> int:
        """Size of an uploaded file in bytes; as in Gradio, a megabyte is 2**20 bytes."""
        return self.megabytes * 2**20

    def require_size(self, name: str, size: int) -> None:
        """Raise :class:`ServeError` if a file has too many bytes."""
        if size > self.bytes:
            raise ServeError(
                f"{name} has {size / 2**20:.0f} MB; the page accepts at most {self.megabytes} MB. "
                "Use qma-net examine for larger files."
            )

    def require_pixels(self, name: str, width: int, height: int) -> None:
        """Raise :class:`ServeError` if a photo has too many pixels."""
        if width * height > self.megapixels * 10**6:
            raise ServeError(
                f"{name} has {width}x{height} pixels; the page accepts at most {self.megapixels} "
                "million. Use qma-net examine for larger photos."
            )

    def require_time(self, seconds: float) -> None:
        """Raise :class:`ServeError` if an examination has taken too long."""
        if seconds > 60 * self.minutes:
            raise ServeError(
                f'the examination took more than {self.minutes:g} minutes; clear "Original '
                'size", or use qma-net examine --native'
            )
