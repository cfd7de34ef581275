"""``qma-net serve``: serve the page on a port of this machine until it is stopped."""

import logging
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ..core.runs import BusyError, FolderLock
from ..inference.predictor import QMANetPredictor, load_predictor, usable_device
from .limits import Limits, ServeError

if TYPE_CHECKING:
    from .registered import RegisteredModel

logger = logging.getLogger(__name__)

LOCAL_HOSTS = {"127.0.0.1", "localhost", "::1"}
FOLDER_PREFIX = "qma-net-serve-"
# The signals that end the server; Windows has no SIGHUP.
END_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def serve(
    checkpoint: str = "",
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    model: str = "",
    model_flags: Sequence[str] = (),
    device: str = "",
    examples: str = "",
    limits: Limits | None = None,
) -> None:
    """Serve the page until the process is interrupted or terminated.

    Everything is written to a temporary folder, which is removed at the end. If a server was
    killed, the next server that the same user starts removes its folder.

    Args:
        checkpoint: The model's checkpoint; without one there is no mask.
        host: The address to listen on; everyone who can reach it can use the page.
        port: The port to listen on; 0 selects a free one.
        model: A name in BenCo's registry; "" is QMA-Net.
        model_flags: The flags of that model.
        device: Where to compute; CUDA by default, if it is available.
        examples: A folder of authentic photos to create examples from.
        limits: The limits of a request.

    Raises:
        ServeError: If the address cannot be used, or for a model without a checkpoint.
        WeightsError: If the checkpoint cannot be loaded.
        EvaluationError: If the model is not registered.
        SynthesisError: If no examples can be created from the folder.
        ModuleNotFoundError: Without gradio, or without imdlbenco for a registered model.
    """
    import uvicorn  # noqa: F401  (If it is missing, this fails before anything else is done.)

    if model and not checkpoint:
        raise ServeError(f"--model {model} requires --checkpoint")
    listener = _listen(host, port)
    for number in END_SIGNALS:  # Exit normally, so that the folder is removed.
        signal.signal(number, lambda *_: sys.exit(0))
    remove_abandoned_folders()
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    try:
        with listener, FolderLock(folder):
            _confine_to(folder)
            _serve(
                listener,
                folder,
                checkpoint=checkpoint,
                model=model,
                model_flags=model_flags,
                device=device,
                examples=examples,
                limits=limits or Limits(),
            )
    except KeyboardInterrupt:
        pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned_folders() -> None:
    """Remove the folders of servers that were killed, including their uploads."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        with suppress(OSError, BusyError):
            status = folder.lstat()
            # Windows has no user ids; there each user has a temporary folder.
            is_own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
            if stat.S_ISDIR(status.st_mode) and is_own:
                with FolderLock(folder):  # A running server holds this lock.
                    shutil.rmtree(folder, ignore_errors=True)


def _confine_to(folder: Path) -> None:
    """Make this process write only to the folder; must be called before Gradio is imported."""
    tempfile.tempdir = str(folder)
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    Image.MAX_IMAGE_PIXELS = None  # The page has its own limit, with a better message.


def _serve(
    listener: socket.socket,
    folder: Path,
    *,
    checkpoint: str,
    model: str,
    model_flags: Sequence[str],
    device: str,
    examples: str,
    limits: Limits,
) -> None:
    predictor: QMANetPredictor | RegisteredModel | None = None
    prepare: Callable[[], None] = _do_nothing
    note = ""
    if model:
        predictor, prepare = _load_registered(model, model_flags, checkpoint, device, folder)
    elif checkpoint:
        predictor, note = load_predictor(checkpoint, device)

    from .app import Server, build_app  # Importing Gradio takes seconds.
    from .examination_service import ExaminationService
    from .examples import make_examples
    from .sessions import Sessions

    examples_folder, sessions_folder = folder / "examples", folder / "sessions"
    examples_folder.mkdir()
    sessions_folder.mkdir()
    service = ExaminationService(
        predictor, Sessions(sessions_folder), limits, note=note, prepare=prepare
    )
    host, port = listener.getsockname()[:2]
    is_local = host in LOCAL_HOSTS
    app = build_app(
        service,
        make_examples(examples_folder, examples),
        limits=limits,
        hosts=LOCAL_HOSTS if is_local else set(),
    )
    if not is_local:
        logger.warning("everyone who can reach %s can use this page; it has no password", host)
    logger.info(
        "http://%s:%d (Ctrl+C stops the server and removes all uploads)",
        f"[{host}]" if ":" in host else host,
        port,
    )
    try:
        Server(app, service).run(sockets=[listener])
    finally:
        service.close()


def _load_registered(
    model: str, flags: Sequence[str], checkpoint: str, device: str, folder: Path
) -> tuple["RegisteredModel", Callable[[], None]]:
    from ..launch.cuda_to_cpu import redirect_cuda_to_cpu
    from .registered import RegisteredModel

    usable = usable_device(device)
    prepare = redirect_cuda_to_cpu if usable.type == "cpu" else _do_nothing
    # The redirection is per thread: here for building the model, later for its forward pass.
    prepare()
    predictor = RegisteredModel.load(model, flags, checkpoint, device=str(usable), folder=folder)
    return predictor, prepare


def _do_nothing() -> None:
    pass


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        ServeError: If the port is in use or reserved, or the address is not of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None) or 0  # Negative if a name cannot be resolved.
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        raise ServeError(
            f"cannot listen on --host {host} --port {port}: {reason}; choose another --port, or "
            "--port 0 for any free one"
        ) from None
