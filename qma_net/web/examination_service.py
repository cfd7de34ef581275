"""The service that examines uploaded photos, one at a time and within limits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.images import ImageError
from ..examine.evidence import Evidence, read_evidence
from ..examine.examination import Examination
from ..examine.metadata import printable
from ..examine.pipeline import describe_settings, examine_evidence
from ..inference.photograph import open_photograph
from ..inference.predictor import QMANetPredictor
from ..modeling.config import DEFAULT_THRESHOLD
from .jobs import Jobs, Progress
from .limits import Limits, ServeError
from .sessions import Result, Sessions

if TYPE_CHECKING:
    from .registered import RegisteredModel

PROGRESS_INTERVAL = 0.4  # seconds


@dataclass(frozen=True)
class Step:
    """The progress of an examination.

    Attributes:
        position: The number of photos that precede it in the queue.
        tiles: The number of finished tiles, and of all tiles.
        seconds_left: The estimated remaining time; None before the first tile.
    """

    position: int
    tiles: tuple[int, int]
    seconds_left: float | None


class ExaminationService:
    """Examines photos for all open pages, one at a time.

    Args:
        predictor: The model; None to examine photos without one.
        sessions: The open pages.
        limits: The limits of a request.
        note: A note that is shown with every mask.
        prepare: Called in the computing thread before its first photo.
    """

    def __init__(
        self,
        predictor: "QMANetPredictor | RegisteredModel | None",
        sessions: Sessions,
        limits: Limits,
        *,
        note: str = "",
        prepare: Callable[[], None] = lambda: None,
    ):
        self._predictor, self._limits = predictor, limits
        self._settings = [  # Indexed by `native`.
            describe_settings(predictor, threshold=DEFAULT_THRESHOLD, native=native)
            for native in (False, True)
        ]
        self._notes = (note,) if note else ()
        self.sessions, self._jobs = sessions, Jobs(limits, prepare)

    @property
    def supports_native(self) -> bool:
        """Whether there is a model that can process a photo at its original size."""
        return bool(self._predictor) and getattr(self._predictor, "supports_native", True)

    @property
    def about(self) -> str:
        """A description of the model as HTML; empty without a model."""
        if self._predictor is None:
            return ""
        settings = self._settings[False]
        checkpoint = Path(settings["checkpoint"] or "no checkpoint").name
        model = f"Model: {settings.get('name', 'QMA-Net')}, {checkpoint}"
        notes = (model, *self._predictor.notes, *self._notes)
        return "; ".join(escape(printable(note)) for note in notes) + "."

    def examine(self, path: str | None, *, native: bool, name: str) -> Iterator[Step | Result]:
        """Examine an upload; yield the progress, and finally the result.

        Args:
            path: The uploaded file.
            native: Process the photo at its original size.
            name: The name of the page's session.

        Raises:
            QMANetError: If the file is not a photo or exceeds the limits.
            Stopped: If the visitor stopped the examination or left the page.
        """
        session = self.sessions.of(name)
        job = session.job = self._jobs.add(lambda progress: self._examine(path, native, progress))
        try:
            while not job.wait(PROGRESS_INTERVAL):
                yield Step(self._jobs.position(job), job.tiles, job.seconds_left())
            yield session.keep(job.result())
        finally:
            job.stop()  # The generator may be closed early, when nobody waits for the result.

    def stop(self) -> None:
        """Stop all running and waiting examinations."""
        self._jobs.stop()

    def close(self) -> None:
        """Stop all examinations and wait until they have ended."""
        self._jobs.close()

    def _examine(self, path: str | None, native: bool, progress: Progress) -> Examination:
        evidence = self._read(path)
        return examine_evidence(
            evidence,
            self._predictor,
            self._settings[native],
            notes=self._notes,
            progress=progress,
        )

    def _read(self, path: str | None) -> Evidence:
        if not path:
            raise ServeError("no photo was given; choose, drop or paste one first")
        file = Path(path)
        name = printable(file.name)
        if not file.is_file():
            raise ServeError(
                f"{name} was removed when the page's connection ended; upload it again"
            )
        self._limits.require_size(name, file.stat().st_size)
        content = file.read_bytes()
        try:
            with open_photograph(content, name) as image:
                self._limits.require_pixels(name, *image.size)
        except ImageError:
            pass  # read_evidence reports the fault, or reads the file in another way.
        evidence = read_evidence(content, name)
        height, width = evidence.photograph.pixels.shape[:2]
        self._limits.require_pixels(name, width, height)
        return evidence
