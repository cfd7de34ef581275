"""Train one small model: the plan ``small``, and ``small2`` and ``copies``, which continue with it.

Every step starts from the weights of the previous one and trains on a mixture of stages of
``curriculum.yaml``, generated on the fly. When all steps are trained, each is tested on images of
every stage, on authentic images and on ``--real``. Step ``NAME`` is in ``OUT/NAME``. Finished work
is kept, and interrupted training resumes after its last epoch.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import torch

from qma_net.benco import QMANet
from qma_net.core.files import atomic_write
from qma_net.core.runs import FolderLock
from qma_net.evaluation.results import format_means
from qma_net.launch.checkpoints import checkpoint_path
from qma_net.modeling.qma_net import QMANetModel

from .plan import STAGES, as_words, read_plans
from .runner import (
    ROOT,
    Clock,
    finished_checkpoint,
    on_the_fly_images,
    test_images,
    training_flags,
    write_list,
)


def run_small(args: argparse.Namespace) -> None:
    """Run everything that is missing until the deadline; print a table for each step.

    ``--epochs`` applies to the last step.
    """
    plan = read_plans()[args.size]
    if args.epochs:
        plan["steps"][-1]["epochs"] = args.epochs
    out, clock = Path(args.out or f"runs/evidence/{args.size}").resolve(), Clock.from_args(args)
    with FolderLock(out):
        names = plan.get("test_stages", STAGES)
        sets = test_images(args, out / "data", plan["image_size"], plan["test_images"], names)
        checkpoints: dict[str, Path] = {}
        sources: list[dict] = []
        for step in plan["steps"]:
            sources = step.setdefault("sources", sources)
            start = [_start(ROOT / plan["start"], out)] if "start" in plan else []
            previous = [*start, *checkpoints.values()][-1:]
            checkpoint = _train_step(args, plan, step, out, sets, previous, clock)
            if checkpoint is None:
                return
            checkpoints[step["name"]] = checkpoint
        tests = write_list(out / "data/sets.json", sets)
        for name, checkpoint in checkpoints.items():
            flags = ["--checkpoint", checkpoint, "--native", "--workers", 0]
            flags += ["--test-sets", tests, "--out", out / name / "evaluate"]
            if not clock.run("evaluate", flags, out / name, name):
                return
            print(format_means(out / name / "evaluate", list(sets)), flush=True)


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
    plan: dict,
    step: dict,
    out: Path,
    sets: dict[str, Path],
    previous: list[Path],
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
    flags = training_flags(
        out / name,
        write_list(data / f"protocol-{name}.json", datasets),
        write_list(
            data / "tests.json", {stage: sets[stage] for stage in plan["validation_stages"]}
        ),
        image_size=plan["image_size"],
        batch_size=step["batch_size"],
        epochs=epochs,
        lr=step["lr"],
        warmup_epochs=step["warmup_epochs"],
        workers=args.workers,
        test_period=plan.get("test_period", 1),
    )
    flags += ["--model", "QMANet"]
    for checkpoint in previous:
        flags += ["--init_from", checkpoint]
    flags += as_words(plan["flags"])
    if not clock.run("train", flags, out / name, name, plan.get("epoch_images")):
        return None
    return checkpoint_path(out / name, epochs - 1)
