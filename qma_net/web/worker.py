"""The process that examines photos, and the files that it leaves for the server.

Decoders can hang, crash or need a great deal of memory for a malicious file, so they run in a
process of their own. Its memory is limited, and the server kills it when an examination is stopped
or takes too long.
"""

import io
import logging
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

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
POLL_INTERVAL = 0.1  # seconds
FAULT = "internal error; see the terminal in which the server was started"
CRASHED = "the photo could not be examined: its decoding crashed or ran out of memory"

# Returns a predictor, or None for examinations without a mask, and a note on it. It is called in
# the worker's process, so it must be picklable.
Loader = Callable[[], tuple[Any, str]]


class Worker:
    """Runs examinations in a separate process, one at a time.

    Args:
        load: Loads the model.
        folder: A folder for temporary files.
        limits: The limits of an examination.
    """

    def __init__(self, load: Loader, folder: Path, limits: Limits):
        self._arguments = load, folder, limits
        self._limits = limits
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.is_alive()

    def start(self) -> dict[str, Any]:
        """Start the process and load the model; return a description of the model.

        Raises:
            QMANetError: If the model cannot be loaded.
            ModuleNotFoundError: If it needs a module that is not installed.
        """
        self.kill()
        context = get_context("spawn")
        connection, theirs = context.Pipe()
        with theirs:
            process = context.Process(target=_run, args=(theirs, *self._arguments), daemon=True)
            process.start()
        self._process, self._connection = process, connection
        try:
            kind, content = connection.recv()
        except (EOFError, OSError):
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
            native: Process it at original resolution.
            is_stopped: Called repeatedly; the process is killed when it returns True.
            progress: Called with the number of finished tiles and the total number, as a pair.

        Returns:
            What the page needs to show the result; None if it was stopped.

        Raises:
            QMANetError: If the photo cannot be examined.
        """
        if not self.is_alive:
            self.start()
        assert self._connection
        connection, deadline = self._connection, time.monotonic() + 60 * self._limits.minutes
        try:
            connection.send((folder, name, native))
            while not is_stopped():
                if time.monotonic() > deadline:
                    self.kill()
                    raise ServeError(
                        f"the examination took more than {self._limits.minutes:g} minutes; uncheck "
                        '"Original resolution", or use qma-net examine'
                    )
                if not connection.poll(POLL_INTERVAL):
                    continue
                kind, content = connection.recv()
                if kind == "done":
                    return content
                if kind == "error":
                    raise ServeError(content)
                progress(content)
        except (EOFError, OSError):  # The pipe is closed.
            self.kill()
            raise ServeError(CRASHED) from None
        self.kill()
        return None

    def kill(self) -> None:
        """End the process immediately; another thread may call this during an examination."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process is not None:
            process.kill()
            process.join()
        if connection is not None:
            connection.close()


def load_model(
    checkpoint: str, model: str, flags: tuple[str, ...], device: str, folder: Path
) -> tuple[Any, str]:
    """Load QMA-Net, or a model from BenCo's registry; see :data:`Loader`."""
    from ..inference.predictor import load_predictor, usable_device

    if model:
        from ..evaluation.registered_model import RegisteredModel
        from ..launch.cuda_to_cpu import redirect_cuda_to_cpu

        used = usable_device(device)
        if used.type == "cpu":
            redirect_cuda_to_cpu()
        return RegisteredModel.load(model, flags, checkpoint, device=str(used), folder=folder), ""
    return load_predictor(checkpoint, device) if checkpoint else (None, "")


def load_examination(
    folder: Path, threshold: float | None = None, *, omit_location: bool = False
) -> "Examination":
    """Read the examination in a folder, at a different threshold if one is given.

    If ``omit_location`` is true, metadata that can reveal where the photo was taken is left out.

    Raises:
        FileNotFoundError: If it has been removed.
    """
    examination = pickle.loads((folder / EXAMINATION).read_bytes())
    if omit_location:
        examination = examination.without_location()
    if threshold is None or examination.prediction is None:
        return examination
    return replace(
        examination,
        prediction=replace(examination.prediction, threshold=threshold),
        settings={**examination.settings, "threshold": threshold},
    )


def png(pixels: np.ndarray, icc_profile: bytes = b"") -> bytes:
    """Encode pixels, uint8 ``(H, W)`` or ``(H, W, 3)``, as PNG, quickly rather than compactly."""
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    image.save(file, "PNG", compress_level=1, icc_profile=icc_profile or None)
    return file.getvalue()


def _run(connection: Connection, load: Loader, folder: Path, limits: Limits) -> None:
    """Examine the photos that arrive through the connection, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The server stops this process.
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    try:
        predictor, note = load()
        connection.send(("ready", _describe(predictor, note)))
    except Exception as error:
        connection.send(("error", error))
        return
    _limit_memory(limits.memory_gigabytes)
    with suppress(EOFError, ConnectionError):
        while True:
            photo = connection.recv()
            examine = partial(_examine, predictor, note, limits, *photo)
            connection.send(_answer(examine, lambda *tiles: connection.send(("progress", tiles))))


def _answer(examine: Callable[..., dict[str, Any]], progress: Callable) -> tuple[str, Any]:
    try:
        return "done", examine(progress)
    except QMANetError as error:
        return "error", str(error)
    except OSError as error:
        return "error", f"cannot store the result: {error.strerror}"
    except Exception as error:
        # PyTorch and OpenCV raise their own exceptions when memory runs out.
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            return "error", (
                "the photo needs more memory than the page allows; downscale it, or use qma-net "
                "examine"
            )
        logger.exception("the examination failed")
        return "error", FAULT


def _examine(
    predictor: Any,
    note: str,
    limits: Limits,
    folder: Path,
    name: str,
    native: bool,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    from ..core.images import ImageError
    from ..examine.evidence import read_evidence
    from ..examine.page import checkpoint_name
    from ..examine.pipeline import describe_settings, examine_evidence
    from ..inference.photograph import open_photograph
    from ..modeling.config import DEFAULT_THRESHOLD

    progress(0, 0)
    content = (folder / UPLOAD).read_bytes()
    try:
        with open_photograph(content, name) as image:
            limits.require_pixels(name, *image.size)
    except ImageError:
        pass  # read_evidence reports the fault, or reads the file differently.
    evidence = read_evidence(content, name)
    height, width = None, None
    if evidence.photograph:
        height, width = evidence.photograph.pixels.shape[:2]
        limits.require_pixels(name, width, height)
    settings = describe_settings(predictor, threshold=DEFAULT_THRESHOLD, native=native)
    settings["checkpoint"] = checkpoint_name(settings["checkpoint"])
    notes = (note,) if note else ()
    examination = examine_evidence(evidence, predictor, settings, notes=notes, progress=progress)
    _save(examination, folder)
    prediction = examination.prediction
    return {
        "width": width,
        "height": height,
        "threshold": prediction.threshold if prediction else None,
        "shares": _shares(prediction.mask[prediction.photograph.present]) if prediction else None,
        "has_location": examination.without_location() is not examination,
        "error": evidence.fault or None,
    }


def _save(examination: "Examination", folder: Path) -> None:
    """Write an examination and its images; the upload is removed, since it is no longer needed."""
    from ..inference.prediction import as_gray

    photograph, readability = examination.evidence.photograph, examination.readability
    if photograph and readability:
        (folder / "photograph.png").write_bytes(png(photograph.pixels, photograph.icc_profile))
        unreadable = readability.unreadable.astype(np.uint8) * 255
        (folder / "unreadable.png").write_bytes(png(unreadable))
    if examination.prediction:
        (folder / "mask.png").write_bytes(png(as_gray(examination.prediction.mask)))
    with open(folder / EXAMINATION, "wb") as file:
        pickle.dump(examination, file, protocol=5)
    (folder / UPLOAD).unlink()


def _shares(mask: np.ndarray) -> list[float]:
    """Return the marked fraction of the photo at each step of the threshold slider."""
    counts = np.zeros(THRESHOLD_STEPS + 1, np.int64)
    for top in range(0, len(mask), STRIP_ROWS):
        strip = mask[top : top + STRIP_ROWS]
        first_unmarked_step = np.ceil(strip * THRESHOLD_STEPS).astype(np.int64)
        counts += np.bincount(first_unmarked_step.ravel(), minlength=THRESHOLD_STEPS + 1)
    return [round(1 - share, 4) for share in (counts.cumsum() / mask.size).tolist()]


def _describe(predictor: Any, note: str) -> dict[str, Any]:
    from ..examine.page import checkpoint_name
    from ..examine.pipeline import describe_settings
    from ..examine.texts import printable
    from ..modeling.config import DEFAULT_THRESHOLD

    if predictor is None:
        return {"about": "", "supports_native": False, "offers_native": False}
    settings = describe_settings(predictor, threshold=DEFAULT_THRESHOLD, native=False)
    checkpoint = checkpoint_name(settings["checkpoint"]) or "no checkpoint"
    model = f"Model: {settings.get('name', 'QMA-Net')}, {checkpoint}"
    notes = (model, *predictor.notes, *((note,) if note else ()))
    about = "; ".join(map(printable, notes)) + "."
    # A model that always processes photos at original resolution offers no choice.
    offers_native = predictor.preprocessing.fit != "native"
    return {
        "about": about,
        "supports_native": getattr(predictor, "supports_native", True),
        "offers_native": offers_native,
    }


def _limit_memory(gigabytes: float) -> None:
    """Make allocations fail once this process has grown by ``gigabytes``; Linux only."""
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
        limit = pages * resource.getpagesize() + int(gigabytes * 2**30)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _exit_with_parent() -> None:
    """End this process when the server has been killed; otherwise it would wait forever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
