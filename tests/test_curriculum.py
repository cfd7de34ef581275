"""Synthetic images that are generated during training, and the stages of the curriculum."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml

from conftest import photograph
from launching import start, write_tampered_set
from qma_net.core.files import ContentError
from qma_net.launch.checkpoints import saved_epochs
from qma_net.modeling.config import Preprocessing
from qma_net.synth.curriculum import ImageSource, stage, stages, with_changes
from qma_net.synth.recipe import AUTHENTIC, Recipe, SynthesisError
from qma_net.weights.checkpoint import Checkpoint

NAMES = ["one-trace", "histories", "resampled", "laundered", "everything"]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        cv2.imwrite(str(folder / f"{number}.png"), photograph(160, 150, number))
    return folder


def write_source(folder, **content):
    path = folder / "fresh.yaml"
    path.write_text(yaml.safe_dump({"photos": "photos", **content}))
    return path


def pixels(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_every_stage_inherits_from_the_previous_one():
    recipes = stages()
    assert list(recipes) == [*NAMES, "realistic", "copies"]
    assert all(recipes[name].square and recipes[name].image_size == 128 for name in NAMES)
    assert recipes["one-trace"].donor_saved_before == 0
    assert recipes["resampled"].donor_saved_before == recipes["histories"].donor_saved_before == 0.7
    assert (recipes["everything"].resampled, recipes["everything"].lossless) == (0.6, 0.25)
    with pytest.raises(SynthesisError, match="no stage 'last'; choose from one-trace, hist"):
        stage("last")


def test_image_depends_only_on_epoch_and_index(photos):
    recipe = replace(stage("everything"), image_size=64)
    source, other = ImageSource(photos, recipe), ImageSource(photos, recipe)
    first = [source.generate(0, number) for number in range(12)]
    for number in reversed(range(12)):
        data, mask, history = other.generate(0, number)
        assert data == first[number][0]
        assert np.array_equal(mask, first[number][1])
        assert history == first[number][2]
    assert all(source.generate(1, number)[0] != first[number][0] for number in range(12))
    assert other.generate(0, 3)[0] != ImageSource(photos, recipe, seed=1).generate(0, 3)[0]
    kinds = {history["kind"] for _, _, history in first}
    assert kinds >= {AUTHENTIC, "splice"}
    for data, mask, history in first:
        assert pixels(data).shape == (64, 64, 3)
        assert (mask > 0).any() == (history["kind"] != AUTHENTIC)
        assert data.startswith(b"\xff\xd8" if history["format"] == "jpg" else b"\x89PNG")


def test_photos_reserved_for_testing_are_not_used(photos, tmp_path):
    from qma_net.synth.synthesise import synthesise

    recipe = replace(stage("one-trace"), image_size=64)
    out = synthesise(photos, tmp_path / "set", recipe=recipe, count=3, test_count=3, seed=5)
    reserved = json.loads((out / "settings.json").read_text())["photos"]["test"]
    source = ImageSource(photos, recipe, seed=5)
    assert reserved
    assert not set(reserved) & set(source.photographs.names)


def test_dataset_of_a_stage_is_created_by_the_command(photos, tmp_path):
    from qma_net import cli

    counts = ["--count", "3", "--test-count", "3", "--image-size", "64", "--workers", "1"]
    out = ["--photos", str(photos), "--out", str(tmp_path / "set")]
    cli.main(["data", "synth", "--stage", "histories", *out, *counts])
    recipe = json.loads((tmp_path / "set/settings.json").read_text())["recipe"]
    assert (recipe["aligned"], recipe["image_size"]) == (0.3, 64)


def test_decoys_have_an_empty_mask_and_changed_pixels(photos):
    recipe = replace(stage("everything"), image_size=64, untouched=1.0, decoys=1.0, lossless=1.0)
    differences = []
    for number in range(20):
        data, mask, history = ImageSource(photos, recipe).generate(0, number)
        plain = ImageSource(photos, replace(recipe, decoys=0.0)).generate(0, number)
        assert history["decoy"]
        assert not mask.any()
        differences.append(np.abs(pixels(data).astype(int) - pixels(plain[0])).mean())
    assert 0 < np.median(differences) < 20


def test_aligned_splices_are_on_the_grid_of_the_host(photos):
    recipe = replace(stage("one-trace"), image_size=64, kinds=(1.0, 0.0, 0.0), untouched=0.0)
    shifts = {}
    for aligned in (0.0, 1.0):
        source = ImageSource(photos, replace(recipe, aligned=aligned))
        places = [np.array(source.generate(0, number)[2]["place"])[:, 2] for number in range(20)]
        shifts[aligned] = [(place % 8).any() for place in places]
    assert not any(shifts[1.0])
    assert any(shifts[0.0])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"photos": 3}, "invalid photos: 3 in .*; expected a string"),
        ({"stage": "x"}, "no stage 'x'; choose from one-trace"),
        ({"recipe": {"zoom": 3}}, r"invalid zoom: 3 in .*; expected a value like \(0.5, 1.0\)"),
        ({"recipe": {"zoom": [1]}}, r"invalid zoom: \[1\] in"),
        ({"recipe": {"held_out": "A"}}, "invalid held_out: 'A' in .*; expected a list of names"),
        ({"recipe": {"held_out": [1]}}, r"invalid held_out: \[1\] in"),
        ({"recipe": {"inpainting": []}}, r"invalid inpainting: \[\] in"),
        ({"recipe": {"blurr": 1.0}}, "unknown recipe field 'blurr' in .*; choose from aligned"),
        ({"recipe": [1]}, "must be a mapping"),
        ({"seed": -1}, "invalid seed: -1 in"),
        ({"stage": "realistic", "sizes": [[0, 64]]}, "invalid size of images: 0x64; expected at l"),
        ({"stage": "realistic", "recipe": {"frame": [64, -1]}}, "invalid size of images: 64x-1;"),
        ({"colour": 1}, "must be a mapping with photos: FOLDER"),
        ({"photos": "none"}, "cannot find the folder of photos"),
    ],
)
def test_invalid_source_gives_one_line_error(photos, tmp_path, content, line):
    with pytest.raises(SynthesisError, match=line):
        ImageSource.read(write_source(tmp_path, **content))


def test_invalid_yaml_gives_one_line_error(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"a: [\xff")
    with pytest.raises(ContentError, match="expected a YAML file"):
        ImageSource.read(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_text("photos: &a [x]\nlabels: *a\n")
    with pytest.raises(ContentError, match="anchors and aliases are not supported"):
        ImageSource.read(tmp_path / "x.yaml")


def test_fields_of_a_recipe_keep_their_type():
    assert with_changes(Recipe(), {"zoom": [1, 2]}, "x").zoom == (1, 2)
    assert with_changes(Recipe(), {"held_out": ["A"]}, "x").held_out == ("A",)
    assert with_changes(Recipe(), {"held_out": []}, "x").held_out == ()
    for wrong in ({"square": 1}, {"image_size": 1.5}, {"blur": float("nan")}, {"blur": True}):
        with pytest.raises(SynthesisError, match="expected a value like"):
            with_changes(Recipe(), wrong, "x")


def test_synth_dataset_returns_the_generated_pixels(photos, tmp_path):
    from qma_net.benco import SynthDataset

    path = write_source(tmp_path, stage="everything")
    for options in ({"is_resizing": True}, {"is_padding": True}):
        dataset = SynthDataset(
            str(path), output_size=(64, 64), common_transforms=pytest.fail, edge_width=7, **options
        )
        dataset.set_epoch(2)
        for number in (0, 1, 4):
            item = dataset[number]
            data, mask, _ = ImageSource.read(path, image_size=64).generate(2, number)
            mean, std = (np.array(v) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
            shown = item["image"].numpy().transpose(1, 2, 0) * std + mean
            np.testing.assert_allclose(shown * 255, pixels(data)[..., ::-1], atol=0.01)
            assert np.array_equal(item["mask"][0] > 0.5, mask > 0)
            assert item["label"] == int(mask.any())


def test_native_crops_consist_of_pixels_of_their_image(tmp_path):
    from qma_net.benco import NativeDataset

    write_tampered_set(tmp_path, count=3)
    dataset = NativeDataset(
        str(tmp_path / "set"), output_size=(32, 32), common_transforms=pytest.fail, is_resizing=True
    )
    seen = 0
    for _ in range(30):
        image, mask, label, *_ = dataset._get_image(1)
        assert image.shape == mask.shape == (32, 32, 3)
        assert label == int((mask > 127).any())
        seen += label
    whole = cv2.cvtColor(cv2.imread(str(tmp_path / "set/Tp/1.jpg")), cv2.COLOR_BGR2RGB)
    corner = {bytes(row) for row in whole.reshape(-1, 3)}
    assert {bytes(row) for row in image.reshape(-1, 3)} <= corner
    assert seen > 15
    large = NativeDataset(str(tmp_path / "set"), output_size=(96, 96), is_resizing=True)
    assert large[0]["image"].shape == (3, 96, 96)


def test_benco_script_trains_on_synthetic_images(photos, tmp_path):
    """Train for two epochs with a real dataset; the checkpoint records native crops."""
    write_tampered_set(tmp_path, count=4)
    write_source(tmp_path, stage="histories")
    protocol = [["SynthDataset", "fresh.yaml"], ["NativeDataset", "set"]]
    (tmp_path / "protocol.json").write_text(json.dumps(protocol))
    flags = ["--model", "QMANet", "--size", "tiny", "--views", "srm", "--image_size", 64]
    flags += ["--data_path", "protocol.json", "--test_data_path", "sets.json", "--fit", "native"]
    flags += ["--batch_size", 4, "--accum_iter", 1, "--warmup_epochs", 1, "--lr", 1e-4, "--bce", 1]
    flags += ["--num_workers", 0, "--no_pin_mem", "--epochs", 2, "--output_dir", "run"]
    done = start(["train", *flags, "--log_dir", "run"], tmp_path, prepare=short)
    assert "data: fresh 100,000, set 4; 16 drawn per epoch" in done.stdout
    assert saved_epochs(tmp_path / "run") == [0, 1]
    rows = [json.loads(line) for line in (tmp_path / "run/log.txt").read_text().splitlines()]
    assert all("train_bce_loss" in row for row in rows)
    recorded = Checkpoint.read(tmp_path / "run/checkpoint-1.pth", mapped=True).preprocessing
    assert recorded == Preprocessing(64, "native")
    names = (tmp_path / "names").read_text().split()
    assert {name.split("_")[1] for name in names if "_" in name} == {"0", "1"}
    flags[flags.index("protocol.json")] = "set"
    done = start(["train", *flags, "--log_dir", "run"], tmp_path, prepare=short, check=False)
    assert "--fit native cannot use --data_path set, which is not a protocol" in done.stderr


def short():
    """Use few images per epoch and a tiny model, and record the names of its images."""
    from IMDLBenCo.datasets.balanced_dataset import BalancedDataset

    from conftest import TINY
    from qma_net import benco
    from qma_net.modeling import config

    config.SIZES["tiny"] = TINY
    init, forward = BalancedDataset.__init__, benco.QMANet.forward

    def few(self, path=None, sample_number=8, *args, **kwargs):
        init(self, path, sample_number, *args, **kwargs)

    def recorded_forward(self, *args, **kwargs):
        if self.training:
            with open("names", "a", encoding="utf-8") as file:
                file.write("\n".join(kwargs["name"]) + "\n")
        return forward(self, *args, **kwargs)

    BalancedDataset.__init__, benco.QMANet.forward = few, recorded_forward
