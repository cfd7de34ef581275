"""``qma-net examine`` and ``calibrate``: file facts, readability, leads, reports, calibration."""

import hashlib
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image

from conftest import photograph
from qma_net import QMANetPredictor, cli
from qma_net.core.exif import MAX_ENTRIES
from qma_net.core.runs import Run
from qma_net.examine import examine_files, examine_photo, read_evidence, render_page
from qma_net.examine.jpeg import base_tables, ijg_table
from qma_net.examine.leads import leads, srm_strength
from qma_net.examine.metadata import MAX_NOTES, read_facts
from qma_net.examine.readability import (
    CLIPPED,
    COMPRESSED,
    FLAT,
    READABLE,
    SMOOTH,
    hatched,
    readability,
)
from qma_net.examine.texts import printable
from qma_net.inference.photograph import PhotographError
from qma_net.modeling.calibration import Calibration
from qma_net.modeling.config import ConfigError, Preprocessing
from qma_net.modeling.state import WeightsError
from qma_net.weights.locate import load_model

KEYS = """file sha256 width height jpeg exif c2pa unreadable_share model checkpoint_sha256 versions
score marked notes""".split()
XMP = b"<?xpacket begin=''?><x:xmpmeta xmlns:x='adobe:ns:meta/'><script>x</script></x:xmpmeta>"
C2PA = b"JP\0\1\0\0\0\1" + struct.pack(">I", 60) + b"jumb\0\0\0\x26jumdc2pa" + b"\0" * 40
EVIL = "<script>alert(1)</script>"


def jpeg_bytes(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def rich_exif(thumbnail=b"", order=">", orientation=1):
    """Return EXIF with a model, a date, a position in Sydney and a thumbnail, like a camera's."""
    pack = lambda form, *values: struct.pack(order + form, *values)  # noqa: E731
    short = lambda value: pack("HH", value, 0)  # noqa: E731
    evil = EVIL.encode() + b"\0"
    base = 62  # IFD0 is at 8 and has four entries.
    exif_at = base + len(evil)
    exif = pack("H", 1) + pack("HHII", 0x9003, 2, 20, exif_at + 18) + pack("I", 0)
    exif += b"2021:05:06 07:08:09\0"
    gps_at = exif_at + len(exif)
    south, degrees = gps_at + 54, "IIIIII"
    gps = pack("H", 4) + pack("HHI", 1, 2, 2) + b"S\0\0\0" + pack("HHII", 2, 5, 3, south)
    gps += pack("HHI", 3, 2, 2) + b"E\0\0\0" + pack("HHII", 4, 5, 3, south + 24) + pack("I", 0)
    gps += pack(degrees, 33, 1, 51, 1, 30, 1) + pack(degrees, 151, 1, 12, 1, 0, 1)
    next_at = gps_at + len(gps)
    entries = (
        pack("HHII", 0x0110, 2, len(evil), base) + pack("HHI", 0x0112, 3, 1) + short(orientation)
    )
    entries += pack("HHII", 0x8769, 4, 1, exif_at) + pack("HHII", 0x8825, 4, 1, gps_at)
    head = (b"MM\0*" if order == ">" else b"II*\0") + pack("I", 8) + pack("H", 4) + entries
    body = head + pack("I", next_at if thumbnail else 0) + evil + exif + gps
    if thumbnail:
        small = pack("H", 2) + pack("HHII", 0x0201, 4, 1, next_at + 30)
        body += small + pack("HHII", 0x0202, 4, 1, len(thumbnail)) + pack("I", 0) + thumbnail
    return body


def with_segments(data, *segments):
    """Insert segments, pairs of a marker and a payload, at the start of a JPEG."""
    added = b"".join(
        bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload
        for marker, payload in segments
    )
    return data[:2] + added + data[2:]


def rich_jpeg(**options):
    small = jpeg_bytes(photograph(30, 40, 9))
    return with_segments(
        jpeg_bytes(photograph(96, 128), **options),
        (0xE1, b"Exif\0\0" + rich_exif(small)),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
        (0xEB, C2PA),
        (0xFE, EVIL.encode()),
    )


def rich_png():
    file = io.BytesIO()
    Image.fromarray(photograph(96, 128)).save(file, "PNG")
    data, added = file.getvalue(), b""
    for kind, content in (
        (b"eXIf", rich_exif()),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        (b"zTXt", b"parameters\0\0" + zlib.compress(EVIL.encode())),
        (b"caBX", b"\0" * 8),
    ):
        checked = struct.pack(">I", zlib.crc32(kind + content))
        added += struct.pack(">I", len(content)) + kind + content + checked
    return data[:33] + added + data[33:]


def rich_webp():
    file = io.BytesIO()
    picture = Image.fromarray(photograph(96, 128))
    picture.save(file, "WEBP", exif=b"Exif\0\0" + rich_exif(), xmp=XMP)
    data = file.getvalue() + b"C2PA" + struct.pack("<I", 8) + b"\0" * 8
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


def rich_tiff():
    file = io.BytesIO()
    picture = Image.fromarray(photograph(96, 128))
    picture.save(file, "TIFF", tiffinfo={0x0110: EVIL, 700: XMP, 0xCD41: b"\0" * 8})
    return file.getvalue()


def plain(kind):
    file = io.BytesIO()
    Image.fromarray(photograph(96, 128)).save(file, kind)
    return file.getvalue()


RICH = {"JPEG": rich_jpeg, "PNG": rich_png, "WEBP": rich_webp, "TIFF": rich_tiff}


def examined(data):
    return examine_photo(None, data)


@pytest.mark.parametrize("kind", RICH)
def test_metadata_is_shown_and_escaped(kind):
    examination = examined(RICH[kind]())
    report, shown = examination.report(), render_page(examination)
    assert report["format"].upper() == kind
    assert report["c2pa"]
    assert "<script>x</script>" in report["xmp"]
    assert report["exif"]["IFD0"]["Model"] == EVIL
    recompressed = [note for note in report["notes"] if "usually recompressed" in note]
    assert report["notes"] == recompressed
    assert len(recompressed) == (kind == "WEBP")  # No camera writes WebP.
    assert "<script" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    if kind != "TIFF":
        assert report["exif"]["Exif"]["DateTimeOriginal"] == "2021:05:06 07:08:09"
        assert report["gps"] == [-33.8583333, 151.2]
        summary = "EXIF, GPS (4 entries); may reveal where somebody lives"
        assert f'<details class="private"><summary>{summary}' in shown
    assert report["thumbnail"] == (kind == "JPEG")
    assert report["texts"] == {"JPEG": {"comment": EVIL}, "PNG": {"parameters": EVIL}}.get(kind, {})


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_file_without_metadata_is_not_called_suspicious(kind):
    examination = examined(plain(kind))
    report, shown = examination.report(), render_page(examination)
    assert set(KEYS) <= set(report)
    assert (report["width"], report["height"]) == (128, 96)
    assert not report["c2pa"]
    assert "Most authentic photos have none" in shown
    assert (report["jpeg"] is None) == (kind != "JPEG")
    assert set(report["exif"].get("IFD0", {})) & {"Make", "Model"} == set()
    assert (report["score"], report["model"], report["marked"]) == (None, None, None)
    assert "examined without a model" in shown


def test_page_does_not_reveal_folders(saved, photos):
    run("examine", photos / "a", "--out", photos / "out", "--checkpoint", saved)
    page = (photos / "out/x/report.html").read_text(encoding="utf-8")
    assert "x.jpg" in page
    assert str(photos) not in page
    assert str(saved) not in page
    assert report_of(photos / "out/x")["file"] == str(photos / "a/x.jpg")


def test_marked_regions_are_explained_only_with_a_model(saved, photos):
    explanation = "Marked regions are those where the model's output is above the threshold."
    for checkpoint, is_explained in ((saved, True), ("none", False)):
        out = photos / f"out_{is_explained}"
        run("examine", photos / "a", "--out", out, "--checkpoint", checkpoint)
        page = " ".join((out / "x/report.html").read_text(encoding="utf-8").split())
        assert (explanation in page) == is_explained


def test_page_loads_nothing_from_outside():
    shown = render_page(examined(rich_jpeg()))
    addresses = re.findall(r'(?:src|href|action|url)\s*[=(]\s*["\']?([^"\')\s>]+)', shown)
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert "default-src 'none'" in shown
    assert shown.isascii()


@pytest.mark.parametrize("quality", [5, 49, 50, 75, 88, 95, 100])
@pytest.mark.parametrize(("number", "subsampling"), enumerate(("4:4:4", "4:2:2", "4:2:0")))
def test_jpeg_facts_of_known_files_are_correct(quality, number, subsampling):
    data = jpeg_bytes(photograph(48, 48), quality=quality, subsampling=number, progressive=number)
    facts = read_facts(data).jpeg
    assert (facts.quality, facts.is_ijg, facts.subsampling) == (quality, True, subsampling)
    assert facts.progressive == bool(number)
    assert facts.tables[0] == tuple(ijg_table(base_tables()[0], quality))
    assert base_tables()[0][:8] == [16, 11, 10, 16, 24, 40, 51, 61]  # T.81, table K.1


@pytest.mark.parametrize("quality", [5, 75, 95])
def test_jpeg_without_chroma_has_the_luma_table_for_all_components(quality):
    image = Image.fromarray(photograph(48, 48))
    for space, options in (("CMYK", {}), ("RGB", {"keep_rgb": True})):
        file = io.BytesIO()
        image.convert(space).save(file, "JPEG", quality=quality, **options)
        facts = read_facts(file.getvalue()).jpeg
        assert (facts.quality, facts.is_ijg) == (quality, True)
        assert facts.subsampling == f"{space}, no chroma"
    # A table of luma that is also used for chroma is not what libjpeg writes.
    tables = [ijg_table(base_tables()[0], quality)]
    assert not read_facts(jpeg_bytes(photograph(48, 48), qtables=tables)).jpeg.is_ijg


def test_color_space_of_a_jpeg_is_that_of_its_adobe_segment():
    file = io.BytesIO()
    Image.fromarray(photograph(48, 48)).convert("CMYK").save(file, "JPEG")
    data, transform = file.getvalue(), b"Adobe\0d\0\0\0\0"
    assert data.count(transform + b"\0") == 1
    ycck = data.replace(transform + b"\0", transform + b"\2")
    assert read_facts(ycck).jpeg.subsampling == "4:4:4"


def test_tables_other_than_those_of_ijg_are_recognized():
    tables = [[value + 3 for value in ijg_table(base_tables()[0], 80)]] * 2
    facts = read_facts(jpeg_bytes(photograph(48, 48), qtables=tables)).jpeg
    assert not facts.is_ijg
    assert abs(facts.quality - 80) < 12
    assert facts.tables[0] == tuple(tables[0])


def test_gray_jpeg_and_trailing_bytes_are_recognized():
    facts = read_facts(jpeg_bytes(photograph(48, 48)[..., 0]) + b"more")
    assert facts.jpeg.subsampling == "gray, no chroma"
    assert facts.trailing == 4


@pytest.fixture
def known_jpeg(tmp_path):
    path = tmp_path / "known.jpg"
    path.write_bytes(rich_jpeg(quality=83, subsampling=1, progressive=True))
    return path


def test_jpeg_facts_agree_with_imagemagick(known_jpeg):
    if not shutil.which("identify"):
        pytest.skip("ImageMagick's identify is not installed (apt-get install imagemagick)")
    for quality, number in ((83, 1), (30, 2), (97, 0)):
        options = {"quality": quality, "subsampling": number, "progressive": number == 1}
        known_jpeg.write_bytes(jpeg_bytes(photograph(48, 48), **options))
        facts = read_facts(known_jpeg.read_bytes()).jpeg
        command = ["identify", "-verbose", str(known_jpeg)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        expected = {
            name: re.search(rf"{name}: (\S+)", text)[1]
            for name in ("Quality", "jpeg:sampling-factor", "Interlace")
        }
        assert expected == {
            "Quality": str(facts.quality),
            "jpeg:sampling-factor": facts.sampling,
            "Interlace": "JPEG" if facts.progressive else "None",
        }


def test_facts_agree_with_exiftool(known_jpeg):
    if not shutil.which("exiftool"):
        pytest.skip("exiftool is not installed (apt-get install libimage-exiftool-perl)")
    command = ["exiftool", "-json", "-n", "-EncodingProcess", "-YCbCrSubSampling", "-Model"]
    command += ["-DateTimeOriginal", "-GPSLatitude", "-GPSLongitude", "-Comment"]
    command += ["-ThumbnailLength", "-ImageWidth", "-JUMDType", str(known_jpeg)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (theirs,) = json.loads(text)
    report = examined(known_jpeg).report()
    assert theirs["YCbCrSubSampling"] == "2 1"
    assert report["jpeg"]["sampling"] == "2x1,1x1,1x1"
    assert theirs["EncodingProcess"] == 2
    assert report["jpeg"]["coding"].startswith("Progressive")
    assert report["exif"]["IFD0"]["Model"] == theirs["Model"]
    assert report["exif"]["Exif"]["DateTimeOriginal"] == theirs["DateTimeOriginal"]
    assert report["gps"] == pytest.approx([theirs["GPSLatitude"], theirs["GPSLongitude"]])
    assert report["texts"]["comment"] == theirs["Comment"]
    assert int(report["exif"]["IFD1"]["JpegIFByteCount"]) == theirs["ThumbnailLength"]
    assert report["width"] == theirs["ImageWidth"]


def entry(tag, kind, count, value):
    return struct.pack(">HHII", tag, kind, count, value)


HOSTILE = {
    "count": b"MM\0*\0\0\0\x08" + struct.pack(">H", 1) + entry(0x010F, 2, 2**32 - 1, 8) + bytes(4),
    "entries": b"MM\0*\0\0\0\x08\xff\xff" + b"".join(entry(i, 3, 1, 0) for i in range(3000)),
    "loop": b"MM\0*\0\0\0\x08" + struct.pack(">H", 1) + entry(0x8769, 4, 1, 8) + b"\0\0\0\x08",
    "chain": b"MM\0*\0\0\0\x08"
    + struct.pack(">H", 2)
    + entry(0x8769, 4, 1, 40) * 2
    + bytes(8)
    + struct.pack(">H", 300)
    + entry(0x8769, 4, 1, 40) * 300,
    "type": b"MM\0*\0\0\0\x08" + struct.pack(">H", 60) + entry(0x010F, 99, 1, 0) * 60 + bytes(4),
    "place": b"MM\0*\xff\xff\xff\xff",
    "order": b"XX\0*\0\0\0\x08",
    "empty": b"",
    "gps": b"MM\0*\0\0\0\x08"
    + struct.pack(">H", 1)
    + entry(0x8825, 4, 1, 26)
    + bytes(4)
    + struct.pack(">H", 2)
    + entry(2, 5, 3, 56)
    + entry(4, 5, 3, 56)
    + bytes(4)
    + bytes(24),
    "text": b"MM\0*\0\0\0\x08"
    + struct.pack(">H", 1)
    + entry(0x010F, 2, 14, 26)
    + bytes(4)
    + "\u202egpj.exe\x1b[2J".encode(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_malicious_exif_is_read_within_limits(name):
    block = b"Exif\0\0" + HOSTILE[name][:60000]
    facts = read_facts(with_segments(jpeg_bytes(photograph(48, 48)), (0xE1, block)))
    assert sum(map(len, facts.exif.values())) <= MAX_ENTRIES
    assert facts.position is None
    if name == "text":
        assert facts.exif["IFD0"]["Make"] == r"\x202egpj.exe\x1b[2J"
    elif name not in ("gps", "empty"):
        assert facts.notes
    assert len(facts.notes) <= MAX_NOTES + 1
    assert facts.jpeg.quality == 75


def test_random_damage_raises_no_error():
    rng = np.random.default_rng(0)
    files = [make() for make in RICH.values()] + [plain("GIF"), plain("BMP")]
    for data in files:
        for _ in range(60):
            damaged = bytearray(data[: rng.integers(1, len(data) + 1)])
            for position in rng.integers(0, min(len(damaged), 700), 6):
                damaged[position] = rng.integers(0, 256)
            read_facts(bytes(damaged))


def test_invalid_thumbnail_is_noted():
    for content in (b"no image", plain("PNG")[:40]):
        data = with_segments(plain("JPEG"), (0xE1, b"Exif\0\0" + rich_exif(content)))
        facts = read_facts(data)
        assert facts.thumbnail is None
        assert "thumbnail cannot be decoded" in facts.notes[0]


def test_control_characters_are_escaped():
    assert printable("a\u202eb\x00c\td") == r"a\x202eb\x00c d"
    assert printable("x" * 500).endswith("x ... (500 characters)")


@pytest.mark.parametrize("data", [b"", b"%PDF-1.4"])
def test_files_that_are_not_images_are_rejected_in_one_line(data):
    with pytest.raises(PhotographError) as error:
        examined(data)
    assert "\n" not in str(error.value)


def test_header_that_claims_too_many_pixels_is_rejected(tmp_path):
    data = bytearray(plain("BMP"))
    data[18:26] = struct.pack("<ii", 40_000, 40_000)
    evidence = read_evidence(bytes(data), "large.bmp")
    assert evidence.photograph is None
    assert "claims 40000x40000 pixels" in evidence.fault
    assert evidence.facts.format == "BMP"


# --- Readability ------------------------------------------------------------------


def noisy(height=64, width=64, sigma=6.0):
    rng = np.random.default_rng(0)
    return np.clip(rng.normal(128, sigma, (height, width, 3)), 20, 235).round().astype(np.uint8)


def test_noise_is_readable_everywhere():
    assert readability(noisy(67, 45)).share == 0
    assert readability(noisy(67, 45, sigma=1.5)).share == 0


def test_each_reason_is_mapped():
    pixels = noisy()
    pixels[:16, :16] = 255
    pixels[:16, 16:32] = 77
    ramp = np.linspace(60, 64, 32)[:, None] + np.linspace(0, 3, 32)
    pixels[32:, 32:] = ramp.round()[..., None]
    result = readability(pixels)
    expected = np.zeros((64, 64), np.uint8)
    expected[:16, :16], expected[:16, 16:32], expected[32:, 32:] = CLIPPED, FLAT, SMOOTH
    smooth_or_flat = np.isin(result.reasons[32:, 32:], (FLAT, SMOOTH))
    assert smooth_or_flat.all()
    result.reasons[32:, 32:] = SMOOTH
    assert np.array_equal(result.reasons, expected)
    assert result.share == (2 * 256 + 1024) / 4096
    assert sum(result.shares.values()) == pytest.approx(result.share)


def test_single_clipped_channel_is_readable():
    pixels = noisy()
    pixels[..., 2] = 255
    assert readability(pixels).share == 0


@pytest.mark.parametrize("orientation", [1, 2, 3, 6])
def test_blocks_emptied_by_jpeg_are_found_on_the_block_grid(orientation):
    """Strong compression keeps only the mean; the sides are not multiples of 8."""
    columns = np.arange(52)
    pixels = noisy(60, 52, sigma=2)
    pixels[..., 0] += (columns // 8 * 12).astype(np.uint8)  # Columns differ.
    pixels[24:48, 16:40] = np.where(columns[16:40] % 8 < 4, 60, 190)[:, None]
    busy = np.zeros((60, 52), np.uint8)
    busy[24:48, 16:40] = 255
    stored = np.asarray(Image.open(io.BytesIO(jpeg_bytes(pixels, quality=10))))
    transposes = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 6: "ROTATE_270"}
    if orientation in transposes:
        transpose = Image.Transpose[transposes[orientation]]
        stored, busy = (
            np.asarray(Image.fromarray(array).transpose(transpose)) for array in (stored, busy)
        )
    reasons = readability(stored, is_jpeg=True, orientation=orientation).reasons
    assert (reasons[busy > 0] == READABLE).all()
    emptied = np.isin(reasons[busy == 0], (COMPRESSED, FLAT)).mean()
    assert emptied > 0.9
    assert COMPRESSED not in readability(stored).reasons
    if orientation != 1:
        wrong_grid = readability(stored, is_jpeg=True, orientation=1).reasons
        assert np.isin(wrong_grid[busy == 0], (COMPRESSED, FLAT)).mean() < emptied - 0.05


def test_hatching_changes_only_its_region():
    region = np.zeros((40, 40), bool)
    region[:20] = True
    drawn = hatched(noisy(40, 40), region)
    assert np.array_equal(drawn[20:], noisy(40, 40)[20:])
    assert (drawn[:20] == 235).all(axis=-1).mean() == pytest.approx(1 / 8, abs=0.03)
    assert (drawn[:20] == 20).all(axis=-1).mean() == pytest.approx(1 / 8, abs=0.03)


# --- Noise views --------------------------------------------------------------------------


def test_srm_view_equals_that_of_the_model():
    import torch

    from qma_net.modeling.noise import SRM

    pixels = photograph(40, 60)
    rgb = torch.tensor(pixels).permute(2, 0, 1)[None] / 255
    theirs = SRM()(rgb)[0].abs().sum(0).numpy()
    ours = srm_strength(pixels).astype(float)
    below = ours < 255
    scale = 255 / np.percentile(theirs, 99.5)
    assert np.abs(ours - theirs * scale)[below].max() <= 1.01


def test_error_levels_show_a_part_with_another_history():
    pixels = photograph(128, 128)
    saved = np.asarray(Image.open(io.BytesIO(jpeg_bytes(pixels, quality=90)))).copy()
    saved[32:64, 32:64] = pixels[32:64, 32:64]
    picture = leads(saved)[-1].picture.astype(float)
    inside = picture[32:64, 32:64].mean()
    assert inside > 3 * (picture.sum() - 32 * 32 * 3 * inside) / (picture.size - 32 * 32 * 3)


def test_noiseprint_view_is_shown_if_weights_are_given(tmp_path, noiseprint_file):
    Image.fromarray(photograph(48, 64)).save(tmp_path / "x.png")
    for weights, count in (("", 6), (str(noiseprint_file), 7)):
        (folder,), errors = examine_files(
            [tmp_path / "x.png"], tmp_path / f"out{count}", noiseprint_weights=weights
        )
        assert not errors
        shown = (folder / "report.html").read_text()
        assert ("<b>NoisePrint++</b>" in shown) == bool(weights)
        assert shown.count("<b>Normal in authentic photos:</b>") == count


# --- With a model -------------------------------------------------------------------------


@pytest.fixture
def saved(build_tiny, tmp_path):
    """Return a directory written by save_pretrained, with photos resized to 64 pixels."""
    model = build_tiny()
    model.preprocessing, model.about = Preprocessing(64), "demo: not for cases"
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def photos(tmp_path):
    for i, name in enumerate(("a/x.jpg", "b/x.jpg", "b/y.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(photograph(50, 70, i)).save(tmp_path / name)
    (tmp_path / "b/z.jpg").write_bytes(b"no photograph")
    return tmp_path


WITHOUT = ("--checkpoint", "none")


def run(*words):
    cli.main(list(map(str, words)))


def reports_in(out):
    return sorted(path.name for path in out.iterdir() if path.is_dir())


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def test_report_records_model_and_settings(saved, photos, capsys):
    out = photos / "out"
    run("examine", photos / "a", "--out", out, "--checkpoint", saved, "--threshold", "0.3")
    assert capsys.readouterr().out == f"{out}/x/report.html\n"
    report = report_of(out / "x")
    assert set(KEYS) <= set(report)
    assert report["model"]["size"] == "tiny"
    assert len(report["checkpoint_sha256"]) == 64
    assert report["settings"]["threshold"] == 0.3
    assert report["versions"]["torch"]
    mask = np.asarray(Image.open(out / "x/mask.png")) / 255
    assert mask.shape == (50, 70)
    assert report["marked"] == pytest.approx((mask > 0.3).mean(), abs=0.02)
    assert np.asarray(Image.open(out / "x/overlay.png")).shape == (50, 70, 3)
    shown = (out / "x/report.html").read_text()
    assert "demo: not for cases" in shown
    assert "score is not shown" in shown
    assert f"{report['score']:.2f}" not in shown.split("base64")[0]


def test_library_gives_the_same_report_as_the_command(saved, photos):
    predictor = QMANetPredictor.from_pretrained(saved)
    path = photos / "a/x.jpg"
    examination = examine_photo(predictor, path, out=photos / "mine")
    assert report_of(photos / "mine") == examination.report()
    pixels = examine_photo(predictor, np.asarray(Image.open(path)))
    assert pixels.report()["score"] == examination.report()["score"]
    assert pixels.report()["sha256"] is None
    assert "without a file" in render_page(pixels)
    assert np.array_equal(predictor.predict(path).mask, examination.prediction.mask)


def test_second_run_adds_reports_and_errors_are_one_line(photos, capsys):
    out = photos / "out"
    command = ["examine", photos / "a", photos / "b", "--out", out, *WITHOUT]
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            run(*command)
        assert end.value.code == 1
        assert capsys.readouterr().err.count("qma-net: cannot read") == 1
        assert reports_in(out) == ["x", "x_2", "y"]
    times = {name: (out / name / "report.json").stat().st_mtime_ns for name in reports_in(out)}
    Image.fromarray(photograph(50, 70, 7)).save(photos / "a/x.jpg")
    run("examine", photos / "a", "--out", out, *WITHOUT)
    assert report_of(out / "x_3")["file"] == str(photos / "a/x.jpg")
    assert all((out / name / "report.json").stat().st_mtime_ns == t for name, t in times.items())


def test_named_files_are_examined_even_if_an_examination_wrote_them(saved, photos, capsys, caplog):
    out = photos / "out"
    run("examine", photos / "a", "--out", out, "--checkpoint", saved)
    (photos / "a/report.json").write_text('{"a": 1}')  # Not of an examination.
    shutil.copy(out / "x/mask.png", photos / "a/mask.png")
    run("examine", photos / "a", out / "x/overlay.png", "--out", photos / "more", *WITHOUT)
    assert reports_in(photos / "more") == ["mask", "overlay", "x"]
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        run("examine", out / "x/report.html", "--out", photos / "page", *WITHOUT)
    assert end.value.code == 1
    assert capsys.readouterr().err.count("qma-net: cannot read") == 1
    # What is found by searching is skipped, and the number is stated.
    Image.fromarray(photograph(50, 70)).save(out / "new.png")
    caplog.clear()
    run("examine", out, "--out", photos / "again", *WITHOUT)
    assert reports_in(photos / "again") == ["new"]
    assert "skipped 5 files that earlier runs of qma-net wrote" in caplog.text
    (out / "new.png").unlink()
    with pytest.raises(SystemExit, match="contains no photos other than results of earlier runs"):
        run("examine", out, "--out", photos / "again", *WITHOUT)


def test_other_settings_get_another_report(saved, photos):
    out = photos / "out"
    run("examine", photos / "a", "--out", out, *WITHOUT)
    run("examine", photos / "a", "--out", out, "--checkpoint", saved)
    assert report_of(out / "x")["model"] is None
    assert report_of(out / "x_2")["model"]["size"] == "tiny"
    run("examine", out.parent / "a", out, "--out", out, "--checkpoint", saved)  # Skips the masks.
    assert reports_in(out) == ["x", "x_2"]


def test_unfinished_report_is_replaced_and_folder_of_the_user_is_kept(photos, monkeypatch):
    out = photos / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(SystemExit):
            run("examine", photos / "a", "--out", out, *WITHOUT)
    (out / "x/report.json").unlink()
    run("examine", photos / "a", "--out", out, *WITHOUT)
    assert reports_in(out) == ["x"]
    assert report_of(out / "x")["file"] == str(photos / "a/x.jpg")
    (out / "y").mkdir()
    (out / "y/report.html").write_text("mine")
    run("examine", photos / "b/y.png", "--out", out, *WITHOUT)
    assert (out / "y/report.html").read_text() == "mine"
    assert report_of(out / "y_2")["format"] == "PNG"


def test_edited_report_is_kept(photos):
    out = photos / "out"
    run("examine", photos / "a", "--out", out, *WITHOUT)
    (out / "x/report.html").write_text("edited")
    run("examine", photos / "a", "--out", out, *WITHOUT)
    assert reports_in(out) == ["x"]
    assert (out / "x/report.html").read_text() == "edited"


def test_photo_with_new_modification_time_only_is_not_examined_again(photos):
    out, photo = photos / "out", photos / "a/x.jpg"
    for time in (1, 2, 2):
        os.utime(photo, (time, time))
        run("examine", photo, "--out", out, *WITHOUT)
        assert reports_in(out) == ["x"]


def test_deprecated_method_of_the_predictor_still_works(saved, photos):
    predictor = QMANetPredictor.from_pretrained(saved)
    with pytest.warns(DeprecationWarning, match=r"use qma_net\.examine\.examine_photo"):
        examination = predictor.examine(photos / "a/x.jpg", 0.3, native=True)
    assert examination.settings["threshold"] == 0.3
    assert examination.settings["native"]


def test_file_is_read_once(photos, monkeypatch):
    original, opened = os.open, []

    def record(path, *options):
        opened.append(path)
        return original(path, *options)

    content = (photos / "a/x.jpg").read_bytes()
    monkeypatch.setattr(os, "open", record)
    evidence = read_evidence(photos / "a/x.jpg")
    assert opened == [str(photos / "a/x.jpg")]
    assert evidence.facts.sha256 == hashlib.sha256(content).hexdigest()


def test_orientation_of_the_xmp_has_no_effect_and_is_noted():
    """Browsers use only that of EXIF, while Pillow would rotate the pixels."""
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation="6"/>'
    evidence = read_evidence(with_segments(jpeg_bytes(photograph(50, 70)), (0xE1, xmp)))
    assert evidence.photograph.pixels.shape == (50, 70, 3)
    assert evidence.photograph.orientation == 1
    assert evidence.facts.exif == {}
    assert any("orientation 6 in the XMP has no effect" in n for n in evidence.facts.notes)


def test_iptc_is_read():
    record = b"".join(
        b"\x1c\x02" + bytes((number,)) + struct.pack(">H", len(text)) + text
        for number, text in ((5, b"A title"), (25, b"one"), (25, b"two"), (120, EVIL.encode()))
    )
    block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(record)) + record
    data = with_segments(jpeg_bytes(photograph(50, 70)), (0xED, b"Photoshop 3.0\0" + block))
    examination = examined(data)
    expected = {"Title": "A title", "Keywords": "one; two", "Caption": EVIL}
    assert examination.report()["iptc"] == expected
    assert "<script" not in render_page(examination)


@pytest.mark.parametrize("size", [(1, 1), (8, 3000), (31, 200)])
def test_photo_that_is_too_small_gets_no_mask(saved, tmp_path, size):
    Image.fromarray(photograph(*size)).save(tmp_path / "small.png")
    examination = examine_photo(QMANetPredictor.from_pretrained(saved), tmp_path / "small.png")
    assert examination.prediction is None
    assert "too small to judge" in examination.notes[0]
    assert examination.report()["score"] is None
    assert "too small to judge" in render_page(examination)


# --- Calibration with authentic photos ----------------------------------------------------


def test_calibration_counts_photos_with_higher_scores():
    calibration = Calibration((0.1, 0.2, 0.2, 0.9), Preprocessing(64))
    counts = [calibration.count_at_least(score) for score in (0.0, 0.1, 0.2, 0.2000001, 0.3, 0.95)]
    assert counts == [4, 4, 3, 3, 1, 0]
    assert Calibration.from_dict(json.loads(json.dumps(calibration.as_dict()))) == calibration
    for wrong in ((), (0.3, 0.2), (float("nan"),), (0.1, 1.2)):
        with pytest.raises(ConfigError, match="qma-net calibrate"):
            Calibration(wrong, Preprocessing(64))


def test_calibrate_adds_the_share_of_authentic_photos_to_the_report(saved, photos, capsys):
    (photos / "b/z.jpg").unlink()
    run("calibrate", "--checkpoint", saved, "--photos", photos / "b", photos / "a")
    output = capsys.readouterr()
    assert output.out == f"{saved}/calibration.json: 3 photos, resized to 64x64\n"
    assert "3 photos are too few" in output.err
    model = load_model(saved)
    assert model.calibration.count == 3
    run("examine", photos / "a", "--out", photos / "out", "--checkpoint", saved)
    report = report_of(photos / "out/x")
    assert report["calibrated_on"] == 3
    assert report["as_high"] == model.calibration.count_at_least(report["score"]) >= 1
    shown = (photos / "out/x/report.html").read_text()
    assert f"{report['as_high']} of 3 authentic comparison photos" in shown
    described = "2 JPEG files and 1 PNG file of JPEG quality 75, with a longer side of 70 pixels"
    assert f"The comparison photos are {described}" in " ".join(shown.split())
    assert "These are too few photos to be conclusive" in shown
    native = ["--checkpoint", saved, "--native"]
    run("examine", photos / "a", "--out", photos / "out2", *native)
    report = report_of(photos / "out2/x")
    assert report["as_high"] is None
    assert "is not used: its photos were processed" in "".join(report["notes"])
    content = json.loads((saved / "calibration.json").read_text())
    del content["score"]  # Files of earlier versions do not have it.
    (saved / "calibration.json").write_text(json.dumps(content))
    run("examine", photos / "a", "--out", photos / "out3", "--checkpoint", saved)
    report = report_of(photos / "out3/x")
    assert report["as_high"] is None
    assert "is not used: its scores were computed with a different definition" in "".join(
        report["notes"]
    )


def test_calibration_is_saved_with_its_weights(saved, photos, build_tiny):
    (photos / "b/z.jpg").unlink()
    run("calibrate", "--checkpoint", saved, "--photos", photos / "b", "--out", photos / "new")
    assert not (saved / "calibration.json").exists()
    model = load_model(photos / "new")
    assert model.calibration.count == 2
    assert model.preprocessing == Preprocessing(64)
    model.save_pretrained(photos / "copy")
    assert load_model(photos / "copy").calibration == model.calibration
    build_tiny().save_pretrained(photos / "copy")  # Other weights.
    assert load_model(photos / "copy").calibration is None
    assert load_model(photos / "copy").preprocessing is None
    (saved / "calibration.json").write_text('{"quantiles": []}')
    with pytest.raises(WeightsError, match=r"calibration\.json is invalid: .*; expected quantiles"):
        load_model(saved)


def test_calibrate_needs_a_folder_and_photos(saved, photos):
    with pytest.raises(SystemExit, match=r"no --out, expected a folder written by save_pretrained"):
        run("calibrate", "--checkpoint", "random", "--photos", photos / "a")
    with pytest.raises(SystemExit, match="none of the photos can be read"):
        run("calibrate", "--checkpoint", saved, "--photos", photos / "b/z.jpg")
    assert not (saved / "calibration.json").exists()
