"""The tables and pictures of docs/evidence.md, from what :mod:`benchmarks.evidence` left behind.

    python -m benchmarks.evidence.page [cpu|gpu] [--out DIR] [--docs docs/evidence.md]

In the page, what stands between ``<!-- NAME -->`` and ``<!-- end -->`` is replaced. Beside it, in
``evidence/``: pictures, ``<size>-runs.csv`` with a line per run and test set, and
``<size>-images.csv`` with the F1 of every splice.

Intervals are of 95 %. A mean's is over the images, drawn anew for every seed; a difference's is
paired: per image the mean over the seeds that both rows have, images drawn anew. Neither sees how
far apart the seeds are: the F1 of every seed stands beside.
"""

import argparse
import csv
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from IMDLBenCo.registry import MODELS
from IMDLBenCo.training_scripts.utils.misc import create_argparser

from qma_net.data.listing import read_listings
from qma_net.evaluation.attacks import read_attacks
from qma_net.evaluation.metrics import mean_and_interval, paired_bootstrap, pixel_metrics
from qma_net.evaluation.rows import read_rows
from qma_net.files import read_object, write_text, written_beside
from qma_net.pictures import read_rgb
from qma_net.synth.curriculum import stages
from qma_net.synth.recipe import UNTOUCHED

from . import models  # noqa: F401  (registers them)
from .baselines import BASELINES
from .figures import curves, examples
from .plan import SPLICES, Plan, Row


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("size", nargs="?", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--out", default="", help="default runs/evidence/<size>")
    parser.add_argument("--docs", help="default OUT/evidence.md")
    args = parser.parse_args(argv)
    out = Path(args.out or f"runs/evidence/{args.size}")
    results = Results(out, Plan.read(args.size))
    page = Path(args.docs or out / "evidence.md")
    beside = page.parent / page.stem
    beside.mkdir(exist_ok=True)
    blocks = {
        f"{args.size}-idea": results.comparison("idea"),
        f"{args.size}-reading": results.comparison("reading"),
        f"{args.size}-sets": results.test_sets(),
        f"{args.size}-robustness": results.robustness(),
    }
    text = page.read_text() if page.is_file() else ""
    for name, block in blocks.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.S)
        if not pattern.search(text):
            text += f"\n<!-- {name} -->\n<!-- end -->\n"
        text = pattern.sub(lambda found, block=block: found[1] + block + found[2], text)
    write_text(page, text)
    write_text(beside / f"{args.size}-runs.csv", results.runs_csv())
    write_text(beside / f"{args.size}-images.csv", results.images_csv())
    for name, figure in (("curves", curves(results)), ("examples", examples(results))):
        with written_beside(beside / f"{args.size}-{name}.png") as path:
            figure.savefig(path, format="png", dpi=110)


class Results:
    """What is there of a plan.

    Attributes:
        rows: those with a complete run; the first of the plan first.
        found: per row, seed and test set, the rows of ``qma-net evaluate``.
    """

    def __init__(self, out: Path, plan: Plan):
        self.out, self.plan = out, plan
        self.found = {}
        for row in plan.rows:
            for folder in sorted((out / row.folder).glob("*/evaluate")):
                tables = {path.stem: read_rows(path) for path in sorted(folder.glob("*.csv"))}
                if {SPLICES, *stages(), UNTOUCHED} <= tables.keys():
                    self.found.setdefault(row.name, {})[int(folder.parent.name)] = tables
        self.rows = [row for row in plan.rows if row.name in self.found]
        self.baselines = _baselines(out)

    def folder(self, row: Row, seed: int) -> Path:
        return self.out / row.folder / str(seed)

    def seeds(self, row: str) -> list[int]:
        return sorted(self.found[row])

    def values(self, row: str, name: str, metric: str) -> list[list[float]]:
        """Of a test set's images, a list per seed that was tested on it."""
        if row in self.baselines:
            return [[one[metric] for one in self.baselines[row][name]]]
        return [
            [one[metric] for one in tables[name]]
            for _, tables in sorted(self.found[row].items())
            if name in tables
        ]

    def comparison(self, question: str) -> str:
        """The rows of a question beside the first, on splices of the stage that was trained on."""
        first = self.rows[0].name
        lines = [
            "| | parameters (M) | F1 | of each seed | AUC | IoU | F1 less that of the first |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in [self.rows[0], *(one for one in self.rows if one.question == question)]:
            f1 = self.values(row.name, SPLICES, "f1")
            cells = [row.name, f"{_parameters(self.plan, row) / 1e6:.2f}", _interval(f1)]
            cells += [", ".join(f"{np.mean(one):.3f}" for one in f1)]
            cells += [_mean(self.values(row.name, SPLICES, metric)) for metric in ("auc", "iou")]
            cells += ["" if row.name == first else self.difference(first, row.name)]
            lines.append(f"| {' | '.join(cells)} |")
        if question == "idea":
            for name in BASELINES:
                values = {m: self.values(name, SPLICES, m) for m in ("f1", "auc", "iou")}
                cells = [f"*{name}*", "0", _interval(values["f1"]), ""]
                cells += [_mean(values["auc"]), _mean(values["iou"]), ""]
                lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def difference(self, first: str, other: str) -> str:
        """Paired, over the seeds that both have; an interval with zero in it is said to touch."""
        seeds = sorted(set(self.seeds(first)) & set(self.seeds(other)))
        of_images = [
            np.mean(
                [[one["f1"] for one in self.found[row][seed][SPLICES]] for seed in seeds], 0
            ).tolist()
            for row in (first, other)
        ]
        found = paired_bootstrap(*of_images)
        low, high = found["interval"]
        between = [
            np.mean([one["f1"] for one in self.found[other][seed][SPLICES]])
            - np.mean([one["f1"] for one in self.found[first][seed][SPLICES]])
            for seed in seeds
        ]
        text = f"{found['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
        if low <= 0 <= high:
            return f"{text}, touches 0"
        if min(between) < 0 < max(between):
            return f"{text}, seeds disagree"
        return text

    def test_sets(self) -> str:
        """F1 of every row on every test set, and what it marks of untouched images."""
        every = {name for tables in self.found[self.rows[0].name].values() for name in tables}
        names = [SPLICES, *stages(), *sorted(every - {SPLICES, *stages(), UNTOUCHED})]
        lines = [
            f"| F1 | {' | '.join(names)} | untouched, marked |",
            "|---" * (len(names) + 2) + "|",
        ]
        for row in [*(one.name for one in self.rows), *BASELINES]:
            shown = f"*{row}*" if row in BASELINES else row
            cells = [_mean(self.values(row, name, "f1")) for name in names]
            marked = 100 * float(_mean(self.values(row, UNTOUCHED, "marked"), 5))
            lines.append(f"| {shown} | {' | '.join(cells)} | {marked:.1f} % |")
        return "\n".join(lines) + "\n"

    def runs_csv(self) -> str:
        """A line per run and test set: means over its images."""
        head = ["row", "seed", "set", "images", "f1", "iou", "auc", "marked"]
        lines = []
        for row in self.rows:
            for seed, tables in sorted(self.found[row.name].items()):
                for name, images in tables.items():
                    metrics = [_mean([[one[m] for one in images]], 4) for m in head[4:]]
                    lines.append([row.name, seed, name, len(images), *metrics])
        return _csv([head, *lines])

    def images_csv(self) -> str:
        """A line per splice, a column per run: F1."""
        runs = [(row.name, seed) for row in self.rows for seed in self.seeds(row.name)]
        tables = [self.found[row][seed][SPLICES] for row, seed in runs]
        lines = [["image", *(f"{row}, {seed}" for row, seed in runs)]]
        for i, image in enumerate(tables[0]):
            lines.append([image["name"], *(f"{table[i]['f1']:.4f}" for table in tables)])
        return _csv(lines)

    def robustness(self) -> str:
        """F1 of the first row under every attack, level by level."""
        folder = self.robust_folder / SPLICES
        if not folder.is_dir():
            return "Not measured yet.\n"
        clean = read_object(folder / "clean.json", "a result")["pixel_f1"]
        points = {}
        for attack in read_attacks():
            f1 = read_object(folder / f"{attack.stem}.json", "a result")["pixel_f1"]
            points.setdefault(attack.name, []).append(f"{attack.level}: {f1:.3f}")
        lines = ["| attack | level: F1 |", "|---|---|", f"| none | {clean:.3f} |"]
        return (
            "\n".join(lines + [f"| {n} | {', '.join(one)} |" for n, one in points.items()]) + "\n"
        )

    @property
    def robust_folder(self) -> Path:
        first = self.rows[0]
        return self.folder(first, self.seeds(first.name)[0]) / "robust"


def _baselines(out: Path) -> dict[str, dict[str, list[dict]]]:
    """Metrics of what needs no training, by baseline and test set; kept in ``baselines.json``."""
    kept = out / "baselines.json"
    if not kept.is_file():
        found = {}
        listings = read_listings(next(out.glob("*/*/sets.json")))
        for name, baseline in BASELINES.items():
            found[name] = {one.name: list(_measured(baseline, one.pairs)) for one in listings}
        write_text(kept, json.dumps(found))
    return json.loads(kept.read_text())


def _measured(baseline, pairs) -> Iterable[dict]:
    for pair in pairs:
        rgb = read_rgb(pair.image)
        truth = read_rgb(pair.mask)[..., 0] > 127 if pair.mask else np.zeros(rgb.shape[:2], bool)
        yield pixel_metrics(baseline(rgb), truth)


def _parameters(plan: Plan, row: Row) -> int:
    """Trained parameters of a row's model."""
    build = MODELS.get(row.model)
    flags, _ = create_argparser(build).parse_known_args(plan.model_flags(row))
    return sum(p.numel() for p in build(**vars(flags)).parameters() if p.requires_grad)


def _mean(columns: list[list[float | None]], decimals: int = 3) -> str:
    values = [v for column in columns for v in column if v is not None]
    return f"{np.mean(values):.{decimals}f}" if values else "-"


def _interval(columns: list[list[float]]) -> str:
    mean, (low, high) = mean_and_interval(columns)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _csv(lines: list[list]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


if __name__ == "__main__":
    main()
