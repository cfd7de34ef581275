"""What is installed and shipped: metadata, travelling files, light imports, scripts."""

import json
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

import qma_net
from conftest import ROOT
from qma_net import cli
from qma_net.weights.names import SMALL


def run(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, **options
    ).stdout


HEAVY = ("torch", "IMDLBenCo", "transformers", "cv2", "numpy", "albumentations", "matplotlib")


@pytest.mark.parametrize(
    "code",
    [
        "import qma_net; print(qma_net.__version__)",
        "from qma_net.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from qma_net.modeling.config import QMANetConfig\nfrom qma_net.launch import SCRIPTS",
    ],
    ids=["import qma_net", "qma-net --help", "a configuration"],
)
def test_what_must_be_light_loads_nothing_heavy(code):
    out = run(f"{code}\nimport sys\nprint('loaded', *(n for n in {HEAVY} if n in sys.modules))")
    assert out.splitlines()[-1] == "loaded"
    assert len(out.splitlines()) > 1 or "SCRIPTS" in code


def test_the_core_never_imports_benco():
    code = (
        "import sys; sys.modules['IMDLBenCo'] = None\n"
        "from qma_net import build_qma_net, load_checkpoint\n"
        "import torch; m = build_qma_net('b0', 'srm').eval()\n"
        "print(m(torch.randn(1, 3, 64, 64)).mask_logits.shape)"
    )
    assert "torch.Size([1, 1, 64, 64])" in run(code)


def test_without_benco_its_scripts_say_what_to_install():
    code = (
        "import importlib.metadata as m\n"
        "def absent(name): raise m.PackageNotFoundError(name)\n"
        "m.version = absent\n"
        "from qma_net.cli import main; main(['train', '--model', 'QMANet'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("pip install 'qma-net[benco]'")


def test_wheel_carries_configurations_and_scripts(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".git", ".venv*", "runs", ".whl", "build")
    )
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", tmp_path, source]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("qma_net-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    metadata = zipfile.ZipFile(wheel).read(
        next(name for name in names if name.endswith("METADATA"))
    )
    small = [
        f"weights/{SMALL}/{file}" for file in ("config.json", "model.safetensors", "README.md")
    ]
    for name in (
        "benco_configs/protocol_cat.json",
        "shell/train.sh",
        "modeling/qma_net.py",
        *small,
    ):
        assert f"qma_net/{name}" in names
    # what needs the checkout around it
    for name in ("demo.sh", "endurance.sh", "env.sh", "evidence.sh", "test.sh"):
        assert f"qma_net/shell/{name}" not in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    required = re.findall(r"^Requires-Dist: ([\w.-]+)([^;\n]*)$", metadata.decode(), re.MULTILINE)
    assert "imdlbenco" not in dict(required)
    (benco,) = re.findall(r"^Requires-Dist: imdlbenco.*$", metadata.decode(), re.MULTILINE)
    assert re.search(r'python_version < ["\']3\.13["\']', benco)
    assert f"Version: {qma_net.__version__}" in metadata.decode()


@pytest.mark.parametrize("name", ["demo", "env", "test"])
def test_help_makes_no_environment(tmp_path, name):
    done = subprocess.run(
        ["bash", ROOT / f"shell/{name}.sh", "--help"],
        env={"PATH": "/usr/bin:/bin", "VENV": str(tmp_path / "venv"), "PYTHON": "false"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "VENV" in done.stdout
    assert "shellcheck" not in done.stdout
    assert not (tmp_path / "venv").exists()


def test_the_demo_s_help_names_its_flags():
    header = (ROOT / "shell/demo.sh").read_text().partition("set -euo")[0]
    done = subprocess.run(
        [sys.executable, "-m", "qma_net.demo", "--help"], capture_output=True, text=True, check=True
    )
    flags = set(re.findall(r"--[a-z][a-z-]*", done.stdout.partition("options:")[2]))
    assert flags - {"--help"} == set(re.findall(r"--[a-z][a-z-]*", header))


def test_protocol_has_the_seven_lists_and_six_test_sets():
    protocol = json.loads((ROOT / "benco_configs/protocol_cat.json").read_text())
    assert len(protocol) == 7
    assert {kind for kind, _ in protocol} == {"ManiDataset", "JsonDataset"}
    assert len(json.loads((ROOT / "benco_configs/test_sets.json").read_text())) == 6


def test_command_line_help_and_version(capsys):
    for argv in (["--help"], ["data", "synth", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as done:
            cli.main(argv)
        assert done.value.code == 0
    assert qma_net.__version__ in capsys.readouterr().out


def test_python_m_qma_net_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "qma_net", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"qma-net {qma_net.__version__}\n"


def test_bad_input_to_a_command_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"^qma-net: got .*nowhere, expected a folder"):
        cli.main(["data", "synth", "--photos", str(tmp_path / "nowhere"), "--out", "x"])


@pytest.mark.parametrize("bug", [ValueError("shapes"), TypeError("None"), OSError("truncated")])
def test_a_bug_shows_its_traceback(monkeypatch, bug):
    """What is nobody's input is no line of the command's: NumPy's ValueError, Pillow's OSError."""

    def broken(*_, **__):
        raise bug

    monkeypatch.setattr("qma_net.data.protocol.write_protocol", broken)
    with pytest.raises(type(bug), match=str(bug)):
        cli.main(["data", "protocol", "cat", "--root", "."])


def test_a_path_that_cannot_be_used_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "photo").mkdir()
    message = r"^qma-net: \[Errno \d+\] .*file"
    with pytest.raises(SystemExit, match=message):
        cli.main(
            ["predict", str(tmp_path / "x.jpg"), "--checkpoint=random", f"--out={tmp_path}/file/x"]
        )


def test_shell_scripts_are_clean():
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed (Debian: apt-get install shellcheck)")
    scripts = [*(ROOT / "shell").glob("*.sh"), ROOT / ".ci/run"]
    done = subprocess.run(["shellcheck", "-x", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_file_the_readme_links_to_exists():
    links = re.findall(r"\]\(((?!http)[^)#]+)\)", (ROOT / "README.md").read_text())
    assert len(links) > 5
    assert not [link for link in links if not (ROOT / link).exists()]


def test_nothing_of_the_shared_data_is_in_the_repository():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not re.search(r"noiseprint\+\+|BSDS|COCO256|DST18|\.(th|pth|jpe?g|tiff?)$", done.stdout)
