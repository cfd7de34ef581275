"""Realistic synthetic images: native crops, the split by hash, edits and ways of saving."""

import hashlib
import io
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from conftest import photograph
from qma_net.synth.camera import encode_with_tables, found_tables, maybe_reduce
from qma_net.synth.curriculum import ImageSource, stage
from qma_net.synth.manipulate import LARGEST_REMOVAL, kind_at, manipulate
from qma_net.synth.patches import fill_with_patches
from qma_net.synth.photographs import Photographs, find_usable_photos, split_by
from qma_net.synth.recipe import AUTHENTIC, RETOUCH, Recipe, SynthesisError
from qma_net.synth.regions import angular_region
from qma_net.synth.retouch import EDITS, retouch
from qma_net.synth.synthesise import synthesise

# Nothing happens to the whole image.
PLAIN = {
    "rescaled": 0.0, "host_saved_before": 0.0, "toned": 0.0, "reduced": 0.0, "saved_twice": 0.0,
    "blur": 0.0, "noise": 0.0, "decoys": 0.0, "lossless": 1.0, "test_share": 0.25,
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve photos of 110x90 pixels, three of them JPEG files."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        suffix = "jpg" if number < 3 else "png"
        cv2.imwrite(str(folder / f"{number}.{suffix}"), photograph(110, 90, number))
    return folder


def realistic(**changes):
    return replace(stage("realistic"), **{"image_size": 64, **changes})


def pixels(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_hash_assigns_every_photo_by_its_bytes_alone(photos, tmp_path):
    recipe = Recipe(split="hash", test_share=0.3, validation_share=0.2, image_size=64)
    names = list(find_usable_photos(photos, None, recipe)[0])
    sides = split_by(photos, names, recipe, seed=0)
    for name in names:  # The first two hexadecimal digits of the hash, of 256 values.
        first = int(hashlib.sha256((photos / name).read_bytes()).hexdigest()[:2], 16)
        if first not in (76, 127, 128):  # 0.3 * 256 = 76.8 and 0.5 * 256 = 128.
            assert name in sides["test" if first < 76 else "validation" if first < 128 else "train"]
    assert sum(map(len, sides.values())) == 12
    # Neither the crop size, the seed, the folder nor the other photos matter.
    (tmp_path / "moved").mkdir()
    for name in names[::2]:
        (tmp_path / "moved" / name).write_bytes((photos / name).read_bytes())
    other = split_by(tmp_path, [f"moved/{name}" for name in names[::2]], recipe, seed=7)
    for side, expected in sides.items():
        assert other[side] == [f"moved/{name}" for name in expected if name in names[::2]]
    larger = replace(recipe, image_size=100)
    names = list(find_usable_photos(photos, None, larger)[0])
    assert split_by(photos, names, larger, seed=1) == sides
    with pytest.raises(SynthesisError, match="unknown split 'name'; choose seed or hash"):
        split_by(photos, names, replace(recipe, split="name"), seed=0)
    with pytest.raises(SynthesisError, match="not enough for a split by hash"):
        split_by(photos, sides["train"], recipe, seed=0)


def test_photos_of_held_out_folder_are_for_testing_only(photos, tmp_path):
    recipe = Recipe(split="hash", test_share=0.3, validation_share=0.2, image_size=64)
    for folder in ("A", "B"):
        (tmp_path / folder).mkdir()
    names = list(find_usable_photos(photos, None, recipe)[0])
    moved = [f"{'AB'[number % 2]}/{name}" for number, name in enumerate(names)]
    for name, new in zip(names, moved, strict=True):
        (tmp_path / new).write_bytes((photos / name).read_bytes())
    before = split_by(tmp_path, moved, recipe, seed=0)
    sides = split_by(tmp_path, moved, replace(recipe, held_out=("B",)), seed=0)
    for side, members in sides.items():
        own = [name for name in before[side] if name[0] == "A"]
        assert [name for name in members if name[0] == "A"] == own
    assert {name for name in sides["test"] if name[0] == "B"} == set(moved[1::2])
    with pytest.raises(SynthesisError, match=r"no usable photo in the folder C of .* held_out"):
        split_by(tmp_path, moved, replace(recipe, held_out=("B", "C")), seed=0)


def test_native_crop_has_the_pixels_of_its_photo_on_any_grid(photos):
    source = ImageSource(photos, realistic(**PLAIN, untouched=1.0), sizes=[(50, 40), (64, 33)])
    offsets = set()
    for number in range(16):
        epoch = number % 2
        data, mask, history = source.generate(epoch, number)
        crop, photo = history["host_crop"], source.photographs.read(history["host"])
        height, width = [(50, 40), (64, 33)][epoch]
        expected = photo[crop["top"] :, crop["left"] :][:height, :width]
        expected = expected[:, ::-1] if crop["mirrored"] else expected
        assert np.array_equal(pixels(data), expected)
        assert mask.shape == (height, width)
        offsets.add((crop["top"] % 8, crop["left"] % 8))
    assert len(offsets) > 8


def test_photo_that_is_too_small_is_enlarged(photos):
    source = ImageSource(photos, realistic(**PLAIN, untouched=1.0), sizes=[(110, 180)])
    data, _, history = source.generate(0, 0)
    assert pixels(data).shape == (110, 180, 3)
    # The width of 90 doubles; of the height of 110, 55 pixels are used.
    assert [history["host_crop"][key] for key in ("width", "height")] == [90, 55]


def test_photos_are_drawn_in_proportion_to_their_area(tmp_path):
    for name, width in (("a", 300), ("b", 100)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), photograph(40, width))
    photographs, rng = Photographs(tmp_path, ["a.png", "b.png"]), np.random.default_rng(0)
    photographs.weigh_by_area()
    drawn = [photographs.draw(rng)[0] for _ in range(400)]
    assert drawn.count("a.png") / 400 == pytest.approx(0.75, abs=0.06)
    assert {photographs.draw(rng, exclude="a.png")[0] for _ in range(9)} == {"b.png"}
    Photographs(tmp_path, []).weigh_by_area()  # No photo is reserved for validation.


@pytest.mark.parametrize("number", [0, 5, len(found_tables()) - 1])
def test_file_has_the_tables_and_the_sampling_that_were_found_in_photos(number):
    entry = found_tables()[number]
    with Image.open(io.BytesIO(encode_with_tables(photograph(32, 48), number))) as image:
        tables = [list(image.quantization[key]) for key in sorted(image.quantization)]
        (across, down), *chroma = [layer[1:3] for layer in image.layer]
    assert tables == entry["tables"]
    sampling = {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2)}[entry["sampling"]]
    assert (across, down) == sampling
    assert set(chroma) == {(1, 1)}


def test_tables_equal_to_those_of_libjpeg_are_marked():
    """The first entry of libjpeg's luminance table is 16 at quality 50, so it is 8 at 75."""
    marked = {
        entry["libjpeg_quality"]: entry
        for entry in found_tables()
        if "libjpeg_quality" in entry and entry["sampling"] == "4:2:0"
    }
    assert marked[75]["tables"][0][:3] == [8, 6, 5]
    assert sum(marked[75]["found"].values()) >= 900
    assert sum("libjpeg_quality" not in entry for entry in found_tables()) > 30


def test_retouched_pixels_are_inside_the_mask(photos):
    recipe = realistic(**PLAIN, frame=(64, 64), edge_softness=(0.5, 0.5))
    photographs = Photographs(photos, ["4.png", "5.png"])
    edits = set()
    for seed in range(12):
        image, mask, history = manipulate(np.random.default_rng(seed), RETOUCH, photographs, recipe)
        host, _, _ = manipulate(np.random.default_rng(seed), AUTHENTIC, photographs, recipe)
        changed = (image != host).any(axis=2)
        assert not changed[cv2.dilate(mask, np.ones((9, 9), np.uint8)) == 0].any()
        assert changed[mask > 0].mean() > 0.5
        edits.add(history["edit"])
    assert len(edits) > 3
    assert edits <= set(EDITS)


def test_edits_differ_from_each_other():
    image, region = photograph(48, 48), np.ones((48, 48), np.uint8)
    results = {}
    for seed in range(40):
        _, edited, history = retouch(np.random.default_rng(seed), image, region, Recipe())
        results[history["edit"]] = edited
    assert set(results) == set(EDITS)
    assert results["blur"].std() < image.std() < results["sharpen"].std()
    assert len(np.unique(results["mosaic"].reshape(-1, 3), axis=0)) <= 12 * 12


@pytest.mark.parametrize("kind", ["gray", "flat"])
def test_every_edit_changes_pixels_of_the_region(kind):
    """Other colors did not change a gray photo, nor a blur a flat region, but masks marked them."""
    image = np.repeat(photograph(48, 48)[..., :1], 3, axis=2)
    region = np.zeros((48, 48), np.uint8)
    region[10:30, 10:30] = 1
    if kind == "flat":
        image[:] = 120
    edits = set()
    for seed in range(40):
        _, edited, history = retouch(np.random.default_rng(seed), image, region, Recipe())
        assert (edited != image)[region > 0].any()
        edits.add(history["edit"])
    assert edits == ({"tones", "noise"} if kind == "flat" else set(EDITS) - {"colors"})


def test_kinds_include_retouching_only_if_the_recipe_asks_for_it():
    recipe = realistic(untouched=0.0, kinds=(0.5, 0.3, 0.2), retouched=0.1)
    kinds = [kind_at("train", number, recipe) for number in range(1000)]
    shares = {"splice": 0.45, "copymove": 0.27, "removal": 0.18, RETOUCH: 0.1}
    for kind, share in shares.items():
        assert kinds.count(kind) / 1000 == pytest.approx(share, abs=0.005)
    tests = [kind_at("test", number, recipe) for number in range(8)]
    assert all(tests.count(kind) == 2 for kind in shares)
    assert RETOUCH not in {kind_at("test", number, Recipe()) for number in range(40)}


def test_quadrilaterals_have_their_area_and_fit_into_the_frame():
    rng = np.random.default_rng(0)
    shares, boxes = [], []
    for _ in range(60):
        region = angular_region(rng, (120, 160), 0.1)
        shares.append(region.mean())
        _, _, width, height = cv2.boundingRect(region)
        boxes.append(region.sum() == width * height)
    assert np.median(shares) == pytest.approx(0.1, abs=0.012)
    assert 15 < sum(boxes) < 45  # Half of them are upright rectangles.
    assert angular_region(rng, (40, 200), 0.9).any()


def test_patches_continue_a_periodic_texture():
    """Stripes of eight pixels: only patches at the same phase agree with the surroundings."""
    row = np.repeat([[40, 90, 200], [220, 160, 20]], 4, axis=0)
    image = np.tile(row, (96, 12, 1)).astype(np.uint8)
    region = np.zeros((96, 96), np.uint8)
    region[30:60, 34:67] = 1
    damaged = np.where(region[..., None] > 0, 0, image).astype(np.uint8)
    assert np.array_equal(fill_with_patches(damaged, region), image)
    everything = np.ones((96, 96), np.uint8)
    assert fill_with_patches(image, everything).shape == image.shape  # Nothing to copy from.


def test_reduction_scales_image_and_mask_alike():
    """A square of 40 of 100 pixels, downscaled to half the size, is a square of 20 of 50."""
    image, mask = photograph(100, 100), np.zeros((100, 100), np.uint8)
    mask[20:60, 30:70] = 255
    image[mask > 0] = (0, 0, 255)
    recipe = Recipe(native=True, saved_before_reduction=1.0, final_quality=(95, 95))
    reduced, smaller, drawn = maybe_reduce(np.random.default_rng(1), image, mask, (50, 50), recipe)
    expected = np.zeros((50, 50), np.uint8)
    expected[10:30, 15:35] = 255
    assert np.array_equal(smaller, expected)
    assert reduced.shape == (50, 50, 3)
    assert np.abs(reduced[12:28, 17:33].astype(int) - (0, 0, 255)).max() < 25
    assert drawn["saved_before_reduction"] == "quality 95"
    thin = np.zeros((100, 100), np.uint8)
    thin[:, 50] = 255
    assert maybe_reduce(np.random.default_rng(1), image, thin, (30, 30), recipe)[1].any()
    same = maybe_reduce(np.random.default_rng(1), image, mask, (100, 100), Recipe(native=True))
    assert np.array_equal(same[0], image)
    assert same[2] == {}


def test_realistic_images_are_deterministic_and_of_the_size_of_their_epoch(photos):
    recipe = realistic(test_share=0.25, reduced=0.6)
    sizes = [(48, 64), (50, 38)]
    first, second = (ImageSource(photos, recipe, sizes=sizes) for _ in range(2))
    suffixes = set()
    for number in range(24):
        data, mask, history = first.generate(number % 2, number)
        assert second.generate(number % 2, number)[0] == data
        assert pixels(data).shape[:2] == mask.shape == sizes[number % 2]
        assert mask.any() == (history["kind"] != AUTHENTIC)
        suffixes.add(data[:2])
    assert suffixes == {b"\xff\xd8", b"\x89P"}


def test_manifest_describes_how_each_file_was_saved(photos, tmp_path):
    recipe = realistic(
        **PLAIN | {"lossless": 0.3}, frame=(40, 56), saved_before_reduction=1.0, found_tables=0.5
    )
    options = {"count": 24, "recipe": recipe, "workers": 1, "progress": False}
    out = synthesise(photos, tmp_path / "set", **options)
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    ways = set()
    for row in rows:
        assert row["size"] == [40, 56]
        assert not row.keys() & {"reduced_from", "saved_before_reduction"}
        assert row["name"].endswith(f".{row['format']}")
        by_quality = row["format"] == "jpg" and "final_tables" not in row
        assert by_quality == (row["final_quality"] is not None)
        assert by_quality == (row["final_full_colour"] is not None)
        ways.add((row["format"], by_quality))
    assert ways == {("png", False), ("jpg", False), ("jpg", True)}


def test_removal_is_limited_if_all_regions_of_the_recipe_are_larger(photos):
    recipe = realistic(**PLAIN, frame=(80, 80), area=(0.2, 0.4), angular=0.0, hard_edges=1.0)
    photographs = Photographs(photos, ["4.png", "5.png"])
    _, mask, _ = manipulate(np.random.default_rng(0), "removal", photographs, recipe)
    assert (mask > 0).mean() == pytest.approx(LARGEST_REMOVAL, abs=0.02)


def test_header_of_each_photo_is_read_once(photos, tmp_path, monkeypatch):
    read = []

    def counted(path):
        read.append(path)
        return (110, 90)

    monkeypatch.setattr("qma_net.synth.photographs._image_size", counted)
    recipe = realistic(test_share=0.25)
    ImageSource(photos, recipe)
    assert sorted(read) == sorted(photos.iterdir())
    read.clear()
    options = {"count": 2, "recipe": recipe, "workers": 1, "progress": False}
    synthesise(photos, tmp_path / "set", **options)
    assert sorted(read) == sorted(photos.iterdir())


def test_copies_have_the_copy_alone_as_mask(photos):
    recipe = replace(
        stage("copies"), **PLAIN, frame=(80, 80), resampled=0.0, area=(0.02, 0.05), hard_edges=1.0
    )
    photographs = Photographs(photos, ["4.png", "5.png"])
    rng, same = np.random.default_rng(3), np.random.default_rng(3)
    image, mask, history = manipulate(rng, "copymove", photographs, recipe)
    host, _, _ = manipulate(same, AUTHENTIC, photographs, recipe)
    assert mask.any()
    assert not (image != host).any(axis=2)[mask == 0].any()
    dx, dy = (int(row[2]) for row in history["place"])
    assert np.array_equal(image[mask > 0], np.roll(host, (dy, dx), axis=(0, 1))[mask > 0])


def test_benco_dataset_changes_its_size_with_the_epoch(photos, tmp_path):
    from qma_net.benco import SynthDataset

    content = {"photos": str(photos), "stage": "realistic", "sizes": [[48, 64], [50, 38]]}
    content["recipe"] = {"test_share": 0.25, "image_size": 64}
    (tmp_path / "fresh.yaml").write_text(yaml.safe_dump(content))
    dataset = SynthDataset(str(tmp_path / "fresh.yaml"), output_size=(96, 96), is_padding=True)
    for epoch, size in ((0, (48, 64)), (1, (50, 38)), (2, (48, 64))):
        dataset.set_epoch(epoch)
        item = dataset[epoch]
        assert tuple(item["image"].shape[1:]) == tuple(item["mask"].shape[1:]) == size
        assert item["shape_mask"].all()  # Nothing is padded.
    (tmp_path / "fresh.yaml").write_text(yaml.safe_dump(content | {"sizes": [[1]]}))
    with pytest.raises(SynthesisError, match=r"invalid sizes: \[\[1\]\] in"):
        ImageSource.read(tmp_path / "fresh.yaml")
    with pytest.raises(SynthesisError, match="sizes need a recipe with native: true"):
        ImageSource(photos, Recipe(image_size=64), sizes=[(64, 64)])
