"""Train one small model: the plan ``small``, and ``copies``, which continues with it.

Every step starts from the weights of the previous one and trains on a mixture of stages of
``curriculum.yaml``, generated on the fly. When all steps are trained, each is tested on images of
its ``test_stages`` and on authentic images; ``copies`` also on ``--real``, whereas :mod:`.ship`
tests ``small`` on a half of it. Step ``NAME`` is in ``OUT/NAME``. Finished work is kept, and
interrupted training resumes after its last epoch.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import torch

from qma_net.benco import QMANet
from qma_net.core.errors import QMANetError
from qma_net.core.files import atomic_write
from qma_net.core.images import find_images
from qma_net.core.runs import FolderLock
from qma_net.evaluation.results import format_means
from qma_net.launch.checkpoints import checkpoint_path
from qma_net.modeling.qma_net import QMANetModel

from .plan import as_words, read_plans
from .real import HALVES, SPLIT, half_of, read_split
from .runner import (
    ROOT,
    Clock,
    finished_checkpoint,
    on_the_fly_images,
    real_sets,
    test_images,
    training_flags,
    write_list,
)


def run_small(args: argparse.Namespace) -> None:
    """Run everything that is missing until the deadline; print a table for each step.

    ``--epochs`` applies to the last step.

    Raises:
        QMANetError: If photos or test sets that packaging the model needs are missing.
    """
    steps = small_steps(args.size)
    _check_inputs(args, steps[-1])
    if args.epochs:
        steps[-1]["epochs"] = args.epochs
    out, clock = Path(args.out or f"runs/evidence/{args.size}").resolve(), Clock.from_args(args)
    with FolderLock(out):
        previous = _start(ROOT / steps[0]["start"], out) if "start" in steps[0] else None
        trained = []
        for step in steps:
            sets = test_images(
                args,
                out / step["data"],
                step["image_size"],
                step["test_images"],
                step["test_stages"],
                step["recipe"],
            )
            if "authentic" not in step:
                sets |= real_sets(args.real)
            previous = _train_step(args, step, out, sets, previous, clock)
            if previous is None:
                return
            trained.append((step["name"], previous, sets))
        for name, checkpoint, sets in trained:
            tests = write_list(out / name / "sets.json", sets)
            flags = ["--checkpoint", checkpoint, "--native", "--workers", 0]
            flags += ["--test-sets", tests, "--out", out / name / "evaluate"]
            if not clock.run("evaluate", flags, out / name, name):
                return
            print(format_means(out / name / "evaluate", list(sets)), flush=True)


def small_steps(name: str) -> list[dict]:
    """Return the steps of a plan, each with all of its settings.

    A setting is that of the step, otherwise that of the plan; ``sources`` are otherwise those of
    the previous step. ``recipe`` is included in every source. ``data`` is the folder of the test
    images in the output folder, which is the step's own if it has its own ``test_stages``.
    """
    plan = {"recipe": {}, **read_plans()[name]}
    settings = {key: value for key, value in plan.items() if key != "steps"}
    steps: list[dict] = []
    for step in plan["steps"]:
        sources = [
            source | {"recipe": plan["recipe"] | source.get("recipe", {})}
            for source in step.get("sources", steps[-1]["sources"] if steps else [])
        ]
        data = f"{step['name']}/data" if "test_stages" in step else "data"
        steps.append(settings | {"data": data} | step | {"sources": sources})
    return steps


def _check_inputs(args: argparse.Namespace, step: dict) -> None:
    """Check, before hours of training, what :mod:`.ship` needs afterwards."""
    if "authentic" not in step:
        return
    for folder in step["authentic"]:
        if not find_images(Path(args.photos, folder)):
            raise QMANetError(
                f"{args.photos} has no photos in a folder {folder}, which are needed to choose the "
                "threshold; add them, or change recipe and authentic in benco_configs/evidence.yaml"
            )
    assigned = read_split(SPLIT)
    for folder in args.real:
        half_of(Path(folder), HALVES[0], assigned)


def _start(folder: Path, out: Path) -> Path:
    """Write a packaged model as a checkpoint that ``--init_from`` reads, and return its path."""
    path = out / "start.pth"
    if not path.is_file():
        network = QMANetModel.from_pretrained(folder).float()
        model = QMANet(**asdict(network.config), init_from=network)
        with atomic_write(path) as temporary:
            torch.save({"model": model.state_dict()}, temporary)
    return path


def _train_step(
    args: argparse.Namespace,
    step: dict,
    out: Path,
    sets: dict[str, Path],
    previous: Path | None,
    clock: Clock,
) -> Path | None:
    """Train a step and return its last checkpoint, or None if time ran out."""
    name, epochs = step["name"], step["epochs"]
    if checkpoint := finished_checkpoint(out / name, epochs):
        return checkpoint
    data = out / "data"
    datasets = [
        on_the_fly_images(args, data / f"fresh-{name}-{number}-{source['stage']}.yaml", **source)
        for number, source in enumerate(step["sources"])
    ]
    tests = {stage: sets[stage] for stage in step["validation_stages"]}
    flags = training_flags(
        out / name,
        write_list(data / f"protocol-{name}.json", datasets),
        write_list(data / f"tests-{name}.json", tests),
        image_size=step["image_size"],
        batch_size=step["batch_size"],
        epochs=epochs,
        lr=step["lr"],
        warmup_epochs=step["warmup_epochs"],
        workers=args.workers,
        test_period=step.get("test_period", 1),
    )
    flags += ["--model", "QMANet"]
    flags += ["--init_from", previous] if previous else []
    flags += as_words(step["flags"])
    if not clock.run("train", flags, out / name, name, step.get("epoch_images")):
        return None
    return checkpoint_path(out / name, epochs - 1)
