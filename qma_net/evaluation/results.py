"""Result files of one test set: ``<name>.json`` (means) and ``<name>.csv`` (a row per image)."""

import csv
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core.files import (
    ContentError,
    read_json_object,
    remove_temporary_files,
    safe_path,
    write_json,
    write_text,
)
from ..core.runs import Run, RunError, difference
from ..core.untrusted import file_stem, format_csv, plain_cell
from .attacks import Attack
from .distributed import DistributedContext
from .metrics import PIXEL, bootstrap_interval, image_metrics, mean
from .settings import EvaluationError

# The columns of the first version, and those that later versions added at the end.
FIRST_COLUMNS = ("name", "label", *PIXEL[:7], "score", "marked", "path")
COLUMNS = (*FIRST_COLUMNS, *PIXEL[7:], "type")
AVERAGED = ("pixel_f1", "permute_f1", "iou", "auc")  # Metrics of ``averages.json``.
ROW_FIELDS = ("name", "label", *PIXEL, "score", "marked", "path", "score_source")
LATER_SETTINGS = {"ignore_border": 0}  # Settings that are recorded only if they differ from these.

Row = dict[str, Any]  # The results of one image: COLUMNS, index and score_source.


def is_complete(folder: Path, name: str, header: dict) -> bool:
    """Check whether the result files of a test set (or attack) exist.

    Raises:
        EvaluationError: If their settings differ from ``header``.
    """
    path, table = (safe_path(folder, f"{name}.{suffix}") for suffix in ("json", "csv"))
    is_empty = table.is_file() and table.stat().st_size == 0  # After a power failure.
    if not path.is_file() or path.stat().st_size == 0 or is_empty:
        return False
    recorded = read_result(path).get("header")
    recorded = LATER_SETTINGS | recorded if isinstance(recorded, dict) else {}
    # Earlier versions did not record the content of the files.
    unknown = {"content_sha256"} - recorded.keys()
    wanted = {k: value for k, value in (LATER_SETTINGS | header).items() if k not in unknown}
    recorded = {key: recorded.get(key) for key in wanted}
    if recorded != wanted:
        raise EvaluationError(
            f"{path} is the result of a different evaluation ({difference(recorded, wanted)}); "
            "choose a different --out or delete the file"
        )
    return True


@contextmanager
def unfinished_rows(
    folder: Path, name: str, header: dict, context: DistributedContext, *, masks: Iterable[Path]
) -> Iterator[Run]:
    """Open the journal with the rows of a test set that is being evaluated.

    Each process has its own journal in a hidden folder. The caller must hold the lock of
    ``folder``. Rows of an interrupted evaluation with different settings are discarded. If no row
    remains, the files ``masks`` are deleted: they may be those of another model.
    """
    partial = unfinished_folder(folder, name)
    journal = f"{context.rank}.jsonl"
    identity = header | {"columns": COLUMNS}  # Rows from earlier versions lack some metrics.
    run = Run(
        partial,
        identity,
        key=("index",),
        required=ROW_FIELDS,
        journal=journal,
        contents="rows",
        shared=True,
    )
    if context.is_first:
        partial.mkdir(parents=True, exist_ok=True)
        for written in (folder, partial, masks_folder(folder, name)):
            remove_temporary_files(written)
        try:
            run.reload()
        except RunError:
            shutil.rmtree(partial)
            partial.mkdir()
        if not run.finished:
            for mask in masks:
                mask.unlink(missing_ok=True)
    context.wait()
    with run:
        yield run


def unfinished_folder(folder: Path, name: str) -> Path:
    """Return the folder with the rows of a test set that is being evaluated."""
    return safe_path(folder, f".{name}.unfinished")


def masks_folder(folder: Path, name: str) -> Path:
    """Return the folder with the saved masks of a test set."""
    return safe_path(folder, f"{name}_masks")


def mask_path(folder: Path, name: str, index: int, image: str, file_format: str) -> Path:
    """Return the file of an image's mask: ``<name>_masks/<index>_<stem>.<file_format>``."""
    stem = file_stem(Path(image).stem)
    return safe_path(masks_folder(folder, name), f"{index:06d}_{stem}.{file_format}")


def write_result(folder: Path, name: str, header: dict, rows: list[Row]) -> None:
    """Write the CSV file and then the JSON file, which marks the test set as complete."""
    write_text(safe_path(folder, f"{name}.csv"), format_csv(COLUMNS, rows))
    write_json(safe_path(folder, f"{name}.json"), {**summarize(rows), "header": header})


def read_result(path: Path) -> dict:
    """Read the JSON file of a test set.

    Raises:
        ContentError: If it is not a result file.
    """
    expected = "a result of qma-net evaluate or robust; choose a different --out or delete the file"
    return read_json_object(path, expected)


def summarize(rows: list[Row]) -> dict[str, Any]:
    """Compute the means of a test set with bootstrap intervals.

    Pixel-level metrics are averaged over tampered images, ``authentic_marked`` over authentic ones.
    ``types`` contains the means for each known manipulation type.
    """
    tampered = [row for row in rows if row["label"]]
    authentic = [row for row in rows if not row["label"]]
    values = {mean_name(key): [row[key] for row in tampered] for key in PIXEL}
    values["authentic_marked"] = [row["marked"] for row in authentic]
    return {
        **{name: mean(column) for name, column in values.items()},
        **image_metrics([row["score"] for row in rows], [row["label"] for row in rows]),
        "n_tampered": len(tampered),
        "n_authentic": len(authentic),
        "n_undefined": {
            name: sum(value is None for value in column) for name, column in values.items()
        },
        "intervals": {name: bootstrap_interval(column) for name, column in values.items()},
        "score_source": rows[0]["score_source"],
        **_summarize_types(tampered),
    }


def _summarize_types(rows: list[Row]) -> dict[str, dict]:
    """Compute the means of the tampered images of each manipulation type, if any is known."""
    types: dict[str, dict] = {}
    for kind in sorted({row["type"] for row in rows if row.get("type")}):
        alike = [row for row in rows if row.get("type") == kind]
        means = {mean_name(key): mean([row[key] for row in alike]) for key in PIXEL}
        types[kind] = {"n_tampered": len(alike), **means}
    return {"types": types} if types else {}


def average_levels(folder: Path, attacks: Sequence[Attack]) -> dict[str, dict]:
    """Average the results of each attack over its levels; add the clean result separately."""

    def means(stem: str) -> dict[str, Any]:
        result = read_result(folder / f"{stem}.json")
        return {key: result[key] for key in AVERAGED}

    averages = {"clean": means("clean")}
    for name in dict.fromkeys(attack.name for attack in attacks):
        levels = {
            str(attack.level): means(attack.stem) for attack in attacks if attack.name == name
        }
        averages[name] = {key: mean([level[key] for level in levels.values()]) for key in AVERAGED}
        averages[name]["levels"] = levels
    return averages


def mean_name(metric: str) -> str:
    """Return the JSON key of a metric's mean: ``pixel_f1`` for ``f1``, otherwise unchanged."""
    return "pixel_f1" if metric == "f1" else metric


def read_result_table(path: str | os.PathLike[str]) -> list[Row]:
    """Read the CSV file of a test set: numbers as floats, empty cells as None.

    Raises:
        ContentError: If it is not a result table.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows: list[Row] = list(csv.DictReader(file))
        for row in rows:
            for key in PIXEL[7:]:
                row.setdefault(key, None)  # A table from an earlier version lacks these.
            for key in (*PIXEL, "score", "marked", "label"):
                row[key] = float(row[key]) if row[key] else None
                if row[key] is not None and not math.isfinite(row[key]):
                    raise ValueError(f"{key} is {row[key]} in the row of {row['name']}")
            if not row["path"] or not row["name"]:
                raise ValueError("a row has no path or no name")
            row |= {key: plain_cell(row[key]) for key in ("path", "name")}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ContentError(
            f"{path} is not the CSV file of a result of qma-net evaluate: {error}"
        ) from None
    return rows


def format_means(folder: Path, names: Sequence[str], first_column: str = "test set") -> str:
    """Format the means in the files ``<name>.json`` as an aligned table for a terminal."""
    head = (first_column, "images", "F1", "permute-F1", "IoU", "AUC", "authentic marked")
    keys = ("pixel_f1", "permute_f1", "iou", "auc", "authentic_marked", "image_auc")
    rows: list[tuple[str, ...]] = [(*head, "image AUC")]
    for name in names:
        result = read_result(folder / f"{name}.json")
        means = ["-" if result[key] is None else f"{result[key]:.3f}" for key in keys]
        rows.append((name, str(result["n_tampered"] + result["n_authentic"]), *means))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    )
