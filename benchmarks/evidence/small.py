"""One small model from nothing, through all stages of ``curriculum.yaml``: ``small`` of the plan.

A stage begins with the weights of the one before. Half of its images are its own, the others those
of the stages before it, so that nothing is forgotten; all are made fresh. After every stage the
model is tested on images of all of them, on untouched ones and on ``--real``. A stage is
``OUT/<number>-<name>``; what is finished is kept, and what was stopped goes on from its last epoch.
"""

import argparse
from pathlib import Path

from qma_net.evaluation.rows import results_table
from qma_net.files import alone, config_path, read_yaml
from qma_net.launch.saving import checkpoint_path, is_logged
from qma_net.synth.curriculum import stages

from .work import Clock, fresh_images, test_images, training_flags, write_list


def work(args: argparse.Namespace) -> None:
    """Everything that is missing, as far as the minutes reach; prints a table after each stage."""
    plan = read_yaml(config_path("evidence.yaml"), "the small protocol")["small"]
    out, clock = Path(args.out or "runs/evidence/small").resolve(), Clock.of(args)
    with alone(out):
        sets = test_images(args, out / "data", plan["image_size"], plan["test_images"])
        tests = write_list(out / "data/sets.json", sets)
        before: list[str] = []
        checkpoint = None
        for number, name in enumerate(stages()):
            folder, epochs = out / f"{number}-{name}", args.epochs or plan["epochs"][number]
            mixed = [name] * max(1, len(before)) + before
            lines = [fresh_images(args, out / "data", one) for one in mixed]
            protocol = write_list(out / f"data/protocol-{name}.json", lines)
            tested = write_list(out / f"data/tests-{name}.json", {name: sets[name]})
            flags = training_flags(
                folder,
                protocol,
                tested,
                image_size=plan["image_size"],
                batch_size=plan["batch_size"],
                epochs=epochs,
                lr=plan["lr"],
                warmup_epochs=0 if checkpoint else 1,  # random weights need one
            )
            flags += ["--model", "QMANet", *(["--init_from", checkpoint] if checkpoint else [])]
            flags += [
                word for flag, value in plan["flags"].items() for word in (f"--{flag}", value)
            ]
            checkpoint = checkpoint_path(folder, epochs - 1)
            is_trained = checkpoint.is_file() and is_logged(folder, epochs - 1)
            if not is_trained and not clock.run("train", flags, folder, name):
                return
            flags = ["--checkpoint", checkpoint, "--native", "--workers", 0]
            flags += ["--test-sets", tests, "--out", folder / "evaluate"]
            if not clock.run("evaluate", flags, folder, name):
                return
            print(results_table(folder / "evaluate", list(sets)), flush=True)
            before.append(name)
