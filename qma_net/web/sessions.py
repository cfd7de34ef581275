"""What a visitor's page holds while it is open, in a folder that goes when it is closed."""

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
from ..examine.examination_page import page
from ..examine.page_parts import reduced
from ..inference.prediction import as_grey
from .jobs import Job
from .limits import Stopped

FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]  # the way is short, and the photograph is waited for
STEPS = 100  # of the threshold's slider
STRIP = 256  # rows of a mask that are counted together, to bound memory
MOST = 40  # pages open at once; the one opened first is forgotten for one more


class Result:
    """An examination with its pictures on disk, to be shown at any threshold.

    Args:
        examination: what was found.
        folder: an empty one, for its arrays.
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
            leads=tuple(replace(lead, picture=reduced(lead.picture)) for lead in examination.leads),
            prediction=prediction,
        )

    @property
    def stem(self) -> str:
        """The photograph's name without its ending."""
        return Path(self.examination.evidence.photograph.name).stem or "photograph"

    def at(self, threshold: float | None) -> Examination:
        """The examination with another threshold; None leaves it."""
        found = self.examination
        if threshold is None or found.prediction is None:
            return found
        return replace(
            found,
            prediction=replace(found.prediction, threshold=threshold),
            settings={**found.settings, "threshold": threshold},
        )

    def shares(self) -> list[float]:
        """How much is marked at each step of the threshold's slider."""
        mask, counts = self.examination.prediction.mask, np.zeros(STEPS + 1, np.int64)
        for top in range(0, len(mask), STRIP):
            first_unmarked = np.ceil(mask[top : top + STRIP] * STEPS).astype(np.int64)  # step
            counts += np.bincount(first_unmarked.ravel(), minlength=STEPS + 1)
        return [round(1 - share, 4) for share in (counts.cumsum() / mask.size).tolist()]

    def picture(self, name: str, threshold: float | None) -> bytes | None:
        """A picture as a PNG: ``photograph``, ``mask``, ``unreadable``, ``overlay``."""
        found = self.at(threshold)
        if name == "photograph":
            return _png(found.evidence.photograph.pixels)
        if name == "unreadable":
            return _png(found.readability.unreadable.astype(np.uint8) * 255)
        if found.prediction is None:
            return None
        return _png(as_grey(found.prediction.mask) if name == "mask" else found.overlay())

    def report(self, threshold: float | None, *, pictures: bool) -> str:
        """The report as HTML, with its large pictures or without."""
        return page(self.at(threshold), pictures=pictures)

    def report_json(self, threshold: float | None) -> str:
        """What ``report.json`` holds."""
        return json.dumps(self.at(threshold).report(), indent=1) + "\n"


class Session:
    """One open page: what it uploaded last, the examination that runs, the last result.

    Args:
        folder: for its arrays; it goes with :meth:`close`.
    """

    def __init__(self, folder: Path):
        self._folder, self._lock, self._is_closed = folder, threading.Lock(), False
        self.upload: Path | None = None
        self.job: Job | None = None
        self.result: Result | None = None

    def keep(self, examination: Examination) -> Result:
        """The result of an examination, in place of the one before.

        Raises:
            Stopped: when the page was left in the meantime.
        """
        with self._lock:
            if self._is_closed:
                raise Stopped
            for folder in self._folder.iterdir():
                shutil.rmtree(folder)
            self.result = Result(examination, Path(tempfile.mkdtemp(dir=self._folder)))
            return self.result

    def stop(self) -> None:
        """Ends the examination that runs or waits."""
        if self.job:
            self.job.stop()

    def close(self) -> None:
        """Stops, and removes its folder."""
        self.stop()
        with self._lock:
            self._is_closed, self.result = True, None
            shutil.rmtree(self._folder, ignore_errors=True)


class Sessions:
    """All open pages, by Gradio's name for each.

    Args:
        folder: in which each has a folder of its own.
    """

    def __init__(self, folder: Path):
        self._folder, self._lock, self._open = folder, threading.Lock(), {}

    def of(self, name: str) -> Session:
        """The session of a page; a new one where there is none."""
        with self._lock:
            if name not in self._open:
                if len(self._open) >= MOST:
                    self._end(next(iter(self._open)))
                self._open[name] = Session(Path(tempfile.mkdtemp(dir=self._folder)))
            return self._open[name]

    def uploaded(self, name: str, path: Path | None) -> None:
        """Notes a page's upload, or that it took it back, and removes the one before."""
        session = self.of(name)
        with self._lock:
            before, session.upload = session.upload, path
            self._remove_unused(before)

    def close(self, name: str) -> None:
        """Ends the session of a page that was left, and removes all that it had."""
        with self._lock:
            self._end(name)

    def result(self, token: str) -> Result | None:
        """The result of this token; None where its page is closed or shows another."""
        with self._lock:
            results = [session.result for session in self._open.values() if session.result]
        found = [r for r in results if secrets.compare_digest(r.token.encode(), token.encode())]
        return found[0] if found else None

    def _end(self, name: str) -> None:
        session = self._open.pop(name, None)
        if session:
            session.close()
            self._remove_unused(session.upload)

    def _remove_unused(self, upload: Path | None) -> None:
        """Removes an upload and Gradio's folder of it; pages with the same bytes share one."""
        if upload is None or any(session.upload == upload for session in self._open.values()):
            return
        upload.unlink(missing_ok=True)
        with suppress(OSError):  # it is gone already
            upload.parent.rmdir()


def _on_disk(array: np.ndarray, path: Path) -> np.ndarray:
    """The array as it is in a file: open pages cost disk, and no memory."""
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def _png(picture: np.ndarray) -> bytes:
    stored = picture[..., ::-1] if picture.ndim == 3 else picture  # OpenCV's order
    done, content = cv2.imencode(".png", np.ascontiguousarray(stored), FAST)
    assert done, f"a picture of {picture.shape}"
    return content.tobytes()
