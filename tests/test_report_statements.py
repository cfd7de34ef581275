"""What reports state about a photo's score, file and location, and the index of a folder."""

import csv
import json
import operator
import pickle
import re
import struct
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import qma_net
from conftest import cpu_at_most, photograph
from qma_net import cli
from qma_net.examine import examine_photo, read_evidence, render_page
from qma_net.examine.comparison import describe_photos, differences
from qma_net.examine.content_credentials import Action, Credentials, Manifest
from qma_net.examine.index import write_index
from qma_net.examine.location import reveals_location
from qma_net.examine.resaved import resaved_note
from qma_net.inference.photo_files import find_photos
from qma_net.inference.photograph import PhotographError
from qma_net.modeling.calibration import Calibration, PhotoProperties, PhotoRanges
from qma_net.modeling.config import Preprocessing
from qma_net.web import worker

PACKAGED = Path(qma_net.__file__).parent / "weights/qma-net-small/calibration.json"
XMP = (
    b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF "
    b"xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description %b>"
    b"%b</rdf:Description></rdf:RDF></x:xmpmeta>"
)
GPS_XMP = XMP % (b"xmlns:exif='http://ns.adobe.com/exif/1.0/' exif:GPSLatitude='33,51.5S'", b"")


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
    assert describe_photos(ranges) == (
        "2 JPEG files and 1 PNG file of JPEG quality 70 to 90, with a longer side of 400 to 2,000 "
        "pixels (median 600; 0.12 to 2 megapixels)"
    )


@pytest.mark.parametrize(
    ("photo", "clauses"),
    [
        (PhotoProperties(2560, 300, "JPEG", 82), []),  # 2048 * 1.25.
        (PhotoProperties(200, 277, "JPEG", 100), []),  # 346 / 1.25 is 276.8.
        (PhotoProperties(4000, 3000), ["longer side is 4,000 pixels, while those of"]),
        (PhotoProperties(2561, 300), ["comparison photos range from 346 to 2,048 pixels"]),
        (PhotoProperties(276, 200), ["longer side is 276 pixels, while those of"]),
        (PhotoProperties(300, 300, "PNG"), ["format is PNG, while the comparison photos are JPEG"]),
    ],
)
def test_photo_outside_the_range_of_the_packaged_calibration_is_recognized(photo, clauses):
    calibration = Calibration.from_dict(json.loads(PACKAGED.read_text(encoding="utf-8")))
    assert calibration.count == 381
    assert calibration.photos.longer_side == (346, 499, 2048)
    found = differences(photo, calibration.photos)
    assert len(found) == len(clauses)
    assert all(map(operator.contains, found, clauses))


@pytest.mark.parametrize(
    ("quality", "clauses"),
    [
        (82, []),  # 92 - 10.
        (100, []),
        (81, ["JPEG quality is about 81, while those of the comparison photos are all 92"]),
    ],
)
def test_jpeg_quality_that_differs_from_the_calibration_is_recognized(quality, clauses):
    ranges = PhotoRanges((287, 384, 384), (0.06, 0.1, 0.15), {"JPEG": 255}, (92, 92, 92))
    found = differences(PhotoProperties(300, 300, "JPEG", quality), ranges)
    assert len(found) == len(clauses)
    assert all(map(operator.contains, found, clauses))


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
    clause = (
        "the photo's longer side is 400 pixels, while those of the comparison photos are all 70 "
        "pixels"
    )
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
    summary = text[text.index(" Summary ") : text.index(" Regions that the model cannot judge ")]
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
        ("a.jpg", (1200, 1600), None, "its longer side is 1,600 pixels, a size to which WhatsApp"),
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
    assert report["omits_location"]
    page = (tmp_path / "out/x/report.html").read_text(encoding="utf-8")
    assert page.count("was left out of this report on request") == 1
    plain = examine_photo(None, save(tmp_path / "in/plain.jpg"), omit_location=True)
    assert not plain.report()["omits_location"]
    assert "left out" not in text_of(plain)


REVEALING = [
    *('drone-dji:GpsLatitude="-33.8"', 'drone-dji:GpsLongtitude="151.2"', 'exif:gpslatitude="33"'),
    *('ps:City="Berlin"', "ps:STATE='NSW'", "<x:City>Berlin</x:City>", "<geo:lat>22</geo:lat>"),
    '<Iptc4xmpExt:LocationCreated rdf:parseType="Resource">',
    "<Iptc4xmpExt:LocationName><rdf:Alt><rdf:li>Home",
    *("<xmpDM:shotLocation>Here", "<a-b.c:Sublocation>Here", "<shotLocation a='b'>Here"),
    *(f"{name}: x" for name in ("City", "Sublocation", "ProvinceState", "Country", "CountryCode")),
    *("LocationName: x", "LocationCode: 1", '{"city": "Berlin"}', 'dc:coverage="Paris"'),
    *("22.54,113.95", "-33.8583 151.2000", "22,5431; 113,9512", "+27.5916+086.5640/", "geo:2,3"),
    *("lat=22.5 lon=113.9", '"lat": 22.5', "Lat. 22.5", "22.5431N", "22.5\u00b0 N", "33,51.5S"),
    *("33\u00b051'30\"S", "33 deg 51'", "33&#176;51&apos;", "q=22.54%2C113.95", "Gps Altitude"),
    'exif:GPSVersionID="2.3.0.0" exif:GPSLatitude="33,51S"',
]
HARMLESS = [
    *("GPSVersionID: 2 3 0 0", 'exif:GPSVersionID="2.3.0.0"', 'exif:SubjectLocation="100"'),
    *("<exif:SubjectLocation>1 2", "<xmpDM:shotLocation/>", "<x:shotLocation> </x:shotLocation>"),
    *('photoshop:City=""', "<photoshop:City/>", "<photoshop:City> </photoshop:City>\n<a:b>"),
    *("Adobe XMP Core 9.1-c002 79.f354efc70, 2023/11/09-12:05:53", "NIKKOR Z 50mm f/1.8 S"),
    *(
        "2023-05-06T07:08:09.1234567-05:00",
        "(flat:0.50), (light:1.25)",
        "velocity: 5",
        "f/2.8, 0.25s",
    ),
]


@pytest.mark.parametrize("text", REVEALING)
def test_text_that_can_reveal_a_location_is_recognized(text):
    assert reveals_location(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_text_without_a_location_is_kept(text):
    assert not reveals_location(text)


def test_search_for_a_location_takes_linear_time():
    for text in ("location", "City ", "<a:", "1.22", "\u00b0 ", "lat ", "<a", "x.y-", "<ylocation"):
        with cpu_at_most(5):
            reveals_location(text * (2**20 // len(text)))


IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
MM, EVENT = "http://ns.adobe.com/xap/1.0/mm/", "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
PACKETS = {
    "dji": ("xmlns:d='dji' d:GpsLatitude='-33.8583' d:GpsLongtitude='151.2071'", ""),
    "prefix": ("xmlns:ps='http://ns.adobe.com/photoshop/1.0/' ps:City='Sydney'", ""),
    "created": (
        f"xmlns:e='{IPTC_EXT}'",
        "<e:LocationCreated rdf:parseType='Resource'><e:Name>Sydney</e:Name></e:LocationCreated>",
    ),
    "shot": (
        "xmlns:xmpDM='http://ns.adobe.com/xmp/1.0/DynamicMedia/'",
        "<xmpDM:shotLocation>Sydney</xmpDM:shotLocation>",
    ),
    "history": (
        f"xmlns:m='{MM}' xmlns:e='{EVENT}'",
        "<m:History><rdf:Seq><rdf:li e:action='saved' e:parameters='22.5431,113.9512'/></rdf:Seq>"
        "</m:History>",
    ),
}
TEXTS = {
    "prompt": ("parameters", "22.5431,113.9512\nSteps: 28, Sampler: Euler a, Seed: 1"),
    "keyword": ("exif:GPSLatitude", "22/1, 5431/100"),
}


def save_located(kind, folder):
    """Write a photo that states a location in one way, and return its path."""
    exif, options = camera_exif(), {}
    if kind in PACKETS:
        options["xmp"] = XMP % tuple(part.encode() for part in PACKETS[kind])
    elif kind == "date":  # It also contradicts the date of the photo.
        exif.get_ifd(0x8825).update({7: (12.0, 30.0, 5.0), 29: "2019:01:02"})
    elif kind == "comment":
        exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0at 22.5431,113.9512"
    elif kind == "caption":
        exif[0x010E] = "Home (lat=22.5431 lon=113.9512)"
    elif kind in TEXTS:
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text(*TEXTS[kind])
    path = save(folder / f"x.{'png' if kind in TEXTS else 'jpg'}", exif=exif, **options)
    if kind == "iptc":
        sets = b"".join(
            struct.pack(">BBBH", 0x1C, 2, number, 6) + b"Sydney" for number in (26, 27, 90, 92, 101)
        )
        block = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(sets)) + sets
        segment = b"\xff\xed" + struct.pack(">H", len(block) + 2) + block
        data = path.read_bytes()
        path.write_bytes(data[:2] + segment + data[2:])
    return path


SECRETS = r"Sydney|-33\.8583|151\.2071|22\.5431|113\.9512|2019:01:02|GPS|5431"
KINDS = (*PACKETS, *TEXTS, "date", "comment", "caption", "iptc")


@pytest.mark.parametrize("kind", KINDS)
def test_every_location_is_private_left_out_and_announced(kind, tmp_path):
    path = save_located(kind, tmp_path)
    full = examine_photo(None, path)
    assert full.without_location() is not full  # What the web page calls has_location.
    assert '<details class="private">' in render_page(full)
    assert re.search(SECRETS, json.dumps(full.report()))
    out = tmp_path / "out"
    shared = examine_photo(None, path, omit_location=True, out=out)
    assert shared.report()["omits_location"]
    for name in ("report.html", "report.json"):
        text = re.sub(r"base64,[^\"]*|[0-9a-f]{64}", "", (out / name).read_text(encoding="utf-8"))
        assert not re.search(SECRETS, text)
        assert "Canon EOS R5" in text
    assert shared.without_location() is shared
    # Signs remain: what is left out must not turn into a statement that there is none.
    assert shared.evidence.origin.ai_statements == full.evidence.origin.ai_statements
    assert bool(shared.evidence.origin.ai_statements) == (kind == "prompt")
    assert not shared.evidence.facts.has_no_metadata


def test_statements_of_a_signer_are_left_out_but_not_the_verdict(tmp_path):
    origin = read_evidence(save(tmp_path / "x.jpg")).origin
    action = Action(code="c2pa.edited", name="edited", description="at 22.5431, 113.9512")
    names = ("title", "generator", "organization", "common_name", "signed")
    manifest = Manifest(
        label="a",
        **dict.fromkeys(names, "Camera"),
        **dict.fromkeys(("authors", "ingredients", "assertions"), ()),
        actions=(action,),
        thumbnail=photograph(8, 8),
    )
    problems = ("the position 22.5431, 113.9512 was changed",)
    valid = Credentials(signature_valid=True, unchanged=True, manifests=(manifest,))
    assert replace(origin, credentials=valid).without_location().credentials.is_valid
    broken = replace(origin, credentials=replace(valid, problems=problems)).without_location()
    assert not broken.credentials.is_valid
    assert not re.search(SECRETS, json.dumps(broken.report()))
    kept = replace(origin, credentials=replace(valid, manifests=()))
    assert kept.without_location() is kept


def test_web_page_leaves_out_what_the_command_does(tmp_path):
    path = save(tmp_path / "x.jpg", exif=camera_exif(with_position=True), xmp=GPS_XMP)
    full = examine_photo(None, path)
    full = replace(full, notes=(*full.notes, "the GPS position is invalid, so it is not stated"))
    (tmp_path / worker.EXAMINATION).write_bytes(pickle.dumps(full))
    shared = worker.load_examination(tmp_path, omit_location=True).report()
    assert shared["omits_location"]
    assert not re.search("GPS|151", json.dumps(shared | {"sha256": ""}))
    assert not worker.load_examination(tmp_path).report()["omits_location"]


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
    assert "Not examined in the last run (1)" in page
    with Image.open(out / "a/thumbnail.jpg") as thumbnail:
        assert max(thumbnail.size) <= 160
    assert str(photos) not in page  # It can be passed on.


def test_single_photo_gets_no_index_and_the_users_files_are_kept(tmp_path, capsys):
    photo, out = save(tmp_path / "x.jpg"), tmp_path / "out"
    run("examine", photo, "--out", out, "--checkpoint", "none")
    assert not (out / "index.html").exists()
    (out / "index.html").write_text("mine")
    write_index(out, [])
    assert (out / "index.html").read_text() == "mine"
    assert not (out / "examinations.csv").exists()
    (out / "index.html").unlink()
    (out / "examinations.csv").write_text("case,rank,file,report\n")
    write_index(out, [])
    assert (out / "examinations.csv").read_text() == "case,rank,file,report\n"
    assert not (out / "index.html").exists()
    (out / "examinations.csv").unlink()
    (out / "manual").mkdir()
    (out / "manual/report.json").write_text('{"leads": 3, "file": []}')
    write_index(out, [])
    page = (out / "index.html").read_text()
    assert page.count("report.html") == 1
    capsys.readouterr()
    other = save(tmp_path / "other.jpg")
    run("examine", other, "--out", out, "--checkpoint", "none")  # Its index is written again.
    assert f"{out}/index.html" in capsys.readouterr().out
    assert (out / "index.html").read_text().count("report.html") == 2
    (out / "examinations.csv").write_text("case;rank;file;report\n")
    run("examine", other, "--out", out, "--checkpoint", "none")
    assert "index.html" not in (printed := capsys.readouterr().out)  # It is out of date.
    assert "report.html" in printed


def test_table_has_the_date_of_modification_and_no_comparison_that_does_not_apply(tmp_path):
    report = examine_photo(None, save(tmp_path / "x.jpg")).report()
    report["origin"]["statements"] = {"last modified": "2024-05-06"}
    counts = {"as_high": 3, "calibrated_on": 20}
    for name, reasons in (("a", []), ("b", ["the photo is larger"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.html").touch()
        content = json.dumps(report | counts | {"not_comparable": reasons})
        (tmp_path / name / "report.json").write_text(content)
    write_index(tmp_path, [])
    with open(tmp_path / "examinations.csv", encoding="utf-8", newline="") as file:
        rows = [
            (row["last_modified"], row["as_high"], row["calibrated_on"], row["not_comparable"])
            for row in csv.DictReader(file)
        ]
    assert rows == [("2024-05-06", "3", "20", ""), ("2024-05-06", "", "", "the photo is larger")]


@pytest.mark.parametrize(
    "change",
    [
        {"file": None},
        {"score": "0.5"},
        {"marked": []},
        {"bytes": "12"},
        {"leads": [{"name": "a"}]},
        {"not_comparable": [3]},
        {"origin": {"statements": 3}},
        {"origin": "camera"},
        None,
    ],
)
def test_index_leaves_out_other_files(tmp_path, caplog, change):
    report = examine_photo(None, save(tmp_path / "x.jpg"), out=tmp_path / "good").report()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/report.html").touch()
    content = {"a": 1} if change is None else report | change
    (tmp_path / "other/report.json").write_text(json.dumps(content))
    write_index(tmp_path, [])
    assert (tmp_path / "index.html").read_text().count("report.html") == 1
    assert "is not the report of an examination" in caplog.text
