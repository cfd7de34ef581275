"""``qma-net serve``: its API, the page in a browser, and attacks on both."""

import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import photograph
from miniatures import bomb
from qma_net import cli
from qma_net.core.runs import FolderLock
from qma_net.modeling.config import Preprocessing, QMANetConfig
from qma_net.modeling.qma_net import QMANetModel

for module in ("fastapi", "httpx", "python_multipart", "uvicorn"):
    if not find_spec(module):
        pytest.skip(f"{module} is not installed", allow_module_level=True)

import httpx  # noqa: E402

from qma_net.synth.recipe import SynthesisError  # noqa: E402
from qma_net.web import worker  # noqa: E402
from qma_net.web.examinations import FINAL_STATES  # noqa: E402
from qma_net.web.examples import TITLES, make_examples  # noqa: E402
from qma_net.web.limits import Limits, ServeError  # noqa: E402
from qma_net.web.serve import FOLDER_PREFIX, remove_abandoned_folders  # noqa: E402

START_TIMEOUT = 120  # seconds; the machine may be busy
PAGE_TIMEOUT = 30_000  # milliseconds
TOKEN = "0123456789abcdef"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
STRICT = Limits(
    megabytes=0.25,
    megapixels=1,
    waiting=2,
    uploads=3,
    upload_seconds=4,
    idle_seconds=1.5,
    connections=40,
    kept=5,
    kept_minutes=0.1,
    claim_minutes=0.05,
)


class Server:
    """The real server in a process with its own temporary folder and working directory.

    Args:
        folder: The folder for these; it is created.
        flags: The flags of ``qma-net serve``.
        limits: The limits, if not the default ones.
    """

    def __init__(self, folder: Path, *flags: str, limits: Limits | None = None):
        self.log, self.temporary, self.cwd = (folder / name for name in ("log", "tmp", "cwd"))
        for path in (folder, self.temporary, self.cwd):
            path.mkdir()
        abandoned = self.temporary / f"{FOLDER_PREFIX}killed"  # as left by a killed server
        abandoned.mkdir()
        (abandoned / "photo.png").write_bytes(b"private")
        environment = os.environ | {"TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(Path(cli.__file__).parents[2])
        program = ["-m", "qma_net"]
        if limits:
            code = (
                "from functools import partial; import qma_net.web.serve as module; "
                "from qma_net import cli; from qma_net.web.limits import Limits; "
                f"module.serve = partial(module.serve, limits={limits!r}); cli.main()"
            )
            program = ["-c", code]
        command = [sys.executable, *program, "serve", "--port", "0", *flags]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=self.cwd
            )

    def address(self) -> str:
        """Wait until the server responds and return its address."""
        for _ in range(10 * START_TIMEOUT):
            match = re.search(r"http://127\.0\.0\.1:\d+", self.log.read_text())
            if match or self.process.poll() is not None:
                break
            time.sleep(0.1)
        assert match, self.log.read_text()
        return match[0]

    @property
    def port(self) -> int:
        return int(self.address().rpartition(":")[2])

    def worker(self) -> int:
        """The process id of the process that examines photos."""
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = int(path.joinpath("stat").read_text().rpartition(")")[2].split()[1])
                command = path.joinpath("cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == self.process.pid and b"spawn_main" in command:
                return int(path.name)
        raise AssertionError("there is no worker process")

    def examinations(self) -> list[Path]:
        """The folders of the visitors' photos, including those of open uploads."""
        return list(self.temporary.glob("*/examinations/*"))

    def visitor_files(self) -> list[Path]:
        """The visitors' files on disk."""
        return [path for path in self.temporary.glob("*/examinations/*/*") if path.is_file()]

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def eventually(condition, seconds: float = 20) -> bool:
    """Wait until a condition holds; return whether it does."""
    deadline = time.monotonic() + seconds
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


def raw(port: int, request: bytes, seconds: float = 20) -> bytes:
    """Send bytes and return the response, up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except ConnectionResetError:
            pass
    return answer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A directory written by save_pretrained, with a small model that resizes to 96x96."""
    torch.manual_seed(0)
    model = QMANetModel.from_config(QMANetConfig(size="b0", views="srm,bayar"))
    model.preprocessing = Preprocessing(96, "resize")
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def disposable(servers, tmp_path_factory, checkpoint):
    """A server that may be stopped, with a tiny disk."""
    folder = tmp_path_factory.mktemp("disposable") / "server"
    started = Server(folder, "--checkpoint", str(checkpoint), limits=Limits(kept_gigabytes=1e-6))
    yield started
    started.end()


@pytest.fixture
def server(servers):
    return servers[0]


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server.address(), timeout=60) as opened:
        yield opened


@pytest.fixture
def strict(servers):
    """A client of the server with strict limits, whose earlier examinations are removed."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=servers[1].address(), timeout=60, headers=headers) as opened:
        opened.created = []
        yield opened
    assert eventually(lambda: not servers[1].visitor_files())


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=browser, args=FLAGS)
        yield opened
        opened.close()


@contextmanager
def visiting(chromium, address: str, allowed_errors: int = 0, **options):
    """Open a page; all its requests must go to the server, and none may be blocked."""
    requested, errors = [], []
    context = chromium.new_context(**options)
    context.set_default_timeout(PAGE_TIMEOUT)
    page = context.new_page()
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda line: line.type == "error" and errors.append(str(line.location)))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.bring_to_front()  # so that it receives key presses
    yield page
    context.close()
    assert len(requested) > 4
    own = f"{address.removesuffix('/forensics')}/", "data:", "blob:"
    assert [url for url in requested if not url.startswith(own)] == []
    assert len(errors) <= allowed_errors, errors


@pytest.fixture(scope="module")
def page(chromium, servers):
    """A page that several tests share."""
    size = {"width": 1280, "height": 900}
    with visiting(chromium, servers[0].address(), viewport=size) as opened:
        yield opened


@pytest.fixture
def fresh(chromium, server):
    """A page for one test."""
    with visiting(chromium, server.address()) as opened:
        yield opened


@pytest.fixture
def jpeg(tmp_path):
    path = tmp_path / "the harbour.jpg"
    Image.fromarray(photograph(300, 400)).save(path, quality=95)
    return path


def upload_and_examine(page, path: Path) -> None:
    """Upload a file and wait for its result."""
    viewer = page.locator("photo-viewer")
    before = viewer.get_attribute("base") if viewer.count() else ""
    page.set_input_files("#photograph", path)
    page.click("#examine")
    page.wait_for_selector(f"photo-viewer[ready]:not([base='{before}'])")


CANVAS = "document.querySelector('photo-viewer').shadowRoot.querySelector('canvas')"


def drawn(page) -> str:
    """The content of the canvas, after the next redraw."""
    page.evaluate("new Promise(f => requestAnimationFrame(() => requestAnimationFrame(f)))")
    return page.evaluate(f"{CANVAS}.toDataURL()")


def slide(page, name: str, value: float) -> None:
    page.eval_on_selector(
        f"photo-viewer [name={name}]",
        "(slider, value) => { slider.value = value;"
        "for (const kind of ['input', 'change'])"
        "slider.dispatchEvent(new Event(kind, { bubbles: true })) }",
        value,
    )


def downloaded(page, link: str) -> bytes:
    with page.expect_download() as download:
        page.click(f"photo-viewer .downloads a:text-is('{link}')")
    return Path(download.value.path()).read_bytes()


def test_api_examines_a_photo(client, server):
    before = set(server.visitor_files())
    state = examine(client, PHOTO, "../../the harbour.jpg")
    assert (state["state"], state["name"], state["error"]) == ("done", "the harbour.jpg", None)
    assert (state["result"]["width"], state["result"]["height"]) == (400, 300)
    base = f"/api/examinations/{state['id']}"
    assert client.get(base).json() == state
    assert len(state["id"]) >= 22
    for name, mode in (("mask", "L"), ("overlay", "RGB"), ("photograph", "RGB")):
        image = Image.open(io.BytesIO(client.get(f"{base}/{name}.png").content))
        assert (image.mode, image.size) == (mode, (400, 300))
    report = client.get(f"{base}/report.html", params={"threshold": 0.3})
    assert "Examination of the harbour.jpg" in report.text
    assert "sandbox" in report.headers["content-security-policy"]
    assert "script-src" not in report.headers["content-security-policy"]
    facts = client.get(f"{base}/report.json?threshold=1").json()
    assert (facts["file"], facts["marked"]) == ("the harbour.jpg", 0)
    added = set(server.visitor_files()) - before
    folders = {path.parent for path in added}
    assert {folder.name for folder in folders} == {state["id"]}
    assert all(re.fullmatch(r"\w+\.(png|bin|pickle)", path.name) for path in added)
    root = next(iter(folders)).parents[1]
    assert root.stat().st_mode & 0o777 == 0o700
    assert client.delete(base).status_code == 204
    assert set(server.visitor_files()) == before
    assert {client.get(base).status_code, client.delete(base).status_code} == {404}


def test_openapi_and_health(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/api/examinations", "/api/examinations/{name}", "/healthz"} <= paths.keys()
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/docs").status_code == 404


def test_page_contains_no_external_references_and_no_inline_code(client):
    response = client.get("/")
    assert not re.search(r'(src|href|action)="(https?:)?//', response.text)
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script>", response.text)
    policy = response.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    for name, value in (
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cache-control", "no-store"),
    ):
        assert response.headers[name] == value


OTHER_SITES = [
    {"Host": "evil.example"},
    {"Host": "127.0.0.1:1"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
]


@pytest.mark.parametrize("headers", OTHER_SITES)
def test_requests_of_other_sites_are_refused(client, server, headers):
    state = examine(client, SMALL)
    base = f"/api/examinations/{state['id']}"
    before = server.visitor_files()
    for path in ("", "/report.html", "/report.json", "/mask.png", "/events"):
        assert client.get(base + path, headers=headers).status_code in (403, 421)
    assert client.delete(base, headers=headers).status_code in (403, 421)
    assert post(client, headers=headers).status_code in (403, 421)
    assert server.visitor_files() == before
    assert client.delete(base).status_code == 204


def test_link_on_another_site_leads_to_the_page_only(client):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=headers).status_code == 200
    assert client.get("/openapi.json", headers=headers).status_code == 403


def test_requests_of_gradio_read_no_file(client, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret words")
    given = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    query = {"data": [given, False], "fn_index": 0, "session_hash": "a"}
    for response in (
        client.post("/gradio_api/queue/join", json=query),
        client.get("/gradio_api/deep_link?session_hash=a"),
        client.get("/config?deep_link=a"),
        client.get(f"/gradio_api/file={secret}"),
        client.post("/gradio_api/upload", files={"files": ("a.jpg", PHOTO)}),
        client.post("/api/examinations", json=given),
        client.post("/api/examinations", data={"photograph": str(secret)}),
        client.post("/api/examinations", data={"photograph": "/dev/zero"}),
        client.post("/api/examinations", data={"photograph": "http://127.0.0.1/"}),
    ):
        assert 400 <= response.status_code < 500
        assert "secret words" not in response.text


TRAVERSALS = (
    "/static/../app.py",
    "/static/..%2fapp.py",
    "/static/%2e%2e%2fapp.py",
    "/static//etc/passwd",
    "/static/%00",
    "/examples/../../upload",
    "/examples/-1.jpg",
    "/examples/0.jpg%00.png",
    "/api/examinations/../../../etc/passwd",
    "/api/examinations/%2e%2e",
    "/api/examinations/%2e%2e/report.html",
    "/api/examinations/%2e%2e%2fexamples/mask.png",
    "/api/examinations//etc/mask.png",
)


@pytest.mark.parametrize("path", TRAVERSALS)
def test_paths_do_not_lead_out_of_a_folder(server, path):
    host = f"127.0.0.1:{server.port}"
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    status = int(raw(server.port, request.encode()).split()[1])
    assert status in (400, 404, 405, 422)


@pytest.mark.parametrize("file", ["upload", "examination.pickle", "0.bin", "upload.png", "x.html"])
def test_internal_files_are_not_served(client, file):
    state = examine(client, SMALL)
    base = f"/api/examinations/{state['id']}"
    assert client.get(f"{base}/{file}").status_code == 404
    client.delete(base)


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "2", "", "x", "1e999", "\x00", "0.5;"])
def test_odd_thresholds_are_refused(client, value):
    state = examine(client, SMALL)
    base = f"/api/examinations/{state['id']}"
    for file in ("report.html", "report.json", "overlay.png"):
        assert client.get(f"{base}/{file}", params={"threshold": value}).status_code == 422
    client.delete(base)


def multipart(*parts: bytes, boundary: bytes = b"x") -> dict:
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    kind = b"multipart/form-data; boundary=" + boundary
    return {"content": body + b"--" + boundary + b"--\r\n", "headers": {"content-type": kind}}


FORM = "multipart/form-data; boundary=x"
PART = b'Content-Disposition: form-data; name="photograph"; filename="a.jpg"\r\n\r\n'


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({}, 415),
        ({"content": b"", "headers": {"content-type": "multipart/form-data"}}, 400),
        (
            {"content": b"words", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            400,
        ),
        ({"content": b"", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400),
        (multipart(), 400),
        (multipart(PART), 400),
        (multipart(PART + b"words"), 415),
        (multipart(PART + PHOTO, PART + PHOTO), 400),
        (multipart(b"\r\n" + PHOTO), 400),
        (multipart(PART.replace(b"photograph", b"files") + PHOTO), 400),
        (multipart(PART.replace(b'; filename="a.jpg"', b"") + PHOTO), 400),
        (multipart(b"A: " + b"b" * 9000 + b"\r\n" + PART + PHOTO), 400),
        (multipart(*[b"A: b\r\n" * 20 + PART + PHOTO]), 400),
        ({**multipart(PART + PHOTO), "params": {"native": "7"}}, 422),
        ({**multipart(PART + PHOTO), "params": {"native": ""}}, 422),
    ],
)
def test_odd_uploads_are_refused_and_leave_no_file(client, server, request_, status):
    before = server.visitor_files()
    response = client.post("/api/examinations", **request_)
    assert response.status_code == status, response.text
    assert response.json()["detail"]
    assert server.visitor_files() == before


@pytest.mark.parametrize(
    "name", ["a" * 5000, "\x1b[31m.jpg", "=1+1.jpg", "/", "<img>.jpg", "\ud800"]
)
def test_odd_file_names_are_only_displayed(client, name):
    part = PART.replace(b"a.jpg", name.encode("utf-8", "surrogatepass"))
    response = client.post("/api/examinations", **multipart(part + SMALL))
    assert response.status_code == (400 if len(name) > 4000 else 202)
    if response.status_code == 202:
        state = client.get(f"/api/examinations/{response.json()['id']}").json()
        assert len(state["name"]) <= 300
        assert state["name"].isprintable()
        client.delete(f"/api/examinations/{state['id']}")


def test_files_that_cannot_be_examined_are_reported(client, server):
    for content, message in (
        (PHOTO[: len(PHOTO) // 20], "cannot read"),
        (bomb(), "40000x40000 pixels"),
    ):
        state = examine(client, content, "bomb")
        assert state["state"] == "failed"
        assert message in state["error"]
        client.delete(f"/api/examinations/{state['id']}")
    assert [path for path in server.visitor_files() if path.name == "upload"] == []


def test_frozen_or_crashing_decoder_affects_only_its_examination(client, server):
    large = encoded(photograph(600, 1400), quality=95)
    for attack, number in (("stop", signal.SIGSTOP), ("crash", signal.SIGSEGV)):
        frozen = post(client, large, params={"native": True}).json()["id"]
        base = f"/api/examinations/{frozen}"
        assert eventually(lambda base=base: client.get(base).json()["state"] == "running")
        process = server.worker()
        os.kill(process, number)
        other = post(client, SMALL).json()["id"]
        assert client.get("/healthz", timeout=2).status_code == 200
        if attack == "stop":
            assert client.get(base).json()["state"] == "running"
            assert client.delete(base, timeout=2).status_code == 204
        else:
            assert eventually(lambda base=base: client.get(base).json()["state"] == "failed")
            assert "crashed" in client.get(base).json()["error"]
            client.delete(base)
        path = f"/api/examinations/{other}"
        assert eventually(lambda path=path: client.get(path).json()["state"] == "done", 60)
        client.delete(path)
        assert not Path(f"/proc/{process}").exists()


def test_41_visitors_do_not_remove_the_results_of_each_other(client):
    names = []
    for _ in range(41):
        while (response := post(client, SMALL)).status_code == 429:
            assert int(response.headers["retry-after"]) > 0
            time.sleep(0.2)
        names.append(response.json()["id"])
    assert len(set(names)) == 41
    assert eventually(
        lambda: all(
            client.get(f"/api/examinations/{name}").json()["state"] == "done" for name in names
        ),
        60,
    )
    for name in names:
        assert client.delete(f"/api/examinations/{name}").status_code == 204


def test_server_requires_its_token(servers):
    with httpx.Client(base_url=servers[1].address(), timeout=60) as visitor:
        assert visitor.get("/healthz").status_code == 200
        assert post(visitor).status_code == 401
        for value in ("", "Bearer", "Bearer x", "Basic " + TOKEN, f"Bearer {TOKEN}x", "Bearer é"):
            headers = {"Authorization": value.encode()}
            assert visitor.get("/openapi.json", headers=headers).status_code == 401
        assert "Token of this server" in visitor.get("/").text
        assert visitor.post("/login", data={"token": "wrong"}).status_code == 401
        assert visitor.post("/login", content=bytes(10_000)).status_code == 413
        assert visitor.get("/?token=wrong").status_code == 401
        answer = visitor.post("/login", data={"token": TOKEN})
        assert (answer.status_code, answer.headers["location"]) == (303, "/forensics/")
        cookie = answer.headers["set-cookie"].lower()
        assert all(part in cookie for part in ("httponly", "samesite=strict", "path=/forensics/"))
        assert visitor.get("/forensics/openapi.json").status_code == 200
        assert visitor.get("/forensics/").text.startswith("<!DOCTYPE html>")
    assert httpx.get(f"{servers[1].address()}/?token={TOKEN}").status_code == 303


def test_paths_below_the_root_path_are_served(strict):
    assert strict.get("/forensics/openapi.json").json()["servers"] == [{"url": "/forensics"}]
    assert strict.get("/forensics/static/page.js").status_code == 200
    assert strict.get("/forensicsx/").status_code == 404


def test_large_uploads_are_refused(strict):
    content = b"\xff\xd8\xff" + bytes(2**18 + 2**13)  # The multipart request may have 2**13 more.
    assert post(strict, content).status_code == 413
    chunks = (multipart(PART + content)["content"][i : i + 9999] for i in range(0, 2**19, 9999))
    kind = {"content-type": "multipart/form-data; boundary=x"}
    response = strict.post("/api/examinations", content=chunks, headers=kind)  # without a length
    assert response.status_code == 413
    state = examine(strict, encoded(np.zeros((1200, 1000, 3), np.uint8)), "wide.jpg")
    assert "wide.jpg has 1000x1200 pixels; the page accepts at most 1 million" in state["error"]
    strict.delete(f"/api/examinations/{state['id']}")


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


def test_slow_and_incomplete_requests_are_ended(servers):
    port = servers[1].port
    started = time.monotonic()
    assert raw(port, head(port)).startswith(b"HTTP/1.1 408 ")  # It pauses.
    assert raw(port, b"") == b""
    assert raw(port, b"GET / HTTP/1.1\r\nHost: ") == b""
    assert time.monotonic() - started < 15
    with socket.create_connection(("127.0.0.1", port), timeout=20) as slow:  # It never pauses.
        slow.sendall(head(port))
        slow.settimeout(0.2)
        answer, started = b"", time.monotonic()
        while not answer and time.monotonic() - started < 15:
            try:
                slow.sendall(b"x")
                answer = slow.recv(100)
            except TimeoutError:
                pass
        assert answer.startswith(b"HTTP/1.1 408 ")
    with socket.create_connection(("127.0.0.1", port)) as cut:
        cut.sendall(head(port))
        assert eventually(servers[1].examinations)
    assert eventually(lambda: not servers[1].examinations())


def test_open_uploads_and_connections_are_limited(servers, strict):
    port = servers[1].port
    opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(STRICT.uploads)]
    for connection in opened:
        connection.sendall(head(port))
    assert eventually(lambda: len(servers[1].examinations()) == STRICT.uploads)
    response = post(strict, SMALL)
    assert (response.status_code, response.headers["retry-after"]) == (429, "10")
    for connection in opened:
        connection.close()
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(300)]
    assert strict.get("/healthz", timeout=10).status_code == 200
    for connection in silent:
        connection.close()
    assert eventually(lambda: not servers[1].examinations())


def test_full_queue_and_store_are_refused(servers, strict):
    names = [post(strict, SMALL).json()["id"]]
    os.kill(process := servers[1].worker(), signal.SIGSTOP)
    try:
        answers = [post(strict, SMALL) for _ in range(4)]
        assert {answer.status_code for answer in answers} == {202, 429}
        names += [answer.json()["id"] for answer in answers if answer.status_code == 202]
    finally:
        os.kill(process, signal.SIGCONT)
    while len(names) < STRICT.kept:
        answer = post(strict, SMALL)
        names += [answer.json()["id"]] if answer.status_code == 202 else []
    answer = post(strict, SMALL)
    assert answer.status_code == 429
    for name in names:
        strict.delete(f"/api/examinations/{name}")


def test_abandoned_examinations_are_removed(servers, strict):
    name = post(strict, SMALL).json()["id"]  # Nobody asks for it.
    assert eventually(lambda: not servers[1].visitor_files())
    assert strict.get(f"/api/examinations/{name}").status_code == 404


def test_full_disk_is_507(disposable):
    process = disposable.process.pid
    with httpx.Client(base_url=disposable.address(), timeout=60) as client:
        soft, hard = resource.prlimit(process, resource.RLIMIT_FSIZE)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (1000, hard))
        response = post(client)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (soft, hard))
        assert response.status_code == 507
        assert disposable.visitor_files() == []
        state = examine(client)
        assert post(client).status_code == 507
        client.delete(f"/api/examinations/{state['id']}")


def test_write_error_of_a_full_disk_is_507(tmp_path):
    from qma_net.web.examinations import storing

    with pytest.raises(ServeError, match="No space left on device") as refused, storing():
        raise OSError(28, "No space left on device")
    assert refused.value.status == 507


def test_interrupted_server_with_a_frozen_decoder_leaves_nothing(disposable):
    server, address = disposable, disposable.address()
    with httpx.Client(base_url=address, timeout=60) as client:
        large = encoded(photograph(600, 1400), quality=95)
        name = post(client, large, params={"native": True}).json()["id"]
        path = f"/api/examinations/{name}"
        assert eventually(lambda: client.get(path).json()["state"] == "running")
        os.kill(server.worker(), signal.SIGSTOP)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(15) == 0
    assert list(server.temporary.iterdir()) == []
    line = f"{address} (Ctrl+C stops the server and removes all uploads)\n"
    assert server.log.read_text() == line


def test_worker_ends_an_examination_that_takes_too_long(tmp_path):
    examiner = worker.Worker(
        partial(worker.load_model, "", "", (), "", tmp_path), tmp_path, Limits(minutes=0)
    )
    examiner.start()
    (tmp_path / "upload").write_bytes(PHOTO)
    options = {"name": "a", "native": False, "is_stopped": lambda: False, "progress": print}
    with pytest.raises(ServeError, match="took more than 0 minutes"):
        examiner.examine(tmp_path, **options)
    examiner.kill()


def test_photo_is_examined_and_all_controls_work(page, jpeg):
    upload_and_examine(page, jpeg)
    frame = page.frame_locator("photo-viewer iframe")
    assert frame.locator("h1").inner_text() == "Examination of the harbour.jpg"
    for heading in ("Summary", "Regions without forensic traces", "The file", "Noise views"):
        assert frame.locator(f"h2:text-is('{heading}')").count() == 1
    assert frame.locator("h2:text-is('The photo')").count() == 0  # The viewer shows it.
    page.uncheck("photo-viewer [name=hatch]")
    slide(page, "threshold", 0)
    everything = drawn(page)
    assert page.inner_text("photo-viewer .marked") == "100.0%"
    slide(page, "opacity", 80)
    assert drawn(page) != everything
    slide(page, "threshold", 1)
    nothing = drawn(page)
    assert page.inner_text("photo-viewer .marked") == "0.0%"
    frame.locator("b:text-is('0.0%')").first.wait_for()  # The report follows the threshold.
    page.check("photo-viewer [value=Photo]")
    assert drawn(page) == nothing
    page.check("photo-viewer [value=Mask]")
    assert drawn(page) != nothing
    page.click("photo-viewer [data-zoom=native]")
    drawn(page)
    assert page.inner_text("photo-viewer .zoom output") == "100%"
    page.focus("photo-viewer canvas")
    page.keyboard.press("+")
    drawn(page)
    assert page.inner_text("photo-viewer .zoom output") == "150%"

    mask = Image.open(io.BytesIO(downloaded(page, "mask")))
    assert (mask.mode, mask.size) == ("L", (400, 300))
    overlay = Image.open(io.BytesIO(downloaded(page, "overlay"))).convert("RGB")
    report = downloaded(page, "report").decode()
    assert report.startswith("<!DOCTYPE html>")
    assert "The photo</h2>" in report
    # At a threshold of 1 nothing is tinted, and no region of this photo is hatched.
    difference = np.abs(np.asarray(overlay, int) - np.asarray(Image.open(jpeg), int))
    assert difference.max() == 0


def test_canvas_shows_original_pixels_at_100_percent(page, tmp_path):
    pixels = photograph(700, 1200)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    upload_and_examine(page, tmp_path / "large.png")
    page.uncheck("photo-viewer [name=hatch]")
    page.check("photo-viewer [value=Photo]")
    page.click("photo-viewer [data-zoom=native]")
    drawn(page)
    width, height, row, column = page.evaluate(
        f"""() => {{
          const canvas = {CANVAS}, {{ width, height }} = canvas;
          const values = (...box) => [...canvas.getContext("2d").getImageData(...box).data];
          return [width, height, values(0, 50, width, 1), values(70, 0, 1, height)];
        }}"""
    )
    assert width < 1200
    assert height < 700
    left, top = -round(width / 2 - 600), -round(height / 2 - 350)
    row, column = (np.array(values).reshape(-1, 4)[:, :3] for values in (row, column))
    assert (row == pixels[top + 50, left : left + width]).all()
    assert (column == pixels[top : top + height, left + 70]).all()


def test_invalid_upload_is_reported_and_page_remains_usable(chromium, server, jpeg, tmp_path):
    with visiting(chromium, server.address(), allowed_errors=2) as page:
        page.click("#examine")
        page.get_by_text("No photo was given; choose, drop or paste one first").wait_for()
        (tmp_path / "words.jpg").write_text("no photograph at all")
        page.set_input_files("#photograph", tmp_path / "words.jpg")
        page.click("#examine")
        page.get_by_text("words.jpg is not a photo: it is a text file (415)").wait_for()
        (tmp_path / "huge.jpg").write_bytes(bytes(Limits().bytes + 10**6))
        page.set_input_files("#photograph", tmp_path / "huge.jpg")
        page.click("#examine")
        page.locator("#status [role=alert]").get_by_text(
            re.compile("huge|large|respond")
        ).wait_for()
        upload_and_examine(page, jpeg)
        page.get_by_text("Done.").wait_for()
        assert page.locator("#status [role=alert]").count() == 0


def test_examination_at_original_size_shows_progress_and_can_be_stopped(page, tmp_path):
    Image.fromarray(photograph(1200, 2400)).save(tmp_path / "large.jpg")
    page.set_input_files("#photograph", tmp_path / "large.jpg")
    page.check("#native")
    page.click("#examine")
    page.wait_for_selector("#progress[max]")
    page.get_by_text(re.compile(r"\d+ of \d+ tiles finished")).wait_for()
    page.click("#stop")
    page.get_by_text("Stopped. There is no result for this photo.").wait_for()
    page.uncheck("#native")
    assert page.is_enabled("#examine")
    assert page.is_disabled("#stop")


def tab_to(page, selector: str, limit: int = 60) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(limit):
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {selector}")


def test_page_can_be_used_with_the_keyboard_alone(fresh, jpeg):
    page = fresh
    tab_to(page, "#photograph")
    choosers = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    for _ in range(30):  # The browser can be slow on a busy machine.
        page.keyboard.press("Enter")
        page.wait_for_timeout(300)
        if choosers:
            break
    choosers[0].set_files([jpeg, jpeg])
    tab_to(page, "#examine")
    page.keyboard.press("Enter")
    page.get_by_text("Done.").wait_for()
    page.wait_for_selector("photo-viewer[ready]")
    for name in ("view", "threshold", "opacity", "hatch"):
        control = page.locator(f"photo-viewer [name={name}]").first
        assert control.evaluate("control => control.tabIndex") == 0
    tab_to(page, "#blink")
    page.keyboard.press("Enter")
    page.wait_for_selector(".compared.blinking")
    tab_to(page, "#pause")
    page.keyboard.press("Enter")
    assert page.inner_text("#pause") == "Continue"
    tab_to(page, "#results .open")
    page.keyboard.press("Enter")
    page.wait_for_selector("photo-viewer[ready]")
    tab_to(page, "#results [aria-label^=Remove]")
    page.keyboard.press("Enter")
    assert page.locator("#results li").count() == 1


def test_controls_have_names_for_screen_readers(page, jpeg):
    upload_and_examine(page, jpeg)
    drawn(page)
    tree = page.locator("body").aria_snapshot()
    for named in (
        *('button "Examine"', 'button "Stop"', 'checkbox "Original resolution"'),
        *('radio "Overlay"', 'slider "Opacity', 'slider "Threshold', 'button "Zoom in"'),
        *('link "mask"', 'img "Overlay of the harbour.jpg', 'button "Remove the harbour.jpg"'),
    ):
        assert named in tree, tree
    assert page.get_attribute("photo-viewer iframe", "title") == "Report on the harbour.jpg"
    assert page.get_attribute("#status", "aria-live") == "polite"


def test_example_can_be_examined_on_a_phone(chromium, server):
    phone = {"viewport": {"width": 390, "height": 800}, "is_mobile": True, "has_touch": True}
    with visiting(chromium, server.address(), **phone) as page:
        page.tap("#examples button >> nth=0")
        page.wait_for_selector("photo-viewer[ready]")
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_pasted_and_dropped_photos_are_examined_one_after_another(fresh):
    page = fresh
    page.evaluate(
        """async () => {
          const canvas = Object.assign(document.createElement("canvas"), { width: 90, height: 80 });
          canvas.getContext("2d").fillRect(9, 9, 40, 40);
          const blob = await new Promise((done) => canvas.toBlob(done));
          const data = (name) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([blob], name, { type: "image/png" }));
            return transfer;
          };
          const options = { bubbles: true, cancelable: true };
          document.body.dispatchEvent(
            new ClipboardEvent("paste", { clipboardData: data("pasted.png"), ...options }));
          document.body.dispatchEvent(
            new DragEvent("drop", { dataTransfer: data("dropped.png"), ...options }));
        }"""
    )
    page.wait_for_selector("photo-viewer[ready][name='dropped.png']")
    assert page.locator("#results .open").all_inner_texts() == ["pasted.png", "dropped.png"]


def test_two_photos_are_compared(fresh, jpeg, tmp_path):
    page = fresh
    other = tmp_path / "other.png"
    other.write_bytes(SMALL)
    assert not page.is_visible("#comparison")
    upload_and_examine(page, jpeg)
    upload_and_examine(page, other)
    page.select_option("#kind", "overlay.png")
    page.click("#side")
    captions = page.locator(".compared figcaption")
    assert captions.all_inner_texts() == ["the harbour.jpg", "other.png"]
    assert page.locator(".compared img").evaluate_all(
        "images => Promise.all(images.map((i) => i.decode().then(() => i.naturalWidth)))"
    ) == [400, 80]
    page.click("#blink")
    first, second = (page.locator(".compared figure >> nth=" + n) for n in "01")
    second.wait_for()  # It appears after a while.
    assert not first.is_visible()
    page.click("#pause")
    visible = first.is_visible()
    page.click("#swap")
    assert first.is_visible() != visible


def test_closed_page_leaves_no_files(chromium, server, jpeg):
    before = set(server.visitor_files())
    with visiting(chromium, server.address()) as page:
        upload_and_examine(page, jpeg)
        assert set(server.visitor_files()) > before
        page.reload()
        page.wait_for_load_state()
        assert eventually(lambda: set(server.visitor_files()) <= before)
        upload_and_examine(page, jpeg)
        page.goto("about:blank")
        assert eventually(lambda: set(server.visitor_files()) <= before)


def test_page_without_a_model_has_no_mask(chromium, servers, tmp_path):
    small = tmp_path / "small.png"
    small.write_bytes(SMALL)
    address = servers[1].address()
    with visiting(chromium, f"{address}/forensics", allowed_errors=1) as page:
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("#examine")
        assert page.url == f"{address}/forensics/"
        assert "runs without a model, so there is no mask" in page.inner_text("header")
        assert page.locator("#native").count() == 0
        upload_and_examine(page, small)
        assert page.locator("photo-viewer [name=threshold]").count() == 0
        assert page.locator("photo-viewer .downloads a").all_inner_texts() == ["report", "JSON"]
        page.goto("about:blank")
    assert eventually(lambda: not servers[1].visitor_files())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--host", "no.such.host.invalid", "--token", TOKEN],
            "cannot listen on --host no.such.host.invalid --port",
        ),
        (
            ["--host", "203.0.113.7", "--token", TOKEN],
            "cannot listen on --host 203.0.113.7 --port 7860: Cannot assign",
        ),
        (["--port", "99999"], "--port 99999: .*; choose another --port"),
        (["--host", "0.0.0.0"], "--host 0.0.0.0 can be reached by others and requires a password"),
        (["--token", "short"], "--token is too short"),
        (["--root-path", "forensics"], "expected /PATH or https://HOST/PATH"),
        (["--model", "MVSSNet"], "--model MVSSNet requires --checkpoint"),
    ],
)
def test_unusable_address_or_model_is_one_line(flags, message):
    with pytest.raises(SystemExit, match=message):
        cli.main(["serve", *flags])


def test_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=rf"--port {port}: .* in use; choose another --port"):
            cli.main(["serve", "--port", str(port)])


def test_missing_uvicorn_names_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit, match=r"pip install 'qma-net\[web\]'"):
        cli.main(["serve"])


def test_examples_are_created_from_a_folder_of_photos(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    with pytest.raises(SynthesisError, match="has 0 usable photos, expected at least two"):
        make_examples(tmp_path, str(photos))
    for seed in range(4):
        Image.fromarray(photograph(400, 600, seed)).save(photos / f"{seed}.png")
    examples = make_examples(tmp_path, str(photos))
    assert [example.title for example in examples] == list(TITLES.values())
    for example in examples:
        assert Image.open(example.photograph).format == "JPEG"
        assert max(Image.open(example.thumbnail).size) == 96
    monkeypatch.setattr("qma_net.web.examples.find_spec", lambda name: None)
    assert make_examples(tmp_path) == []


def test_only_folders_of_killed_servers_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = f"{FOLDER_PREFIX}1", f"{FOLDER_PREFIX}2", "other"
    abandoned, active, other = (tmp_path / name for name in names)
    for folder in (abandoned, active, other):
        folder.mkdir()
        (folder / "photo.png").touch()
    (tmp_path / f"{FOLDER_PREFIX}3").symlink_to(other)
    with FolderLock(active):
        remove_abandoned_folders()
    assert not abandoned.exists()
    assert (active / "photo.png").exists()
    assert (other / "photo.png").exists()


class Bright(torch.nn.Module):
    """A model for BenCo's registry that marks bright pixels."""

    def __init__(self, gain: float = 3.0):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, image, mask, label, **kwargs):
        mask = torch.sigmoid(self.gain * image.mean(1, keepdim=True))
        return {"pred_mask": mask, "pred_label": None}


@pytest.mark.parametrize("padded", [False, True])
def test_registered_model_examines_photos_as_in_benco(tmp_path, monkeypatch, padded):
    pytest.importorskip("IMDLBenCo.registry", reason="imdlbenco is not installed")
    from argparse import Namespace

    from IMDLBenCo.registry import MODELS

    from qma_net.examine.page import render_page
    from qma_net.web.registered import RegisteredModel

    monkeypatch.setitem(MODELS.module_dict, "Bright", Bright)
    trained = Namespace(image_size=64, if_padding=padded)
    torch.save({"model": Bright(4.0).state_dict(), "args": trained}, tmp_path / "bright.pth")
    model = RegisteredModel.load(
        "Bright", ["--gain", "4"], str(tmp_path / "bright.pth"), device="cpu", folder=tmp_path
    )
    about = worker._describe(model, "")
    assert about == {"about": "Model: Bright, bright.pth.", "supports_native": False}
    pixels = np.full((120, 160, 3), 60, np.uint8)
    pixels[30:90, 80:] = 220
    Image.fromarray(pixels).save(tmp_path / "upload", "PNG")
    limits = Limits()
    result = worker._examine(model, "", limits, tmp_path, "a", False, lambda *_: None)
    examination = worker.load_examination(tmp_path)
    marked = examination.prediction.binary
    expected = pixels[..., 0] > 128
    assert marked.shape == (120, 160)
    assert (marked == expected).mean() > 0.97
    assert examination.settings["shown"].startswith("padded" if padded else "resized")
    assert "Bright: gain 4" in render_page(examination, images=False)
    mask, shares = examination.prediction.mask, result["shares"]
    assert shares[::20] == [round(float((mask > t).mean()), 4) for t in (0, 0.2, 0.4, 0.6, 0.8, 1)]
    assert 0 < shares[80] < shares[20] < 1
    assert any("reduced to 64x48" in note for note in examination.notes) == padded


@pytest.mark.slow
def test_memory_stays_constant_over_200_requests(tmp_path, checkpoint, capsys):
    """Four visitors; a fifth of their files is invalid, and each request gets an answer."""
    server = Server(tmp_path / "server", "--checkpoint", str(checkpoint))
    address = server.address()
    bad = (b"", b"words", PHOTO[: len(PHOTO) // 20], bomb())
    answers, errors = [], []

    def visit(number: int, times: int) -> None:
        try:
            with httpx.Client(base_url=address, timeout=300) as client:
                for i in range(times):
                    is_bad = i % 5 == 4
                    content = bad[i // 5 % 4] if is_bad else PHOTO
                    if len(content) < 10:
                        assert post(client, content).status_code in (400, 415)
                    else:
                        state = examine(client, content, f"{number}_{i}.jpg")
                        assert (state["state"] == "failed") == is_bad, state
                        base = f"/api/examinations/{state['id']}"
                        for file in () if is_bad else ("mask.png", "panels.html?threshold=0.3"):
                            client.get(f"{base}/{file}").raise_for_status()
                        assert client.delete(base).status_code == 204
                    answers.append(is_bad)
        except Exception as error:
            errors.append(error)

    def memory() -> float:
        """The memory of both processes in MB."""
        texts = [
            Path(f"/proc/{process}/status").read_text()
            for process in (server.process.pid, server.worker())
        ]
        return sum(int(re.search(r"VmRSS:\s+(\d+)", text)[1]) for text in texts) / 1024

    def all_visit(times: int) -> float:
        visitors = [threading.Thread(target=visit, args=(i, times)) for i in range(4)]
        for visitor in visitors:
            visitor.start()
        for visitor in visitors:
            visitor.join()
        return memory()

    try:
        after_warm_up = all_visit(10)
        at_end = all_visit(40)
        left = server.visitor_files()
    finally:
        server.end()
    with capsys.disabled():
        print(f" {len(answers)} answers; {after_warm_up:.0f} MB, then {at_end:.0f} MB", end="")
    assert errors == []
    assert (len(answers), sum(answers)) == (40 + 160, 8 + 32)
    assert at_end < 1.1 * after_warm_up
    assert left == []
