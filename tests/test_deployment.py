"""What a service relies on: streams of photos, threads, repeatable results, ONNX and encodings."""

import ast
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from conftest import ROOT, photograph
from qma_net import Prediction, QMANetPredictor, cli, launch
from qma_net.core.threads import WAIT_VARIABLES, ThreadsError, limit_threads
from qma_net.core.workers import available_cores
from qma_net.inference.photograph import TOO_TRUNCATED, Photograph, PhotographError
from qma_net.inference.prediction import PixelsNotKeptError
from qma_net.modeling.config import ConfigError, Preprocessing
from qma_net.modeling.qma_net import QMANetModel, QMANetOutput


@pytest.fixture
def predictor(build_tiny):
    return QMANetPredictor(build_tiny(), image_size=64, tile=64, overlap=32)


@pytest.fixture
def photos(tmp_path):
    """Two photos with a file between them that is none."""
    for name, seed in (("a.png", 0), ("c.png", 1)):
        Image.fromarray(photograph(40, 60, seed)).save(tmp_path / name)
    (tmp_path / "b.png").write_text("a text", encoding="utf-8")
    return [tmp_path / name for name in ("a.png", "b.png", "c.png")]


def documented_code(word: str) -> str:
    """Return the block of Python code in docs/using.md that contains a word."""
    text = (ROOT / "docs/using.md").read_text(encoding="utf-8")
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if word in c)
    return code


# --- Streams of photos ---------------------------------------------------------------------


def test_photo_is_read_when_its_prediction_is_requested(predictor, photos):
    requested = []

    def paths():
        for path in (photos[0], photos[2]):
            requested.append(path.name)
            yield path

    predictions = predictor.predict_iter(paths(), threshold=0.25)
    assert requested == []
    path, prediction = next(predictions)
    assert (path, requested, prediction.threshold) == (photos[0], ["a.png"], 0.25)
    np.testing.assert_array_equal(prediction.mask, predictor.predict(photos[0]).mask)
    assert [path for path, _ in predictions] == [photos[2]]


def test_photo_that_cannot_be_read_ends_the_iteration_by_default(predictor, photos):
    predictions = predictor.predict_iter(photos)
    next(predictions)
    with pytest.raises(PhotographError, match=r"b\.png"):
        next(predictions)


def test_photo_that_cannot_be_read_is_skipped_on_request(predictor, photos, caplog):
    predictions = predictor.predict_iter(photos, on_error="skip")
    assert [path.name for path, _ in predictions] == ["a.png", "c.png"]
    (message,) = caplog.messages
    assert message.startswith(f"skipped: cannot read {photos[1]}: it is a text file")


def test_documented_stream_of_photos(predictor, photos, monkeypatch):
    monkeypatch.chdir(photos[0].parent)
    for path in photos:
        Path("photos").mkdir(exist_ok=True)
        path.rename(f"photos/{path.stem}.jpg")
    exec(documented_code("predictions.jsonl"), {"predictor": predictor})
    lines = Path("predictions.jsonl").read_text(encoding="utf-8").splitlines()
    names = {json.loads(line)["file"] for line in lines}
    assert names == {str(Path("photos/a.jpg")), str(Path("photos/c.jpg"))}


def test_errors_are_passed_to_a_function(predictor, photos):
    errors = []
    predictions = predictor.predict_iter(photos, on_error=lambda *args: errors.append(args))
    assert len(list(predictions)) == 2
    ((path, error),) = errors
    assert path == photos[1]
    assert isinstance(error, PhotographError)


def test_invalid_arguments_are_rejected_before_the_first_photo(predictor):
    with pytest.raises(ConfigError, match="got on_error='ignore', expected raise, skip or"):
        predictor.predict_iter([], on_error="ignore")
    with pytest.raises(ConfigError, match=r"got threshold 2"):
        predictor.predict_iter([], threshold=2)


def test_pixels_are_kept_only_on_request(predictor, photos):
    ((_, without),) = predictor.predict_iter(photos[:1])
    assert without.photograph.pixels.nbytes == 0
    with pytest.raises(PixelsNotKeptError, match=r"use predict_iter\(..., keep_pixels=True\)"):
        without.overlay()
    ((_, with_pixels),) = predictor.predict_iter(photos[:1], keep_pixels=True)
    assert with_pixels.photograph.pixels.nbytes == 40 * 60 * 3
    assert with_pixels.overlay().shape == (40, 60, 3)
    assert without.to_dict() == with_pixels.to_dict()
    photo, same = with_pixels.photograph, without.photograph
    assert photo.too_small == same.too_small == ""
    assert same.complete_mask(without.mask).shape == (40, 60)
    truncated = replace(with_pixels, photograph=replace(photo, present=(slice(20), slice(None))))
    assert truncated.photograph.too_small.startswith(TOO_TRUNCATED)
    assert truncated.without_pixels().photograph.too_small == truncated.photograph.too_small


def test_prediction_is_represented_in_json():
    mask = np.array([[0.1, 0.2, 0.6, 0.7], [0.1, 0.2, 0.3, 0.4]], np.float32)
    photo = Photograph(np.zeros((2, 4, 3), np.uint8), "a.jpg", present=(slice(0, 1), slice(None)))
    prediction = Prediction(mask, 0.75, 0.5, photo, ("a note",))
    assert json.loads(json.dumps(prediction.to_dict())) == {
        "file": "a.jpg",
        "score": 0.75,
        "marked": 0.5,  # Two of the four pixels in the only row that the file contains.
        "threshold": 0.5,
        "width": 4,
        "height": 2,
        "notes": ["a note"],
    }


# --- Repeatable results --------------------------------------------------------------------


def test_same_photo_gives_the_same_mask_repeatedly_and_in_several_threads(predictor):
    # Six tiles each, so that the threads alternate within a photo.
    photos = [photograph(100, 150, seed) for seed in range(4)]

    def mask(photo):
        return predictor.predict(photo, native=True, tta=True).mask.tobytes()

    expected = [mask(photo) for photo in photos]
    assert len(set(expected)) == 4
    assert [mask(photo) for photo in photos] == expected
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(mask, photos * 2)) == expected * 2


# --- Threads -------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["", "ACTIVE"])
def test_threads_are_limited_and_sleep_unless_the_user_chose_otherwise(policy):
    names = {*WAIT_VARIABLES, "OMP_NUM_THREADS", "MKL_NUM_THREADS"}
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"OMP_DISPLAY_ENV": "TRUE"} | ({"OMP_WAIT_POLICY": policy} if policy else {})
    words = ["export", "--checkpoint", "missing.pth", "--out", "x", "--threads", "1"]
    code = (
        f"from qma_net import cli\ntry: cli.main({words})\nexcept SystemExit: pass\n"
        "import cv2, torch; print(torch.get_num_threads(), cv2.getNumThreads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8"
    )
    assert done.stdout == "1 1\n"
    if "OPENMP DISPLAY ENVIRONMENT BEGIN" not in done.stderr:
        pytest.skip("PyTorch does not use an OpenMP library that displays its environment")
    assert f"OMP_WAIT_POLICY = '{policy or 'PASSIVE'}'" in done.stderr


def test_number_of_threads_is_checked(capsys):
    cores = available_cores()
    for count in (0, -1, cores + 1):
        with pytest.raises(ThreadsError, match=f"got --threads {count}, .* from 1 to {cores},"):
            limit_threads(count)
    for main, words in (
        (cli.main, ["calibrate", "--checkpoint", "x", "--photos", "y"]),
        (launch.main, ["train", "--model", "QMANet"]),
    ):
        with pytest.raises(SystemExit) as error:
            main([*words, "--threads", "0"])
        assert str(error.value).startswith("qma-net: got --threads 0, expected a number from 1")


def test_number_of_threads_applies_to_loaded_libraries(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OPENCV_FOR_THREADS_NUM", "1")
    threads = torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(2)
        cv2.setNumThreads(2)
        limit_threads(None)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)
        limit_threads(1)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


# --- Python versions and encodings -----------------------------------------------------------


def test_benco_command_names_the_python_version_that_leaves_benco_out(monkeypatch):
    def fail(args):
        raise ModuleNotFoundError("No module named 'IMDLBenCo'", name="IMDLBenCo")

    monkeypatch.setattr(cli.evaluation, "_evaluation_arguments", fail)
    words = ["evaluate", "--checkpoint", "a", "--test-sets", "b", "--out", "c"]
    with pytest.raises(SystemExit, match=r"IMDLBenCo is not installed; run: pip install 'qma-net"):
        cli.main(words)
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(SystemExit) as error:
        cli.main(words)
    assert str(error.value) == (
        "qma-net: Python 3.13 is too new for IMDL-BenCo 0.1.45, which needs numpy below 2, so "
        "`pip install 'qma-net[benco]'` left it out; repeat that command in an environment with "
        "Python 3.11 or 3.12"
    )


def opens_text_without_encoding(call: ast.Call) -> bool:
    """Whether a call of a function with the name of one that opens a text file omits encoding."""
    if any(keyword.arg in ("encoding", None) for keyword in call.keywords):
        return False
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    owner = getattr(getattr(call.func, "value", None), "id", "")
    is_method = isinstance(call.func, ast.Attribute)
    if name in ("read_text", "write_text"):
        return is_method and len(call.args) < (1 if name == "read_text" else 2)
    if name == "TextIOWrapper":
        return len(call.args) < 2
    if (owner, name) in {("Image", "open"), ("os", "open"), ("webbrowser", "open")}:
        return False
    if name not in ("open", "fdopen", "NamedTemporaryFile", "TemporaryFile"):
        return False
    is_temporary = name.endswith("TemporaryFile")
    position = int(not is_temporary and (not is_method or owner in ("io", "os")))
    default = "w+b" if is_temporary else "r"
    modes = [k.value for k in call.keywords if k.arg == "mode"]
    modes += call.args[position : position + 1]
    if modes and not isinstance(modes[0], ast.Constant):
        return False  # The name of a member of an archive.
    return "b" not in (modes[0].value if modes else default)


def test_text_files_are_opened_with_an_encoding():
    for code, is_fault in {
        "open('a')": True,
        "open('a', 'w')": True,
        "open('a', 'rb')": False,
        "open('a', encoding='utf-8')": False,
        "(x / 'a').read_text()": True,
        "(x / 'a').write_text('b')": True,
        "x.open('rb')": False,
        "x.open()": True,
        "archive.open(name)": False,
        "write_text('a', 'b')": False,  # Our own function.
        "os.fdopen(1, 'w')": True,
        "tempfile.NamedTemporaryFile()": False,
        "tempfile.NamedTemporaryFile('w')": True,
        "Image.open('a')": False,
    }.items():
        assert opens_text_without_encoding(ast.parse(code).body[0].value) == is_fault, code
    faults = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for folder in ("qma_net", "benchmarks", "docs")
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and opens_text_without_encoding(node)
    ]
    assert faults == []


# --- ONNX ----------------------------------------------------------------------------------


class Brightness(QMANetModel):
    """Marks bright pixels; unlike a real model, it is exported in seconds."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.weight = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, image, edges=True, noise=None):
        return QMANetOutput(image[:, :1] * self.weight, [])


@pytest.mark.parametrize("fit", ["native", "resize", "pad"])
def test_onnx_example_gives_the_mask_of_the_predictor(tmp_path, monkeypatch, fit):
    pytest.importorskip("onnxruntime", reason="the export tools are not installed")
    from qma_net.inference.export import export_onnx

    monkeypatch.chdir(tmp_path)
    model = Brightness()
    model.preprocessing = Preprocessing(image_size=96, fit=fit)
    export_onnx(model, "qma_net.onnx")
    exif = Image.Exif()
    exif[0x0112] = 6  # Displayed with 45 columns and 70 rows.
    Image.fromarray(photograph(45, 70)).save("photo.jpg", exif=exif)
    names = {}
    exec(documented_code("onnxruntime"), names)
    expected = QMANetPredictor(model).predict("photo.jpg").mask
    assert names["mask"].shape == expected.shape == (70, 45)
    np.testing.assert_allclose(names["mask"], expected, atol=1e-3)
    assert {name: names["metadata"][name] for name in ("image_size", "fit", "stride")} == {
        "image_size": "96",
        "fit": fit,
        "stride": "32",
    }
