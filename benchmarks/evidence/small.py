"""One small model from nothing to images of every stage: ``small`` of the plan.

A step begins with the weights of the one before, and its images are a mixture of stages of
``curriculum.yaml``, all made fresh. When all steps are trained, each is tested on images of every
stage, on untouched ones and on ``--real``. A step is ``OUT/<name>``; what is finished is kept, and
what was stopped goes on from its last epoch.
"""

import argparse
from pathlib import Path

from qma_net.core.files import config_path, read_yaml
from qma_net.core.runs import FolderLock
from qma_net.evaluation.rows import results_table
from qma_net.launch.saving import checkpoint_path

from .plan import as_words
from .work import Clock, fresh_images, test_images, trained, training_flags, write_list


def work(args: argparse.Namespace) -> None:
    """Everything that is missing, as far as the minutes reach; prints a table for each step.

    ``--epochs`` are those of the last step.
    """
    plan = read_yaml(config_path("evidence.yaml"), "the small protocol")["small"]
    if args.epochs:
        plan["steps"][-1]["epochs"] = args.epochs
    out, clock = Path(args.out or "runs/evidence/small").resolve(), Clock.of(args)
    with FolderLock(out):
        sets = test_images(args, out / "data", plan["image_size"], plan["test_images"])
        checkpoints: dict[str, Path] = {}
        lines = []
        for step in plan["steps"]:
            lines = step.setdefault("lines", lines)
            before = list(checkpoints.values())
            checkpoint = _trained(args, plan, step, out, sets, before, clock)
            if checkpoint is None:
                return
            checkpoints[step["name"]] = checkpoint
        tests = write_list(out / "data/sets.json", sets)
        for name, checkpoint in checkpoints.items():
            flags = ["--checkpoint", checkpoint, "--native", "--workers", 0]
            flags += ["--test-sets", tests, "--out", out / name / "evaluate"]
            if not clock.run("evaluate", flags, out / name, name):
                return
            print(results_table(out / name / "evaluate", list(sets)), flush=True)


def _trained(
    args: argparse.Namespace,
    plan: dict,
    step: dict,
    out: Path,
    sets: dict[str, Path],
    before: list[Path],
    clock: Clock,
) -> Path | None:
    """The checkpoint that a step ends with; ``None`` where the minutes did not reach."""
    name, epochs = step["name"], step["epochs"]
    if done := trained(out / name, epochs):
        return done
    data = out / "data"
    lines = [fresh_images(args, data, **line) for line in step["lines"]]
    flags = training_flags(
        out / name,
        write_list(data / f"protocol-{name}.json", lines),
        write_list(data / "tests.json", {stage: sets[stage] for stage in plan["watched"]}),
        image_size=plan["image_size"],
        batch_size=step["batch_size"],
        epochs=epochs,
        lr=step["lr"],
        warmup_epochs=step["warmup_epochs"],
        workers=args.workers,
    )
    flags += ["--model", "QMANet", *(["--init_from", before[-1]] if before else [])]
    flags += as_words(plan["flags"])
    if not clock.run("train", flags, out / name, name):
        return None
    return checkpoint_path(out / name, epochs - 1)
