"""BenCo's test script, ``evaluate`` and ``predict`` agree on scores and the image size."""

import json

import cv2
import numpy as np
import pytest

from conftest import photograph
from launching import MODEL, SIZE, start
from qma_net import QMANetPredictor
from qma_net.data.published import as_benco
from qma_net.evaluation.evaluate import evaluate
from qma_net.evaluation.metrics import pixel_metrics


def test_benco_test_evaluate_and_predict_agree_on_f1_without_image_size(tmp_path):
    for i in range(4):
        image, mask = photograph(64, 64, i), np.zeros((64, 64), np.uint8)
        image[20:50, 10:40] = photograph(30, 30, 50 + i)
        mask[20:50, 10:40] = 255
        for folder, name, pixels in (("Tp", f"{i}.png", image), ("Gt", f"{i}.png", mask)):
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "set" / folder / name), pixels)
    (tmp_path / "sets.json").write_text(json.dumps({"small": str(tmp_path / "set")}))
    flags = ["--data_path", "set", "--test_data_path", "set", "--epochs", 1, "--batch_size", 2]
    flags += ["--accum_iter", 1, "--output_dir", "run", "--log_dir", "run"]
    start(["train", *MODEL, *SIZE, *flags], tmp_path)

    paths = ["--test_data_json", "sets.json", "--checkpoint_path", "run", "--output_dir", "test"]
    options = ["--num_workers", "0", "--no_pin_mem", "--test_batch_size", "2", "--log_dir", "test"]
    start(["test", "--model", "QMANet", *paths, *options], tmp_path)
    (log,) = (tmp_path / "test").glob("**/log.txt")
    f1_of_test = json.loads(log.read_text().splitlines()[-1])["test_pixel-level F1"]

    checkpoint = tmp_path / "run/checkpoint-0.pth"
    evaluate([checkpoint], [tmp_path / "sets.json"], tmp_path / "exact", device="cpu", workers=0)
    result = json.loads((tmp_path / "exact/small.json").read_text())
    assert (result["header"]["image_size"], result["header"]["fit"]) == (64, "resize")

    predictor, f1 = QMANetPredictor.from_pretrained(checkpoint, device="cpu"), []
    for i in range(4):
        ground_truth = as_benco(cv2.imread(str(tmp_path / f"set/Gt/{i}.png")))
        mask = predictor.predict(tmp_path / f"set/Tp/{i}.png").mask
        f1.append(pixel_metrics(mask, ground_truth)["f1"])
    assert result["pixel_f1"] == pytest.approx(f1_of_test, abs=1e-5)
    assert result["pixel_f1"] == pytest.approx(np.mean(f1), abs=1e-5)
    assert 0 < result["pixel_f1"] < 1
