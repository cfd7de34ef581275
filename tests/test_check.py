"""``data check`` and ``--fix`` on a dataset with every fault, and near-duplicate detection."""

import io
import json
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from qma_net.core.files import PathError
from qma_net.core.runs import RunError
from qma_net.data.check import ERRORS, NOT_SEEN_FAST, FindingsError, check
from qma_net.data.facts import inspect_file
from qma_net.data.listing import ListingError, read_listings
from qma_net.data.near_duplicates import DISTANCE, candidates, find_copies, thumbnail_of
from qma_net.data.repair import RepairError, repair
from sample_archives import (
    bomb,
    one_of_each_fault,
    rectangle,
    set_orientation,
    write_pair,
    write_protocols_datasets,
)


@pytest.fixture
def faulty(tmp_path):
    """Return a Tp/Gt folder with one of each fault and the expected {(name, problem)}."""
    return tmp_path / "faulty", one_of_each_fault(tmp_path / "faulty")


WARNINGS = {
    "exif.jpg",
    "twin2.jpg",
    "cmyk.tif",
    "grey.tif",
    "alpha.tif",
    "deepimage.tif",
    "deep.png",
}


def named(findings):
    return [(Path(finding.file).name, finding.problem) for finding in findings]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_fault_is_reported_once(faulty, workers):
    folder, expected = faulty
    report = check([folder], workers=workers, progress=False)
    reported = named(report.errors + report.warnings)
    assert set(reported) == expected
    assert len(reported) == len(expected)
    assert {name for name, _ in named(report.warnings)} == WARNINGS


def test_fast_check_reports_what_headers_reveal(faulty):
    folder, expected = faulty
    report = check([folder], fast=True, progress=False)
    reported = set(named(report.errors + report.warnings))
    assert reported <= expected | {("palette.png", "mask-values"), ("deep.png", "mask-values")}
    problems = {problem for _, problem in reported}
    assert {"size-mismatch", "unpaired", "exif-orientation", "colour-mode"} <= problems
    assert {("zero.jpg", "unreadable"), ("array.npz", "mask-values")} <= reported


def test_repaired_copy_has_no_error(faulty, tmp_path):
    folder, _ = faulty
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    changes = repair([folder], tmp_path / "copy", progress=False)
    assert {path: path.read_bytes() for path in before} == before
    report = check([tmp_path / "copy"], progress=False)
    assert report.errors == []
    repaired = "ones classes deep array inverted exifmask suffixed good exif twin1".split()
    for stem in repaired:
        mask = np.asarray(Image.open(tmp_path / f"copy/Gt/{stem}.png"))
        assert (mask == rectangle((40, 60))).all(), stem
    left_out = "cut cutmask zero text small turned greys colours palette empty nomask noimage"
    copied = {path.stem for path in (tmp_path / "copy/Tp").iterdir()}
    assert copied.isdisjoint(left_out.split())
    for stem in left_out.split():
        assert any(f"{stem}." in line and "left out" in line for line in changes), stem
    assert any("suffixed_gt.png: renamed to suffixed.png" in line for line in changes)


def test_copy_inside_its_source_is_refused(faulty):
    folder, _ = faulty
    with pytest.raises(RepairError, match="; choose a separate folder"):
        repair([folder], folder / "fixed", progress=False)


@pytest.mark.parametrize("content", ["empty folder", "user's mask", "own copy"])
def test_copy_overwrites_only_its_own_files(tmp_path, content):
    _, mask = write_pair(tmp_path / "set", "a")
    Image.fromarray(rectangle((40, 60), 1)).save(mask)
    copy = tmp_path / "copy"
    copy.mkdir()
    if content == "empty folder":
        for _ in range(2):
            repair([tmp_path / "set"], copy, progress=False)
        assert (np.asarray(Image.open(copy / "Gt/a.png")) == rectangle((40, 60))).all()
        return
    drawn, message = copy / "Gt/a.png", r"contains other files \(Gt\); choose an empty folder"
    if content == "own copy":
        repair([tmp_path / "set"], copy, progress=False)
        write_pair(tmp_path / "set", "b", 1)
        drawn, message = copy / "Gt/b.png", r"Gt/b\.png was not written by data check --fix"
    drawn.parent.mkdir(exist_ok=True)
    drawn.write_bytes(b"drawn by hand")
    with pytest.raises(RepairError, match=message):
        repair([tmp_path / "set"], copy, progress=False)
    assert drawn.read_bytes() == b"drawn by hand"


def test_copy_of_other_datasets_is_not_continued(tmp_path):
    write_pair(tmp_path / "one", "a")
    write_pair(tmp_path / "two", "a", 1)
    repair([tmp_path / "one"], tmp_path / "copy", progress=False)
    before = (tmp_path / "copy/Tp/a.jpg").read_bytes()
    with pytest.raises(RunError, match="a repaired copy of a run that cannot be resumed"):
        repair([tmp_path / "two"], tmp_path / "copy", progress=False)
    assert (tmp_path / "copy/Tp/a.jpg").read_bytes() == before


def reversed_palette(mask):
    """Return a palette image whose index 0 has the value 1."""
    image = Image.fromarray(1 - mask).convert("P")
    image.putpalette([1, 1, 1, 0, 0, 0])
    return image


def fractions(mask):
    """Return a mask that alternates between 0.5 and 1 instead of 1."""
    shares = (np.indices(mask.shape).sum(axis=0) % 2 + 1).astype(np.float32) / 2
    return Image.fromarray(mask * shares)


# Masks of low values in every mode.
LOW_VALUES = {
    "grayscale.png": Image.fromarray,
    "palette.png": reversed_palette,
    "RGB.png": lambda mask: Image.fromarray(mask).convert("RGB"),
    "opaque.png": lambda mask: Image.fromarray(mask).convert("RGBA"),
    "blue.png": lambda mask: Image.fromarray(np.stack([0 * mask, 0 * mask, 7 * mask], axis=-1)),
    "16 bits.png": lambda mask: Image.fromarray(mask.astype(np.uint16)),
    "32 bits.tif": lambda mask: Image.fromarray(mask.astype(np.int32)),
    "fractions.tif": fractions,
}


@pytest.mark.parametrize("kind", LOW_VALUES)
@pytest.mark.parametrize("orientation", [1, 6])
def test_mask_of_low_values_is_repaired_in_every_mode(tmp_path, kind, orientation):
    image, mask = write_pair(tmp_path / "set", "a")
    mask.unlink()
    low = rectangle((40, 60), 1)
    if orientation == 6:
        set_orientation(image)
        low = np.rot90(low, -1)
    saved = LOW_VALUES[kind](np.ascontiguousarray(low))
    saved.save(mask.with_suffix(Path(kind).suffix))
    repair([tmp_path / "set"], tmp_path / "copy", progress=False)
    repaired = np.asarray(Image.open(tmp_path / "copy/Gt/a.png"))
    assert (repaired == rectangle((40, 60))).all()
    assert check([tmp_path / "copy"], progress=False).errors == []


def test_second_copy_removes_only_its_own_obsolete_files(tmp_path):
    source, copy = tmp_path / "set", tmp_path / "copy"
    for seed in range(4):
        _, mask = write_pair(source, str(seed), seed)
        Image.open(mask).save(mask.with_suffix(".tif"))
        mask.unlink()
    inverted = source / "Gt/0.tif"
    Image.fromarray(255 - rectangle((40, 60))).save(inverted)

    def copied(**options):
        lines = repair([source], copy, progress=False, **options)
        removed = [Path(line.split(": removed")[0]).name for line in lines if "removed" in line]
        return removed, sorted(file.name for file in (copy / "Gt").iterdir())

    assert copied() == ([], ["0.png", "1.tif", "2.tif", "3.tif"])
    (copy / "Gt/own.png").write_bytes(b"drawn by hand")
    names = ["0.tif", "1.tif", "2.tif", "3.tif", "own.png"]
    assert copied(allow=["mask-inverted"]) == (["0.png"], names)
    # The copy contains no 0.png any more, so a later one belongs to the user.
    (copy / "Gt/0.png").write_bytes(b"drawn by hand")
    (source / "Tp/3.jpg").write_bytes(b"")
    names = ["0.png", *names]
    assert copied(allow=["mask-inverted"]) == ([], names)  # The copy may be the only one left.
    for path in ("Tp/3.jpg", "Gt/3.tif"):
        (source / path).unlink()
    names.remove("3.tif")
    assert copied(allow=["mask-inverted"]) == (["3.tif", "3.jpg"], names)
    assert (copy / "Gt/0.png").read_bytes() == b"drawn by hand"
    assert sorted(file.name for file in (copy / "Tp").iterdir()) == ["0.jpg", "1.jpg", "2.jpg"]
    (copy / "Gt/0.png").unlink()
    (copy / "Gt/own.png").unlink()
    assert check([copy], allow=["mask-inverted"], progress=False).errors == []


# What `data check` finds in a NumPy file that is the mask of an image of 60x40 pixels.
ARRAYS = {
    "three dimensions": (np.ones((40, 60, 3)), "unreadable", "has shape (40, 60, 3)"),
    "no dimension": (np.array(1), "size-mismatch", "is 60x40, its mask {mask} 1x1: use"),
    "empty dimension": (np.ones((40, 0)), "unreadable", "has shape (40, 0)"),
    "10x10": (np.ones((10, 10)), "size-mismatch", "is 60x40, its mask {mask} 10x10: use"),
    "text": (np.full((40, 60), "tampered"), "unreadable", "contains values of type <U8"),
    "dates": (np.zeros((40, 60), "M8[s]"), "unreadable", "contains values of type datetime64[s]"),
    "records": (np.zeros((40, 60), "u1,u1"), "unreadable", "contains values of type"),
    "zeros": (np.zeros((40, 60)), "empty-mask", "is empty"),
    "numbers": (rectangle((40, 60), 7).astype(float), "mask-values", "save it as a PNG"),
    "extra axes": (rectangle((40, 60), 1)[None, ..., None], "mask-values", "save it as a PNG"),
}


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("kind", ARRAYS)
def test_array_is_repaired_only_if_it_is_a_mask_of_its_image(tmp_path, kind, suffix):
    array, problem, advice = ARRAYS[kind]
    image, mask = write_pair(tmp_path / "set", "a")
    mask.unlink()
    file = mask.with_suffix(suffix)
    save = np.save if suffix == ".npy" else np.savez
    save(file, array)
    report = check([tmp_path / "set"], progress=False)
    reported = image if problem == "size-mismatch" else file
    assert named(report.errors)[0] == (reported.name, problem)
    assert advice.replace("{mask}", str(file)) in report.errors[0].remedy
    changes = repair([tmp_path / "set"], tmp_path / "copy", progress=False)
    if problem == "mask-values":
        repaired = np.asarray(Image.open(tmp_path / "copy/Gt/a.png"))
        assert (repaired == rectangle((40, 60))).all()
    else:
        assert "left out" in changes[0]
        assert not (tmp_path / "copy/Gt").exists()


def test_images_that_share_a_mask_are_checked_separately(tmp_path):
    sizes = {"a": (40, 60), "b": (50, 60), "c": (60, 40), "d": (40, 60)}
    images = [write_pair(tmp_path, stem, ord(stem), size)[0] for stem, size in sizes.items()]
    mask = tmp_path / "Gt/a.png"
    rows = [[str(image), str(mask)] for image in images]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    report = check([tmp_path / "list.json"], progress=False)
    assert named(report.errors) == [("b.jpg", "size-mismatch"), ("c.jpg", "size-mismatch")]
    assert report.errors[0].remedy.startswith(f"is 60x50, its mask {mask} 60x40: use a corrected")
    assert report.errors[1].remedy.startswith(f"is 40x60, its mask {mask} 60x40: rotate the mask")
    repair([tmp_path / "list.json"], tmp_path / "copy", progress=False)
    copied = json.loads((tmp_path / "copy/list.json").read_text())
    assert [Path(image).name for image, _ in copied] == ["a.jpg", "d.jpg"]


def test_small_array_file_cannot_expand_without_limit(tmp_path):
    _, mask = write_pair(tmp_path / "set", "a")
    mask.unlink()
    header = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (200_000, 200_000)}
    np.lib.format.write_array_header_1_0(header, shape)
    mask.with_suffix(".npy").write_bytes(header.getvalue())
    report = check([tmp_path / "set"], progress=False)
    assert "claims the shape (200000, 200000)" in report.errors[0].remedy


def test_file_of_a_terabyte_is_a_fault_of_the_file(tmp_path):
    image, _ = write_pair(tmp_path, "a")
    with open(image, "wb") as file:
        file.truncate(2**40)
    report = check([tmp_path], progress=False)
    assert named(report.errors) == [("a.jpg", "unreadable")]
    assert "is too large: 1099511627776 bytes" in report.errors[0].remedy


def test_fixes_do_not_depend_on_file_names(faulty, tmp_path):
    folder, _ = faulty
    report = check([folder], progress=False)
    for finding in report.errors + report.warnings:
        assert ("--fix" in finding.remedy) == finding.fixable, finding
    named_like_a_fix, mask = write_pair(tmp_path / "set", "a (--fix does this)")
    mask.unlink()
    changes = repair([tmp_path / "set"], tmp_path / "copy", progress=False)
    assert [line.split(":")[0] for line in changes] == [str(named_like_a_fix)]


def test_benco_reads_the_repaired_mask(tmp_path):
    """BenCo reads a mask of 0 and 1 as empty, as check reports, and its repaired copy correctly."""
    from IMDLBenCo.datasets import ManiDataset

    _, mask = write_pair(tmp_path / "set", "a")
    Image.fromarray(rectangle((40, 60), 1)).save(mask)
    repair([tmp_path / "set"], tmp_path / "copy", progress=False)
    sums = [
        int(
            ManiDataset(str(tmp_path / name), is_resizing=True, output_size=(64, 64))[0][
                "mask"
            ].sum()
        )
        for name in ("set", "copy")
    ]
    assert sums[0] == 0 < sums[1]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_mask_is_rotated_to_the_pixels_that_benco_reads(tmp_path, suffix, orientation):
    """BenCo reads stored pixels and applies the orientation of TIFF files only."""
    from IMDLBenCo.datasets.utils import pil_loader

    image, mask = write_pair(tmp_path / "set", "a", image_suffix=suffix)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rectangle((40, 60))).convert("RGB").save(image, exif=exif)
    with Image.open(image) as opened:
        displayed = ImageOps.exif_transpose(opened).convert("L")
    stored = Image.fromarray(rectangle((40, 60)))
    for drawn in (displayed, stored):
        drawn.save(mask)
        report = check([tmp_path / "set"], progress=False)
        is_wrong = np.asarray(pil_loader(image)).shape[1::-1] != drawn.size
        found = report.errors if is_wrong else report.warnings
        assert ("a" + suffix, "exif-orientation") in named(found)
        assert named(report.errors) == [("a" + suffix, "exif-orientation")] * is_wrong
        assert ("BenCo ignores" in found[0].remedy) == (suffix == ".png" and not is_wrong)
        repair([tmp_path / "set"], tmp_path / "copy", progress=False)
        read, mask_read = (
            np.asarray(pil_loader(tmp_path / "copy" / name))
            for name in (f"Tp/a{suffix}", "Gt/a.png")
        )
        assert (read == mask_read).all()


def test_wrong_pairing_by_sort_order_is_reported_and_fixed(tmp_path):
    """a_gt.png is sorted after a_b_gt.png, but a.jpg before a_b.jpg."""
    for seed, stem in enumerate(("a", "a_b", "c")):
        write_pair(tmp_path / "set", stem, seed, mask_name=f"{stem}_gt")
    report = check([tmp_path / "set"], progress=False)
    assert named(report.errors) == [("a.jpg", "unpaired"), ("a_b.jpg", "unpaired")]
    repair([tmp_path / "set"], tmp_path / "copy", progress=False)
    assert check([tmp_path / "copy"], progress=False).errors == []


def test_lists_with_missing_files_and_relative_paths(tmp_path, monkeypatch):
    for seed in range(3):
        write_pair(tmp_path / "data", str(seed), seed)
    rows = [[f"data/Tp/{i}.jpg", f"data/Gt/{i}.png"] for i in range(4)]
    rows.append(["data/Tp/1.jpg", "Negative"])
    (tmp_path / "list.json").write_text(json.dumps(rows))
    monkeypatch.chdir(tmp_path)
    report = check(["list.json"], progress=False)
    # The same image is listed as tampered and as authentic.
    missing = [("3.jpg", "missing-file"), ("3.png", "missing-file")]
    assert named(report.errors) == [*missing, ("1.jpg", "duplicate")]
    assert named(report.warnings) == [("list.json", "relative-path")]
    (counts,) = report.sets
    assert (counts["tampered"], counts["authentic"]) == (3, 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    report = check(["../list.json"], progress=False)
    assert {finding.problem for finding in report.errors} == {"missing-file"}
    assert f"exists only relative to {tmp_path}:" in report.errors[0].remedy


def test_duplicates_between_training_and_test_sets_are_errors(tmp_path):
    for seed, name in enumerate(("one", "two", "three")):
        write_pair(tmp_path / name, "a", seed)
        write_pair(tmp_path / name, "b", 10 + seed)
    protocol, tests = tmp_path / "protocol.json", tmp_path / "tests.json"
    (tmp_path / "two.json").write_text(
        json.dumps([[str(tmp_path / "two/Tp/a.jpg"), str(tmp_path / "two/Gt/a.png")]])
    )
    entries = [["ManiDataset", str(tmp_path / "one")], ["JsonDataset", str(tmp_path / "two.json")]]
    protocol.write_text(json.dumps(entries))
    tests.write_text(json.dumps({"Third": str(tmp_path / "three")}))
    report = check([protocol, tests], progress=False)
    assert [row["name"] for row in report.sets] == ["one", "two", "Third"]
    assert report.errors == report.warnings == []
    leaked = (tmp_path / "one/Tp/a.jpg").read_bytes()
    (tmp_path / "three/Tp/b.jpg").write_bytes(leaked)
    report = check([protocol, tests], progress=False)
    assert named(report.errors) == [("b.jpg", "duplicate")]
    assert "(one)" in report.errors[0].remedy
    (tmp_path / "two/Tp/a.jpg").write_bytes(leaked)
    assert ("a.jpg", "duplicate") in named(check([protocol], progress=False).warnings)


@pytest.mark.parametrize("harmless", ["repeated row", "list used twice"])
def test_leak_is_an_error_even_if_the_image_is_also_a_harmless_duplicate(tmp_path, harmless):
    rows = [[str(path) for path in write_pair(tmp_path, str(seed), seed)] for seed in range(3)]
    train, test = tmp_path / "train.json", tmp_path / "test.json"
    train.write_text(json.dumps([rows[0], rows[0], rows[1]]))
    test.write_text(json.dumps([rows[0], rows[2]]))
    if harmless == "list used twice":
        train.write_text(json.dumps(rows[:2]))
        kinds = ("JsonDataset", "NativeDataset")
        protocol = tmp_path / "protocol.json"
        protocol.write_text(json.dumps([[kind, str(train)] for kind in kinds]))
        train = protocol
    for paths in ([train, test], [test, train]):
        report = check(paths, progress=False)
        assert named(report.errors) == [("0.jpg", "duplicate")]
        assert "is also listed in " in report.errors[0].remedy
        assert ("0.jpg", "duplicate") not in named(report.warnings)
        warnings = check(paths, allow=["duplicate"], progress=False).warnings
        assert named(warnings).count(("0.jpg", "duplicate")) == 1


def noise(seed, size=(240, 320)):
    """Return an image with details of all scales that differs for every seed."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.random((n, n, 3), np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
        for n in (3, 6, 12, 24)
    ]
    return Image.fromarray((np.mean(layers, axis=0).clip(0, 1) * 255).astype(np.uint8))


COPIES = {
    "saved as PNG": ("c.png", lambda photo: photo),
    "saved as JPEG": ("c.jpg", lambda photo: photo),
    "half the size": ("c.png", lambda photo: photo.resize((160, 120))),
    "cropped": ("c.png", lambda photo: photo.crop((16, 3, 314, 240))),
    "different photo": ("c.png", lambda photo: noise(99)),
}


@pytest.mark.parametrize("kind", COPIES)
def test_same_photo_in_two_sets_is_a_leak(tmp_path, kind):
    name, copied = COPIES[kind]
    for folder, seeds in (("train", range(3)), ("test", (7, 8))):
        for seed in seeds:
            image, mask = write_pair(tmp_path / folder, str(seed))
            noise(seed).save(image, quality=95)
            Image.fromarray(rectangle((240, 320))).save(mask)
    image, mask = write_pair(tmp_path / "test", "c", image_suffix=Path(name).suffix)
    copied(noise(1)).save(image, quality=60)
    Image.fromarray(rectangle(copied(noise(1)).size[::-1])).save(mask)
    paths = [tmp_path / "train", tmp_path / "test"]
    report = check(paths, progress=False)
    if kind == "different photo":
        assert report.errors == []
        return
    assert named(report.errors) == [(name, "near-duplicate")]
    assert f"the same photo as {tmp_path / 'train/Tp/1.jpg'} (train)" in report.errors[0].remedy
    assert named(check(paths, allow=["near-duplicate"], progress=False).errors) == []
    assert check(paths, fast=True, progress=False).errors == []
    repair(paths, tmp_path / "copy", progress=False)
    assert (tmp_path / "copy/test/Tp" / name).is_file()


def test_same_photo_in_two_training_sets_is_not_a_leak(tmp_path):
    entries = []
    for folder in ("one", "two"):
        image, mask = write_pair(tmp_path / folder, "a", image_suffix=".png")
        noise(1).resize((320 + len(entries), 240)).save(image)
        Image.fromarray(rectangle((240, 320 + len(entries)))).save(mask)
        entries.append(["ManiDataset", str(tmp_path / folder)])
    (tmp_path / "protocol.json").write_text(json.dumps(entries))
    assert check([tmp_path / "protocol.json"], progress=False).errors == []
    report = check([tmp_path / "one", tmp_path / "two"], progress=False)
    assert named(report.errors) == [("a.png", "near-duplicate")]


def test_candidates_that_look_different_are_not_leaks(tmp_path, monkeypatch):
    """If every pair is a candidate, the thumbnails alone distinguish photos."""
    monkeypatch.setattr(
        "qma_net.data.near_duplicates.candidates",
        lambda first, second: np.argwhere(np.ones((len(first), len(second)))),
    )
    thumbnails = [thumbnail_of(noise(seed)) for seed in range(6)]
    assert list(find_copies(thumbnails, [0, 0, 0, 1, 1, 1])) == []
    thumbnails.append(thumbnail_of(noise(2).crop((0, 12, 308, 240))))
    ((copy, first, correlation),) = find_copies(thumbnails, [0, 0, 0, 1, 1, 1, 1])
    assert (copy, first) == (6, 2)
    assert correlation > 0.9
    assert thumbnail_of(Image.new("RGB", (99, 99), (40, 90, 200))) == b""


def test_candidates_are_all_pairs_of_similar_hashes():
    """Candidates are those of an exhaustive comparison, except for three bits in each quarter.

    Random hashes are never similar, so similar ones are planted.
    """
    rng = np.random.default_rng(0)
    first = rng.integers(1 << 63, size=(300, 6)).astype(np.uint64)
    second = rng.integers(1 << 63, size=(200, 6)).astype(np.uint64)
    for row in range(100):
        bits = rng.choice(64, size=rng.integers(0, 15), replace=False)
        flipped = np.bitwise_xor.reduce(np.uint64(1) << bits.astype(np.uint64), initial=0)
        if row % 2:
            second[row, 0] = first[row * 2, row % 6] ^ np.uint64(flipped)
        else:
            second[row, row % 6] = first[row * 2, 0] ^ np.uint64(flipped)
    expected = set()
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            differences = [int(x) ^ int(b[0]) for x in a] + [int(a[0]) ^ int(x) for x in b]
            for difference in differences:
                quarters = [(difference >> 16 * band & 0xFFFF).bit_count() for band in range(4)]
                if sum(quarters) <= DISTANCE and min(quarters) <= 2:
                    expected.add((i, j))
    assert len(expected) > 60
    assert set(map(tuple, candidates(first, second).tolist())) == expected
    swapped = candidates(second, first)[:, ::-1].tolist()
    assert set(map(tuple, swapped)) == expected


@pytest.mark.parametrize("name", ["../../ESCAPED", "/ESCAPED", "..", "a\0b", "a\nb", "x" * 300])
def test_name_of_a_set_cannot_lead_out_of_the_copy(tmp_path, name):
    for seed, folder in enumerate(("one", "two")):
        write_pair(tmp_path / folder, "a", seed=seed)
    tests = {name: str(tmp_path / "one"), "good": str(tmp_path / "two")}
    (tmp_path / "tests.json").write_text(json.dumps(tests))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(PathError, match=r"it .*; rename it to a plain file name"):
        repair([tmp_path / "tests.json"], tmp_path / "deep/er/copy", progress=False)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is PostScript (EPS)"),
        (b"%PDF-1.7\n" + b"\0" * 99, "is a PDF"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        (b"not found\n", "is a text"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "is damaged: it starts like a PNG"),
        (b"", "is empty (0 bytes)"),
    ],
)
@pytest.mark.parametrize("fast", [False, True])
def test_unreadable_file_is_described_by_its_content(tmp_path, content, message, fast):
    image, _ = write_pair(tmp_path, "a")
    image.write_bytes(content)
    report = check([tmp_path], fast=fast, progress=False)
    assert named(report.errors) == [("a.jpg", "unreadable")]
    assert report.errors[0].remedy.startswith(message)


@pytest.mark.parametrize(
    "kind", [TypeError, AssertionError, IndexError, OverflowError, struct.error]
)
def test_any_exception_of_a_decoder_is_a_fault_of_the_file(tmp_path, monkeypatch, kind):
    def broken(*_, **__):
        raise kind("odd")

    image, mask = write_pair(tmp_path, "a")
    monkeypatch.setattr("PIL.Image.Image.getexif", broken)
    without_exif = inspect_file(image)
    monkeypatch.undo()
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", broken)
    assert "cannot be decoded (odd)" in inspect_file(image).fault
    assert "cannot be decoded (odd)" in inspect_file(mask, is_mask=True).fault
    monkeypatch.setattr("PIL.Image.open", broken)
    assert "cannot be decoded (odd)" in inspect_file(image, fast=True).fault
    assert without_exif.fault == ""


def test_lack_of_memory_is_not_a_fault_of_the_file(tmp_path, monkeypatch):
    def exhausted(*_, **__):
        raise MemoryError

    image, _ = write_pair(tmp_path, "a")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", exhausted)
    with pytest.raises(MemoryError):
        inspect_file(image)


def types(copy_move=0, splice=0, removal=0, ai_generated=0):
    return {
        "copy-move": copy_move,
        "splice": splice,
        "removal": removal,
        "ai-generated": ai_generated,
    }


def rows_of(paths):
    """Return the rows of ``--json`` without paths and resolutions."""
    rows = json.loads(json.dumps(check(paths, progress=False).as_dict()))["sets"]
    omitted = {"path", "smallest", "largest"}
    return [{key: value for key, value in row.items() if key not in omitted} for row in rows]


def test_types_follow_from_names(tmp_path):
    for seed, stem in enumerate(("Tp_D_NRN_S_N_a_1", "Tp_S_NRN_D_N_a_2", "Tp_D_CNN_M_N_a_3")):
        write_pair(tmp_path / "CASIAv2", stem, seed)
    write_pair(tmp_path / "casiav1", "Sp_S_NNN_A_a_1", 5)
    write_pair(tmp_path / "casiav1", "CM_Sp_D_NNN_A_a_1", 6)  # Named like prepare names duplicates.
    for seed, name in enumerate(("Columbia", "Coverage", "CocoGlide", "AutoSplice", "IMD2020")):
        write_pair(tmp_path / name, "a", 10 + seed)
    rows = {row["name"]: row for row in rows_of(sorted(tmp_path.iterdir()))}
    assert rows["CASIAv2"] == {
        "name": "CASIAv2",
        "dataset": "CASIAv2",
        "tampered": 3,
        "authentic": 0,
        "types": types(copy_move=1, splice=2),
    }
    assert rows["casiav1"]["dataset"] == "CASIAv1"
    assert rows["casiav1"]["types"] == types(copy_move=1, splice=1)
    assert rows["Columbia"]["types"] == types(splice=1)
    assert rows["Coverage"]["types"] == types(copy_move=1)
    assert rows["CocoGlide"]["types"] == rows["AutoSplice"]["types"] == types(ai_generated=1)
    assert "types" not in rows["IMD2020"]
    write_pair(tmp_path / "CASIAv2", "renamed", 7)
    assert "types" not in rows_of([tmp_path / "CASIAv2"])[0]


def test_types_of_subsets_follow_from_their_lists(tmp_path):
    write_protocols_datasets(tmp_path)
    lists = sorted((tmp_path / "TampCOCO").glob("*.json"))
    others = {"authentic": 0, "dataset": "TampCOCO", "tampered": 2}
    assert rows_of(lists) == [
        {"name": f"{part}_COCO_list", "part": part, "types": count} | others
        for part, count in (
            ("bcm", types(copy_move=2)),
            ("bcmc", types(copy_move=2)),
            ("cm", types(copy_move=2)),
            ("sp", types(splice=2)),
        )
    ]
    assert "800000" not in check(lists, progress=False).text()
    (row,) = rows_of([tmp_path / "FantasticReality/FantasticReality.json"])
    assert row == {"name": "FantasticReality", "dataset": "FantasticReality"} | {
        "tampered": 2,
        "authentic": 0,
    }


def test_types_count_tampered_images_only(tmp_path):
    image, mask = write_pair(tmp_path, "a")
    write_pair(tmp_path, "b", 1)
    rows = [[str(image), str(mask)], [str(image.with_name("b.jpg")), "Negative"]]
    (tmp_path / "Coverage.json").write_text(json.dumps(rows))
    (row,) = rows_of([tmp_path / "Coverage.json"])
    assert row["types"] == types(copy_move=1)
    assert row["authentic"] == 1


def test_unknown_dataset_has_no_types(tmp_path):
    write_pair(tmp_path / "mine", "Tp_D_a")
    assert rows_of([tmp_path / "mine"]) == [{"name": "mine", "tampered": 1, "authentic": 0}]


def test_unknown_problem_to_allow_is_an_error(tmp_path):
    write_pair(tmp_path, "a")
    with pytest.raises(FindingsError, match="--allow blurry is not a known problem; choose from"):
        check([tmp_path], allow=["blurry", "duplicate"], progress=False)


def test_images_larger_than_the_padding_are_errors(tmp_path):
    write_pair(tmp_path, "a")
    assert check([tmp_path], crop_size=60, progress=False).errors == []
    report = check([tmp_path], crop_size=59, progress=False)
    assert named(report.errors) == [("a.jpg", "larger-than-training")]


def test_decompression_bomb_is_not_decoded(tmp_path):
    image, _ = write_pair(tmp_path, "a", image_suffix=".png")
    image.write_bytes(bomb())
    report = check([tmp_path], progress=False)
    assert named(report.errors) == [("a.png", "unreadable")]
    assert "claims more pixels" in report.errors[0].remedy


@pytest.mark.parametrize("content", ["{", "[[1, 2]]", '[["a"]]', '{"a": 1}', "3"])
def test_paths_that_are_not_datasets_give_one_line_error(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ListingError, match=r"cannot (read|use) '.*x\.json'"):
        read_listings(tmp_path / "x.json")
    with pytest.raises(ListingError, match="has no Tp/ folder"):
        read_listings(tmp_path)
    with pytest.raises(ListingError, match="does not exist"):
        read_listings(tmp_path / "absent")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ("images masks", "it contains images/ and masks/, which BenCo calls Tp/ and Gt/: rename"),
        ("Image Mask", "Image/ and Mask/, which"),
        ("tampered gt", "tampered/ and gt/, which"),
        ("test/images test/masks", "test/images/ and test/masks/, which"),
        ("Tp mask", "Tp/ and mask/, which"),
        ("images", "images/, but BenCo calls the folder of images Tp/"),
        ("train/Tp train/Gt", "they are in train/: use .*/train$"),
        ("a b", "use `qma-net data prepare`"),
    ],
)
def test_other_folder_layouts_are_recognized(tmp_path, folders, message):
    for folder in folders.split():
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ListingError, match=f"has no (Tp|Gt)/ folder; .*{message}"):
        read_listings(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('["a.jpg", "b.jpg"]', "the first row is only the name 'a.jpg': add its mask"),
        ('[{"image": "a", "mask": "b"}]', "an object with image, mask: write"),
        ('[["a", "b", "c"]]', "a row has 3 entries"),
        ('{"set": [["a", "b"]]}', "'set' is a list: write each dataset's list to its own file"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_other_list_formats_are_recognized(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ListingError, match=message):
        read_listings(tmp_path / "x.json")


def test_file_that_names_itself_is_an_error(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"a": str(tmp_path / "y.json")}))
    (tmp_path / "y.json").write_text(json.dumps([["JsonDataset", str(tmp_path / "x.json")]]))
    with pytest.raises(ListingError, match=r"x\.json' lists itself"):
        read_listings(tmp_path / "x.json")


def test_listed_names_without_folder_are_located(tmp_path):
    image, mask = write_pair(tmp_path, "a")
    (tmp_path / "x.json").write_text(json.dumps([["a.jpg", "a.png"]]))
    report = check([tmp_path / "x.json"], progress=False)
    assert [finding.problem for finding in report.errors] == ["missing-file"] * 2
    assert f"but {image} does: correct its path in" in report.errors[0].remedy
    assert f"but {mask} does: correct its path in" in report.errors[1].remedy


def test_real_images_have_no_errors(shared):
    folders = sorted(shared("real").iterdir())
    report = check(folders, progress=False)
    assert report.errors == []
    counts = [len(list((folder / "Tp").iterdir())) for folder in folders]
    assert [row["tampered"] for row in report.sets] == counts
    assert sum(counts) >= 36


def test_check_command(faulty, tmp_path, capsys):
    from qma_net.cli import main

    folder, expected = faulty
    with pytest.raises(SystemExit) as exit_info:
        main(["data", "check", str(folder), "--json"])
    assert exit_info.value.code == 1
    printed = json.loads(capsys.readouterr().out)
    assert {(Path(row["file"]).name, row["problem"]) for row in printed["errors"]} == {
        row for row in expected if row[0] not in WARNINGS
    }
    assert set(printed["errors"][0]) == {"file", "problem", "remedy"}
    main(["data", "check", str(folder), "--allow", ",".join(ERRORS)])
    assert "0 errors" in capsys.readouterr().out
    write_pair(tmp_path / "good", "a")
    main(["data", "check", str(tmp_path / "good"), "--fast"])
    printed = capsys.readouterr().out
    assert "0 errors, 0 warnings" in printed
    assert NOT_SEEN_FAST in printed
    for word in ("pixels", "mask values", "duplicates"):
        assert word in NOT_SEEN_FAST
    main(["data", "check", str(tmp_path / "good"), "--fast", "--json"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["errors"] == []
    assert NOT_SEEN_FAST in printed.err
    with pytest.raises(SystemExit, match=r"qma-net: cannot read .* as JSON"):
        main(["data", "check", os.devnull])
