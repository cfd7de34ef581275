"""The commands, code and links of the README and the documentation."""

import argparse
import re
import shlex
import sys
from importlib import import_module

import pytest
import torch
from PIL import Image

from conftest import ROOT, photograph
from qma_net import cli
from qma_net.cli.flags import reject_unknown_flags
from qma_net.launch import SCRIPTS
from qma_net.launch.flags import parse_own_flags
from qma_net.weights.checkpoint import CONFIG_KEY, config_to_extra_state

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
PLACEHOLDERS = ("[flags", "of", "the", "model]")


def code_blocks(text: str, *languages: str) -> list[str]:
    """The fenced code blocks in one of the languages ("" for blocks without a language)."""
    blocks, block, wanted = [], None, False
    for line in text.splitlines():
        if line.startswith("```") and block is None:
            block, wanted = [], line[3:].strip() in languages
        elif line.startswith("```"):
            blocks += ["\n".join(block)] if wanted else []
            block = None
        elif block is not None:
            block.append(line)
    return blocks


def commands(text: str) -> list[list[str]]:
    """The arguments of each ``qma-net`` command in a text's code blocks.

    ``torchrun ... -m qma_net`` and ``python -m qma_net.launch`` are the same command. Commands that
    are abbreviated with ``...`` are left out.
    """
    found = []
    for block in code_blocks(text, "bash", ""):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if "-m" in words:
                words = words[words.index("-m") + 1 :]
            names = ("qma-net", "qma_net", "qma_net.launch")
            if words and words[0] in names and "..." not in words:
                ends = [words.index(sign) for sign in ("|", ">", "&&") if sign in words]
                found.append(words[1 : min(ends, default=len(words))])
    return found


def parse_script(script: str, flags: list[str], monkeypatch) -> None:
    """Parse the flags of one of BenCo's scripts, as the launcher does."""
    import qma_net.benco  # noqa: F401  (registers QMANet)

    _, flags = parse_own_flags(flags, script)
    monkeypatch.setattr(sys, "argv", [script, *flags])
    import_module(f"IMDLBenCo.training_scripts.{script}").get_args_parser()


@pytest.fixture
def working_folder(build_tiny, tmp_path, monkeypatch):
    """The reader's folder: a photo, and a checkpoint as the demo writes it."""
    model = build_tiny()
    state = {f"network.{name}": tensor for name, tensor in model.state_dict().items()}
    content = {"model": state | {CONFIG_KEY: config_to_extra_state(model.config)}, "about": "demo"}
    content["args"] = argparse.Namespace(image_size=64, if_resizing=True, if_padding=False)
    folder = tmp_path / "runs/demo/checkpoint"
    folder.mkdir(parents=True)
    torch.save(content, folder / "checkpoint-4.pth")
    Image.fromarray(photograph(60, 80)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_prediction_commands_of_the_readme_run_as_printed(working_folder, capsys):
    executed = [words for words in commands(README) if words[0] in ("predict", "examine")]
    assert [words[0] for words in executed] == ["predict", "examine"]
    for words in executed:
        cli.main(words)
    files = {path.name for path in (working_folder / "masks").iterdir()}
    names = {"photo_mask.png", "photo_overlay.png", "predictions.csv", "predictions.json"}
    assert {name for name in files if not name.startswith(".")} == names
    assert (working_folder / "reports/photo/report.html").is_file()


def test_weights_command_lists_the_weights_of_the_readme(capsys):
    assert "`qma-net weights`" in README
    cli.main(["weights"])
    shown = capsys.readouterr().out
    for name in ("noiseprint++.th", "nvidia/mit-b3", "mit_b0.pth", "mit_b5.pth"):
        assert name in shown


def test_python_code_of_the_readme_runs(working_folder):
    (code,) = code_blocks(README, "python")
    names = {}
    exec(code, names)
    assert names["prediction"].mask.shape == (60, 80)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_documented_command_is_valid(page, monkeypatch):
    for words in commands(page.read_text(encoding="utf-8")):
        words = [word for word in words if word not in PLACEHOLDERS]
        if words[0] in SCRIPTS:
            if words[1:] != ["--help"]:
                parse_script(words[0], words[1:], monkeypatch)
            continue
        reject_unknown_flags(*cli._parser().parse_known_args(words))


@pytest.mark.parametrize(
    "command",
    [
        "qma-net predict a.jpg --out b --treshold 1",
        "qma-net evaluate --checkpoint a --test-sets b --out c --batchsize 2",
        "qma-net robust --checkpoint a --test-sets b --out c --attack-flie d",
        "qma-net serve --prot 1",
        "torchrun --nproc_per_node=2 -m qma_net train --model QMANet --epoch_count 3",
    ],
)
def test_mistyped_flag_in_the_documentation_is_detected(command, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"```bash\n{command}\n```\n")
    with pytest.raises(SystemExit):
        test_every_documented_command_is_valid(page, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_the_documentation_has_a_target(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(((?!http|#)[^)#\s]+)", text)
    assert not [link for link in links if not (page.parent / link).exists()]


def test_every_module_named_by_the_documentation_exists():
    for page in PAGES:
        for name in re.findall(r"python -m ([\w.]+)", page.read_text(encoding="utf-8")):
            folder = ROOT / name.replace(".", "/")
            exists = folder.is_dir() or folder.with_suffix(".py").is_file()
            ours = name.startswith(("qma_net", "benchmarks")) and name != "benchmarks.NAME"
            assert exists or not ours, f"{page.name}: {name}"
