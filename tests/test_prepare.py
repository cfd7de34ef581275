"""``data prepare`` on miniatures of every published dataset, with their known faults."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from forks import HANG_TIMEOUT
from qma_net import cli
from qma_net.core.files import PathError, config_path
from qma_net.core.runs import BusyError, FolderLock, Journal, RunError
from qma_net.data.check import check
from qma_net.data.convert import reduce_mask
from qma_net.data.plan import PrepareError
from qma_net.data.prepare import prepare
from qma_net.data.protocol import PROTOCOLS
from qma_net.data.published import ALL_DATASETS, DATASETS, TYPES
from qma_net.report.paper_tables import paper_test_set
from sample_archives import (
    ARCHIVES,
    H,
    W,
    autosplice,
    casiav1,
    casiav2,
    cocoglide,
    coverage,
    fantastic,
    imd2020,
    nist16,
    region,
    save_image,
    save_photograph,
    tampcoco,
    white,
)


def run(name, source, out, **options):
    return prepare(name, source, out, **{"workers": 1, "progress": False, **options})


def pairs_of_benco(name: str, out: Path) -> dict[str, Path]:
    """Return the mask of each image, as BenCo pairs them."""
    from IMDLBenCo.datasets import JsonDataset, ManiDataset

    options = {"is_resizing": True, "output_size": (32, 32)}
    if name == "TampCOCO":
        parts = DATASETS[name].parts
        sets = [JsonDataset(str(out / f"{part}_COCO_list.json"), **options) for part in parts]
    else:
        sets = [ManiDataset(str(out), **options)]
    pairs = {}
    for dataset in sets:
        for item in dataset:
            assert item["label"] == 1
            assert set(item["mask"].unique().tolist()) == {0.0, 1.0}
        for image, mask in zip(dataset.tp_path, dataset.gt_path, strict=True):
            pairs[Path(image).relative_to(out).as_posix()] = Path(mask)
    return pairs


def tree(folder: Path) -> dict[str, int]:
    """Return the modification time of every file, to detect whether anything was written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def read_mask(path: Path) -> np.ndarray:
    with Image.open(path) as mask:
        assert mask.mode == "L"
        pixels = np.asarray(mask)
    assert set(np.unique(pixels)) <= {0, 255}
    return pixels == 255


def test_every_published_dataset_has_a_miniature():
    assert list(ARCHIVES) == list(ALL_DATASETS)
    for dataset in ALL_DATASETS.values():
        assert dataset.unverified
        assert dataset.layout
        assert "a synthetic sample with this layout" in dataset.verified_on


def test_tables_of_the_paper_contain_its_ten_datasets_only():
    further = ["DSO1", "RealisticTampering", "CoMoFoD", "GRIP", "OpenForensics", "InTheWild"]
    assert [name for name in ALL_DATASETS if name not in DATASETS] == further
    assert len(DATASETS) == 10
    assert [paper_test_set(name) for name in further] == [None] * 6
    for protocol in PROTOCOLS.values():
        for file in (protocol.train, protocol.while_training, protocol.test):
            text = config_path(file).read_text(encoding="utf-8")
            assert not any(name in text for name in further)


def test_documentation_agrees_with_the_dataset_entries():
    text = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
    for dataset in ALL_DATASETS.values():
        assert f"| {dataset.name} | {dataset.rule} |" in text
        assert f"- **{dataset.name}**: {'; '.join(dataset.unverified)}." in text


@pytest.mark.parametrize("name", ARCHIVES)
def test_miniature_is_converted_with_exact_masks(name, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    truth, left_out = ARCHIVES[name](source)
    before = tree(source)
    prepared = run(name, source, out)
    report = prepared.report
    masks = pairs_of_benco(name, out)
    assert masks.keys() == truth.keys()
    for image, mask in truth.items():
        np.testing.assert_array_equal(read_mask(masks[image]), mask, err_msg=image)
        if not image.startswith("bcmc"):
            assert masks[image].stem == Path(image).stem
    contents = {path.name: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    # Three versions, or the original and the tampered image, have the same name.
    if name not in ("AutoSplice", "RealisticTampering"):
        for image in truth:
            assert (out / image).read_bytes() == contents[Path(image).name]
    reasons = {Path(row["file"]).name: row["why"] for row in report["left_out"]}
    for file, why in left_out.items():
        (reason,) = [reasons[known] for known in reasons if known.endswith(file)]
        assert why in reason
    assert len(reasons) == len(left_out)
    dataset = ALL_DATASETS[name]
    count = report["paper" if name in DATASETS else "published"]
    assert (report["tampered"], count) == (len(truth), dataset.tampered)
    assert prepared.checked.errors == []
    text = prepared.text()
    assert f"{len(truth)} of {dataset.published_count} tampered images" in text
    assert all(f"not verified: {line}" in text for line in dataset.unverified)
    assert json.loads((out / "prepare.json").read_text()) == report
    times = tree(out)
    again = run(name, source, out)
    assert tree(out) == times
    assert again.processed == 0
    assert "nothing to do" in again.text()
    assert tree(source) == before


# Numbers of images in the order of TYPES; None if the types are unknown.
TYPES_OF = {
    "CASIAv2": (2, 2, 0, 0),
    "IMD2020": None,
    "FantasticReality": None,
    "TampCOCO": (3, 2, 0, 0),
    "CASIAv1": (2, 5, 0, 0),
    "Columbia": (0, 2, 0, 0),
    "Coverage": (3, 0, 0, 0),
    "NIST16": (0, 2, 2, 0),
    "CocoGlide": (0, 0, 0, 2),
    "AutoSplice": (0, 0, 0, 4),
    "DSO1": (0, 2, 0, 0),
    "RealisticTampering": None,
    "CoMoFoD": (2, 0, 0, 0),
    "GRIP": (2, 0, 0, 0),
    "OpenForensics": (0, 0, 0, 2),
    "InTheWild": (0, 2, 0, 0),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_manipulation_types_are_in_the_reports_of_prepare_and_check(name, tmp_path):
    out = tmp_path / name
    ARCHIVES[name](tmp_path / "source")
    report = run(name, tmp_path / "source", out, authentic=True).report
    paths = sorted(out.glob("*_COCO_list.json")) or [out]
    rows = check(paths, progress=False).sets
    assert all(row.get("dataset") == (name if name in DATASETS else None) for row in rows)
    counted = [row.get("types") for row in rows]
    if TYPES_OF[name] is None:
        assert "types" not in report
        assert counted == [None]
        return
    expected = dict(zip(TYPES, TYPES_OF[name], strict=True))
    assert report["types"] == expected
    assert {kind: sum(row[kind] for row in counted) for kind in TYPES} == expected


def set_types(source: Path, *flags: str) -> None:
    """Set the types in the rows of NIST16's table: removal, splice and copy-move."""
    table = source / "NC2016_Test0613/reference/manipulation/NC2016-manipulation-ref.csv"
    header, *rows = [line.split("|") for line in table.read_text().splitlines()]
    rows = [row[:4] + list(types) + row[7:] for row, types in zip(rows, flags, strict=False)]
    table.write_text("\n".join("|".join(row) for row in [header, *rows]))


def test_types_of_a_table_are_recorded_in_the_journal(tmp_path):
    source, out = tmp_path / "source", tmp_path / "NIST16"
    nist16(source)
    set_types(source, "NNY", "NNY", "YNN", "NYN")
    report = run("NIST16", source, out).report
    assert report["types"] == {"copy-move": 2, "splice": 1, "removal": 1, "ai-generated": 0}
    (out / "Tp/NC2016_5310.jpg").unlink()
    (out / "Gt/NC2016_5310.png").unlink()
    images = [str(path) for path in sorted((out / "Tp").iterdir())]
    rows = [[image, image.replace("/Tp/", "/Gt/")[:-3] + "png"] for image in images]
    (tmp_path / "list.json").write_text(json.dumps({"NIST16": str(tmp_path / "rows.json")}))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    for path in (out, tmp_path / "list.json"):
        (row,) = check([path], progress=False).sets
        assert row["types"] == {"copy-move": 1, "splice": 1, "removal": 1, "ai-generated": 0}
    (out / "prepare.jsonl").unlink()
    assert "types" not in check([out], progress=False).sets[0]


@pytest.mark.parametrize("flags", [("NYN", "NNN"), ("NYN", "NYY"), ("NYN", "???")])
def test_rows_without_exactly_one_type_are_noted(tmp_path, flags):
    nist16(tmp_path / "source")
    set_types(tmp_path / "source", *flags)
    report = run("NIST16", tmp_path / "source", tmp_path / "NIST16").report
    assert "types" not in report
    assert any("1 tampered images do not have exactly one" in note for note in report["notes"])
    assert "types" not in check([tmp_path / "NIST16"], progress=False).sets[0]


def test_table_without_types_is_accepted(tmp_path):
    source = tmp_path / "source"
    nist16(source)
    table = source / "NC2016_Test0613/reference/manipulation/NC2016-manipulation-ref.csv"
    table.write_text(table.read_text().replace("IsManipulationType", "Is"))
    report = run("NIST16", source, tmp_path / "out").report
    assert report["tampered"] == 4
    assert "types" not in report


def write_as_earlier_version(journal: Path, without: tuple[str, ...] = ()) -> None:
    """Rewrite a journal without checksums and with the bare identity in its first row."""
    first, *records = Journal(journal).read()
    records = [{key: row[key] for key in row if key not in without} for row in records]
    rows = [first["identity"], *records]
    journal.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_run_of_an_earlier_version_is_resumed(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    autosplice(source)
    whole = run("AutoSplice", source, out).report
    write_as_earlier_version(out / "prepare.jsonl")
    assert run("AutoSplice", source, out).processed == 0
    (out / "prepare.json").unlink()
    (out / "Gt/9_0.png").unlink()
    resumed = run("AutoSplice", source, out)
    assert resumed.processed == 1
    assert resumed.report == whole
    assert run("AutoSplice", source, out).processed == 0


@pytest.mark.parametrize("version", ["current", "earlier"])
def test_torn_identity_gives_one_line_error(tmp_path, version):
    coverage(tmp_path / "source")
    out = tmp_path / "out"
    run("Coverage", tmp_path / "source", out)
    journal = out / "prepare.jsonl"
    if version == "earlier":
        write_as_earlier_version(journal)
    identity, _, rest = journal.read_bytes().partition(b"\n")
    before = tree(out)
    for content in (identity[:20], identity[:20] + b"\n" + rest, rest):
        journal.write_bytes(content)
        with pytest.raises(RunError, match=r"first line of prepare\.jsonl is damaged") as error:
            run("Coverage", tmp_path / "source", out)
        assert "\n" not in str(error.value)
    assert tree(out).keys() == before.keys()


def test_types_are_added_to_a_folder_of_an_earlier_version(tmp_path):
    source, out = tmp_path / "source", tmp_path / "NIST16"
    nist16(source)
    whole = run("NIST16", source, out).report
    journal = out / "prepare.jsonl"
    write_as_earlier_version(journal, without=("type",))
    report = {key: whole[key] for key in whole if key != "types"}
    (out / "prepare.json").write_text(json.dumps(report))
    again = run("NIST16", source, out)
    assert again.processed == 0
    assert again.report == whole
    assert check([out], progress=False).sets[0]["types"] == whole["types"]


def test_masks_with_different_names_are_paired_and_listed(tmp_path):
    casiav2(tmp_path / "source")
    report = run("CASIAv2", tmp_path / "source", tmp_path / "out").report
    (row,) = report["renamed"]
    assert row["file"].endswith("Tp_S_CNN_M_N_ind00091_ind00091_10647.jpg")
    assert "Tp_D_CNN_M_N_ind0091_10647_gt.png" in row["why"]


def test_repair_rotates_or_resizes_masks_and_reports_it(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    casiav2(source)
    assert len(run("CASIAv2", source, out).report["left_out"]) == 2
    prepared = run("CASIAv2", source, out, repair=True)
    assert prepared.processed == 2
    assert prepared.report["left_out"] == []
    why = {row["file"][-9:]: row["why"] for row in prepared.report["repaired"]}
    assert "counter-clockwise" in why["11227.jpg"]
    assert "mask 63x48, image 64x48" in why["00751.tif"]
    rotated = read_mask(out / "Gt/Tp_D_CNN_M_N_sec00011_cha00085_11227.png")
    np.testing.assert_array_equal(rotated, np.rot90(region(7, W, H)))
    assert read_mask(out / "Gt/Tp_S_NNN_S_N_sec00074_sec00074_00751.png").shape == (H, W)
    without_repair = run("CASIAv2", source, out)
    assert without_repair.processed == 2
    assert not (out / "Gt/Tp_D_CNN_M_N_sec00011_cha00085_11227.png").exists()
    assert without_repair.checked.errors == []


def test_changed_and_deleted_source_files_are_followed(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    imd2020(source)
    run("IMD2020", source, out)
    save_image(source / "IMD2020/z14/00030_fake_mask.png", white(region(5)))
    assert run("IMD2020", source, out).processed == 1
    np.testing.assert_array_equal(read_mask(out / "Gt/00030_fake.png"), region(5))
    (source / "IMD2020/z3/00003_fake.jpg").unlink()
    report = run("IMD2020", source, out).report
    assert report["tampered"] == len(list((out / "Tp").iterdir())) == 2
    assert "1 masks have no image" in report["notes"]
    (out / "Gt/00030_fake.png").unlink()
    assert run("IMD2020", source, out).processed == 1


def test_transposed_mask_is_rotated_by_the_exif_orientation(tmp_path):
    truth, _ = imd2020(tmp_path / "source")
    exif = Image.Exif()
    exif[0x0112] = 6
    save_photograph(tmp_path / "source/IMD2020/z3/00003_fake.jpg", 1, exif=exif)
    displayed = np.rot90(region(1), -1)
    save_image(tmp_path / "source/IMD2020/z3/00003_fake_mask.png", white(displayed))
    report = run("IMD2020", tmp_path / "source", tmp_path / "out").report
    np.testing.assert_array_equal(
        read_mask(tmp_path / "out/Gt/00003_fake.png"), truth["Tp/00003_fake.jpg"]
    )
    assert "EXIF" in report["repaired"][0]["why"]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_mask_of_the_stored_pixels_of_a_tiff_is_rotated_like_its_image(tmp_path, orientation):
    """Pillow, and hence BenCo, applies the orientation of TIFF files."""
    folder = tmp_path / "source/data-images/Canon_60D"
    mask = white(region(1))
    options = {"tiffinfo": {0x0112: orientation}}
    save_image(folder / "tampered-realistic/A.TIF", white(region(1), 3), **options)
    save_image(folder / "ground-truth/A.PNG", mask)
    out = tmp_path / "out"
    report = run("RealisticTampering", tmp_path / "source", out).report
    assert report["left_out"] == []
    assert "EXIF" in report["repaired"][0]["why"]
    read = np.asarray(Image.open(out / "Tp/A.TIF").convert("L")) > 0
    np.testing.assert_array_equal(read_mask(out / "Gt/A.png"), read)


def test_tampcoco_lists_are_described_and_followed(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    tampcoco(source)
    (source / "tampCOCO/bcmc_COCO_list.txt").unlink()
    notes = run("TampCOCO", source, out).report["notes"]
    assert "sp: 3 lines, 2 unique, 0 with missing files" in notes
    assert "cm: 3 lines, 3 unique, 1 with missing files" in notes
    assert any(note.startswith("bcmc: bcmc_COCO_list.txt is missing, so all") for note in notes)
    ((_, mask),) = json.loads((out / "bcm_COCO_list.json").read_text())
    ((_, shared_mask),) = json.loads((out / "bcmc_COCO_list.json").read_text())
    assert mask == shared_mask
    assert Path(mask).is_absolute()
    (source / "tampCOCO/bcm_COCO_list.txt").write_text("")
    with open(source / "tampCOCO/cm_COCO_list.txt", "a", encoding="utf-8") as file:
        file.write("cm_images/gone.jpg,cm_masks/gone.png\n")
    shrunk = run("TampCOCO", source, out)
    assert shrunk.processed == 0
    assert "cm: 4 lines, 4 unique, 2 with missing files" in shrunk.report["notes"]
    assert list((out / "bcm/Tp").iterdir()) == []
    assert Path(shared_mask).is_file()


def test_some_subsets_of_tampcoco_suffice(tmp_path):
    tampcoco(tmp_path / "source")
    for part in ("cm", "bcm", "bcmc"):
        (tmp_path / f"source/tampCOCO/{part}_COCO_list.txt").unlink()
        for file in (tmp_path / f"source/tampCOCO/{part}_images").iterdir():
            file.unlink()
    report = run("TampCOCO", tmp_path / "source", tmp_path / "out").report
    assert report["tampered"] == 2
    assert sum("are missing" in note for note in report["notes"]) == 3
    assert not (tmp_path / "out/bcm_COCO_list.json").exists()


def test_list_of_fantastic_reality_is_written(tmp_path):
    fantastic(tmp_path / "source")
    out = tmp_path / "out"
    run("FantasticReality", tmp_path / "source", out, authentic=True)
    rows = json.loads((out / "FantasticReality.json").read_text())
    assert rows == [
        [str(out / f"Tp/{stem}.jpg"), str(out / f"Gt/{stem}.png")]
        for stem in ("IMG_0000000_IMG_0000009", "IMG_0000001_IMG_0000009")
    ]
    with_authentic = json.loads((out / "FantasticReality_with_authentic.json").read_text())
    assert with_authentic == [*rows, [str(out / "Au/IMG_0000001.jpg"), "Negative"]]


def test_authentic_images_are_removed_without_the_flag(tmp_path):
    nist16(tmp_path / "source")
    out = tmp_path / "out"
    report = run("NIST16", tmp_path / "source", out, authentic=True).report
    assert report["authentic"] == 1
    assert (out / "Au/NC2016_0001.jpg").is_file()
    run("NIST16", tmp_path / "source", out)
    assert not (out / "Au/NC2016_0001.jpg").exists()


def test_nist16_accepts_commas_and_reports_gray_masks(tmp_path):
    nist16(tmp_path / "source")
    table = tmp_path / ("source/NC2016_Test0613/reference/manipulation/NC2016-manipulation-ref.csv")
    table.write_text(table.read_text().replace("|", ","))
    report = run("NIST16", tmp_path / "source/NC2016_Test0613", tmp_path / "out").report
    assert report["tampered"] == 4
    assert any("delimiter ','" in note for note in report["notes"])
    assert any("4 masks have pixels between black and white" in note for note in report["notes"])


def test_jpeg_quality_selects_the_version_of_autosplice(tmp_path):
    autosplice(tmp_path / "source")
    run("AutoSplice", tmp_path / "source", tmp_path / "out", jpeg_quality=75)
    source = tmp_path / "source/AutoSplice/Forged_JPEG75/9_2.jpg"
    assert (tmp_path / "out/Tp/9_2.jpg").read_bytes() == source.read_bytes()
    with pytest.raises(RunError, match="jpeg_quality 75, now 100"):
        run("AutoSplice", tmp_path / "source", tmp_path / "out")


def test_max_side_reduces_images_and_masks(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    casiav2(source)
    save_photograph(source / "Tp_D_NRN_S_N_arc00013_sec00045_11700.jpg", 30, 20, 30)
    save_image(source / "Tp_D_NRN_S_N_arc00013_sec00045_11700_gt.png", white(region(3)[:20, :30]))
    run("CASIAv2", source, out, max_side=32)
    sizes = {path.name[-9:]: Image.open(path).size for path in (out / "Tp").iterdir()}
    assert sizes["11700.jpg"] == (30, 20)
    assert sizes["11818.jpg"] == sizes["02052.png"] == (32, 24)
    mask = read_mask(out / "Gt/Tp_D_CRN_S_N_cha00063_art00014_11818.png")
    np.testing.assert_array_equal(mask, region(0)[::2, ::2])
    assert run("CASIAv2", source, out, max_side=32).processed == 0
    with pytest.raises(RunError, match=r"made with different settings \(max_side 32, now 0\)"):
        run("CASIAv2", source, out)


def test_effect_of_max_side_on_results_is_stated(tmp_path, capsys):
    cli.main(["data", "prepare", "--list"])
    rules, name = {}, ""
    for line in capsys.readouterr().out.splitlines():
        name = line if line[0] != " " else name
        if line.startswith("  --max-side: "):
            rules[name.split(" (")[0]] = line.removeprefix("  --max-side: ")
    assert list(rules) == list(ALL_DATASETS)
    for name, dataset in ALL_DATASETS.items():
        start = "allowed" if dataset.role == "training" else "affects results on this test set"
        assert rules[name].startswith(start)
        assert ("1024" in rules[name]) == (name in ("NIST16", "IMD2020"))
    coverage(tmp_path / "source")
    prepared = run("Coverage", tmp_path / "source", tmp_path / "out", max_side=32)
    line = "--max-side 32 affects results on this test set if any image is downscaled"
    assert prepared.report["notes"].count(line) == 1
    assert line in prepared.text().splitlines()
    imd2020(tmp_path / "training")
    for name, source, options in (
        ("IMD2020", "training", {"max_side": 32}),
        ("Coverage", "source", {}),
    ):
        notes = run(name, tmp_path / source, tmp_path / name, **options).report["notes"]
        assert not any("--max-side" in note for note in notes)


def test_reduced_mask_is_never_empty():
    mask = np.zeros((64, 64), bool)
    mask[3, 3] = True
    assert reduce_mask(mask, (16, 16)).sum() == 1


def test_hard_links_do_not_change_the_source(tmp_path):
    truth, _ = cocoglide(tmp_path / "source")
    before = tree(tmp_path / "source")
    run("CocoGlide", tmp_path / "source", tmp_path / "out", link=True)
    for name in truth:
        source = tmp_path / "source/CocoGlide/fake" / Path(name).name
        assert (tmp_path / "out" / name).samefile(source)
    assert tree(tmp_path / "source") == before


def test_empty_masks_are_left_out_and_16_bit_masks_are_read(tmp_path):
    cocoglide(tmp_path / "source")
    masks = tmp_path / "source/CocoGlide/mask"
    save_image(masks / "airplane_87038_mask.png", np.zeros((H, W), np.uint8))
    save_image(
        masks / "dining table_100510_mask.png",
        np.where(region(0), 65535, 30080).astype("u2"),
    )
    report = run("CocoGlide", tmp_path / "source", tmp_path / "out").report
    assert "is empty" in report["left_out"][0]["why"]
    mask = read_mask(tmp_path / "out/Gt/glide_inpainting_val2017_100510_up.png")
    np.testing.assert_array_equal(mask, region(0))


SLOW_PREPARE = """
import sys, time
import qma_net.data.prepare as module

convert = module.convert
def slow(*args):
    time.sleep(0.05)
    return convert(*args)
module.convert = slow
module.prepare("AutoSplice", sys.argv[1], sys.argv[2], workers=1, progress=False)
"""


def test_killed_run_is_resumed(tmp_path):
    source, out = tmp_path / "source", tmp_path / "killed"
    top = source / "AutoSplice"
    for number in range(24):
        save_photograph(top / f"Forged_JPEG100/{number}_0.jpg", number)
        save_image(top / f"Mask/{number}_mask.png", white(region(number)))
    process = subprocess.Popen([sys.executable, "-c", SLOW_PREPARE, source, out])
    journal = out / "prepare.jsonl"
    while not (journal.is_file() and len(journal.read_text().splitlines()) > 4):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "prepare.json").exists()
    finished = len(journal.read_text().splitlines()) - 1
    with open(journal, "a", encoding="utf-8") as file:
        file.write('{"image": "AutoSplice/Forged_JPEG100/23_0.jpg", "tar')
    (out / "Tp/.qma-net-x1y2.tmp").write_bytes(b"half a file")
    oldest = min((out / "Tp").glob("*.jpg"), key=lambda path: path.stat().st_mtime_ns)
    before = oldest.stat().st_mtime_ns
    resumed = run("AutoSplice", source, out, workers=2)
    assert resumed.processed == 24 - finished > 0
    assert oldest.stat().st_mtime_ns == before
    uninterrupted = run("AutoSplice", source, tmp_path / "uninterrupted")
    assert resumed.report == uninterrupted.report
    for folder in ("Tp", "Gt"):
        files, expected = (
            {path.name: path.read_bytes() for path in (root / folder).iterdir()}
            for root in (out, tmp_path / "uninterrupted")
        )
        assert files == expected
    assert run("AutoSplice", source, out).processed == 0


def processes_of(session: int) -> list[int]:
    """Return the running processes of a command that was started in its own session."""
    processes = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, process_session = stat.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):  # The process has just ended.
            continue
        if int(process_session) == session and state != "Z":
            processes.append(int(stat.parent.name))
    return processes


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="reads /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    top = source / "AutoSplice"
    save_photograph(top / "Forged_JPEG100/0_0.jpg", 0, 480, 640)
    save_image(top / "Mask/0_mask.png", white(region(0, 480, 640)))
    for number in range(1, 300):
        os.link(top / "Forged_JPEG100/0_0.jpg", top / f"Forged_JPEG100/{number}_0.jpg")
        os.link(top / "Mask/0_mask.png", top / f"Mask/{number}_mask.png")
    argv = ["data", "prepare", "AutoSplice", "--source", source, "--out", out]
    process = subprocess.Popen(
        [sys.executable, "-m", "qma_net", *argv, "--workers", "2"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while (
        len(processes_of(process.pid)) < 5
    ):  # The command, two helpers of multiprocessing, two workers.
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + HANG_TIMEOUT
    while processes_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes_of(process.pid) == []


def test_second_run_in_the_same_folder_is_refused(tmp_path):
    cocoglide(tmp_path / "source")
    with (
        FolderLock(tmp_path / "out"),
        pytest.raises(BusyError, match="another run is writing"),
    ):
        run("CocoGlide", tmp_path / "source", tmp_path / "out")


def test_unusable_arguments_give_one_line_error(tmp_path):
    source = tmp_path / "source"
    cocoglide(source)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/CocoGlide.zip").write_bytes(b"PK")
    (tmp_path / "other/Tp").mkdir(parents=True)
    cases = [
        ("Casia", source, "out", "unknown dataset 'Casia'; choose one of CASIAv2"),
        ("CocoGlide", tmp_path / "absent", "out", "is not a folder"),
        ("CocoGlide", tmp_path / "packed", "out", "unpack CocoGlide.zip first"),
        ("Columbia", source, "out", "expected layout: 'Columbia Unc"),
        ("NIST16", source, "out", "0 tables"),
        ("CocoGlide", source, "source/CocoGlide/out", "inside --source"),
        ("CocoGlide", source, "source", "inside --source"),
        ("CocoGlide", source, "other", "contains Tp/ but no prepare.jsonl"),
    ]
    for name, folder, out, expected in cases:
        with pytest.raises(PrepareError) as error:
            run(name, folder, tmp_path / out)
        assert expected in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(PrepareError, match="pass a size in pixels"):
        run("CocoGlide", source, tmp_path / "out", max_side=-1)
    with pytest.raises(PrepareError, match="only AutoSplice"):
        run("CocoGlide", source, tmp_path / "out", jpeg_quality=75)
    os.rename(source / "CocoGlide", source / "copy")
    cocoglide(source)
    with pytest.raises(PrepareError, match="contains the dataset only once"):
        run("CocoGlide", source, tmp_path / "out")


def test_prepare_command(tmp_path, capsys):
    cli.main(["data", "prepare", "--list"])
    printed = capsys.readouterr().out
    assert all(f"{name} (" in printed for name in ALL_DATASETS)
    coverage(tmp_path / "source")
    argv = ["data", "prepare", "coverage", "--source", str(tmp_path / "source"), "--workers", "1"]
    argv += ["--out", str(tmp_path / "Coverage")]
    cli.main([*argv, "--partial"])
    printed = capsys.readouterr().out
    assert "Coverage: 3 of the paper's 100 tampered images" in printed
    assert "0 errors" in printed
    with pytest.raises(SystemExit, match="requires --source DIR and --out DIR"):
        cli.main(["data", "prepare", "Coverage"])


def test_incomplete_dataset_is_an_error_until_it_is_accepted(tmp_path, capsys):
    coverage(tmp_path / "source")
    argv = ["data", "prepare", "Coverage", "--source", str(tmp_path / "source"), "--workers", "1"]
    argv += ["--out", str(tmp_path / "Coverage")]
    for already in (False, True):  # The second run has nothing to do and the same exit status.
        with pytest.raises(SystemExit) as exit_info:
            cli.main(argv)
        assert exit_info.value.code == 1
        printed = capsys.readouterr()
        assert ("nothing to do" in printed.out) == already
        lines = printed.err.splitlines()
        start = lines.index(
            "Coverage is incomplete: 3 of the paper's 100 tampered images. Compare the layouts:"
        )
        assert lines[start + 1 : start + 8] == [
            f"found in {tmp_path / 'source'}:",
            "  7 files such as COVERAGE/image/1.tif",
            "  7 files such as COVERAGE/mask/10copy.tif",
            "  1 files such as COVERAGE/label/1.mat",
            "expected:",
            f"  {DATASETS['Coverage'].layout}",
            "  for example image/11t.tif",
        ]
        assert lines[-1].startswith("Pass a different --source, or --partial")
    before = tree(tmp_path / "Coverage")
    cli.main([*argv, "--partial"])
    printed = capsys.readouterr()
    assert "nothing to do" in printed.out
    assert "incomplete" not in printed.err
    assert tree(tmp_path / "Coverage") == before


@pytest.mark.parametrize(("count", "is_complete"), [(94, False), (95, True)])
def test_dataset_is_complete_from_95_percent_of_the_published_images(tmp_path, count, is_complete):
    for number in range(1, count + 1):
        save_photograph(tmp_path / f"source/image/{number}t.tif", 0, 8, 8)
        save_image(tmp_path / f"source/mask/{number}forged.tif", white(np.eye(8, dtype=bool)))
    prepared = run("Coverage", tmp_path / "source", tmp_path / "out")
    assert prepared.report["tampered"] == count
    assert prepared.is_complete is is_complete


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_table_of_nist16_is_read_in_any_encoding(tmp_path, encoding):
    source = tmp_path / "source"
    nist16(source)
    table = source / "NC2016_Test0613/reference/manipulation/NC2016-manipulation-ref.csv"
    lines = table.read_text().splitlines()
    lines[0] += "|Comment"
    lines[1:] = [f"{line}|M\u00fcller" for line in lines[1:]]
    table.write_bytes("\r\n".join(lines).encode(encoding))
    assert run("NIST16", source, tmp_path / "out").report["tampered"] == 4


def test_damaged_table_of_nist16_gives_one_line_error(tmp_path):
    """A missing quote makes the rest of the table one field, which csv limits to 131,072."""
    source = tmp_path / "source"
    nist16(source)
    table = source / "NC2016_Test0613/reference/manipulation/NC2016-manipulation-ref.csv"
    table.write_text(table.read_text() + '\nmanipulation|"' + "x" * 140_000)
    with pytest.raises(PrepareError, match="as a CSV file: field larger than field limit") as error:
        run("NIST16", source, tmp_path / "out")
    assert "\n" not in str(error.value)


def test_tampcoco_lists_in_latin_1_and_masks_outside_their_folder(tmp_path):
    source = tmp_path / "source"
    tampcoco(source)
    lists = source / "tampCOCO/sp_COCO_list.txt"
    image = "90_000000000001.jpg_000000000002.jpg_RT-32.0_RS0.95.jpg"
    lines = [f"sp_images/{image},mask.png", "sp_images/M\u00fcller.jpg,sp_masks/M\u00fcller.png"]
    lists.write_bytes("\n".join(lines).encode("latin-1"))
    save_image(source / "mask.png", white(region(0)))
    report = run("TampCOCO", source, tmp_path / "out").report
    why = {row["file"]: row["why"] for row in report["left_out"]}
    assert why[f"sp_images/{image}"] == "its mask mask.png is not in sp_masks/"
    assert why["sp_images/M\u00fcller.jpg"] == "is listed but missing"
    assert "sp: 2 lines, 2 unique, 2 with missing files" in report["notes"]


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.full((H, W), "tampered"), "contains values of type <U8, not numbers"),
        (np.zeros((H, W), "M8[s]"), "contains values of type datetime64[s], not numbers"),
        (np.zeros((H, W), "u1,u1"), "not numbers"),
        (np.zeros((H, 0)), "has shape (48, 0), which is not that of a mask"),
        (np.ones((H, W, 3)), "has shape (48, 64, 3), which is not that of a mask"),
    ],
)
def test_array_that_is_not_a_mask_is_left_out(tmp_path, array, why):
    fantastic(tmp_path / "source")
    masks = tmp_path / "source/FantasticReality_v1/dataset/SegmentationFake"
    np.savez(masks / "IMG_0000000_IMG_0000009.npz", array)
    report = run("FantasticReality", tmp_path / "source", tmp_path / "out").report
    reasons = {Path(row["file"]).stem: row["why"] for row in report["left_out"]}
    assert why in reasons["IMG_0000000_IMG_0000009"]
    assert report["tampered"] == 1


def test_links_to_parent_folders_are_not_followed(tmp_path):
    source = tmp_path / "source"
    coverage(source)
    for name in ("first", "second"):
        (source / f"COVERAGE/image/{name}").symlink_to(".")
        (source / name).symlink_to(".")
    assert run("Coverage", source, tmp_path / "out").report["tampered"] == 3


def test_links_between_folders_are_followed_once(tmp_path):
    """Ten folders with links to each other have 10! paths."""
    source = tmp_path / "source"
    for folder in range(10):
        (source / f"{folder}").mkdir(parents=True)
        (source / f"{folder}/{folder}.txt").write_text("")
        for other in {*range(10)} - {folder}:
            (source / f"{folder}/to{other}").symlink_to(f"../{other}")
    with pytest.raises(PrepareError, match=r"no Coverage images found in .* \(\d{1,3} files\)"):
        run("Coverage", source, tmp_path / "out")


def test_dataset_behind_links_is_found(tmp_path):
    coverage(tmp_path / "disk")
    (tmp_path / "source").mkdir()
    for name in ("image", "mask"):
        (tmp_path / f"source/{name}").symlink_to(tmp_path / f"disk/COVERAGE/{name}")
    assert run("Coverage", tmp_path / "source", tmp_path / "out").report["tampered"] == 3


@pytest.mark.parametrize("value", ["missing", None, 5, ["a"], {"a": 1}])
@pytest.mark.parametrize("field", ["image", "target", "mask_target", "grey", "left_out", "stamp"])
def test_damaged_record_without_checksum_is_converted_again(tmp_path, field, value):
    source, out = tmp_path / "source", tmp_path / "out"
    coverage(source)
    whole = run("Coverage", source, out).report
    journal = out / "prepare.jsonl"
    write_as_earlier_version(journal)
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    record = next(row for row in rows if field in row)
    record[field] = value
    if value == "missing":
        del record[field]
    journal.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = run("Coverage", source, out).report
    if (field, value) != ("grey", "missing"):  # The fraction is optional.
        assert report == whole
    assert len(list((out / "Gt").iterdir())) == 3


@pytest.mark.parametrize("value", [None, 5, {}])
def test_damaged_report_is_written_again(tmp_path, value):
    source, out = tmp_path / "source", tmp_path / "out"
    coverage(source)
    whole = run("Coverage", source, out).report
    (out / "prepare.json").write_text(json.dumps(whole | {"check": value}))
    assert run("Coverage", source, out).report == whole


@pytest.mark.parametrize("folder", ["Tp", "sp"])
def test_folders_of_the_user_are_not_used(tmp_path, folder):
    tampcoco(tmp_path / "source")
    (tmp_path / "out" / folder).mkdir(parents=True)
    with pytest.raises(PrepareError, match=f"contains {folder}/ but no prepare.jsonl"):
        run("TampCOCO", tmp_path / "source", tmp_path / "out")


def test_rotated_mask_of_casiav1_is_reported_and_rotated_by_repair(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    casiav1(source)
    name = "Sp_D_CNN_A_sec0012_ani0007_0275"
    rows = run("CASIAv1", source, out).report["left_out"]
    why = {Path(row["file"]).stem: row["why"] for row in rows}
    assert why[name].startswith("known fault: mask 48x64, image 64x48")
    (row,) = run("CASIAv1", source, out, repair=True).report["repaired"]
    assert "mask rotated by 90 degrees counter-clockwise" in row["why"]
    np.testing.assert_array_equal(read_mask(out / f"Gt/{name}.png"), np.rot90(region(17, W, H)))


def test_images_of_casiav1_are_paired_by_the_parts_of_their_names(tmp_path):
    casiav1(tmp_path / "source")
    rows = run("CASIAv1", tmp_path / "source", tmp_path / "out").report["renamed"]
    assert {Path(row["file"]).stem: row["why"] for row in rows} == {
        "Sp_S_NRD_A_ani0040_ani0054.0257": "paired with Sp_D_NRD_A_ani0040_ani0054_0257_gt.png, "
        "which shares 0257, ani0040, ani0054, nrd_a",
        "Sp_D_NRN_A_ani0034_nat0069_0414": "paired with Sp_D_NRN_A_nat0069_ani0034_0414_gt.png, "
        "which shares 0414, ani0034, nat0069, nrn_a",
        "Sp_D_NRN_A_ant0063_nat0065_0443": "paired with Sp_D_NRN_A_nat0063_nat0065_0443_gt.png, "
        "which shares 0443, nrn_a",
        "Sp_D_NNN_A_sec0049_sec0049_0117": "paired with Sp_D_NNN_A_sec0049_sec0050_0117_gt.png, "
        "which shares 0117, nnn_a",
    }


def test_sources_distinguish_names_with_the_same_number(tmp_path):
    """Both images share letters and number with both masks, but the sources with one only."""
    pairs = {
        "Sp_D_NRN_A_ani0034_nat0069_0414": "Sp_D_NRN_A_nat0069_ani0034_0414",
        "Sp_D_NRN_A_cha0001_arc0002_0414": "Sp_D_NRN_A_arc0002_cha0001_0414",
    }
    for seed, (image, mask) in enumerate(pairs.items()):
        save_photograph(tmp_path / f"source/{image}.jpg", seed)
        save_image(tmp_path / f"source/{mask}_gt.png", white(region(seed)))
    run("CASIAv1", tmp_path / "source", tmp_path / "out")
    for seed, image in enumerate(pairs):
        np.testing.assert_array_equal(read_mask(tmp_path / f"out/Gt/{image}.png"), region(seed))


def test_ambiguous_names_are_not_paired(tmp_path):
    """Two masks share the letters and the number of an image, and neither its name."""
    folder = tmp_path / "source"
    names = ["Sp_D_NRN_A_ani0001_ani0002_0001", "Sp_D_NRN_A_cha0001_cha0002_0001"]
    save_photograph(folder / "Sp_D_NRN_A_sec0001_sec0002_0001.jpg", 1)
    save_photograph(folder / "Sp_D_NNN_A_pla0001_pla0002_0009.jpg", 2)
    for name in (*names, "Sp_D_NNN_A_pla0001_pla0002_0009"):
        save_image(folder / f"{name}_gt.png", white(region(1)))
    report = run("CASIAv1", folder, tmp_path / "out").report
    assert report["tampered"] == 1
    assert report["left_out"] == [
        {"file": "Sp_D_NRN_A_sec0001_sec0002_0001.jpg", "why": "has no mask"}
    ]


def test_real_samples_of_casia2_are_converted(shared, tmp_path):
    source = shared("real/CASIA2_samples")
    prepared = run("CASIAv2", source, tmp_path / "out")
    assert prepared.report["tampered"] == 18
    for mask in (source / "Gt").iterdir():
        expected = np.asarray(Image.open(mask).convert("RGB")).mean(axis=-1) > 127.5
        np.testing.assert_array_equal(read_mask(tmp_path / "out/Gt" / mask.name), expected)


@pytest.mark.parametrize("target", ["../outside.txt", "/{}/outside.txt", "Tp/../../outside.txt"])
def test_manipulated_journal_deletes_no_file_outside_the_folder(tmp_path, target):
    coverage(tmp_path / "source")
    run("Coverage", tmp_path / "source", tmp_path / "out")
    outside = tmp_path / "outside.txt"
    outside.write_text("unrelated")
    record = {"image": "gone.tif", "target": target.format(tmp_path), "stamp": [], "repair": False}
    journal = Journal(tmp_path / "out/prepare.jsonl")
    journal.append(record)
    journal.close()
    with pytest.raises(PathError, match="rename it to a relative path"):
        run("Coverage", tmp_path / "source", tmp_path / "out")
    assert outside.read_text() == "unrelated"


def test_file_that_is_not_an_image_is_left_out(tmp_path):
    coverage(tmp_path / "source")
    image = tmp_path / "source/COVERAGE/image/2t.tif"
    image.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    prepared = run("Coverage", tmp_path / "source", tmp_path / "out")
    why = {Path(row["file"]).name: row["why"] for row in prepared.report["left_out"]}
    assert why["2t.tif"] == "it is PostScript (EPS)"
    assert not (tmp_path / "out/Tp/2t.tif").exists()
