"""Leads: copies, JPEG grids and noise levels of synthetic images whose ground truth is known."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from conftest import photograph
from qma_net.examine import examine_photo
from qma_net.examine.leads import leads
from qma_net.examine.leads.copies import RATES as COPY_RATES
from qma_net.examine.leads.copies import copies_lead
from qma_net.examine.leads.double_jpeg import RATES as GHOST_RATES
from qma_net.examine.leads.double_jpeg import double_jpeg_lead, find_ghosts
from qma_net.examine.leads.jpeg_grid import RATES as GRID_RATES
from qma_net.examine.leads.jpeg_grid import find_grids, grid_lead, zero_counts
from qma_net.examine.leads.noise_level import RATES as NOISE_RATES
from qma_net.examine.leads.noise_level import noise_lead, noise_levels, typical_levels

RECORDS = Path(__file__).parents[1] / "docs/leads"


def textured(height, width, seed=0):
    """Create an RGB image with structure of all sizes, as in a photo, and noise."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for size in (1, 2, 4, 8, 16, 32):
        noise = rng.normal(0, 1, (height, width, 1)).astype(np.float32)
        blurred = cv2.GaussianBlur(noise, (0, 0), size)[..., None]
        image += blurred / blurred.std() * (8 + 2 * size**0.5)
    return np.clip(image + 128 + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def jpeg(pixels, quality=80, **options):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=quality, **options)
    return data.getvalue()


def decoded(data):
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


# --- Copies ---------------------------------------------------------------------------------


def assert_pair(lead, expected, tolerance):
    """Compare the boxes of the only pair with the expected ones, in either order."""
    assert lead.result == "Two regions look like copies of each other."
    (pair,) = lead.findings
    assert np.abs(np.array(sorted(pair)) - np.array(sorted(expected))).max() <= tolerance


@pytest.mark.parametrize(
    "save", [lambda pixels: pixels, lambda p: decoded(jpeg(p, 90))], ids=["png", "jpeg"]
)
def test_copied_patch_is_found_at_both_positions(save):
    pixels = textured(400, 600)
    pixels[250:350, 430:550] = pixels[40:140, 60:180]  # 120x100 pixels, moved by (370, 210)
    lead = copies_lead(save(pixels))
    assert_pair(lead, [(60, 40, 180, 140), (430, 250, 550, 350)], tolerance=12)
    (first, second) = sorted(lead.findings[0])
    assert np.abs(np.subtract(second, first) - (370, 210, 370, 210)).max() <= 1
    assert lead.picture.shape == pixels.shape


def test_rotated_and_enlarged_copy_is_found():
    pixels = textured(500, 700)
    patch = pixels[40:160, 60:180]
    # Turned by 90 degrees and 1.25 times as large: 120x120 becomes 150x150.
    pixels[300:450, 500:650] = cv2.resize(
        np.rot90(patch), (150, 150), interpolation=cv2.INTER_CUBIC
    )
    lead = copies_lead(pixels)
    assert_pair(lead, [(60, 40, 180, 160), (500, 300, 650, 450)], tolerance=16)


def test_each_of_two_copied_patches_is_a_pair():
    pixels = textured(500, 700)
    pixels[350:450, 50:150] = pixels[20:120, 30:130]
    pixels[350:450, 550:650] = pixels[150:250, 400:500]
    lead = copies_lead(pixels)
    assert lead.result == "2 pairs of regions look like copies of each other."
    assert len(lead.findings) == 2


def test_equal_objects_with_their_own_noise_are_no_copies():
    pixels = textured(400, 600)
    pixels[250:350, 430:550] = pixels[40:140, 60:180]
    smooth = cv2.GaussianBlur(pixels, (0, 0), 1.5).astype(float)
    pixels = smooth + np.random.default_rng(1).normal(0, 5, pixels.shape)
    assert copies_lead(pixels.clip(0, 255).astype(np.uint8)).findings == ()


def checkerboard(height, width, side=20):
    y, x = np.indices((height, width)) // side
    return np.repeat(((x + y) % 2 * 200 + 20).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize(
    "pixels",
    [
        textured(400, 600),
        photograph(400, 600),
        checkerboard(400, 600),
        np.full((400, 600, 3), 90, np.uint8),
        np.full((32, 32, 3), 90, np.uint8),
    ],
    ids=["texture", "photo", "checkerboard", "uniform", "minimal"],
)
def test_images_without_copies_have_no_pair_and_no_picture(pixels):
    lead = copies_lead(pixels)
    assert lead.result == "No copies were found."
    assert lead.findings == ()
    assert lead.picture is None


def test_large_photo_is_searched_at_reduced_size():
    pixels = cv2.resize(textured(800, 1000), (2500, 2000), interpolation=cv2.INTER_CUBIC)
    pixels[1300:1800, 1800:2300] = pixels[100:600, 200:700]
    lead = copies_lead(pixels)
    assert lead.window == "downscaled to 1581x1264 pixels"  # sqrt(2e6 / 5e6) = 0.632
    assert_pair(lead, [(200, 100, 700, 600), (1800, 1300, 2300, 1800)], tolerance=24)


# --- JPEG grid ------------------------------------------------------------------------------


def test_zeros_are_those_of_the_definition():
    gray = decoded(jpeg(photograph(40, 44), 50))[..., 0]
    counts = zero_counts(gray)
    assert counts.shape == (33, 37)
    for y, x in ((0, 0), (8, 16), (5, 3), (32, 36)):
        coefficients = cv2.dct(gray[y : y + 8, x : x + 8].astype(np.float64))
        expected = np.count_nonzero(np.abs(coefficients) <= 0.5) - (abs(coefficients[0, 0]) <= 0.5)
        assert counts[y, x] == expected


@pytest.mark.parametrize("crop", [(0, 0), (3, 5), (8, 1)])
def test_grid_of_a_cropped_jpeg_begins_where_the_crop_shifted_it(crop):
    x, y = crop
    pixels = decoded(jpeg(textured(256, 320)))[y:, x:]
    main, regions = find_grids(pixels)
    assert main == (-x % 8, -y % 8)
    assert regions == []


def test_image_that_was_never_a_jpeg_has_no_grid():
    lead = grid_lead(textured(256, 320))
    result = "No grid was detected in the photo as a whole. No region with a grid was found."
    assert lead.result == result
    assert lead.picture is None


def test_cropped_photo_saved_as_png_is_described():
    result = grid_lead(decoded(jpeg(textured(256, 320)))[5:, 3:]).result
    # The first complete blocks begin at 8 - 3 and 8 - 5.
    assert "begins 5 pixels from the left and 3 from the top" in result
    assert "no sign of a crop" not in result


@pytest.mark.parametrize("orientation", range(1, 9))
def test_grid_of_a_rotated_jpeg_is_that_of_the_file(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(textured(203, 301), exif=exif)  # Neither side is a multiple of 8.
    lead = examine_photo(None, data).leads[1]
    assert lead.result.startswith(
        "The JPEG grid found in the pixels is the one that the file itself uses."
    )


def test_photo_saved_twice_with_a_crop_between_is_described():
    once = decoded(jpeg(textured(256, 320), 60))
    lead = examine_photo(None, jpeg(once[3:, 5:], 98)).leads[1]
    assert (
        "begins 3 pixels from the left and 5 from the top, but the one that the file itself uses "
        "begins in the top left corner." in lead.result
    )


def test_patch_with_another_grid_is_found_in_a_png():
    pixels = decoded(jpeg(textured(256, 320)))
    other = decoded(jpeg(textured(256, 320, seed=1)))
    pixels[60:156, 101:229] = other[40:136, 80:208]  # The grid of the patch begins at (5, 4).
    main, (region,) = find_grids(pixels)
    assert main == (0, 0)
    assert region.origin == (5, 4)
    assert np.abs(np.subtract(region.box, (101, 60, 229, 156))).max() <= 8
    lead = grid_lead(pixels)
    assert lead.result.endswith("One region with a different grid was found.")
    assert lead.findings == ((region.box,),)
    assert lead.picture.shape == pixels.shape


def test_patch_is_found_in_an_image_that_was_never_a_jpeg():
    pixels = textured(256, 320)
    pixels[60:156, 101:229] = decoded(jpeg(textured(96, 128, seed=1)))
    main, (region,) = find_grids(pixels)
    assert main is None
    assert region.origin == (5, 4)
    lead = grid_lead(pixels)
    result = "No grid was detected in the photo as a whole. One region with a grid was found."
    assert lead.result == result


@pytest.mark.parametrize(("kind", "name"), [("WEBP", "WebP"), ("AVIF", "AVIF"), ("GIF", "GIF")])
def test_photo_in_a_format_without_measured_rates_is_not_examined_for_grids(kind, name):
    """The blocks of WebP and AVIF imitate those of JPEG."""
    pixels = textured(256, 320)
    pixels[60:156, 101:229] = decoded(jpeg(textured(96, 128, seed=1)))
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind, lossless=True)
    grid, double = examine_photo(None, data.getvalue()).leads[1:3]
    assert grid.result.startswith(f"Not examined: the method does not apply to {name} files")
    assert grid.findings == ()
    assert double.result.startswith("Not examined")
    for lossless in ("PNG", "TIFF", "BMP"):
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, lossless)
        assert len(examine_photo(None, data.getvalue()).leads[1].findings) == 1


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (3000, 4000)])
def test_uniform_image_of_any_size_has_no_grid(size):
    assert find_grids(np.full((*size, 3), 90, np.uint8)) == (None, [])


# --- Double JPEG compression ----------------------------------------------------------------


def test_photo_saved_twice_has_its_earlier_quality():
    once = decoded(jpeg(textured(256, 320), 70))
    lead = examine_photo(None, jpeg(once, 90)).leads[2]
    assert lead.result == (
        "Most of the photo has traces of an earlier compression at about quality 70."
    )
    assert (lead.findings, lead.picture) == ((), None)


@pytest.mark.parametrize("quality", [75, 90, 95])
def test_photo_saved_once_has_no_ghosts(quality):
    assert examine_photo(None, jpeg(textured(256, 320), quality)).leads[2].result == (
        "No traces of an earlier compression were found."
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_region_saved_before_is_found_in_a_rotated_photo(orientation):
    pixels = textured(403, 501)
    pixels[128:272, 96:288] = decoded(jpeg(pixels[128:272, 96:288], 60))
    exif = Image.Exif()
    exif[0x0112] = orientation
    lead = examine_photo(None, jpeg(pixels, 90, exif=exif)).leads[2]
    assert lead.result == (
        "Regions with a separate earlier compression were found (quality about 60)."
    )
    mask = np.zeros((403, 501), np.uint8)
    mask[128:272, 96:288] = 1
    shown = Image.fromarray(mask)
    shown.getexif()[0x0112] = orientation
    rows, columns = np.nonzero(np.array(ImageOps.exif_transpose(shown)))
    expected = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    ((box,),) = lead.findings
    # Windows of 3x3 cells of 16 pixels blur the outline by a cell, and the grid by a block.
    assert np.abs(np.subtract(box, expected)).max() <= 24


@pytest.mark.parametrize(
    "data",
    [
        jpeg(np.full((32, 32, 3), 90, np.uint8)),
        jpeg(textured(32, 32), 90),
        jpeg(np.full((300, 300, 3), 90, np.uint8)),
        jpeg(textured(256, 320), 30),
    ],
    ids=["minimal", "minimal texture", "uniform", "strong compression"],
)
def test_photo_without_measurable_traces_gets_no_statement(data):
    result = examine_photo(None, data).leads[2].result
    assert result == "Not examined: the traces cannot be measured."


def test_other_formats_are_not_examined_for_ghosts():
    lead = double_jpeg_lead(textured(64, 64), None, None)
    assert lead.result == "Not examined: the file is not a JPEG with known tables."


def test_table_that_is_not_that_of_the_pixels_is_rejected():
    pixels = decoded(jpeg(textured(256, 320), 85))
    assert find_ghosts(pixels, [5] * 64) is None


# --- Noise level ----------------------------------------------------------------------------


def noisy(deviation, height=320, width=320, brightness=128):
    noise = np.random.default_rng(0).normal(0, deviation, (height, width))
    return np.clip(noise + brightness, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("deviation", [2, 5, 10])
def test_noise_level_of_white_noise_is_its_standard_deviation(deviation):
    levels, brightness = noise_levels(noisy(deviation))
    assert np.median(levels) == pytest.approx(deviation, rel=0.04)
    assert np.abs(brightness - 128).max() <= 3


def test_noise_step_is_shown_with_its_scale():
    gray = noisy(2)
    gray[128:192, 64:160] = noisy(8)[128:192, 64:160]
    lead = noise_lead(np.repeat(gray[..., None], 3, axis=2))
    assert lead.picture.shape == gray.shape
    assert (lead.picture[128:192, 64:160] > 200).all()
    rest = np.ones(gray.shape, bool)
    rest[112:208, 48:176] = False
    assert np.abs(lead.picture[rest].astype(int) - 127).max() < 30
    # Rounding to whole numbers adds 1/12 to the variance: sqrt(4 + 1/12) = 2.02.
    assert lead.result in [f"The median noise level is {v} gray levels." for v in ("2.0", "2.1")]
    # The patch has 6 gray levels more, and blocks vary by about 10%.
    assert any(f"white means {scale:.1f}" in lead.meaning for scale in np.arange(5.5, 8.0, 0.1))


def test_noise_that_follows_brightness_is_typical():
    gray = np.hstack([noisy(2, brightness=60), noisy(8, brightness=180)])
    levels, brightness = noise_levels(gray)
    assert np.abs(levels - typical_levels(levels, brightness)).max() < 3
    assert np.ptp(levels) > 5


# --- In the report --------------------------------------------------------------------------


def test_report_contains_the_leads(tmp_path):
    pixels = textured(400, 600)
    pixels[250:350, 430:550] = pixels[40:140, 60:180]
    Image.fromarray(pixels).save(tmp_path / "x.png")
    examine_photo(None, tmp_path / "x.png", out=tmp_path / "out")
    entries = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))["leads"]
    names = [
        "Copied regions",
        "JPEG grid",
        "Double JPEG compression",
        "Noise level",
        "SRM",
        "Error levels",
    ]
    assert [entry["name"] for entry in entries] == names
    (pair,) = entries[0]["regions"]
    assert len(pair) == 2
    assert all(len(box) == 4 for box in pair)
    assert entries[1]["regions"] == []
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert COPY_RATES.sentence() in page
    summary = page[: page.index("<h2>The photo</h2>")]
    assert "Copied regions: Two regions look like copies of each other." in summary
    assert "JPEG grid" not in summary  # It found no region.


def test_leads_of_a_minimal_image_have_the_size_of_the_image():
    views = leads(photograph(32, 32))
    assert [view.picture.shape[:2] for view in views if view.picture is not None] == [(32, 32)] * 3


def test_stated_rates_are_those_that_were_measured():
    record = json.loads((RECORDS / "rates.json").read_text(encoding="utf-8"))
    authentic, manipulated = record["authentic"].values(), record["manipulated"]
    count = sum(rates["images"] for rates in authentic)
    copies = sum(rates["copies"] for rates in authentic)
    regions = sum(rates["grid_regions"] for rates in authentic)
    comofod = manipulated["COMOFOD"]
    assert (COPY_RATES.false_alarms, COPY_RATES.authentic) == (copies, count)
    assert COPY_RATES.detected == comofod["copies_at_mask"]
    assert COPY_RATES.manipulated == comofod["images"]
    assert (GRID_RATES.false_alarms, GRID_RATES.authentic) == (regions, count)
    assert GRID_RATES.detected == sum(rates["splice_found"] for rates in authentic)
    assert GRID_RATES.manipulated == sum(rates["splices"] for rates in authentic)
    real = manipulated.values()
    assert COPY_RATES.real == GRID_RATES.real == sum(rates["images"] for rates in real)
    assert COPY_RATES.detected_real == sum(rates["copies_at_mask"] for rates in real)
    assert GRID_RATES.detected_real == sum(rates["grid_regions_at_mask"] for rates in real)
    stands_out = [sum(rates["noise_stands_out"] for rates in sets) for sets in (authentic, real)]
    assert [NOISE_RATES.false_alarms, NOISE_RATES.detected_real] == stands_out
    assert (NOISE_RATES.authentic, NOISE_RATES.real) == (count, COPY_RATES.real)


def test_rates_are_stated_with_what_they_were_measured_on():
    copies, grid, noise = (rates.sentence() for rates in (COPY_RATES, GRID_RATES, NOISE_RATES))
    assert "outlined copies in 3 of 777 authentic photos." in copies
    assert "These 41 images include 12 from a collection of copy-moves (CoMoFoD)" in copies
    assert "766 of 776 test splices (with shifted blocks, and not recompressed)" in grid
    assert "in only 3 of 41 manipulated images" in grid
    assert "stood out in 14 of 41" in noise
    assert "in 80 of 777 authentic photos" in noise


def test_stated_rates_of_ghosts_are_those_that_were_measured():
    record = json.loads((RECORDS / "double_jpeg.json").read_text(encoding="utf-8"))
    authentic, real = record["authentic"].values(), record["manipulated"].values()
    count = sum(rates["images"] for rates in authentic)
    assert (GHOST_RATES.authentic, GHOST_RATES.manipulated) == (count, count)
    assert GHOST_RATES.false_alarms == sum(rates["file_regions"] for rates in authentic)
    assert GHOST_RATES.detected == sum(rates["splice_found"] for rates in authentic)
    assert GHOST_RATES.real == sum(rates["images"] for rates in real)
    assert GHOST_RATES.detected_real == sum(rates["regions_at_mask"] for rates in real)
