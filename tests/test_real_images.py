"""The evaluation of small models on the halves of the real images: benchmarks.evidence.real."""

import hashlib
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks.evidence import real
from qma_net.core.errors import QMANetError
from qma_net.data.listing import NEGATIVE
from qma_net.evaluation.metrics import PIXEL
from qma_net.modeling.qma_net import image_score


@pytest.fixture
def dataset(tmp_path):
    """Create the set ``photos`` with two images; return it and their assignment to the halves."""
    folder, assigned = tmp_path / "photos", {}
    for name, half, level in (("a", "validation", 10), ("b", "test", 20)):
        for kind, pixels in (("Tp", np.full((8, 8, 3), level)), ("Gt", np.zeros((8, 8)))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / kind / f"{name}.png"), pixels.astype(np.uint8))
        digest = hashlib.sha256((folder / "Tp" / f"{name}.png").read_bytes()).hexdigest()
        assigned["photos", digest] = {"set": "photos", "image": f"{name}.png", "half": half}
    return folder, assigned


def test_every_image_belongs_to_one_half_with_about_half_of_every_set():
    rows = list(real.read_split(real.SPLIT).values())
    halves = {}
    for row in rows:
        halves.setdefault(row["set"], []).append(row["half"])
    assert {
        name: (half.count("validation"), half.count("test")) for name, half in halves.items()
    } == {
        "CASIA2_samples": (9, 9),
        "COMOFOD": (12, 13),
        "DST18": (9, 9),
        "IMD2020": (11, 12),
    }


def test_variants_of_one_photo_are_in_the_same_half():
    half = {row["image"]: row["half"] for row in real.read_split(real.SPLIT).values()}
    assert half["leone.tif"] == half["leone2.jpg"]
    assert half["gazzella.tif"] == half["gazzella2.jpg"]
    assert half["obama.jpg"] == half["obama_ahma.jpg"]


@pytest.mark.parametrize(("half", "name"), [("validation", "a"), ("test", "b")])
def test_only_images_of_the_half_are_listed(dataset, half, name):
    folder, assigned = dataset
    assert real.half_of(folder, half, assigned) == [
        [str(folder / "Tp" / f"{name}.png"), str(folder / "Gt" / f"{name}.png")]
    ]


def test_image_without_a_half_is_rejected(dataset):
    folder, assigned = dataset
    cv2.imwrite(str(folder / "Tp/a.png"), np.full((8, 8, 3), 30, np.uint8))
    with pytest.raises(QMANetError, match=r"a\.png is not in"):
        real.half_of(folder, "validation", assigned)


def test_f1_of_marking_everything_follows_from_the_tampered_share(tmp_path):
    mask = np.zeros((8, 8), np.uint8)
    mask[:2] = 255  # A quarter: 2 * 0.25 / (1 + 0.25).
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    assert real.f1_of_everything(tmp_path / "mask.png") == pytest.approx(0.4)


def test_tables_average_over_tampered_images_and_compare_the_models():
    rows = [
        {"set": "web", "type": kind, "label": label, "f1": f1, "auc": f1, "marked": 0.1, "path": ""}
        for kind, label, f1 in (("splicing", 1, 0.2), ("copy-move", 1, 0.6), ("", 0, None))
    ]
    better = [row | {"f1": row["f1"] and row["f1"] + 0.1, "marked": 0.02} for row in rows]
    models = {"old": rows, "new": better}
    lines = real.localization(models, {"": 0.5})
    assert lines[2].startswith("| web | 2 | 0.500 | 0.400 [0.200, 0.600] | 0.500 [0.300, 0.700] |")
    assert lines[2].endswith("| +0.100 [+0.100, +0.100] |")
    assert [line.split(" | ")[0] for line in lines[3:]] == [
        "| web, copy-move",
        "| web, splicing",
        "| all",
    ]
    assert real.marked(models)[2] == "| web | 1 | 10.00% | 2.00% |"


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("square of 1/10 of the shorter side (used)", 2.5 / 16),  # At least 4x4 pixels.
        ("square of 1/6", 1.75 / 4),  # 2x2 pixels.
        ("mean of the highest 1%", 1.0),  # One of 100 pixels.
        ("mean of the highest 5%", 0.6),  # 1 + 2 * 0.75 + 0.5 + 0 over five pixels.
        ("mean", 0.03),
        ("share above 0.5", 0.03),
        ("largest region", 0.025),  # A sum of 2.5 over 10 squared.
    ],
)
def test_image_scores_of_a_known_mask(title, expected):
    mask = np.zeros((10, 10), np.float32)
    mask[0, :3] = 0.75, 0.75, 1.0
    mask[9, 9] = 0.5
    assert real.SCORES[title](mask) == pytest.approx(expected)


def test_share_above_counts_values_strictly_above_each_threshold():
    shares = real.share_above(np.array([0.0, 0.2, 0.5, 1.0], np.float32))
    at = {level: round(level * (len(real.LEVELS) - 1)) for level in (0, 0.1, 0.4, 0.5, 0.6, 1)}
    assert [shares[index] for index in at.values()] == [0.75, 0.75, 0.5, 0.25, 0.25, 0]


def test_curves_average_over_the_images_of_a_set():
    values = {"a": [0.9, 0.1], "b": [0.9, 0.9]}
    rows = [
        {"set": "web", "label": 1, f"score: {real.USED}": 0.9, real.CURVE: real.share_above(pixels)}
        for pixels in map(np.array, values.values())
    ]
    pixels, images = real.curves_of(rows)
    middle = len(real.LEVELS) // 2
    assert pixels["web", True][middle] == 0.75  # Half and all of the tampered pixels.
    assert images["web", True][middle] == 1
    assert images["web", True][-1] == 0


def test_rows_have_the_recall_of_tampered_images_and_the_marked_share_of_authentic_ones(tmp_path):
    mask = np.array([[0.9, 0.1], [0.1, 0.9]], np.float32)
    truth = np.array([[255, 255], [0, 0]], np.uint8)
    cv2.imwrite(str(tmp_path / "truth.png"), truth)
    lists = {}
    for name, second in (("web", str(tmp_path / "truth.png")), ("photos", NEGATIVE)):
        lists[name] = str(tmp_path / f"{name}.json")
        Path(lists[name]).write_text(json.dumps([["a.png", second]]))
        (tmp_path / f"{name}_masks").mkdir()
        np.save(tmp_path / f"{name}_masks/000000.npy", mask)
        label = int(second != NEGATIVE)
        row = dict.fromkeys((*PIXEL, "score", "marked"), 0.5) | {"label": label}
        row |= {"path": "a.png", "name": "a"}
        (tmp_path / f"{name}.csv").write_text(
            ",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n"
        )
    tampered, authentic = real.read_rows(tmp_path, lists, {})
    middle = len(real.LEVELS) // 2
    assert (tampered["set"], tampered[real.CURVE][middle]) == ("web", 0.5)
    assert (authentic["set"], authentic[real.CURVE][middle]) == ("photos", 0.5)
    mask[1] = 0.9  # Only the authentic half of the tampered image changes.
    np.save(tmp_path / "web_masks/000000.npy", mask)
    np.save(tmp_path / "photos_masks/000000.npy", mask)
    tampered, authentic = real.read_rows(tmp_path, lists, {})
    assert (tampered[real.CURVE][middle], authentic[real.CURVE][middle]) == (0.5, 0.75)


def test_score_marked_as_used_is_that_of_the_predictor():
    mask = np.linspace(0, 1, 150, dtype=np.float32).reshape(10, 15)
    assert real.SCORES[real.USED](mask) == image_score(torch.from_numpy(mask)[None, None])


def test_comparison_writes_tables_images_and_roc_curves(dataset, tmp_path, monkeypatch, capsys):
    folder, assigned = dataset
    (tmp_path / "camera").mkdir()
    for number in range(3):
        pixels = np.full((8, 8, 3), number, np.uint8)
        cv2.imwrite(str(tmp_path / f"camera/{number}.png"), pixels)
    given = [tmp_path / f"runs/{name}/checkpoint-9.pth" for name in ("old", "new")]
    for path in given:  # Two files of the same name.
        path.parent.mkdir(parents=True)
        path.touch()
    lists = {}

    def read_rows(results, sets, _assigned):
        lists.update((name, json.loads(Path(sets[name]).read_text())) for name in sets)
        rows = []
        for name, pairs in lists.items():
            f1 = 0.2 if results.name.startswith("runs-old") else 0.3
            label = int(pairs[0][1] != NEGATIVE)
            row = {"set": name, "type": "", "label": label, "f1": f1 if label else None}
            row |= {"auc": row["f1"], "marked": 0.1, real.CURVE: real.share_above(np.array([f1]))}
            row |= {f"score: {title}": f1 for title in real.SCORES}
            rows += [row | {"path": image} for image, _ in pairs]
        return rows

    monkeypatch.setattr(real, "read_split", lambda _: assigned)
    monkeypatch.setattr(real, "evaluate", lambda *args, **options: None)
    monkeypatch.setattr(real, "read_rows", read_rows)
    words = ["--real", folder, "--authentic", tmp_path / "camera", "--limit", 2]
    words += ["--out", tmp_path / "out", "--checkpoint", *given]
    monkeypatch.setattr(sys, "argv", ["real", *map(str, words)])
    real.main()
    assert [Path(image).name for image, _ in lists["photos"]] == ["a.png"]
    assert len(lists["camera"]) == 2
    shown = capsys.readouterr().out
    assert f"F1, {given[0]} | F1, {given[1]}" in shown
    assert "+0.100 [+0.100, +0.100]" in shown
    assert (tmp_path / "out/tables.md").read_text() in shown
    assert "| camera | 2 | 10.00% | 10.00% |" in shown
    table = (tmp_path / "out/images.csv").read_text().splitlines()
    names = ",".join(f'"{metric}, {path}"' for path in given for metric in ("f1", "auc", "marked"))
    assert table[0] == f"set,type,image,{names}"
    assert table[1] == "photos,,a.png,0.2000,0.2000,0.1000,0.3000,0.3000,0.1000"
    assert table[2].endswith(".png,,,0.1000,,,0.1000")
    picture = cv2.imread(str(tmp_path / "out/roc.png"))
    assert (picture < 128).any()
