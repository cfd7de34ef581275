"""Odd file names, and other untrusted text, in every command that handles them."""

import csv
import errno
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import photograph
from qma_net import cli
from qma_net.core.untrusted import file_stem, format_csv, one_line, plain_cell, printable_lines
from qma_net.inference.photo_files import find_photos
from qma_net.modeling.config import Preprocessing, QMANetConfig
from qma_net.modeling.qma_net import QMANetModel
from qma_net.weights.checkpoint import load_checkpoint

# The stem of a photo, and that of its files. "z.png" comes after all others.
NAMES = {
    b"a\xff\xfe": "a__",
    b"b\x1b[31m": "b_[31m",
    b"c\nqma-net: done": "c_qma-net: done",
    b"d" * 251: "d" * 200,
    "é".encode() * 125: "é" * 100,
    "e\u202egnp".encode(): "e_gnp",
    b"=1+cmd": "=1+cmd",
    b"+f": "+f",
    b"-g": "-g",
    b"@h": "@h",
    b"\ti": "_i",
    b"z": "z",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed, name in enumerate(NAMES):
        write_png(folder, name, photograph(64, 80, seed))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    model = QMANetModel.from_config(QMANetConfig(size="b0", views="srm"))
    model.preprocessing = Preprocessing(64, "resize")
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    return folder


def write_png(folder: Path, stem: bytes, pixels: np.ndarray) -> None:
    """Write a PNG under any name that the file system accepts."""
    Image.fromarray(pixels).save(folder / "new.tmp", "PNG")
    os.rename(os.fsencode(folder / "new.tmp"), os.fsencode(folder) + b"/" + stem + b".png")


def run(capsys, *arguments) -> str:
    """Run a command that must succeed; return its output, which must be safe to print."""
    cli.main([*map(str, arguments)])
    output = capsys.readouterr()
    text = (output.out + output.err).replace("\n", "").replace("\r", "")
    assert text.encode()  # It contains no surrogates.
    assert "\x1b" not in text.replace("\x1b[A", "")  # tqdm moves the cursor.
    return output.out


def test_predict_handles_every_name(photos, checkpoint, tmp_path, capsys):
    command = ["predict", photos, "--checkpoint", checkpoint, "--out", tmp_path / "out"]
    run(capsys, *command)
    with open(tmp_path / "out/predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    masks = {plain_cell(row["mask"]) for row in rows}
    assert masks == {f"{stem}_mask.png" for stem in NAMES.values()}
    assert all((tmp_path / "out" / mask).is_file() for mask in masks)
    assert {row["mask"] for row in rows if row["mask"][0] == "'"} == {
        f"'{stem}_mask.png" for stem in ("=1+cmd", "+f", "-g", "@h")
    }
    assert all(0 <= float(row["score"]) <= 1 for row in rows)  # Numbers stay numbers.
    times = {mask: (tmp_path / "out" / mask).stat().st_mtime_ns for mask in masks}
    run(capsys, *command)  # It continues, and no result is computed again.
    assert times == {mask: (tmp_path / "out" / mask).stat().st_mtime_ns for mask in masks}
    with pytest.raises(ValueError, match="contains no photos"):
        find_photos([tmp_path / "out"])  # Masks are not photos, whatever their name.


def test_examine_handles_every_name(photos, tmp_path, capsys):
    output = run(capsys, "examine", photos, "--checkpoint", "none", "--out", tmp_path)
    folders = {Path(line).parent for line in output.splitlines()}  # One of them has the index.
    assert folders == {tmp_path, *(tmp_path / stem for stem in NAMES.values())}
    for stem in NAMES.values():
        assert (tmp_path / stem / "report.json").is_file()
        assert "\x1b" not in (tmp_path / stem / "report.html").read_text(encoding="ascii")


def test_overlong_name_does_not_end_the_run(photos, tmp_path, capsys):
    names = [photos / "z.png", f"{'n' * 300}.jpg", tmp_path / ("f" * 300) / "photo.jpg"]
    with pytest.raises(SystemExit) as end:
        cli.main(["examine", *map(str, names), "--checkpoint", "none", "--out", f"{tmp_path}/out"])
    faults = str(end.value.code) + capsys.readouterr().err
    assert faults.count(os.strerror(errno.ENAMETOOLONG)) == 2
    assert (tmp_path / "out/z/report.json").is_file()


def test_evaluate_handles_every_name(photos, checkpoint, tmp_path, capsys):
    pytest.importorskip("IMDLBenCo.registry", reason="imdlbenco is not installed")
    for folder in ("set/Tp", "set/Gt"):
        (tmp_path / folder).mkdir(parents=True)
    mask = np.zeros((64, 80), np.uint8)
    mask[:32] = 255
    for seed, name in enumerate(NAMES):
        write_png(tmp_path / "set/Tp", name, photograph(64, 80, seed))
        write_png(tmp_path / "set/Gt", name, mask)
    options = ["--out", tmp_path / "out", "--workers", "0", "--save-masks", "png"]
    run(capsys, "evaluate", "--checkpoint", checkpoint, "--test-sets", tmp_path / "set", *options)
    with open(tmp_path / "out/set.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(list((tmp_path / "out/set_masks").iterdir())) == len(NAMES)
    assert {row["name"] for row in rows} >= {"'=1+cmd.png", "'+f.png", "'-g.png", "'@h.png"}


def test_names_in_findings_and_errors_are_escaped(tmp_path, capsys):
    (tmp_path / "Tp").mkdir()
    (tmp_path / "Gt").mkdir()
    for name in (b"a\xff", b"b\x1b]0;title\x07"):
        write_png(tmp_path / "Tp", name, photograph(64, 80))
    with pytest.raises(SystemExit):
        cli.main(["data", "check", str(tmp_path)])
    output = capsys.readouterr()
    assert r"b\x1b]0;title\x07.png" in output.out
    assert r"a\udcff.png" in output.out
    assert "\x1b" not in output.out
    with pytest.raises(SystemExit) as end:
        cli.main(
            [
                "predict",
                str(tmp_path / "\x1b[2J\nqma-net: ok\udcff.jpg"),
                "--out",
                str(tmp_path / "x"),
            ]
        )
    assert r"\x1b[2J\nqma-net: ok\udcff.jpg" in f"{end.value}{capsys.readouterr().err}"


@pytest.fixture(scope="module")
def benco_state(checkpoint):
    """The model's state as BenCo saves it."""
    from qma_net.weights.checkpoint import CONFIG_KEY, config_to_extra_state

    model = QMANetModel.from_pretrained(checkpoint)
    state = {f"network.{name}": tensor for name, tensor in model.state_dict().items()}
    return state | {CONFIG_KEY: config_to_extra_state(model.config)}


@pytest.mark.parametrize("about", ["\x1b[2J", "a\nqma-net: all good", "x" * 10**6, "\u202e", "\0"])
def test_notice_in_a_checkpoint_is_escaped_and_short(benco_state, tmp_path, about):
    torch.save({"model": benco_state, "about": about}, tmp_path / "checkpoint-0.pth")
    loaded = load_checkpoint(tmp_path / "checkpoint-0.pth").about
    assert loaded.isprintable()
    assert len(loaded) < 500
    assert loaded == one_line(about, 400)


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0"]
)
def test_formulas_in_tables_are_neutralized(text):
    table = format_csv(["name", "value"], [{"name": text, "value": -1.5}, {"name": "'a"}])
    rows = list(csv.DictReader(io.StringIO(table, newline="")))
    written = text.replace("\r", "\\r")
    assert rows[0] == {"name": f"'{written}", "value": "-1.5"}
    assert rows[1] == {"name": "'a", "value": ""}
    assert plain_cell(rows[1]["name"]) == "'a"
    if "\r" not in text:
        assert plain_cell(rows[0]["name"]) == text


def test_text_is_escaped_and_shortened():
    assert one_line("a\n\x1b[0m\x07é\udcff\u202e") == r"a\n\x1b[0m\x07é\udcff\u202e"
    assert one_line("abcdef", 3) == "abc... (6 characters)"
    assert printable_lines("a\x1b\nb") == "a\\x1b\nb"
    assert file_stem("é" * 101) == "é" * 100
    assert sys.getfilesystemencoding() == "utf-8"
