"""Limits on what the page accepts, and the error for requests that exceed them."""

from dataclasses import dataclass

from ..core.errors import QMANetError


class ServeError(QMANetError):
    """A request that is refused or cannot be served, with the HTTP status of the response."""

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """Resource limits for requests.

    A megabyte is 2**20 bytes, a gigabyte 2**30.

    Attributes:
        megabytes: Size of an uploaded file.
        megapixels: Size of a photo.
        minutes: Duration of one examination.
        memory_gigabytes: Memory of the process that examines photos, in addition to its model.
        waiting: Examinations that may wait while another one is computed.
        uploads: Uploads that may be open at the same time.
        upload_seconds: Duration of an upload.
        response_seconds: Duration of sending a response.
        idle_seconds: Longest pause in an upload, in reading a response, and on a connection without
            a complete request.
        connections: Open connections; the longest idle ones are closed when there are more.
        streams: Event streams of one examination.
        kept: Examinations whose files are kept at the same time.
        kept_gigabytes: Total size of their files.
        kept_minutes: How long an examination is kept after the last request for it.
        claim_minutes: How long an examination is kept if it is never requested.
    """

    megabytes: float = 50
    megapixels: float = 100
    minutes: float = 30
    memory_gigabytes: float = 8
    waiting: int = 8
    uploads: int = 16
    upload_seconds: float = 120
    response_seconds: float = 300
    idle_seconds: float = 15
    connections: int = 500
    streams: int = 4
    kept: int = 200
    kept_gigabytes: float = 20
    kept_minutes: float = 60
    claim_minutes: float = 5

    @property
    def bytes(self) -> int:
        """Maximum size of an uploaded file in bytes."""
        return int(self.megabytes * 2**20)

    def require_pixels(self, name: str, width: int, height: int) -> None:
        """Raise :class:`ServeError` if a photo has too many pixels."""
        if width * height > self.megapixels * 10**6:
            raise ServeError(
                f"{name} has {width}x{height} pixels; the page accepts at most "
                f"{self.megapixels:g} million. Use qma-net examine for larger photos.",
                413,
            )
