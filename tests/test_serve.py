"""``qma-net serve``: the page in a browser, its limits, its privacy and its shutdown."""

import io
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
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
from qma_net.examine.pipeline import examine_photo
from qma_net.inference.photograph import PhotographError
from qma_net.modeling.config import Preprocessing, QMANetConfig
from qma_net.modeling.qma_net import QMANetModel

if not find_spec("gradio"):  # Importing it would take seconds.
    pytest.skip("gradio is not installed (pip install 'qma-net[web]')", allow_module_level=True)

import httpx

from qma_net.synth.recipe import SynthesisError
from qma_net.web.examination_service import ExaminationService
from qma_net.web.examples import TITLES, make_examples
from qma_net.web.jobs import Jobs
from qma_net.web.limits import Limits, ServeError, Stopped
from qma_net.web.serve import FOLDER_PREFIX, remove_abandoned_folders
from qma_net.web.sessions import MAX_SESSIONS, Sessions

START_TIMEOUT = 120  # seconds; the machine may be busy
PAGE_TIMEOUT = 30_000  # milliseconds


class Server:
    """The real command, with its own temporary folder and working directory.

    Args:
        folder: The folder for these; it is created.
        flags: The flags of ``qma-net serve``.
    """

    def __init__(self, folder: Path, *flags: str):
        self.log, self.temporary, self.cwd = (folder / name for name in ("log", "tmp", "cwd"))
        for path in (folder, self.temporary, self.cwd):
            path.mkdir()
        abandoned = self.temporary / f"{FOLDER_PREFIX}killed"  # as left by a killed server
        abandoned.mkdir()
        (abandoned / "photo.png").write_bytes(b"private")
        environment = os.environ | {"TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(Path(cli.__file__).parents[2])
        command = [sys.executable, "-m", "qma_net", "serve", "--port", "0", *flags]
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

    def visitor_files(self) -> list[Path]:
        """The visitors' data on disk: all files except the examples and empty files."""
        own = re.compile(r"/examples/|/uploads/[^/]+/(splice|copymove|removal|untouched)\.png$")
        walked = os.walk(self.temporary)  # It tolerates folders that disappear meanwhile.
        files = [Path(folder, name) for folder, _, names in walked for name in names]
        return [file for file in files if not own.search(str(file)) and size(file)]

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def size(file: Path) -> int:
    """The size in bytes; 0 if the file has been removed meanwhile."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


class Client:
    """One visitor, who makes the requests that a browser would make."""

    def __init__(self, address: str):
        self.http = httpx.Client(base_url=address, timeout=300)
        self.name = secrets.token_hex(5)
        config = self.http.get("/config").json()
        (button,) = (c for c in config["components"] if c["props"].get("elem_id") == "examine")
        (self.function,) = (
            d["id"] for d in config["dependencies"] if [button["id"], "click"] in d["targets"]
        )
        self._left = threading.Event()
        self._open = threading.Thread(target=self._stay, args=(address,))
        self._open.start()

    def _stay(self, address: str) -> None:
        """Keep the session open, as an open page does."""
        url = f"{address}/gradio_api/heartbeat/{self.name}"
        with suppress(httpx.HTTPError), httpx.stream("GET", url, timeout=60) as beat:
            for _ in beat.iter_lines():
                if self._left.is_set():
                    return

    def leave(self) -> None:
        self._left.set()
        self._open.join()

    def examine(self, name: str, content: bytes) -> str:
        """Upload and examine a file; return the status messages and the result as HTML."""
        (path,) = self.http.post("/gradio_api/upload", files={"files": (name, content)}).json()
        upload = {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
        query = {"data": [upload, False], "fn_index": self.function, "session_hash": self.name}
        self.http.post("/gradio_api/queue/join", json=query).raise_for_status()
        url = f"/gradio_api/queue/data?session_hash={self.name}"
        outputs = []
        with self.http.stream("GET", url) as events:
            for line in events.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line else {}
                outputs.append(json.dumps(message.get("output")))
                if message.get("msg") == "process_completed":
                    assert message["success"], message
                    break
        return json.dumps(outputs)


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
    """Two servers that start in parallel: one with a model, one without."""
    folder = tmp_path_factory.mktemp("servers")
    started = (
        Server(folder / "with", "--checkpoint", str(checkpoint)),
        Server(folder / "without", "--checkpoint", "none"),
    )
    yield started
    for server in started:
        server.end()


@pytest.fixture
def server(servers):
    return servers[0]


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        yield opened
        opened.close()


@contextmanager
def visiting(chromium, address: str, **options):
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
    page.wait_for_selector("#photograph input[type=file]", state="attached")
    yield page
    context.close()
    assert len(requested) > 10
    own = f"{address}/", "data:", "blob:"
    assert [url for url in requested if not url.startswith(own)] == []
    assert errors == []


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


def upload(page, path: Path) -> None:
    """Upload a file, replacing the previous one."""
    if not page.locator("#photograph input[type=file]").count():
        page.click("#photograph button[aria-label=Clear]")
    page.set_input_files("#photograph input[type=file]", path)
    page.locator(f"#photograph [aria-label='{path.name}']").wait_for()


def upload_and_examine(page, path: Path) -> None:
    """Upload a file and wait for its result, which replaces the previous one."""
    viewer = page.locator("photo-viewer")
    before = viewer.get_attribute("base") if viewer.count() else ""
    upload(page, path)
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


def test_page_contains_no_external_references(server):
    with urllib.request.urlopen(server.address()) as response:
        text, headers = response.read().decode(), response.headers
        assert response.status == 200
    assert '<html\n\tlang="en"' in text
    assert not re.search(r'<(script|link|img|iframe)[^>]*(src|href)="(https?:)?//', text)
    assert "og:image" not in text
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe-inline" not in headers["content-security-policy"].split("style-src")[0]
    assert headers["cache-control"] == "no-store"


def test_photo_is_examined_and_all_controls_work(page, jpeg):
    upload_and_examine(page, jpeg)
    frame = page.frame_locator("photo-viewer iframe")
    assert frame.locator("h1").inner_text() == "Examination of the harbour.jpg"
    for heading in ("Summary", "Regions without forensic traces", "The file", "Noise views"):
        assert frame.locator(f"h2:text-is('{heading}')").count() == 1
    assert frame.locator("h2:text-is('The image')").count() == 0  # The viewer shows it.
    page.uncheck("photo-viewer [name=hatch]")
    slide(page, "threshold", 0)
    everything = drawn(page)
    assert page.inner_text("photo-viewer .marked") == "100.0 %"
    slide(page, "opacity", 80)
    assert drawn(page) != everything
    slide(page, "threshold", 1)
    nothing = drawn(page)
    assert page.inner_text("photo-viewer .marked") == "0.0 %"
    frame.locator("b:text-is('0.0%')").first.wait_for()  # The report follows the threshold.
    page.check("photo-viewer [value=Photo]")
    assert drawn(page) == nothing
    page.check("photo-viewer [value=Mask]")
    assert drawn(page) != nothing
    page.click("photo-viewer [data-zoom=native]")
    drawn(page)
    assert page.inner_text("photo-viewer .zoom output") == "100 %"
    page.focus("photo-viewer canvas")
    page.keyboard.press("+")
    drawn(page)
    assert page.inner_text("photo-viewer .zoom output") == "150 %"

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


def test_invalid_upload_is_reported_and_page_remains_usable(fresh, jpeg, tmp_path):
    page = fresh
    page.click("#examine")
    alert = page.locator("#status [role=alert]")
    page.get_by_text("no photo was given; choose, drop or paste one first").wait_for()
    (tmp_path / "huge.jpg").write_bytes(bytes(Limits().bytes + 1))
    page.set_input_files("#photograph input[type=file]", tmp_path / "huge.jpg")
    refused = page.locator(".toast-body").first
    assert "maximum allowed size of 50.0 Mb" in refused.inner_text()
    (tmp_path / "words.jpg").write_text("no photograph at all")
    upload(page, tmp_path / "words.jpg")
    page.click("#examine")
    page.get_by_text("cannot read words.jpg").wait_for()
    assert alert.inner_text().endswith("it is a text file")
    upload_and_examine(page, jpeg)
    assert alert.count() == 0


def test_examination_at_original_size_shows_progress_and_can_be_stopped(page, tmp_path):
    Image.fromarray(photograph(600, 1400)).save(tmp_path / "large.jpg")
    upload(page, tmp_path / "large.jpg")
    page.check("#native input")
    page.click("#examine")
    page.wait_for_selector("#status progress[max]")
    assert re.match(r"\d+ of \d+ tiles finished", page.inner_text("#status"))
    page.click("#stop")
    page.get_by_text("Stopped. There is no result for this photo.").wait_for()
    page.uncheck("#native input")
    assert page.is_enabled("#examine")
    assert page.is_disabled("#stop")


def test_page_can_be_used_with_the_keyboard_alone(fresh, jpeg):
    page = fresh
    focused = "document.activeElement.closest('[id]').id"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "photograph"
    chosen = []
    page.on("filechooser", lambda chooser: chosen.append(chooser))
    for _ in range(60):  # The page responds late on a busy machine.
        page.keyboard.press("Enter")
        page.wait_for_timeout(500)
        if chosen:
            break
    chosen[0].set_files(jpeg)
    page.wait_for_selector("#photograph button[aria-label=Clear]")
    for _ in range(6):
        page.keyboard.press("Tab")
        if page.evaluate(focused) == "examine":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("photo-viewer[ready]")
    for name in ("view", "threshold", "opacity", "hatch"):
        control = page.locator(f"photo-viewer [name={name}]").first
        assert control.evaluate("control => control.tabIndex") == 0


def test_controls_have_names_for_screen_readers(page, jpeg):
    upload_and_examine(page, jpeg)
    drawn(page)
    tree = page.locator("body").aria_snapshot()
    assert re.search(r'button "[^"]*upload|button "Clear"', tree)
    for named in (
        *('button "Examine"', 'button "Stop"', 'checkbox "Original size"'),
        *('radio "Overlay"', 'slider "Opacity', 'slider "Threshold', 'button "Zoom in"'),
        *('link "mask"', 'img "Overlay of the harbour.jpg'),
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


def test_pasted_image_replaces_the_previous_upload(page, jpeg):
    upload(page, jpeg)
    page.evaluate(
        """async () => {
          const canvas = Object.assign(document.createElement("canvas"), { width: 90, height: 80 });
          canvas.getContext("2d").fillRect(9, 9, 40, 40);
          const blob = await new Promise((done) => canvas.toBlob(done));
          const data = new DataTransfer();
          data.items.add(new File([blob], "image.png", { type: "image/png" }));
          const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
          document.body.dispatchEvent(event);
        }"""
    )
    page.locator("#photograph [aria-label='image.png']").wait_for()
    page.click("#examine")
    page.wait_for_selector("photo-viewer[ready][name='image.png']")


def test_other_host_names_and_files_are_refused(server):
    address = server.address()
    other_host = urllib.request.Request(address, headers={"Host": "evil.example"})
    for request, code in (
        (other_host, 421),
        (f"{address}/results/{'x' * 22}/report.html", 404),
        (f"{address}/gradio_api/file={cli.__file__}", 403),
        (f"{address}/docs", 404),
        (f"{address}/openapi.json", 404),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == code, request


def test_server_without_model_has_no_mask_and_keeps_no_data(chromium, servers, jpeg):
    server = servers[1]
    address = server.address()
    with visiting(chromium, address) as page:
        assert "runs without a model, so there is no mask" in page.inner_text("#header")
        assert not page.is_visible("#native")
        upload_and_examine(page, jpeg)
        assert page.locator("photo-viewer [name=threshold]").count() == 0
        assert page.locator("photo-viewer .downloads a").all_inner_texts() == ["report"]
        frame = page.frame_locator("photo-viewer iframe")
        frame.get_by_text("The photo was examined without a model, so there is no mask").wait_for()
        base = page.get_attribute("photo-viewer", "base")
        urllib.request.urlopen(f"{address}{base}photograph.png").close()
        assert len(server.visitor_files()) == 3  # The upload and two arrays.
    for _ in range(100):  # until the server notices that the page is closed
        if not server.visitor_files():
            break
        time.sleep(0.1)
    assert server.visitor_files() == []
    assert list(server.cwd.iterdir()) == []
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}{base}photograph.png")

    open_page = Client(address)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(30) == 0
    open_page.leave()
    assert list(server.temporary.iterdir()) == []
    line = f"{address} (Ctrl+C stops the server and removes all uploads)\n"
    assert server.log.read_text() == line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--host", "no.such.host.invalid"], "cannot listen on --host no.such.host.invalid --port"),
        (
            ["--host", "203.0.113.7"],
            "cannot listen on --host 203.0.113.7 --port 7860: Cannot assign",
        ),
        (["--port", "99999"], "--port 99999: .*; choose another --port"),
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


def test_missing_gradio_names_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit, match=r"pip install 'qma-net\[web\]'"):
        cli.main(["serve"])


def result_of(service: ExaminationService, path: Path):
    """The last item that an examination yields."""
    *_, last = service.examine(str(path), native=False, name="a")
    return last


@pytest.fixture
def sessions(tmp_path):
    folder = tmp_path / "sessions"
    folder.mkdir()
    return Sessions(folder)


def test_files_beyond_the_limits_are_refused(sessions, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as in the server
    service = ExaminationService(None, sessions, Limits(megabytes=1, megapixels=1))
    Image.fromarray(photograph(100, 120)).save(tmp_path / "good.png")
    assert result_of(service, tmp_path / "good.png").examination.evidence.facts.format == "PNG"
    Image.new("L", (1100, 1000)).save(tmp_path / "large.png")
    with pytest.raises(
        ServeError, match=r"large\.png has 1100x1000 pixels; the page accepts at most 1 million"
    ):
        result_of(service, tmp_path / "large.png")
    (tmp_path / "bomb.png").write_bytes(bomb())
    with pytest.raises(PhotographError, match="it claims 40000x40000 pixels, more than 500"):
        result_of(service, tmp_path / "bomb.png")
    (tmp_path / "big.jpg").write_bytes(bytes(2**20 + 1))
    with pytest.raises(ServeError, match=r"big\.jpg has 1 MB; the page accepts at most 1 MB"):
        result_of(service, tmp_path / "big.jpg")
    with pytest.raises(ServeError, match=r"gone\.jpg was removed"):
        result_of(service, tmp_path / "gone.jpg")
    (tmp_path / "text.jpg").write_text("text")
    with pytest.raises(PhotographError, match="it is a text file"):
        result_of(service, tmp_path / "text.jpg")
    service.close()


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


def test_jobs_run_one_at_a_time_and_the_queue_is_limited():
    jobs, go, order = Jobs(Limits(waiting=2)), threading.Event(), []

    def work(name):
        def run(progress):
            go.wait(30)
            progress(1, 2)
            order.append(name)

        return run

    first, second, third = (jobs.add(work(name)) for name in "abc")
    with pytest.raises(ServeError, match=r"too many photos are waiting \(the limit is 2\)"):
        jobs.add(work("d"))
    assert [jobs.position(job) for job in (first, second, third)] == [0, 1, 2]
    assert not first.wait(0.01)
    second.stop()
    go.set()
    assert third.wait(30)
    with pytest.raises(Stopped):
        second.result()
    assert order == ["a", "c"]
    jobs.add(work("e")).wait(30)
    assert order == ["a", "c", "e"]
    jobs.close()


def test_examination_that_takes_too_long_is_ended():
    jobs = Jobs(Limits(minutes=0.0005))  # 30 milliseconds

    def work(progress):
        for done in range(1000):
            time.sleep(0.005)
            progress(done, 1000)

    job = jobs.add(work)
    assert job.wait(30)
    with pytest.raises(ServeError, match=r"took more than 0\.0005 minutes"):
        job.result()
    assert 0 < job.tiles[0] < 999
    jobs.close()


def test_closing_a_session_removes_its_files(sessions, tmp_path):
    uploads = [tmp_path / name / "same.jpg" for name in ("first", "second")]
    for upload in uploads:
        upload.parent.mkdir()
        upload.write_bytes(b"x")
    sessions.uploaded("a", uploads[0])
    sessions.uploaded("b", uploads[0])  # Gradio stores equal uploads once.
    sessions.uploaded("a", uploads[1])
    assert uploads[0].exists()
    sessions.close("b")
    assert not uploads[0].parent.exists()

    Image.fromarray(photograph(60, 50)).save(tmp_path / "p.png")
    examination = examine_photo(None, tmp_path / "p.png")
    session = sessions.of("a")
    first, second = session.keep(examination), session.keep(examination)
    assert sessions.result(first.token) is None
    assert sessions.result(second.token) is second
    assert len(list((tmp_path / "sessions").rglob("*.npy"))) == 2  # of the last result only
    sessions.close("a")
    assert not uploads[1].parent.exists()
    assert list((tmp_path / "sessions").iterdir()) == []
    with pytest.raises(Stopped):
        session.keep(examination)


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


def test_oldest_session_is_closed_when_there_are_too_many(sessions, tmp_path):
    for number in range(MAX_SESSIONS + 3):
        sessions.of(str(number))
    assert len(list((tmp_path / "sessions").iterdir())) == MAX_SESSIONS


class Bright(torch.nn.Module):
    """A model for BenCo's registry that marks bright pixels."""

    def __init__(self, gain: float = 3.0):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, image, mask, label, **kwargs):
        mask = torch.sigmoid(self.gain * image.mean(1, keepdim=True))
        return {"pred_mask": mask, "pred_label": None}


@pytest.mark.parametrize("padded", [False, True])
def test_registered_model_examines_photos_as_in_benco(sessions, tmp_path, monkeypatch, padded):
    pytest.importorskip("IMDLBenCo.registry", reason="imdlbenco is not installed")
    from argparse import Namespace

    from IMDLBenCo.registry import MODELS

    from qma_net.web.registered import RegisteredModel

    monkeypatch.setitem(MODELS.module_dict, "Bright", Bright)
    trained = Namespace(image_size=64, if_padding=padded)
    torch.save({"model": Bright(4.0).state_dict(), "args": trained}, tmp_path / "bright.pth")
    model = RegisteredModel.load(
        "Bright", ["--gain", "4"], str(tmp_path / "bright.pth"), device="cpu", folder=tmp_path
    )
    service = ExaminationService(model, sessions, Limits())
    assert not service.supports_native
    assert service.about == "Model: Bright, bright.pth."
    pixels = np.full((120, 160, 3), 60, np.uint8)
    pixels[30:90, 80:] = 220
    Image.fromarray(pixels).save(tmp_path / "half.png")
    result = result_of(service, tmp_path / "half.png")
    marked = result.examination.prediction.binary
    expected = pixels[..., 0] > 128
    assert marked.shape == (120, 160)
    assert (marked == expected).mean() > 0.97
    assert result.examination.settings["shown"].startswith("padded" if padded else "resized")
    assert "Bright: gain 4" in result.report(None, images=False)
    mask, shares = result.examination.prediction.mask, result.shares()
    assert shares[::20] == [round(float((mask > t).mean()), 4) for t in (0, 0.2, 0.4, 0.6, 0.8, 1)]
    assert 0 < shares[80] < shares[20] < 1
    assert any("reduced to 64x48" in note for note in result.examination.notes) == padded
    service.close()


def test_missing_benco_names_the_extra_to_install(tmp_path, monkeypatch):
    for name in ("IMDLBenCo", "IMDLBenCo.model_zoo"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("qma_net.launch.cuda_to_cpu.redirect_cuda_to_cpu", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "")
    flags = ["--port", "0", "--model", "MVSSNet", "--checkpoint", str(tmp_path / "a.pth")]
    with pytest.raises(SystemExit, match=r"pip install 'qma-net\[benco\]'"):
        cli.main(["serve", *flags])
    assert list(tmp_path.iterdir()) == []


def resident_memory(process) -> float:
    """The memory of a process in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


@pytest.mark.slow
def test_memory_stays_constant_over_200_requests(tmp_path, checkpoint, capsys):
    """Four visitors; a fifth of their files is invalid, and each request gets an answer."""
    server = Server(tmp_path / "server", "--checkpoint", str(checkpoint))
    address = server.address()
    whole = io.BytesIO()
    Image.fromarray(photograph(300, 400)).save(whole, "JPEG", quality=95)
    good = whole.getvalue()
    bad = (b"", b"words", good[: len(good) // 2], bomb())
    answers, errors = [], []

    def visit(number: int, times: int) -> None:
        try:
            client = Client(address)
            for i in range(times):
                is_bad = i % 5 == 4
                content = bad[i // 5 % 4] if is_bad else good
                outputs = client.examine(f"{number}_{i}.jpg", content)
                assert ("role=" in outputs) == is_bad, outputs
                if not is_bad:
                    base = re.search(r"/results/[\w-]+/", outputs)[0]
                    for file in ("mask.png", "panels.html?threshold=0.3"):
                        client.http.get(base + file).raise_for_status()
                answers.append(is_bad)
            client.leave()
        except Exception as error:
            errors.append(error)

    def all_visit(times: int) -> float:
        visitors = [threading.Thread(target=visit, args=(i, times)) for i in range(4)]
        for visitor in visitors:
            visitor.start()
        for visitor in visitors:
            visitor.join()
        time.sleep(3)  # until the server notices that they left
        return resident_memory(server.process)

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
