"""``qma-net serve``: the page in a browser, what it keeps, what it refuses, what it never asks."""

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
from qma_net.core.files import alone
from qma_net.examine.examination import examine, read_evidence, without_model
from qma_net.inference.photograph import PhotographError
from qma_net.modeling.config import Preprocessing, QMANetConfig
from qma_net.modeling.qma_net import QMANetModel

if not find_spec("gradio"):  # which takes seconds to import, and is not needed here
    pytest.skip("gradio is not installed (pip install 'qma-net[web]')", allow_module_level=True)

import httpx

from qma_net.synth.recipe import SynthesisError
from qma_net.web.desk import Desk
from qma_net.web.examples import TITLES, make_examples
from qma_net.web.jobs import Jobs
from qma_net.web.limits import Limits, ServeError, Stopped
from qma_net.web.serve import PREFIX, remove_left_behind
from qma_net.web.sessions import MOST, Sessions

START = 120  # seconds to wait for a server, on a machine that does other things too
WAIT = 30_000  # milliseconds to wait for the page


class Server:
    """The true command with a temporary folder and a working directory of its own.

    Args:
        folder: for these; it is made.
        flags: of ``qma-net serve``.
    """

    def __init__(self, folder: Path, *flags: str):
        self.log, self.temporary, self.here = (folder / name for name in ("log", "tmp", "here"))
        for made in (folder, self.temporary, self.here):
            made.mkdir()
        killed = self.temporary / f"{PREFIX}killed"  # what one that was killed left there
        killed.mkdir()
        (killed / "photo.png").write_bytes(b"private")
        environment = os.environ | {"TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(Path(cli.__file__).parents[2])
        command = [sys.executable, "-m", "qma_net", "serve", "--port", "0", *flags]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=self.here
            )

    def address(self) -> str:
        """Where it is, once it answers."""
        for _ in range(10 * START):
            found = re.search(r"http://127\.0\.0\.1:\d+", self.log.read_text())
            if found or self.process.poll() is not None:
                break
            time.sleep(0.1)
        assert found, self.log.read_text()
        return found[0]

    def kept(self) -> list[Path]:
        """What it has on disk of its visitors: all but its own examples."""
        own = re.compile(r"/examples/|/uploads/[^/]+/(splice|copymove|removal|untouched)\.png$")
        walked = os.walk(self.temporary)  # which bears with folders that go meanwhile
        files = [Path(folder, name) for folder, _, names in walked for name in names]
        return [file for file in files if not own.search(str(file)) and size(file)]

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def size(file: Path) -> int:
    """In bytes; 0 where it has gone meanwhile."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


class Client:
    """One visitor, by the requests that its browser would make; one upload after the other."""

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
        """Keeps the session open, as a page does that is shown."""
        where = f"{address}/gradio_api/heartbeat/{self.name}"
        with suppress(httpx.HTTPError), httpx.stream("GET", where, timeout=60) as beat:
            for _ in beat.iter_lines():
                if self._left.is_set():
                    return

    def leave(self) -> None:
        self._left.set()
        self._open.join()

    def examine(self, name: str, content: bytes) -> str:
        """The status line and the result, as HTML."""
        (path,) = self.http.post("/gradio_api/upload", files={"files": (name, content)}).json()
        upload = {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
        asked = {"data": [upload, False], "fn_index": self.function, "session_hash": self.name}
        self.http.post("/gradio_api/queue/join", json=asked).raise_for_status()
        where = f"/gradio_api/queue/data?session_hash={self.name}"
        said = []
        with self.http.stream("GET", where) as events:
            for line in events.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line else {}
                said.append(json.dumps(message.get("output")))
                if message.get("msg") == "process_completed":
                    assert message["success"], message
                    break
        return json.dumps(said)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A directory of save_pretrained: a small model that looks at 96x96."""
    torch.manual_seed(0)
    model = QMANetModel.from_config(QMANetConfig(size="b0", views="srm,bayar"))
    model.preprocessing = Preprocessing(96, "resize")
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def servers(tmp_path_factory, checkpoint):
    """Two servers that start side by side: with a model, and without."""
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
    """A page of its own; whatever it asks for must come from the server, and be let through."""
    asked, refused = [], []
    context = chromium.new_context(**options)
    context.set_default_timeout(WAIT)
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: line.type == "error" and refused.append(str(line.location)))
    page.on("pageerror", lambda error: refused.append(str(error)))
    page.goto(address)
    page.bring_to_front()  # keys go there
    page.wait_for_selector("#photograph input[type=file]", state="attached")
    yield page
    context.close()
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith((f"{address}/", "data:", "blob:"))] == []
    assert refused == []


@pytest.fixture(scope="module")
def page(chromium, servers):
    """A page that many tests use, one after the other."""
    size = {"width": 1280, "height": 900}
    with visiting(chromium, servers[0].address(), viewport=size) as opened:
        yield opened


@pytest.fixture
def fresh(chromium, server):
    """A page of one test."""
    with visiting(chromium, server.address()) as opened:
        yield opened


@pytest.fixture
def jpeg(tmp_path):
    path = tmp_path / "the harbour.jpg"
    Image.fromarray(photograph(300, 400)).save(path, quality=95)
    return path


def give(page, path: Path) -> None:
    """Uploads a file in place of the one before."""
    if not page.locator("#photograph input[type=file]").count():
        page.click("#photograph button[aria-label=Clear]")
    page.set_input_files("#photograph input[type=file]", path)
    page.locator(f"#photograph [aria-label='{path.name}']").wait_for()


def examined(page, path: Path) -> None:
    """Uploads a file and waits for its result, in place of the one before."""
    viewer = page.locator("photo-viewer")
    before = viewer.get_attribute("base") if viewer.count() else ""
    give(page, path)
    page.click("#examine")
    page.wait_for_selector(f"photo-viewer[ready]:not([base='{before}'])")


CANVAS = "document.querySelector('photo-viewer').shadowRoot.querySelector('canvas')"


def drawn(page) -> str:
    """What the canvas shows, once it is drawn."""
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
    with page.expect_download() as begun:
        page.click(f"photo-viewer .downloads a:text-is('{link}')")
    return Path(begun.value.path()).read_bytes()


def test_the_page_is_whole_without_a_network(server):
    with urllib.request.urlopen(server.address()) as answer:
        text, headers = answer.read().decode(), answer.headers
        assert answer.status == 200
    assert '<html\n\tlang="en"' in text
    assert not re.search(r'<(script|link|img|iframe)[^>]*(src|href)="(https?:)?//', text)
    assert "og:image" not in text
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe-inline" not in headers["content-security-policy"].split("style-src")[0]
    assert headers["cache-control"] == "no-store"


def test_a_photograph_is_examined_and_every_control_answers(page, jpeg):
    examined(page, jpeg)
    frame = page.frame_locator("photo-viewer iframe")
    assert frame.locator("h1").inner_text() == "Examination of the harbour.jpg"
    for heading in ("In short", "Where nothing can be read", "The file", "Leads"):
        assert frame.locator(f"h2:text-is('{heading}')").count() == 1
    assert frame.locator("h2:text-is('The picture')").count() == 0  # the viewer shows it
    page.uncheck("photo-viewer [name=hatch]")
    slide(page, "threshold", 0)
    everything = drawn(page)
    assert page.inner_text("photo-viewer .marked") == "100.0 %"
    slide(page, "opacity", 80)
    assert drawn(page) != everything
    slide(page, "threshold", 1)
    nothing = drawn(page)
    assert page.inner_text("photo-viewer .marked") == "0.0 %"
    frame.locator("b:text-is('0.0 %')").first.wait_for()  # of the report, at the same threshold
    page.check("photo-viewer [value=Photograph]")
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
    assert "The picture</h2>" in report
    # At a threshold of 1 nothing is tinted; hatched is what cannot be read, none of this one.
    difference = np.abs(np.asarray(overlay, int) - np.asarray(Image.open(jpeg), int))
    assert difference.max() == 0


def test_at_100_percent_a_pixel_is_a_pixel(page, tmp_path):
    """Across its whole width and height the canvas holds the photograph's own values."""
    pixels = photograph(700, 1200)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    examined(page, tmp_path / "large.png")
    page.uncheck("photo-viewer [name=hatch]")
    page.check("photo-viewer [value=Photograph]")
    page.click("photo-viewer [data-zoom=native]")
    drawn(page)
    width, height, row, column = page.evaluate(
        f"""() => {{
          const canvas = {CANVAS}, {{ width, height }} = canvas;
          const values = (...box) => [...canvas.getContext("2d").getImageData(...box).data];
          return [width, height, values(0, 50, width, 1), values(70, 0, 1, height)];
        }}"""
    )
    assert (width, height) < (1200, 700)
    left, top = -round(width / 2 - 600), -round(height / 2 - 350)
    row, column = (np.array(values).reshape(-1, 4)[:, :3] for values in (row, column))
    assert (row == pixels[top + 50, left : left + width]).all()
    assert (column == pixels[top : top + height, left + 70]).all()


def test_what_is_no_photograph_is_one_line_and_the_page_goes_on(fresh, jpeg, tmp_path):
    page = fresh
    page.click("#examine")
    alert = page.locator("#status [role=alert]")
    page.get_by_text("got no photograph, expected one").wait_for()
    (tmp_path / "huge.jpg").write_bytes(bytes(Limits().bytes + 1))
    page.set_input_files("#photograph input[type=file]", tmp_path / "huge.jpg")
    refused = page.locator(".toast-body").first
    assert "maximum allowed size of 50.0 Mb" in refused.inner_text()
    (tmp_path / "words.jpg").write_text("no photograph at all")
    give(page, tmp_path / "words.jpg")
    page.click("#examine")
    page.get_by_text("got words.jpg, expected a complete photograph").wait_for()
    assert alert.inner_text().endswith("it is a text")
    examined(page, jpeg)
    assert alert.count() == 0


def test_its_own_size_shows_how_far_it_is_and_can_be_stopped(page, tmp_path):
    Image.fromarray(photograph(600, 1400)).save(tmp_path / "large.jpg")
    give(page, tmp_path / "large.jpg")
    page.check("#native input")
    page.click("#examine")
    page.wait_for_selector("#status progress[max]")
    assert re.match(r"\d+ of \d+ tiles looked at", page.inner_text("#status"))
    page.click("#stop")
    page.get_by_text("Stopped: nothing was found out").wait_for()
    page.uncheck("#native input")
    assert page.is_enabled("#examine")
    assert page.is_disabled("#stop")


def test_keys_alone_are_enough(fresh, jpeg):
    page = fresh
    focused = "document.activeElement.closest('[id]').id"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "photograph"
    chosen = []
    page.on("filechooser", lambda chooser: chosen.append(chooser))
    for _ in range(60):  # on a machine that does other things too, the page answers late
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


def test_names_for_a_screen_reader(page, jpeg):
    examined(page, jpeg)
    drawn(page)
    tree = page.locator("body").aria_snapshot()
    assert re.search(r'button "[^"]*upload|button "Clear"', tree)
    for named in (
        *('button "Examine"', 'button "Stop"', 'checkbox "At its own size"'),
        *('radio "Overlay"', 'slider "Opacity', 'slider "Threshold', 'button "Larger"'),
        *('link "mask"', 'img "Overlay of the harbour.jpg'),
    ):
        assert named in tree, tree
    assert page.get_attribute("photo-viewer iframe", "title") == "Report on the harbour.jpg"
    assert page.get_attribute("#status", "aria-live") == "polite"


def test_an_example_is_a_press_away_also_on_a_phone(chromium, server):
    phone = {"viewport": {"width": 390, "height": 800}, "is_mobile": True, "has_touch": True}
    with visiting(chromium, server.address(), **phone) as page:
        page.tap("#examples button >> nth=0")
        page.wait_for_selector("photo-viewer[ready]")
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_picture_is_pasted_in_place_of_the_one_before(page, jpeg):
    give(page, jpeg)
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


def test_other_names_and_other_files_are_refused(server):
    address = server.address()
    foreign = urllib.request.Request(address, headers={"Host": "evil.example"})
    for asked, code in (
        (foreign, 421),
        (f"{address}/results/{'x' * 22}/report.html", 404),
        (f"{address}/gradio_api/file={cli.__file__}", 403),
        (f"{address}/docs", 404),
        (f"{address}/openapi.json", 404),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked)
        assert refused.value.code == code, asked


def test_without_a_model_it_says_so_and_nothing_is_kept(chromium, servers, jpeg):
    server = servers[1]
    address = server.address()
    with visiting(chromium, address) as page:
        assert "without a model, so there is no mask" in page.inner_text("#header")
        assert not page.is_visible("#native")
        examined(page, jpeg)
        assert page.locator("photo-viewer [name=threshold]").count() == 0
        assert page.locator("photo-viewer .downloads a").all_inner_texts() == ["report"]
        frame = page.frame_locator("photo-viewer iframe")
        frame.get_by_text("No model was asked, so there is no mask").wait_for()
        base = page.get_attribute("photo-viewer", "base")
        urllib.request.urlopen(f"{address}{base}photograph.png").close()
        assert len(server.kept()) == 3  # the upload and two arrays
    for _ in range(100):  # the server hears that the page is closed
        if not server.kept():
            break
        time.sleep(0.1)
    assert server.kept() == []
    assert list(server.here.iterdir()) == []
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}{base}photograph.png")

    still_there = Client(address)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(30) == 0
    still_there.leave()
    assert list(server.temporary.iterdir()) == []
    said = f"{address} (Ctrl+C ends it, and removes what was uploaded)\n"
    assert server.log.read_text() == said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--host", "no.such.host.invalid"], "got --host no.such.host.invalid --port"),
        (["--host", "203.0.113.7"], "expected an address of this machine and a free port"),
        (["--port", "99999"], "--port 99999, expected an address"),
        (["--model", "MVSSNet"], "got --model MVSSNet alone, expected its weights too"),
    ],
)
def test_an_address_that_cannot_be_is_one_line(flags, said):
    with pytest.raises(SystemExit, match=said):
        cli.main(["serve", *flags])


def test_a_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=rf"--port {port}, .* in use; give another --port"):
            cli.main(["serve", "--port", str(port)])


def test_flags_of_no_model_are_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["serve", "--prot", "1"])
    assert "got --prot (did you mean --port?) 1, expected" in capsys.readouterr().err


def test_without_gradio_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit, match=r"pip install 'qma-net\[web\]'"):
        cli.main(["serve"])


def looked_at(desk: Desk, path: Path):
    """The last of what an examination yields."""
    *_, last = desk.examine(str(path), native=False, name="a")
    return last


@pytest.fixture
def sessions(tmp_path):
    folder = tmp_path / "sessions"
    folder.mkdir()
    return Sessions(folder)


def test_limits_of_a_photograph(sessions, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as the server has it
    desk = Desk(None, sessions, Limits(megabytes=1, megapixels=1))
    Image.fromarray(photograph(100, 120)).save(tmp_path / "good.png")
    assert looked_at(desk, tmp_path / "good.png").examination.evidence.facts.format == "PNG"
    (tmp_path / "bomb.png").write_bytes(bomb())
    with pytest.raises(ServeError, match="of 40000x40000 pixels, expected at most 1 million"):
        looked_at(desk, tmp_path / "bomb.png")
    (tmp_path / "big.jpg").write_bytes(bytes(2**20 + 1))
    with pytest.raises(ServeError, match=r"got big\.jpg of 1 MB, expected at most 1 MB"):
        looked_at(desk, tmp_path / "big.jpg")
    with pytest.raises(ServeError, match="which was removed"):
        looked_at(desk, tmp_path / "gone.jpg")
    (tmp_path / "text.jpg").write_text("text")
    with pytest.raises(PhotographError, match="it is a text"):
        looked_at(desk, tmp_path / "text.jpg")
    desk.close()


def test_examples_are_made_of_a_folder_or_of_none(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    with pytest.raises(SynthesisError, match="with 0 usable photographs, expected two or more"):
        make_examples(tmp_path, str(photos))
    for seed in range(4):
        Image.fromarray(photograph(400, 600, seed)).save(photos / f"{seed}.png")
    made = make_examples(tmp_path, str(photos))
    assert [example.title for example in made] == list(TITLES.values())
    for example in made:
        assert Image.open(example.photograph).format == "JPEG"
        assert max(Image.open(example.thumbnail).size) == 96
    monkeypatch.setattr("qma_net.web.examples.find_spec", lambda name: None)
    assert make_examples(tmp_path) == []


def test_one_computes_a_few_wait_and_the_rest_are_told():
    jobs, go, order = Jobs(Limits(waiting=2)), threading.Event(), []

    def work(name):
        def one(progress):
            go.wait(30)
            progress(1, 2)
            order.append(name)

        return one

    first, second, third = (jobs.add(work(name)) for name in "abc")
    with pytest.raises(ServeError, match=r"one photograph more than may wait \(2\)"):
        jobs.add(work("d"))
    assert [jobs.before(job) for job in (first, second, third)] == [0, 1, 2]
    assert not first.is_done(0.01)
    second.stop()
    go.set()
    assert third.is_done(30)
    with pytest.raises(Stopped):
        second.result()
    assert order == ["a", "c"]
    jobs.add(work("e")).is_done(30)
    assert order == ["a", "c", "e"]
    jobs.close()


def test_time_is_up_between_tiles():
    jobs = Jobs(Limits(minutes=0.0005))  # 30 milliseconds

    def work(progress):
        for done in range(1000):
            time.sleep(0.005)
            progress(done, 1000)

    job = jobs.add(work)
    assert job.is_done(30)
    with pytest.raises(ServeError, match=r"of more than 0\.0005 minutes"):
        job.result()
    assert 0 < job.tiles[0] < 999
    jobs.close()


def test_a_session_ends_with_all_that_it_had(sessions, tmp_path):
    uploads = [tmp_path / name / "same.jpg" for name in ("first", "second")]
    for upload in uploads:
        upload.parent.mkdir()
        upload.write_bytes(b"x")
    sessions.uploaded("a", uploads[0])
    sessions.uploaded("b", uploads[0])  # the same bytes, so the same file
    sessions.uploaded("a", uploads[1])
    assert uploads[0].exists()
    sessions.close("b")
    assert not uploads[0].parent.exists()

    Image.fromarray(photograph(60, 50)).save(tmp_path / "p.png")
    examination = examine(read_evidence(tmp_path / "p.png"), without_model())
    session = sessions.of("a")
    first, second = session.keep(examination), session.keep(examination)
    assert sessions.result(first.token) is None
    assert sessions.result(second.token) is second
    assert len(list((tmp_path / "sessions").rglob("*.npy"))) == 2  # of the last one only
    sessions.close("a")
    assert not uploads[1].parent.exists()
    assert list((tmp_path / "sessions").iterdir()) == []
    with pytest.raises(Stopped):
        session.keep(examination)


def test_what_killed_servers_left_is_removed_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, living, other = (tmp_path / name for name in (f"{PREFIX}1", f"{PREFIX}2", "other"))
    for folder in (left, living, other):
        folder.mkdir()
        (folder / "photo.png").touch()
    (tmp_path / f"{PREFIX}3").symlink_to(other)
    with alone(living):
        remove_left_behind()
    assert not left.exists()
    assert (living / "photo.png").exists()
    assert (other / "photo.png").exists()


def test_pages_that_never_say_goodbye_are_forgotten(sessions, tmp_path):
    for number in range(MOST + 3):
        sessions.of(str(number))
    assert len(list((tmp_path / "sessions").iterdir())) == MOST


class Bright(torch.nn.Module):
    """A model of BenCo's registry: bright is forged."""

    def __init__(self, gain: float = 3.0):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, image, mask, label, **kwargs):
        answer = torch.sigmoid(self.gain * image.mean(1, keepdim=True))
        return {"pred_mask": answer, "pred_label": None}


@pytest.mark.parametrize("padded", [False, True])
def test_any_model_of_bencos_registry(sessions, tmp_path, monkeypatch, padded):
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
    desk = Desk(model, sessions, Limits())
    assert not desk.takes_native
    assert desk.about == "Model: Bright, bright.pth."
    pixels = np.full((120, 160, 3), 60, np.uint8)
    pixels[30:90, 80:] = 220
    Image.fromarray(pixels).save(tmp_path / "half.png")
    result = looked_at(desk, tmp_path / "half.png")
    marked = result.examination.prediction.binary
    expected = pixels[..., 0] > 128
    assert marked.shape == (120, 160)
    assert (marked == expected).mean() > 0.97
    assert result.examination.settings["shown"].startswith("padded" if padded else "resized")
    assert "Bright: gain 4" in result.report(None, pictures=False)
    mask, shares = result.examination.prediction.mask, result.shares()
    assert shares[::20] == [round(float((mask > t).mean()), 4) for t in (0, 0.2, 0.4, 0.6, 0.8, 1)]
    assert 0 < shares[80] < shares[20] < 1
    assert any("shrunk to 64x48" in note for note in result.examination.notes) == padded
    desk.close()


def test_without_benco_its_models_are_one_line(tmp_path, monkeypatch):
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


def resident(process) -> float:
    """Memory of a process, in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


@pytest.mark.slow
def test_200_requests_from_four_visitors(tmp_path, checkpoint, capsys):
    """A fifth of them bad: every one is answered, and memory stays where it was after warm-up."""
    server = Server(tmp_path / "server", "--checkpoint", str(checkpoint))
    address = server.address()
    whole = io.BytesIO()
    Image.fromarray(photograph(300, 400)).save(whole, "JPEG", quality=95)
    good = whole.getvalue()
    bad = (b"", b"words", good[: len(good) // 2], bomb())
    answers, faults = [], []

    def visit(number: int, times: int) -> None:
        try:
            client = Client(address)
            for i in range(times):
                is_bad = i % 5 == 4
                content = bad[i // 5 % 4] if is_bad else good
                said = client.examine(f"{number}_{i}.jpg", content)
                assert ("role=" in said) == is_bad, said
                if not is_bad:
                    base = re.search(r"/results/[\w-]+/", said)[0]
                    for file in ("mask.png", "panels.html?threshold=0.3"):
                        client.http.get(base + file).raise_for_status()
                answers.append(is_bad)
            client.leave()
        except Exception as error:
            faults.append(error)

    def all_visit(times: int) -> float:
        visitors = [threading.Thread(target=visit, args=(i, times)) for i in range(4)]
        for visitor in visitors:
            visitor.start()
        for visitor in visitors:
            visitor.join()
        time.sleep(3)  # until the server has heard that they left
        return resident(server.process)

    try:
        after_warm_up = all_visit(10)
        at_end = all_visit(40)
        left = server.kept()
    finally:
        server.end()
    with capsys.disabled():
        print(f" {len(answers)} answers; {after_warm_up:.0f} MB, then {at_end:.0f} MB", end="")
    assert faults == []
    assert (len(answers), sum(answers)) == (40 + 160, 8 + 32)
    assert at_end < 1.1 * after_warm_up
    assert left == []
