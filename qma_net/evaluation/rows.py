"""The rows of one test set: kept one by one, read again, summed up."""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..core.files import (
    ContentError,
    open_journal,
    read_journal,
    read_json_object,
    remove_temporary_files,
    safe_path,
    write_text,
)
from .metrics import PIXEL, bootstrap_interval, image_metrics, mean
from .process import Process
from .settings import EvaluationError

COLUMNS = ("name", "label", *PIXEL, "score", "marked", "path")


class Rows:
    """The rows of one set: kept one by one while it runs, written whole when it is complete.

    Until then they are in the hidden folder ``.<stem>.unfinished``, a journal to a process.

    Args:
        folder: for ``<stem>.json`` and ``<stem>.csv``.
        stem: the set's name, or the attack's.
        header: everything that the numbers depend on; goes into the JSON.
        process: which of several this is.

    Raises:
        EvaluationError: when a result of another header is there.
    """

    def __init__(self, folder: Path, stem: str, header: dict, process: Process):
        self.result = safe_path(folder, f"{stem}.json")
        self.table = safe_path(folder, f"{stem}.csv")
        self.header = json.loads(json.dumps(header))
        self.process = process
        self.partial = safe_path(folder, f".{stem}.unfinished")
        self._known: dict[int, dict] = {}
        if self.finished():
            return
        if process.is_first:
            self.partial.mkdir(parents=True, exist_ok=True)
            remove_temporary_files(folder)
            for place in (self.partial, safe_path(folder, f"{stem}_masks")):
                remove_temporary_files(place)
            note = self.partial / "header.json"
            if note.is_file() and _read_result(note) != self.header:
                shutil.rmtree(self.partial)
                self.partial.mkdir()
            write_text(note, json.dumps(self.header))
        process.wait()
        self._known = self._read()

    def finished(self) -> bool:
        """Whether the result is there, of the same settings.

        Raises:
            EvaluationError: for a result of other settings.
        """
        if not self.result.is_file():
            return False
        found = _read_result(self.result).get("header")
        found = found if isinstance(found, dict) else {}
        differing = [key for key in self.header if found.get(key) != self.header[key]]
        if differing:
            key = differing[0]
            raise EvaluationError(
                f"got {self.result} of another evaluation ({key} {found.get(key)}), expected one "
                f"with {key} {self.header[key]}: give another --out, or delete it"
            )
        return True

    def has(self, indices: Iterable[int]) -> bool:
        """Whether the rows of all these images were kept by an earlier run."""
        return all(index in self._known for index in indices)

    @contextmanager
    def journal(self) -> Iterator[Callable[[dict], None]]:
        """Yields how to keep a row of this process; it is on disk as soon as it is kept."""
        with open_journal(self.partial / f"{self.process.rank}.jsonl") as add:
            yield add

    def finish(self) -> None:
        """Writes the CSV, then the JSON, and forgets the rest."""
        rows = [row for _, row in sorted(self._read().items())]
        write_text(self.table, as_csv(rows))
        result = {**summary(rows), "header": self.header}
        write_text(self.result, json.dumps(result, indent=1) + "\n")
        shutil.rmtree(self.partial)

    def _read(self) -> dict[int, dict]:
        """The rows of all processes by the image's index."""
        files = sorted(self.partial.glob("*.jsonl"))
        needed = ("index", *COLUMNS)
        return {row["index"]: row for file in files for row in read_journal(file, needed)}


def _read_result(path: Path) -> dict:
    expected = "a result of qma-net evaluate or robust: give another --out, or delete it"
    return read_json_object(path, expected)


def summary(rows: list[dict]) -> dict:
    """The means over one set's rows, with bootstrap intervals; authentic images apart."""
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
    }


def mean_name(key: str) -> str:
    """What the mean of a column is called in the JSON: ``pixel_f1`` of ``f1``, others alike."""
    return "pixel_f1" if key == "f1" else key


def as_csv(rows: list[dict]) -> str:
    """The rows as CSV text; undefined metrics are empty cells."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_rows(path: str | os.PathLike) -> list[dict]:
    """The rows of a set's CSV: numbers as floats, empty cells as None.

    Raises:
        ContentError: for what is no such table.
    """
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            for key in (*PIXEL, "score", "marked", "label"):
                row[key] = float(row[key]) if row[key] else None
            if not row["path"] or not row["name"]:
                raise ValueError("a row names no image")
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ContentError(
            f"got {path}, expected the table that its JSON was summed up from: {error}"
        ) from None
    return rows


def results_table(folder: Path, names: Sequence[str], of_what: str = "test set") -> str:
    """The means of result files ``<name>.json`` as a table for a terminal."""
    head = (of_what, "images", "F1", "permute-F1", "IoU", "AUC", "authentic marked", "image AUC")
    keys = ("pixel_f1", "permute_f1", "iou", "auc", "authentic_marked", "image_auc")
    rows = [head]
    for name in names:
        found = _read_result(folder / f"{name}.json")
        shown = ["-" if found[key] is None else f"{found[key]:.3f}" for key in keys]
        rows.append((name, str(found["n_tampered"] + found["n_authentic"]), *shown))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    )
