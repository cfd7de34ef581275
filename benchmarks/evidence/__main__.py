"""Trains and tests the models of ``benco_configs/evidence.yaml``, in pieces that resume.

    python -m benchmarks.evidence [cpu|gpu|small] --photos DIR [--labels DIR] [--real DIR ...]
        [--out DIR] [--minutes M] [--seeds 0 1 2] [--rows NAME,...] [--jobs 2]

Every run is BenCo's train.py with ``qma-net train --fit native`` on images that are made fresh, the
same ones in the same order for all models of a seed; then ``qma-net evaluate`` on images of every
stage of ``curriculum.yaml``, made of photographs that no model saw, and for the first row on
``--real``. All rows of one seed come before the next seed, so that what is there at any time is a
comparison. A run is ``OUT/<row>/<seed>``. After ``--minutes`` nothing new begins, and what trains
stops at its next step, to go on from its last epoch. :mod:`.page` makes the tables.
``small`` is no comparison but one model for images of all stages: :mod:`.small`.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from qma_net.core.errors import QMANetError
from qma_net.core.runs import FolderLock
from qma_net.launch.saving import checkpoint_path
from qma_net.synth.curriculum import stages
from qma_net.synth.recipe import KINDS, UNTOUCHED

from . import small
from .plan import SPLICES, Plan, Row
from .work import Clock, fresh_images, made_pairs, test_images, trained, training_flags, write_list


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("size", nargs="?", choices=["cpu", "gpu", "small"], default="cpu")
    parser.add_argument("--photos", required=True, help="folder of untouched photographs")
    parser.add_argument("--labels", help="folder of their label maps")
    parser.add_argument("--real", nargs="*", default=[], help="test sets of real manipulated ones")
    parser.add_argument("--out", default="", help="default runs/evidence/<size>")
    parser.add_argument("--minutes", type=float, default=1e6, help="after which nothing begins")
    parser.add_argument("--seeds", type=int, nargs="*", help="default: the plan's")
    parser.add_argument("--rows", default="", help="names of rows, by comma; default: all")
    parser.add_argument("--epochs", type=int, help="default: the plan's")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, on as many cores each")
    parser.add_argument("--workers", type=int, default=1, help="processes that make images, a run")
    args = parser.parse_args(argv)
    try:
        small.work(args) if args.size == "small" else work(args)
    except QMANetError as error:
        parser.exit(1, f"evidence: {error}\n")


def work(args: argparse.Namespace) -> None:
    """Everything that is missing, as far as the minutes reach."""
    plan = Plan.read(args.size)
    plan = replace(plan, epochs=args.epochs or plan.epochs, seeds=args.seeds or plan.seeds)
    asked = [name.strip() for name in args.rows.split(",") if name.strip()]
    rows = [row for row in plan.rows if not asked or row.name in asked]
    if len(rows) < len(asked):
        known = ", ".join(row.name for row in plan.rows)
        raise QMANetError(f"got --rows {args.rows}, expected some of: {known}")
    out = Path(args.out or f"runs/evidence/{args.size}").resolve()
    with FolderLock(out):
        sets = prepare(plan, args, out / "data")
        clock = Clock.of(args)
        runs = [
            Run(plan, row, seed, out, sets, clock, args.workers)
            for seed in plan.seeds
            for row in rows
        ]
        with ThreadPoolExecutor(args.jobs) as pool:
            ended = list(pool.map(Run.go, runs))
    print(f"{sum(ended)} of {len(runs)} runs are done, in {out}")


def prepare(plan: Plan, args: argparse.Namespace, data: Path) -> dict[str, Path]:
    """The images that are tested on, and the protocol of training; returns the test sets.

    Beside those of :func:`.work.test_images`, for the comparison: splices of the stage that is
    trained on.
    """
    sets = test_images(args, data, plan.image_size, plan.test_images)
    recipe = stages()[plan.stage]
    count = round(plan.test_splices * len(KINDS) / (1 - recipe.untouched))
    recipe = replace(recipe, image_size=plan.image_size)
    found = made_pairs(args, data / SPLICES, recipe, count)
    splices = [pair for pair in found if Path(pair[0]).name.startswith(KINDS[0])]
    sets[SPLICES] = write_list(data / f"{SPLICES}.json", splices)
    write_list(data / "protocol.json", [fresh_images(args, data, plan.stage)])
    write_list(data / "tests.json", {SPLICES: sets[SPLICES]})
    return sets


@dataclass
class Run:
    """A row's model with a seed: trained, then tested; what is done is not done again.

    Attributes:
        sets: what it is tested on.
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
        return self.out / self.row.folder / str(self.seed)

    def go(self) -> bool:
        """Whether the run is complete."""
        return self.train() and self.test() and self.attack()

    def train(self) -> bool:
        if trained(self.folder, self.plan.epochs):
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
        place = self.folder / "evaluate"
        made = {SPLICES, *stages(), UNTOUCHED}
        first = self.row is self.plan.rows[0]
        sets = {name: path for name, path in self.sets.items() if first or name in made}
        if all((place / f"{name}.json").is_file() for name in sets):
            return True
        listed = write_list(self.folder / "sets.json", sets)
        sets = ["--test-sets", listed, "--out", place]
        return self._start("evaluate", [*self._subject(), *sets])

    def attack(self) -> bool:
        """The paper's attacks, on the first row with the first seed."""
        if self.row is not self.plan.rows[0] or self.seed != self.plan.seeds[0]:
            return True
        place = self.folder / "robust"
        if (place / SPLICES / "averages.json").is_file():
            return True
        sets = ["--test-sets", self.out / "data/tests.json", "--out", place]
        return self._start("robust", [*self._subject(), *sets])

    def _subject(self) -> list:
        """Flags of what is evaluated."""
        flags = ["--checkpoint", checkpoint_path(self.folder, self.plan.epochs - 1), "--native"]
        flags += ["--workers", 0, "--model", self.row.model]
        return flags + ([] if self.row.model == "QMANet" else self.plan.model_flags(self.row))

    def _start(self, command: str, flags: list) -> bool:
        return self.clock.run(command, flags, self.folder, f"{self.row.name}, seed {self.seed}")


if __name__ == "__main__":
    main()
