"""Synthetic datasets: exact masks, disjoint photos, and the same bytes for the same seed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from conftest import photograph
from qma_net.core.errors import QMANetError
from qma_net.core.runs import BusyError, FolderLock, RunError
from qma_net.demo import DEMO_RECIPE
from qma_net.synth.manipulate import kind_at, manipulate
from qma_net.synth.photographs import Photographs, find_usable_photos, random_crop
from qma_net.synth.recipe import AUTHENTIC, KINDS, Recipe, SynthesisError
from qma_net.synth.regions import (
    draw_placement,
    move_region,
    outline_of,
    random_region,
    segments,
)
from qma_net.synth.synthesise import ImageGenerator, check_complete, synthesise, write_image
from sample_archives import write_photographs

SIZE = 64
WRITE_IMAGE = "qma_net.synth.synthesise.write_image"
MANY = {"count": 40, "test_count": 10, "image_size": SIZE, "seed": 5}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight usable photos; all but number 4 have a label map of two squares."""
    folder = tmp_path_factory.mktemp("photos")
    write_photographs(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "set"
    return synthesise(photos, out, **MANY, labels=photos, workers=1)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def contents(folder):
    """Return the bytes of all files except the lists, which contain the path of the folder."""
    files = (p for p in folder.rglob("*") if p.is_file())
    lists = ("train.json", "test.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.name not in lists}


def test_dataset_has_the_layout_of_benco(dataset):
    rows = rows_of(dataset)
    for side, count in (("train", 40), ("test", 10)):
        images, masks, authentic = (
            sorted((dataset / side / f).iterdir()) for f in ("Tp", "Gt", "Au")
        )
        assert [p.stem for p in images] == [p.stem for p in masks]
        assert len(images) + len(authentic) == count
        assert len(authentic) == count // 10
        listed = json.loads((dataset / f"{side}.json").read_text())
        assert [Path(p[0]).name for p in listed] == [r["name"] for r in rows if r["side"] == side]
        assert {p[0] for p in listed} == {str(p) for p in images + authentic}
        assert {p[0] for p in listed if p[1] == "Negative"} == {str(p) for p in authentic}
    assert {path.name for path in dataset.iterdir()} == {
        *("train", "test", "train.json", "test.json", "manifest.jsonl", "settings.json"),
        "complete.json",
    }


def test_manipulation_types_follow_the_shares_of_the_recipe():
    for recipe in (Recipe(), DEMO_RECIPE):
        kinds = [kind_at("train", i, recipe) for i in range(1000)]
        shares = {kind: kinds.count(kind) / 1000 for kind in (*KINDS, AUTHENTIC)}
        assert shares[AUTHENTIC] == pytest.approx(recipe.untouched, abs=0.001)
        for kind, share in zip(KINDS, recipe.kinds, strict=True):
            assert shares[kind] == pytest.approx(share * (1 - recipe.untouched), abs=0.005)
    tests = [kind_at("test", i, DEMO_RECIPE) for i in range(9)]
    assert [tests.count(kind) for kind in KINDS] == [3, 3, 3]


def test_benco_loads_the_dataset(dataset):
    from IMDLBenCo.datasets import JsonDataset, ManiDataset

    options = {"is_resizing": True, "output_size": (SIZE, SIZE)}
    folder = ManiDataset(str(dataset / "train"), **options)
    assert len(folder) == 36
    item = folder[3]
    assert item["image"].shape == (3, SIZE, SIZE)
    assert item["label"] == 1
    assert set(item["mask"].unique().tolist()) == {0.0, 1.0}
    listed = JsonDataset(str(dataset / "train.json"), **options)
    assert len(listed) == 40
    for item, row in zip((listed[i] for i in range(40)), rows_of(dataset), strict=False):
        assert bool(item["label"]) == bool(item["mask"].any()) == (row["kind"] != AUTHENTIC)


def test_masks_are_binary_and_have_the_size_of_the_image(dataset):
    for row in rows_of(dataset):
        if row["kind"] == AUTHENTIC:
            assert row["area"] == 0
            continue
        image = cv2.imread(str(dataset / row["side"] / "Tp" / row["name"]))
        mask = dataset / row["side"] / "Gt" / row["name"].replace(".jpg", ".png")
        mask = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
        assert list(mask.shape) == list(image.shape[:2]) == row["size"]
        assert max(row["size"]) == SIZE
        assert set(np.unique(mask)) == {0, 255}
        assert (mask > 0).mean() == pytest.approx(row["area"])
        assert 0.005 < row["area"] < 0.3  # 1 to 20 %, rounded to pixels, and dilated for removals.


def test_images_of_the_demo_are_square_and_follow_its_recipe(photos, tmp_path):
    out = synthesise(
        photos,
        tmp_path / "set",
        count=12,
        test_count=6,
        image_size=SIZE,
        recipe=DEMO_RECIPE,
        workers=1,
    )
    rows = rows_of(out)
    assert all(row["size"] == [SIZE, SIZE] for row in rows)
    assert all(0.03 < row["area"] < 0.18 for row in rows)
    assert all(40 <= row["host_quality"] <= 70 for row in rows)
    assert not list(out.glob("*/Au/*"))
    assert {row["kind"] for row in rows} == set(KINDS)


def test_training_and_test_share_no_photo(dataset):
    sides = {"train": set(), "test": set()}
    for row in rows_of(dataset):
        sides[row["side"]] |= {row["host"], row.get("donor", row["host"])}
    assert sides["train"]
    assert sides["test"]
    assert not sides["train"] & sides["test"]
    used = sides["train"] | sides["test"]
    assert not used & {"truncated.png", "broken.jpg", "small.png"}
    assert len({"scenes/2.png", "scenes/copy_of_2.png"} & used) < 2
    assert not any("_seg" in name for name in used)


@pytest.mark.parametrize("recipe", [Recipe(), DEMO_RECIPE], ids=["general", "demo"])
@pytest.mark.parametrize("kind", KINDS)
def test_image_differs_from_its_host_only_inside_the_mask(photos, kind, recipe):
    recipe = replace(recipe, image_size=SIZE, edge_softness=(0.7, 0.7), resampled=1.0)
    names = [f"scenes/{i}.png" for i in range(3)]
    maps = {name: name.replace("scenes", "scenes_seg") for name in names}
    photographs = Photographs(photos, names, photos, maps)
    for seed in range(6):
        image, mask, history = manipulate(np.random.default_rng(seed), kind, photographs, recipe)
        host, nothing, _ = manipulate(np.random.default_rng(seed), AUTHENTIC, photographs, recipe)
        assert not nothing.any()
        assert host.shape == image.shape
        far = cv2.dilate(mask, np.ones((9, 9), np.uint8)) == 0
        assert np.array_equal(image[far], host[far])
        changed = (image != host).any(axis=2)[mask > 0].mean()
        assert changed > (0.3 if kind == "removal" else 0.8)
        if kind == "copymove":
            centre = np.append(np.mean(np.nonzero(mask)[::-1], axis=1), 1)
            assert np.abs(np.array(history["place"]) @ centre - centre[:2]).max() > 2


def test_copy_without_resampling_is_exact(photos):
    recipe = replace(DEMO_RECIPE, image_size=SIZE)
    photographs = Photographs(photos, ["scenes/0.png", "scenes/1.png"])
    rng, same = np.random.default_rng(2), np.random.default_rng(2)
    image, mask, history = manipulate(rng, "copymove", photographs, recipe)
    host, _, _ = manipulate(same, AUTHENTIC, photographs, recipe)
    dx, dy = (int(row[2]) for row in history["place"])
    assert history["place"] == [[1, 0, dx], [0, 1, dy]]
    assert max(abs(dx), abs(dy)) >= 4
    inner = cv2.erode(mask, np.ones((9, 9), np.uint8)) > 0
    assert inner.any()
    assert np.array_equal(image[inner], np.roll(host, (dy, dx), axis=(0, 1))[inner])


def test_regions_come_from_label_maps(dataset, photos):
    rows = [row for row in rows_of(dataset) if row["kind"] != AUTHENTIC]
    assert {"label 3", "random"} == {row["region"] for row in rows}
    for row in rows:
        if row["region"] != "random":
            assert row.get("donor", row["host"]) != "scenes/4.png"
    square = np.zeros((80, 110), np.int32)
    square[10:30, 10:40] = 7
    square[50:, 80:] = 2  # It touches the border.
    square[40:42, 10:90] = 5  # It is too narrow.
    square[15:20, 15:20] = 9  # A hole, smaller than the minimum area.
    (value, part), *more = segments(square, (0.02, 0.2), whole=True)
    assert (value, more) == (7, [])
    assert part.sum() == 20 * 30
    assert part[17, 17]
    assert [value for value, _ in segments(square, (0.02, 0.2), whole=False)] == [2, 7]


def test_bytes_depend_on_the_seed_and_not_on_the_number_of_workers(photos, dataset, tmp_path):
    again = synthesise(photos, tmp_path / "again", **MANY, labels=photos, workers=2)
    assert contents(again) == contents(dataset)
    other = {**MANY, "seed": 6}
    other = synthesise(photos, tmp_path / "other", **other, labels=photos, workers=1)
    assert contents(other) != contents(dataset)


def test_image_depends_on_its_index_and_not_on_the_number_of_images(photos, dataset, tmp_path):
    fewer = {**MANY, "count": 10, "test_count": 3}
    fewer = synthesise(photos, tmp_path / "fewer", **fewer, labels=photos, workers=1)
    whole = contents(dataset)
    for name, data in contents(fewer).items():
        depends_on_count = ("settings.json", "manifest.jsonl", "complete.json")
        assert name in depends_on_count or whole[name] == data


def test_image_is_recreated_from_its_manifest_row(photos, dataset):
    settings = json.loads((dataset / "settings.json").read_text())
    generator = ImageGenerator(photos, photos, settings)
    for row in rows_of(dataset)[::7]:
        image, mask, again = generator.generate(row["side"], row["index"])
        assert json.loads(json.dumps(again)) == row
        folder = "Au" if row["kind"] == AUTHENTIC else "Tp"
        assert (dataset / row["side"] / folder / row["name"]).read_bytes() == image
        if mask is None:
            assert row["kind"] == AUTHENTIC
        else:
            kept = dataset / row["side"] / "Gt" / row["name"].replace(".jpg", ".png")
            assert kept.read_bytes() == mask


def test_complete_dataset_is_left_unchanged(photos, dataset):
    before = {p: p.stat().st_mtime_ns for p in dataset.rglob("*")}
    synthesise(photos, dataset, **MANY, labels=photos, workers=1)
    assert before == {p: p.stat().st_mtime_ns for p in dataset.rglob("*")}


FEW = {"count": 4, "test_count": 3, "image_size": SIZE, "workers": 1, "progress": False}


def damaged_versions(data):
    """Yield truncations, single flipped bits, a missing line and contents of other types."""
    for position in (0, len(data) // 2):
        yield data[:position]
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        yield bytes(flipped)
    lines = data.splitlines(keepends=True)
    yield b"".join(lines[:1] + lines[2:])
    yield from (b"[]", b"\x00" * len(data))


def error_of(check, *args, **options):
    try:
        check(*args, **options)
    except QMANetError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("has_record", [True, False])
def test_damaged_list_is_restored_and_other_damage_is_reported(
    photos, tmp_path, caplog, has_record
):
    out = synthesise(photos, tmp_path / "set", **FEW)
    if not has_record:  # As in datasets of earlier versions.
        (out / "complete.json").unlink()
    settings = json.loads((out / "settings.json").read_text())
    original = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    restored, reported, accepted = [], [], []
    for path, data in original.items():
        for damaged in damaged_versions(data):
            path.write_bytes(damaged)
            caplog.clear()
            if path.name == "settings.json" and not has_record:  # Only compared.
                error = error_of(synthesise, photos, out, **FEW)
            else:
                error = error_of(check_complete, out, out, settings)
            if error:
                assert len(error.splitlines()) == 1
                assert "choose a different --out or delete it" in error
                reported.append(path.name)
            elif path.name in ("train.json", "test.json"):
                assert path.read_bytes() == data
                assert caplog.messages == [f"Restored {path} from manifest.jsonl"]
                restored.append(path.name)
            else:
                # Without checksums, a changed number in a row is not noticed.
                assert len(damaged) == len(data)
                accepted.append(path.name)
            path.write_bytes(data)
            assert {p: p.read_bytes() for p in original} == original
    lists = [data for path, data in original.items() if path.name in ("train.json", "test.json")]
    assert len(restored) == sum(len([*damaged_versions(data)]) for data in lists)
    assert set(reported) == {path.name for path in original} - {"train.json", "test.json"}
    assert not (accepted and has_record)
    (out / "test.json").unlink()
    synthesise(photos, out, **FEW)
    assert {p: p.read_bytes() for p in original} == original


def test_missing_or_truncated_images_are_reported(photos, tmp_path):
    out = synthesise(photos, tmp_path / "set", **FEW)
    image = sorted((out / "train/Tp").iterdir())[0]
    data = image.read_bytes()
    image.write_bytes(data[:-1])
    with pytest.raises(SynthesisError, match=r"does not match complete\.json in image_bytes"):
        synthesise(photos, out, **FEW)
    image.unlink()
    with pytest.raises(SynthesisError, match=f"is damaged: .*No such file.*{image.name}"):
        synthesise(photos, out, **FEW)
    image.write_bytes(data)
    assert synthesise(photos, out, **FEW) == out


def test_fields_that_an_earlier_recipe_lacks_have_their_defaults(photos, tmp_path):
    out = synthesise(photos, tmp_path / "set", **FEW)
    settings = json.loads((out / "settings.json").read_text())
    assert settings["recipe"].pop("lossless") == 0.0
    (out / "settings.json").write_text(json.dumps(settings))
    (out / "complete.json").unlink()
    assert synthesise(photos, out, **FEW) == out
    with pytest.raises(
        SynthesisError, match=r"different dataset \(recipe\.lossless 0\.0, now 1\.0"
    ):
        synthesise(photos, out, **FEW, recipe=Recipe(lossless=1.0))


def test_interrupted_run_continues(photos, dataset, tmp_path, monkeypatch):
    out, unfinished = tmp_path / "set", tmp_path / "set.unfinished"
    written = []

    def interrupted(shared, job):
        if len(written) == 20:
            raise KeyboardInterrupt
        written.append(job)
        return write_image(shared, job)

    monkeypatch.setattr(WRITE_IMAGE, interrupted)
    with pytest.raises(KeyboardInterrupt):
        synthesise(photos, out, **MANY, labels=photos, workers=1)
    assert not out.exists()
    with open(unfinished / "journal.jsonl", "a", encoding="utf-8") as file:
        file.write('{"side": "train", "index": 20, "na')
    first, second, *_ = sorted((unfinished / "train/Tp").iterdir())
    modified = first.stat().st_mtime_ns
    second.write_bytes(b"half")  # A finished image that was damaged later.
    (unfinished / "train/Tp/splice_00037.jpg").write_bytes(b"half")

    def counted(shared, job):
        written.append(job)
        return write_image(shared, job)

    written.clear()
    monkeypatch.setattr(WRITE_IMAGE, counted)
    synthesise(photos, out, **MANY, labels=photos, workers=1)
    assert len(written) == 50 - 20 + 1
    assert (out / "train/Tp" / first.name).stat().st_mtime_ns == modified
    assert contents(out) == contents(dataset)
    assert not unfinished.exists()


def test_run_interrupted_before_the_final_rename_recreates_no_image(
    photos, dataset, tmp_path, monkeypatch
):
    shutil.copytree(dataset, tmp_path / "set.unfinished")
    monkeypatch.setattr(WRITE_IMAGE, lambda *args: pytest.fail("created an image"))
    out = synthesise(photos, tmp_path / "set", **MANY, labels=photos, workers=1)
    assert contents(out) == contents(dataset)
    assert not (tmp_path / "set.unfinished").exists()


def test_unfinished_dataset_is_rejected_for_other_settings_and_concurrent_runs(photos, tmp_path):
    few = {"test_count": 3, "image_size": SIZE, "workers": 1}
    unfinished = tmp_path / "set.unfinished"
    with FolderLock(unfinished), pytest.raises(BusyError, match="another run is writing to it"):
        synthesise(photos, tmp_path / "set", count=4, **few)
    identity = {"count": 5, "seed": 0}
    (unfinished / "journal.jsonl").write_text(json.dumps({"identity": identity}) + "\n")
    with pytest.raises(RunError, match="cannot be resumed: it was made with different settings"):
        synthesise(photos, tmp_path / "set", count=4, **few)


def test_progress_bars_can_be_disabled(photos, tmp_path, capfd):
    few = {"count": 4, "test_count": 3, "image_size": SIZE, "workers": 1}
    synthesise(photos, tmp_path / "shown", **few)
    assert "images: 100%" in capfd.readouterr().err
    synthesise(photos, tmp_path / "quiet", **few, progress=False)
    assert capfd.readouterr() == ("", "")


def test_dataset_of_other_settings_is_rejected_and_kept(photos, dataset):
    before = contents(dataset)
    with pytest.raises(SynthesisError, match=r"a different dataset \(count 40, now 41\)"):
        synthesise(photos, dataset, **{**MANY, "count": 41}, labels=photos)
    with pytest.raises(SynthesisError, match=r"a different dataset \(seed 5, now 1\)"):
        synthesise(photos, dataset, **{**MANY, "count": 41, "seed": 1}, labels=photos)
    with pytest.raises(
        SynthesisError,
        match=r"a different dataset \(labels\.scenes/0\.png scenes_seg/0\.png, now None\)",
    ):
        synthesise(photos, dataset, **MANY)
    assert contents(dataset) == before


def test_library_update_keeps_complete_datasets_and_rejects_unfinished_ones(
    photos, dataset, tmp_path, monkeypatch
):
    unfinished = tmp_path / "set.unfinished"
    shutil.copytree(dataset, unfinished)
    monkeypatch.setattr(np, "__version__", "0.1")
    synthesise(photos, dataset, **MANY, labels=photos)
    with pytest.raises(
        SynthesisError, match=r"a different dataset \(made_with\.numpy .*, now 0\.1\)"
    ):
        synthesise(photos, tmp_path / "set", **MANY, labels=photos)
    assert unfinished.is_dir()


def test_folder_with_other_files_is_rejected_and_kept(photos, tmp_path):
    few = {"count": 4, "test_count": 3, "image_size": SIZE, "workers": 1}
    for name in ("mine", "later.unfinished"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("years of work")
        with pytest.raises(SynthesisError, match="contains other files; choose an --out"):
            synthesise(photos, tmp_path / name.split(".")[0], **few)
        assert (tmp_path / name / "thesis.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    out = synthesise(photos, tmp_path / "empty", **few)
    assert len(rows_of(out)) == 7


@pytest.mark.parametrize("area", [0.05, 0.1, 0.15])
def test_random_regions_have_the_requested_area(area):
    rng = np.random.default_rng(0)
    areas = [random_region(rng, (128, 96), area).mean() for _ in range(40)]
    assert np.mean(areas) == pytest.approx(area, rel=0.1)


def test_placement_keeps_the_whole_region_in_the_frame():
    rng = np.random.default_rng(0)
    region = random_region(rng, (60, 80), 0.2)
    outline = outline_of(region)
    for scale, angle in ((1, 0), (1.5, 30), (0.5, -70), (9, 10)):
        place, used = draw_placement(rng, outline, (50, 90), scale=scale, angle=angle)
        assert used <= scale
        moved = move_region(region, place, (50, 90))
        assert moved.sum() == pytest.approx(region.sum() * used**2, rel=0.03)
    place, _ = draw_placement(rng, outline, (90, 90), scale=1, angle=0)
    moved = move_region(region, place, (90, 90))
    assert moved.sum() == region.sum()


def test_large_photos_are_cropped_and_small_ones_never_enlarged():
    rng, recipe = np.random.default_rng(0), Recipe()
    for _ in range(20):
        crop = random_crop(rng, (3000, 4000), recipe)
        assert 384 <= crop.width <= 768
        assert (crop.out_height, crop.out_width) == (288, 384)
        crop = random_crop(rng, (200, 150), recipe)
        assert (crop.height, crop.out_height, crop.out_width) == (200, 200, 150)


def test_panoramas_are_used_if_their_images_are_wide_enough(tmp_path):
    """Images of 64 pixels have 8 pixels on the other side for 512x64 and less for 3000x64."""
    for seed, (width, height) in enumerate([(512, 64)] * 4 + [(3000, 64)] * 4):
        cv2.imwrite(str(tmp_path / f"{width}_{seed}.png"), photograph(height, width, seed))
    options = {"count": 30, "image_size": SIZE, "workers": 1, "progress": False}
    out = synthesise(tmp_path, tmp_path / "out", **options)
    names = json.loads((out / "settings.json").read_text())["photos"]
    used = [f"512_{i}.png" for i in range(4)]
    assert sorted(names["train"] + names["test"]) == used
    assert {tuple(row["size"]) for row in rows_of(out)} == {(8, 64)}


def test_unusable_input_gives_one_line_error(photos, tmp_path):
    out = tmp_path / "out"
    for complaint, options in (
        ("0 usable photos are not enough; provide at least 4", {"photos": tmp_path}),
        ("cannot find the folder of photos .*nowhere", {"photos": tmp_path / "nowhere"}),
        ("cannot find the folder of label maps .*nowhere", {"labels": tmp_path / "nowhere"}),
        ("contains no label map for any of 8 usable", {"labels": tmp_path}),
        ("the count is 0, expected at least 1", {"count": 0}),
        ("the image size is 0, expected at least 32", {"image_size": 0}),
        ("the number of workers is 0, expected at least 1", {"workers": 0}),
    ):
        with pytest.raises(SynthesisError, match=complaint) as error:
            synthesise(**{"photos": photos, "out": out, "image_size": SIZE, **options})
        assert "\n" not in str(error.value)
    (tmp_path / "maps/scenes").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "maps/scenes/0.png"), np.ones((9, 9), np.uint8))
    complaint = r"the label map .*0\.png has 9x9 pixels, but its photo has 70x110"
    with pytest.raises(SynthesisError, match=complaint):
        synthesise(photos, out, image_size=SIZE, labels=tmp_path / "maps")
    assert not list(tmp_path.glob("out*"))


def test_label_map_of_a_rotated_photo_has_its_displayed_size(tmp_path):
    write_photographs(tmp_path)
    (tmp_path / "scenes/1.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("1.tif", "1.jpg"):
        Image.fromarray(photograph(110, 80, 9)).save(tmp_path / "scenes" / name, exif=exif)
        sizes, maps = find_usable_photos(tmp_path, tmp_path, Recipe(image_size=SIZE))
        assert sizes[f"scenes/{name}"] == (80, 110)
        assert f"scenes/{name}" in maps
        pixels = Photographs(tmp_path, [f"scenes/{name}"]).read(f"scenes/{name}")
        assert pixels.shape == (80, 110, 3)
        (tmp_path / "scenes" / name).unlink()


def test_photos_that_cannot_be_decoded_are_skipped(photos):
    photographs = Photographs(photos, ["truncated.png", "scenes/1.png"])
    rng = np.random.default_rng(0)
    assert {photographs.draw(rng)[0] for _ in range(9)} == {"scenes/1.png"}
    with pytest.raises(SynthesisError, match=r"none of the 1 photos in .* can be decoded"):
        photographs.draw(rng, exclude="scenes/1.png")


def test_regions_of_real_photos_come_from_label_maps(shared, tmp_path):
    photos, labels = shared("photos/BSDS500"), shared("photos/BSDS500_seg")
    some = tmp_path / "photos"
    some.mkdir()
    for path in sorted(photos.iterdir())[:12]:
        (some / path.name).symlink_to(path)
    out = synthesise(some, tmp_path / "set", count=20, test_count=3, labels=labels, workers=1)
    rows = rows_of(out)
    assert all(sorted(row["size"]) == [256, 384] for row in rows)
    regions = [row["region"] for row in rows if row["kind"] != AUTHENTIC]
    assert sum(region != "random" for region in regions) > len(regions) / 2
