"""The demo: train, test, attack and plot a small QMA-Net on a machine without a GPU.

``bash shell/demo.sh`` creates the environment and runs ``python -m qma_net.demo``. Training and
tests use BenCo's own scripts under torchrun with two processes. If the demo is interrupted, the
same command resumes it.
"""

import argparse
import logging
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from .core.errors import QMANetError
from .core.files import atomic_write, read_json_lines, read_json_object, write_json, write_text
from .core.images import read_rgb
from .core.runs import Journal, Run
from .core.untrusted import format_csv
from .evaluation.evaluate import evaluate
from .evaluation.results import Row, read_result_table
from .evaluation.settings import Settings
from .inference.prediction import as_gray
from .launch.checkpoints import checkpoint_path, saved_epochs
from .report.benco_logs import PIXEL_F1, read_sweep_point, read_sweeps
from .report.figures.image_grid import Panel, draw_grid
from .synth.recipe import KINDS, Recipe
from .synth.synthesise import synthesise
from .weights.reading import read_checkpoint

JOURNAL = ".demo.jsonl"

# Sharp photos in installed packages. Only one photo of a stereo pair is used, because otherwise the
# training and test sets could show the same scene. Photos that are blurred or mostly black (clock,
# moon, retina) are omitted.
PHOTOS = {
    "skimage/data": (
        "astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png gravel.png "
        "hubble_deep_field.jpg ihc.png motorcycle_left.png rocket.jpg"
    ).split(),
    "sklearn/datasets/images": ["china.jpg", "flower.jpg"],
}

# Stored in the checkpoint and shown with all of its results.
ABOUT = "demo model, trained for minutes on a few synthetic traces; do not use it on real cases"

# Traces that a small model learns to detect within minutes. The donor of half of the splices is the
# host photo itself, so that only their history reveals them, not their content.
DEMO_RECIPE = Recipe(
    image_size=96,
    square=True,
    zoom=(0.25, 0.6),
    exposure=(0.7, 1.4),
    kinds=(0.7, 0.1, 0.2),
    untouched=0.0,
    area=(0.05, 0.15),
    from_labels=0.0,
    edge_softness=(0.7, 0.7),
    host_saved_before=1.0,
    host_quality=(40, 70),
    same_photograph=0.5,
    donor_noise=(10.0, 20.0),
    donor_saved_before=0.2,
    donor_quality=(90, 100),
    resampled=0.0,
    colour_match=(0.0, 0.0),
    copy_distance=0.5,
    inpainting=("telea",),
    blur=0.0,
    noise=0.0,
    final_quality=(94, 99),
    final_full_colour=1.0,
)

SIZE_FLAGS = ["--model", "QMANet", "--size", "b0", "--views", "srm,bayar"]
RESULT_COLUMNS = ("name", "kind", "f1", "f1_everything", "iou", "auc", "score")
ATTACKS = {"GaussianBlur": "kernel size", "GaussNoise": "variance", "JpegCompression": "quality"}
ATTACKED = 19  # Runs in test_robust.py: the clean images, and six levels of each of three attacks.

# A line in BenCo's log: the epoch (absent in tests), the batch and the number of batches.
PROGRESS = re.compile(r"(?:Epoch|Test[^:]*): \[(\d*)[^\]]*\]\s+\[\s*(\d+)/(\d+)\]")
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} [{elapsed} elapsed, {remaining} left]"


def main(argv: list[str] | None = None) -> None:
    """Run the demo with these arguments, by default those of the process."""
    args = _parser().parse_args(argv)
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("qma_net").setLevel(logging.INFO)
    out = Path(args.out).resolve()
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    try:
        _adopt_earlier_version(out)
        with Run(out, settings, key=("stage",), journal=JOURNAL, contents="a demo") as run:
            print(f"Writing to {out}. If interrupted, run the same command to resume.")
            run_stages(run, args)
    except QMANetError as error:
        sys.exit(f"demo: {error}")


def _parser() -> argparse.ArgumentParser:
    text = "Train, evaluate and attack a small QMA-Net on synthetic images, and plot the results."
    parser = argparse.ArgumentParser(prog="bash shell/demo.sh", description=text)
    parser.add_argument("--out", default="runs/demo", help="output folder (default: %(default)s)")
    parser.add_argument(
        "--photos", default="", help="folder of your own photos, instead of the packaged ones"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of the data and of training"
    )
    parser.add_argument("--images", type=int, default=2000, help="number of training images")
    parser.add_argument("--test-images", type=int, default=120, help="number of test images")
    parser.add_argument("--image-size", type=int, default=96, help="image size in pixels")
    parser.add_argument("--epochs", type=int, default=5, help="number of epochs")
    parser.add_argument("--batch-size", type=int, default=8, help="batch size per process")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--processes", type=int, default=2, help="number of training processes")
    return parser


def _adopt_earlier_version(out: Path) -> None:
    """Convert settings recorded by earlier versions, so that changed ones are still rejected."""
    old = out / "settings.json"
    if old.is_file():
        settings = read_json_object(old, "the settings of a demo; delete the file")
        Journal(out / JOURNAL).write([{"identity": settings}])
        old.unlink()


def run_stages(run: Run, args: argparse.Namespace) -> None:
    """Run all stages that are not finished, and write the results."""
    photos = Path(args.photos).resolve() if args.photos else run.folder / "photos"
    if not args.photos:
        copy_packaged_photos(photos)
    data = run.folder / "data"
    synthesise(
        photos,
        data,
        count=args.images,
        test_count=args.test_images,
        image_size=args.image_size,
        seed=args.seed,
        recipe=DEMO_RECIPE,
        workers=args.processes,
    )
    write_lists(data)
    checkpoint = train(run, args)
    flags = ["--test_data_json", data / "test_sets.json", "--checkpoint_path", checkpoint.parent]
    run_once(run, "test", "test", args, title="testing", flags=flags, units=len(KINDS))
    flags = ["--test_data_path", data / "test_splice.json", "--checkpoint_path", checkpoint]
    run_once(run, "test_robust", "robust", args, title="attacks", flags=flags, units=ATTACKED)
    report(run.folder, checkpoint, args)


def copy_packaged_photos(folder: Path) -> Path:
    """Copy the photos of scikit-image and scikit-learn to a folder, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for location, names in PHOTOS.items():
        package, _, subfolder = location.partition("/")
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise QMANetError(f"{package} is not installed; run: pip install 'qma-net[demo]'")
        for name in names:
            shutil.copy(Path(spec.origin).parent / subfolder / name, folder / name)
    return folder


def write_lists(data: Path) -> None:
    """Write BenCo's list of pairs for each kind, ``test_<kind>.json``, and ``test_sets.json``."""
    lists = {kind: str(data / f"test_{kind}.json") for kind in KINDS}
    for kind, path in lists.items():
        pairs = [
            [str(image), str(data / "test/Gt" / f"{image.stem}.png")]
            for image in sorted((data / "test/Tp").glob(f"{kind}_*"))
        ]
        write_json(path, pairs)
    write_json(data / "test_sets.json", lists)


def train(run: Run, args: argparse.Namespace) -> Path:
    """Train with BenCo's train.py, resuming from the latest checkpoint if there is one.

    Returns:
        The path of the final checkpoint, without the optimizer's state.
    """
    folder, data, last = run.folder / "train", run.folder / "data", args.epochs - 1
    checkpoint = checkpoint_path(run.folder / "checkpoint", last)
    if "train" in run.finished:
        return checkpoint
    epochs = saved_epochs(folder)
    if last not in epochs:
        flags = ["--data_path", data / "train", "--test_data_path", data / "test"]
        flags += ["--epochs", args.epochs, "--batch_size", args.batch_size, "--accum_iter", 1]
        flags += ["--lr", args.lr, "--min_lr", 1e-6, "--warmup_epochs", 1, "--seed", args.seed]
        flags += ["--test_period", args.epochs, "--save_period", 1]
        flags += ["--resume", checkpoint_path(folder, epochs[-1])] if epochs else []
        run_benco("train", folder, args, title="training", flags=flags, units=args.epochs)
    content = read_checkpoint(checkpoint_path(folder, last))
    with atomic_write(checkpoint) as temporary:
        torch.save({"model": content["model"], "args": content["args"], "about": ABOUT}, temporary)
    run.finish({"stage": "train"}, [checkpoint])
    return checkpoint


def run_once(run: Run, script: str, name: str, args: argparse.Namespace, **options: Any) -> None:
    """Call :func:`run_benco` with the folder ``name``, unless this stage is finished."""
    if script in run.finished:
        return
    folder = run.folder / name
    shutil.rmtree(folder, ignore_errors=True)  # BenCo appends to its logs.
    run_benco(script, folder, args, **options)
    run.finish({"stage": script}, folder.rglob("log.txt"))


def run_benco(
    script: str, folder: Path, args: argparse.Namespace, *, title: str, flags: list, units: int
) -> None:
    """Run one of BenCo's scripts under torchrun and show its progress.

    Its output goes to ``<script>.log`` next to its results folder. ``units`` is the number
    of epochs or test runs, from which the remaining time is estimated.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command: list[object] = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", args.processes, "-m", "qma_net.launch", script, *SIZE_FLAGS]
    command += ["--image_size", args.image_size, "--if_resizing", "--num_workers", 1]
    command += ["--test_batch_size", 8, "--no_pin_mem", "--output_dir", folder, "--log_dir", folder]
    log = folder.parent / f"{script}.log"
    print(f"{title}: BenCo's {script}.py, log in {log}", flush=True)
    with (
        open(log, "a", buffering=1, encoding="utf-8") as file,
        tqdm(total=units, desc=title, bar_format=BAR) as bar,
        subprocess.Popen(
            [str(word) for word in [*command, *flags]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as process,
    ):
        started = 0
        for line in process.stdout or ():
            file.write(line)
            if not (step := PROGRESS.search(line)):
                continue
            epoch, done, steps = step.groups()
            if script == "train" and "Epoch" in line:
                bar.n = int(epoch) + (int(done) + 1) / int(steps)
            elif script != "train" and "remaining" not in line:
                started += done == "0"
                bar.n = min(units, started - 1 + (int(done) + 1) / int(steps))
            bar.refresh()
    if process.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-15:])
        sys.exit(
            f"demo: {script}.py failed with exit status {process.returncode}; the last lines of "
            f"{log}:\n{tail}"
        )


def report(out: Path, checkpoint: Path, args: argparse.Namespace) -> None:
    """Write results.csv, results.md, grid.png and robustness.png, and print the table."""
    evaluation, sets = out / "evaluation", [out / "data/test_sets.json"]
    settings = Settings(fit="resize", image_size=args.image_size, batch_size=8)
    evaluate([checkpoint], sets, evaluation, settings=settings, workers=0, save_masks="npy")
    rows = results(evaluation)
    write_text(out / "results.csv", format_csv(RESULT_COLUMNS, rows))
    table = markdown_table(rows, benco_means(out / "test"))
    write_text(out / "results.md", table)
    _plot_examples(rows, out / "grid.png")
    _plot_robustness(robustness(out / "robust"), out / "robustness.png")
    print(f"\n{table}\n{out}: results.md, results.csv, grid.png, robustness.png, checkpoint/")


def results(evaluation: Path) -> list[Row]:
    """Read the rows written by ``qma-net evaluate``.

    Adds ``kind``, ``mask`` (the path of the saved mask) and ``f1_everything``, the F1 of predicting
    every pixel as tampered.
    """
    rows = []
    for kind in KINDS:
        masks = sorted((evaluation / f"{kind}_masks").iterdir())
        for row, mask in zip(read_result_table(evaluation / f"{kind}.csv"), masks, strict=True):
            area = float(read_ground_truth(row).mean())
            rows.append(row | {"kind": kind, "f1_everything": 2 * area / (1 + area), "mask": mask})
    return rows


def read_ground_truth(row: Row) -> np.ndarray:
    """Read the ground truth of an image: bool ``(H, W)``, True for tampered pixels."""
    image = Path(row["path"])
    return read_rgb(image.parents[1] / "Gt" / f"{image.stem}.png")[..., 0] > 127


def benco_means(folder: Path) -> dict[str, float]:
    """Read BenCo's own mean F1 of each kind.

    BenCo's test.py writes the means of all test sets, in order but unnamed, to the log of the last
    one.
    """
    means = read_json_lines(folder / list(KINDS)[-1] / "log.txt")
    return {kind: row[PIXEL_F1] for kind, row in zip(KINDS, means, strict=True)}


def markdown_table(rows: list[Row], benco: dict[str, float]) -> str:
    """Format the mean F1 of each kind, next to that of predicting every pixel as tampered."""
    lines = [
        "| manipulation | images | pixel F1 | all pixels tampered | ratio | BenCo's test.py |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        scores = [(row["f1"], row["f1_everything"]) for row in rows if row["kind"] == kind]
        f1, everything = np.mean(scores, axis=0)
        lines.append(
            f"| {kind} | {len(scores)} | {f1:.3f} | {everything:.3f} | "
            f"{f1 / everything:.1f} | {benco[kind]:.3f} |"
        )
    return "\n".join(lines) + "\n"


def robustness(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Read the (level, F1) pairs of each attack from the logs; ``"None"`` is the clean set."""
    clean = read_sweep_point(folder / "None")
    return {**read_sweeps(folder.iterdir())[folder], "None": [clean] if clean else []}


def _plot_examples(rows: list[Row], path: Path, per_kind: int = 5) -> None:
    """Plot image, ground truth and prediction of evenly spaced test images of each kind."""
    chosen: list[Row] = []
    for kind in KINDS:
        of_kind = [row for row in rows if row["kind"] == kind]
        chosen += [of_kind[i] for i in np.linspace(0, len(of_kind) - 1, per_kind).astype(int)]
    images = [Panel(read_rgb(row["path"])) for row in chosen]
    truths = [Panel(_as_rgb(read_ground_truth(row))) for row in chosen]
    masks = [Panel(_as_rgb(np.load(row["mask"])), f"F1 {row['f1']:.2f}") for row in chosen]
    grid = [("image", images), ("ground truth", truths), ("prediction", masks)]
    draw_grid([row["kind"] for row in chosen], grid).savefig(path, dpi=110)


def _as_rgb(mask: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(as_gray(mask), cv2.COLOR_GRAY2RGB)


def _plot_robustness(curves: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Plot F1 against the level of each attack, and the F1 of the clean images."""
    clean = curves["None"][0][1]
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes: Any = figure.subplots(1, len(ATTACKS), sharey=True)
    for axis, (attack, parameter) in zip(axes, ATTACKS.items(), strict=True):
        levels, scores = zip(*curves[attack], strict=True)
        axis.plot(levels, scores, marker="o")
        axis.axhline(clean, linestyle="--", color="gray", label="no attack")
        axis.set(title=attack, xlabel=parameter, ylim=(0, 1))
        if attack == "JpegCompression":
            axis.invert_xaxis()
    axes[0].set_ylabel("pixel F1 on splices")
    axes[0].legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
