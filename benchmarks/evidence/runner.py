"""Run ``qma-net`` commands until a deadline, prepare images, and update pages."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from qma_net.core.files import write_text
from qma_net.core.images import read_rgb
from qma_net.core.workers import available_cores
from qma_net.data.listing import read_listings
from qma_net.launch.checkpoints import checkpoint_path, is_logged
from qma_net.synth.curriculum import stage, with_changes
from qma_net.synth.recipe import AUTHENTIC, Recipe
from qma_net.synth.synthesise import synthesise

ROOT = Path(__file__).resolve().parents[2]

# By default glibc returns large freed blocks to the system, and a training step frees hundreds.
# Keeping them reduces 13,000 page faults per step to 40 and saves an eighth of the time.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000"}


@dataclass(frozen=True)
class Clock:
    """The time and processor budget of a benchmark.

    Attributes:
        deadline: Time on the monotonic clock at which a running command is stopped; after it, none
            is started.
        threads: Processor threads per command.
    """

    deadline: float
    threads: int

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "Clock":
        """Create the budget from the options ``--minutes`` and ``--jobs``."""
        threads = max(1, available_cores() // args.jobs)
        return cls(time.monotonic() + 60 * args.minutes, threads)

    def run(
        self, command: str, flags: list, folder: Path, title: str, epoch_images: int | None = None
    ) -> bool:
        """Run a command of :mod:`.launch`, with its log in ``folder``.

        ``epoch_images`` is the number of images per dataset and epoch, by default that of BenCo.

        Returns:
            Whether the command succeeded before the deadline.
        """
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            return False
        folder.mkdir(parents=True, exist_ok=True)
        log, started = folder / f"{command}.log", time.monotonic()
        words = [sys.executable, "-m", "benchmarks.evidence.launch", command, *map(str, flags)]
        environment = os.environ | KEEP_MEMORY
        environment |= {"OMP_NUM_THREADS": str(self.threads), "PYTHONUNBUFFERED": "1"}
        environment |= {"EPOCH_IMAGES": str(epoch_images)} if epoch_images else {}
        with open(log, "a", encoding="utf-8") as file:
            process = subprocess.Popen(
                words, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
            )
            timer = threading.Timer(remaining, process.send_signal, [signal.SIGTERM])
            timer.start()
            status = process.wait()
            timer.cancel()
        minutes = f"{(time.monotonic() - started) / 60:.1f} min"
        if status and time.monotonic() < self.deadline:
            print(f"{title}: {command} failed ({status}) after {minutes}; see {log}", flush=True)
        else:
            print(f"{title}: {command}{', stopped,' if status else ''} {minutes}", flush=True)
        return status == 0


def test_images(
    args: argparse.Namespace,
    folder: Path,
    side: int,
    count: int,
    stages: Sequence[str],
    changes: dict,
) -> dict[str, Path]:
    """Generate the synthetic test sets: tampered images per stage, and authentic images.

    Args:
        args: The command line, with the folders of photos and label maps.
        folder: Where to write the images and lists.
        side: Size of the images in pixels.
        count: Number of images per stage.
        stages: Stages of ``curriculum.yaml``.
        changes: Fields of the stages' recipes to change.

    Returns:
        The list file of each test set by name.
    """
    pairs = dict.fromkeys([*stages, AUTHENTIC], ())
    for name in stages:
        recipe = replace(with_changes(stage(name), changes, name), image_size=side)
        stage_pairs = synthetic_pairs(args, folder / name, recipe, count)
        authentic = [pair for pair in stage_pairs if Path(pair[0]).name.startswith(AUTHENTIC)]
        pairs[name] = [pair for pair in stage_pairs if pair not in authentic]
        pairs[AUTHENTIC] = [*pairs[AUTHENTIC], *authentic]
    return {name: write_list(folder / f"{name}.json", rows) for name, rows in pairs.items()}


def real_sets(folders: Sequence[str]) -> dict[str, Path]:
    """Return the test sets in ``--real`` by name."""
    listings = [listing for folder in folders for listing in read_listings(folder)]
    return {listing.name: listing.path.resolve() for listing in listings}


def synthetic_pairs(args: argparse.Namespace, folder: Path, recipe: Recipe, count: int) -> list:
    """Generate ``count`` pairs of image and mask from the photos that are reserved for testing."""
    data = synthesise(
        args.photos, folder, count=1, test_count=count, recipe=recipe, labels=args.labels
    )
    return json.loads((data / "test.json").read_text(encoding="utf-8"))


def training_flags(
    folder: Path,
    protocol: Path,
    tests: Path,
    *,
    image_size: int,
    batch_size: int,
    epochs: int,
    lr: float,
    warmup_epochs: int,
    workers: int,
    test_period: int = 1,
) -> list:
    """Return the flags of ``qma-net train`` that all models have in common."""
    flags = ["--fit", "native", "--image_size", image_size, "--data_path", protocol]
    flags += ["--test_data_path", tests, "--test_batch_size", 16, "--test_period", test_period]
    flags += ["--epochs", epochs, "--batch_size", batch_size, "--accum_iter", 1]
    flags += ["--lr", lr, "--min_lr", lr / 100, "--weight_decay", 0.05]
    flags += ["--warmup_epochs", warmup_epochs, "--num_workers", workers, "--no_pin_mem"]
    return [*flags, "--resume", "auto", "--output_dir", folder, "--log_dir", folder]


def on_the_fly_images(
    args: argparse.Namespace,
    path: Path,
    stage: str,
    recipe: dict | None = None,
    sizes: list[list[int]] | None = None,
) -> list[str]:
    """Return an entry of BenCo's protocol: training images of a stage, generated on the fly.

    Args:
        args: The command line, with the folders of photos and label maps.
        path: Where to write the dataset's configuration.
        stage: A stage of ``curriculum.yaml``.
        recipe: Fields of the stage's recipe to change.
        sizes: (height, width) of the images by epoch, in turn.
    """
    settings = {"photos": str(Path(args.photos).resolve()), "stage": stage}
    settings |= {"recipe": recipe} if recipe else {}
    settings |= {"sizes": sizes} if sizes else {}
    settings |= {"labels": str(Path(args.labels).resolve())} if args.labels else {}
    write_text(path, yaml.safe_dump(settings))
    return ["SynthDataset", str(path)]


def finished_checkpoint(folder: Path, epochs: int) -> Path | None:
    """Return the last checkpoint of a complete training run, which has been tested and logged."""
    checkpoint = checkpoint_path(folder, epochs - 1)
    return checkpoint if checkpoint.is_file() and is_logged(folder, epochs - 1) else None


def read_mask(mask: str | os.PathLike | None, shape: tuple[int, int]) -> np.ndarray:
    """Read a ground-truth mask, bool ``(H, W)``; without a file, no pixel is tampered."""
    return read_rgb(mask)[..., 0] > 127 if mask else np.zeros(shape, bool)


def write_list(path: Path, content: list | dict) -> Path:
    """Write a JSON list for BenCo and return its path."""
    write_text(path, json.dumps(content, default=str))
    return path


def replace_block(page: Path, name: str, block: str) -> None:
    """Replace the lines between ``<!-- NAME -->`` and ``<!-- end -->``; append them if missing."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.S)
    if not pattern.search(text):
        text += f"\n<!-- {name} -->\n<!-- end -->\n"
    write_text(page, pattern.sub(lambda match: match[1] + block + match[2], text))
