"""``qma-net serve``: the page on a port of this machine, until it is stopped."""

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

from PIL import Image

from ..core.files import BusyError, alone
from ..inference.predict import load_predictor
from ..inference.predictor import usable_device
from .limits import Limits, ServeError

LOCAL = {"127.0.0.1", "localhost", "::1"}
PREFIX = "qma-net-serve-"  # of the temporary folder
ENDINGS = (signal.SIGTERM, signal.SIGHUP)


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
    say: Callable[[str], None] = print,
) -> None:
    """Serves the page until the process is interrupted or told to end.

    All that it writes lies in a temporary folder, which it removes at its end. What a server that
    was killed left there is removed by the next one that the same user starts.

    Args:
        checkpoint: of the model; without one there is no mask.
        host: address to listen at; everybody who reaches it can use the page.
        port: to listen at; 0 for any that is free.
        model: a name in BenCo's registry; "" is QMA-Net.
        model_flags: that model's own.
        device: where to compute; default CUDA where there is one.
        examples: folder of untouched photographs to make examples of.
        limits: of what is taken on.
        say: called with a line for whoever started it.

    Raises:
        ServeError: for an address that cannot be listened at, or a model without a checkpoint.
        WeightsError, EvaluationError, SynthesisError: see what loads the model and makes examples.
        ModuleNotFoundError: without gradio, or without imdlbenco where a model of it is asked for.
    """
    import uvicorn  # noqa: F401  (says first of all what to install)

    if model and not checkpoint:
        raise ServeError(f"got --model {model} alone, expected its weights too: give --checkpoint")
    listening = _listen(host, port)
    for number in ENDINGS:  # which end the process, by a way that removes the folder
        signal.signal(number, lambda *_: sys.exit(0))
    remove_left_behind()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with listening, alone(folder):
            _keep_to(folder)
            _serve(
                listening,
                folder,
                checkpoint=checkpoint,
                model=model,
                model_flags=model_flags,
                device=device,
                examples=examples,
                limits=limits or Limits(),
                say=say,
            )
    except KeyboardInterrupt:
        pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_left_behind() -> None:
    """Removes the folders of servers that were killed, and with them what was uploaded there."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, BusyError):
            made = folder.lstat()
            if stat.S_ISDIR(made.st_mode) and made.st_uid == os.getuid():
                with alone(folder):  # which a server that lives does not let go
                    shutil.rmtree(folder, ignore_errors=True)


def _keep_to(folder: Path) -> None:
    """Has this process write to the folder and ask nobody; before Gradio is imported."""
    tempfile.tempdir = str(folder)
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    Image.MAX_IMAGE_PIXELS = None  # the page's own limit says more


def _serve(
    listening: socket.socket,
    folder: Path,
    *,
    checkpoint: str,
    model: str,
    model_flags: Sequence[str],
    device: str,
    examples: str,
    limits: Limits,
    say: Callable[[str], None],
) -> None:
    predictor, note, prepare = None, "", lambda: None
    if model:
        predictor, prepare = _registered(model, model_flags, checkpoint, device, folder)
    elif checkpoint:
        predictor, note = load_predictor(checkpoint, device)

    from .app import Server, build_app  # and Gradio, which takes seconds
    from .desk import Desk
    from .examples import make_examples
    from .sessions import Sessions

    places = {name: folder / name for name in ("examples", "sessions")}
    for place in places.values():
        place.mkdir()
    desk = Desk(predictor, Sessions(places["sessions"]), limits, note=note, prepare=prepare)
    host, port = listening.getsockname()[:2]
    local = host in LOCAL
    app = build_app(
        desk,
        make_examples(places["examples"], examples),
        limits=limits,
        hosts=LOCAL if local else set(),
    )
    if not local:
        say(f"qma-net: everybody who can reach {host} can use this page; it asks for no password")
    shown = f"[{host}]" if ":" in host else host
    say(f"http://{shown}:{port} (Ctrl+C ends it, and removes what was uploaded)")
    try:
        Server(app, desk).run(sockets=[listening])
    finally:
        desk.close()


def _registered(
    model: str, flags: Sequence[str], checkpoint: str, device: str, folder: Path
) -> tuple:
    from ..launch.cuda_to_cpu import redirect_cuda_to_cpu
    from .registered import RegisteredModel

    where = usable_device(device)
    prepare = redirect_cuda_to_cpu if where.type == "cpu" else lambda: None
    prepare()  # here for its building; in the thread that computes for its forward pass
    predictor = RegisteredModel.load(model, flags, checkpoint, device=str(where), folder=folder)
    return predictor, prepare


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ServeError: for a port in use or forbidden, and for what is no address of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None) or 0  # negative where a name is not known
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        raise ServeError(
            f"got --host {host} --port {port}, expected an address of this machine and a free "
            f"port: {reason}; give another --port, or --port 0 for any"
        ) from None
