"""BenCo's scripts with QMA-Net on the CPU, started as users do, in one process and in two."""

import itertools
import json
import re
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from transformers import SegformerConfig, SegformerModel

from conftest import ROOT, TINY
from forks import HANG_TIMEOUT, run_code
from hub_server import hub_server
from launching import MODEL, SIZE, stable_port, start, write_tampered_set
from qma_net.launch.flags import parse_own_flags

HUB_FILES = ("config.json", "model.safetensors")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Return a folder with a small test set in BenCo's layout: seven tampered images."""
    folder = tmp_path_factory.mktemp("benco")
    write_tampered_set(folder)
    return folder


def training(out, *extra):
    flags = [*MODEL, *SIZE, "--data_path", "set", "--test_data_path", "set", "--epochs", 2]
    flags += ["--batch_size", 2, "--accum_iter", 1, "--warmup_epochs", 1, "--lr", 1e-4]
    flags += ["--test_period", 1, "--output_dir", out, "--log_dir", out]
    return [str(word) for word in ("train", *flags, *extra)]


def train(work, out, processes, *extra, **options):
    return start(training(out, *extra), work, processes, **options)


@pytest.fixture(scope="module")
def checkpoint(work):
    """Train with two processes, all of them started as users do, and return the checkpoint."""
    done = train(work, "trained", 2, "--save_period", 1, fresh=True)
    assert "BenCo's CUDA calls are redirected" in done.stdout
    rows = [json.loads(line) for line in (work / "trained/log.txt").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1]
    assert all(np.isfinite(row["train_total_loss"]) for row in rows)
    return work / "trained/checkpoint-1.pth"


def test_training_runs_without_torchrun(work):
    train(work, "alone", 1)
    assert (work / "alone/checkpoint-1.pth").is_file()


@pytest.mark.parametrize("stopped", [False, True])
def test_no_thread_of_the_process_group_is_left_at_the_end(work, stopped):
    """They could abort the interpreter's exit (SIGABRT)."""
    out = work / f"ended-{stopped}"
    if stopped:
        out.mkdir()
        (out / "STOP").touch()
    code = (
        "from pathlib import Path\nfrom qma_net.launch import main\n"
        f"try:\n    main({training(out, '--epochs', 1)})\n"
        "finally:\n    for file in Path('/proc/self/task').glob('*/comm'):\n"
        "        print('thread', file.read_text())"
    )
    done = run_code(code, work)
    assert (out / "checkpoint-0.pth").is_file() != stopped
    assert "thread" in done.stdout
    assert "thread gloo" not in done.stdout
    assert "thread pt_gloo" not in done.stdout


def test_best_epoch_on_test_sets_is_copied_to_best_folder(work, checkpoint):
    rows = [json.loads(line) for line in (work / "trained/log.txt").read_text().splitlines()]
    means = [row["test_pixel-level F1"] for row in rows]
    best = int(np.argmax(means))  # The earlier of two equal epochs.
    note = json.loads((work / "trained/best/best.json").read_text())
    assert (note["epoch"], note["mean"]) == (best, pytest.approx(means[best]))
    assert list(note["test_sets"].values()) == [note["mean"]]
    names = sorted(file.name for file in (work / "trained/best").iterdir())
    assert names == ["best.json", f"checkpoint-{best}.pth"]
    name = f"checkpoint-{best}.pth"
    assert (work / "trained/best" / name).read_bytes() == (work / "trained" / name).read_bytes()
    assert len(list((work / "trained").glob("*.pth"))) == 2


@pytest.mark.slow
def test_resumed_epoch_equals_uninterrupted_run(work, checkpoint):
    """The second epoch is repeated without passing model flags."""
    flags = [*SIZE, "--data_path", "set", "--test_data_path", "set", "--epochs", 2]
    flags += ["--batch_size", 2, "--accum_iter", 1, "--warmup_epochs", 1, "--lr", 1e-4]
    flags += ["--test_period", 1, "--output_dir", "resumed", "--log_dir", "resumed"]
    flags += ["--model", "QMANet", "--resume", work / "trained/checkpoint-0.pth"]
    start(["train", *flags], work, 2)
    rows = [(work / run / "log.txt").read_text().splitlines()[-1] for run in ("trained", "resumed")]
    assert rows[0] == rows[1]


def test_test_script_reads_model_flags_from_checkpoint(work, checkpoint):
    """Run in one process (test_demo uses two), with a folder best/ that must be ignored."""
    assert (work / "trained/best").is_dir()
    out = "tested"
    flags = ["--model", "QMANet", *SIZE, "--test_data_json", "sets.json", "--test_batch_size", 2]
    flags += ["--checkpoint_path", "trained", "--output_dir", out, "--log_dir", out]
    done = start(["test", *flags], work)
    assert "--size b0 --views srm --query_count 16" in done.stdout
    rows = [json.loads(line) for line in (work / out / "small/log.txt").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1]
    assert all(0 <= row["test_pixel-level F1"] <= 1 for row in rows)


@pytest.mark.slow  # test_demo runs it too, in two processes.
def test_robustness_script_logs_every_attack(work, checkpoint):
    out = "attacked"
    flags = ["--model", "QMANet", *SIZE, "--test_data_path", "set", "--test_batch_size", 2]
    flags += ["--checkpoint_path", checkpoint, "--output_dir", out, "--log_dir", out]
    start(["test_robust", *flags], work)
    logs = [path.parent.name for path in (work / out).glob("*/log.txt")]
    assert len(logs) == 19
    for attack, levels in (("GaussianBlur", 6), ("GaussNoise", 6), ("JpegCompression", 6)):
        assert sum(name.startswith(attack) for name in logs) == levels


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_save_images_accepts_relative_checkpoint_path(work, checkpoint, processes):
    out = f"images{processes}"
    flags = ["--model", "QMANet", *SIZE, "--test_data_path", "set", "--test_batch_size", 1]
    flags += ["--checkpoint_path", "trained/checkpoint-1.pth", "--output_dir", out]
    start(["test_save_images", *flags], work, processes)
    masks = list((work / out / "pred").glob("*.png"))
    assert len(masks) >= 6  # BenCo omits the remainder of two processes.
    assert cv2.imread(str(masks[0]), cv2.IMREAD_UNCHANGED).shape == (72, 64)
    assert len(json.loads((work / out / "pred_label_combined.json").read_text())) >= 6


def test_complexity_script_counts_fused_attention(work, noiseprint_file):
    """Parameters and multiply-adds of the default model at 512x512."""
    flags = ["--model", "QMANet", "--noiseprint_weights", noiseprint_file, "--image_size", 512]
    flags += ["--if_resizing", "--test_batch_size", 1, "--num_workers", 0]
    done = start(["test_complexity", *flags, "--device", "cpu"], work)
    total = int(re.search(r"^(?:\[[\d:.]+\] +)?(\d{9,})$", done.stdout, re.MULTILINE)[1])
    assert total / 1e9 == pytest.approx(230.0, rel=0.02)
    parameters, _ = re.search(r"\| network +\| ([\d.]+)G +\| ([\d.]+)T", done.stdout).groups()
    assert float(parameters) == pytest.approx(0.114, rel=0.005)
    assert "Unsupported operator aten::scaled_dot_product_attention" not in done.stderr


def test_attention_is_counted_as_two_matrix_products():
    from fvcore.nn import FlopCountAnalysis

    import qma_net.benco  # noqa: F401  (registers the operation count)

    class Attend(torch.nn.Module):
        def forward(self, q, k):
            return torch.nn.functional.scaled_dot_product_attention(q, k, k)

    q, k = torch.randn(2, 3, 10, 8), torch.randn(2, 3, 7, 8)
    assert FlopCountAnalysis(Attend(), (q, k)).total() == 2 * (2 * 3 * 10 * 7 * 8)


def test_benco_init_script_trains_with_one_changed_import(work, tmp_path):
    init = "import sys; from IMDLBenCo.cli import main; sys.argv = ['benco', 'init']; main()"
    run_code(init, tmp_path)
    script = tmp_path / "train.py"
    line = "from qma_net.benco import QMANet"
    changed, count = re.subn("from mymodel import MyModel.*", line, script.read_text())
    assert count == 1
    # The two lines that qma_net.benco suggests where CUDA is not available.
    on_cpu = "from qma_net.launch import redirect_cuda_to_cpu\nredirect_cuda_to_cpu()\n"
    script.write_text(on_cpu + changed)
    flags = [*MODEL, *SIZE, "--data_path", work / "set", "--test_data_path", work / "set"]
    flags += ["--epochs", 1, "--batch_size", 2, "--accum_iter", 1, "--lr", 1e-4]
    done = start(flags, tmp_path, launcher=("train.py",))
    assert "CUDA is not available" not in done.stderr
    assert (tmp_path / "output_dir/checkpoint-0.pth").is_file()


def test_accumulation_over_more_batches_than_an_epoch_is_rejected(work):
    done = train(work, "refused", 1, "--accum_iter", 16, check=False)
    assert done.returncode == 1
    assert "--accum_iter 16 is more than the 3 batches per process and epoch" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_files_among_checkpoints_are_rejected(work, tmp_path):
    (tmp_path / "mit_b3.pth").write_bytes(b"")
    flags = ["--model", "QMANet", *SIZE, "--checkpoint_path", tmp_path]
    done = start(["test", *flags], work, check=False)
    assert done.returncode == 1
    assert f"{tmp_path} contains mit_b3.pth, and BenCo's test.py" in done.stderr


@pytest.mark.parametrize("script", ["test", "test_robust", "test_save_images", "test_complexity"])
def test_flags_for_training_are_rejected_by_other_scripts(script):
    """They were accepted without effect, so images were resized in spite of ``--fit native``."""
    training = ["--fit", "native", "--skip_bad", "--clip_grad", "3", "--save_period", "2"]
    own, rest = parse_own_flags(["--cudnn", *training], script)
    assert own.cudnn
    assert rest == training


def test_help_lists_flags_of_launcher_model_and_benco(work):
    done = start(["train", "--help"], work)
    for flag in ("--data_path", "--cudnn", "--save_period", "--noiseprint_weights", "--init_from"):
        assert flag in done.stdout
    assert done.stdout.startswith("usage: qma-net train ")  # Not torch's version, as BenCo prints.
    assert not done.stderr


def test_unknown_script_is_rejected():
    from qma_net.launch.scripts import main

    with pytest.raises(
        SystemExit, match="qma-net: there is no script 'fly'; choose from train, test"
    ):
        main(["fly"])


@pytest.fixture
def misc():
    """Return BenCo's misc module and restore it afterwards, since the launcher does not."""
    import IMDLBenCo.training_scripts.utils.misc as misc

    original = dict(vars(misc))
    yield misc
    vars(misc).update(original)


def test_cudnn_stays_on_only_with_flag(misc, caplog, monkeypatch):
    from qma_net.launch.scripts import keep_cudnn_on

    caplog.set_level("INFO", "qma_net")
    monkeypatch.setattr(torch.backends.cudnn, "enabled", True)
    misc.seed_torch(1)
    assert not torch.backends.cudnn.enabled
    keep_cudnn_on()
    misc.seed_torch(1)
    assert torch.backends.cudnn.enabled
    assert "cuDNN is on" in caplog.text


def test_kill_while_saving_leaves_old_checkpoint(misc, tmp_path, monkeypatch):
    from qma_net.launch.checkpoints import save_atomically

    save_atomically()
    misc.save_on_master({"a": 1}, tmp_path / "checkpoint-0.pth")

    def killed(content, file):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        misc.save_on_master({"a": 2}, tmp_path / "checkpoint-0.pth")
    assert torch.load(tmp_path / "checkpoint-0.pth", weights_only=True) == {"a": 1}
    assert len(list(tmp_path.glob("*.pth"))) == 1


def test_imports_do_not_redirect_torch(tmp_path):
    code = (
        "import torch; before = torch.cuda.synchronize, torch.distributed.init_process_group, "
        "torch.nn.parallel.DistributedDataParallel, torch.load\n"
        "import qma_net.launch.scripts, qma_net.launch.cuda_to_cpu, qma_net.benco\n"
        "assert before == (torch.cuda.synchronize, torch.distributed.init_process_group, "
        "torch.nn.parallel.DistributedDataParallel, torch.load)"
    )
    run_code(code, tmp_path)


def test_launcher_imports_without_posix_modules(tmp_path):
    """Windows lacks them, and single-process commands should run there."""
    code = (
        "import os, signal, sys, filelock, fvcore.nn, IMDLBenCo.training_scripts.train\n"
        "from transformers import SegformerModel\n"
        "for name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'): sys.modules[name] = None\n"
        "for name in ('getuid', 'fork', 'register_at_fork', 'pread', 'sched_getaffinity'):\n"
        "    delattr(os, name)\n"
        "for name in ('SIGHUP', 'SIGKILL', 'SIGUSR1'): delattr(signal, name)\n"
        "from qma_net.launch import checkpoints, flags, preflight, training_hooks\n"
        "flags.help_text(); training_hooks.StopRequests('').install_handlers()\n"
    )
    run_code(code, tmp_path)


def test_benco_package_prints_nothing_on_import(tmp_path):
    code = (
        "import IMDLBenCo.training_scripts.train\nprint('begin', flush=True)\nimport qma_net.benco"
    )
    done = run_code(code, tmp_path)
    assert done.stdout == "begin\n"
    assert "qma_net" not in done.stderr


# Ranks that wait for the first one

TWO_RANKS = """
import importlib, logging, os, time
from pathlib import Path
import huggingface_hub.constants
import torch.distributed
from qma_net.launch import main, preflight
from qma_net.modeling import config
importlib.reload(huggingface_hub.constants)  # It read other variables when it was imported.
config.SIZES["tiny"] = {tiny!r}
init, check = torch.distributed.init_process_group, preflight.check

def init_process_group(*args, **kwargs):
    Path("initialized-" + os.environ["RANK"]).write_text(str(Path("checked").exists()))
    return init(*args, **kwargs)

def report_waiting(record):
    Path("waiting").touch()
    return True

def slow_check(*args, **kwargs):
    deadline = time.monotonic() + {limit}
    while not Path("waiting").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    report = check(*args, **kwargs)
    Path("checked").touch()
    return report

torch.distributed.init_process_group = init_process_group
if "CHECK_WAITS" in os.environ:
    preflight.check = slow_check
    logging.getLogger("qma_net.launch.waiting").addFilter(report_waiting)
main()
"""


def train_with_two_ranks(work, out, *more, env, check=True):
    script = work / "two_ranks.py"
    script.write_text(TWO_RANKS.format(tiny=TINY, limit=HANG_TIMEOUT / 2))
    flags = ["--model", "QMANet", "--size", "tiny", "--views", "srm", *SIZE, "--epochs", 1]
    flags += ["--batch_size", 1, "--accum_iter", 1, "--test_data_path", "set", "--output_dir", out]
    flags += ["--data_path", "set", *more]
    return start(["train", *flags], work, 2, launcher=(script,), env=env, check=check)


def test_process_group_is_created_after_the_data_check(work):
    """A check of more than 10 minutes ended the run, since the group of rank 1 timed out.

    Here, the check takes until rank 1 reports that it is waiting.
    """
    env = {"CHECK_WAITS": "1", "QMA_NET_CACHE": str(work / "no-earlier-check")}
    done = train_with_two_ranks(work, "slow", env=env)
    assert "rank 1 is waiting for rank 0 to finish the data check" in done.stdout
    assert [(work / f"initialized-{rank}").read_text() for rank in (0, 1)] == ["True", "True"]
    assert (work / "slow/checkpoint-0.pth").is_file()


def test_ranks_may_be_started_without_torchrun(work):
    """The store on rank 0 ended as soon as the data was checked, while rank 1 still used it."""
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(stable_port())}

    def run(rank):
        env = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        train(work, "without-torchrun", 1, env=env, timeout=120)

    with ThreadPoolExecutor() as pool:
        list(pool.map(run, range(2)))
    assert (work / "without-torchrun/checkpoint-1.pth").is_file()


def test_failed_check_is_reported_once_by_two_ranks(work, tmp_path):
    rows = json.dumps([["missing.jpg", "missing.png"]] * 4)
    (work / "missing.json").write_text(rows)
    done = train_with_two_ranks(work, "failed", "--data_path", "missing.json", env={}, check=False)
    assert done.returncode == 1
    assert done.stderr.count("qma-net: the data has errors") == 1
    assert "Traceback" not in done.stderr.partition("torch/distributed")[0]
    assert not (work / "failed").exists()


def test_one_of_two_ranks_asks_the_hub_for_weights(work, tmp_path):
    """Both used to do so; offline, the files in the cache suffice."""
    channels, depths = TINY
    options = {"hidden_sizes": list(channels), "depths": list(depths)}
    SegformerModel(SegformerConfig(**options)).save_pretrained(tmp_path / "model")
    hub_id = "someone/tiny"
    with hub_server(tmp_path / "model", hub_id) as (address, requests):
        cache = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        online = {**cache, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
        train_with_two_ranks(work, "online", "--backbone_weights", hub_id, env=online)
        assert [name for method, name in requests if method == "GET" and name in HUB_FILES] == [
            *HUB_FILES
        ]
        heads = [name for method, name in requests if method == "HEAD" and name in HUB_FILES]
        assert sorted(heads) == sorted(HUB_FILES)
        count = len(requests)
        offline = {**cache, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "1"}
        train_with_two_ranks(work, "offline", "--backbone_weights", hub_id, env=offline)
        assert len(requests) == count


def test_one_of_two_ranks_asks_the_hub_for_a_model_to_fine_tune(work, tmp_path, build_tiny):
    build_tiny(views="srm").save_pretrained(tmp_path / "model")
    hub_id = "someone/tiny"
    with hub_server(tmp_path / "model", hub_id) as (address, requests):
        env = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        env |= {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
        train_with_two_ranks(work, "tuned", "--init_from", hub_id, env=env)
    weights = [method for method, name in requests if name == "model.safetensors"]
    assert sorted(weights) == ["GET", "HEAD"]


def test_documented_multi_gpu_command_sets_loader_processes_and_test_period():
    """BenCo's defaults, one loader process and a test after every epoch, leave the GPUs idle."""
    for name in ("docs/training.md", "README.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        (command,) = re.findall(r"^torchrun .* train (?:.*\\\n)*.*$", text, re.M)
        words = command.replace("\\\n", " ").split()
        given = dict(itertools.pairwise(words))
        assert (given["--num_workers"], given["--test_period"]) == ("8", "5")
        total = int(given["--batch_size"]) * int(given["--accum_iter"]) * 8
        assert total == 32
