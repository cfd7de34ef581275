"""``qma-net serve``: serve the page on a port of this machine until it is stopped."""

import logging
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from ..core.runs import BusyError, FolderLock
from .limits import Limits, ServeError
from .worker import Worker, load_model

logger = logging.getLogger(__name__)

LOCAL_HOSTS = {"127.0.0.1", "localhost", "::1"}
FOLDER_PREFIX = "qma-net-serve-"
MIN_TOKEN = 16  # characters
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
    root_path: str = "",
    token: str = "",
) -> None:
    """Serve the page until the process is interrupted or terminated.

    Everything is written to a temporary folder, which is removed at the end. If a server was
    killed, the next server that the same user starts removes its folder.

    Args:
        checkpoint: The model's checkpoint; without one there is no mask.
        host: The address to listen on; one that others can reach requires a token.
        port: The port to listen on; 0 selects a free one.
        model: A name in BenCo's registry; "" for QMA-Net.
        model_flags: The flags of that model.
        device: Where to compute; CUDA by default, if it is available.
        examples: A folder of authentic photos to create examples from.
        limits: The limits for all requests.
        root_path: The path or the whole address under which a proxy publishes the page.
        token: The access token; "" for none, which is allowed only if ``host`` is local.

    Raises:
        ServeError: If the address cannot be used, if an option is invalid, or if a required
            checkpoint or token is missing.
        WeightsError: If the checkpoint cannot be loaded.
        EvaluationError: If the model is not registered.
        SynthesisError: If no examples can be created from the folder.
        ModuleNotFoundError: If uvicorn or, for a registered model, imdlbenco is not installed.
    """
    import uvicorn  # noqa: F401  (If it is missing, this fails before anything else is done.)

    limits, public = limits or Limits(), urlsplit(root_path)
    if model and not checkpoint:
        raise ServeError(f"--model {model} requires --checkpoint")
    if host not in LOCAL_HOSTS and not token:
        raise ServeError(
            f"--host {host} can be reached by others and requires an access token; add "
            f"--token TOKEN, for example the output of: openssl rand -hex {MIN_TOKEN}"
        )
    if token and (len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable()):
        raise ServeError(
            f"--token is too short or has unusual characters; expected at least {MIN_TOKEN} "
            "letters and digits"
        )
    if not all(part.isascii() and part.isprintable() for part in root_path) or (
        public.path and not public.path.startswith("/")
    ):
        raise ServeError(f"got --root-path {root_path!r}, expected /PATH or https://HOST/PATH")
    listener = _listen(host, port)
    for number in END_SIGNALS:  # Exit normally, so that the folder is removed.
        signal.signal(number, lambda *_: sys.exit(0))
    remove_abandoned_folders()
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    load = partial(load_model, checkpoint, model, tuple(model_flags), device, folder)
    worker = Worker(load, folder, limits)
    try:
        with listener, FolderLock(folder):
            _serve(listener, folder, worker, examples, limits, public, token)
    except KeyboardInterrupt:
        pass
    finally:
        worker.kill()
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned_folders() -> None:
    """Remove the folders of servers that were killed, including their uploads."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        with suppress(OSError, BusyError):
            status = folder.lstat()
            # Windows has no user ids; there, each user has a separate temporary folder.
            is_own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
            if stat.S_ISDIR(status.st_mode) and is_own:
                with FolderLock(folder):  # A running server holds this lock.
                    shutil.rmtree(folder, ignore_errors=True)


def _serve(
    listener: socket.socket,
    folder: Path,
    worker: Worker,
    examples: str,
    limits: Limits,
    public: SplitResult,
    token: str,
) -> None:
    from .app import build_app
    from .examinations import Examinations
    from .examples import make_examples
    from .guard import Server

    about = worker.start()
    for name in ("examples", "examinations"):
        (folder / name).mkdir()
    host, port = listener.getsockname()[:2]
    hosts: set[str] = set()
    if host in LOCAL_HOSTS:
        names = ("127.0.0.1", "localhost", "[::1]")
        hosts = {f"{name}:{port}" for name in names} | {public.netloc.lower()} - {""}
        if port == 80:  # A browser omits the default port.
            hosts |= set(names)
    else:
        logger.warning("the connection is not encrypted; use a proxy with HTTPS in front of it")
    shown_examples = make_examples(folder / "examples", examples)
    examinations = Examinations(folder / "examinations", worker, limits)
    app = build_app(
        examinations, shown_examples, about=about, hosts=hosts, public=public, token=token
    )
    logger.info(
        "http://%s:%d (Ctrl+C stops the server and removes all uploads)",
        f"[{host}]" if ":" in host else host,
        port,
    )
    try:
        Server(app, examinations).run(sockets=[listener])
    finally:
        examinations.close()


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        ServeError: If the port is in use or reserved, or if the address is not one of this
            machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None) or 0  # Negative if a name cannot be resolved.
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        raise ServeError(
            f"cannot listen on --host {host} --port {port}: {reason}; choose a different --port, "
            "or --port 0 for any free one"
        ) from None
