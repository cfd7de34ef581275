"""The tables and pictures of docs/evidence.md, from what :mod:`benchmarks.evidence` left behind.

    python -m benchmarks.evidence.page [cpu|gpu] [--out DIR] [--docs docs/evidence.md]

In the page, what stands between ``<!-- NAME -->`` and ``<!-- end -->`` is replaced. Beside it, in
``evidence/``, are the pictures and the tables of :mod:`.records` that all is made of: what
``--out`` holds is added to them, so that runs of another day or machine join those before.

Intervals are of 95 %. A mean's is over the images, drawn anew for every seed; a difference's is
paired: per image the mean over the seeds that both rows have, images drawn anew. Neither sees how
far apart the seeds are: the F1 of every seed stands beside.
"""

import argparse
import re
from pathlib import Path

import numpy as np
from IMDLBenCo.registry import MODELS
from IMDLBenCo.training_scripts.utils.misc import create_argparser

from qma_net.core.errors import QMANetError
from qma_net.core.files import atomic_write, write_text
from qma_net.evaluation.metrics import mean, mean_and_interval, paired_bootstrap
from qma_net.synth.curriculum import stages
from qma_net.synth.recipe import UNTOUCHED

from . import models  # noqa: F401  (registers them)
from .baselines import BASELINES
from .figures import curves, examples
from .plan import SPLICES, Plan, Row
from .records import Records, collect


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("size", nargs="?", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--out", default="", help="default runs/evidence/<size>")
    parser.add_argument("--docs", help="default OUT/evidence.md")
    args = parser.parse_args(argv)
    out, plan = Path(args.out or f"runs/evidence/{args.size}"), Plan.read(args.size)
    page = Path(args.docs or out / "evidence.md")
    beside = page.parent / page.stem
    records = Records.read(beside, args.size)
    try:
        collect(records, out, plan)
    except QMANetError as error:
        parser.exit(1, f"evidence: {error}\n")
    if not records.of(plan.rows[0].name):
        print(f"no run of {plan.rows[0].name} is complete yet: no tables; the same command goes on")
        return
    beside.mkdir(parents=True, exist_ok=True)
    records.write(beside, args.size)
    results = Results(records, plan)
    text = page.read_text() if page.is_file() else ""
    for name, block in results.blocks().items():
        name = f"{args.size}-{name}"
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.S)
        if not pattern.search(text):
            text += f"\n<!-- {name} -->\n<!-- end -->\n"
        text = pattern.sub(lambda found, block=block: found[1] + block + found[2], text)
    write_text(page, text)
    pictures = {"curves": curves(results), "examples": examples(plan, out)}
    for name, figure in pictures.items():
        if figure:
            with atomic_write(beside / f"{args.size}-{name}.png") as path:
                figure.savefig(path, format="png", dpi=110)


class Results:
    """A plan's records as tables.

    Attributes:
        rows: those with a run; the first of the plan first.
    """

    def __init__(self, records: Records, plan: Plan):
        self.records, self.plan = records, plan
        self.rows = [row for row in plan.rows if records.of(row.name)]
        self.baselines = [name for name in BASELINES if records.of(name)]

    def blocks(self) -> dict[str, str]:
        """The tables by the names of their places in the page."""
        return {
            "idea": self.comparison("idea"),
            "reading": self.comparison("reading"),
            "sets": self.test_sets(),
            "robustness": self.robustness(),
        }

    def of_question(self, question: str) -> list[Row]:
        """The first row, and those that are compared with it."""
        return [self.rows[0], *(row for row in self.rows if row.question == question)]

    def comparison(self, question: str) -> str:
        """The rows of a question beside the first, on splices of the stage that was trained on."""
        first = self.rows[0].name
        lines = [
            "| | parameters (M) | F1 | of each seed | AUC | IoU | F1 less that of the first |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in self.of_question(question):
            less = "" if row.name == first else self.difference(first, row.name)
            size = f"{_parameters(self.plan, row) / 1e6:.2f}"
            lines.append(f"| {row.name} | {size} | {self.on_splices(row.name)} | {less} |")
        if question == "idea":
            for name in self.baselines:
                lines.append(f"| *{name}* | 0 | {self.on_splices(name)} | |")
        return "\n".join(lines) + "\n"

    def on_splices(self, row: str) -> str:
        """Cells: F1 with its interval, that of each seed, AUC, IoU."""
        runs = self.records.of(row)
        found, (low, high) = mean_and_interval([_column(run) for run in runs])
        each = ", ".join(f"{np.mean(_column(run)):.3f}" for run in runs) if len(runs) > 1 else ""
        others = [mean([run.sets[SPLICES][metric] for run in runs]) for metric in ("auc", "iou")]
        auc, iou = (f"{value:.3f}" for value in others)
        return f"{found:.3f} [{low:.3f}, {high:.3f}] | {each} | {auc} | {iou}"

    def difference(self, first: str, other: str) -> str:
        """Paired, over the seeds that both have.

        An interval with zero in it is said to touch, seeds that differ in sign to disagree.
        """
        runs = self.records.runs
        seeds = set(self.records.seeds(first)) & set(self.records.seeds(other))
        columns = [[_column(runs[row, seed]) for seed in sorted(seeds)] for row in (first, other)]
        found = paired_bootstrap(*(np.mean(of_seeds, axis=0).tolist() for of_seeds in columns))
        low, high = found["interval"]
        between = np.mean(columns[1], axis=1) - np.mean(columns[0], axis=1)
        text = f"{found['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
        if low <= 0 <= high:
            text += ", touches 0"
        elif between.min() < 0 < between.max():
            text += ", seeds disagree"
        return text + ", one seed" * (len(seeds) == 1)

    def test_sets(self) -> str:
        """F1 of every row on every test set, and what it marks of untouched images."""
        made = [SPLICES, *stages()]
        every = {name for run in self.records.of(self.rows[0].name) for name in run.sets}
        names = [*made, *sorted(every - {*made, UNTOUCHED})]
        lines = [
            f"| F1 | {' | '.join(names)} | untouched, marked |",
            "|---" * (len(names) + 2) + "|",
        ]
        for row in [*(one.name for one in self.rows), *self.baselines]:
            shown = f"*{row}*" if row in self.baselines else row
            cells = [_shown(self.over_seeds(row, name, "f1"), "{:.3f}") for name in names]
            marked = _shown(self.over_seeds(row, UNTOUCHED, "marked"), "{:.1%}")
            lines.append(f"| {shown} | {' | '.join(cells)} | {marked} |")
        return "\n".join(lines) + "\n"

    def over_seeds(self, row: str, name: str, metric: str) -> float | None:
        """The mean of a row's runs on a test set; None where none was tested on it."""
        sets = [run.sets[name] for run in self.records.of(row) if name in run.sets]
        return mean([found[metric] for found in sets])

    def robustness(self) -> str:
        """F1 of the first row after every attack, level by level."""
        if not self.records.robust:
            return "Not measured yet.\n"
        points = {}
        for attack, level, f1 in self.records.robust:
            points.setdefault(attack, []).append(f"{level:g}: {f1:.3f}" if level else f"{f1:.3f}")
        lines = [f"| {attack} | {', '.join(found)} |" for attack, found in points.items()]
        return "\n".join(["| attack | level: F1 |", "|---|---|", *lines]) + "\n"


def _column(run) -> list[float]:
    """F1 of the splices, always in the same order."""
    return [values["f1"] for _, values in sorted(run.images.items())]


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _parameters(plan: Plan, row: Row) -> int:
    """Trained parameters of a row's model."""
    build = MODELS.get(row.model)
    flags, _ = create_argparser(build).parse_known_args(plan.model_flags(row))
    return sum(p.numel() for p in build(**vars(flags)).parameters() if p.requires_grad)


if __name__ == "__main__":
    main()
