"""The process that examines photos, and the files that it leaves for the server.

Decoders can hang or crash on a malicious file, so all of them run in a process of its own, which
the server kills when an examination is stopped or takes too long.
"""

import logging
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import QMANetError
from .limits import Limits, ServeError

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from ..examine.examination import Examination

logger = logging.getLogger(__name__)

UPLOAD = "upload"  # The fixed names in the folder of an examination.
IMAGES = ("photograph.png", "mask.png", "unreadable.png")
EXAMINATION = "examination.pickle"

THRESHOLD_STEPS = 100
STRIP_ROWS = 256  # Rows of a mask that are counted at once, to limit memory.
IN_PICKLE = 2**16  # Arrays with fewer bytes are stored in the pickle itself.
POLL_INTERVAL = 0.1  # seconds
FAULT = "internal error; see the terminal in which the server was started"
CRASHED = "the photo could not be examined: its decoding crashed or ran out of memory"

Reply = tuple[str, Any]  # A kind and its content: ("progress", (done, total)), ("done", {...}), ...


@dataclass(frozen=True)
class ModelChoice:
    """Which model to load, as the arguments of :func:`qma_net.web.serve.serve`."""

    checkpoint: str = ""
    model: str = ""
    model_flags: tuple[str, ...] = ()
    device: str = ""


class Worker:
    """Runs examinations in another process, one at a time; restarts it when necessary.

    Args:
        choice: The model.
        folder: A folder for temporary files.
        limits: The limits of an examination.
    """

    def __init__(self, choice: ModelChoice, folder: Path, limits: Limits):
        self._arguments = choice, folder, limits
        self._limits = limits
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    def start(self) -> dict[str, Any]:
        """Start the process and load the model; return a description of it.

        Raises:
            QMANetError: If the model cannot be loaded.
            ModuleNotFoundError: If it needs a module that is not installed.
        """
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        process = context.Process(target=_run, args=(theirs, *self._arguments), daemon=True)
        process.start()
        self._process = process
        theirs.close()
        try:
            kind, content = self._connection.recv()
        except (EOFError, ConnectionError):
            raise ServeError("the process that examines photos could not start") from None
        if kind != "ready":
            raise content
        return content

    def examine(
        self,
        folder: Path,
        *,
        name: str,
        native: bool,
        is_stopped: Callable[[], bool],
        progress: Callable[[tuple[int, int]], None],
    ) -> dict[str, Any] | None:
        """Examine the upload in a folder and write the results there.

        Args:
            folder: The folder of the examination.
            name: The photo's name.
            native: Process it at its original size.
            is_stopped: Asked repeatedly; the process is killed when it returns True.
            progress: Called with the number of finished tiles, and of all tiles.

        Returns:
            What the page needs to show the result; None if it was stopped.

        Raises:
            QMANetError: If the photo cannot be examined.
        """
        if self._process is None or not self._process.is_alive():
            self.start()
        assert self._connection
        deadline = time.monotonic() + 60 * self._limits.minutes
        try:
            self._connection.send((folder, name, native))
            while True:
                if is_stopped():
                    self.kill()
                    return None
                if time.monotonic() > deadline:
                    self.kill()
                    raise ServeError(
                        f"the examination took more than {self._limits.minutes:g} minutes; clear "
                        '"Original size", or use qma-net examine'
                    )
                if self._connection.poll(POLL_INTERVAL):
                    kind, content = self._connection.recv()
                    if kind == "progress":
                        progress(content)
                    elif kind == "done":
                        return content
                    else:
                        raise ServeError(content)
        except (EOFError, ConnectionError):
            self.kill()
            raise ServeError(CRASHED) from None

    def kill(self) -> None:
        """End the process immediately; the next examination starts another one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def load_examination(folder: Path, threshold: float | None = None) -> "Examination":
    """Read the examination that :func:`_save` wrote, at another threshold if one is given."""
    paths = sorted(folder.glob("*.bin"), key=lambda path: int(path.stem))
    buffers = [np.memmap(path, np.uint8, "r") for path in paths]
    examination = pickle.loads((folder / EXAMINATION).read_bytes(), buffers=buffers)
    if threshold is None or examination.prediction is None:
        return examination
    return replace(
        examination,
        prediction=replace(examination.prediction, threshold=threshold),
        settings={**examination.settings, "threshold": threshold},
    )


def png(pixels: np.ndarray) -> bytes:
    """Encode uint8 ``(H, W)`` or ``(H, W, 3)`` as PNG, quickly rather than compactly."""
    import cv2

    stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels  # OpenCV stores BGR.
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    success, content = cv2.imencode(".png", np.ascontiguousarray(stored), options)
    assert success, f"image of shape {pixels.shape}"
    return content.tobytes()


def _run(connection: Connection, choice: ModelChoice, folder: Path, limits: Limits) -> None:
    """Examine the photos that arrive through the connection, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The server stops this process.
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    try:
        predictor, note = _load(choice, folder)
        connection.send(("ready", _describe(predictor, note)))
    except Exception as error:
        connection.send(("error", _sendable(error)))
        return
    with suppress(EOFError, ConnectionError):
        while True:
            photo_folder, name, native = connection.recv()
            examine = partial(_examine, predictor, note, photo_folder, name, native, limits)
            connection.send(_answer(examine, connection))


def _answer(
    examine: Callable[[Callable[[int, int], None]], dict[str, Any]], connection: Connection
) -> Reply:
    def progress(done: int, total: int) -> None:
        connection.send(("progress", (done, total)))

    try:
        return "done", examine(progress)
    except (QMANetError, MemoryError) as error:
        return "error", str(error) or CRASHED
    except OSError as error:
        return "error", f"cannot store the result: {error.strerror}"
    except Exception:
        logger.exception("the examination failed")
        return "error", FAULT


def _examine(
    predictor: Any,
    note: str,
    folder: Path,
    name: str,
    native: bool,
    limits: Limits,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    from ..core.images import ImageError
    from ..examine.evidence import read_evidence
    from ..examine.pipeline import describe_settings, examine_evidence
    from ..inference.photograph import open_photograph
    from ..modeling.config import DEFAULT_THRESHOLD

    progress(0, 0)
    content = (folder / UPLOAD).read_bytes()
    try:
        with open_photograph(content, name) as image:
            limits.require_pixels(name, *image.size)
    except ImageError:
        pass  # read_evidence reports the fault, or reads the file in another way.
    evidence = read_evidence(content, name)
    height, width = evidence.photograph.pixels.shape[:2]
    limits.require_pixels(name, width, height)
    settings = describe_settings(predictor, threshold=DEFAULT_THRESHOLD, native=native)
    notes = (note,) if note else ()
    examination = examine_evidence(evidence, predictor, settings, notes=notes, progress=progress)
    _save(examination, folder)
    prediction = examination.prediction
    return {
        "width": width,
        "height": height,
        "threshold": prediction.threshold if prediction else None,
        "shares": _shares(prediction.mask) if prediction else None,
    }


def _save(examination: "Examination", folder: Path) -> None:
    """Write an examination and its images; the upload is no longer needed and removed."""
    from ..inference.prediction import as_grey

    buffers: list[pickle.PickleBuffer] = []

    def is_small(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes < IN_PICKLE:
            return True
        buffers.append(buffer)
        return False

    content = pickle.dumps(examination, protocol=5, buffer_callback=is_small)
    for number, buffer in enumerate(buffers):
        (folder / f"{number}.bin").write_bytes(buffer.raw())
    unreadable = examination.readability.unreadable.astype(np.uint8) * 255
    (folder / "photograph.png").write_bytes(png(examination.evidence.photograph.pixels))
    (folder / "unreadable.png").write_bytes(png(unreadable))
    if examination.prediction:
        (folder / "mask.png").write_bytes(png(as_grey(examination.prediction.mask)))
    (folder / EXAMINATION).write_bytes(content)
    (folder / UPLOAD).unlink()


def _shares(mask: np.ndarray) -> list[float]:
    """Return the marked share of the photo at each step of the threshold slider."""
    counts = np.zeros(THRESHOLD_STEPS + 1, np.int64)
    for top in range(0, len(mask), STRIP_ROWS):
        strip = mask[top : top + STRIP_ROWS]
        first_unmarked_step = np.ceil(strip * THRESHOLD_STEPS).astype(np.int64)
        counts += np.bincount(first_unmarked_step.ravel(), minlength=THRESHOLD_STEPS + 1)
    return [round(1 - share, 4) for share in (counts.cumsum() / mask.size).tolist()]


def _load(choice: ModelChoice, folder: Path) -> tuple[Any, str]:
    from ..inference.predictor import load_predictor, usable_device

    if choice.model:
        from ..launch.cuda_to_cpu import redirect_cuda_to_cpu
        from .registered import RegisteredModel

        device = usable_device(choice.device)
        if device.type == "cpu":
            redirect_cuda_to_cpu()
        registered = RegisteredModel.load(
            choice.model, choice.model_flags, choice.checkpoint, device=str(device), folder=folder
        )
        return registered, ""
    if choice.checkpoint:
        return load_predictor(choice.checkpoint, choice.device)
    return None, ""


def _describe(predictor: Any, note: str) -> dict[str, Any]:
    from ..examine.metadata import printable
    from ..examine.pipeline import describe_settings
    from ..modeling.config import DEFAULT_THRESHOLD

    if predictor is None:
        return {"about": "", "supports_native": False}
    settings = describe_settings(predictor, threshold=DEFAULT_THRESHOLD, native=False)
    checkpoint = Path(settings["checkpoint"] or "no checkpoint").name
    model = f"Model: {settings.get('name', 'QMA-Net')}, {checkpoint}"
    notes = (model, *predictor.notes, *((note,) if note else ()))
    about = "; ".join(map(printable, notes)) + "."
    return {"about": about, "supports_native": getattr(predictor, "supports_native", True)}


def _sendable(error: Exception) -> Exception:
    """Return the error, or a plain one if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return ServeError(str(error))


def _exit_with_parent() -> None:
    """End this process when the server was killed; it would wait forever otherwise."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
