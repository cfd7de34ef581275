"""Commands of ``qma-net`` until a deadline, and the images that they test on."""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from qma_net.core.files import write_text
from qma_net.core.images import read_rgb
from qma_net.data.listing import read_listings
from qma_net.launch.saving import checkpoint_path, is_logged
from qma_net.synth.curriculum import stages
from qma_net.synth.recipe import UNTOUCHED, Recipe
from qma_net.synth.synthesise import synthesise

ROOT = Path(__file__).resolve().parents[2]

# glibc gives a large block back to the system as soon as it is free, and a step of a training frees
# hundreds: kept, 13,000 page faults a step become 40, and it takes seven eighths of the time.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000"}


@dataclass(frozen=True)
class Clock:
    """How long and on how much of the machine.

    Attributes:
        deadline: on the monotonic clock; what runs then is stopped, and nothing begins.
        threads: of the processor's, for each command.
    """

    deadline: float
    threads: int

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Clock":
        cores = len(os.sched_getaffinity(0))
        return cls(time.monotonic() + 60 * args.minutes, max(1, cores // args.jobs))

    def run(self, command: str, flags: list, folder: Path, what: str) -> bool:
        """Whether a command of :mod:`.launch` ended well in time; its log goes to ``folder``."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            return False
        folder.mkdir(parents=True, exist_ok=True)
        log, started = folder / f"{command}.log", time.monotonic()
        words = [sys.executable, "-m", "benchmarks.evidence.launch", command, *map(str, flags)]
        environment = os.environ | KEEP_MEMORY
        environment |= {"OMP_NUM_THREADS": str(self.threads), "PYTHONUNBUFFERED": "1"}
        with open(log, "a") as file:
            process = subprocess.Popen(
                words, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
            )
            timer = threading.Timer(left, process.send_signal, [signal.SIGTERM])
            timer.start()
            code = process.wait()
            timer.cancel()
        took = f"{(time.monotonic() - started) / 60:.1f} min"
        if code and time.monotonic() < self.deadline:
            print(f"{what}: {command} ended with {code} after {took}: see {log}", flush=True)
        else:
            print(f"{what}: {command}{', stopped,' if code else ''} {took}", flush=True)
        return code == 0


def test_images(args: argparse.Namespace, folder: Path, side: int, count: int) -> dict[str, Path]:
    """Lists of manipulated images of every stage, of untouched ones of all, and ``--real``."""
    pairs = dict.fromkeys([*stages(), UNTOUCHED], ())
    for name, recipe in stages().items():
        of_kind = [[], []]
        for pair in made_pairs(args, folder / name, replace(recipe, image_size=side), count):
            of_kind[Path(pair[0]).name.startswith(UNTOUCHED)].append(pair)
        pairs[name], pairs[UNTOUCHED] = of_kind[False], [*pairs[UNTOUCHED], *of_kind[True]]
    sets = {name: write_list(folder / f"{name}.json", found) for name, found in pairs.items()}
    real = {one.name: one.path.resolve() for path in args.real for one in read_listings(path)}
    return sets | real


def made_pairs(args: argparse.Namespace, folder: Path, recipe: Recipe, count: int) -> list:
    """[image, mask] of so many images, made of photographs that are kept for testing."""
    made = synthesise(
        args.photos, folder, count=1, test_count=count, recipe=recipe, labels=args.labels
    )
    return json.loads((made / "test.json").read_text())


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
) -> list:
    """Of ``qma-net train``, all but the model's: what every training here has in common."""
    flags = ["--fit", "native", "--image_size", image_size, "--data_path", protocol]
    flags += ["--test_data_path", tests, "--test_batch_size", 16, "--test_period", 1]
    flags += ["--epochs", epochs, "--batch_size", batch_size, "--accum_iter", 1]
    flags += ["--lr", lr, "--min_lr", lr / 100, "--weight_decay", 0.05]
    flags += ["--warmup_epochs", warmup_epochs, "--num_workers", workers, "--no_pin_mem"]
    return [*flags, "--resume", "auto", "--output_dir", folder, "--log_dir", folder]


def fresh_images(
    args: argparse.Namespace, folder: Path, stage: str, recipe: dict | None = None
) -> list[str]:
    """A line of BenCo's protocol: images of a stage, made fresh of photographs to train on.

    Args:
        recipe: fields of the stage's recipe that differ.
    """
    changed = "".join(f"-{field}" for field in recipe or {})
    path = folder / f"fresh-{stage}{changed}.yaml"
    fresh = {"photos": str(Path(args.photos).resolve()), "stage": stage}
    fresh |= {"recipe": recipe} if recipe else {}
    fresh |= {"labels": str(Path(args.labels).resolve())} if args.labels else {}
    write_text(path, yaml.safe_dump(fresh))
    return ["SynthDataset", str(path)]


def trained(folder: Path, epochs: int) -> Path | None:
    """The checkpoint of a training of so many epochs that is complete, tested and logged."""
    checkpoint = checkpoint_path(folder, epochs - 1)
    return checkpoint if checkpoint.is_file() and is_logged(folder, epochs - 1) else None


def read_truth(mask: str | os.PathLike | None, shape: tuple[int, int]) -> np.ndarray:
    """bool ``(H, W)``: where an image was manipulated; nowhere without a mask."""
    return read_rgb(mask)[..., 0] > 127 if mask else np.zeros(shape, bool)


def write_list(path: Path, content: list | dict) -> Path:
    """JSON for BenCo."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, default=str))
    return path
