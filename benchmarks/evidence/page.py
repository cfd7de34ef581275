"""Generate the tables and figures of docs/evidence.md from the runs of :mod:`benchmarks.evidence`.

    python -m benchmarks.evidence.page [cpu|longer|gpu] [--noiseprint FILE]
        [--out DIR] [--docs docs/evidence.md]

The text between ``<!-- NAME -->`` and ``<!-- end -->`` in the page is replaced. The folder
``evidence/`` next to it contains the figures and the CSV files of :mod:`.records`. The runs in
``--out`` are added to these files.

Intervals cover 95%. The interval of a mean is bootstrapped over images, separately for every seed.
That of a difference is paired: per image, the mean over the seeds that both rows have. Neither
covers the variation between seeds, so the F1 of every seed is listed as well.
"""

import argparse
from pathlib import Path

import numpy as np
from IMDLBenCo.registry import MODELS
from IMDLBenCo.training_scripts.utils.misc import create_argparser

from qma_net.core.errors import QMANetError
from qma_net.core.files import atomic_write
from qma_net.evaluation.metrics import mean, mean_and_interval, paired_bootstrap
from qma_net.synth.recipe import AUTHENTIC

from . import models  # noqa: F401  (registers the models)
from .baselines import BASELINES, TITLES
from .figures import curves, examples
from .plan import SPLICES, STAGES, Plan, Row, comparisons
from .records import UNSEEDED, Records, collect
from .runner import replace_block

TABLES = (("idea", "baseline"), ("reading",))  # Questions that share a table and a plot.


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("size", nargs="?", choices=comparisons(), default="cpu")
    parser.add_argument(
        "--out", default="", help="folder of the runs (default: runs/evidence/<size>)"
    )
    noiseprint = "noiseprint++.th, for models with the view noiseprint"
    parser.add_argument("--noiseprint", default="", metavar="FILE", help=noiseprint)
    parser.add_argument("--docs", help="page to update (default: OUT/evidence.md)")
    args = parser.parse_args(argv)
    out = Path(args.out or f"runs/evidence/{args.size}")
    plan = Plan.read(args.size, args.noiseprint)
    page = Path(args.docs or out / "evidence.md")
    folder = page.parent / page.stem
    records = Records.read(folder, args.size)
    try:
        collect(records, out, plan)
    except QMANetError as error:
        parser.exit(1, f"evidence: {error}\n")
    first = plan.rows[0].name
    if not records.of(first):
        print(f"No run of {first} is complete yet; run benchmarks.evidence again to resume.")
        return
    folder.mkdir(parents=True, exist_ok=True)
    records.write(folder, args.size)
    results = Results(records, plan)
    for name, block in results.blocks().items():
        replace_block(page, f"{args.size}-{name}", block)
    figures = {"curves": curves(results), "examples": examples(plan, out)}
    for name, figure in figures.items():
        if figure:
            with atomic_write(folder / f"{args.size}-{name}.png") as path:
                figure.savefig(path, format="png", dpi=110)


class Results:
    """The recorded runs of a plan as Markdown tables.

    Attributes:
        rows: The rows that have a run, in the order of the plan.
        baselines: The baselines without training that have been measured.
        tables: The groups of questions, one for each table of comparisons.
    """

    def __init__(self, records: Records, plan: Plan):
        self.records, self.plan = records, plan
        self.rows = [row for row in plan.rows if records.of(row.name)]
        self.baselines = [name for name in BASELINES if records.of(name)]
        asked = {row.question for row in plan.rows}
        self.tables = [questions for questions in TABLES if asked.intersection(questions)]

    def blocks(self) -> dict[str, str]:
        """Return the tables by the names of their markers in the page."""
        return {
            **{questions[0]: self.comparison(*questions) for questions in self.tables},
            "sets": self.test_sets(),
            "robustness": self.robustness(),
        }

    def of_questions(self, *questions: str) -> list[Row]:
        """Return the first row and the rows that are compared with it."""
        return [self.rows[0], *(row for row in self.rows if row.question in questions)]

    def comparison(self, *questions: str) -> str:
        """Compare rows with the first one, on splices of the training stage."""
        first = self.rows[0].name
        lines = [
            "| | parameters (M) | F1 | per seed | AUC | IoU | difference in F1 |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in self.of_questions(*questions):
            change = "" if row.name == first else self.difference(first, row.name)
            size = f"{_parameters(self.plan, row) / 1e6:.2f}"
            lines.append(f"| {row.name} | {size} | {self.on_splices(row.name)} | {change} |")
        if "baseline" in questions:
            for name in self.baselines:
                lines.append(f"| *{TITLES[name]}* | 0 | {self.on_splices(name)} | |")
        return "\n".join(lines) + "\n"

    def on_splices(self, row: str) -> str:
        """Return the cells of a row: F1 with its interval, F1 per seed, AUC and IoU.

        The seeds are named if they are not those of the first row.
        """
        runs, seeds = self.records.of(row), self.records.seeds(row)
        f1, (low, high) = mean_and_interval([_f1(run) for run in runs])
        each = ", ".join(f"{np.mean(_f1(run)):.3f}" for run in runs) if len(runs) > 1 else ""
        if seeds not in (self.records.seeds(self.rows[0].name), [UNSEEDED]):
            each += f" (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))})"
        means = [mean([run.sets[SPLICES][metric] for run in runs]) for metric in ("auc", "iou")]
        auc, iou = (f"{value:.3f}" for value in means)
        return f"{f1:.3f} [{low:.3f}, {high:.3f}] | {each.strip()} | {auc} | {iou}"

    def difference(self, first: str, other: str) -> str:
        """Return the paired difference in F1 over the common seeds, with its interval."""
        runs = self.records.runs
        seeds = set(self.records.seeds(first)) & set(self.records.seeds(other))
        if not seeds:
            return "no common seed"
        columns = [[_f1(runs[row, seed]) for seed in sorted(seeds)] for row in (first, other)]
        result = paired_bootstrap(*(np.mean(seeds_f1, axis=0).tolist() for seeds_f1 in columns))
        low, high = result["interval"]
        per_seed = np.mean(columns[1], axis=1) - np.mean(columns[0], axis=1)
        text = f"{result['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
        if low <= 0 <= high:
            text += "; includes 0"
        elif per_seed.min() < 0 < per_seed.max():
            text += "; seeds disagree"
        return text + "; one seed" * (len(seeds) == 1)

    def test_sets(self) -> str:
        """Return F1 of every row on every test set, and the authentic pixels that it marks."""
        synthetic = [SPLICES, *STAGES]
        tested = {name for run in self.records.of(self.rows[0].name) for name in run.sets}
        names = [*synthetic, *sorted(tested - {*synthetic, AUTHENTIC})]
        lines = [
            f"| F1 | {' | '.join(names)} | authentic pixels marked |",
            "|---" * (len(names) + 2) + "|",
        ]
        for row in [*(row.name for row in self.rows), *self.baselines]:
            title = f"*{TITLES[row]}*" if row in TITLES else row
            cells = [_format(self.over_seeds(row, name, "f1"), "{:.3f}") for name in names]
            marked = _format(self.over_seeds(row, AUTHENTIC, "marked"), "{:.1%}")
            lines.append(f"| {title} | {' | '.join(cells)} | {marked} |")
        return "\n".join(lines) + "\n"

    def over_seeds(self, row: str, name: str, metric: str) -> float | None:
        """Average a row's runs on a test set; None if no run was tested on it."""
        sets = [run.sets[name] for run in self.records.of(row) if name in run.sets]
        return mean([values[metric] for values in sets])

    def robustness(self) -> str:
        """Return F1 of the first row for every attack and level."""
        if not self.records.robust:
            return "Not measured yet.\n"
        points = {}
        for attack, level, f1 in self.records.robust:
            points.setdefault(attack, []).append(f"{level:g}: {f1:.3f}" if level else f"{f1:.3f}")
        lines = [f"| {attack} | {', '.join(levels)} |" for attack, levels in points.items()]
        return "\n".join(["| attack | level: F1 |", "|---|---|", *lines]) + "\n"


def _f1(run) -> list[float]:
    """Return F1 of the splices, sorted by name."""
    return [values["f1"] for _, values in sorted(run.images.items())]


def _format(value: float | None, template: str) -> str:
    return "-" if value is None else template.format(value)


def _parameters(plan: Plan, row: Row) -> int:
    """Count the trainable parameters of a row's model."""
    build = MODELS.get(row.model)
    flags, _ = create_argparser(build).parse_known_args(plan.model_flags(row))
    return sum(p.numel() for p in build(**vars(flags)).parameters() if p.requires_grad)


if __name__ == "__main__":
    main()
