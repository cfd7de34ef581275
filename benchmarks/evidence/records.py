"""What the runs found, in tables that stay: the raw files of docs/evidence.md.

- ``<size>-runs.csv``: of every run and test set, the means over its images;
- ``<size>-images.csv``: of every run and splice, what the comparison is made of;
- ``<size>-curves.csv``: the mask's loss while a run was trained;
- ``<size>-robust.csv``: F1 on the splices after every attack, of one run of the first row.

Runs of several days and machines meet in them: what a folder holds takes the place of what was kept
of the same row and seed. What needs no training is a run without a seed.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from qma_net.core.errors import QMANetError
from qma_net.core.files import read_json_object, write_text
from qma_net.core.images import read_rgb
from qma_net.data.listing import Listing, read_listings
from qma_net.evaluation.attacks import read_attacks
from qma_net.evaluation.metrics import mean, pixel_metrics
from qma_net.evaluation.rows import read_rows
from qma_net.report.logs import read_curves
from qma_net.synth.curriculum import stages
from qma_net.synth.recipe import UNTOUCHED

from .baselines import BASELINES
from .plan import SPLICES, Plan
from .work import read_truth

OF_IMAGES = ("f1", "iou", "auc")
OF_SETS = (*OF_IMAGES, "marked")
UNSEEDED = -1  # what needs no training


@dataclass
class Run:
    """What is known of a row's model with a seed.

    Attributes:
        sets: per test set the number of its ``images``, and the means of :data:`OF_SETS`.
        images: of every splice by its name, :data:`OF_IMAGES`; None where undefined.
        curve: (epoch, the mask's loss).
    """

    sets: dict[str, dict[str, float | None]] = field(default_factory=dict)
    images: dict[str, dict[str, float | None]] = field(default_factory=dict)
    curve: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Records:
    """All runs by row and seed, and (attack, level, F1) with "none" for what was not attacked."""

    runs: dict[tuple[str, int], Run] = field(default_factory=dict)
    robust: list[tuple[str, float, float]] = field(default_factory=list)

    def seeds(self, row: str) -> list[int]:
        return sorted(seed for name, seed in self.runs if name == row)

    def of(self, row: str) -> list[Run]:
        """A row's runs, by their seeds."""
        return [self.runs[row, seed] for seed in self.seeds(row)]

    def add(self, row: str, seed: int, run: Run) -> None:
        """Raises :class:`QMANetError` for one that was tested on other images."""
        for (other, _), known in self.runs.items():
            if known.images.keys() != run.images.keys():
                raise QMANetError(
                    f"got {row} tested on {len(run.images)} splices that are not those of "
                    f"{other}, expected the same: made of other photographs? Give another --docs"
                )
        self.runs[row, seed] = run

    @classmethod
    def read(cls, folder: Path, size: str) -> "Records":
        """What was kept; nothing where there is nothing."""
        records = cls()
        for name in ("runs", "images", "curves"):
            for line in _lines(folder / f"{size}-{name}.csv"):
                key = line["row"], int(line["seed"] or UNSEEDED)
                run = records.runs.setdefault(key, Run())
                values = {
                    key: float(text) if text else None
                    for key, text in line.items()
                    if key not in ("row", "seed", "set", "image")
                }
                if name == "runs":
                    run.sets[line["set"]] = values
                elif name == "images":
                    run.images[line["image"]] = values
                else:
                    run.curve.append((values["epoch"], values["seg_loss"]))
        for line in _lines(folder / f"{size}-robust.csv"):
            records.robust.append((line["attack"], float(line["level"]), float(line["f1"])))
        return records

    def write(self, folder: Path, size: str) -> None:
        """All four tables, beside and renamed."""
        runs, images, curves = [], [], []
        for (row, seed), run in sorted(self.runs.items()):
            key = (row, "" if seed == UNSEEDED else seed)
            for name, values in sorted(run.sets.items()):
                runs.append([*key, name, int(values["images"]), *_texts(values, OF_SETS)])
            for name, values in sorted(run.images.items()):
                images.append([*key, name, *_texts(values, OF_IMAGES)])
            curves += [[*key, f"{epoch:.4f}", f"{loss:.4f}"] for epoch, loss in run.curve]
        for name, head, lines in (
            ("runs", ["row", "seed", "set", "images", *OF_SETS], runs),
            ("images", ["row", "seed", "image", *OF_IMAGES], images),
            ("curves", ["row", "seed", "epoch", "seg_loss"], curves),
            ("robust", ["attack", "level", "f1"], self.robust),
        ):
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([head, *lines])
            write_text(folder / f"{size}-{name}.csv", text.getvalue())


def collect(records: Records, out: Path, plan: Plan) -> None:
    """Adds what complete runs left in ``out``, and what needs no training on the same images."""
    for row in plan.rows:
        for folder in sorted((out / row.folder).glob("*/evaluate")):
            tables = {path.stem: read_rows(path) for path in sorted(folder.glob("*.csv"))}
            if {SPLICES, *stages(), UNTOUCHED} <= tables.keys():
                run = _run(tables)
                run.curve = _curve(folder.parent)
                records.add(row.name, int(folder.parent.name), run)
    for sets in list(out.glob(f"{plan.rows[0].folder}/*/sets.json"))[:1]:
        listings = read_listings(sets)
        for name, baseline in BASELINES.items():
            tables = {one.name: list(_measured(baseline, one)) for one in listings}
            records.add(name, UNSEEDED, _run(tables))
    for folder in sorted(out.glob(f"{plan.rows[0].folder}/*/robust/{SPLICES}"))[:1]:
        if (folder / "averages.json").is_file():
            records.robust = list(_attacked(folder))


def _run(tables: dict[str, list[dict]]) -> Run:
    run = Run()
    for name, rows in tables.items():
        run.sets[name] = {"images": len(rows)}
        run.sets[name] |= {metric: mean([row[metric] for row in rows]) for metric in OF_SETS}
    run.images = {row["name"]: {key: row[key] for key in OF_IMAGES} for row in tables[SPLICES]}
    return run


def _curve(folder: Path) -> list[tuple[float, float]]:
    found = read_curves([folder], [])
    return found[0].series.get("train_loss/seg_loss", []) if found else []


def _measured(baseline, listing: Listing) -> Iterable[dict]:
    for pair in listing.pairs:
        rgb = read_rgb(pair.image)
        truth = read_truth(pair.mask, rgb.shape[:2])
        yield pixel_metrics(baseline(rgb), truth) | {"name": pair.image.name}


def _attacked(folder: Path) -> Iterable[tuple[str, float, float]]:
    clean = read_json_object(folder / "clean.json", "a result")
    yield "none", 0, round(clean["pixel_f1"], 4)
    for attack in read_attacks():
        found = read_json_object(folder / f"{attack.stem}.json", "a result")
        yield attack.name, attack.level, round(found["pixel_f1"], 4)


def _lines(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    return list(csv.DictReader(io.StringIO(path.read_text())))


def _texts(values: dict[str, float | None], keys: Iterable[str]) -> list[str]:
    return ["" if values[key] is None else f"{values[key]:.4f}" for key in keys]
