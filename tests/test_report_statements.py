"""What reports state about a photo's score, file and location, and the index of a folder."""

import csv
import json
import operator
import re
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

import qma_net
from conftest import photograph
from qma_net import cli
from qma_net.examine import examine_photo, read_evidence, render_page
from qma_net.examine.index import write_index
from qma_net.examine.resaved import resaved_note
from qma_net.inference.photo_files import find_photos
from qma_net.inference.photograph import PhotographError
from qma_net.modeling.calibration import Calibration, PhotoProperties, PhotoRanges
from qma_net.modeling.config import Preprocessing

PACKAGED = Path(qma_net.__file__).parent / "weights/qma-net-small/calibration.json"
GPS_XMP = (
    b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF "
    b"xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description "
    b"xmlns:exif='http://ns.adobe.com/exif/1.0/' exif:GPSLatitude='33,51.5S'/>"
    b"</rdf:RDF></x:xmpmeta>"
)


def run(*words):
    cli.main(list(map(str, words)))


def text_of(examination):
    """Return the page's text without tags and line breaks."""
    return " ".join(re.sub(r"<[^>]+>", " ", render_page(examination)).split())


def save(path, size=(70, 50), seed=0, *, exif=None, **options):
    """Save a photo; size is (width, height)."""
    path.parent.mkdir(exist_ok=True, parents=True)
    pixels = photograph(size[1], size[0], seed)
    Image.fromarray(pixels).save(path, **options, **({"exif": exif} if exif else {}))
    return path


def camera_exif(*, with_position=False):
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", "Canon EOS R5"
    exif[0x0131], exif[0x0132] = "Adobe Photoshop 25.1 (Windows)", "2023:02:03 10:00:00"
    exif.get_ifd(0x8769)[0x9003] = "2023:05:06 07:08:09"
    if with_position:
        gps = exif.get_ifd(0x8825)
        gps[1], gps[2], gps[3], gps[4] = "S", (33.0, 51.0, 30.0), "E", (151.0, 12.0, 0.0)
    return exif


@pytest.fixture
def saved(build_tiny, tmp_path):
    """A directory written by save_pretrained, with photos resized to 64 pixels."""
    model = build_tiny()
    model.preprocessing = Preprocessing(64)
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


# --- Comparison with authentic photos -----------------------------------------------------


def test_ranges_state_minimum_median_and_maximum():
    photos = [
        PhotoProperties(400, 300, "JPEG", 90),
        PhotoProperties(1000, 2000, "JPEG", 70),
        PhotoProperties(600, 500, "PNG"),
    ]
    ranges = PhotoRanges.of(photos)
    assert ranges.longer_side == (400, 600, 2000)
    assert ranges.megapixels == (0.12, 0.3, 2.0)
    assert ranges.formats == {"JPEG": 2, "PNG": 1}
    assert ranges.jpeg_quality == (70, 80, 90)
    assert ranges.describe() == (
        "2 JPEG files and 1 PNG file of JPEG quality 70 to 90, with a longer side of 400 to 2,000 "
        "pixels (median 600; 0.12 to 2 megapixels)"
    )


@pytest.mark.parametrize(
    ("photo", "clauses"),
    [
        (PhotoProperties(480, 300, "JPEG", 82), []),  # 384 * 1.25 and 92 - 10.
        (PhotoProperties(200, 230, "JPEG", 100), []),  # 287 / 1.25 is 229.6.
        (PhotoProperties(4000, 3000), ["longer side is 4,000 pixels, but 287 to 384 in"]),
        (PhotoProperties(481, 300), ["longer side is 481 pixels, but 287 to 384 in"]),
        (PhotoProperties(229, 200), ["longer side is 229 pixels, but 287 to 384 in"]),
        (PhotoProperties(300, 300, "PNG"), ["format is PNG, but the comparison photos are JPEG"]),
        (PhotoProperties(300, 300, "JPEG", 81), ["JPEG quality is about 81, but 92 in"]),
    ],
)
def test_photo_outside_the_range_of_the_packaged_calibration_is_recognized(photo, clauses):
    calibration = Calibration.from_dict(json.loads(PACKAGED.read_text(encoding="utf-8")))
    assert calibration.count == 255
    assert calibration.photos.longer_side == (287, 384, 384)
    differences = calibration.photos.differences(photo)
    assert len(differences) == len(clauses)
    assert all(map(operator.contains, differences, clauses))


def test_calibration_without_sizes_remains_readable():
    calibration = Calibration((0.1, 0.2), Preprocessing(64))
    content = json.loads(json.dumps(calibration.as_dict()))
    assert "photos" not in content
    assert Calibration.from_dict(content) == calibration
    ranges = PhotoRanges((1, 2, 3), (1, 1, 1), {"JPEG": 2}, (92, 92, 92))
    content = json.loads(
        json.dumps(Calibration((0.1,), Preprocessing(64), photos=ranges).as_dict())
    )
    assert Calibration.from_dict(content).photos == ranges
    for wrong in ([3, 2, 1], [1, 2], ["1", "2", "3"], [1, 2, float("nan")], []):
        content["photos"]["longer_side"] = wrong
        with pytest.raises((ValueError, TypeError)):
            Calibration.from_dict(content)


def test_no_share_is_given_for_a_photo_outside_the_range(saved, tmp_path, capsys):
    for seed in range(3):
        save(tmp_path / f"authentic/{seed}.jpg", seed=seed, quality=90)
    run("calibrate", "--checkpoint", saved, "--photos", tmp_path / "authentic")
    similar = save(tmp_path / "similar.jpg", (80, 60), 7, quality=85)
    large = save(tmp_path / "large.jpg", (400, 300), 7, quality=90)
    out = tmp_path / "out"
    run("examine", similar, large, "--out", out, "--checkpoint", saved)
    pages = {
        name: unescape(" ".join((out / name / "report.html").read_text(encoding="utf-8").split()))
        for name in ("similar", "large")
    }
    reports = {name: json.loads((out / name / "report.json").read_text()) for name in pages}
    assert reports["similar"]["not_comparable"] == []
    assert "of 3 authentic comparison photos (" in pages["similar"]
    described = "3 JPEG files of quality 90, with a longer side of 70 pixels"
    assert f"The comparison photos are {described}" in pages["similar"]
    clause = "the photo's longer side is 400 pixels, but 70 in the comparison photos"
    assert reports["large"]["not_comparable"] == [clause]
    assert "authentic comparison photos (" not in pages["large"]
    assert f"with those of authentic photos</b>: {clause}. The comparison photos" in pages["large"]
    calibration = json.loads((saved / "calibration.json").read_text())
    del calibration["photos"]
    (saved / "calibration.json").write_text(json.dumps(calibration))
    run("examine", large, "--out", tmp_path / "old", "--checkpoint", saved)
    page = (tmp_path / "old/large/report.html").read_text(encoding="utf-8")
    assert "The size and format of the comparison photos are unknown" in page


# --- What the file says -------------------------------------------------------------------


def test_summary_names_camera_dates_software_and_contradictions(tmp_path):
    path = save(tmp_path / "x.jpg", exif=camera_exif())
    examination = examine_photo(None, path)
    text = text_of(examination)
    summary = text[text.index(" Summary ") : text.index(" Regions that a model cannot judge ")]
    assert (
        "camera Canon EOS R5 ; taken 2023:05:06 07:08:09 ; last modified 2023:02:03 10:00:00 ; "
        "saved by Adobe Photoshop 25.1 (Windows) ." in summary
    )
    assert (
        "Dates in the file contradict each other. According to the file, the photo was modified "
        "(EXIF DateTime: 2023:02:03 10:00:00) before it was taken" in summary
    )
    assert examination.report()["origin"]["statements"]["camera"] == "Canon EOS R5"
    assert "According to the metadata" not in text_of(examine_photo(None, save(tmp_path / "y.jpg")))


@pytest.mark.parametrize(
    ("name", "size", "exif", "expected"),
    [
        ("a.png", (1170, 2532), None, "its size of 1170x2532 pixels is that of a common screen"),
        ("a.png", (70, 50), None, "cameras rarely write PNG files"),
        ("a.png", (1170, 2532), camera_exif(), ""),
        ("a.jpg", (1170, 2532), None, ""),
        ("a.jpg", (1200, 1600), None, "its longer side is 1600 pixels, a size to which WhatsApp"),
        ("a.jpg", (1200, 1600), camera_exif(), ""),
        ("a.jpg", (1200, 1601), None, ""),
        ("IMG-20230506-WA0001.jpg", (70, 50), None, "it has a WhatsApp file name"),
    ],
)
def test_screenshots_and_messaging_app_files_are_called_possible_copies(
    tmp_path, name, size, exif, expected
):
    Image.new("RGB", size, "gray").save(tmp_path / name, **({"exif": exif} if exif else {}))
    evidence = read_evidence(tmp_path / name)
    note = resaved_note(evidence.facts, evidence.origin, size)
    assert expected in note
    assert bool(note) == bool(expected)
    if expected:
        assert note.startswith("this may be a screenshot or a copy instead of the original file: ")


def test_possible_copy_is_stated_in_the_summary(tmp_path):
    examination = examine_photo(None, save(tmp_path / "a.png"))
    assert "This may be a screenshot or a copy instead of the original file" in text_of(examination)
    assert "cameras rarely write PNG files" in examination.report()["resaved"]


# --- Location -----------------------------------------------------------------------------


def test_location_is_left_out_of_page_and_json(tmp_path):
    exif = camera_exif(with_position=True)
    path = save(tmp_path / "in/x.jpg", exif=exif, xmp=GPS_XMP)
    run("examine", path, "--out", tmp_path / "full", "--checkpoint", "none")
    run("examine", path, "--out", tmp_path / "out", "--checkpoint", "none", "--omit-location")
    for name in ("report.html", "report.json"):
        full = (tmp_path / "full/x" / name).read_text(encoding="utf-8")
        shared = (tmp_path / "out/x" / name).read_text(encoding="utf-8")
        for secret in ("-33.858333", "151.2", "GPSLatitude", "33,51.5S"):
            assert secret in full
            assert secret not in re.sub(r"base64,[^\"]*", "", shared)
        assert "Canon EOS R5" in shared
    report = json.loads((tmp_path / "out/x/report.json").read_text())
    assert (report["gps"], report["xmp"]) == (None, "")
    assert any("contains a location" in note for note in report["notes"])
    plain = save(tmp_path / "in/plain.jpg")
    assert (
        "location" not in text_of(examine_photo(None, plain, omit_location=True)).split(" Leads")[0]
    )


# --- Addresses ----------------------------------------------------------------------------


def test_address_gets_one_clear_line(saved, tmp_path):
    address = "https://example.org/photos/a.jpg"
    with pytest.raises(PhotographError, match=f"got the URL {address}, expected a file"):
        find_photos([address])
    commands = (
        ("examine", address, "--out", tmp_path / "out", "--checkpoint", "none"),
        ("predict", address, "--out", tmp_path / "out", "--checkpoint", saved),
        ("calibrate", "--checkpoint", saved, "--photos", address),
    )
    for command in commands:
        with pytest.raises(SystemExit) as end:
            run(*command)
        assert "download the image first, in its original size" in str(end.value.code)
        assert "\n" not in str(end.value.code)
        assert address in str(end.value.code)


# --- The index of a folder ----------------------------------------------------------------


def test_folder_gets_an_index_sorted_by_score(saved, tmp_path, capsys):
    photos, out = tmp_path / "photos", tmp_path / "out"
    for seed, name in enumerate(("a", "b", "c<i>")):
        save(photos / f"{name}.jpg", seed=seed)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0" + b"x" * 100)
    (photos / "words.jpg").write_text("no photo")
    for _ in range(2):  # The second run only reads the reports.
        with pytest.raises(SystemExit):
            run("examine", photos, "--out", out, "--checkpoint", saved)
        assert f"{out}/index.html" in capsys.readouterr().out
    with open(out / "examinations.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["score"]) for row in rows[:3]]
    assert scores == sorted(scores, reverse=True)
    assert [row["rank"] for row in rows] == ["1", "2", "3", ""]
    assert rows[3]["file"] == str(photos / "broken.jpg")
    assert "cannot be decoded" in rows[3]["error"]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'href="([^"]*report\.html)"', page) == [
        row["report"].replace("<", "%3C").replace(">", "%3E") for row in rows
    ]
    assert page.count("data:image/jpeg;base64,") == 3
    assert "<i>" not in page
    assert "cannot read words.jpg" in page
    assert str(photos) not in page  # It can be passed on.


def test_single_photo_gets_no_index_and_an_index_of_the_user_is_kept(tmp_path, capsys):
    photo, out = save(tmp_path / "x.jpg"), tmp_path / "out"
    run("examine", photo, "--out", out, "--checkpoint", "none")
    assert not (out / "index.html").exists()
    (out / "index.html").write_text("mine")
    assert not write_index(out, [])
    assert (out / "index.html").read_text() == "mine"
    assert not (out / "examinations.csv").exists()
    (out / "index.html").unlink()
    (out / "manual").mkdir()
    (out / "manual/report.json").write_text('{"leads": 3, "file": []}')
    assert write_index(out, [])
    page = (out / "index.html").read_text()
    assert page.count("report.html") == 1
