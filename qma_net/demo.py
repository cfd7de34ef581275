"""The demo: a QMA-Net trained, tested, attacked and pictured on one small machine.

``bash shell/demo.sh`` makes the environment and calls ``python -m qma_net.demo``. Everything
goes through BenCo's own scripts under torchrun with two processes; what is finished is kept, so
that it can be interrupted and started again.
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from .core.files import atomic_write, read_json_lines, read_json_object, write_text
from .core.images import read_rgb
from .evaluation.evaluate import evaluate
from .evaluation.rows import read_rows
from .evaluation.settings import Settings
from .report.logs import read_sweep_point
from .synth.recipe import KINDS, Recipe
from .synth.synthesise import synthesise
from .weights.reading import read_checkpoint

# The sharp photographs that ship inside the packages. Left out: one of a stereo pair, which would
# lend pixels to both sides, and frames that are blurred or mostly black (clock, moon, retina).
PHOTOGRAPHS = {
    "skimage/data": (
        "astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png gravel.png "
        "hubble_deep_field.jpg ihc.png motorcycle_left.png rocket.jpg"
    ).split(),
    "sklearn/datasets/images": ["china.jpg", "flower.jpg"],
}

# What its checkpoint says of itself, wherever it is used.
ABOUT = "demo: it learnt a few synthetic traces in minutes; not for cases"

# A history that a small model learns to see in minutes. Half of the splices come from the host's
# own photograph: only their history gives them away, not their content.
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
ATTACKED = 19  # test sets of test_robust.py: the clean one, and six levels of each attack

# A line of BenCo's log: the epoch (none when testing), the batch and how many there are.
PROGRESS = re.compile(r"(?:Epoch|Test[^:]*): \[(\d*)[^\]]*\]\s+\[\s*(\d+)/(\d+)\]")
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} [{elapsed} gone, {remaining} left]"


def main(argv: list[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    out = Path(args.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    _require_same_settings(out, args)
    print(f"The demo writes to {out}; start it again whenever it was interrupted.")
    photos = Path(args.photos).resolve() if args.photos else packaged_photographs(out / "photos")
    data = out / "data"
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
    checkpoint = train(out, data, args)
    test(out, data, checkpoint, args)
    attack(out, data, checkpoint, args)
    report(out, data, checkpoint, args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bash shell/demo.sh", description=__doc__)
    parser.add_argument("--out", default="runs/demo", help="default runs/demo")
    parser.add_argument("--photos", default="", help="folder of your own photographs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=2000, help="training images")
    parser.add_argument("--test-images", type=int, default=120)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=8, help="per process")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--processes", type=int, default=2)
    return parser


def _require_same_settings(out: Path, args: argparse.Namespace) -> None:
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    file = out / "settings.json"
    if not file.is_file():
        file.write_text(json.dumps(settings, indent=1))
    elif read_json_object(file, "the settings of a demo: delete it") != settings:
        sys.exit(
            f"demo: got settings {settings}, expected those in {file}: this folder holds another "
            "run; give another --out, or delete it"
        )


def packaged_photographs(folder: Path) -> Path:
    """Copies the photographs of scikit-image and scikit-learn to a folder, without a network."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, names in PHOTOGRAPHS.items():
        package, _, inside = place.partition("/")
        root = Path(find_spec(package).origin).parent / inside
        for name in names:
            shutil.copy(root / name, folder / name)
    return folder


def write_lists(data: Path) -> None:
    """``test_<kind>.json``, a list of BenCo's per kind of manipulation, and ``test_sets.json``."""
    lists = {kind: str(data / f"test_{kind}.json") for kind in KINDS}
    for kind, path in lists.items():
        pairs = [
            [str(image), str(data / "test/Gt" / f"{image.stem}.png")]
            for image in sorted((data / "test/Tp").glob(f"{kind}_*"))
        ]
        write_text(path, json.dumps(pairs, indent=1))
    write_text(data / "test_sets.json", json.dumps(lists))


def train(out: Path, data: Path, args: argparse.Namespace) -> Path:
    """Trains with BenCo's train.py, from the newest checkpoint if there is one."""
    folder, last = out / "train", args.epochs - 1
    kept = out / "checkpoint" / f"checkpoint-{last}.pth"
    if kept.is_file():
        return kept
    finished = folder / f"checkpoint-{last}.pth"
    if not finished.is_file():
        earlier = sorted(folder.glob("checkpoint-*.pth"), key=lambda p: int(p.stem.split("-")[1]))
        flags = ["--data_path", data / "train", "--test_data_path", data / "test"]
        flags += ["--epochs", args.epochs, "--batch_size", args.batch_size, "--accum_iter", 1]
        flags += ["--lr", args.lr, "--min_lr", 1e-6, "--warmup_epochs", 1, "--seed", args.seed]
        flags += ["--test_period", args.epochs, "--save_period", 1]
        flags += ["--resume", earlier[-1]] if earlier else []
        run_benco("train", folder, args, title="training", flags=flags, units=args.epochs)
    with atomic_write(kept) as beside:
        content = read_checkpoint(finished)
        torch.save({"model": content["model"], "args": content["args"], "about": ABOUT}, beside)
    return kept


def test(out: Path, data: Path, checkpoint: Path, args: argparse.Namespace) -> None:
    """Tests with BenCo's test.py, one test set per kind of manipulation."""
    flags = ["--test_data_json", data / "test_sets.json", "--checkpoint_path", checkpoint.parent]
    run_once("test", out / "test", args, title="testing", flags=flags, units=len(KINDS))


def attack(out: Path, data: Path, checkpoint: Path, args: argparse.Namespace) -> None:
    """Runs BenCo's test_robust.py: its three attacks on the splices."""
    flags = ["--test_data_path", data / "test_splice.json", "--checkpoint_path", checkpoint]
    run_once("test_robust", out / "robust", args, title="attacks", flags=flags, units=ATTACKED)


def run_once(script: str, folder: Path, args, *, title: str, flags: list, units: int) -> None:
    """:func:`run_benco` into a folder that appears when it is complete, and not again."""
    if folder.is_dir():
        return
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    run_benco(script, unfinished, args, title=title, flags=flags, units=units)
    unfinished.rename(folder)


def run_benco(script: str, folder: Path, args, *, title: str, flags: list, units: int) -> None:
    """Runs one of BenCo's scripts under torchrun with a progress bar; its output goes to a log.

    Args:
        folder: for its results; the log ``<script>.log`` is beside it.
        flags: what the script gets besides those that all scripts get here.
        units: how many epochs or test runs it makes, for the time left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", args.processes, "-m", "qma_net.launch", script, *SIZE_FLAGS]
    command += ["--image_size", args.image_size, "--if_resizing", "--num_workers", 1]
    command += ["--test_batch_size", 8, "--no_pin_mem", "--output_dir", folder, "--log_dir", folder]
    command = [str(word) for word in [*command, *flags]]
    log = folder.parent / f"{script}.log"
    print(f"{title}: BenCo's {script}.py, log in {log}", flush=True)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        open(log, "a", buffering=1) as file,
        tqdm(total=units, desc=title, bar_format=BAR) as bar,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as process,
    ):
        started = 0
        for line in process.stdout:
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
        tail = "".join(log.read_text().splitlines(keepends=True)[-15:])
        sys.exit(f"demo: {script}.py ended with {process.returncode}; the end of {log}:\n{tail}")


def report(out: Path, data: Path, checkpoint: Path, args: argparse.Namespace) -> None:
    """Writes results.csv, results.md, grid.png and robustness.png, and prints the table."""
    exact, sets = out / "evaluation", [data / "test_sets.json"]
    settings = Settings(fit="resize", image_size=args.image_size, batch_size=8)
    evaluate([checkpoint], sets, exact, settings=settings, workers=0, save_masks="npy")
    rows = results(exact)
    with open(out / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, RESULT_COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    table = results_table(rows, benco_means(out / "test"))
    write_text(out / "results.md", table)
    _draw_grid(rows, out / "grid.png")
    _draw_robustness(robustness(out / "robust"), out / "robustness.png")
    print(f"\n{table}\n{out}: results.md, results.csv, grid.png, robustness.png, checkpoint/")


def results(exact: Path) -> list[dict]:
    """The rows of ``qma-net evaluate``, with the F1 of marking everything and the mask's path."""
    rows = []
    for kind in KINDS:
        masks = sorted((exact / f"{kind}_masks").iterdir())
        for row, mask in zip(read_rows(exact / f"{kind}.csv"), masks, strict=True):
            area = float(read_truth(row).mean())
            rows.append(row | {"kind": kind, "f1_everything": 2 * area / (1 + area), "mask": mask})
    return rows


def read_truth(row: dict) -> np.ndarray:
    """Bool ``(H, W)``, True on manipulated pixels."""
    image = Path(row["path"])
    return read_rgb(image.parents[1] / "Gt" / f"{image.stem}.png")[..., 0] > 127


def benco_means(folder: Path) -> dict[str, float]:
    """BenCo's own means: test.py writes all sets, unnamed, to the last one's log, in order."""
    means = read_json_lines(folder / list(KINDS)[-1] / "log.txt")
    return {kind: row["test_pixel-level F1"] for kind, row in zip(KINDS, means, strict=True)}


def results_table(rows: list[dict], benco: dict[str, float]) -> str:
    """Markdown: per kind of manipulation, the mean F1 beside that of marking everything."""
    lines = [
        "| manipulation | images | pixel F1 | marking everything | ratio | BenCo's test.py |",
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
    """F1 per attack and level from the logs of test_robust.py; ``None`` is the clean set."""
    curves = defaultdict(list)
    for log in sorted(folder.glob("*/log.txt")):
        curves[log.parent.name.split("(")[0]].append(read_sweep_point(log.parent))
    return {attack: sorted(points) for attack, points in curves.items()}


def _draw_grid(rows: list[dict], path: Path, per_kind: int = 5) -> None:
    """Image, truth and prediction of some test images, spread evenly over each kind."""
    chosen = []
    for kind in KINDS:
        of_kind = [row for row in rows if row["kind"] == kind]
        chosen += [of_kind[i] for i in np.linspace(0, len(of_kind) - 1, per_kind).astype(int)]
    canvas = Figure(figsize=(1.5 * len(chosen), 4.6), layout="constrained")
    axes = canvas.subplots(3, len(chosen))
    for column, row in enumerate(chosen):
        axes[0, column].imshow(read_rgb(row["path"]))
        axes[1, column].imshow(read_truth(row), cmap="gray", vmin=0, vmax=1)
        axes[2, column].imshow(np.load(row["mask"]), cmap="gray", vmin=0, vmax=1)
        axes[0, column].set_title(row["kind"], fontsize=9)
        axes[2, column].set_xlabel(f"F1 {row['f1']:.2f}", fontsize=9)
    for axis, name in zip(axes[:, 0], ("image", "truth", "prediction"), strict=True):
        axis.set_ylabel(name)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    canvas.savefig(path, dpi=110)


def _draw_robustness(curves: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """F1 over the level, a panel per attack, beside that of the clean set."""
    clean = curves["None"][0][1]
    canvas = Figure(figsize=(10, 3.2), layout="constrained")
    axes = canvas.subplots(1, len(ATTACKS), sharey=True)
    for axis, (attack, parameter) in zip(axes, ATTACKS.items(), strict=True):
        levels, scores = zip(*curves[attack], strict=True)
        axis.plot(levels, scores, marker="o")
        axis.axhline(clean, linestyle="--", color="grey", label="no attack")
        axis.set(title=attack, xlabel=parameter, ylim=(0, 1))
        if attack == "JpegCompression":
            axis.invert_xaxis()
    axes[0].set_ylabel("pixel F1 on splices")
    axes[0].legend()
    canvas.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
