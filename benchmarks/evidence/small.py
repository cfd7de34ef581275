"""Train one small model from random weights on all stages: the plan ``small``.

Every step starts from the weights of the previous one and trains on a mixture of stages of
``curriculum.yaml``, generated on the fly. When all steps are trained, each is tested on images of
every stage, on authentic images and on ``--real``. Step ``NAME`` is in ``OUT/NAME``. Finished work
is kept, and interrupted training resumes after its last epoch.
"""

import argparse
from pathlib import Path

from qma_net.core.runs import FolderLock
from qma_net.evaluation.results import format_means
from qma_net.launch.checkpoints import checkpoint_path

from .plan import as_words, read_plans
from .runner import (
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
    plan = read_plans()["small"]
    if args.epochs:
        plan["steps"][-1]["epochs"] = args.epochs
    out, clock = Path(args.out or "runs/evidence/small").resolve(), Clock.from_args(args)
    with FolderLock(out):
        sets = test_images(args, out / "data", plan["image_size"], plan["test_images"])
        checkpoints: dict[str, Path] = {}
        sources: list[dict] = []
        for step in plan["steps"]:
            sources = step.setdefault("sources", sources)
            previous = list(checkpoints.values())[-1:]
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
    datasets = [on_the_fly_images(args, data, **source) for source in step["sources"]]
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
    )
    flags += ["--model", "QMANet"]
    for checkpoint in previous:
        flags += ["--init_from", checkpoint]
    flags += as_words(plan["flags"])
    if not clock.run("train", flags, out / name, name):
        return None
    return checkpoint_path(out / name, epochs - 1)
