"""Shell scripts: torchrun, BenCo and qma-net accept the commands that they start, and they run."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from contextlib import suppress
from importlib import import_module

import cv2
import numpy as np
import pytest
import torch
import yaml
from IMDLBenCo.registry import MODELS
from IMDLBenCo.training_scripts.utils.misc import create_argparser

from conftest import ROOT, photograph
from forks import HANG_TIMEOUT
from launching import stable_port
from qma_net.core.files import config_path
from qma_net.evaluation.attacks import read_attacks
from qma_net.evaluation.results import read_result_table
from qma_net.launch.flags import parse_own_flags
from qma_net.report import build_tables
from qma_net.report.collect import DEFAULTS, collect
from qma_net.report.figures.curves import draw_robustness
from qma_net.report.figures.draw import draw_predictions
from qma_net.report.table import MEASURED
from sample_archives import write_result

SHELL = ROOT / "shell"
NAMES = sorted(
    file.stem for file in SHELL.glob("*.sh") if "/common.sh" in file.read_text(encoding="utf-8")
)
STARTERS = [name for name in NAMES if name != "slurm"]

ONE = {"GPUS": "1"}
FOUR = {"GPUS": "4"}
NODES = {"GPUS": "4", "NODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1"}
MACHINES = pytest.mark.parametrize("machines", [ONE, FOUR, NODES], ids=["1 GPU", "4 GPUs", "nodes"])


def bash(script, *flags, cwd, check=True, **variables):
    """Run a script of shell/ in the environment of this Python."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    done = subprocess.run(
        ["bash", SHELL / f"{script}.sh", *map(str, flags)],
        cwd=cwd,
        env={**clean, "VENV": sys.prefix, "OMP_NUM_THREADS": "1", **variables},
        text=True,
        capture_output=True,
        timeout=HANG_TIMEOUT,
    )
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def error_message(script, *flags, cwd, **variables) -> str:
    """Run a script that fails and return its error message, which must be one line."""
    done = bash(script, *flags, cwd=cwd, check=False, **variables)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{script}.sh: ")
    return line


def dry_run(script, *flags, cwd, **variables) -> list[list[str]]:
    """Return the Python commands that a script would start, as lists of words without pipes."""
    done = bash(script, *flags, "--dry-run", cwd=cwd, **variables)
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    commands = [line for line in lines if line[0] == f"{sys.prefix}/bin/python"]
    assert all(line in commands or line[0] in ("mkdir", "ln", "srun") for line in lines)
    return [line[: line.index("|")] if "|" in line else line for line in commands]


def parse(command, monkeypatch) -> Namespace:
    """Parse a command with the parsers of torchrun, of BenCo or qma-net, and of the model.

    Returns:
        A namespace with ``torchrun``, its parsed arguments (None without torchrun), ``script``, the
        name of the script, and ``args`` and ``model_args``, the script's parsed arguments.
    """
    import qma_net.benco  # noqa: F401  (registers QMANet)

    words = command[1:]
    assert words.pop(0) == "-m"
    torchrun = None
    if words[0] == "torch.distributed.run":
        from torch.distributed.run import parse_args

        torchrun = parse_args(words[1:])
        assert torchrun.module
        words = [torchrun.training_script, *torchrun.training_script_args]
    module, script, *flags = words
    if module == "qma_net":
        from qma_net.cli import _parser

        args, flags = _parser().parse_known_args([script, *flags])
        model_args = create_argparser(MODELS.get(args.model)).parse_args(flags)
        return Namespace(torchrun=torchrun, script=script, args=args, model_args=model_args)
    assert module == "qma_net.launch"
    own, flags = parse_own_flags(flags, script)
    monkeypatch.setattr(sys, "argv", [script, *flags])
    parser = import_module(f"IMDLBenCo.training_scripts.{script}").get_args_parser
    args, model_args = parser()
    return Namespace(torchrun=torchrun, script=script, args=args, model_args=model_args, own=own)


def test_all_scripts_are_tested():
    assert set(NAMES) == {
        *("train", "evaluate", "benco-test", "robust", "save-images", "complexity"),
        *("ablations", "slurm"),
    }


@pytest.mark.parametrize("script", NAMES)
def test_help_documents_every_variable(script, tmp_path):
    text = bash(script, "--help", cwd=tmp_path).stdout
    assert "--dry-run" in text
    own, common = (
        (SHELL / f"{name}.sh").read_text(encoding="utf-8") for name in (script, "common")
    )
    functions = re.findall(r"^(\w+)\(\) \{.*?^\}$", common, flags=re.MULTILINE | re.DOTALL)
    # Variables of functions that the script never calls need no description.
    for name in functions:
        if name.startswith("take_") and name not in own + common[common.rindex("}") :]:
            common = re.sub(rf"^{name}\(\).*?^\}}$", "", common, flags=re.MULTILINE | re.DOTALL)
    code = re.sub(r"^\s*#.*", "", own + common, flags=re.MULTILINE)
    read = set(re.findall(r"\$\{?!?([A-Z][A-Z_]+)\b", code)) - {"BASH_SOURCE"}
    assert len(read) > 12
    for name in read:
        assert name.startswith("SLURM_") or re.search(rf"^  {name} ", text, re.MULTILINE), name


@MACHINES
@pytest.mark.parametrize("script", STARTERS)
def test_commands_are_accepted_by_their_parsers(script, machines, tmp_path, monkeypatch):
    commands = dry_run(script, cwd=tmp_path, **machines)
    assert commands
    for command in commands:
        parsed = parse(command, monkeypatch)
        assert parsed.args.model == "QMANet"
        if script in ("save-images", "complexity"):
            assert parsed.torchrun is None
            continue
        assert parsed.torchrun.nproc_per_node == machines["GPUS"]
        if "NODES" in machines:
            assert (parsed.torchrun.nnodes, parsed.torchrun.node_rank) == ("2", 1)
            assert parsed.torchrun.master_addr == "10.0.0.1"
        else:
            assert parsed.torchrun.standalone
    assert not list(tmp_path.iterdir())  # A dry run writes no files.


PEER = {"MODEL": "PSCC_Net", "IMAGE_SIZE": "64"}
PEER_FLAGS = ["--input_size", "64", "--pretrain_path", "weights of hrnet.pth"]


@pytest.mark.parametrize("benco", ["0", "1"])
@pytest.mark.parametrize("script", [name for name in STARTERS if name != "ablations"])
def test_other_model_receives_only_its_own_flags(script, benco, tmp_path, monkeypatch):
    commands = dry_run(script, *PEER_FLAGS, cwd=tmp_path, **PEER, BENCO=benco)
    assert commands
    for command in commands:
        parsed = parse(command, monkeypatch)
        assert (parsed.args.model, parsed.args.image_size) == ("PSCC_Net", 64)
        assert vars(parsed.model_args) == {
            "input_size": 64,
            "pretrain_path": "weights of hrnet.pth",
        }
        where = {"save-images": "images", "train": ""}.get(script, script)
        where = f"benco-{where}" if (script, benco) == ("robust", "1") else where
        if script != "complexity":
            out = (
                parsed.args.out
                if script != "train" and "out" in parsed.args
                else parsed.args.output_dir
            )
            assert out.startswith(f"runs/cat-PSCC_Net/{where}".rstrip("/"))


def test_other_model_is_trained_with_the_same_settings_and_its_masks_are_saved(
    tmp_path, monkeypatch
):
    ours, theirs = (
        vars(parse(*dry_run("train", *flags, cwd=tmp_path, **variables), monkeypatch).args)
        for flags, variables in (([], {"IMAGE_SIZE": "64"}), (PEER_FLAGS, PEER))
    )
    differing = {name for name in ours if ours[name] != theirs[name]}
    assert differing == {"model", "output_dir", "log_dir"}
    (command,) = dry_run("evaluate", *PEER_FLAGS, cwd=tmp_path, **PEER)
    assert parse(command, monkeypatch).args.save_masks == "png"
    line = error_message("ablations", cwd=tmp_path, **PEER)
    assert "MODEL=PSCC_Net is not supported: the ablations use flags of QMANet" in line


@MACHINES
def test_training_uses_the_settings_of_the_paper(machines, tmp_path, monkeypatch):
    (command,) = dry_run("train", cwd=tmp_path, **machines)
    parsed = parse(command, monkeypatch)
    args, model = parsed.args, parsed.model_args
    gpus = int(machines["GPUS"]) * int(machines.get("NODES", 1))
    assert args.batch_size * args.accum_iter * gpus == 32
    assert (args.image_size, args.if_resizing, args.if_padding) == (512, True, False)
    assert (args.epochs, args.lr, args.min_lr, args.weight_decay) == (150, 1e-4, 5e-7, 0.05)
    assert (args.warmup_epochs, args.if_not_amp, args.pin_mem) == (2, False, True)
    assert (args.data_path, args.test_data_path) == (
        "data/protocol_cat.json",
        "data/test_sets_train.json",
    )
    assert (model.size, model.views, model.drop_path) == ("b3", "srm,bayar,noiseprint", 0.1)
    assert (model.backbone_weights, model.noiseprint_weights) == (
        "nvidia/mit-b3",
        "noiseprint++.th",
    )
    assert (model.alpha, model.beta) == (0.2, 0.8)
    assert parsed.own.cudnn


def test_variables_and_flags_are_passed_on(tmp_path, monkeypatch):
    variables = {"DATA": "/my data", "OUT": "o", "SIZE": "b0", "NOISEPRINT": "", "BACKBONE": ""}
    variables |= {"GPUS": "0", "PROCESSES": "2", "TOTAL_BATCH": "12", "BATCH": "2", "EPOCHS": "3"}
    flags = ["--views", "srm", "--seed", "7", "--lr", "2e-4"]
    (command,) = dry_run("train", *flags, cwd=tmp_path, **variables)
    parsed = parse(command, monkeypatch)
    assert (parsed.args.batch_size, parsed.args.accum_iter, parsed.args.epochs) == (2, 3, 3)
    assert (parsed.args.seed, parsed.args.lr, parsed.args.pin_mem) == (7, 2e-4, False)
    assert parsed.args.data_path == "/my data/protocol_cat.json"
    assert (parsed.model_args.size, parsed.model_args.views) == ("b0", "srm")
    assert (parsed.model_args.backbone_weights, parsed.model_args.noiseprint_weights) == ("", "")
    assert (parsed.own.device, parsed.torchrun.nproc_per_node) == ("cpu", "2")


def test_checkpoint_of_last_epoch_is_evaluated(tmp_path, monkeypatch):
    (command,) = dry_run("evaluate", cwd=tmp_path, OUT="o", EPOCHS="3")
    assert parse(command, monkeypatch).args.checkpoint == ["o/checkpoint-2.pth"]
    (command,) = dry_run("robust", cwd=tmp_path, CHECKPOINT="x.pth")
    args = parse(command, monkeypatch).args
    assert args.checkpoint == ["x.pth"]
    assert args.test_sets == [f"data/{s}" for s in ("CASIAv1", "Columbia", "NIST16", "Coverage")]
    commands = dry_run("robust", cwd=tmp_path, BENCO="1", SETS="a b.json")
    parsed = [parse(command, monkeypatch).args for command in commands]
    assert [args.test_data_path for args in parsed] == ["data/a", "data/b.json"]
    assert [args.output_dir for args in parsed] == [
        "runs/cat/benco-robust/a",
        "runs/cat/benco-robust/b",
    ]


@pytest.mark.parametrize(
    ("script", "benco", "folder"),
    [
        ("evaluate", "0", "evaluate-best"),
        ("robust", "0", "robust-best"),
        ("robust", "1", "benco-robust-best"),
        ("save-images", "0", "images-best"),
        ("benco-test", "0", "benco-test-best"),
    ],
)
def test_results_of_best_checkpoint_have_their_own_folder(
    script, benco, folder, tmp_path, monkeypatch
):
    (tmp_path / "o/best").mkdir(parents=True)
    for name in ("checkpoint-2.pth", "best/checkpoint-1.pth"):
        (tmp_path / "o" / name).touch()
    variables = {"CHECKPOINT": "best", "OUT": "o", "EPOCHS": "3", "BENCO": benco, "SETS": "s"}
    (command,) = dry_run(script, cwd=tmp_path, **variables)
    args = vars(parse(command, monkeypatch).args)
    inside = {"robust": f"{folder}/s" if benco == "1" else folder, "save-images": f"{folder}/s"}
    assert (args.get("out") or args["output_dir"]) == f"o/{inside.get(script, folder)}"
    named = args.get("checkpoint") or [args["checkpoint_path"]]
    # BenCo's test.py takes a folder, so the script creates one with this checkpoint only.
    expected = (
        "o/benco-test-best/checkpoint-1" if script == "benco-test" else "o/best/checkpoint-1.pth"
    )
    assert named == [expected]


def test_link_to_a_checkpoint_of_the_same_name_is_replaced(tmp_path):
    """The link of an earlier test was kept, so the earlier checkpoint was tested again."""
    folder = tmp_path / "o/benco-test/checkpoint-2"
    folder.mkdir(parents=True)
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoint-2.pth").touch()
    (folder / "checkpoint-2.pth").symlink_to(tmp_path / "a/checkpoint-2.pth")
    variables = {"OUT": "o", "CHECKPOINT": "b/checkpoint-2.pth"}
    done = bash("benco-test", "--dry-run", cwd=tmp_path, **variables)
    (link,) = [line for line in done.stdout.splitlines() if line.startswith("ln ")]
    subprocess.run(shlex.split(link), cwd=tmp_path, check=True)
    assert (folder / "checkpoint-2.pth").readlink() == tmp_path / "b/checkpoint-2.pth"


@pytest.mark.parametrize(
    ("script", "variables", "message"),
    [
        (
            "train",
            {"GPUS": "3"},
            "batch 8 per GPU x accumulation 1 x 3 GPUs = 24 images per step instead of 32",
        ),
        (
            "train",
            {"BATCH": "5"},
            "batch 5 per GPU x accumulation 6 x 1 GPUs = 30 images per step instead of 32",
        ),
        (
            "train",
            {"GPUS": "64"},
            "batch 1 per GPU x accumulation 1 x 64 GPUs = 64 images per step instead of 32",
        ),
        ("train", {"GPUS": "four"}, "invalid GPUS=four: expected a whole number of at least 0"),
        ("train", {"BATCH": "0"}, "invalid BATCH=0: expected a whole number of at least 1"),
        ("evaluate", {"NODES": "2"}, "NODES=2 requires MASTER_ADDR"),
        ("evaluate", {"NODES": "2", "MASTER_ADDR": "h"}, "NODES=2 requires NODE_RANK"),
        (
            "robust",
            {**NODES, "NODE_RANK": "2"},
            "invalid NODE_RANK=2: expected 0 to 1 with NODES=2",
        ),
    ],
)
def test_inconsistent_variables_are_rejected(script, variables, message, tmp_path):
    assert message in error_message(script, "--dry-run", cwd=tmp_path, **variables)


def test_missing_files_are_named_before_the_start(tmp_path):
    for script, name, remedy in (
        ("train", "NOISEPRINT=noiseprint++.th", "qma-net weights"),
        ("complexity", "NOISEPRINT=noiseprint++.th", "qma-net weights"),
        ("evaluate", "CHECKPOINT=runs/cat/checkpoint-149.pth", "train.sh writes"),
        ("slurm", "not running in a Slurm job", "sbatch"),
    ):
        line = error_message(script, *(["train"] if script == "slurm" else []), cwd=tmp_path)
        assert name in line
        assert remedy in line
    assert "TRAIN_DATA=data/protocol_cat.json" in error_message(
        "train", cwd=tmp_path, NOISEPRINT=""
    )
    line = error_message("train", "--batch_size", "4", cwd=tmp_path)
    assert "use the variable BATCH=... instead of --batch_size" in line
    assert "unknown script 'fly'; choose train" in error_message("slurm", "fly", cwd=tmp_path)


def test_finished_training_run_is_not_started_again(tmp_path, monkeypatch):
    (tmp_path / "o").mkdir()
    for epoch in (4, 25, 9):
        (tmp_path / f"o/checkpoint-{epoch}.pth").touch()
    (command,) = dry_run("train", cwd=tmp_path, OUT="o")
    assert parse(command, monkeypatch).args.resume == "auto"
    done = bash("train", cwd=tmp_path, OUT="o", EPOCHS="26")
    assert "o/checkpoint-25.pth exists, so this training run is finished" in done.stderr
    assert not done.stdout
    (tmp_path / "o/log.txt").write_text('{"train_total_loss": 1.0, "epoch": 24}\n')
    assert dry_run("train", cwd=tmp_path, OUT="o", EPOCHS="26")  # interrupted before the last tests
    (tmp_path / "o/log.txt").write_text('{"train_total_loss": 1.0, "epoch": 25}\n')
    assert not dry_run("train", cwd=tmp_path, OUT="o", EPOCHS="26")


def test_resumed_run_needs_no_file_of_noiseprint(tmp_path):
    """Its checkpoint contains the weights."""
    (tmp_path / "o").mkdir()
    assert "NOISEPRINT=noiseprint++.th" in error_message("train", cwd=tmp_path, OUT="o")
    (tmp_path / "o/checkpoint-4.pth").touch()
    assert "TRAIN_DATA=data/protocol_cat.json" in error_message("train", cwd=tmp_path, OUT="o")


def test_dice_smoothing_depends_on_authentic_training_images(tmp_path, monkeypatch):
    """Protocol-CAT has no authentic images, so it gets next to no smoothing (Milletari 2016)."""

    def smoothing(**variables):
        (command,) = dry_run("train", cwd=tmp_path, **variables)
        return parse(command, monkeypatch).model_args.dice_smoothing

    assert smoothing() == 1e-6
    assert smoothing(TRAIN_DATA="data/protocol_mvss.json") == 0.003
    assert smoothing(DICE_SMOOTHING="0.01") == 0.01


def test_ablations_are_those_of_the_paper_and_further_ones():
    entries = yaml.safe_load(config_path("ablations.yaml").read_text(encoding="utf-8"))
    rows = {2: [], 9: [], None: []}
    for entry in entries:
        rows[entry["table"]].append(entry["row"])
    assert rows == {
        2: [
            *("w/o DFCM", "Only (Q_4, R_4, N_4)", "Only Stage#4", "Conv Decoder", "MLP Decoder"),
            "Ours",
        ],
        9: ["4 queries", "8 queries", "32 queries", "16 queries(Ours)"],
        None: [
            "addition instead of DFCM",
            "concatenation instead of DFCM",
            "DFCM without feedback into the encoders",
            *("SRM view only", "Bayar view only", "NoisePrint++ view only"),
            "equation 4 as printed",
        ],
    }
    names = [entry["name"] for entry in entries]
    assert len(set(names)) == len(names)
    assert [entry["name"] for entry in entries if not entry["flags"]] == ["qma-net", "16-queries"]


def test_every_ablation_is_trained_once(tmp_path, monkeypatch):
    entries = yaml.safe_load(config_path("ablations.yaml").read_text(encoding="utf-8"))
    commands = dry_run("ablations", "--seed", "1", cwd=tmp_path, **NODES)
    trainings, evaluations = commands[::2], commands[1::2]
    parsed = [parse(command, monkeypatch) for command in trainings]
    # Table 9 repeats the full model of Table 2.
    settings = [entry["flags"] for entry in entries if entry["name"] != "16-queries"]
    for training, flags in zip(parsed, settings, strict=True):
        assert {name: getattr(training.model_args, name) for name in flags} == flags
        assert (training.args.seed, training.args.epochs) == (1, 150)
    folders = [training.args.output_dir for training in parsed]
    assert folders[:2] == ["runs/ablations/without-dfcm", "runs/ablations/level-4-only"]
    assert folders[5] == "runs/cat"
    assert len(set(folders)) == 16
    # Only models with the view get the weights of NoisePrint++.
    weights = [bool(training.model_args.noiseprint_weights) for training in parsed]
    assert weights == [True] * 12 + [False, False, True, True]
    parsed += [parse(command, monkeypatch) for command in evaluations]
    assert len({command.torchrun.master_port for command in parsed}) == 32


def test_finished_ablations_are_skipped(tmp_path):
    data, out = tmp_path / "data", tmp_path / "runs/ablations"
    data.mkdir()
    (data / "test_sets.json").write_text(json.dumps({"a": "A", "b": "B"}))
    for name, sets in (("without-dfcm", "ab"), ("conv-decoder", "a")):
        (out / name / "evaluate").mkdir(parents=True)
        (out / name / "checkpoint-149.pth").touch()
        for test_set in sets:
            (out / name / f"evaluate/{test_set}.json").touch()
    only = ["--only", "without-dfcm,conv-decoder,8-queries"]
    done = bash("ablations", *only, "--dry-run", cwd=tmp_path)
    started = re.findall(r"qma_net(?:\.launch)? (\w+) .*--out(?:put_dir)? (\S+)", done.stdout)
    assert started == [
        ("evaluate", "runs/ablations/conv-decoder/evaluate"),
        ("train", "runs/ablations/8-queries"),
        ("evaluate", "runs/ablations/8-queries/evaluate"),
    ]
    assert "without-dfcm/checkpoint-149.pth exists, so this training run is finished" in done.stderr
    assert "without-dfcm/evaluate already contains all test sets" in done.stderr
    (out / "without-dfcm/best").mkdir()
    (out / "without-dfcm/best/checkpoint-3.pth").touch()
    best = {"CHECKPOINT": "best"}
    done = bash("ablations", "--only", "without-dfcm", "--dry-run", cwd=tmp_path, **best)
    assert done.stdout.strip().endswith("--out runs/ablations/without-dfcm/evaluate-best")
    (out / "without-dfcm/evaluate").rename(out / "without-dfcm/evaluate-best")
    done = bash("ablations", "--only", "without-dfcm", "--dry-run", cwd=tmp_path, **best)
    assert not done.stdout
    assert "without-dfcm/evaluate-best already contains all test sets" in done.stderr
    line = error_message("ablations", "--only", "5-queries", cwd=tmp_path)
    assert "unknown setting --only 5-queries; choose from without-dfcm" in line


@pytest.fixture
def cluster(tmp_path):
    """Imitate Slurm with two nodes: its variables, ``scontrol`` and ``srun``."""
    tools, spool = tmp_path / "tools", tmp_path / "spool"
    tools.mkdir()
    spool.mkdir()
    (tools / "scontrol").write_text("#!/bin/sh\nprintf 'node7\\nnode8\\n'\n")
    (tools / "srun").write_text(
        '#!/bin/bash\nwhile [ "$1" != bash ]; do shift; done\n'
        'for SLURM_NODEID in 0 1; do SLURM_NODEID=$SLURM_NODEID "$@" --dry-run; done\n'
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    shutil.copy(SHELL / "slurm.sh", spool / "slurm_script")  # Slurm runs a copy of the script.
    variables = {
        "SLURM_JOB_ID": "36123",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "PATH": "/usr/bin:/bin",
    }
    variables |= {"SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_NODEID": "0"}
    variables |= {"SLURM_SUBMIT_DIR": str(ROOT), "VENV": sys.prefix}
    variables["PATH"] = f"{tools}:{variables['PATH']}"
    return spool / "slurm_script", variables


def test_slurm_job_starts_every_node(cluster, tmp_path, monkeypatch):
    script, variables = cluster
    command = ["bash", script, "train", "--seed", "2"]
    done = subprocess.run(
        command, env=variables, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    parsed = [parse(shlex.split(line), monkeypatch) for line in done.stdout.splitlines()]
    assert [node.torchrun.node_rank for node in parsed] == [0, 1]
    for node in parsed:
        # Linux gives the ports from 32768 on to outgoing connections.
        assert (node.torchrun.master_addr, node.torchrun.master_port) == ("node7", 20123)
        assert (node.torchrun.nnodes, node.torchrun.nproc_per_node) == ("2", "4")
        assert (node.args.batch_size, node.args.accum_iter, node.args.seed) == (4, 1, 2)


def test_slurm_job_can_be_shown_without_slurm(tmp_path, monkeypatch):
    flags = ["train", "--dry-run", "--seed", "2"]
    done = bash("slurm", *flags, cwd=tmp_path, NODES="2", GPUS="4")
    srun, command = map(shlex.split, done.stdout.splitlines())
    assert srun[:3] == ["srun", "--nodes", "2"]
    assert srun[-4:] == ["bash", str(SHELL / "train.sh"), "--seed", "2"]
    assert parse(command, monkeypatch).torchrun.node_rank == 0


@pytest.fixture
def small_data(tmp_path):
    """Write a protocol of one list with eight tampered images, which are also the test set."""
    folder = tmp_path / "data/set"
    for name in ("Tp", "Gt"):
        (folder / name).mkdir(parents=True)
    for i in range(8):
        image, mask = photograph(64, 64, i), np.zeros((64, 64), np.uint8)
        image[20:50, 10:40] = photograph(30, 30, 50 + i)
        mask[20:50, 10:40] = 255
        cv2.imwrite(str(folder / f"Tp/{i}.png"), image)
        cv2.imwrite(str(folder / f"Gt/{i}.png"), mask)
    pairs = [[str(folder / f"Tp/{i}.png"), str(folder / f"Gt/{i}.png")] for i in range(8)]
    (tmp_path / "data/protocol_cat.json").write_text(json.dumps(pairs))
    for name in ("test_sets", "test_sets_train"):
        (tmp_path / f"data/{name}.json").write_text(json.dumps({"set": str(folder)}))
    return tmp_path


SMALL = {"GPUS": "0", "BACKBONE": "", "NOISEPRINT": "", "SIZE": "b0", "IMAGE_SIZE": "64"}
SMALL |= {"EPOCHS": "1", "WORKERS": "0", "TOTAL_BATCH": "4", "OUT": "o"}


def two_nodes(folder) -> list[tuple[int | None, str]]:
    """Run train.sh as two nodes and return exit codes (None after a timeout) and outputs."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    nodes = {"NODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(stable_port())}
    nodes |= {**clean, **SMALL, "VENV": sys.prefix, "OMP_NUM_THREADS": "1"}
    logs = [folder / f"node-{rank}.log" for rank in (0, 1)]
    started = []
    for rank, log in enumerate(logs):
        # A file, because a full pipe would block the process while the other one is read.
        with open(log, "w", encoding="utf-8") as out:
            process = subprocess.Popen(
                ["bash", SHELL / "train.sh", "--views", "srm", "--lr", "1e-3"],
                cwd=folder,
                env={**nodes, "NODE_RANK": str(rank)},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(process)
    codes = []
    for process in started:
        try:
            codes.append(process.wait(timeout=HANG_TIMEOUT))
        except subprocess.TimeoutExpired:
            codes.append(None)
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return list(zip(codes, [log.read_text(encoding="utf-8") for log in logs], strict=True))


@pytest.mark.slow
def test_two_nodes_train_together(small_data):
    """Two torchruns with one process each on this machine share a batch of four images."""
    results = two_nodes(small_data)
    outputs = [output for _, output in results]
    assert [code for code, _ in results] == [0, 0], outputs
    assert "effective batch size: 4" in outputs[0]
    assert "distributed init (rank 0)" in outputs[0]
    assert "distributed init (rank 1)" in outputs[1]
    assert "data check: no errors" in outputs[0]
    (row,) = map(json.loads, (small_data / "o/log.txt").read_text(encoding="utf-8").splitlines())
    assert np.isfinite(row["train_total_loss"])
    checkpoint = torch.load(small_data / "o/checkpoint-0.pth", weights_only=False)
    assert checkpoint["args"].world_size == 2


def test_faulty_data_prevents_training(small_data):
    cv2.imwrite(str(small_data / "data/set/Gt/3.png"), np.zeros((32, 64), np.uint8))
    done = bash("train", "--views", "srm", cwd=small_data, check=False, **SMALL)
    assert done.returncode == 1
    assert "size-mismatch" in done.stderr
    assert "qma-net: the data has errors" in done.stderr
    assert "--no_data_check" in done.stderr
    assert not (small_data / "o").exists()


@pytest.mark.slow
def test_other_model_is_trained_evaluated_and_reported_next_to_ours(small_data):
    """Train PSCC-Net with BenCo and evaluate it; a renamed copy of its results stands for ours."""
    (small_data / "data/set").rename(small_data / "data/CASIAv1")
    for file in (small_data / "data").glob("*.json"):
        named = file.read_text(encoding="utf-8").replace("data/set", "data/CASIAv1")
        file.write_text(named.replace('"set"', '"CASIAv1"'))
    torch.save({}, small_data / "empty.pth")
    peer = {**SMALL, **PEER, "OUT": "o/peer", "BATCH": "2", "TOTAL_BATCH": "2"}
    flags = ["--input_size", "64", "--pretrain_path", "empty.pth"]
    bash("train", *flags, cwd=small_data, **peer)
    bash("evaluate", *flags, cwd=small_data, **peer)
    (row,) = map(
        json.loads, (small_data / "o/peer/log.txt").read_text(encoding="utf-8").splitlines()
    )
    assert np.isfinite(row["train_combined_loss"])

    shutil.copytree(small_data / "o/peer/evaluate", small_data / "o/ours")
    result = small_data / "o/ours/CASIAv1.json"
    content = json.loads(result.read_text(encoding="utf-8"))
    files = {"backbone_weights": "", "noiseprint_weights": "", "init_from": ""}
    content["header"] |= {"model": "QMANet", "model_flags": DEFAULTS | files}
    result.write_text(json.dumps(content))
    f1 = [row["f1"] for row in read_result_table(result.with_suffix(".csv"))]
    for folder in ("ours", "peer/evaluate"):  # Add the results of `robust` to those of `evaluate`.
        header = json.loads((small_data / f"o/{folder}/CASIAv1.json").read_text(encoding="utf-8"))[
            "header"
        ]
        same = {key: header[key] for key in ("checkpoint", "checkpoint_sha256", "image_size")}
        for attack in read_attacks():
            write_result(
                small_data / f"o/{folder}/robust",
                "CASIAv1",
                f1,
                model=header["model"],
                flags=header["model_flags"],
                attack=(attack.name, attack.level),
                stem=f"{attack.name}-{attack.level}",
                **same,
            )
    results = collect([small_data / "o"])
    assert not results.notes
    tables = {table.key: table for table in build_tables(results)}
    for number in (1, 7):
        rows = [row for row in tables[f"table-{number}"].rows if row.section == MEASURED]
        names = [row.labels[0] for row in rows]
        assert names[-2:] == ["QMA-Net (ours, 64 px)", "PSCC-Net (measured here, 64 px)"]
        for row in rows[-2:]:
            assert row.cells[0].text == f"{np.mean(f1):.3f}"
    masks, curves = draw_predictions(results), draw_robustness(results)
    columns = {axes.get_title() for axes in masks.canvas.axes}
    assert {"QMA-Net (64 px)", "PSCC-Net (64 px)"} <= columns
    assert "Omitted" not in masks.caption
    labels = {text.get_text() for text in curves.canvas.legends[0].get_texts()}
    assert labels == {"QMA-Net (64 px)", "PSCC-Net (64 px)"}
