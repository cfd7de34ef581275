"""Images made fresh while training, stage by stage, through BenCo's loader and script."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml

from conftest import photograph
from launching import start, write_tampered_set
from qma_net.launch.checkpoints import saved_epochs
from qma_net.modeling.config import Preprocessing
from qma_net.synth.curriculum import Source, changed, stage, stages
from qma_net.synth.recipe import UNTOUCHED, Recipe, SynthesisError
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


def test_every_stage_takes_over_what_the_one_before_says():
    found = stages()
    assert list(found) == NAMES
    assert all(recipe.square and recipe.image_size == 128 for recipe in found.values())
    assert found["one-trace"].donor_saved_before == 0
    assert found["resampled"].donor_saved_before == found["histories"].donor_saved_before == 0.7
    assert (found["everything"].resampled, found["everything"].lossless) == (0.6, 0.25)
    with pytest.raises(SynthesisError, match="got stage 'last', expected one of one-trace, hist"):
        stage("last")


def test_an_image_is_of_its_epoch_and_number_alone(photos):
    recipe = replace(stage("everything"), image_size=64)
    one, other = Source(photos, recipe), Source(photos, recipe)
    first = [one.make(0, number) for number in range(12)]
    for number in reversed(range(12)):
        data, mask, history = other.make(0, number)
        assert data == first[number][0]
        assert np.array_equal(mask, first[number][1])
        assert history == first[number][2]
    assert all(one.make(1, number)[0] != first[number][0] for number in range(12))
    assert other.make(0, 3)[0] != Source(photos, recipe, seed=1).make(0, 3)[0]
    kinds = {history["kind"] for _, _, history in first}
    assert kinds >= {UNTOUCHED, "splice"}
    for data, mask, history in first:
        assert pixels(data).shape == (64, 64, 3)
        assert (mask > 0).any() == (history["kind"] != UNTOUCHED)
        assert data.startswith(b"\xff\xd8" if history["final_quality"] else b"\x89PNG")


def test_the_photographs_kept_for_testing_are_never_used(photos, tmp_path):
    from qma_net.synth.synthesise import synthesise

    recipe = replace(stage("one-trace"), image_size=64)
    out = synthesise(photos, tmp_path / "set", recipe=recipe, count=3, test_count=3, seed=5)
    kept = json.loads((out / "settings.json").read_text())["photos"]["test"]
    source = Source(photos, recipe, seed=5)
    assert kept
    assert not set(kept) & set(source.photographs.names)


def test_a_set_of_a_stage_is_written(photos, tmp_path):
    from qma_net import cli

    counts = ["--count", "3", "--test-count", "3", "--image-size", "64", "--workers", "1"]
    out = ["--photos", str(photos), "--out", str(tmp_path / "set")]
    cli.main(["data", "synth", "--stage", "histories", *out, *counts])
    kept = json.loads((tmp_path / "set/settings.json").read_text())["recipe"]
    assert (kept["aligned"], kept["image_size"]) == (0.3, 64)


def test_decoys_are_untouched_and_not_as_they_were(photos):
    recipe = replace(stage("everything"), image_size=64, untouched=1.0, decoys=1.0, lossless=1.0)
    changed_from = []
    for number in range(20):
        data, mask, history = Source(photos, recipe).make(0, number)
        plain = Source(photos, replace(recipe, decoys=0.0)).make(0, number)
        assert history["decoy"]
        assert not mask.any()
        changed_from.append(np.abs(pixels(data).astype(int) - pixels(plain[0])).mean())
    assert 0 < np.median(changed_from) < 20


def test_an_aligned_splice_falls_onto_the_host_s_grid(photos):
    recipe = replace(stage("one-trace"), image_size=64, kinds=(1.0, 0.0, 0.0), untouched=0.0)
    shifts = {}
    for aligned in (0.0, 1.0):
        source = Source(photos, replace(recipe, aligned=aligned))
        places = [np.array(source.make(0, number)[2]["place"])[:, 2] for number in range(20)]
        shifts[aligned] = [(place % 8).any() for place in places]
    assert not any(shifts[1.0])
    assert any(shifts[0.0])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"photos": 3}, "got photos 3 in"),
        ({"stage": "x"}, "got stage 'x', expected one of one-trace"),
        ({"recipe": {"zoom": 3}}, r"got zoom: 3 in .*, expected such as \(0.5, 1.0\)"),
        ({"recipe": {"zoom": [1]}}, "got zoom"),
        ({"recipe": {"blurr": 1.0}}, "got 'blurr' in .*, expected fields of a recipe: aligned"),
        ({"recipe": [1]}, "is no mapping"),
        ({"seed": -1}, "got seed -1 in"),
        ({"colour": 1}, "expected a mapping with photos"),
        ({"photos": "none"}, "expected a folder of photographs"),
    ],
)
def test_what_is_no_source_is_one_line(photos, tmp_path, content, line):
    with pytest.raises(SynthesisError, match=line):
        Source.read(write_source(tmp_path, **content))


def test_what_is_no_yaml_is_one_line(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"a: [\xff")
    with pytest.raises(SynthesisError, match="expected a YAML file"):
        Source.read(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_text("photos: &a [x]\nlabels: *a\n")
    with pytest.raises(SynthesisError, match="anchors are not read"):
        Source.read(tmp_path / "x.yaml")


def test_a_field_keeps_its_kind():
    assert changed(Recipe(), {"zoom": [1, 2]}, "x").zoom == (1, 2)
    for wrong in ({"square": 1}, {"image_size": 1.5}, {"blur": float("nan")}, {"blur": True}):
        with pytest.raises(SynthesisError, match="expected such as"):
            changed(Recipe(), wrong, "x")


def test_a_dataset_of_benco_gives_the_pixels_as_they_were_made(photos, tmp_path):
    from qma_net.benco import SynthDataset

    path = write_source(tmp_path, stage="everything")
    for options in ({"is_resizing": True}, {"is_padding": True}):
        dataset = SynthDataset(
            str(path), output_size=(64, 64), common_transforms=pytest.fail, edge_width=7, **options
        )
        dataset.set_epoch(2)
        for number in (0, 1, 4):
            item = dataset[number]
            data, mask, _ = Source.read(path, image_size=64).make(2, number)
            mean, std = (np.array(v) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
            shown = item["image"].numpy().transpose(1, 2, 0) * std + mean
            np.testing.assert_allclose(shown * 255, pixels(data)[..., ::-1], atol=0.01)
            assert np.array_equal(item["mask"][0] > 0.5, mask > 0)
            assert item["label"] == int(mask.any())


def test_native_crops_are_pixels_of_their_image(tmp_path):
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


def test_a_training_on_fresh_images_through_benco_s_script(photos, tmp_path):
    """Mixed with a real set, two epochs, killed by nothing: and the checkpoint says native."""
    write_tampered_set(tmp_path, count=4)
    write_source(tmp_path, stage="histories")
    protocol = [["SynthDataset", "fresh.yaml"], ["NativeDataset", "set"]]
    (tmp_path / "protocol.json").write_text(json.dumps(protocol))
    flags = ["--model", "QMANet", "--size", "tiny", "--views", "srm", "--image_size", 64]
    flags += ["--data_path", "protocol.json", "--test_data_path", "sets.json", "--fit", "native"]
    flags += ["--batch_size", 4, "--accum_iter", 1, "--warmup_epochs", 1, "--lr", 1e-4, "--bce", 1]
    flags += ["--num_workers", 0, "--no_pin_mem", "--epochs", 2, "--output_dir", "run"]
    done = start(["train", *flags, "--log_dir", "run"], tmp_path, prepare=short)
    assert "data: fresh 100,000, set 4; 16 drawn an epoch" in done.stdout
    assert saved_epochs(tmp_path / "run") == [0, 1]
    rows = [json.loads(line) for line in (tmp_path / "run/log.txt").read_text().splitlines()]
    assert all("train_bce_loss" in row for row in rows)
    kept = Checkpoint.read(tmp_path / "run/checkpoint-1.pth", mapped=True).preprocessing
    assert kept == Preprocessing(64, "native")
    names = (tmp_path / "names").read_text().split()
    assert {name.split("_")[1] for name in names if "_" in name} == {"0", "1"}
    flags[flags.index("protocol.json")] = "set"
    done = start(["train", *flags, "--log_dir", "run"], tmp_path, prepare=short, check=False)
    assert "got --fit native and --data_path set with no protocol" in done.stderr


def short():
    """Few images an epoch, a tiny model, and the names that it is shown."""
    from IMDLBenCo.datasets.balanced_dataset import BalancedDataset

    from conftest import TINY
    from qma_net import benco
    from qma_net.modeling import config

    config.SIZES["tiny"] = TINY
    init, forward = BalancedDataset.__init__, benco.QMANet.forward

    def few(self, path=None, sample_number=8, *args, **kwargs):
        init(self, path, sample_number, *args, **kwargs)

    def noted(self, *args, **kwargs):
        if self.training:
            with open("names", "a") as file:
                file.write("\n".join(kwargs["name"]) + "\n")
        return forward(self, *args, **kwargs)

    BalancedDataset.__init__, benco.QMANet.forward = few, noted
