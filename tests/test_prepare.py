"""Every published dataset as a miniature in its own layout, with the faults it is known for."""

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

from conftest import photograph
from qma_net import cli
from qma_net.data import prepare as module
from qma_net.data.plan import PrepareError
from qma_net.data.prepare import prepare
from qma_net.data.published import DATASETS

H, W = 48, 64


def run(name, source, out, **choices):
    return prepare(name, source, out, **{"workers": 1, "progress": False, **choices})


def region(seed: int, height: int = H, width: int = W) -> np.ndarray:
    """A random rectangle on a grid of 16 pixels, so that JPEG keeps its edges; bool."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    y, x = 16 * rng.integers(0, (height // 16 - 1, width // 16 - 1))
    mask[y : y + 32, x : x + 16] = True
    return mask


def save(path: Path, pixels: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def image(path: Path, seed: int, height: int = H, width: int = W, **options) -> None:
    save(path, photograph(height, width, seed), **options)


def white(mask: np.ndarray, channels: int = 1) -> np.ndarray:
    """A mask as 0 and 255, as grey, RGB or opaque RGBA."""
    grey = np.where(mask, 255, 0).astype(np.uint8)
    if channels == 1:
        return grey
    coloured = np.repeat(grey[..., None], channels, axis=-1)
    coloured[..., 3:] = 255
    return coloured


def casiav2(root):
    top = root / "download" / "CASIA2.0_revised"
    masks = root / "download" / "CASIA2.0_Groundtruth"
    truth = {}
    for seed, (stem, suffix, mask_name, channels) in enumerate(
        [
            ("Tp_D_CRN_S_N_cha00063_art00014_11818", "jpg", "", 1),
            ("Tp_S_NNN_S_N_ani20009_ani20009_02052", "tif", "", 4),
            ("Tp_S_CNN_M_N_ind00091_ind00091_10647", "jpg", "Tp_D_CNN_M_N_ind0091_10647_gt", 3),
            (
                "Tp_D_NRD_S_N_cha10002_cha10001_20094",
                "tif",
                "Tp_D_NRD_S_N_cha10002_cha10001_20094_gt3",
                1,
            ),
        ]
    ):
        image(top / "Tp" / f"{stem}.{suffix}", seed)
        save(masks / f"{mask_name or stem + '_gt'}.png", white(region(seed), channels))
        truth[f"Tp/{stem}.{suffix}"] = region(seed)
    image(top / "Tp/Tp_D_CNN_M_N_sec00011_cha00085_11227.jpg", 7)
    save(masks / "Tp_D_CNN_M_N_sec00011_cha00085_11227_gt.png", white(region(7, W, H)))
    image(top / "Tp/Tp_S_NNN_S_N_sec00074_sec00074_00751.tif", 8)
    save(masks / "Tp_S_NNN_S_N_sec00074_sec00074_00751_gt.png", white(region(8)[:, :-1]))
    image(top / "Au/Au_ani_00001.jpg", 9)
    (top / "Tp/Thumbs.db").write_bytes(b"junk")
    (top / "tp_list.txt").write_text("Tp_D_CRN_S_N_cha00063_art00014_11818.jpg")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX/Tp_D_CRN_S_N_cha00063_art00014_11818.jpg").write_bytes(b"junk")
    return truth, {"11227.jpg": "known fault", "00751.tif": "known fault"}


def casiav1(root):
    truth = {}
    names = {
        "CM": ["Sp_S_NNN_A_ani0001_ani0001_0001"],
        "Sp": ["Sp_D_NNN_A_ani0099_ani0100.0288", "Sp_D_NNN_R_cha0084_sec0061_0369"],
    }
    for kind, stems in names.items():
        for stem in stems:
            seed = len(truth)
            image(root / f"CASIA 1.0 dataset/Modified Tp/Tp/{kind}/{stem}.jpg", seed)
            mask = white(region(seed), 3)
            if "0369" in stem:
                mask[0, :3] = [[52] * 3, [64] * 3, [76] * 3]
            save(root / f"CASIA 1.0 groundtruth/{kind}/{stem}_gt.png", mask)
            truth[f"Tp/{stem}.jpg"] = region(seed)
    lonely = "Sp_D_NRN_A_cha0011_sec0011_0542.jpg"
    image(root / f"CASIA 1.0 dataset/Modified Tp/Tp/Sp/{lonely}", 5)
    image(root / "CASIA 1.0 dataset/Au/Au/Au_ani_0001.jpg", 6)
    return truth, {lonely: "has no mask"}


def imd2020(root):
    truth = {}
    for folder, name in (("1a1ogs", "c8tf5mj_0.png"), ("z3", "00003_fake.jpg")):
        seed = len(truth)
        image(root / f"IMD2020/{folder}/{name}", seed)
        stem = name.split(".")[0]
        save(root / f"IMD2020/{folder}/{stem}_mask.png", white(region(seed), 4))
        image(root / f"IMD2020/{folder}/{stem.split('_')[0]}_orig.jpg", seed)
        truth[f"Tp/{name}"] = region(seed)
    image(root / "IMD2020/z14/00030_fake.jpg", 5)
    save(root / "IMD2020/z14/00030_fake_mask.png", white(region(5, 64, 80)))
    return truth, {"00030_fake.jpg": "known fault"}


def fantastic(root):
    top = root / "FantasticReality_v1/dataset"
    (top / "SegmentationFake").mkdir(parents=True)
    truth = {}
    for seed, kind in enumerate((np.uint8, np.int64)):
        stem = f"IMG_000000{seed}_IMG_0000009"
        image(top / f"ColorFakeImages/{stem}.jpg", seed)
        classes = region(seed).astype(kind)[..., None] * 7
        np.savez_compressed(top / f"SegmentationFake/{stem}.npz", classes)
        truth[f"Tp/{stem}.jpg"] = region(seed)
    image(top / "ColorFakeImages/IMG_0000005_IMG_0000009.jpg", 5)
    (top / "SegmentationFake/IMG_0000005_IMG_0000009.npz").write_bytes(b"PK torn")
    image(top / "ColorRealImages/IMG_0000001.jpg", 6)
    return truth, {"IMG_0000005_IMG_0000009.jpg": "cannot be read"}


def tampcoco(root):
    top = root / "tampCOCO"
    pair = "9{}_000000000001.{e}_000000000002.{e}{}.{e}"
    names = {
        "sp": [(0, "_RT-32.0_RS0.95"), (1, "")],
        "cm": [(2, "")],
        "bcm": [(3, "_RT12.2")],
    }
    truth, lists = {}, {part: [] for part in ("sp", "cm", "bcm", "bcmc")}
    for part, rows in names.items():
        for seed, change in rows:
            jpg, png = pair.format(seed, change, e="jpg"), pair.format(seed, change, e="png")
            image(top / f"{part}_images/{jpg}", seed)
            ones = region(seed).astype(np.uint8) * (1 if part == "cm" else 255)
            save(top / f"{part}_masks/{png}", ones)
            lists[part].append(f"{part}_images/{jpg},{part}_masks/{png}")
            truth[f"{part}/Tp/{jpg}"] = region(seed)
    quality = "93_000000000001_aligned_Q76.jpg_000000000002_aligned_Q76.jpg_RT12.2_aligned_Q76.jpg"
    image(top / f"bcmc_images/{quality}", 13)
    lists["bcmc"].append(f"bcmc_images/{quality},bcm_masks/{pair.format(3, '_RT12.2', e='png')}")
    truth[f"bcmc/Tp/{quality}"] = region(3)
    lists["sp"].append(lists["sp"][0])
    absent = pair.format(8, "", e="jpg")
    lists["cm"].append(f"cm_images/{absent},cm_masks/{pair.format(8, '', e='png')}")
    empty = pair.format(7, "", e="jpg")
    (top / f"cm_images/{empty}").write_bytes(b"")
    save(top / f"cm_masks/{pair.format(7, '', e='png')}", white(region(7)))
    lists["cm"].append(f"cm_images/{empty},cm_masks/{pair.format(7, '', e='png')}")
    for part, lines in lists.items():
        (top / f"{part}_COCO_list.txt").write_text("\n".join(lines) + "\n")
    return truth, {absent: "listed but not there", empty: "empty (0 bytes)"}


def columbia(root):
    top = root / "Columbia Uncompressed Image Splicing Detection"
    truth = {}
    for seed, stem in enumerate(("canong3_canonxt_sub_01", "nikond70_kodakdcs330_sub_30")):
        image(top / f"4cam_splc/4cam_splc/{stem}.tif", seed)
        colours = np.zeros((H, W, 3), np.uint8)
        colours[..., 0] = np.where(region(seed), 0, 200)
        colours[..., 1] = np.where(region(seed), 200, 0)
        colours[16:32] = np.where(colours[16:32] > 0, 255, 0)
        edges = top / "4cam_splc/4cam_splc/edgemask"
        save(edges / f"{stem}_edgemask.jpg", colours, quality=90)
        save(edges / f"{stem}_edgemask_3.jpg", 255 - colours)
        truth[f"Tp/{stem}.tif"] = region(seed)
    image(top / "4cam_auth/canong3_02_sub_01.tif", 5)
    save(top / "4cam_auth/edgemask/canong3_02_sub_01_edgemask.jpg", colours)
    return truth, {}


def coverage(root):
    truth = {}
    for number in (1, 2, 10):
        image(root / f"COVERAGE/image/{number}.tif", 100 + number)
        image(root / f"COVERAGE/image/{number}t.tif", number)
        for kind, mask in (("forged", region(number)), ("copy", ~region(number))):
            save(root / f"COVERAGE/mask/{number}{kind}.tif", np.where(mask, 240, 9).astype("u1"))
        truth[f"Tp/{number}t.tif"] = region(number)
    image(root / "COVERAGE/image/41t.tif", 41)
    save(root / "COVERAGE/mask/41forged.tif", white(region(41, 64, 80)))
    (root / "COVERAGE/label").mkdir()
    (root / "COVERAGE/label/1.mat").write_bytes(b"")
    return truth, {"41t.tif": "known fault"}


def nist16(root):
    top = root / "NC2016_Test0613"
    rows = [["TaskID", "ProbeFileName", "ProbeMaskFileName", "IsTarget"]]
    truth = {}
    for seed, stem in enumerate(("NC2016_5310", "NC2016_1504")):
        mask = f"reference/manipulation/mask/{9 - seed}_mask.png"
        inverted = np.where(region(seed), 0, 255).astype(np.uint8)
        inverted[-1, :2] = 127, 128
        expected = region(seed)
        expected[-1, :2] = True, False
        save(top / mask, inverted)
        for post in ("", "b"):
            image(top / f"probe/{stem}{post}.jpg", seed + 3 * len(post))
            rows.append(["manipulation", f'"probe/{stem}{post}.jpg"', mask, "Y"])
            truth[f"Tp/{stem}{post}.jpg"] = expected
    image(top / "probe/NC2016_0001.jpg", 7)
    rows.append(rows[-1])
    rows.append(["manipulation", "probe/NC2016_0001.jpg", "", "N"])
    rows.append(["manipulation", "probe/NC2016_0002.jpg", mask, "Y", "one field too many"])
    table = top / "reference/manipulation/NC2016-manipulation-ref.csv"
    table.write_text("\n".join("|".join(row) for row in rows))
    (top / "reference/splice").mkdir()
    (top / "reference/splice/NC2016-splice-ref.csv").write_text("not|this|one")
    return truth, {"NC2016_0002.jpg": "named by the table but not there"}


def cocoglide(root):
    top = root / "CocoGlide"
    truth = {}
    for seed, (kind, number) in enumerate((("dining table", "100510"), ("airplane", "87038"))):
        name = f"glide_inpainting_val2017_{number}_up.png"
        image(top / f"fake/{name}", seed)
        image(top / f"real/{kind}_{number}.png", seed + 5)
        save(top / f"mask/{kind}_{number}_mask.png", white(region(seed)))
        truth[f"Tp/{name}"] = region(seed)
    (top / "licenses.json").write_text("{}")
    return truth, {}


def autosplice(root):
    top = root / "AutoSplice"
    truth = {}
    for seed, number in enumerate(("40574", "9")):
        for quality in (100, 90, 75):
            for k in (0, 2):
                image(top / f"Forged_JPEG{quality}/{number}_{k}.jpg", seed + k + quality)
                truth[f"Tp/{number}_{k}.jpg"] = region(seed)
        save(top / f"Mask/{number}_mask.png", white(region(seed)))
        image(top / f"Authentic/{number}.jpg", seed)
    return truth, {}


ARCHIVES = {
    "CASIAv2": casiav2,
    "IMD2020": imd2020,
    "FantasticReality": fantastic,
    "TampCOCO": tampcoco,
    "CASIAv1": casiav1,
    "Columbia": columbia,
    "Coverage": coverage,
    "NIST16": nist16,
    "CocoGlide": cocoglide,
    "AutoSplice": autosplice,
}


def masks_of(name: str, out: Path) -> dict[str, Path]:
    """Images and their masks as BenCo pairs them."""
    from IMDLBenCo.datasets import JsonDataset, ManiDataset

    options = {"is_resizing": True, "output_size": (32, 32)}
    if name == "TampCOCO":
        parts = DATASETS[name].parts
        sets = [JsonDataset(str(out / f"{part}_COCO_list.json"), **options) for part in parts]
    else:
        sets = [ManiDataset(str(out), **options)]
    for one in sets:
        for item in one:
            assert item["label"] == 1
            assert set(item["mask"].unique().tolist()) == {0.0, 1.0}
    pairs = [pair for one in sets for pair in zip(one.tp_path, one.gt_path, strict=True)]
    return {Path(i).relative_to(out).as_posix(): Path(m) for i, m in pairs}


def tree(folder: Path) -> dict[str, tuple]:
    """All files with their times, to see whether anything was written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def read_mask(path: Path) -> np.ndarray:
    with Image.open(path) as mask:
        assert mask.mode == "L"
        pixels = np.asarray(mask)
    assert set(np.unique(pixels)) <= {0, 255}
    return pixels == 255


def test_the_miniatures_cover_the_table():
    assert list(ARCHIVES) == list(DATASETS)
    for dataset in DATASETS.values():
        assert dataset.unverified
        assert dataset.layout
        assert "miniature" in dataset.verified_on


@pytest.mark.parametrize("name", ARCHIVES)
def test_recipe_on_its_miniature(name, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    truth, left_out = ARCHIVES[name](source)
    before = tree(source)
    prepared = run(name, source, out)
    report = prepared.report
    found = masks_of(name, out)
    assert found.keys() == truth.keys()
    for image_path, mask in truth.items():
        np.testing.assert_array_equal(read_mask(found[image_path]), mask, err_msg=image_path)
        if not image_path.startswith("bcmc"):
            assert found[image_path].stem == Path(image_path).stem
    copies = {path.name: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    if name != "AutoSplice":  # its three versions share names
        for image_path in truth:
            assert (out / image_path).read_bytes() == copies[Path(image_path).name]
    reasons = {Path(row["file"]).name: row["why"] for row in report["left_out"]}
    for file, why in left_out.items():
        (reason,) = [reasons[known] for known in reasons if known.endswith(file)]
        assert why in reason
    assert len(reasons) == len(left_out)
    assert (report["tampered"], report["paper"]) == (len(truth), DATASETS[name].tampered)
    assert prepared.checked.errors == []
    text = prepared.text()
    assert f"{len(truth)} of the paper's {DATASETS[name].tampered}" in text
    assert all(f"not verified: {line}" in text for line in DATASETS[name].unverified)
    assert json.loads((out / "prepare.json").read_text()) == report
    made = tree(out)
    again = run(name, source, out)
    assert tree(out) == made
    assert again.done_now == 0
    assert "nothing to do" in again.text()
    assert tree(source) == before


def test_wrongly_named_masks_are_found_and_listed(tmp_path):
    casiav2(tmp_path / "source")
    report = run("CASIAv2", tmp_path / "source", tmp_path / "out").report
    (row,) = report["renamed"]
    assert row["file"].endswith("Tp_S_CNN_M_N_ind00091_ind00091_10647.jpg")
    assert "Tp_D_CNN_M_N_ind0091_10647_gt.png" in row["why"]


def test_repair_turns_or_resizes_and_says_so(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    casiav2(source)
    assert len(run("CASIAv2", source, out).report["left_out"]) == 2
    prepared = run("CASIAv2", source, out, repair=True)
    assert prepared.done_now == 2
    assert prepared.report["left_out"] == []
    why = {row["file"][-9:]: row["why"] for row in prepared.report["repaired"]}
    assert "counter-clockwise" in why["11227.jpg"]
    assert "mask 63x48, image 64x48" in why["00751.tif"]
    turned = read_mask(out / "Gt/Tp_D_CNN_M_N_sec00011_cha00085_11227.png")
    np.testing.assert_array_equal(turned, np.rot90(region(7, W, H)))
    assert read_mask(out / "Gt/Tp_S_NNN_S_N_sec00074_sec00074_00751.png").shape == (H, W)
    back = run("CASIAv2", source, out)
    assert back.done_now == 2
    assert not (out / "Gt/Tp_D_CNN_M_N_sec00011_cha00085_11227.png").exists()
    assert back.checked.errors == []


def test_a_corrected_mask_is_taken_up_and_a_vanished_image_taken_out(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    imd2020(source)
    run("IMD2020", source, out)
    save(source / "IMD2020/z14/00030_fake_mask.png", white(region(5)))
    assert run("IMD2020", source, out).done_now == 1
    np.testing.assert_array_equal(read_mask(out / "Gt/00030_fake.png"), region(5))
    (source / "IMD2020/z3/00003_fake.jpg").unlink()
    report = run("IMD2020", source, out).report
    assert report["tampered"] == len(list((out / "Tp").iterdir())) == 2
    assert "1 masks have no image" in report["notes"]
    (out / "Gt/00030_fake.png").unlink()
    assert run("IMD2020", source, out).done_now == 1


def test_exif_says_how_to_turn_a_transposed_mask(tmp_path):
    truth, _ = imd2020(tmp_path / "source")
    exif = Image.Exif()
    exif[0x0112] = 6
    image(tmp_path / "source/IMD2020/z3/00003_fake.jpg", 1, exif=exif)
    shown = np.rot90(region(1), -1)
    save(tmp_path / "source/IMD2020/z3/00003_fake_mask.png", white(shown))
    report = run("IMD2020", tmp_path / "source", tmp_path / "out").report
    np.testing.assert_array_equal(
        read_mask(tmp_path / "out/Gt/00003_fake.png"), truth["Tp/00003_fake.jpg"]
    )
    assert "EXIF" in report["repaired"][0]["why"]


def test_tampcoco_says_what_its_lists_hold(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    tampcoco(source)
    (source / "tampCOCO/bcmc_COCO_list.txt").unlink()
    notes = run("TampCOCO", source, out).report["notes"]
    assert "sp: 3 lines, 2 different, 0 name absent files" in notes
    assert "cm: 3 lines, 3 different, 1 name absent files" in notes
    assert any(note.startswith("bcmc: no bcmc_COCO_list.txt, so all") for note in notes)
    rows = {part: json.loads((out / f"{part}_COCO_list.json").read_text()) for part in ("bcm",)}
    rows["bcmc"] = json.loads((out / "bcmc_COCO_list.json").read_text())
    assert rows["bcm"][0][1] == rows["bcmc"][0][1]
    assert Path(rows["bcm"][0][1]).is_absolute()
    (source / "tampCOCO/bcm_COCO_list.txt").write_text("")
    with open(source / "tampCOCO/cm_COCO_list.txt", "a") as file:
        file.write("cm_images/gone.jpg,cm_masks/gone.png\n")
    shrunk = run("TampCOCO", source, out)
    assert shrunk.done_now == 0
    assert "cm: 4 lines, 4 different, 2 name absent files" in shrunk.report["notes"]
    assert list((out / "bcm/Tp").iterdir()) == []
    assert Path(rows["bcmc"][0][1]).is_file()


def test_tampcoco_in_part(tmp_path):
    tampcoco(tmp_path / "source")
    for part in ("cm", "bcm", "bcmc"):
        (tmp_path / f"source/tampCOCO/{part}_COCO_list.txt").unlink()
        for file in (tmp_path / f"source/tampCOCO/{part}_images").iterdir():
            file.unlink()
    report = run("TampCOCO", tmp_path / "source", tmp_path / "out").report
    assert report["tampered"] == 2
    assert sum("neither" in note for note in report["notes"]) == 3
    assert not (tmp_path / "out/bcm_COCO_list.json").exists()


def test_fantastic_reality_has_its_list(tmp_path):
    fantastic(tmp_path / "source")
    out = tmp_path / "out"
    run("FantasticReality", tmp_path / "source", out, authentic=True)
    rows = json.loads((out / "FantasticReality.json").read_text())
    assert rows == [
        [str(out / f"Tp/{stem}.jpg"), str(out / f"Gt/{stem}.png")]
        for stem in ("IMG_0000000_IMG_0000009", "IMG_0000001_IMG_0000009")
    ]
    both = json.loads((out / "FantasticReality_with_authentic.json").read_text())
    assert both == [*rows, [str(out / "Au/IMG_0000001.jpg"), "Negative"]]


def test_authentic_images_of_a_table_and_without_them_again(tmp_path):
    nist16(tmp_path / "source")
    out = tmp_path / "out"
    report = run("NIST16", tmp_path / "source", out, authentic=True).report
    assert report["authentic"] == 1
    assert (out / "Au/NC2016_0001.jpg").is_file()
    run("NIST16", tmp_path / "source", out)
    assert not (out / "Au/NC2016_0001.jpg").exists()


def test_nist16_reads_commas_too_and_reports_grey(tmp_path):
    nist16(tmp_path / "source")
    table = tmp_path / ("source/NC2016_Test0613/reference/manipulation/NC2016-manipulation-ref.csv")
    table.write_text(table.read_text().replace("|", ","))
    report = run("NIST16", tmp_path / "source/NC2016_Test0613", tmp_path / "out").report
    assert report["tampered"] == 4
    assert any("delimiter ','" in note for note in report["notes"])
    assert any("4 masks have pixels between black and white" in note for note in report["notes"])


def test_autosplice_s_versions(tmp_path):
    autosplice(tmp_path / "source")
    run("AutoSplice", tmp_path / "source", tmp_path / "out", jpeg_quality=75)
    source = tmp_path / "source/AutoSplice/Forged_JPEG75/9_2.jpg"
    assert (tmp_path / "out/Tp/9_2.jpg").read_bytes() == source.read_bytes()
    with pytest.raises(PrepareError, match="--jpeg-quality 75"):
        run("AutoSplice", tmp_path / "source", tmp_path / "out")


def test_max_side_reduces_both_and_keeps_masks_two_valued(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    casiav2(source)
    image(source / "Tp_D_NRN_S_N_arc00013_sec00045_11700.jpg", 30, 20, 30)
    save(source / "Tp_D_NRN_S_N_arc00013_sec00045_11700_gt.png", white(region(3)[:20, :30]))
    run("CASIAv2", source, out, max_side=32)
    sizes = {path.name[-9:]: Image.open(path).size for path in (out / "Tp").iterdir()}
    assert sizes["11700.jpg"] == (30, 20)
    assert sizes["11818.jpg"] == sizes["02052.png"] == (32, 24)
    mask = read_mask(out / "Gt/Tp_D_CRN_S_N_cha00063_art00014_11818.png")
    np.testing.assert_array_equal(mask, region(0)[::2, ::2])
    assert run("CASIAv2", source, out, max_side=32).done_now == 0
    with pytest.raises(PrepareError, match="made with CASIAv2 --max-side 32"):
        run("CASIAv2", source, out)


def test_a_mask_that_reduction_would_empty_keeps_what_it_touches():
    mask = np.zeros((64, 64), bool)
    mask[3, 3] = True
    assert module._reduced(mask, (16, 16)).sum() == 1


def test_links_share_their_file_and_leave_the_source_alone(tmp_path):
    truth, _ = cocoglide(tmp_path / "source")
    before = tree(tmp_path / "source")
    run("CocoGlide", tmp_path / "source", tmp_path / "out", link=True)
    for name in truth:
        source = tmp_path / "source/CocoGlide/fake" / Path(name).name
        assert (tmp_path / "out" / name).samefile(source)
    assert tree(tmp_path / "source") == before


def test_masks_that_mark_nothing_and_deep_masks(tmp_path):
    cocoglide(tmp_path / "source")
    masks = tmp_path / "source/CocoGlide/mask"
    save(masks / "airplane_87038_mask.png", np.zeros((H, W), np.uint8))
    save(masks / "dining table_100510_mask.png", np.where(region(0), 65535, 30080).astype("u2"))
    report = run("CocoGlide", tmp_path / "source", tmp_path / "out").report
    assert "marks nothing" in report["left_out"][0]["why"]
    made = read_mask(tmp_path / "out/Gt/glide_inpainting_val2017_100510_up.png")
    np.testing.assert_array_equal(made, region(0))


SLOWLY = """
import sys, time
from qma_net.data import prepare as module

first = module._convert
def slow(*args):
    time.sleep(0.05)
    return first(*args)
module._convert = slow
module.prepare("AutoSplice", sys.argv[1], sys.argv[2], workers=1, progress=False)
"""


def test_a_killed_run_is_completed_by_the_next(tmp_path):
    source, out = tmp_path / "source", tmp_path / "killed"
    top = source / "AutoSplice"
    for number in range(24):
        image(top / f"Forged_JPEG100/{number}_0.jpg", number)
        save(top / f"Mask/{number}_mask.png", white(region(number)))
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, source, out])
    journal = out / "prepare.jsonl"
    while not (journal.is_file() and len(journal.read_text().splitlines()) > 4):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "prepare.json").exists()
    finished = len(journal.read_text().splitlines()) - 1
    with open(journal, "a") as file:
        file.write('{"image": "AutoSplice/Forged_JPEG100/23_0.jpg", "tar')
    (out / "Tp/.23_0.jpg.x1y2.tmp").write_bytes(b"half a file")
    done = sorted((out / "Tp").glob("*.jpg"), key=lambda path: path.stat().st_mtime_ns)[0]
    before = done.stat().st_mtime_ns
    completed = run("AutoSplice", source, out, workers=2)
    assert completed.done_now == 24 - finished > 0
    assert done.stat().st_mtime_ns == before
    whole = run("AutoSplice", source, tmp_path / "whole")
    assert completed.report == whole.report
    for folder in ("Tp", "Gt"):
        made = {path.name: path.read_bytes() for path in (out / folder).iterdir()}
        assert made == {p.name: p.read_bytes() for p in (tmp_path / "whole" / folder).iterdir()}
    assert run("AutoSplice", source, out).done_now == 0


def test_two_runs_at_once_are_refused(tmp_path):
    cocoglide(tmp_path / "source")
    with (
        module._alone(tmp_path / "out"),
        pytest.raises(PrepareError, match="another run is writing"),
    ):
        run("CocoGlide", tmp_path / "source", tmp_path / "out")


def test_what_cannot_be_used_is_said_in_one_line(tmp_path):
    source = tmp_path / "source"
    cocoglide(source)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/CocoGlide.zip").write_bytes(b"PK")
    (tmp_path / "mine/Tp").mkdir(parents=True)
    cases = [
        ("Casia", source, "out", "got 'Casia', expected one of CASIAv2"),
        ("CocoGlide", tmp_path / "absent", "out", "there is none"),
        ("CocoGlide", tmp_path / "packed", "out", "unpack CocoGlide.zip first"),
        ("Columbia", source, "out", "no images of Columbia among them, expected 'Columbia Unc"),
        ("NIST16", source, "out", "0 tables"),
        ("CocoGlide", source, "source/CocoGlide/out", "inside --source"),
        ("CocoGlide", source, "source", "inside --source"),
        ("CocoGlide", source, "mine", "with Tp/ but no prepare.jsonl"),
    ]
    for name, place, out, expected in cases:
        with pytest.raises(PrepareError) as error:
            run(name, place, tmp_path / out)
        assert expected in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(PrepareError, match="expected a side in pixels"):
        run("CocoGlide", source, tmp_path / "out", max_side=-1)
    with pytest.raises(PrepareError, match="only AutoSplice"):
        run("CocoGlide", source, tmp_path / "out", jpeg_quality=75)
    os.rename(source / "CocoGlide", source / "one")
    cocoglide(source)
    with pytest.raises(PrepareError, match="expected one of the two"):
        run("CocoGlide", source, tmp_path / "out")


def test_command_line(tmp_path, capsys):
    cli.main(["data", "prepare", "--list"])
    printed = capsys.readouterr().out
    assert all(f"{name} (" in printed for name in DATASETS)
    coverage(tmp_path / "source")
    argv = ["data", "prepare", "coverage", "--source", str(tmp_path / "source"), "--workers", "1"]
    cli.main([*argv, "--out", str(tmp_path / "Coverage")])
    printed = capsys.readouterr().out
    assert "Coverage: 3 of the paper's 100 tampered images" in printed
    assert "0 errors" in printed
    with pytest.raises(SystemExit, match="expected also --source DIR and --out DIR"):
        cli.main(["data", "prepare", "Coverage"])


def test_real_casia2_samples(shared, tmp_path):
    source = shared("real/CASIA2_samples")
    prepared = run("CASIAv2", source, tmp_path / "out")
    assert prepared.report["tampered"] == 18
    for mask in (source / "Gt").iterdir():
        expected = np.asarray(Image.open(mask).convert("RGB")).mean(axis=-1) > 127.5
        np.testing.assert_array_equal(read_mask(tmp_path / "out/Gt" / mask.name), expected)
