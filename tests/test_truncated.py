"""Photos whose file ends too early: what is decoded, what is stated and what is not judged."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageFile

from conftest import photograph
from qma_net import QMANetPredictor, cli
from qma_net.core.jpeg_scans import read_jpeg_scans
from qma_net.examine import examine_photo, read_evidence, render_page
from qma_net.examine.calibrate import calibrate
from qma_net.examine.readability import MISSING
from qma_net.inference.photograph import PhotographError, read_photograph
from qma_net.modeling.config import Preprocessing

HEIGHT, WIDTH = 203, 301  # The last MCU row (of 16 rows) begins at row 192 and is incomplete.

# How each file is written, and where it is cut: bytes before the end, and the stored rows that are
# then reliable. With 4:2:0, chroma of a row is interpolated from the next MCU row, hence 192 - 1.
JPEGS = {
    "4:2:0": ({}, {2: 203, 8: 191, 2000: 175}),
    "4:4:4": ({"subsampling": 0}, {2: 203, 8: 200, 2000: 184}),
    "restart per row": ({"restart_marker_rows": 1}, {2: 203, 8: 191, 2000: 175}),
    "restart per 3 MCUs": ({"restart_marker_blocks": 3}, {2: 203, 5: 191, 2000: 175}),
    "progressive": ({"progressive": True}, {2: 203, 8: 191, 2000: 143}),
}


def jpeg(image=None, **options):
    data = io.BytesIO()
    image = Image.fromarray(photograph(HEIGHT, WIDTH)) if image is None else image
    image.save(data, "JPEG", **{"quality": 90} | options)
    return data.getvalue()


def png(**options):
    data = io.BytesIO()
    Image.fromarray(photograph(HEIGHT, WIDTH)).save(data, "PNG", **options)
    return data.getvalue()


def reliable_rows(photo):
    rows = photo.present[0].indices(len(photo.pixels))
    assert rows[0] == 0
    return rows[1]


@pytest.mark.parametrize("kind", JPEGS)
def test_truncated_jpeg_is_decoded_up_to_the_first_unreliable_row(kind):
    options, cuts = JPEGS[kind]
    data = jpeg(**options)
    whole = read_photograph(data)
    assert whole.truncation == ""
    for cut, expected in cuts.items():
        photo = read_photograph(data[:-cut])
        rows = reliable_rows(photo)
        assert rows == expected, cut
        assert photo.pixels.shape == whole.pixels.shape
        assert (photo.pixels[:rows] == whole.pixels[:rows]).all()
        assert (photo.pixels != whole.pixels).any() == (rows < HEIGHT)
        statement = ", but every row can be decoded"
        if rows < HEIGHT:
            statement = f": rows {rows + 1} to 203 of 203 are missing or unreliable"
        assert photo.notes == (f"the file is truncated{statement}",)


def test_every_cut_of_a_jpeg_leaves_only_rows_that_equal_the_whole_photo():
    image = Image.fromarray(photograph(48, 64))
    for options in ({}, {"subsampling": 0}, {"restart_marker_blocks": 1}, {"optimize": True}):
        data = jpeg(image, **options)
        whole = read_photograph(data).pixels
        start = read_jpeg_scans(data, 1).end - len(data)
        header = data.index(b"\xff\xda") + 16
        assert start == 0
        for cut in range(len(data) - 1, header, -1):
            photo = read_photograph(data[:cut])
            rows = reliable_rows(photo)
            assert (photo.pixels[:rows] == whole[:rows]).all(), (options, cut)


def test_progressive_jpeg_without_later_scans_is_not_judged():
    """Its rows are all there, but with less detail than the camera saved."""
    data = jpeg(progressive=True)
    cut = data[: len(data) // 2]
    scans = len(read_jpeg_scans(cut, 100).scans)
    assert 1 < scans < len(read_jpeg_scans(data, 100).scans)
    photo = read_photograph(cut)
    assert not photo.present_pixels.size
    assert f"the scans after scan {scans} of this progressive JPEG are missing" in photo.notes[0]
    assert "the whole photo has less detail" in photo.notes[0]
    assert np.abs(photo.pixels.astype(int) - photograph(HEIGHT, WIDTH)).mean() < 20


def test_space_that_was_never_written_counts_as_missing():
    """Interrupted copies end in zeros, which a decoder accepts as image data."""
    data = jpeg()
    photo = read_photograph(data[:-2000] + bytes(2000))
    assert reliable_rows(photo) == 175


@pytest.mark.parametrize("orientation", range(1, 9))
def test_unreliable_part_is_stated_for_the_photo_as_displayed(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(exif=exif)
    whole, photo = read_photograph(data), read_photograph(data[:-2000])
    # 175 of 203 stored rows are reliable, so 28 are not.
    expected = {
        **dict.fromkeys((1, 2), "rows 176 to 203"),
        **dict.fromkeys((3, 4), "rows 1 to 28"),
        **dict.fromkeys((5, 8), "columns 176 to 203"),
        **dict.fromkeys((6, 7), "columns 1 to 28"),
    }
    assert f": {expected[orientation]} of 203 are missing" in photo.notes[0]
    assert photo.present_pixels.size == 175 * WIDTH * 3
    assert (photo.present_pixels == whole.pixels[photo.present]).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_truncated_png_keeps_its_complete_rows(mode):
    image = Image.fromarray(photograph(HEIGHT, WIDTH)).convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    data = file.getvalue()
    whole = read_photograph(data)
    photo = read_photograph(data[: len(data) // 2])
    rows = reliable_rows(photo)
    assert 60 < rows < 140
    assert (photo.pixels[:rows] == whole.pixels[:rows]).all()
    assert not (photo.pixels[rows] == whole.pixels[rows]).all()
    assert f"rows {rows + 1} to 203 of 203 are missing" in photo.notes[0]
    complete = read_photograph(data[:-12])  # Without the chunk IEND.
    assert (complete.pixels == whole.pixels).all()


def test_damaged_png_is_not_taken_for_a_truncated_one():
    data = bytearray(png())
    size = int.from_bytes(data[33:37], "big")  # Of the first IDAT chunk, after IHDR.
    assert size < len(data) - 100
    data[33 + size // 2] ^= 1
    with pytest.raises(PhotographError, match="cannot be decoded"):
        read_photograph(bytes(data[: 33 + 12 + size + 100]))


def test_decoding_truncated_photos_changes_no_setting_of_pillow():
    """That setting applies to all threads, and to BenCo's loaders."""
    read_photograph(jpeg()[:-2000])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(jpeg()[:-2000])).load()


# The results


@pytest.fixture
def predictor(build_tiny):
    model = build_tiny()
    model.preprocessing = Preprocessing(64)
    return QMANetPredictor(model)


def test_missing_rows_do_not_influence_the_mask(predictor):
    data = jpeg()
    prediction = predictor.predict(data[:-2000])
    expected = predictor.predict(read_photograph(data).pixels[:175])
    assert np.array_equal(prediction.mask[:175], expected.mask)
    assert prediction.score == expected.score
    assert prediction.mask.shape == (HEIGHT, WIDTH)
    assert not prediction.mask[175:].any()
    assert prediction.marked == expected.binary.mean()
    progressive = jpeg(progressive=True)
    with pytest.raises(PhotographError, match="cannot judge bytes: the file is truncated: the"):
        predictor.predict(progressive[: len(progressive) // 2])


def test_report_marks_missing_rows_as_unreadable(predictor):
    examination = examine_photo(predictor, jpeg()[:-2000], threshold=0)
    assert examination.marked == 1  # All of the part that the file contains.
    reasons = examination.readability.reasons
    assert (reasons[175:] == MISSING).all()
    assert not (reasons[:175] == MISSING).any()
    report = examination.report()
    assert report["unreadable"]["missing"] == round(28 / 203, 6)
    assert report["notes"][0].startswith("the file is truncated: rows 176 to 203 of 203")
    page = render_page(examination)
    assert "The file is truncated: rows 176 to 203 of 203 are missing or unreliable." in page
    assert "missing: the file ends before" in page
    assert "missing: the file ends before" not in render_page(examine_photo(predictor, jpeg()))


def test_progressive_jpeg_without_later_scans_gets_no_mask(predictor):
    data = jpeg(progressive=True)
    examination = examine_photo(predictor, data[: len(data) // 2])
    assert examination.prediction is None
    assert examination.leads == ()
    assert examination.readability.share == 1
    assert "This photo is too truncated to judge" in render_page(examination)


def test_file_whose_pixels_cannot_be_decoded_is_reported(tmp_path, capsys):
    """A damaged image still has a hash, metadata and a structure."""
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    data = jpeg(exif=exif)
    broken = data.replace(b"\xff\xc0\0\x11", b"\xff\xc3\0\x11")  # Lossless, hence unsupported.
    assert broken != data
    photo, out = tmp_path / "broken.jpg", tmp_path / "out"
    photo.write_bytes(broken)
    command = ["examine", str(photo), "--out", str(out), "--checkpoint", "none"]
    for _ in range(2):  # The second time, the report exists already.
        with pytest.raises(SystemExit) as end:
            cli.main(command)
        assert end.value.code == 1
        printed = capsys.readouterr()
        assert printed.out == f"{out}/broken/report.html\n"
        assert (
            f"qma-net: cannot read {photo}: it is a JPEG with lossless compression" in printed.err
        )
    report = json.loads((out / "broken/report.json").read_text())
    assert report["error"].startswith(f"cannot read {photo}: it is a JPEG with lossless")
    assert report["bytes"] == len(broken)
    assert report["exif"]["IFD0"]["Make"] == "Maker"
    assert report["parts"][0].startswith("APP")
    names = ("width", "height", "score", "marked", "unreadable_share", "unreadable")
    assert {report[name] for name in names} == {None}
    page = (out / "broken/report.html").read_text()
    assert "The pixels of this file cannot be decoded" in page
    assert report["sha256"] in page
    assert "has no forensic traces" not in page
    evidence = read_evidence(broken)
    assert (evidence.photograph, evidence.facts.format) == (None, "JPEG")


def test_truncated_photo_is_left_out_of_a_calibration(predictor, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "b.jpg").write_bytes(jpeg()[:-2000])
    calibration, errors = calibrate(predictor, [tmp_path], progress=False)
    assert calibration.count == 1
    assert errors == [
        f"skipped {tmp_path}/b.jpg: the file is truncated: rows 176 to 203 of 203 are missing or "
        "unreliable"
    ]
