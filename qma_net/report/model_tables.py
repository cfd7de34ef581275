"""Tables about models: the paper's Tables 1, 2 and 5 to 10, and tables of further results."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..data.published import DATASETS
from ..evaluation.metrics import bootstrap_p_value, mean_and_interval
from .collect import ModelResults, ResultFile, Results, setting_of
from .paper_tables import (
    ABBREVIATIONS,
    ATTACKS,
    TEST_SETS,
    Column,
    PublishedTable,
    Value,
    paper_model,
    read_ablations,
)
from .table import (
    DASH,
    DIFFERENCE,
    MEASURED,
    MINUS,
    MISSING,
    NO_RESULT,
    PAIRED,
    PAIRED_MODELS,
    Cell,
    Row,
    Table,
    format_number,
)

OURS, PAPER = "QMA-Net (ours)", "QMA-Net (paper)"
UNPAIRED = "requires the CSV files of both models for the same images"


# Measurements


@dataclass(frozen=True)
class Measurement:
    """A mean over images, its 95% interval, and a note, such as the reason for a missing value."""

    value: float | None = None
    interval: Sequence[float] | None = None
    note: str = NO_RESULT

    def cell(self, minus: float | None = None) -> Cell:
        """Show the mean with its interval; with ``minus``, the difference from that value."""
        if self.value is None:
            return Cell(DASH, hint=self.note)
        sign, minus = minus is not None, minus or 0.0
        edges = [format_number(edge - minus, sign=sign) for edge in self.interval or ()]
        detail = f"[{', '.join(edges)}]" if edges else ""
        return Cell(format_number(self.value - minus, sign=sign), detail, self.note)


def _files(model: ModelResults | None, column: Column) -> list[ResultFile | None]:
    """Return the results that a column of the paper averages; None for each missing one."""
    if model is None:
        return []
    if column.attack:
        return model.under_attack(column.test_sets[0], column.attack)
    return [model.clean.get(name) for name in column.test_sets]


def _average(files: Sequence[ResultFile | None], metric: str) -> Measurement:
    """Average a metric over test sets, or over levels of an attack on the same images."""
    available = [file for file in files if file]
    if not available:
        return Measurement()
    is_attack = bool(available[0].header.get("attack"))
    if len(available) < len(files):
        unit = "levels" if is_attack else "test sets"
        return Measurement(note=f"only {len(available)} of {len(files)} {unit} evaluated")
    values: list[Any] = [file.summary.get(metric) for file in available]
    if None in values:
        return Measurement(note="undefined for these images")
    if len(available) == 1:
        interval = available[0].summary["intervals"].get(metric)
    else:
        columns = _per_image(available, metric, is_attack=is_attack)
        samples = [list(column.values()) for column in columns]
        interval = mean_and_interval(samples)[1] if all(samples) else None
    note = "" if interval else "no interval, because the CSV file of the result is missing"
    return Measurement(sum(values) / len(values), interval, note)


def _per_image(
    files: Sequence[ResultFile | None], metric: str, *, is_attack: bool
) -> list[dict[str, float]]:
    """Return a metric by image path for each test set, or averaged over an attack's levels."""
    columns = [file.per_image(metric) if file else {} for file in files]
    if not is_attack or not columns:
        return columns
    common = [path for path in columns[0] if all(path in column for column in columns)]
    return [{path: sum(c[path] for c in columns) / len(columns) for path in common}]


def _models_in(results: Results, published: PublishedTable) -> list[ModelResults]:
    """Select the models with at least one result for a table, even if no cell is complete."""
    return [m for m in results.models if any(any(_files(m, c)) for c in published.columns)]


def _paired_cell(
    base: ModelResults | None,
    model: ModelResults | None,
    column: Column,
    *,
    with_p_value: bool = False,
) -> Cell:
    """Show the mean difference from ``base`` on the images for which both models have the metric.

    For an average over test sets, the bootstrap resamples each test set separately.
    """
    if base is None or model is None:
        return MISSING
    firsts, seconds = (
        _per_image(_files(m, column), column.metric, is_attack=bool(column.attack))
        for m in (base, model)
    )
    differences = [
        [second[path] - first[path] for path in first if path in second]
        for first, second in zip(firsts, seconds, strict=True)
    ]
    if not all(differences):
        return Cell(DASH, hint=UNPAIRED)
    note = f"{sum(map(len, differences))} images"
    if with_p_value:
        note = f"p = {bootstrap_p_value(differences[0]):.3f}, {note}"
    return Measurement(*mean_and_interval(differences), note).cell(minus=0.0)


# Names


def full_name(model: ModelResults) -> str:
    """Return the name of a model with its setting and its label."""
    name = "QMA-Net" if model.is_ours else paper_model(model.name)
    return _with_words(name, *_setting_words(model), model.label)


def _setting_words(model: ModelResults) -> list[str]:
    """Describe an ablation by its name in ``ablations.yaml``, or else by its flags."""
    if not model.is_ours or model.is_default:
        return []
    for ablation in read_ablations():
        if setting_of(ablation.flags) == model.setting:
            return [ablation.name]
    default = setting_of({})
    return [f"{key} {value}" for key, value in model.setting.items() if value != default[key]]


def _with_words(name: str, *words: str) -> str:
    text = ", ".join(filter(None, words))
    return f"{name} ({text})" if text else name


def _published_model(
    published: PublishedTable, model: ModelResults, *words: str
) -> tuple[str, Sequence[Value]]:
    """Return a model's label with words that describe its variant, and its published cells."""
    if model.is_ours:
        return _with_words("QMA-Net", "ours", *words), published.our_cells
    label = _with_words(paper_model(model.name), "measured here", *words)
    return label, published.cells_of(model.name)


# The paper's tables


def comparison_table(published: PublishedTable, results: Results) -> Table:
    """Create Table 1, 5, 6, 7 or 8, which compare QMA-Net with other models."""
    table = published.new_table(our_label=PAPER)
    table.higher = [column.name for column in published.columns]
    models = [m for m in _models_in(results, published) if m.is_default or not m.is_ours]
    as_in_paper = next((m for m in models if m.is_default and not m.variant), None)
    if not as_in_paper:  # A different variant must not be mistaken for the paper's model.
        _add_rows(table, published, [OURS], None, published.our_cells)
    base = as_in_paper or next((m for m in models if m.is_default), None)
    for model in models:
        label, paper = _published_model(published, model, model.label)
        _add_rows(table, published, [label], model, paper)
        if base and not model.is_ours:
            shifts = [_paired_cell(base, model, column) for column in published.columns]
            labels = [f"{label} minus {_with_words('QMA-Net', 'ours', base.label)}"]
            table.rows.append(Row(PAIRED_MODELS, labels, shifts))
    _add_missing_command(table, published, as_in_paper)
    return table


def _add_rows(
    table: Table,
    published: PublishedTable,
    labels: Sequence[str],
    model: ModelResults | None,
    paper: Sequence[Value],
) -> None:
    """Add a model's measured values and their differences from the published cells ``paper``."""
    measured, gaps = [], []
    for column, value in zip(published.columns, paper, strict=True):
        files = _files(model, column)
        mean = _average(files, column.metric)
        measured.append(mean.cell())
        gaps.append(mean.cell(minus=value) if isinstance(value, float) else MISSING)
        for file in filter(None, files):
            count, expected = file.summary["n_tampered"], DATASETS[file.test_set].tampered
            note = f"{file.test_set}: {count} tampered images here, {expected} in the paper."
            if count != expected and note not in table.notes:
                table.notes.append(note)
    is_ours = model is not None and model.is_default
    table.rows.append(Row(MEASURED, labels, measured, is_ours))
    table.rows.append(Row(DIFFERENCE, labels, gaps, is_ours))


def _add_missing_command(
    table: Table, published: PublishedTable, model: ModelResults | None
) -> None:
    """Add the command that produces the results that a model lacks for a table."""
    missing = [c for c in published.columns if model is None or None in _files(model, c)]
    test_sets = dict.fromkeys(c.test_sets[0] for c in missing if len(c.test_sets) == 1)
    if test_sets:
        command = "robust" if missing[0].attack else "evaluate"
        checkpoint = model.header["checkpoint"] if model else "CHECKPOINT"
        paths = " ".join(f"ROOT/{name}" for name in test_sets)
        line = f"qma-net {command} --checkpoint {checkpoint} --test-sets {paths} --out DIR"
        table.commands += [line] if line not in table.commands else []


def ablation_table(published: PublishedTable, results: Results) -> Table:
    """Create Table 2 or 9: every setting, and its paired difference from the default model."""
    table = published.new_table()
    table.higher = [column.name for column in published.columns]
    settings = {a.row: a for a in read_ablations() if a.table == published.number}
    models = [model for model in _models_in(results, published) if model.is_ours]
    absent: dict[str, None] = {}  # Names of settings, in order.
    for variant in dict.fromkeys(model.variant for model in models) or [()]:
        base = next(iter(_with_setting(models, variant, {})), None)
        for labels, cells in published.rows:
            setting = next(settings[label] for label in labels if label in settings)
            alike = _with_setting(models, variant, setting.flags)
            if not alike:
                absent[setting.name] = None
            for model in alike or (None,):
                name = labels[0].removesuffix("(Ours)").rstrip()
                words = [model.label] if model else variant
                names = (_with_words(name, "ours", *words), *labels[1:])
                _add_rows(table, published, names, model, cells)
                if labels[0] != published.ours:
                    shifts = [_paired_cell(base, model, column) for column in published.columns]
                    table.rows.append(Row(PAIRED, names, shifts))
                if model:
                    _add_missing_command(table, published, model)
    if absent:
        table.commands.insert(0, f"bash shell/ablations.sh --only {','.join(absent)}")
    return table


def _with_setting(
    models: list[ModelResults], variant: tuple[str, ...], flags: dict[str, Any]
) -> list[ModelResults]:
    """Select the models of a variant that have the setting described by ``flags``."""
    return [m for m in models if m.variant == variant and m.setting == setting_of(flags)]


def complexity_table(published: PublishedTable, results: Results) -> Table:
    """Create Table 10: parameters and multiply-adds from the logs of BenCo's complexity script."""
    table = published.new_table(our_label=PAPER)
    table.lower = [column.name for column in published.columns]
    rows = []
    for log in results.complexities:
        model = ModelResults(log.header)
        words = [*model.variant, *_setting_words(model)]
        name, paper = _published_model(published, model, *words)
        values = (log.parameters / 1e6, log.multiply_adds / 1e9)
        cells = [Cell(published.show(value)) for value in values]
        rows.append(Row(MEASURED, (name,), cells, model.is_ours))
        if isinstance(paper[0], float) and not (model.is_ours and words):
            gaps = [_share_cell(v, p, published) for v, p in zip(values, paper, strict=True)]
            rows.append(Row(DIFFERENCE, (name,), gaps, model.is_ours))
    if not any(row.labels == (OURS,) for row in rows):
        table.commands.append(
            "qma-net test_complexity --model QMANet --noiseprint_weights noiseprint++.th "
            "--image_size 512 --if_resizing --test_batch_size 1 | tee DIR/complexity.txt"
        )
    if not rows:
        missing = (MISSING, MISSING)
        rows = [Row(section, (OURS,), missing, True) for section in (MEASURED, DIFFERENCE)]
    table.rows += sorted(rows, key=lambda row: (not row.is_ours, row.labels[0]))
    return table


def _share_cell(value: float, paper: Any, published: PublishedTable) -> Cell:
    """Show the difference from the published value, also as a percentage of that value."""
    share = f"({(value - paper) / paper:+.1%})".replace("-", MINUS)
    return Cell(published.show(value - paper, sign=True), share)


# Further tables


def other_test_sets(results: Results) -> Table:
    """List results on test sets or of models that the paper does not include."""
    table = Table(
        "other-test-sets",
        "Other test sets",
        ("Test set", "Model"),
        {
            "": ("Images",),
            "Pixel level": ("F1", "permute-F1", "IoU", "AUC"),
            "Paired": ("F1 minus that of QMA-Net",),
        },
        notes=["Test sets and models that the paper does not include."],
        higher=("F1", "permute-F1", "IoU", "AUC"),
        same=(0,),
    )
    settings = [setting_of(a.flags) for a in read_ablations() if a.table]
    for name in sorted({name for model in results.models for name in model.clean}):
        for model in results.models:
            is_in_paper = not model.is_ours or model.setting in settings
            if name not in model.clean or (name in TEST_SETS.values() and is_in_paper):
                continue
            result = model.clean[name]
            metrics = ("pixel_f1", "permute_f1", "iou", "auc")
            cells = [
                Cell(str(result.summary["n_tampered"])),
                *(_average([result], metric).cell() for metric in metrics),
                _difference_from_default(results, model, name),
            ]
            table.rows.append(Row(MEASURED, (name, full_name(model)), cells, model.is_default))
    return table


def _difference_from_default(results: Results, model: ModelResults, test_set: str) -> Cell:
    """Compare a model's F1 with the default model's (of the same variant if it is a QMA-Net)."""
    defaults = [m for m in results.models if m.is_default and test_set in m.clean]
    if model.is_ours:
        defaults = [m for m in defaults if m.variant == model.variant]
    if model.is_default or not defaults:
        return Cell()
    column = Column("F1", [test_set], "pixel_f1", None)
    return _paired_cell(defaults[0], model, column, with_p_value=True)


def further_metrics(results: Results) -> Table:
    """List the metrics that the paper does not report, on clean test sets."""
    pixel = {
        "AP": "average_precision",
        "MCC": "mcc",
        "TPR": "tpr",
        "FPR": "fpr",
        "FPR at 95% recall": "fpr_at_95_recall",
    }
    image = {
        "Image F1": "image_f1",
        "Image AUC": "image_auc",
        "Accuracy": "image_accuracy",
        "Balanced accuracy": "image_balanced_accuracy",
    }
    table = Table(
        "further-metrics",
        "Further metrics",
        ("Test set", "Model"),
        {"Pixel level": tuple(pixel), "Image level": tuple(image)},
        notes=["AP is the average precision, MCC is Matthews' correlation coefficient."],
        higher=("AP", "MCC", "TPR", *image),
        lower=("FPR", "FPR at 95% recall"),
        same=(0,),
    )
    for name in sorted({name for model in results.models for name in model.clean}):
        for model in results.models:
            summary = model.clean[name].summary if name in model.clean else {}
            if "mcc" not in summary:  # Results from earlier versions do not contain these.
                continue
            cells = [_average([model.clean[name]], metric).cell() for metric in pixel.values()]
            cells += [Measurement(summary.get(key), note="").cell() for key in image.values()]
            table.rows.append(Row(MEASURED, (name, full_name(model)), cells, model.is_default))
    return table


def results_by_type(results: Results) -> Table:
    """List the results on clean test sets by manipulation type."""
    metrics = {
        "F1": "pixel_f1",
        "permute-F1": "permute_f1",
        "IoU": "iou",
        "AUC": "auc",
        "AP": "average_precision",
        "MCC": "mcc",
    }
    table = Table(
        "manipulation-types",
        "Results by manipulation type",
        ("Test set", "Model", "Type"),
        {"": ("Images",), "Pixel level": tuple(metrics)},
        higher=tuple(metrics),
        same=(0, 2),
    )
    for name in sorted({name for model in results.models for name in model.clean}):
        for model in results.models:
            summary = model.clean[name].summary if name in model.clean else {}
            for kind, means in (summary.get("types") or {}).items():
                cells = [Cell(str(means["n_tampered"]))]
                cells += [Measurement(means.get(key), note="").cell() for key in metrics.values()]
                labels = (name, full_name(model), kind)
                table.rows.append(Row(MEASURED, labels, cells, model.is_default))
    return table


def other_attacks(results: Results) -> Table:
    """List averages under attacks or on test sets that Tables 7 and 8 do not contain."""
    table = Table(
        "other-attacks",
        "Robustness to other attacks",
        ("Test set", "Model", "Attack"),
        {"": ("Levels",), "Average over the levels": ("F1", "IoU", "AUC")},
        notes=[
            "The averages do not include the clean images.",
            "gaussian-noise uses the levels of GN as standard deviations.",
        ],
        higher=("F1", "IoU", "AUC"),
        same=(0, 2),
    )
    for name in sorted({name for model in results.models for name in model.attacked}):
        for model in results.models:
            is_shown = name in ABBREVIATIONS.values() and (model.is_default or not model.is_ours)
            for attack, levels in model.attacked.get(name, {}).items():
                if is_shown and attack in ATTACKS.values():
                    continue
                files = model.under_attack(name, attack)
                means = [_average(files, metric).cell() for metric in ("pixel_f1", "iou", "auc")]
                cells = [Cell(", ".join(map(str, sorted(levels)))), *means]
                labels = (name, full_name(model), attack)
                table.rows.append(Row(MEASURED, labels, cells, model.is_default))
    return table


def checkpoint_comparisons(results: Results) -> Table:
    """List the comparisons in ``comparison.json``: checkpoints that were evaluated together."""
    table = Table(
        "comparisons",
        "Checkpoints compared on the same images",
        ("Test set", "Difference"),
        {"": ("F1", "IoU", "p (F1)", "Images")},
        notes=[
            "From qma-net evaluate with several checkpoints, by a paired bootstrap. With fewer "
            "than about 20 images, it underestimates intervals and p-values."
        ],
    )
    for path, comparison in results.comparisons.items():
        for name, pairs in comparison.items():
            for title, differences in pairs.items():
                f1, iou = (differences.get(metric) or {} for metric in ("pixel_f1", "iou"))
                cells = [
                    Measurement(d.get("difference"), d.get("interval"), str(path)).cell(minus=0.0)
                    for d in (f1, iou)
                ]
                # A bootstrap with 2000 draws cannot resolve smaller p-values.
                p = f1.get("p_value", 0)
                cells.append(Cell(f"{p:.3f}" if p >= 0.001 else "< 0.001") if f1 else MISSING)
                cells.append(Cell(str(f1["n"])) if f1 else MISSING)
                table.rows.append(Row(MEASURED, (name, title), cells))
    return table


def benco_sweeps(results: Results) -> Table:
    """List the logs of BenCo's ``test_robust.py``, which contain no per-image values."""
    table = Table(
        "benco-robustness",
        "BenCo's own test_robust.py",
        ("Folder", "Attack"),
        {"": ("Levels", "Pixel F1 at every level", "Average")},
        notes=[
            "As logged. BenCo draws new noise, and the JPEG quality from {q - 1, q}, in every run, "
            "and it counts the F1 of authentic images as 0. Tables 7 and 8 use qma-net robust."
        ],
    )
    for folder, transforms in results.sweeps.items():
        for transform, points in transforms.items():
            levels, f1 = zip(*points, strict=True)
            texts = (
                ", ".join(f"{level:g}" for level in levels),
                ", ".join(f"{value:.3f}" for value in f1),
                f"{sum(f1) / len(f1):.3f}",
            )
            table.rows.append(Row(MEASURED, (str(folder), transform), [*map(Cell, texts)]))
    return table
