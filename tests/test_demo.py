"""The demo at a small scale: all stages, an interruption, and a second run."""

import csv
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from launching import ForkedTorchrun
from qma_net import demo

SMALL = ["--images", "12", "--test-images", "6", "--image-size", "64", "--epochs", "2"]
SMALL += ["--batch-size", "2"]

FORKS = SimpleNamespace(**vars(subprocess) | {"Popen": ForkedTorchrun})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A demo that was interrupted after its first epoch and then resumed.

    The first training starts torchrun as users do; the scripts after it run in forks.
    """
    out = tmp_path_factory.mktemp("demo") / "run"
    run_benco = demo.run_benco

    def interrupted(script, folder, args, *, title, flags, units):
        flags = [*flags, "--epochs", 1]
        run_benco(script, folder, args, title=title, flags=flags, units=units)
        raise KeyboardInterrupt

    demo.run_benco = interrupted
    try:
        with pytest.raises(KeyboardInterrupt):
            demo.main([*SMALL, "--out", str(out)])
    finally:
        demo.run_benco = run_benco
    assert [p.name for p in (out / "train").glob("*.pth")] == ["checkpoint-0.pth"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "subprocess", FORKS)
        demo.main([*SMALL, "--out", str(out)])
    return out


def test_all_results_are_written(finished):
    log = (finished / "train.log").read_text()
    assert "Resume checkpoint" in log
    assert log.count("[qma-net] run: epochs ") == 2
    with open(finished / "results.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {row["kind"] for row in rows} == {"splice", "copymove", "removal"}
    table = (finished / "results.md").read_text()
    assert "| splice | 2 |" in table
    for picture in ("grid.png", "robustness.png"):
        assert cv2.imread(str(finished / picture)).std() > 10
    assert (finished / "checkpoint/checkpoint-1.pth").is_file()


def test_our_means_equal_those_of_benco(finished):
    """Both processes have the same number of images of each kind, so BenCo's means are exact."""
    with open(finished / "results.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for kind, mean in demo.benco_means(finished / "test").items():
        ours = np.mean([float(row["f1"]) for row in rows if row["kind"] == kind])
        assert ours == pytest.approx(mean, abs=1e-4)


def test_robustness_results_cover_all_levels(finished):
    curves = demo.robustness(finished / "robust")
    assert {attack: len(points) for attack, points in curves.items()} == {
        "None": 1,
        "GaussianBlur": 6,
        "GaussNoise": 6,
        "JpegCompression": 6,
    }


def test_second_run_reuses_all_stages(finished, monkeypatch):
    monkeypatch.setattr(
        demo, "run_benco", lambda *args, **how: pytest.fail("a script was started again")
    )
    before = (finished / "results.csv").read_bytes()
    demo.main([*SMALL, "--out", str(finished)])
    assert (finished / "results.csv").read_bytes() == before


def test_changed_settings_are_rejected(finished):
    with pytest.raises(
        SystemExit, match=r"different settings \(seed 0, now 3\); choose a different folder"
    ):
        demo.main([*SMALL, "--seed", "3", "--out", str(finished)])


def test_settings_of_earlier_versions_are_recognized(tmp_path):
    args = vars(demo._parser().parse_args([*SMALL, "--seed", "3"]))
    del args["out"]
    (tmp_path / "settings.json").write_text(json.dumps(args, indent=1))
    with pytest.raises(SystemExit, match=r"different settings \(seed 3, now 0\)"):
        demo.main([*SMALL, "--out", str(tmp_path)])


def test_failed_script_shows_the_end_of_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "subprocess", FORKS)
    args = demo._parser().parse_args(SMALL)
    with pytest.raises(
        SystemExit, match=r"train.py failed with exit status 1; the last lines of .*train.log"
    ):
        demo.run_benco(
            "train", tmp_path / "x", args, title="training", flags=["--nonsense"], units=1
        )


def test_packaged_photos_are_large_enough(tmp_path):
    folder = demo.copy_packaged_photos(tmp_path)
    photos = sorted(folder.iterdir())
    assert len(photos) == 14
    assert all(min(cv2.imread(str(p)).shape[:2]) >= 256 for p in photos)


def test_test_lists_name_every_image(finished):
    sets = json.loads((finished / "data/test_sets.json").read_text())
    pairs = [
        pair
        for path in sets.values()
        for pair in json.loads(Path(path).read_text(encoding="utf-8"))
    ]
    assert len(pairs) == 6
    assert all(cv2.imread(p) is not None for pair in pairs for p in pair)
