"""Packaging: metadata, contents of the wheel, lightweight imports and the command line."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from itertools import chain

import pytest

import qma_net
from conftest import ROOT
from forks import HANG_TIMEOUT
from qma_net import cli
from qma_net.weights.names import SMALL

HEAVY = ("torch", "IMDLBenCo", "transformers", "cv2", "numpy", "albumentations", "matplotlib")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Packages of qma_net/ that need more than the required dependencies, and the extras they may use.
EXTRAS = {
    "benco": {"benco"},
    "core": {"heif"},
    "demo": {"benco", "demo"},
    "evaluation": {"benco"},
    "examine": {"c2pa"},
    "inference": {"export"},
    "launch": {"benco"},
    "report": {"benco", "report"},
    "web": {"web"},
}


def run(code, **options):
    """Run code in a new interpreter and return its output."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, **options
    ).stdout


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("import qma_net; print(qma_net.__version__)", f"{qma_net.__version__}\n"),
        (
            "from qma_net.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
            "usage: qma-net ",
        ),
        (
            "from qma_net.modeling.config import QMANetConfig; print(QMANetConfig.__name__)\n"
            "from qma_net.launch import SCRIPTS",
            "QMANetConfig\n",
        ),
    ],
    ids=["package", "help", "configuration"],
)
def test_lightweight_imports_do_not_load_heavy_packages(code, output):
    out = run(f"{code}\nimport sys\nprint('loaded', *(n for n in {HEAVY} if n in sys.modules))")
    assert out.startswith(output)
    assert out.splitlines()[-1] == "loaded"


def test_public_names_are_listed_and_importable():
    assert set(qma_net.__all__) <= set(dir(qma_net))
    for name in qma_net.__all__:
        assert getattr(qma_net, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'predict'"):
        _ = qma_net.predict


def distribution_name(name: str) -> str:
    """Normalize the name of a distribution or requirement, without its version."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name)[0]).lower()


def third_party_imports() -> dict[str, set[str]]:
    """Map the packages of qma_net/ to the top-level modules of others that they import."""
    imported = {}
    for file in (ROOT / "qma_net").rglob("*.py"):
        package = file.relative_to(ROOT / "qma_net").parts[0].removesuffix(".py")
        names = imported.setdefault(package, set())
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.partition(".")[0])
    ours = {*sys.stdlib_module_names, "qma_net"}
    return {package: names - ours for package, names in imported.items()}


def test_direct_imports_are_declared_as_dependencies():
    required = {distribution_name(name) for name in PROJECT["dependencies"]}
    extras = {
        extra: {distribution_name(name) for name in names}
        for extra, names in PROJECT["optional-dependencies"].items()
    }
    distributions = packages_distributions()
    imported = third_party_imports()
    assert {"torch", "yaml", "PIL"} <= set().union(*imported.values())
    undeclared = {
        f"qma_net.{package} imports {name}"
        for package, names in imported.items()
        for name in names
        if not required.union(*(extras[extra] for extra in EXTRAS.get(package, ())))
        & {distribution_name(item) for item in distributions.get(name, ())}
    }
    assert undeclared == set()


def test_pinned_versions_cover_all_declared_dependencies():
    declared = {*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())}
    for file in (ROOT / "constraints").glob("python3.*.txt"):
        pinned = re.findall(r"^([\w.-]+)==", file.read_text(encoding="utf-8"), re.MULTILINE)
        missing = set(map(distribution_name, declared)) - set(map(distribution_name, pinned))
        assert missing == set(), file


def test_model_can_be_built_without_benco():
    code = (
        "import sys; sys.modules['IMDLBenCo'] = None\n"
        "from qma_net import build_qma_net, load_checkpoint\n"
        "import torch; m = build_qma_net('b0', 'srm').eval()\n"
        "print(m(torch.randn(1, 3, 64, 64)).mask_logits.shape)"
    )
    assert "torch.Size([1, 1, 64, 64])" in run(code)


def test_training_without_benco_names_the_extra_to_install():
    code = (
        "import importlib.metadata as m\n"
        "def absent(name): raise m.PackageNotFoundError(name)\n"
        "m.version = absent\n"
        "from qma_net.cli import main; main(['train', '--model', 'QMANet'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("run `pip install 'qma-net[benco]'`")


def test_wheel_contains_data_files_and_shared_scripts(tmp_path):
    source = tmp_path / "source"
    unwanted = (".git", ".venv*", ".*_cache", "runs", ".whl", "build", "site", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*unwanted))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "-w", tmp_path, source], check=True, capture_output=True, text=True)
    (file,) = tmp_path.glob("qma_net-*.whl")
    with zipfile.ZipFile(file) as wheel:
        names = set(wheel.namelist())
        (metadata_file,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = wheel.read(metadata_file).decode()
    weights = {f"weights/{SMALL}/{name}" for name in ("config.json", "model.safetensors")}
    data_files = {
        file.relative_to(ROOT / "qma_net").as_posix()
        for suffix in ("css", "j2", "js", "py", "typed", "yaml")
        for file in (ROOT / "qma_net").rglob(f"*.{suffix}")
    }
    assert {"py.typed", "web/static/page.css", "core/templates/base.html.j2"} <= data_files
    outside = {"benco_configs/protocol_cat.json", "shell/train.sh"}
    assert {f"qma_net/{name}" for name in weights | data_files | outside} <= names
    # These scripts need a checkout.
    for name in ("demo", "docs", "endurance", "env", "evidence", "test"):
        assert f"qma_net/shell/{name}.sh" not in names
    assert not [name for name in names if not name.startswith(("qma_net/", "qma_net-"))]
    required = re.findall(r"^Requires-Dist: ([\w.-]+)([^;\n]*)$", metadata, re.MULTILINE)
    assert "imdlbenco" not in dict(required)
    (benco,) = re.findall(r"^Requires-Dist: imdlbenco.*$", metadata, re.MULTILINE)
    assert re.search(r'python_version < ["\']3\.13["\']', benco)
    assert f"Version: {qma_net.__version__}\n" in metadata
    assert "Classifier: Typing :: Typed\n" in metadata


@pytest.mark.parametrize("name", ["demo", "docs", "endurance", "env", "evidence", "test"])
def test_help_creates_no_environment(tmp_path, name):
    done = subprocess.run(
        ["bash", ROOT / f"shell/{name}.sh", "--help"],
        env={"PATH": "/usr/bin:/bin", "VENV": str(tmp_path / "venv"), "PYTHON": "false"},
        capture_output=True,
        text=True,
        timeout=HANG_TIMEOUT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "VENV" in done.stdout
    assert "shellcheck" not in done.stdout
    assert not (tmp_path / "venv").exists()


def test_help_of_demo_script_lists_all_options():
    header = (ROOT / "shell/demo.sh").read_text(encoding="utf-8").partition("set -euo")[0]
    done = subprocess.run(
        [sys.executable, "-m", "qma_net.demo", "--help"], capture_output=True, text=True, check=True
    )
    flags = set(re.findall(r"--[a-z][a-z-]*", done.stdout.partition("options:")[2]))
    assert flags - {"--help"} == set(re.findall(r"--[a-z][a-z-]*", header))


def test_protocol_has_seven_lists_and_six_test_sets():
    protocol = json.loads((ROOT / "benco_configs/protocol_cat.json").read_text(encoding="utf-8"))
    assert len(protocol) == 7
    assert {kind for kind, _ in protocol} == {"ManiDataset", "JsonDataset"}
    assert len(json.loads((ROOT / "benco_configs/test_sets.json").read_text(encoding="utf-8"))) == 6


def test_help_and_version_exit_successfully(capsys):
    for argv in (["--help"], ["data", "synth", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as done:
            cli.main(argv)
        assert done.value.code == 0
    assert qma_net.__version__ in capsys.readouterr().out


def test_package_can_be_run_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "qma_net", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"qma-net {qma_net.__version__}\n"


def test_invalid_input_gives_one_line_error(tmp_path):
    with pytest.raises(SystemExit, match=r"^qma-net: cannot find the folder of photos .*nowhere"):
        cli.main(["data", "synth", "--photos", str(tmp_path / "nowhere"), "--out", "x"])


@pytest.mark.parametrize("bug", [ValueError("shapes"), TypeError("None"), OSError("truncated")])
def test_unexpected_errors_show_their_traceback(monkeypatch, bug):
    """Only input errors become one-line messages, not every ValueError or OSError of a library."""

    def broken(*_, **__):
        raise bug

    monkeypatch.setattr("qma_net.data.protocol.write_protocol", broken)
    with pytest.raises(type(bug), match=str(bug)):
        cli.main(["data", "protocol", "cat", "--root", "."])


def test_unusable_path_gives_one_line_error(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "photo").mkdir()
    message = r"^qma-net: \[Errno \d+\] .*file"
    with pytest.raises(SystemExit, match=message):
        cli.main(
            ["predict", str(tmp_path / "x.jpg"), "--checkpoint=random", f"--out={tmp_path}/file/x"]
        )


def test_shell_scripts_pass_shellcheck():
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed (Debian: apt-get install shellcheck)")
    scripts = [*(ROOT / "shell").glob("*.sh"), ROOT / ".ci/run"]
    done = subprocess.run(["shellcheck", "-x", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_files_linked_from_readme_exist():
    links = re.findall(r"\]\(((?!http)[^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 5
    assert not [link for link in links if not (ROOT / link).exists()]


def test_tests_named_on_reliability_page_exist():
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    sources = "".join(
        file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("test_*.py")
    )
    names = set(re.findall(r"`(test_\w+)`", page))
    assert len(names) > 30
    assert {name for name in names if f"def {name}(" not in sources} == set()


def test_documentation_builds_without_warnings(tmp_path):
    """Broken links between pages, and API pages of modules that do not exist, are warnings."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-d", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'id="qma_net.QMANetPredictor.predict"' in (
        tmp_path / "api/prediction/index.html"
    ).read_text(encoding="utf-8")


def test_repository_contains_no_shared_data():
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not re.search(r"noiseprint\+\+|BSDS|COCO256|DST18|\.(th|pth|jpe?g|tiff?)$", done.stdout)
