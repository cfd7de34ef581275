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
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from .evaluation.evaluate import evaluate
from .evaluation.rows import read_rows
from .evaluation.settings import Settings
from .files import written_beside
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
    donor_noise=(5.0, 12.0),
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
ATTACKS = {
    "GaussianBlur": "kernel size (pixels)",
    "GaussNoise": "variance (BenCo's parameter)",
    "JpegCompression": "quality",
}

PROGRESS = re.compile(r"(?:Epoch|Test[^:]*): \[(\d*)[^\]]*\]\s+\[\s*(\d+)/(\d+)\]")


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
    lists = write_lists(data)
    checkpoint = train(out, data, args)
    test(out, lists, checkpoint, args)
    attack(out, lists["splice"], checkpoint, args)
    report(out, data / "test_sets.json", checkpoint, args)


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
    elif json.loads(file.read_text()) != settings:
        sys.exit(
            f"demo: got settings {settings}, expected those in {file}: this folder holds another "
            "run; give another --out, or delete it"
        )


def packaged_photographs(folder: Path) -> Path:
    """Copies the photographs of scikit-image and scikit-learn to a folder, without a network."""
    from importlib.util import find_spec

    folder.mkdir(parents=True, exist_ok=True)
    for place, names in PHOTOGRAPHS.items():
        package, _, inside = place.partition("/")
        root = Path(find_spec(package).origin).parent / inside
        for name in names:
            shutil.copy(root / name, folder / name)
    return folder


def write_lists(data: Path) -> dict[str, Path]:
    """One JSON list of BenCo's per kind of manipulation in the test set."""
    lists = {}
    for kind in KINDS:
        pairs = [
            [str(image), str(data / "test/Gt" / f"{image.stem}.png")]
            for image in sorted((data / "test/Tp").glob(f"{kind}_*"))
        ]
        lists[kind] = data / f"test_{kind}.json"
        lists[kind].write_text(json.dumps(pairs, indent=1))
    return lists


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
        run_benco("train", "training", folder, flags, args, units=args.epochs)
    with written_beside(kept) as beside:
        torch.save({"model": read_checkpoint(finished)["model"]}, beside)
    return kept


def test(out: Path, lists: dict[str, Path], checkpoint: Path, args: argparse.Namespace) -> None:
    """Tests with BenCo's test.py, one test set per kind of manipulation."""
    test_sets = out / "data" / "test_sets.json"
    test_sets.write_text(json.dumps({kind: str(path) for kind, path in lists.items()}))
    flags = ["--test_data_json", test_sets, "--checkpoint_path", checkpoint.parent]
    run_once("test", "testing", out / "test", flags, args, units=len(lists))


def attack(out: Path, splices: Path, checkpoint: Path, args: argparse.Namespace) -> None:
    """Runs BenCo's test_robust.py: its three attacks on the splices."""
    flags = ["--test_data_path", splices, "--checkpoint_path", checkpoint]
    run_once("test_robust", "attacks", out / "robust", flags, args, units=19)


def run_once(script, title, folder: Path, flags, args, units) -> None:
    """Runs a script into a folder that appears when it is complete, and not again."""
    if folder.is_dir():
        return
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    run_benco(script, title, unfinished, flags, args, units)
    unfinished.rename(folder)


def run_benco(script, title, folder: Path, flags, args, units: int) -> None:
    """Runs one of BenCo's scripts under torchrun with a progress bar; its output goes to a log.

    Args:
        units: how many epochs or test runs it makes, for the time left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", args.processes, "-m", "qma_net.launch", script, *SIZE_FLAGS]
    command += ["--image_size", args.image_size, "--if_resizing", "--num_workers", 1]
    command += ["--test_batch_size", 8, "--no_pin_mem"]
    command += ["--output_dir", folder, "--log_dir", folder, *flags]
    command = [str(word) for word in command]
    log = folder.parent / f"{script}.log"
    print(f"{title}: BenCo's {script}.py, log in {log}", flush=True)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        open(log, "a", buffering=1) as file,
        tqdm(total=units, desc=title, bar_format=_BAR) as bar,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as process,
    ):
        started = 0
        for line in process.stdout:
            file.write(line)
            step = PROGRESS.search(line)
            if not step:
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


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} [{elapsed} gone, {remaining} left]"


def report(out: Path, test_sets: Path, checkpoint: Path, args: argparse.Namespace) -> None:
    """Writes results.csv, results.md, grid.png and robustness.png, and prints the table."""
    exact = out / "evaluation"
    settings = Settings("resize", args.image_size, batch_size=8)
    evaluate([checkpoint], [test_sets], exact, settings=settings, workers=0, save_masks="npy")
    rows = results(exact)
    with open(out / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, RESULT_COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    table = results_table(rows, benco_means(out / "test"))
    (out / "results.md").write_text(table)
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
            everything = {"kind": kind, "f1_everything": 2 * area / (1 + area), "mask": mask}
            rows.append({**row, **everything})
    return rows


def read_truth(row: dict) -> np.ndarray:
    """Bool ``(H, W)``, True on manipulated pixels."""
    from PIL import Image

    image = Path(row["path"])
    return np.asarray(Image.open(image.parents[1] / "Gt" / f"{image.stem}.png")) > 127


def benco_means(folder: Path) -> dict[str, float]:
    """BenCo's own means: test.py writes all sets, unnamed, to the last one's log, in order."""
    kinds = list(KINDS)
    lines = (folder / kinds[-1] / "log.txt").read_text().splitlines()
    return {
        kind: json.loads(line)["test_pixel-level F1"]
        for kind, line in zip(kinds, lines, strict=True)
    }


def results_table(rows: list[dict], benco: dict[str, float]) -> str:
    """Markdown: per kind of manipulation, the mean F1 beside that of marking everything."""
    by_kind = defaultdict(list)
    for row in rows:
        by_kind[row["kind"]].append((row["f1"], row["f1_everything"]))
    lines = [
        "| manipulation | images | pixel F1 | marking everything | ratio | BenCo's test.py |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        f1, everything = np.mean(by_kind[kind], axis=0)
        lines.append(
            f"| {kind} | {len(by_kind[kind])} | {f1:.3f} | {everything:.3f} | "
            f"{f1 / everything:.1f} | {benco[kind]:.3f} |"
        )
    return "\n".join(lines) + "\n"


def robustness(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """F1 per attack and level from the logs of test_robust.py; ``None`` is the clean set."""
    curves = defaultdict(list)
    for log in sorted(folder.glob("*/log.txt")):
        result = json.loads(log.read_text().splitlines()[-1])
        attack = log.parent.name.split("(")[0]
        curves[attack].append((result["epoch"], result["test_pixel-level F1"]))
    return {attack: sorted(points) for attack, points in curves.items()}


def _draw_grid(rows: list[dict], path: Path, per_kind: int = 5) -> None:
    from matplotlib.figure import Figure
    from PIL import Image

    chosen = []
    for kind in KINDS:
        of_kind = [row for row in rows if row["kind"] == kind]
        chosen += [of_kind[i] for i in np.linspace(0, len(of_kind) - 1, per_kind).astype(int)]
    figure = Figure(figsize=(1.5 * len(chosen), 4.6), layout="constrained")
    axes = figure.subplots(3, len(chosen))
    for column, row in enumerate(chosen):
        axes[0, column].imshow(Image.open(row["path"]))
        axes[1, column].imshow(read_truth(row), cmap="gray", vmin=0, vmax=1)
        axes[2, column].imshow(np.load(row["mask"]), cmap="gray", vmin=0, vmax=1)
        axes[0, column].set_title(row["kind"], fontsize=9)
        axes[2, column].set_xlabel(f"F1 {row['f1']:.2f}", fontsize=9)
    for axis, name in zip(axes[:, 0], ("image", "truth", "prediction"), strict=True):
        axis.set_ylabel(name)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.savefig(path, dpi=110)


def _draw_robustness(curves: dict, path: Path) -> None:
    from matplotlib.figure import Figure

    clean = curves["None"][0][1]
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots(1, len(ATTACKS), sharey=True)
    for axis, (attack, parameter) in zip(axes, ATTACKS.items(), strict=True):
        levels, scores = zip(*curves[attack], strict=True)
        axis.plot(levels, scores, marker="o")
        axis.axhline(clean, linestyle="--", color="grey", label="no attack")
        axis.set(title=attack, xlabel=parameter, ylim=(0, 1))
        if attack == "JpegCompression":
            axis.invert_xaxis()
    axes[0].set_ylabel("pixel F1 on splices")
    axes[0].legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
