"""The page of ``qma-net serve`` in Chromium; all its requests are recorded."""

import io
import json
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import photograph
from forks import HANG_TIMEOUT
from qma_net.examine import examine_photo
from qma_net.web.limits import Limits
from serving import BROKEN, SMALL, TOKEN, eventually

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


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
    context.set_default_timeout(1000 * HANG_TIMEOUT)
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


def test_photo_is_examined_and_all_controls_work(page, jpeg):
    upload_and_examine(page, jpeg)
    frame = page.frame_locator("photo-viewer iframe")
    assert frame.locator("h1").inner_text() == "Examination of the harbour.jpg"
    for heading in ("Summary", "Regions that the model cannot judge", "The file", "Leads"):
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
        page.get_by_text("No photo selected. Choose, drop or paste one first").wait_for()
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


NAMES = (
    "<img src=x onerror=document.title='attacked'>.png",
    "'\" onmouseover=\"document.title='attacked'.png",
    "&lt;b&gt;{{ 7 * 7 }}${alert(1)}.png",
    "\u202egnp.exe\n.png",
    "x" * 240 + ".png",
)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_are_text(chromium, server, tmp_path, name):
    with visiting(chromium, server.address(), allowed_errors=1) as page:  # the status 415
        for content, end in ((SMALL, "Done."), (BROKEN, "Done."), (b"words", "(415)")):
            (tmp_path / name).write_bytes(content)
            page.set_input_files("#photograph", tmp_path / name)
            page.click("#examine")
            page.locator("#status").get_by_text(end).wait_for()
            page.wait_for_selector("#examine:enabled")
        page.click("#results .open >> nth=0")
        page.wait_for_selector("photo-viewer[ready]")
        assert page.locator("body img").count() == page.locator("#examples img").count()
        assert page.frame_locator("photo-viewer iframe").locator("h1 img").count() == 0
        assert page.title() == "QMA-Net: examine a photo"


def test_examination_at_original_resolution_shows_progress_and_can_be_stopped(page, tmp_path):
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
        assert page.evaluate("document.activeElement.id") == "output"  # The result is below.
        top = page.locator("#output").evaluate("part => part.getBoundingClientRect().top")
        assert top < 400


def test_location_is_left_out_of_downloads_on_request(page, jpeg):
    upload_and_examine(page, jpeg)
    assert not page.is_visible("photo-viewer [name=location]")
    exif = Image.Exif()
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2], gps[3], gps[4] = "S", (33.0, 51.0, 30.0), "E", (151.0, 12.0, 0.0)
    Image.open(jpeg).save(jpeg, exif=exif)
    upload_and_examine(page, jpeg)
    assert json.loads(downloaded(page, "JSON"))["gps"] == [-33.8583333, 151.2]
    page.check("photo-viewer [name=location]")
    assert json.loads(downloaded(page, "JSON"))["gps"] is None
    assert b"151.2" not in downloaded(page, "report").split(b"base64")[0]


def test_folded_sections_of_a_report_are_printed_except_for_the_position(chromium, tmp_path):
    exif = Image.Exif()
    exif[0x0131] = "Adobe Photoshop 25.1"
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2], gps[3], gps[4] = "S", (33.0, 51.0, 30.0), "E", (151.0, 12.0, 0.0)
    Image.fromarray(photograph(60, 80)).save(tmp_path / "x.jpg", exif=exif)
    examine_photo(None, tmp_path / "x.jpg", out=tmp_path)
    page = chromium.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    entry = page.locator("details td", has_text="Adobe Photoshop 25.1").first
    tables, position = page.locator("table.quantization"), page.locator("text=151.200000")
    shown = "node => node.checkVisibility()"
    for medium, is_shown in (("screen", False), ("print", True)):
        page.emulate_media(media=medium)
        assert entry.evaluate(shown) == is_shown
        assert tables.first.evaluate(shown) == is_shown
        assert not position.evaluate(shown)
    page.close()


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
