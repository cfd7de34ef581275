"""Train and test the models of ``benco_configs/evidence.yaml``; interrupted runs resume.

    python -m benchmarks.evidence [cpu|longer|gpu|small|copies] --photos DIR [--labels DIR]
        [--real DIR ...] [--noiseprint FILE] [--out DIR] [--minutes M] [--seeds 0 1 2]
        [--rows NAME,...] [--jobs 2]

Every run trains with BenCo's train.py (``qma-net train --fit native``) on images that are
generated on the fly, the same images in the same order for all models of a seed. It is then tested
with ``qma-net evaluate`` on images of every stage of ``curriculum.yaml``, generated from photos
that no model was trained on; the first row is also tested on ``--real``. All rows of one seed are
run before the next seed, so that the available results are always comparable. A run is stored in
``OUT/<row>/<seed>``. After ``--minutes``, no new run is started and running ones stop at their next
step. :mod:`.page` generates the tables.

``small`` and ``copies`` are not comparisons but train a single model; see
:mod:`.small`.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from qma_net.core.errors import QMANetError
from qma_net.core.runs import FolderLock
from qma_net.launch.checkpoints import checkpoint_path
from qma_net.synth.curriculum import stages
from qma_net.synth.recipe import AUTHENTIC, KINDS

from .plan import OURS, SPLICES, STAGES, Plan, Row, comparisons, read_plans
from .runner import (
    Clock,
    finished_checkpoint,
    on_the_fly_images,
    real_sets,
    synthetic_pairs,
    test_images,
    training_flags,
    write_list,
)
from .small import run_small


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("size", nargs="?", choices=list(read_plans()), default="cpu")
    parser.add_argument("--photos", required=True, help="folder of authentic photos")
    parser.add_argument("--labels", help="folder of their label maps")
    parser.add_argument("--real", nargs="*", default=[], help="test sets of real forgeries")
    noiseprint = "noiseprint++.th, for models with the view noiseprint (plan gpu)"
    parser.add_argument("--noiseprint", default="", metavar="FILE", help=noiseprint)
    parser.add_argument("--out", default="", help="output folder (default: runs/evidence/<size>)")
    parser.add_argument("--minutes", type=float, default=1e6, help="time budget (default: none)")
    parser.add_argument("--seeds", type=int, nargs="*", help="default: those of the plan")
    parser.add_argument("--rows", default="", help="comma-separated row names (default: all)")
    epochs = "for small and copies, of the last step (default: as in the plan)"
    parser.add_argument("--epochs", type=int, help=epochs)
    parser.add_argument("--jobs", type=int, default=1, help="runs in parallel, sharing the cores")
    parser.add_argument("--workers", type=int, default=1, help="data-loader processes per run")
    args = parser.parse_args(argv)
    try:
        run_comparison(args) if args.size in comparisons() else run_small(args)
    except QMANetError as error:
        parser.exit(1, f"evidence: {error}\n")


def run_comparison(args: argparse.Namespace) -> None:
    """Run everything that is still missing, until the deadline."""
    plan = Plan.read(args.size, args.noiseprint and str(Path(args.noiseprint).resolve()))
    plan = replace(plan, epochs=args.epochs or plan.epochs)
    names = [name.strip() for name in args.rows.split(",") if name.strip()]
    rows = [row for row in plan.rows if not names or row.name in names]
    if len(rows) < len(names):
        known = ", ".join(row.name for row in plan.rows)
        raise QMANetError(f"unknown row in --rows {args.rows}; choose from: {known}")
    plan.require_noiseprint(rows)
    out = Path(args.out or f"runs/evidence/{args.size}").resolve()
    with FolderLock(out):
        sets = prepare(plan, args, out / "data")
        clock = Clock.from_args(args)
        runs = [
            TrainingRun(plan, row, seed, out, sets, clock, args.workers)
            for seed in args.seeds or plan.seeds
            for row in rows
        ]
        with ThreadPoolExecutor(args.jobs) as pool:
            complete = list(pool.map(TrainingRun.run, runs))
    print(f"{sum(complete)} of {len(runs)} runs are complete, in {out}")


def prepare(plan: Plan, args: argparse.Namespace, data: Path) -> dict[str, Path]:
    """Generate the test images and write the training protocol.

    Returns:
        The synthetic and real test sets, and splices of the training stage.
    """
    sets = test_images(args, data, plan.image_size, plan.test_images, STAGES, {})
    sets |= real_sets(args.real)
    recipe = stages()[plan.stage]
    count = round(plan.test_splices * len(KINDS) / (1 - recipe.untouched))
    recipe = replace(recipe, image_size=plan.image_size)
    pairs = synthetic_pairs(args, data / SPLICES, recipe, count)
    splices = [pair for pair in pairs if Path(pair[0]).name.startswith(KINDS[0])]
    sets[SPLICES] = write_list(data / f"{SPLICES}.json", splices)
    fresh = on_the_fly_images(args, data / f"fresh-{plan.stage}.yaml", plan.stage)
    write_list(data / "protocol.json", [fresh])
    write_list(data / "tests.json", {SPLICES: sets[SPLICES]})
    return sets


@dataclass
class TrainingRun:
    """Training and testing of a row's model with one seed; finished parts are not repeated.

    Attributes:
        sets: The test sets by name.
    """

    plan: Plan
    row: Row
    seed: int
    out: Path
    sets: dict[str, Path]
    clock: Clock
    workers: int

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.out / self.row.folder / str(self.seed)

    def run(self) -> bool:
        """Run the missing parts and return whether the run is complete."""
        return self.train() and self.test() and self.attack()

    def train(self) -> bool:
        """Train the model, or resume its training."""
        if finished_checkpoint(self.folder, self.plan.epochs):
            return True
        data = self.out / "data"
        flags = training_flags(
            self.folder,
            data / "protocol.json",
            data / "tests.json",
            image_size=self.plan.image_size,
            batch_size=self.plan.batch_size,
            epochs=self.plan.epochs,
            lr=self.plan.lr,
            warmup_epochs=1,
            workers=self.workers,
        )
        flags += ["--model", self.row.model, *self.plan.model_flags(self.row), "--seed", self.seed]
        return self._start("train", flags)

    def test(self) -> bool:
        """Evaluate the model on all test sets; real images with the first row only."""
        results = self.folder / "evaluate"
        synthetic = {SPLICES, *STAGES, AUTHENTIC}
        first = self.row is self.plan.rows[0]
        sets = {name: path for name, path in self.sets.items() if first or name in synthetic}
        if all((results / f"{name}.json").is_file() for name in sets):
            return True
        listing = write_list(self.folder / "sets.json", sets)
        flags = ["--test-sets", listing, "--out", results]
        return self._start("evaluate", [*self._model_flags(), *flags])

    def attack(self) -> bool:
        """Apply the paper's attacks to the first row with the plan's first seed."""
        if self.row is not self.plan.rows[0] or self.seed != self.plan.seeds[0]:
            return True
        results = self.folder / "robust"
        if (results / SPLICES / "averages.json").is_file():
            return True
        flags = ["--test-sets", self.out / "data/tests.json", "--out", results]
        return self._start("robust", [*self._model_flags(), *flags])

    def _model_flags(self) -> list:
        flags = ["--checkpoint", checkpoint_path(self.folder, self.plan.epochs - 1), "--native"]
        flags += ["--workers", 0, "--model", self.row.model]
        return flags + ([] if self.row.model == OURS else self.plan.model_flags(self.row))

    def _start(self, command: str, flags: list) -> bool:
        return self.clock.run(command, flags, self.folder, f"{self.row.name}, seed {self.seed}")


if __name__ == "__main__":
    main()
