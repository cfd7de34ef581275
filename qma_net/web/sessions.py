"""The data of open pages, in folders that are removed when the pages are closed."""

import json
import secrets
import shutil
import tempfile
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from ..examine.examination import Examination
from ..examine.page import render_page, shrink
from ..inference.prediction import as_grey
from .jobs import Job
from .limits import Stopped

FAST_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]  # Sent over loopback, so that time counts, not size.
THRESHOLD_STEPS = 100
STRIP_ROWS = 256  # Rows of a mask that are counted at once, to limit memory.
MAX_SESSIONS = 40  # The oldest session is closed when another page is opened.


class Result:
    """An examination whose arrays are on disk, available at any threshold.

    Args:
        examination: The examination.
        folder: An empty folder for its arrays.
    """

    def __init__(self, examination: Examination, folder: Path):
        evidence, prediction = examination.evidence, examination.prediction
        photograph, readability = evidence.photograph, examination.readability
        photograph = replace(photograph, pixels=_on_disk(photograph.pixels, folder / "pixels.npy"))
        if prediction:
            mask = _on_disk(prediction.mask, folder / "mask.npy")
            prediction = replace(prediction, mask=mask, photograph=photograph)
        self.token = secrets.token_urlsafe(16)
        self.examination = replace(
            examination,
            evidence=replace(evidence, photograph=photograph),
            readability=replace(
                readability, reasons=_on_disk(readability.reasons, folder / "reasons.npy")
            ),
            leads=tuple(replace(lead, picture=shrink(lead.picture)) for lead in examination.leads),
            prediction=prediction,
        )

    @property
    def stem(self) -> str:
        """The photo's file name without its suffix."""
        return Path(self.examination.evidence.photograph.name).stem or "photograph"

    def at(self, threshold: float | None) -> Examination:
        """Return the examination at another threshold; None keeps the threshold."""
        examination = self.examination
        if threshold is None or examination.prediction is None:
            return examination
        return replace(
            examination,
            prediction=replace(examination.prediction, threshold=threshold),
            settings={**examination.settings, "threshold": threshold},
        )

    def shares(self) -> list[float]:
        """Return the marked share of the photo at each step of the threshold slider."""
        assert self.examination.prediction
        mask = self.examination.prediction.mask
        counts = np.zeros(THRESHOLD_STEPS + 1, np.int64)
        for top in range(0, len(mask), STRIP_ROWS):
            strip = mask[top : top + STRIP_ROWS]
            first_unmarked_step = np.ceil(strip * THRESHOLD_STEPS).astype(np.int64)
            counts += np.bincount(first_unmarked_step.ravel(), minlength=THRESHOLD_STEPS + 1)
        return [round(1 - share, 4) for share in (counts.cumsum() / mask.size).tolist()]

    def image(self, name: str, threshold: float | None) -> bytes | None:
        """Return an image as PNG; None if there is no model.

        Args:
            name: ``photograph``, ``mask``, ``unreadable`` or ``overlay``.
            threshold: The threshold of the overlay; None keeps the threshold.
        """
        examination = self.at(threshold)
        if name == "photograph":
            return _png(examination.evidence.photograph.pixels)
        if name == "unreadable":
            return _png(examination.readability.unreadable.astype(np.uint8) * 255)
        if examination.prediction is None:
            return None
        is_mask = name == "mask"
        return _png(as_grey(examination.prediction.mask) if is_mask else examination.overlay())

    def report(self, threshold: float | None, *, images: bool) -> str:
        """Return the report as HTML, with or without its large images."""
        return render_page(self.at(threshold), images=images)

    def report_json(self, threshold: float | None) -> str:
        """Return the content of ``report.json``."""
        return json.dumps(self.at(threshold).report(), indent=1) + "\n"


class Session:
    """One open page: its last upload, its running examination and its last result.

    Args:
        folder: A folder for its arrays; :meth:`close` removes it.
    """

    def __init__(self, folder: Path):
        self._folder, self._lock, self._is_closed = folder, threading.Lock(), False
        self.upload: Path | None = None
        self.job: Job | None = None
        self.result: Result | None = None

    def keep(self, examination: Examination) -> Result:
        """Replace the last result by that of an examination, and return it.

        Raises:
            Stopped: If the page has been closed in the meantime.
        """
        with self._lock:
            if self._is_closed:
                raise Stopped
            for folder in self._folder.iterdir():
                shutil.rmtree(folder)
            self.result = Result(examination, Path(tempfile.mkdtemp(dir=self._folder)))
            return self.result

    def stop(self) -> None:
        """Stop the running or waiting examination."""
        if self.job:
            self.job.stop()

    def close(self) -> None:
        """Stop the examination and remove the folder."""
        self.stop()
        with self._lock:
            self._is_closed, self.result = True, None
            shutil.rmtree(self._folder, ignore_errors=True)


class Sessions:
    """All open pages, by Gradio's session name.

    Args:
        folder: The folder in which each session gets its own folder.
    """

    def __init__(self, folder: Path):
        self._folder, self._lock = folder, threading.Lock()
        self._open: dict[str, Session] = {}

    def of(self, name: str) -> Session:
        """Return the session of a page; create it if necessary."""
        with self._lock:
            if name not in self._open:
                if len(self._open) >= MAX_SESSIONS:
                    self._end(next(iter(self._open)))
                self._open[name] = Session(Path(tempfile.mkdtemp(dir=self._folder)))
            return self._open[name]

    def uploaded(self, name: str, path: Path | None) -> None:
        """Record a page's upload, or None if it was withdrawn, and remove the previous one."""
        session = self.of(name)
        with self._lock:
            previous, session.upload = session.upload, path
            self._remove_unused(previous)

    def close(self, name: str) -> None:
        """End the session of a closed page and remove all its data."""
        with self._lock:
            self._end(name)

    def result(self, token: str) -> Result | None:
        """Return the result with this token; None if its page is closed or shows another."""
        with self._lock:
            results = [session.result for session in self._open.values() if session.result]
        same = (r for r in results if secrets.compare_digest(r.token.encode(), token.encode()))
        return next(same, None)

    def _end(self, name: str) -> None:
        session = self._open.pop(name, None)
        if session:
            session.close()
            self._remove_unused(session.upload)

    def _remove_unused(self, upload: Path | None) -> None:
        """Remove an upload and its folder, unless another page has uploaded the same bytes."""
        if upload is None or any(session.upload == upload for session in self._open.values()):
            return
        upload.unlink(missing_ok=True)
        with suppress(OSError):  # It has already been removed.
            upload.parent.rmdir()


def _on_disk(array: np.ndarray, path: Path) -> np.ndarray:
    """Move an array to a file and map it, so that open pages use no memory."""
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def _png(pixels: np.ndarray) -> bytes:
    stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels  # OpenCV stores BGR.
    success, content = cv2.imencode(".png", np.ascontiguousarray(stored), FAST_PNG)
    assert success, f"image of shape {pixels.shape}"
    return content.tobytes()
