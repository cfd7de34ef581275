"""BenCo's own trainer, from files to optimiser steps: QMA-Net beside models that BenCo ships.

    python -m benchmarks.training [--data SET | --photos DIR] [--models QMANet Trufor ...]
        [--batches 8 16 32] [--steps 300] [--out DIR]

Every row of the table is one process of ``qma_net.launch train``: BenCo's train.py as it is, for
one epoch, a step of the optimiser per batch, on one GPU or on the CPU. Speed and waiting are what
its log says, the means of every 20 iterations, without the first tenth (of a run of 20 or fewer:
the mean of all); the share of waiting is the loader's time over the iteration's. Losses are those
in its TensorBoard file, all of every iteration. Peak memory is BenCo's ``max mem`` on CUDA
(allocated by torch, training only) and the peak resident memory of the process on the CPU (its
test included, loader processes not).

cuDNN is off as BenCo's seed_torch leaves it, or on by the launcher's ``--cudnn``, which undoes
that one line and not the two beside it (deterministic, no search for the fastest algorithm).
Batch sizes go up until one does not fit. No weights are downloaded: they are random. Peers get
the flags of their own BenCo scripts; Mesorch and SparseViT are made for 512x512 only, and IML_ViT
is resized to ``--image-size`` where its script pads to 1024.

``--data`` is anything BenCo trains on; without it ``qma-net data synth`` makes ``--images`` from
``--photos``, or from the pictures in scikit-image. The list repeats them for as many steps as are
run, so they are read from the page cache after the first round.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from qma_net.core.errors import QMANetError
from qma_net.core.files import write_text
from qma_net.data.listing import NEGATIVE, read_listings
from qma_net.synth.synthesise import synthesise
from qma_net.weights.reading import read_state

ROOT = Path(__file__).resolve().parents[1]
WINDOW = 20  # BenCo logs every 20th iteration, and the mean of the last 20
LINE = re.compile(
    r"Epoch: \[\d+\] +\[ *(\d+)/\d+\].* time: ([\d.]+)  data: ([\d.]+)(?:  max mem: (\d+))?"
)
FLOAT32 = {"Trufor"}  # its own script trains without AMP
MEASURED = "images_per_second waiting_share peak_memory_mib losses nonfinite_losses".split()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default="QMANet Trufor Mesorch SparseViT".split())
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--batches", "--batch", type=int, nargs="+", default=[8])
    parser.add_argument("--steps", type=int, default=300, help="over 20: rounded up to 20 n + 1")
    parser.add_argument("--amp", action=argparse.BooleanOptionalAction, help="else as each is used")
    parser.add_argument("--cudnn", nargs="+", choices=["off", "on"], default=["off", "on"])
    parser.add_argument("--workers", type=int, default=min(8, len(os.sched_getaffinity(0))))
    parser.add_argument("--device", choices=["cuda", "cpu"])
    parser.add_argument("--data", help="a folder or JSON that BenCo trains on")
    parser.add_argument("--photos", help="what the images are made of without --data")
    parser.add_argument("--images", type=int, default=200, help="made without --data")
    parser.add_argument("--size", default="b3", help="of QMANet")
    parser.add_argument("--noiseprint", help="noiseprint++.th; random weights without it")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="of QMANet")
    parser.add_argument("--out", help="folder for training.json, training.md and BenCo's logs")
    args = parser.parse_args(argv)
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    args.cudnn = args.cudnn if args.device == "cuda" else ["-"]
    if args.steps > WINDOW:
        args.steps = WINDOW * math.ceil((args.steps - 1) / WINDOW) + 1
    with tempfile.TemporaryDirectory() as folder:
        try:
            results = measure_all(args, Path(folder))
        except QMANetError as error:
            parser.exit(1, f"training: {error}\n")
    if args.out:
        write(Path(args.out), args, results)


def measure_all(args: argparse.Namespace, folder: Path) -> list[dict]:
    """Prints a row per model, cuDNN setting and batch size, up to the first that does not fit."""
    pairs = find_pairs(args, folder)
    (folder / "first.json").write_text(json.dumps(pairs[:4]))
    (folder / "test.json").write_text(json.dumps({"first": str(folder / "first.json")}))
    weights = write_weights(args.noiseprint, folder)
    print("\n".join(HEAD), flush=True)
    results = []
    for model in args.models:
        for cudnn in args.cudnn:
            for batch in sorted(args.batches):
                found = measure(
                    args,
                    model=model,
                    cudnn=cudnn,
                    batch=batch,
                    pairs=pairs,
                    weights=weights,
                    folder=folder,
                )
                results.append(found)
                print(row(results[-1]), flush=True)
                if results[-1]["status"] == "out of memory":
                    break
    print("".join(f"\n{line}" for line in largest(results)))
    return results


def measure(
    args: argparse.Namespace,
    *,
    model: str,
    cudnn: str,
    batch: int,
    pairs: list[list[str]],
    weights: dict[str, Path],
    folder: Path,
) -> dict:
    """One process of BenCo's trainer: what was measured, or why nothing was.

    Args:
        args: the options of the command line.
        model: its name in BenCo's registry.
        cudnn: ``"on"``, ``"off"``, or ``"-"`` on a CPU.
        batch: images per step.
        pairs: images with their masks, repeated for as many steps as are run.
        weights: files to start from, see :func:`write_weights`.
        folder: for lists and TensorBoard files, and for BenCo's log without ``--out``.
    """
    name = f"{model}-batch{batch}" + (f"-cudnn-{cudnn}" if cudnn != "-" else "")
    amp = model not in FLOAT32 if args.amp is None else args.amp
    listed = [pairs[i % len(pairs)] for i in range(args.steps * batch)]
    (folder / f"{name}.json").write_text(json.dumps(listed))
    flags = ["--model", model, *model_flags(args, model, weights), "--image_size", args.image_size]
    flags += ["--if_resizing", "--data_path", folder / f"{name}.json", "--batch_size", batch]
    flags += ["--test_data_path", folder / "test.json", "--test_batch_size", 2]
    flags += ["--num_workers", args.workers, "--epochs", 1, "--accum_iter", 1, "--lr", 1e-4]
    flags += ["--warmup_epochs", 1, "--output_dir", "", "--log_dir", folder / name]
    flags += ["--max_skipped", args.steps]  # noise as images may overflow; its time counts too
    flags += ["--log_per_epoch_count", args.steps, *([] if amp else ["--if_not_amp"])]
    flags += ["--device", "cpu", "--no_pin_mem"] if args.device == "cpu" else []
    flags += ["--cudnn"] if cudnn == "on" else []
    logs = Path(args.out, "logs").resolve() if args.out else folder
    logs.mkdir(parents=True, exist_ok=True)
    code, resident = start(flags, logs / f"{name}.txt")
    log = (logs / f"{name}.txt").read_text(errors="replace")
    half = amp and args.device == "cuda"  # BenCo's autocast is CUDA's
    result = {"model": model, "batch": batch, "precision": "fp16 AMP" if half else "float32"}
    result |= {"cudnn": cudnn, "status": status(code, log)} | dict.fromkeys(MEASURED)
    if result["status"] == "ok":
        result |= steady(read_log(log), batch)
        result["peak_memory_mib"] = result["peak_memory_mib"] or round(resident / 1024)
        result |= count_losses(folder / name)
    return result


def model_flags(args: argparse.Namespace, model: str, weights: dict[str, Path]) -> list:
    """The model's own flags and those its script in BenCo gives the trainer."""
    if model == "QMANet":
        flags = ["--size", args.size, "--noiseprint_weights", weights["noiseprint"]]
        return flags + ["--gradient_checkpointing", "1"] * args.gradient_checkpointing
    flags = ["--find_unused_parameters"]
    if model == "Trufor":
        statics = Path(find_spec("IMDLBenCo").origin).parent / "statics"
        flags += ["--phase", 2, "--config_path", statics / "model_zoo/configs/trufor.yaml"]
        flags += ["--if_predict_label"]
        flags += ["--np_pretrain_weights", weights["noiseprint"]]
        flags += ["--mit_b2_pretrain_weights", weights["none"]]
    if model == "IML_ViT":
        flags += ["--input_size", args.image_size]
    return flags + ["--edge_mask_width", 7] * (model in ("Trufor", "IML_ViT"))


def start(flags: list, log: Path) -> tuple[int, int]:
    """Runs the launcher to its end: exit code, and peak resident memory in KiB."""
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "qma_net.launch", "train", *map(str, flags)],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},  # an error stays the log's last line
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        _, ended, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(ended)
    return process.returncode, usage.ru_maxrss


def status(code: int, log: str) -> str:
    """``ok``, ``out of memory`` (of the GPU), or ``failed`` with the last error in the log."""
    if code == 0:
        return "ok" if LINE.search(log) else "failed (0): no iteration in BenCo's log"
    if re.search(r"OutOfMemoryError|CUDA (error: )?out of memory|CUBLAS_STATUS_ALLOC_FAILED", log):
        return "out of memory"
    lines = log.strip().splitlines() or ["no output"]
    errors = re.findall(r"^(?:\[rank0\]: *)?((?:[\w.]*(?:Error|Exception)|qma-net): .*)", log, re.M)
    return f"failed ({code}): {(errors or lines)[-1][:200]}"


@dataclass(frozen=True)
class Logged:
    """A line of BenCo's log: means of the up to 20 iterations that end with this one."""

    iteration: int
    seconds: float  # per iteration
    waiting: float  # of these, for the loader
    memory: int | None  # MiB at most so far, on CUDA


def read_log(log: str) -> list[Logged]:
    """The lines of training in the order they were printed; those of testing are left out."""
    found = (match.groups() for match in map(LINE.search, log.splitlines()) if match)
    return [Logged(int(i), float(t), float(d), m and int(m)) for i, t, d, m in found]


def steady(lines: list[Logged], batch: int) -> dict:
    """Means over the windows of 20 iterations after the first tenth, and the peak of them all.

    The first line is the first iteration alone; a last line off the 20 overlaps the one before.
    Without a full window there is but the mean of the last line, over all iterations.
    """
    windows = [line for line in lines if line.iteration and line.iteration % WINDOW == 0]
    windows = windows[min(math.ceil(len(windows) / 10), len(windows) - 1) :] or lines[-1:]
    seconds, waiting = (sum(getattr(w, part) for w in windows) for part in ("seconds", "waiting"))
    return {
        "images_per_second": batch * len(windows) / seconds,
        "waiting_share": waiting / seconds,
        "peak_memory_mib": lines[-1].memory,
    }


def count_losses(folder: Path) -> dict[str, int]:
    """Losses in a TensorBoard folder, every iteration's, and those that are not finite."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("train_loss/")]
    values = [event.value for tag in tags for event in events.Scalars(tag)]
    return {"losses": len(values), "nonfinite_losses": sum(not math.isfinite(v) for v in values)}


def find_pairs(args: argparse.Namespace, folder: Path) -> list[list[str]]:
    """The training images with their masks, as BenCo lists them, shuffled."""
    if not args.data:
        photos = args.photos or Path(find_spec("skimage").origin).parent / "data"
        synthesise(photos, folder / "set", count=args.images, image_size=args.image_size)
    sets = read_listings(args.data or folder / "set/train.json")
    pairs = [(pair.image, pair.mask) for one in sets for pair in one.pairs]
    names = (pairs[i] for i in np.random.default_rng(0).permutation(len(pairs)))
    return [[os.path.abspath(i), os.path.abspath(m) if m else NEGATIVE] for i, m in names]


def write_weights(noiseprint: str | None, folder: Path) -> dict[str, Path]:
    """Files to load: NoisePrint++ given or random, in the published layout, and an empty one."""
    files = {"noiseprint": folder / "noiseprint.pth", "none": folder / "none.pth"}
    state = read_state(noiseprint) if noiseprint else random_noiseprint()
    torch.save(dict(state), files["noiseprint"])
    torch.save({}, files["none"])
    return files


def random_noiseprint() -> dict[str, torch.Tensor]:
    """A state in the layout that NoisePrint++ is published in: a DnCNN of 17 convolutions."""
    layers = [nn.Conv2d(3, 64, 3), nn.ReLU()]
    for _ in range(15):
        layers += [nn.Conv2d(64, 64, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(64, 1, 3)).state_dict()


HEAD = (
    "| model | batch | precision | cuDNN | images/s | waiting for data | peak memory (MiB) "
    "| losses finite |",
    "|---|---|---|---|---|---|---|---|",
)


def row(result: dict) -> str:
    """A line of the table under HEAD."""
    cells = [result[name] for name in ("model", "batch", "precision", "cudnn")]
    if result["status"] == "ok":
        speed, waiting, memory, losses, wrong = (result[name] for name in MEASURED)
        cells += [f"{speed:.3g}", f"{waiting:.1%}", f"{memory:,}"]
        cells += [f"no ({wrong} of {losses} are not)" if wrong else f"yes ({losses})"]
    else:
        cells += [result["status"].replace("|", "/"), "", "", ""]
    return f"| {' | '.join(map(str, cells))} |"


def largest(results: list[dict]) -> list[str]:
    """A line for each model and cuDNN setting that ran out of memory: the largest that fits."""
    lines = []
    for over in (result for result in results if result["status"] == "out of memory"):
        same = [r for r in results if (r["model"], r["cudnn"]) == (over["model"], over["cudnn"])]
        fit = max((r["batch"] for r in same if r["status"] == "ok"), default="none")
        lines.append(
            f"{over['model']}, cuDNN {over['cudnn']}: {fit} fits, {over['batch']} does not."
        )
    return lines


def write(out: Path, args: argparse.Namespace, results: list[dict]) -> None:
    """Writes training.json and training.md."""
    on_gpu = args.device == "cuda"
    machine = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    machine += f"; torch {torch.__version__}"
    report = {"machine": machine, "settings": vars(args), "results": results}
    write_text(out / "training.json", json.dumps(report, indent=1) + "\n")
    title = f"{machine}, {args.image_size}x{args.image_size}, {args.steps} steps"
    lines = [title + f", {args.workers} workers", "", *HEAD, *map(row, results)]
    text = "\n".join([*lines, "", *largest(results)]).strip() + "\n"
    write_text(out / "training.md", text)


if __name__ == "__main__":
    main()
