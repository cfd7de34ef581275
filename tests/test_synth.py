"""The dataset maker: exact masks, disjoint photographs, the same bytes for a seed."""

import json

import cv2
import numpy as np
import pytest

from conftest import photograph
from qma_net.data import synth


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(6):
        cv2.imwrite(str(folder / f"{i}.png"), photograph(150, 200, i))
    cv2.imwrite(str(folder / "small.png"), photograph(40, 40))
    (folder / "notes.txt").write_text("not a photograph")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 not much of a picture")
    return folder


@pytest.fixture(scope="module")
def made(photos, tmp_path_factory):
    return synth.synthesise(photos, tmp_path_factory.mktemp("out") / "set", 20, 9, 64, seed=5)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_layout_is_benco_s_and_complete(made):
    for side, count in (("train", 20), ("test", 9)):
        images = sorted((made / side / "Tp").iterdir())
        masks = sorted((made / side / "Gt").iterdir())
        assert len(images) == len(masks) == count
        assert [p.stem for p in images] == [p.stem for p in masks]
    assert {row["kind"] for row in rows_of(made)} == set(synth.KIND_SHARES)
    test_kinds = [row["kind"] for row in rows_of(made) if row["side"] == "test"]
    assert all(test_kinds.count(kind) == 3 for kind in synth.KIND_SHARES)


def test_benco_loads_it(made):
    from IMDLBenCo.datasets import ManiDataset

    dataset = ManiDataset(str(made / "train"), is_resizing=True, output_size=(64, 64))
    item = dataset[3]
    assert item["image"].shape == (3, 64, 64)
    assert item["label"] == 1
    assert set(item["mask"].unique().tolist()) == {0.0, 1.0}


def test_masks_are_two_valued_and_have_the_stated_area(made):
    for row in rows_of(made):
        mask = cv2.imread(
            str(made / row["side"] / "Gt" / row["name"].replace(".jpg", ".png")),
            cv2.IMREAD_UNCHANGED,
        )
        assert mask.shape == (64, 64)
        assert set(np.unique(mask)) == {0, 255}
        assert (mask > 0).mean() == pytest.approx(row["area"])
        assert 0.03 < row["area"] < 0.18  # 5 to 15 %, drawn as pixels


def test_no_photograph_is_on_both_sides(made):
    sides = {"train": set(), "test": set()}
    for row in rows_of(made):
        sides[row["side"]] |= {row["host"], row.get("donor", row["host"])}
    assert sides["train"]
    assert sides["test"]
    assert not sides["train"] & sides["test"]


def test_only_the_masked_pixels_differ_from_the_host(photos):
    pool = {f"{i}.png": cv2.imread(str(photos / f"{i}.png")) for i in range(3)}
    recipe = synth.Recipe(image_size=64)
    for kind in synth.KIND_SHARES:
        image, mask, _ = synth.manipulate(np.random.default_rng(7), kind, pool, recipe)
        # the same history without its last step: a region of nothing leaves the host
        host = replay_host(np.random.default_rng(7), pool, recipe)
        far = cv2.dilate(mask, np.ones((9, 9), np.uint8)) == 0
        assert np.array_equal(image[far], host[far])
        changed = (image != host).any(axis=2)[mask > 0].mean()
        assert changed > (0.3 if kind == "removal" else 0.8)


def replay_host(rng, pool, recipe):
    names = sorted(pool)
    name = names[rng.integers(len(names))]
    quality = int(rng.integers(*recipe.host_quality, endpoint=True))
    return synth._resave(synth._crop(rng, pool[name], recipe), quality)


def test_a_seed_gives_the_same_bytes_and_another_gives_others(photos, made, tmp_path):
    again = synth.synthesise(photos, tmp_path / "again", 20, 9, 64, seed=5)
    other = synth.synthesise(photos, tmp_path / "other", 20, 9, 64, seed=6)
    files = sorted(p.relative_to(made) for p in made.rglob("*.[jp][pn]g"))
    assert len(files) == 58
    assert all((made / f).read_bytes() == (again / f).read_bytes() for f in files)
    assert any((made / f).read_bytes() != (other / f).read_bytes() for f in files)


def test_an_image_depends_on_its_number_not_on_how_many_there_are(photos, made, tmp_path):
    fewer = synth.synthesise(photos, tmp_path / "fewer", 20, 3, 64, seed=5)
    files = sorted(p.relative_to(fewer) for p in (fewer / "train").rglob("*.jpg"))
    assert all((made / f).read_bytes() == (fewer / f).read_bytes() for f in files)


def test_a_finished_set_is_kept_and_an_unfinished_one_is_not_believed(photos, made, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in made.rglob("*")}
    synth.synthesise(photos, made, 20, 9, 64, seed=5)
    assert before == {p: p.stat().st_mtime_ns for p in made.rglob("*")}
    (tmp_path / "set.unfinished/train/Tp").mkdir(parents=True)
    (tmp_path / "set.unfinished/train/Tp/splice_00000.jpg").write_bytes(b"half")
    synth.synthesise(photos, tmp_path / "set", 4, 3, 64)
    assert len(list((tmp_path / "set/train/Tp").iterdir())) == 4
    assert not (tmp_path / "set.unfinished").exists()


@pytest.mark.parametrize("area", [0.05, 0.1, 0.15])
def test_regions_have_the_area_asked_for(area):
    rng = np.random.default_rng(0)
    areas = [synth.random_region(rng, 128, area).mean() for _ in range(40)]
    assert np.mean(areas) == pytest.approx(area, rel=0.1)


def test_too_few_photographs_is_one_clear_line(tmp_path):
    with pytest.raises(synth.SynthesisError, match="got 0 usable photographs, expected at least 4"):
        synth.synthesise(tmp_path, tmp_path / "out")
    with pytest.raises(synth.SynthesisError, match=r"got .*nowhere, expected a folder"):
        synth.synthesise(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()
