"""What the page asks of the rest: a photograph examined, within limits, in its turn."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from ..core.images import PictureError, open_picture
from ..examine.examination import Evidence, Examination, examine, read_evidence, without_model
from ..examine.exif import printable
from .jobs import Jobs
from .limits import Limits, ServeError
from .sessions import Result, Sessions

THRESHOLD = 0.5  # of the first look; the page's slider changes it
BEAT = 0.4  # seconds between two looks at how far an examination is


@dataclass(frozen=True)
class Step:
    """How far an examination is.

    Attributes:
        before: photographs that come before it.
        tiles: looked at, and of how many.
        seconds_left: by these; None before the first.
    """

    before: int
    tiles: tuple[int, int]
    seconds_left: float | None


class Desk:
    """Examines photographs for all pages, one at a time.

    Args:
        predictor: a :class:`~qma_net.inference.predictor.QMANetPredictor` or a
            :class:`~qma_net.web.registered.RegisteredModel`; None without a model.
        sessions: of the open pages.
        limits: of what is taken on.
        note: what must be said with every mask.
        prepare: called in the thread that computes, before its first photograph.
    """

    def __init__(
        self,
        predictor,
        sessions: Sessions,
        limits: Limits,
        *,
        note: str = "",
        prepare: Callable[[], None] = lambda: None,
    ):
        self._predictor, self._limits = predictor, limits
        self._settings = [  # by whether it looks at a photograph's own size
            predictor.examination_settings(threshold=THRESHOLD, native=native)
            if predictor
            else without_model()
            for native in (False, True)
        ]
        self._notes = (note,) if note else ()
        self.sessions, self._jobs = sessions, Jobs(limits, prepare)

    @property
    def takes_native(self) -> bool:
        """Whether there is a model that can look at a photograph at its own size."""
        return bool(self._predictor) and getattr(self._predictor, "takes_native", True)

    @property
    def about(self) -> str:
        """What a visitor must know of the model, as HTML; nothing without one."""
        if self._predictor is None:
            return ""
        settings = self._settings[False]
        checkpoint = Path(settings["checkpoint"] or "no checkpoint").name
        model = f"Model: {settings.get('name', 'QMA-Net')}, {checkpoint}"
        said = (model, *self._predictor.notes, *self._notes)
        return "; ".join(escape(printable(part)) for part in said) + "."

    def examine(self, path: str | None, *, native: bool, name: str) -> Iterator[Step | Result]:
        """Examines an upload; yields how far it is, and at last its result.

        Args:
            path: of the upload.
            native: at its own size.
            name: of the page's session.

        Raises:
            QMANetError: for what is no photograph, or beyond the limits.
            Stopped: when its visitor stopped it or left.
        """
        session = self.sessions.of(name)
        job = session.job = self._jobs.add(lambda progress: self._look(path, native, progress))
        try:
            while not job.is_done(BEAT):
                yield Step(self._jobs.before(job), job.tiles, job.seconds_left())
            yield session.keep(job.result())
        finally:
            job.stop()  # where nobody waits for it any more

    def stop(self) -> None:
        """Has everything end that runs or waits."""
        self._jobs.stop()

    def close(self) -> None:
        """The same, and waits for it."""
        self._jobs.close()

    def _look(self, path: str | None, native: bool, progress: Callable) -> Examination:
        evidence = self._read(path)
        settings = self._settings[native]
        if self._predictor is None:
            return examine(evidence, settings)
        return self._predictor.examined(evidence, settings, notes=self._notes, progress=progress)

    def _read(self, path: str | None) -> Evidence:
        if not path:
            raise ServeError("got no photograph, expected one: choose, drop or paste it first")
        file = Path(path)
        name = printable(file.name)
        if not file.is_file():
            raise ServeError(
                f"got {name}, which was removed when the page's connection ended, expected it "
                "here: give it once more"
            )
        self._limits.require_size(name, file.stat().st_size)
        content = file.read_bytes()
        try:
            with open_picture(content, name=name) as picture:
                self._limits.require_pixels(name, *picture.size)
        except PictureError:
            pass  # reading it says what it is instead, or reads it in another way
        evidence = read_evidence(content, name)
        height, width = evidence.photograph.pixels.shape[:2]
        self._limits.require_pixels(name, width, height)
        return evidence
