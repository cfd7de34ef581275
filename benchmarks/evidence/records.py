"""Results of all runs in four CSV files, the raw data of docs/evidence.md.

- ``<size>-runs.csv``: per run and test set, the means over its images;
- ``<size>-images.csv``: per run and splice, the values that are compared;
- ``<size>-curves.csv``: the mask loss during training;
- ``<size>-robust.csv``: F1 on the splices after every attack, for one run of the first row.

The files collect runs from several days and machines; a new run replaces a recorded one with the
same row and seed. Baselines without training are runs without a seed.
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
from qma_net.evaluation.results import read_result_table
from qma_net.report.benco_logs import read_curves
from qma_net.synth.recipe import AUTHENTIC

from .baselines import BASELINES
from .plan import SPLICES, STAGES, Plan
from .runner import read_mask

IMAGE_METRICS = ("f1", "iou", "auc")
SET_METRICS = (*IMAGE_METRICS, "marked")
UNSEEDED = -1  # The seed of baselines without training.


@dataclass
class Run:
    """The results of a row's model with one seed.

    Attributes:
        sets: Per test set, the number of ``images`` and the means of :data:`SET_METRICS`.
        images: Per splice, by name, the values of :data:`IMAGE_METRICS`; None if undefined.
        curve: Pairs of epoch and mask loss.
    """

    sets: dict[str, dict[str, float | None]] = field(default_factory=dict)
    images: dict[str, dict[str, float | None]] = field(default_factory=dict)
    curve: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Records:
    """All recorded results.

    Attributes:
        runs: By row and seed.
        robust: Attack, level and F1; the attack is "none" for the clean images.
    """

    runs: dict[tuple[str, int], Run] = field(default_factory=dict)
    robust: list[tuple[str, float, float]] = field(default_factory=list)

    def seeds(self, row: str) -> list[int]:
        """Return the recorded seeds of a row."""
        return sorted(seed for name, seed in self.runs if name == row)

    def of(self, row: str) -> list[Run]:
        """Return a row's runs, sorted by seed."""
        return [self.runs[row, seed] for seed in self.seeds(row)]

    def add(self, row: str, seed: int, run: Run) -> None:
        """Add or replace a run.

        Raises:
            QMANetError: If it was tested on other images than the recorded runs.
        """
        for (other, _), known in self.runs.items():
            if known.images.keys() != run.images.keys():
                raise QMANetError(
                    f"{row} was tested on {len(run.images)} splices that differ from those of "
                    f"{other} (other photos?); choose another --docs"
                )
        self.runs[row, seed] = run

    @classmethod
    def read(cls, folder: Path, size: str) -> "Records":
        """Read the CSV files in a folder; missing files are empty."""
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
        """Write the four CSV files."""
        runs, images, curves = [], [], []
        for (row, seed), run in sorted(self.runs.items()):
            key = (row, "" if seed == UNSEEDED else seed)
            for name, values in sorted(run.sets.items()):
                runs.append([*key, name, int(values["images"]), *_texts(values, SET_METRICS)])
            for name, values in sorted(run.images.items()):
                images.append([*key, name, *_texts(values, IMAGE_METRICS)])
            curves += [[*key, f"{epoch:.4f}", f"{loss:.4f}"] for epoch, loss in run.curve]
        robust = [[attack, f"{level:g}", f1] for attack, level, f1 in self.robust]
        for name, head, lines in (
            ("runs", ["row", "seed", "set", "images", *SET_METRICS], runs),
            ("images", ["row", "seed", "image", *IMAGE_METRICS], images),
            ("curves", ["row", "seed", "epoch", "seg_loss"], curves),
            ("robust", ["attack", "level", "f1"], robust),
        ):
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([head, *lines])
            write_text(folder / f"{size}-{name}.csv", text.getvalue())


def collect(records: Records, out: Path, plan: Plan) -> None:
    """Add the complete runs in ``out``, and the baselines on the same images."""
    for row in plan.rows:
        for folder in sorted((out / row.folder).glob("*/evaluate")):
            tables = {path.stem: read_result_table(path) for path in sorted(folder.glob("*.csv"))}
            if {SPLICES, *STAGES, AUTHENTIC} <= tables.keys():
                run = _run(tables)
                run.curve = _curve(folder.parent)
                records.add(row.name, int(folder.parent.name), run)
    for sets in list(out.glob(f"{plan.rows[0].folder}/*/sets.json"))[:1]:
        listings = read_listings(sets)
        for name, baseline in BASELINES.items():
            tables = {listing.name: list(_measure(baseline, listing)) for listing in listings}
            records.add(name, UNSEEDED, _run(tables))
    for folder in sorted(out.glob(f"{plan.rows[0].folder}/*/robust/{SPLICES}"))[:1]:
        if (folder / "averages.json").is_file():
            records.robust = list(_attacked(folder))


def _run(tables: dict[str, list[dict]]) -> Run:
    run = Run()
    for name, rows in tables.items():
        run.sets[name] = {"images": len(rows)}
        run.sets[name] |= {metric: mean([row[metric] for row in rows]) for metric in SET_METRICS}
    run.images = {row["name"]: {key: row[key] for key in IMAGE_METRICS} for row in tables[SPLICES]}
    return run


def _curve(folder: Path) -> list[tuple[float, float]]:
    curves = read_curves([folder], [])
    return curves[0].series.get("train_loss/seg_loss", []) if curves else []


def _measure(baseline, listing: Listing) -> Iterable[dict]:
    for pair in listing.pairs:
        rgb = read_rgb(pair.image)
        truth = read_mask(pair.mask, rgb.shape[:2])
        yield pixel_metrics(baseline(rgb), truth) | {"name": pair.image.name}


def _attacked(folder: Path) -> Iterable[tuple[str, float, float]]:
    clean = read_json_object(folder / "clean.json", "a result")
    yield "none", 0, round(clean["pixel_f1"], 4)
    for attack in read_attacks():
        result = read_json_object(folder / f"{attack.stem}.json", "a result")
        yield attack.name, attack.level, round(result["pixel_f1"], 4)


def _lines(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def _texts(values: dict[str, float | None], keys: Iterable[str]) -> list[str]:
    return ["" if values[key] is None else f"{values[key]:.4f}" for key in keys]
