"""Test small models on one half of the real images: tables per test set and manipulation type.

    python -m benchmarks.evidence.real --real DIR... [--authentic DIR...] --out DIR
        --checkpoint OLD [NEW] [--half validation]

``docs/evidence/real-split.csv`` assigns every image to a half. The half ``validation`` may guide
choices, such as thresholds and the formula of the image score; ``test`` is evaluated only when
all choices are made. The split is by SHA-256 of the files, and variants of one photo are in the
same half.

``OUT/results`` contains the evaluation of ``qma-net evaluate --native --save-masks``, which resumes
after an interruption. ``OUT/tables.md`` has F1 with bootstrap intervals, the paired difference
between the first and the last checkpoint, and the AUC of several image scores; ``OUT/images.csv``
lists all images, and ``OUT/roc.png`` shows the ROC curves of the last checkpoint.
"""

import argparse
import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from qma_net.core.errors import QMANetError
from qma_net.core.files import atomic_write, sha256, write_text
from qma_net.core.images import find_images, read_rgb
from qma_net.data.listing import NEGATIVE, read_listings
from qma_net.evaluation.evaluate import evaluate, result_folders
from qma_net.evaluation.metrics import (
    RankingCurve,
    bootstrap_interval,
    f1_of,
    mean,
    paired_bootstrap,
)
from qma_net.evaluation.results import read_result_table
from qma_net.evaluation.settings import Settings
from qma_net.modeling.qma_net import image_score

from .figures import Curves, roc_curves
from .runner import ROOT, read_mask, write_list

SPLIT = ROOT / "docs/evidence/real-split.csv"
HALVES = ("validation", "test")
LEVELS = np.linspace(0, 1, 501)  # Thresholds of the curves.
CURVE = "share above"  # Field of a row.
Row = dict  # A row of `qma-net evaluate`, with its set and manipulation type.


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", nargs="+", type=Path, required=True)
    parser.add_argument("--authentic", nargs="*", type=Path, default=[])
    parser.add_argument("--limit", type=int, default=100, help="photos per authentic folder")
    parser.add_argument("--checkpoint", nargs="+", required=True)
    parser.add_argument("--half", choices=HALVES, default=HALVES[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    authentic = {
        folder.name: in_order_of_hash(find_images(folder))[: args.limit]
        for folder in args.authentic
    }
    models = {path: path for path in args.checkpoint}
    print(compare(args.real, authentic, args.half, models, args.out))


def compare(
    real: Sequence[Path],
    authentic: Mapping[str, Sequence[Path]],
    half: str,
    checkpoints: Mapping[str, str],
    out: Path,
) -> str:
    """Evaluate models on a half of the real images and on authentic photos; write the results.

    Args:
        real: Folders of the test sets.
        authentic: Authentic photos by the name of their group.
        half: ``"validation"`` or ``"test"``.
        checkpoints: The models by title; the last one is compared with the first.
        out: Output folder.

    Returns:
        The tables in Markdown.
    """
    assigned = read_split(SPLIT)
    sets = {folder.name: half_of(folder, half, assigned) for folder in real}
    negatives = {
        name: [[str(photo.resolve()), NEGATIVE] for photo in photos]
        for name, photos in authentic.items()
    }
    lists = {
        name: str(write_list(out.resolve() / "lists" / f"{name}.json", rows))
        for name, rows in {**sets, **negatives}.items()
    }
    tests = write_list(out / "sets.json", lists)
    results, native = out / "results", Settings(fit="native")
    paths = list(checkpoints.values())
    evaluate(paths, [tests], results, settings=native, workers=0, save_masks="npy")
    models = {
        title: read_rows(folder, lists, assigned)
        for title, folder in zip(checkpoints, result_folders(paths, results).values(), strict=True)
    }
    trivial = {image: f1_of_everything(mask) for pairs in sets.values() for image, mask in pairs}
    text = "\n".join(
        [
            f"Half: {half}. Threshold 0.5, original size.\n",
            *localization(models, trivial),
            "",
            *marked(models),
            "",
            *image_scores(models),
        ]
    )
    write_text(out / "tables.md", text + "\n")
    write_text(out / "images.csv", as_csv(models))
    if any(negatives.values()):
        with atomic_write(out / "roc.png") as path:
            roc_curves(*curves_of(list(models.values())[-1])).savefig(path, format="png", dpi=110)
    return text


def read_split(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Read the split, by test set and SHA-256 of the image."""
    with open(path, encoding="utf-8", newline="") as file:
        return {(row["set"], row["sha256"]): row for row in csv.DictReader(file)}


def half_of(folder: Path, half: str, assigned: dict) -> list[list[str]]:
    """List the pairs of a test set that belong to a half.

    Raises:
        QMANetError: If an image is not in the split.
    """
    pairs = []
    for pair in read_listings(folder)[0].pairs:
        row = assigned.get((folder.name, sha256(pair.image)))
        if row is None:
            raise QMANetError(f"{pair.image} is not in {SPLIT}; assign it to a half first")
        if row["half"] == half:
            pairs.append([str(pair.image.resolve()), str(pair.mask.resolve())])
    return pairs


def read_rows(folder: Path, lists: Mapping[str, str], assigned: dict) -> list[Row]:
    """Read the results of a checkpoint, with the image scores and curves of its masks."""
    types = {(row["set"], row["image"]): row["type"] for row in assigned.values()}
    rows = []
    for name, pairs in lists.items():
        masks = sorted((folder / f"{name}_masks").glob("*.npy"))  # Numbered like the rows.
        truths = [truth for _, truth in json.loads(Path(pairs).read_text(encoding="utf-8"))]
        results = read_result_table(folder / f"{name}.csv")
        for row, file, truth in zip(results, masks, truths, strict=True):
            mask = np.load(file)
            tampered = read_mask(None if truth == NEGATIVE else truth, mask.shape)
            rows.append(
                row
                | {"set": name, "type": types.get((name, Path(row["path"]).name), "")}
                | {f"score: {title}": score(mask) for title, score in SCORES.items()}
                | {CURVE: share_above(mask[tampered] if tampered.any() else mask.ravel())}
            )
    return rows


def share_above(values: np.ndarray) -> np.ndarray:
    """Return the share of values above each threshold in :data:`LEVELS`, ``(len(LEVELS),)``."""
    ordered = np.sort(values)
    return 1 - np.searchsorted(ordered, LEVELS, side="right") / len(ordered)


def curves_of(rows: list[Row]) -> tuple[Curves, Curves]:
    """Return what :func:`.figures.roc_curves` draws: shares above each of :data:`LEVELS`, by set.

    Returns:
        Means over images of the share of tampered pixels that are marked, or of authentic pixels
        in authentic photos; and the share of images whose score is above the level.
    """
    names = dict.fromkeys((row["set"], bool(row["label"])) for row in rows)
    groups = {
        key: [row for row in rows if (row["set"], bool(row["label"])) == key] for key in names
    }
    pixels = {key: np.mean([row[CURVE] for row in group], axis=0) for key, group in groups.items()}
    images = {
        key: share_above(np.array([row[f"score: {USED}"] for row in group]))
        for key, group in groups.items()
    }
    return pixels, images


def localization(models: dict[str, list[Row]], trivial: dict[str, float]) -> list[str]:
    """Tabulate F1 and AUC of tampered images by test set and type, as lines of Markdown.

    Args:
        models: The results of every model.
        trivial: F1 of marking every pixel, by the path of the tampered image.
    """
    first, last = next(iter(models)), list(models)[-1]
    head = ["set", "images", "every pixel marked", *(f"F1, {name}" for name in models)]
    head += [*(f"AUC, {name}" for name in models), "difference in F1"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    groups = {
        (row["set"], kind) for row in models[first] if row["label"] for kind in ("", row["type"])
    }
    for name, kind in [*sorted(groups), ("all", "")]:
        members = {
            model: [
                row
                for row in rows
                if row["label"] and name in ("all", row["set"]) and kind in ("", row["type"])
            ]
            for model, rows in models.items()
        }
        baseline = mean([trivial[row["path"]] for row in members[first]])
        cells = [f"{name}, {kind}" if kind else name, str(len(members[first])), f"{baseline:.3f}"]
        cells += [_with_interval([row["f1"] for row in rows]) for rows in members.values()]
        cells += [f"{mean([row['auc'] for row in rows]):.3f}" for rows in members.values()]
        change = paired_bootstrap(
            *([row["f1"] for row in members[model]] for model in (first, last))
        )
        low, high = change["interval"]
        cells.append(f"{change['difference']:+.3f} [{low:+.3f}, {high:+.3f}]")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def marked(models: dict[str, list[Row]]) -> list[str]:
    """Tabulate the share of authentic pixels that are marked, as lines of Markdown."""
    lines = [
        f"| authentic photos | images | {' | '.join(models)} |",
        "|---" * (len(models) + 2) + "|",
    ]
    rows = next(iter(models.values()))
    for name in dict.fromkeys(row["set"] for row in rows if not row["label"]):
        shares = [
            [row["marked"] for row in rows if row["set"] == name and not row["label"]]
            for rows in models.values()
        ]
        cells = " | ".join(f"{mean(values):.2%}" for values in shares)
        lines.append(f"| {name} | {len(shares[0])} | {cells} |")
    return lines


def image_scores(models: dict[str, list[Row]]) -> list[str]:
    """Tabulate the AUC by which scores separate tampered from all authentic images."""
    lines = []
    for model, rows in models.items():
        negatives = [row for row in rows if not row["label"]]
        names = list(dict.fromkeys(row["set"] for row in rows if row["label"]))
        if not negatives:
            return []
        lines += [f"| image score, {model} | {' | '.join(names)} | mean |"]
        lines += ["|---" * (len(names) + 2) + "|"]
        for title in SCORES:
            areas = [
                _ranking([row for row in rows if row["set"] == name], negatives, title).roc_auc()
                for name in names
            ]
            cells = " | ".join(f"{area:.3f}" for area in [*areas, mean(areas)])
            lines.append(f"| {title} | {cells} |")
        lines.append("")
    return lines


def _ranking(positives: list[Row], negatives: list[Row], title: str) -> RankingCurve:
    return RankingCurve.of(
        np.array([row[f"score: {title}"] for row in positives + negatives]),
        np.array([True] * len(positives) + [False] * len(negatives)),
    )


def f1_of_everything(mask: str | os.PathLike[str]) -> float:
    """Return the F1 of marking every pixel of an image with this ground truth."""
    tampered = read_rgb(mask)[..., 0] > 127
    authentic = int(np.count_nonzero(~tampered))
    return f1_of(tampered.size - authentic, authentic, 0)


def _highest(mask: np.ndarray, share: float) -> float:
    """Return the mean of the given share of highest values."""
    count = max(1, int(share * mask.size))
    return float(np.partition(mask, -count, axis=None)[-count:].mean())


def _smoothed_maximum(mask: np.ndarray, parts: int) -> float:
    """Return the highest mean over any square whose side is 1/``parts`` of the shorter side."""
    side = max(1, round(min(mask.shape) / parts))
    return float(cv2.blur(mask, (side, side), borderType=cv2.BORDER_CONSTANT).max())


def _largest_region(mask: np.ndarray) -> float:
    """Return the sum of the largest marked region relative to the longest side squared."""
    count, labels = cv2.connectedComponents((mask > 0.5).astype(np.uint8))
    sums = np.bincount(labels.ravel(), weights=mask.ravel(), minlength=count)[1:]
    return float(sums.max(initial=0.0)) / max(mask.shape) ** 2


# Candidates for the image score, computed from a mask, and the one that the model returns.
USED = "square of 1/10 of the shorter side (used)"
SCORES: dict[str, Callable[[np.ndarray], float]] = {
    USED: lambda mask: float(image_score(torch.from_numpy(mask)[None, None])),
    "square of 1/6": lambda mask: _smoothed_maximum(mask, 6),
    "square of 1/16": lambda mask: _smoothed_maximum(mask, 16),
    "square of 1/32": lambda mask: _smoothed_maximum(mask, 32),
    "mean of the highest 1%": lambda mask: _highest(mask, 0.01),
    "mean of the highest 0.1%": lambda mask: _highest(mask, 0.001),
    "mean of the highest 5%": lambda mask: _highest(mask, 0.05),
    "mean": lambda mask: float(mask.mean()),
    "maximum": lambda mask: float(mask.max()),
    "share above 0.5": lambda mask: float((mask > 0.5).mean()),
    "largest region": _largest_region,
    "highest 1% minus mean": lambda mask: _highest(mask, 0.01) - float(mask.mean()),
}


def in_order_of_hash(photos: Iterable[Path]) -> list[Path]:
    """Sort files by their SHA-256: an order that says nothing about their content."""
    return sorted(photos, key=sha256)


def as_csv(models: dict[str, list[Row]]) -> str:
    """List F1, AUC and the marked share of every image by model, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = ("f1", "auc", "marked")
    names = [f"{metric}, {model}" for model in models for metric in metrics]
    writer.writerow(["set", "type", "image", *names])
    for rows in zip(*models.values(), strict=True):
        first = rows[0]
        values = [row[metric] for row in rows for metric in metrics]
        cells = ["" if value is None else f"{value:.4f}" for value in values]
        writer.writerow([first["set"], first["type"], Path(first["path"]).name, *cells])
    return text.getvalue()


def _with_interval(values: list[float]) -> str:
    low, high = bootstrap_interval(values)
    return f"{mean(values):.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
