"""README and docs: what they print is run, or at least understood by what it is for."""

import argparse
import re
import shlex

import pytest
import torch
from PIL import Image

from conftest import ROOT, photograph
from qma_net import cli
from qma_net.weights.checkpoint import CONFIG_KEY, config_to_extra_state

README = (ROOT / "README.md").read_text()
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str, *languages: str) -> list[str]:
    """What stands between fences, of the blocks in one of the languages ("" for none named)."""
    found, block, wanted = [], None, False
    for line in text.splitlines():
        if line.startswith("```") and block is None:
            block, wanted = [], line[3:].strip() in languages
        elif line.startswith("```"):
            found += ["\n".join(block)] if wanted else []
            block = None
        elif block is not None:
            block.append(line)
    return found


def commands(text: str) -> list[list[str]]:
    """The commands of qma-net in a text's blocks, in words, without comments and pipes."""
    found = []
    for block in blocks(text, "bash", ""):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "qma-net" in words[:1]:
                ends = [words.index(sign) for sign in ("|", ">", "&&") if sign in words]
                found.append(words[1 : min(ends, default=len(words))])
    return found


@pytest.fixture
def at_home(build_tiny, tmp_path, monkeypatch):
    """A folder as README's reader has it after the demo: a photograph and the demo's checkpoint."""
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


def test_the_first_commands_run_as_printed(at_home, capsys):
    ran = [words for words in commands(README) if words[0] in ("examine", "predict", "weights")]
    assert [words[0] for words in ran] == ["examine", "predict", "weights"]
    for words in ran:
        cli.main(words)
    assert {path.name for path in (at_home / "masks").iterdir()} == {
        *("photo_mask.png", "photo_overlay.png", "predictions.csv", "predictions.json")
    }
    assert (at_home / "report/photo/report.html").is_file()
    assert "noiseprint++.th" in capsys.readouterr().out


def test_the_python_of_the_readme_runs(at_home):
    first, *_ = blocks(README, "python")
    names = {}
    exec(first, names)
    assert names["prediction"].mask.shape == (60, 80)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_command_in_the_docs_is_one(page):
    """Its flags are known: argparse takes it, or, for BenCo's scripts, its name is one of them."""
    from qma_net.launch import SCRIPTS

    for words in commands(page.read_text()):
        if words[0] in SCRIPTS:
            continue
        words = [word for word in words if word not in ("...", "[its", "flags]")]
        args, unknown = cli._parser().parse_known_args(words)
        assert not unknown or hasattr(args, "model"), words


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_link_of_the_docs_leads_somewhere(page):
    links = re.findall(r"\]\(((?!http|#)[^)#\s]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120
