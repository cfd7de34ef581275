"""A running ``qma-net serve`` for tests, and requests to it."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

from conftest import photograph
from forks import HANG_TIMEOUT
from qma_net import cli
from qma_net.modeling.config import Preprocessing, QMANetConfig
from qma_net.modeling.qma_net import QMANetModel

for module in ("fastapi", "httpx", "python_multipart", "uvicorn"):
    if not find_spec(module):
        pytest.skip(f"{module} is not installed", allow_module_level=True)

import httpx  # noqa: E402

from qma_net.web.examinations import FINAL_STATES  # noqa: E402
from qma_net.web.limits import Limits  # noqa: E402
from qma_net.web.serve import FOLDER_PREFIX  # noqa: E402

TOKEN = "0123456789abcdef"

STRICT = Limits(
    megabytes=0.25,
    megapixels=1,
    waiting=2,
    uploads=3,
    upload_seconds=4,
    response_seconds=5,
    idle_seconds=1.5,
    connections=40,
    kept=5,
    kept_minutes=0.2,
    claim_minutes=0.1,
)


class Server:
    """The real server in a process with its own temporary folder and working directory.

    Args:
        folder: The folder for these; it is created.
        flags: The flags of ``qma-net serve``.
        limits: The limits, if not the default ones.
        code: Python code that the server's process runs first.
    """

    def __init__(self, folder: Path, *flags: str, limits: Limits | None = None, code: str = ""):
        self.log, self.temporary, self.cwd = (folder / name for name in ("log", "tmp", "cwd"))
        for path in (folder, self.temporary, self.cwd):
            path.mkdir(exist_ok=True)
        abandoned = self.temporary / f"{FOLDER_PREFIX}killed"  # as left by a killed server
        abandoned.mkdir(exist_ok=True)
        (abandoned / "photo.png").write_bytes(b"private")
        environment = os.environ | {"TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(Path(cli.__file__).parents[2])
        code += (
            "\nfrom functools import partial; import qma_net.web.serve as module; "
            "from qma_net import cli; from qma_net.web.limits import Limits; "
            f"module.serve = partial(module.serve, limits={limits!r}); cli.main()"
        )
        command = [sys.executable, "-c", code, "serve", "--port", "0", *flags]
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=self.cwd
            )

    def address(self) -> str:
        """Wait until the server responds and return its address."""

        addresses = []

        def is_known() -> bool:
            addresses[:] = re.findall(r"http://127\.0\.0\.1:\d+", self.log.read_text())
            return bool(addresses) or self.process.poll() is not None

        assert eventually(is_known)
        assert addresses, self.log.read_text()
        return addresses[0]

    @property
    def port(self) -> int:
        return int(self.address().rpartition(":")[2])

    def worker(self) -> int:
        """The id of the process that examines photos; 0 while it is being replaced."""
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = int(path.joinpath("stat").read_text().rpartition(")")[2].split()[1])
                command = path.joinpath("cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == self.process.pid and b"spawn_main" in command:
                return int(path.name)
        return 0

    def examinations(self) -> list[Path]:
        """The folders of the visitors' photos, including those of open uploads."""
        return list(self.temporary.glob("*/examinations/*"))

    def visitor_files(self) -> list[Path]:
        """The visitors' files on disk."""
        return [path for path in self.temporary.glob("*/examinations/*/*") if path.is_file()]

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(HANG_TIMEOUT)


def eventually(condition) -> bool:
    """Wait until a condition holds; return whether it does."""
    deadline = time.monotonic() + HANG_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def encoded(pixels, kind="JPEG", **options) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


PHOTO = encoded(photograph(300, 400), quality=95)


BROKEN = PHOTO[:4] + bytes(500)  # It begins like a JPEG.
SMALL = encoded(photograph(64, 80), "PNG")


def post(client, content=PHOTO, name="photo.jpg", **options):
    return client.post("/api/examinations", files={"photograph": (name, content)}, **options)


def examine(client, content=PHOTO, name="photo.jpg", **options) -> dict:
    """Upload a photo and wait for the end of its examination; return its state."""
    response = post(client, content, name, **options)
    assert response.status_code == 202, response.text
    with client.stream("GET", f"/api/examinations/{response.json()['id']}/events") as events:
        states = [json.loads(line[6:]) for line in events.iter_lines() if line]
    assert states[-1]["state"] in FINAL_STATES
    return states[-1]


def connect(port: int) -> socket.socket:
    """Open a connection to a server on this machine."""
    return socket.create_connection(("127.0.0.1", port), timeout=HANG_TIMEOUT)


def open_client(address: str, **options) -> httpx.Client:
    """Return a client that waits as long as a busy machine needs."""
    return httpx.Client(base_url=address, timeout=HANG_TIMEOUT, **options)


def raw(port: int, request: bytes) -> bytes:
    """Send bytes and return the response, up to the end of the connection."""
    with connect(port) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except ConnectionResetError:
            pass
    return answer


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A directory written by save_pretrained, with a small model that resizes to 96x96."""
    torch.manual_seed(0)
    model = QMANetModel.from_config(QMANetConfig(size="b0", views="srm,bayar"))
    model.preprocessing = Preprocessing(96, "resize")
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def servers(tmp_path_factory, checkpoint):
    """Two servers that start in parallel: one with a model, one with a token and strict limits."""
    folder = tmp_path_factory.mktemp("servers")
    strict = ("--checkpoint", "none", "--token", TOKEN, "--root-path", "/forensics")
    started = (
        Server(folder / "with", "--checkpoint", str(checkpoint)),
        Server(folder / "strict", *strict, limits=STRICT),
    )
    yield started
    for server in started:
        server.end()
        assert list(server.cwd.iterdir()) == []
        assert list(server.temporary.iterdir()) == []
        assert "Traceback" not in server.log.read_text()


@pytest.fixture
def server(servers):
    return servers[0]


@pytest.fixture
def client(server):
    with open_client(server.address()) as opened:
        yield opened


@pytest.fixture
def strict(servers):
    """A client of the server with strict limits, whose earlier examinations are removed."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with open_client(servers[1].address(), headers=headers) as opened:
        opened.created = []
        yield opened
    assert eventually(lambda: not servers[1].visitor_files())


def multipart(*parts: bytes, boundary: bytes = b"x") -> dict:
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    kind = b"multipart/form-data; boundary=" + boundary
    return {"content": body + b"--" + boundary + b"--\r\n", "headers": {"content-type": kind}}


PART = b'Content-Disposition: form-data; name="photograph"; filename="a.jpg"\r\n\r\n'


def head(port: int, length: int = 100_000) -> bytes:
    return (
        (
            f"POST /api/examinations HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Authorization: Bearer {TOKEN}\r\nContent-Length: {length}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        ).encode()
        + PART
        + PHOTO[:100]
    )
