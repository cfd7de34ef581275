"""Speed, memory and losses of BenCo's train.py with QMA-Net and with BenCo's models.

    python -m benchmarks.training [--data SET | --photos DIR] [--models QMANet Trufor ...]
        [--batches 8 16 32] [--steps 300] [--out DIR]

Every row of the table is one run of ``qma_net.launch train`` (BenCo's unmodified train.py) for one
epoch, with one optimizer step per batch, on one GPU or on the CPU.

- Speed and waiting time are read from BenCo's log, which contains means over 20 iterations. The
  first tenth of them is ignored. A run of up to 20 steps has a single mean over all of its steps.
  Waiting is the share of an iteration's time that is spent waiting for the data loader.
- Losses are read for every iteration from BenCo's TensorBoard file.
- Peak memory is BenCo's ``max mem`` on CUDA (allocated by torch during training). On a CPU, it is
  the peak resident memory of the process (including testing, without data-loader processes).

cuDNN is off by default, because BenCo's seed_torch disables it. ``--cudnn`` of ``qma_net.launch``
enables it, still with deterministic algorithms and without a search for the fastest ones. Batch
sizes increase until one does not fit. The weights are random; nothing is downloaded. BenCo's models
get the flags of their own scripts, but Mesorch and SparseViT support only 512x512, and images for
IML_ViT are resized to ``--image-size`` instead of being padded to 1024.

``--data`` is any dataset that BenCo can train on. By default ``qma-net data synth`` generates
``--images`` images from ``--photos``, or from the photos in scikit-image. They are repeated as
often as needed, so after the first round they are read from the page cache.
"""

import argparse
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
from qma_net.core.files import write_json, write_text
from qma_net.core.workers import available_cores
from qma_net.data.listing import NEGATIVE, read_listings
from qma_net.synth.synthesise import synthesise
from qma_net.weights.reading import read_state

ROOT = Path(__file__).resolve().parents[1]
WINDOW = 20  # BenCo logs every 20th iteration, with the means of the last 20.
LINE = re.compile(
    r"Epoch: \[\d+\] +\[ *(\d+)/\d+\].* time: ([\d.]+)  data: ([\d.]+)(?:  max mem: (\d+))?"
)
FLOAT32 = {"Trufor"}  # BenCo's script for it trains without AMP.
MEASURED = "images_per_second waiting_share peak_memory_mib losses nonfinite_losses".split()


def main(argv: list[str] | None = None) -> None:
    """Measure all combinations, print the table and write it to ``--out``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default="QMANet Trufor Mesorch SparseViT".split())
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--batches", "--batch", type=int, nargs="+", default=[8])
    parser.add_argument(
        "--steps", type=int, default=300, help="above 20: rounded up to a multiple of 20, plus 1"
    )
    parser.add_argument(
        "--amp",
        action=argparse.BooleanOptionalAction,
        help="default: as in the model's own script",
    )
    parser.add_argument("--cudnn", nargs="+", choices=["off", "on"], default=["off", "on"])
    parser.add_argument("--workers", type=int, default=min(8, available_cores()))
    parser.add_argument("--device", choices=["cuda", "cpu"])
    parser.add_argument("--data", help="folder or JSON file that BenCo can train on")
    parser.add_argument("--photos", help="folder of authentic photos, used without --data")
    parser.add_argument(
        "--images", type=int, default=200, help="number of images to generate without --data"
    )
    parser.add_argument("--size", default="b3", help="size of QMANet, b0 to b5")
    parser.add_argument("--noiseprint", help="noiseprint++.th (default: random weights)")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="for QMANet only")
    parser.add_argument("--compile", action="store_true", help="for QMANet only")
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
    """Print a row per model, cuDNN setting and batch size, up to the first that does not fit."""
    pairs = training_pairs(args, folder)
    write_json(folder / "first.json", pairs[:4])
    write_json(folder / "test.json", {"first": str(folder / "first.json")})
    weights = write_weights(args.noiseprint, folder)
    print("\n".join(HEAD), flush=True)
    results = []
    for model in args.models:
        for cudnn in args.cudnn:
            for batch in sorted(args.batches):
                result = measure(
                    args,
                    model=model,
                    cudnn=cudnn,
                    batch=batch,
                    pairs=pairs,
                    weights=weights,
                    folder=folder,
                )
                results.append(result)
                print(format_row(result), flush=True)
                if result["status"] == "out of memory":
                    break
    print("".join(f"\n{line}" for line in largest_batches(results)))
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
    """Run BenCo's train.py once.

    Args:
        args: Options of the command line.
        model: Name in BenCo's registry.
        cudnn: ``"on"``, ``"off"``, or ``"-"`` on a CPU.
        batch: Images per step.
        pairs: Images and masks, which are repeated for as many steps as are run.
        weights: Weight files; see :func:`write_weights`.
        folder: Folder for lists and TensorBoard files, and without ``--out`` for BenCo's log.

    Returns:
        The settings, the ``status``, and the values of MEASURED, which are None if the run failed.
    """
    name = f"{model}-batch{batch}" + (f"-cudnn-{cudnn}" if cudnn != "-" else "")
    amp = model not in FLOAT32 if args.amp is None else args.amp
    write_json(folder / f"{name}.json", [pairs[i % len(pairs)] for i in range(args.steps * batch)])
    flags = ["--model", model, *model_flags(args, model, weights), "--image_size", args.image_size]
    flags += ["--if_resizing", "--data_path", folder / f"{name}.json", "--batch_size", batch]
    flags += ["--test_data_path", folder / "test.json", "--test_batch_size", 2]
    flags += ["--num_workers", args.workers, "--epochs", 1, "--accum_iter", 1, "--lr", 1e-4]
    flags += ["--warmup_epochs", 1, "--output_dir", "", "--log_dir", folder / name]
    # With random weights steps may overflow and be skipped, but their time counts as well.
    flags += ["--max_skipped", args.steps]
    flags += ["--log_per_epoch_count", args.steps, *([] if amp else ["--if_not_amp"])]
    flags += ["--device", "cpu", "--no_pin_mem"] if args.device == "cpu" else []
    flags += ["--cudnn"] if cudnn == "on" else []
    logs = Path(args.out, "logs").resolve() if args.out else folder
    logs.mkdir(parents=True, exist_ok=True)
    code, resident_kib = run_training(flags, logs / f"{name}.txt")
    log = (logs / f"{name}.txt").read_text(encoding="utf-8", errors="replace")
    half = amp and args.device == "cuda"  # BenCo only uses autocast on CUDA.
    result = {"model": model, "batch": batch, "precision": "fp16 AMP" if half else "float32"}
    result |= {"cudnn": cudnn, "status": status(code, log)} | dict.fromkeys(MEASURED)
    if result["status"] == "ok":
        result |= steady_state(read_log(log), batch)
        result["peak_memory_mib"] = result["peak_memory_mib"] or round(resident_kib / 1024)
        result |= count_losses(folder / name)
    return result


def model_flags(args: argparse.Namespace, model: str, weights: dict[str, Path]) -> list:
    """Return the flags that a model needs, for BenCo's models those of their own scripts."""
    if model == "QMANet":
        flags = ["--size", args.size, "--noiseprint_weights", weights["noiseprint"]]
        flags += ["--gradient_checkpointing", "1"] * args.gradient_checkpointing
        return flags + ["--compile", "1"] * args.compile
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


def run_training(flags: list, log: Path) -> tuple[int, int]:
    """Run ``qma_net.launch train``; return its exit code and its peak resident memory in KiB."""
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "qma_net.launch", "train", *map(str, flags)],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},  # Keeps errors at the end of the log.
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        _, wait_status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(wait_status)
    return process.returncode, usage.ru_maxrss


def status(code: int, log: str) -> str:
    """Return ``ok``, ``out of memory`` (of the GPU), or ``failed`` with the log's last error."""
    if code == 0:
        return "ok" if LINE.search(log) else "failed (0): no iteration in BenCo's log"
    if re.search(r"OutOfMemoryError|CUDA (error: )?out of memory|CUBLAS_STATUS_ALLOC_FAILED", log):
        return "out of memory"
    lines = log.strip().splitlines() or ["no output"]
    errors = re.findall(r"^(?:\[rank0\]: *)?((?:[\w.]*(?:Error|Exception)|qma-net): .*)", log, re.M)
    return f"failed ({code}): {(errors or lines)[-1][:200]}"


@dataclass(frozen=True)
class LogLine:
    """A line of BenCo's log, with means over the last iterations (at most 20).

    Attributes:
        iteration: The iteration after which the line was printed.
        seconds: Seconds per iteration.
        waiting: Seconds per iteration that were spent waiting for data.
        memory: Peak memory so far in MiB, on CUDA only.
    """

    iteration: int
    seconds: float
    waiting: float
    memory: int | None


def read_log(log: str) -> list[LogLine]:
    """Return the lines about training in a log, without those about testing."""
    lines = (match.groups() for match in map(LINE.search, log.splitlines()) if match)
    return [LogLine(int(i), float(t), float(d), m and int(m)) for i, t, d, m in lines]


def steady_state(lines: list[LogLine], batch: int) -> dict:
    """Average speed and waiting over windows of 20 iterations, and return the peak memory.

    The first tenth of the windows is ignored, and so are lines that do not end a complete window:
    the first line contains the first iteration only, and the last one may overlap the one before.
    If there is no complete window, the last line is used, which is the mean over all iterations.
    """
    windows = [line for line in lines if line.iteration and line.iteration % WINDOW == 0]
    windows = windows[min(math.ceil(len(windows) / 10), len(windows) - 1) :] or lines[-1:]
    seconds = sum(line.seconds for line in windows)
    return {
        "images_per_second": batch * len(windows) / seconds,
        "waiting_share": sum(line.waiting for line in windows) / seconds,
        "peak_memory_mib": lines[-1].memory,
    }


def count_losses(folder: Path) -> dict[str, int]:
    """Count the losses of all iterations in a TensorBoard folder, and those that are not finite."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("train_loss/")]
    values = [event.value for tag in tags for event in events.Scalars(tag)]
    return {"losses": len(values), "nonfinite_losses": sum(not math.isfinite(v) for v in values)}


def training_pairs(args: argparse.Namespace, folder: Path) -> list[list[str]]:
    """Return shuffled pairs of training image and mask in BenCo's list format."""
    if not args.data:
        photos = args.photos or Path(find_spec("skimage").origin).parent / "data"
        synthesise(photos, folder / "set", count=args.images, image_size=args.image_size)
    pairs = [
        [os.path.abspath(pair.image), os.path.abspath(pair.mask) if pair.mask else NEGATIVE]
        for listing in read_listings(args.data or folder / "set/train.json")
        for pair in listing.pairs
    ]
    return [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]


def write_weights(noiseprint: str | None, folder: Path) -> dict[str, Path]:
    """Write the weights of NoisePrint++, given or random, and an empty state dict."""
    files = {"noiseprint": folder / "noiseprint.pth", "none": folder / "none.pth"}
    state = read_state(noiseprint) if noiseprint else random_noiseprint()
    torch.save(dict(state), files["noiseprint"])
    torch.save({}, files["none"])
    return files


def random_noiseprint() -> dict[str, torch.Tensor]:
    """Return random weights in the published layout of NoisePrint++, a DnCNN of 17 layers."""
    layers = [nn.Conv2d(3, 64, 3), nn.ReLU()]
    for _ in range(15):
        layers += [nn.Conv2d(64, 64, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(64, 1, 3)).state_dict()


HEAD = (
    "| model | batch size | precision | cuDNN | images/s | waiting for data | peak memory (MiB) "
    "| all losses finite |",
    "|---|---|---|---|---|---|---|---|",
)


def format_row(result: dict) -> str:
    """Format a row of the table below HEAD."""
    cells = [result[name] for name in ("model", "batch", "precision", "cudnn")]
    if result["status"] == "ok":
        speed, waiting, memory, losses, nonfinite = (result[name] for name in MEASURED)
        cells += [f"{speed:.3g}", f"{waiting:.1%}", f"{memory:,}"]
        cells += [f"no ({nonfinite} of {losses} are not)" if nonfinite else f"yes ({losses})"]
    else:
        cells += [result["status"].replace("|", "/"), "", "", ""]
    return f"| {' | '.join(map(str, cells))} |"


def largest_batches(results: list[dict]) -> list[str]:
    """Name the largest batch size for each model and cuDNN setting that ran out of memory."""
    lines = []
    for failed in (result for result in results if result["status"] == "out of memory"):
        model, cudnn = failed["model"], failed["cudnn"]
        fitting = [
            result["batch"]
            for result in results
            if (result["model"], result["cudnn"], result["status"]) == (model, cudnn, "ok")
        ]
        largest = max(fitting, default="none")
        title = f"{model}, cuDNN {cudnn}: largest batch size that fits"
        lines.append(f"{title}: {largest} ({failed['batch']} does not)")
    return lines


def write(out: Path, args: argparse.Namespace, results: list[dict]) -> None:
    """Write training.json and training.md."""
    on_gpu = args.device == "cuda"
    machine = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    machine += f"; torch {torch.__version__}"
    report = {"machine": machine, "settings": vars(args), "results": results}
    write_json(out / "training.json", report)
    title = (
        f"{machine}, {args.image_size}x{args.image_size}, {args.steps} steps, "
        f"{args.workers} data-loader workers"
    )
    lines = [title, "", *HEAD, *map(format_row, results), "", *largest_batches(results)]
    write_text(out / "training.md", "\n".join(lines).strip() + "\n")


if __name__ == "__main__":
    main()
