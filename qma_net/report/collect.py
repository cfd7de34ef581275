"""Find result files in folders and assign them to models.

JSON files are recognized by their content, regardless of their location: the results of
``evaluate`` and ``robust`` by their header, the report of ``data prepare`` and the output of
``data check --json`` by their keys. ``comparison.json`` and BenCo's logs (``complexity*.txt`` or
``.log``, ``log.txt``, TensorBoard's files) are recognized by their names.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..core.errors import QMANetError
from ..core.files import ContentError, read_json_object
from ..evaluation.results import read_result_table
from ..modeling.config import LOSS_FLAGS, Preprocessing, QMANetConfig
from ..modeling.losses import (
    DICE_SMOOTHING,
    DICE_SMOOTHING_TAMPERED_ONLY,
    EDGE_WEIGHT,
    MASK_WEIGHT,
)
from .benco_logs import (
    COMPLEXITY_FILES,
    EVENT_FILES,
    Complexity,
    Curves,
    Points,
    read_complexity,
    read_curves,
    read_sweeps,
)
from .paper_tables import attack_levels, normalized_name, paper_test_set
from .result_schema import CHECKED, COMPARISON, PREPARED, RESULT, check

# Folders of a dataset, which may contain millions of images but no results.
IMAGE_FOLDERS = ("Tp", "Gt", "Au")

# The flags that define an ablation: those varied in Tables 2 and 9, and `interaction`.
ABLATED = ("dfcm_stages", "decode_levels", "decoder", "query_count", "interaction")

# Other flags that distinguish a model from the paper's. Drop path matters only during training.
VARIED = ("size", "views", "dfcm_scale", *LOSS_FLAGS)

# The paper's model as flags of BenCo's scripts.
PAPER_PREPROCESSING = Preprocessing()
DEFAULTS = asdict(QMANetConfig()) | {
    "alpha": MASK_WEIGHT,
    "beta": EDGE_WEIGHT,
    "bce": 0.0,
    "dice_smoothing": DICE_SMOOTHING,
    "gradient_checkpointing": 0,
    "compile": 0,
}

Content = dict[str, Any]  # Of a JSON file, or of one row in it.


class ReportError(QMANetError):
    """Raised if a report cannot be created from the given folders or written to the given file."""


@dataclass
class ResultFile:
    """A JSON file of ``evaluate`` or ``robust`` and its content: one model on one test set."""

    path: Path
    summary: Content

    def __post_init__(self) -> None:
        self.header: Content = self.summary["header"]
        # The published name, if it is one of the paper's test sets.
        self.test_set: str = paper_test_set(self.header["set"]) or self.header["set"]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The metrics per image from the CSV file next to the JSON file, if it exists."""
        table = self.path.with_suffix(".csv")
        return read_result_table(table) if table.is_file() else []

    def per_image(self, metric: str) -> dict[str, float]:
        """Return a metric by image path, for the images for which it is defined."""
        key = "f1" if metric == "pixel_f1" else metric
        return {row["path"]: row[key] for row in self.rows if row[key] is not None}


@dataclass
class ModelResults:
    """All results of one checkpoint with the same settings."""

    header: Content  # Of one of the result files.
    clean: dict[str, ResultFile] = field(default_factory=dict)  # By test set.
    # By test set, attack and level.
    attacked: dict[str, dict[str, dict[int, ResultFile]]] = field(default_factory=dict)
    label: str = ""  # Distinguishes similar models: the variant and, if ambiguous, the checkpoint.

    def __post_init__(self) -> None:
        self.name: str = self.header["model"]  # In BenCo's registry.
        self.is_ours = self.name == "QMANet"  # A QMA-Net of any configuration.
        flags = self.header["model_flags"] if self.is_ours else {}
        self.setting = setting_of(flags) if self.is_ours else {}
        # A QMA-Net without ablations; its size and other settings may differ from the paper's.
        self.is_default = self.is_ours and self.setting == setting_of({})
        self.variant = _describe_variant(self.header, flags)

    def under_attack(self, test_set: str, attack: str) -> list[ResultFile | None]:
        """Return the results at an attack's listed levels, or at all levels if none are listed."""
        results = self.attacked.get(test_set, {}).get(attack, {})
        return [results.get(level) for level in attack_levels().get(attack, results)]


def _describe_variant(header: Content, flags: dict[str, Any]) -> tuple[str, ...]:
    """Describe how a model and its evaluation differ from the paper's, apart from ablations."""
    words = []
    for name in VARIED:
        value = str(flags.get(name, DEFAULTS[name]))
        # Both recipes in docs/reading-the-paper.md count as the paper's, which states no smoothing.
        is_recipe = name == "dice_smoothing" and float(value) == DICE_SMOOTHING_TAMPERED_ONLY
        if value != str(DEFAULTS[name]) and not is_recipe:
            words.append(value if name == "size" else f"{name} {value}")
    fit, side = header.get("fit", PAPER_PREPROCESSING.fit), header["image_size"]
    words += [fit] if fit != PAPER_PREPROCESSING.fit else []
    if fit != "native" and side != PAPER_PREPROCESSING.image_size:
        words.append(f"{side} px")
    border = header.get("ignore_border")
    words += [f"without {border} px next to the boundary"] if border else []
    words += ["selected on the test sets"] if "picked_on" in header else []
    return tuple(words)


def setting_of(flags: dict[str, Any]) -> dict[str, str]:
    """Return the flags in :data:`ABLATED`, as text because the types in YAML and JSON differ."""
    return {name: str(flags.get(name, DEFAULTS[name])) for name in ABLATED}


@dataclass
class Results:
    """All results in the folders, and notes for the reader about files and figures."""

    models: list[ModelResults] = field(default_factory=list)  # The paper's configuration first.
    comparisons: dict[Path, Content] = field(default_factory=dict)
    prepared: dict[str, Content] = field(default_factory=dict)  # By normalized dataset name.
    checked: dict[str, dict[str, Content]] = field(default_factory=dict)  # By dataset and subset.
    complexities: list[Complexity] = field(default_factory=list)
    curves: list[Curves] = field(default_factory=list)
    sweeps: dict[Path, dict[str, Points]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(content for name, content in vars(self).items() if name != "notes")


def collect(dirs: Sequence[str | os.PathLike[str]]) -> Results:
    """Read all result files in folders and their subfolders, except hidden (unfinished) ones.

    Raises:
        ReportError: If a folder does not exist or none contains a result.
    """
    folders = [Path(folder) for folder in dirs]
    for folder in folders:
        if not folder.is_dir():
            raise ReportError(f"cannot read {folder}: there is no such folder")
    results = Results()
    models: dict[tuple, ModelResults] = {}
    logs = set()
    for path in _find_files(folders):
        if path.suffix == ".json":
            _add_json(path, results, models)
        elif COMPLEXITY_FILES.match(path.name):
            complexity = read_complexity(path)
            results.complexities += [complexity] if complexity else []
        elif path.name == "log.txt" or path.name.startswith(EVENT_FILES):
            logs.add(path.parent)
    results.models = _sort_and_label(list(models.values()))
    results.sweeps = read_sweeps(logs)
    results.curves = read_curves(logs, results.notes)
    if not results:
        raise ReportError(
            f"no result files found in {', '.join(map(str, folders))}: expected JSON files of "
            "qma-net evaluate or robust, prepare.json, complexity*.txt or BenCo's logs; run "
            "qma-net evaluate first, or pass the folder given to its --out"
        )
    return results


def _find_files(folders: Iterable[Path]) -> Iterator[Path]:
    """Yield each visible file once, in a fixed order; hidden and image folders are skipped."""
    seen = set()
    for top in folders:
        for folder, subfolders, names in os.walk(top):
            subfolders[:] = sorted(set(subfolders) - set(IMAGE_FOLDERS))
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            for name in sorted(names):
                path = Path(folder, name)
                # A pipe or a symlink to itself is not a file.
                is_visible = not name.startswith(".") and path.is_file()
                if is_visible and path.resolve() not in seen:
                    seen.add(path.resolve())
                    yield path


def _add_json(path: Path, results: Results, models: dict[tuple, ModelResults]) -> None:
    """Add the results in a JSON file, if there are any; lists of images are skipped."""
    try:
        with open(path, "rb") as file:
            if file.read(1) != b"{":
                return
        content = read_json_object(path, "a result")
        header = content.get("header")
        if isinstance(header, dict) and {"set", "model_flags"} <= header.keys():
            check(content, RESULT)
            _add_result(ResultFile(path, content), results.notes, models)
        elif path.name == "comparison.json":
            check(content, COMPARISON)
            results.comparisons[path] = content
        elif {"dataset", "tampered", "paper"} <= content.keys():
            check(content, PREPARED)
            results.prepared[normalized_name(content["dataset"])] = content
        elif {"sets", "errors"} <= content.keys():
            check(content, CHECKED)
            for row in content["sets"]:
                name = normalized_name(row.get("dataset") or row["name"])
                results.checked.setdefault(name, {})[row.get("part") or ""] = row
    except (ContentError, OSError) as error:
        results.notes.append(f"{path} is not shown: {error}")


def _add_result(result: ResultFile, notes: list[str], models: dict[tuple, ModelResults]) -> None:
    """Add a result to its model; the first of several for the same test set is used."""
    header = result.header
    flags = tuple(sorted((key, str(value)) for key, value in header["model_flags"].items()))
    settings = ("model", "checkpoint_sha256", "fit", "image_size", "ignore_border", "picked_on")
    identity = (flags, *(header.get(name) for name in settings))
    model = models.setdefault(identity, ModelResults(header))
    files: dict[Any, ResultFile] = model.clean
    key: Any = result.test_set
    if attack := header.get("attack"):
        files = model.attacked.setdefault(key, {}).setdefault(attack["name"], {})
        key = attack["level"]
    used = files.setdefault(key, result)
    if used.path.name == "clean.json":  # Results of `evaluate` take precedence over `robust`.
        files[key], result, used = result, used, result
    if used.header["files_sha256"] != result.header["files_sha256"]:
        notes.append(
            f"{result.path} is not shown: {used.path} has the same test set name "
            f"({result.test_set}) and model, but different images"
        )


def _sort_and_label(models: list[ModelResults]) -> list[ModelResults]:
    """Sort the models and label each with its variant, and with its checkpoint if ambiguous."""
    models.sort(key=lambda m: (not m.is_default, len(m.variant), m.header["checkpoint"]))
    groups: dict[tuple, list[ModelResults]] = {}
    for model in models:
        kind = (model.name, *model.setting.values(), model.variant)
        groups.setdefault(kind, []).append(model)
    for alike in groups.values():
        for model in alike:
            checkpoint = [_distinct_checkpoint(model, alike)] if len(alike) > 1 else []
            model.label = ", ".join([*model.variant, *checkpoint])
    return models


def _distinct_checkpoint(model: ModelResults, alike: list[ModelResults]) -> str:
    """Return the shortest unique end of the checkpoint's path, or the start of its checksum."""
    all_parts = [Path(other.header["checkpoint"]).with_suffix("").parts for other in alike]
    parts = Path(model.header["checkpoint"]).with_suffix("").parts
    for count in range(1, len(parts) + 1):
        if sum(other[-count:] == parts[-count:] for other in all_parts) == 1:
            return "/".join(parts[-count:])
    return model.header["checkpoint_sha256"][:8]
