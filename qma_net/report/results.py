"""What a report is made of: result files found in folders, and which run each belongs to.

A run is one checkpoint under one set of settings. Files are known by what they hold, not by where
they lie: the results of ``evaluate`` and ``robust`` by their ``header``, the report of ``data
prepare``, what ``data check --json`` printed, BenCo's complexity logs by name (``complexity*.txt``
or ``.log``), and the curves of BenCo's logs.
"""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from ..core.errors import QMANetError
from ..core.files import ContentError, read_object
from ..evaluation.rows import read_rows
from ..modeling.config import Preprocessing, QMANetConfig
from ..modeling.losses import DICE_SMOOTHING, EDGE_WEIGHT, MASK_WEIGHT
from . import shapes
from .complexity import COMPLEXITY, Complexity, read_complexity
from .logs import EVENTS, Curves, read_curves, read_sweeps
from .paper import normalised_name, paper_set

# The settings that Tables 2 and 9 vary; whatever else differs is another model to compare with.
ABLATED = ("dfcm_stages", "decode_levels", "decoder", "query_count")

# The paper's model as flags of BenCo's scripts.
AS_PAPER = Preprocessing()
DEFAULTS = asdict(QMANetConfig()) | {
    "alpha": MASK_WEIGHT,
    "beta": EDGE_WEIGHT,
    "dice_smoothing": DICE_SMOOTHING,
    "gradient_checkpointing": 0,
}


class ReportError(QMANetError):
    """Folders that no report can be made of; one line says got, expected and remedy."""


@dataclass
class Result:
    """One model on one test set: a JSON of ``evaluate`` or ``robust``, and the CSV beside it.

    ``summary`` is the JSON. The CSV is read when it is needed.
    """

    path: Path
    summary: dict

    @property
    def header(self) -> dict:
        """What was evaluated, and how."""
        return self.summary["header"]

    @property
    def set(self) -> str:
        """The test set, by the paper's name where it is one of the paper's."""
        return paper_set(self.header["set"]) or self.header["set"]

    @property
    def attack(self) -> tuple[str, int] | None:
        """Its name and level; None for photographs as they are."""
        attack = self.header.get("attack")
        return (attack["name"], attack["level"]) if attack else None

    @cached_property
    def rows(self) -> list[dict]:
        """The images' rows; none where the CSV is not there."""
        table = self.path.with_suffix(".csv")
        return read_rows(table) if table.is_file() else []

    def values(self, metric: str) -> dict[str, float]:
        """A metric of every image that has it, by the image's path."""
        key = "f1" if metric == "pixel_f1" else metric
        return {row["path"]: row[key] for row in self.rows if row[key] is not None}


@dataclass
class Run:
    """All results of one checkpoint under one set of settings.

    ``clean`` by test set, ``attacked`` by test set, then (attack, level). ``label`` tells runs
    of a report apart: empty for the paper's model at the paper's size.
    """

    header: dict
    clean: dict[str, Result] = field(default_factory=dict)
    attacked: dict[str, dict[tuple[str, int], Result]] = field(default_factory=dict)
    label: str = ""

    @property
    def model(self) -> str:
        """Its name in BenCo's registry."""
        return self.header["model"]

    @property
    def is_ours(self) -> bool:
        """Whether it is a QMA-Net, of any configuration."""
        return self.model == "QMANet"

    @property
    def setting(self) -> dict[str, str]:
        """The values of what Tables 2 and 9 vary."""
        return setting_of(self.header["model_flags"]) if self.is_ours else {}

    @property
    def is_default(self) -> bool:
        """Whether it is a QMA-Net, of any size, with nothing ablated."""
        return self.is_ours and self.setting == setting_of({})

    @property
    def variant(self) -> tuple[str, ...]:
        """What else differs from the paper's way, as words; drop path is a matter of training."""
        flags = self.header["model_flags"]
        words = []
        if self.is_ours:
            for name in ("size", "views", "alpha", "beta", "dice_smoothing"):
                value = flags.get(name, DEFAULTS[name])
                if str(value) != str(DEFAULTS[name]):
                    words.append(str(value) if name == "size" else f"{name} {value}")
        picked = ["best on its test sets"] if "picked_on" in self.header else []
        return (*words, *_input_words(self.header), *picked)


def _input_words(header: dict) -> list[str]:
    """How images reach the model, where that is not the paper's way."""
    fit = header.get("fit", AS_PAPER.fit)
    side = header.get("image_size", AS_PAPER.image_size)
    words = [fit] if fit != AS_PAPER.fit else []
    if fit != "native" and side != AS_PAPER.image_size:
        words.append(f"{side} px")
    return words


def setting_of(flags: dict) -> dict[str, str]:
    """The ablated flags, filled with the defaults; as text, as YAML and JSON differ in types."""
    return {name: str(flags.get(name, DEFAULTS[name])) for name in ABLATED}


@dataclass
class Results:
    """Everything found: ``runs`` sorted (the paper's model first), and the rest.

    ``comparisons`` are contents of ``comparison.json`` by path, ``prepared`` contents of
    ``prepare.json`` by the dataset's normalised name, ``checked`` rows of ``data check --json``
    likewise and then by subset ("" for a whole dataset), ``sweeps`` what BenCo's
    ``test_robust.py`` logged, ``notes`` what a reader should know about the files.
    """

    runs: list[Run] = field(default_factory=list)
    comparisons: dict[Path, dict] = field(default_factory=dict)
    prepared: dict[str, dict] = field(default_factory=dict)
    checked: dict[str, dict[str, dict]] = field(default_factory=dict)
    complexities: list[Complexity] = field(default_factory=list)
    curves: list[Curves] = field(default_factory=list)
    sweeps: dict[Path, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        found = (self.runs, self.comparisons, self.prepared, self.checked)
        return any((*found, self.complexities, self.curves, self.sweeps))


def collect(dirs: Iterable[str | os.PathLike]) -> Results:
    """Reads every result file under the folders; hidden ones (unfinished results) are left out.

    Raises:
        ReportError: for a folder that is not there, or when none holds a result.
    """
    dirs = [Path(one) for one in dirs]
    for folder in dirs:
        if not folder.is_dir():
            raise ReportError(f"got {folder}, expected a folder with result files: there is none")
    results, runs, logs = Results(), {}, set()
    for path in _files(dirs):
        if path.suffix == ".json":
            _take_json(path, results, runs)
        elif COMPLEXITY.match(path.name):
            found = read_complexity(path)
            results.complexities += [found] if found else []
        elif path.name == "log.txt" or path.name.startswith(EVENTS):
            logs.add(path.parent)
    results.runs = _labelled(list(runs.values()))
    results.sweeps = read_sweeps(logs)
    results.curves = read_curves(logs, results.notes)
    if not results:
        raise ReportError(
            f"got no result files in {', '.join(map(str, dirs))}, expected the JSON files of "
            "qma-net evaluate or robust, prepare.json, complexity*.txt or BenCo's logs: run "
            "qma-net evaluate first, or name the folder given to its --out"
        )
    return results


def _files(dirs: list[Path]) -> Iterable[Path]:
    """Every file once, in one order, without hidden folders and files."""
    seen = set()
    for top in dirs:
        for folder, inner, names in os.walk(top):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            for name in sorted(names):
                path = Path(folder, name)
                if not name.startswith(".") and path.resolve() not in seen:
                    seen.add(path.resolve())
                    yield path


def _take_json(path: Path, results: Results, runs: dict) -> None:
    """Puts a JSON object where it belongs; lists (of images) are not read."""
    try:
        with open(path, "rb") as file:
            if file.read(1) != b"{":
                return
        content = read_object(path, "a result")
    except (ContentError, OSError) as error:
        results.notes.append(f"{path} could not be read: {error}")
        return

    def is_whole(shape, content=content) -> bool:
        found = shapes.fault(content, shape)
        if found:
            results.notes.append(f"{path} is not shown, as it is no whole result: {found}")
        return not found

    header = content.get("header")
    if isinstance(header, dict) and "set" in header and "model_flags" in header:
        if is_whole(shapes.RESULT):
            _take_result(Result(path, content), results, runs)
    elif path.name == "comparison.json":
        if is_whole(shapes.COMPARISON):
            results.comparisons[path] = content
    elif {"dataset", "tampered", "paper"} <= set(content):
        if is_whole(shapes.PREPARED):
            results.prepared[normalised_name(content["dataset"])] = content
    elif (
        isinstance(content.get("sets"), list)
        and "errors" in content
        and is_whole(shapes.CHECKED, content["sets"])
    ):
        for row in content["sets"]:
            name = normalised_name(row.get("dataset") or row["name"])
            results.checked.setdefault(name, {})[row.get("part") or ""] = row


def _take_result(result: Result, results: Results, runs: dict) -> None:
    """Puts a result into its run; of two alike the first found stays, a ``clean.json`` last."""
    header = result.header
    flags = tuple(sorted((key, str(value)) for key, value in header["model_flags"].items()))
    identity = (header["model"], flags, header["checkpoint_sha256"], header["fit"])
    identity = (*identity, header["image_size"], header.get("picked_on"))
    run = runs.setdefault(identity, Run(header))
    where = run.clean if result.attack is None else run.attacked.setdefault(result.set, {})
    key = result.set if result.attack is None else result.attack
    known = where.setdefault(key, result)
    if known.path.name == "clean.json":  # the sweep's; what evaluate wrote goes first
        where[key], result, known = result, known, result
    if known.header["files_sha256"] != result.header["files_sha256"]:
        results.notes.append(
            f"{result.path} is not shown: {known.path} has the same name ({result.set}) and model, "
            "but other images"
        )


def _labelled(runs: list[Run]) -> list[Run]:
    """The runs in the order of a report, told apart: by what differs, then by checkpoint."""
    runs.sort(key=lambda run: (not run.is_default, len(run.variant), run.header["checkpoint"]))
    for run in runs:
        run.label = ", ".join(run.variant)
    for run in runs:
        alike = [
            other
            for other in runs
            if (other.model, other.setting, other.variant) == (run.model, run.setting, run.variant)
        ]
        if len(alike) > 1:
            run.label = ", ".join([*run.variant, _checkpoint_name(run, alike)])
    return runs


def _checkpoint_name(run: Run, alike: list[Run]) -> str:
    """The end of the checkpoint's path that no other has; else the start of its checksum."""
    parts = [Path(other.header["checkpoint"]).with_suffix("").parts for other in alike]
    own = Path(run.header["checkpoint"]).with_suffix("").parts
    for count in range(1, len(own) + 1):
        if sum(other[-count:] == own[-count:] for other in parts) == 1:
            return "/".join(own[-count:])
    return run.header["checkpoint_sha256"][:8]
