"""Tables about models: Tables 1, 2 and 5 to 10 of the paper, and further tables of results."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.published import DATASETS
from ..evaluation.metrics import mean_and_interval, paired_bootstrap
from .collect import ModelResults, ResultFile, Results, setting_of
from .paper_tables import (
    ATTACKS,
    TEST_SETS,
    Column,
    PublishedTable,
    Value,
    attack_levels,
    normalized_name,
    paper_model,
    published_tables,
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
    Cell,
    Row,
    Table,
)

OURS, PAPER = "QMA-Net (ours)", "QMA-Net (paper)"
METRICS = {"F1": "pixel_f1", "permute-F1": "permute_f1", "IoU": "iou", "AUC": "auc"}

UNPAIRED = "needs the CSV files of both on the same images"

# Labels, the model (None if it was not evaluated), and the published cells to compare it with.
MeasuredRow = tuple[tuple[str, ...], ModelResults | None, Sequence[Value]]


# Measurements


@dataclass(frozen=True)
class Measurement:
    """A mean over images, its 95 % interval and a note, which says why a value is missing."""

    value: float | None = None
    interval: Sequence[float] | None = None
    note: str = NO_RESULT


def _measure(model: ModelResults | None, column: Column, published: PublishedTable) -> Measurement:
    """Look up a model's value for a column; an average requires all of its test sets."""
    if model is None:
        return Measurement()
    if column.attack:
        return _measure_attack(model, column.test_set, column.attack, column.metric)
    columns = published.averaged(column) if column.is_average else [column]
    files = [model.clean.get(c.test_set) for c in columns]
    return _average(files, column.metric, of="test sets")


def _measure_attack(model: ModelResults, test_set: str, attack: str, metric: str) -> Measurement:
    results = model.attacked.get(test_set, {})
    levels = attack_levels().get(attack) or [level for name, level in results if name == attack]
    return _average([results.get((attack, level)) for level in levels], metric, of="levels")


def _average(files: Sequence[ResultFile | None], metric: str, of: str) -> Measurement:
    """Average a metric over test sets, or over levels of an attack on the same images."""
    available = [file for file in files if file]
    if len(available) < len(files) or not files:
        return Measurement(
            note=f"{len(available)} of {len(files)} {of}" if available else NO_RESULT
        )
    values = [file.summary.get(metric) for file in available]
    defined = [value for value in values if value is not None]
    if len(defined) < len(values):
        return Measurement(note="undefined for these images")
    if len(available) == 1:
        interval = available[0].summary["intervals"].get(metric)
    else:
        columns = [file.per_image(metric) for file in available]
        if of == "levels":
            common = [path for path in columns[0] if all(path in column for column in columns)]
            columns = [{p: sum(column[p] for column in columns) / len(columns) for p in common}]
        samples = [list(column.values()) for column in columns]
        interval = mean_and_interval(samples)[1] if all(samples) else None
    note = "" if interval else "no CSV file next to the result, hence no interval"
    return Measurement(sum(defined) / len(defined), interval, note)


def _has_results(model: ModelResults, published: PublishedTable) -> bool:
    """Whether a model has at least one result for a table, even if a cell is incomplete."""
    return any(_measure(model, c, published).note != NO_RESULT for c in published.columns)


def _paired_differences(
    base: ModelResults, model: ModelResults, test_set: str, metric: str
) -> list[float]:
    """Subtract a metric of ``base`` from the model's, on the images for which both have it."""
    if test_set not in base.clean or test_set not in model.clean:
        return []
    first, second = (m.clean[test_set].per_image(metric) for m in (base, model))
    return [second[path] - first[path] for path in first if path in second]


def _cell(measurement: Measurement, published: PublishedTable, minus: float | None = None) -> Cell:
    """Show a measurement with its interval; with ``minus``, its difference from that value."""
    if measurement.value is None:
        return Cell(DASH, hint=measurement.note)
    sign, minus = minus is not None, minus or 0.0
    edges = [published.show(edge - minus, sign=sign) for edge in measurement.interval or ()]
    text = published.show(measurement.value - minus, sign=sign)
    return Cell(text, f"[{', '.join(edges)}]" if edges else "", measurement.note)


# Names


def full_name(model: ModelResults) -> str:
    """Name a model with its setting and its label."""
    name = "QMA-Net" if model.is_ours else paper_model(model.name)
    return _append(name, *_setting_words(model), model.label)


def _setting_words(model: ModelResults) -> list[str]:
    """Describe an ablation by its name in ``ablations.yaml`` or its flags; [] for the default."""
    if not model.is_ours or model.is_default:
        return []
    for ablation in read_ablations():
        if setting_of(ablation.flags) == model.setting:
            return [ablation.name]
    default = setting_of({})
    return [f"{key} {value}" for key, value in model.setting.items() if value != default[key]]


def _append(name: str, *words: str) -> str:
    """Append words in parentheses: ``name (ours)`` becomes ``name (ours, words)``."""
    text = ", ".join(filter(None, words))
    if not text:
        return name
    return f"{name[:-1]}, {text})" if name.endswith(")") else f"{name} ({text})"


# The paper's tables


def comparison_table(published: PublishedTable, results: Results) -> Table:
    """Create Table 1, 5, 6, 7 or 8, which compare QMA-Net with other models."""
    table = published.new_table(our_label=PAPER)
    models = [model for model in results.models if _has_results(model, published)]
    ours = [model for model in models if model.is_default]
    as_in_paper = next((model for model in ours if not model.variant), None)
    rows: list[MeasuredRow] = []
    if not as_in_paper:  # Another variant must not be mistaken for the paper's model.
        rows.append(((OURS,), None, published.our_cells))
    rows += [((_append(OURS, m.label),), m, published.our_cells) for m in ours]
    for model in models:
        if not model.is_ours:
            name, cells = _published_model(published, model)
            rows.append(((_append(name, model.label),), model, cells))
    _add_measured_rows(table, published, rows)
    _add_missing_command(table, published, as_in_paper)
    return table


def _published_model(published: PublishedTable, model: ModelResults) -> tuple[str, Sequence[Value]]:
    """Return the label and the published cells of another model, which may have none."""
    name = normalized_name(model.name)
    cells = next((cs for ls, cs in published.rows if normalized_name(ls[0]) == name), None)
    return f"{paper_model(model.name)} (measured here)", cells or [None] * len(published.columns)


def _add_measured_rows(
    table: Table, published: PublishedTable, rows: Sequence[MeasuredRow]
) -> None:
    """Add the measured values of all rows, then their differences from the published ones."""
    differences = []
    for labels, model, paper in rows:
        is_ours = model is not None and model.is_default
        measurements = [_measure(model, column, published) for column in published.columns]
        cells = tuple(_cell(measurement, published) for measurement in measurements)
        table.rows.append(Row(MEASURED, labels, cells, is_ours))
        cells = tuple(
            _cell(measurement, published, minus=value) if isinstance(value, float) else MISSING
            for measurement, value in zip(measurements, paper, strict=True)
        )
        differences.append(Row(DIFFERENCE, labels, cells, is_ours))
        if model:
            _add_size_notes(table, published, model)
    table.rows += differences


def _add_missing_command(
    table: Table, published: PublishedTable, model: ModelResults | None
) -> None:
    """Add the command that produces the results that a model lacks for a table."""
    columns = [
        column
        for column in published.columns
        if not column.is_average and _measure(model, column, published).value is None
    ]
    if not columns:
        return
    command = "robust" if columns[0].attack else "evaluate"
    checkpoint = model.header["checkpoint"] if model else "CHECKPOINT"
    paths = " ".join(f"ROOT/{name}" for name in dict.fromkeys(c.test_set for c in columns))
    line = f"qma-net {command} --checkpoint {checkpoint} --test-sets {paths} --out DIR"
    table.commands += [line] if line not in table.commands else []


def _add_size_notes(table: Table, published: PublishedTable, model: ModelResults) -> None:
    """Note the test sets that have another number of tampered images here than in the paper."""
    for column in published.columns:
        results = model.clean if not column.attack else model.attacked.get(column.test_set, {})
        files = [file for file in results.values() if file.test_set == column.test_set]
        expected = DATASETS[column.test_set].tampered if files else 0
        if files and files[0].summary["n_tampered"] != expected:
            count = files[0].summary["n_tampered"]
            note = f"{column.test_set}: {count} tampered images here, {expected} in the paper."
            table.notes += [note] if note not in table.notes else []


def ablation_table(published: PublishedTable, results: Results) -> Table:
    """Create Table 2 or 9: every setting, and its paired difference from the default model."""
    table = published.new_table()
    settings = {a.row: a for a in read_ablations() if a.table == published.number}
    models = [m for m in results.models if m.is_ours and _has_results(m, published)]
    rows: list[MeasuredRow] = []
    paired: list[Row] = []
    absent: dict[str, None] = {}  # Names of settings, in order.
    for variant in dict.fromkeys(model.variant for model in models) or [()]:
        base = next(iter(_models_with_setting(models, variant, {})), None)
        for labels, cells in published.rows:
            setting = next(settings[label] for label in labels if label in settings)
            alike = _models_with_setting(models, variant, setting.flags)
            if not alike:
                absent[setting.name] = None
            for model in alike or (None,):
                name = f"{labels[0].removesuffix('(Ours)').rstrip()} (ours)"
                words = [model.label] if model else variant
                names = (_append(name, *words), *labels[1:])
                rows.append((names, model, cells))
                if labels[0] != published.ours:
                    shifts = [_ablation_cell(base, model, c, published) for c in published.columns]
                    paired.append(Row(PAIRED, names, tuple(shifts)))
                if model:
                    _add_missing_command(table, published, model)
    if absent:
        table.commands.insert(0, f"bash shell/ablations.sh --only {','.join(absent)}")
    _add_measured_rows(table, published, rows)
    table.rows += paired
    return table


def _models_with_setting(
    models: Iterable[ModelResults], variant: tuple[str, ...], flags: dict[str, Any]
) -> list[ModelResults]:
    """Select the models of one setting of Tables 2 and 9 that are of the same variant."""
    setting = setting_of(flags)
    return [m for m in models if m.is_ours and m.variant == variant and m.setting == setting]


def _ablation_cell(
    base: ModelResults | None,
    model: ModelResults | None,
    column: Column,
    published: PublishedTable,
) -> Cell:
    """Show the mean paired difference; the interval of an average resamples every test set."""
    if base is None or model is None:
        return MISSING
    columns = published.averaged(column) if column.is_average else [column]
    differences = [_paired_differences(base, model, c.test_set, c.metric) for c in columns]
    paired = Measurement(note=UNPAIRED)
    if all(differences):
        note = f"{sum(map(len, differences))} images"
        paired = Measurement(*mean_and_interval(differences), note)
    return _cell(paired, published, minus=0.0)


def complexity_table(published: PublishedTable, results: Results) -> Table:
    """Create Table 10: parameters and multiply-adds from the logs of BenCo's complexity script."""
    table = published.new_table(our_label=PAPER)
    rows: list[tuple[tuple[bool, bool, str], tuple[float, float], Sequence[Value]]] = []
    for log in results.complexities:
        header = {"model": log.model, "model_flags": log.flags, "image_size": log.image_size}
        model = ModelResults(header)
        words = [*model.variant, *_setting_words(model)]
        name, paper = _published_model(published, model)
        if model.is_ours:
            name, paper = OURS, () if words else published.our_cells
        order = (not model.is_ours, bool(words), _append(name, *words))
        rows.append((order, (log.parameters / 1e6, log.multiply_adds / 1e9), paper))
    rows.sort(key=lambda row: row[0])
    for (is_other, _, name), values, _ in rows:
        cells = tuple(Cell(published.show(value)) for value in values)
        table.rows.append(Row(MEASURED, (name,), cells, not is_other))
    for (is_other, _, name), values, paper in rows:
        pairs = zip(values, paper, strict=False)
        cells = tuple(_share_cell(v, p, published) for v, p in pairs if isinstance(p, float))
        table.rows += [Row(DIFFERENCE, (name,), cells, not is_other)] if cells else []
    if not rows:
        sections = (MEASURED, DIFFERENCE)
        table.rows += [Row(name, (OURS,), (MISSING, MISSING), True) for name in sections]
    if not any(order[2] == OURS for order, _, _ in rows):
        table.commands.append(
            "qma-net test_complexity --model QMANet --noiseprint_weights noiseprint++.th "
            "--image_size 512 --if_resizing --test_batch_size 1 | tee DIR/complexity.txt"
        )
    return table


def _share_cell(value: float, paper: float, published: PublishedTable) -> Cell:
    """Show the difference from the published value, also as a share of that value."""
    share = f"({(value - paper) / paper:+.1%})".replace("-", MINUS)
    return Cell(published.show(value - paper, sign=True), share)


# Further tables


def other_test_sets(results: Results) -> Table:
    """List results on test sets, or of models, that are in none of the paper's tables."""
    table = Table(
        "other-test-sets",
        "Other test sets",
        ("Test set", "Model"),
        (("", ("Images",)), ("Pixel level", tuple(METRICS)), ("Paired", ("F1 minus QMA-Net",))),
        notes=["Test sets that the paper does not use, and models that are in none of its rows."],
    )
    published = published_tables()[1]  # For the number of decimals.
    settings = [setting_of(ablation.flags) for ablation in read_ablations()]
    for name in sorted({name for model in results.models for name in model.clean}):
        for model in results.models:
            is_in_paper = not model.is_ours or model.setting in settings
            if name not in model.clean or (name in TEST_SETS.values() and is_in_paper):
                continue
            result = model.clean[name]
            means = [_average([result], metric, of="test sets") for metric in METRICS.values()]
            cells = [
                Cell(str(result.summary["n_tampered"])),
                *(_cell(mean, published) for mean in means),
                _difference_from_default(results, model, name, published),
            ]
            labels = (name, full_name(model))
            table.rows.append(Row(MEASURED, labels, tuple(cells), model.is_default))
    return table


def _difference_from_default(
    results: Results, model: ModelResults, test_set: str, published: PublishedTable
) -> Cell:
    """Compare the F1 with that of the default model of the same variant."""
    alike = _models_with_setting(results.models, model.variant, {})
    base = next((other for other in alike if test_set in other.clean), None)
    if not model.is_ours or model.is_default or base is None:
        return Cell()
    differences = _paired_differences(base, model, test_set, "pixel_f1")
    paired = paired_bootstrap([0.0] * len(differences), differences) if differences else None
    if not paired:
        return Cell(DASH, hint=UNPAIRED)
    note = f"p = {paired['p_value']:.3f}, {paired['n']} images"
    measurement = Measurement(paired["difference"], paired["interval"], note)
    return _cell(measurement, published, minus=0.0)


def other_attacks(results: Results) -> Table:
    """List averages under attacks, or on test sets, that Tables 7 and 8 do not contain."""
    table = Table(
        "other-attacks",
        "Robustness to other attacks",
        ("Test set", "Model", "Attack"),
        (("", ("Levels",)), ("Average over the levels", ("F1", "IoU", "AUC"))),
        notes=[
            "The averages do not include the clean images.",
            "gaussian-noise interprets the levels of GN as standard deviations.",
        ],
    )
    published = published_tables()
    in_paper = {column.test_set for number in (7, 8) for column in published[number].columns}
    for name in sorted({name for model in results.models for name in model.attacked}):
        for model in results.models:
            attacks = model.attacked.get(name, {})
            for attack in dict.fromkeys(attack for attack, _ in attacks):
                is_shown = name in in_paper and (model.is_default or not model.is_ours)
                if is_shown and attack in ATTACKS.values():
                    continue
                levels = sorted(level for other, level in attacks if other == attack)
                cells = [Cell(", ".join(map(str, levels)))]
                for metric in ("pixel_f1", "iou", "auc"):
                    mean = _measure_attack(model, name, attack, metric)
                    cells.append(_cell(mean, published[7]))
                labels = (name, full_name(model), attack)
                table.rows.append(Row(MEASURED, labels, tuple(cells), model.is_default))
    return table


def checkpoint_comparisons(results: Results) -> Table:
    """List the comparisons in ``comparison.json``: checkpoints that were evaluated together."""
    table = Table(
        "comparisons",
        "Checkpoints compared on the same images",
        ("Test set", "Difference"),
        (("", ("F1", "IoU", "p (F1)", "Images")),),
        notes=["Written by qma-net evaluate for several checkpoints; paired bootstrap."],
    )
    published = published_tables()[1]  # For the number of decimals.
    for path, comparison in results.comparisons.items():
        for name, pairs in comparison.items():
            for title, differences in pairs.items():
                f1, iou = (differences.get(metric) or {} for metric in ("pixel_f1", "iou"))
                cells = []
                for paired in (f1, iou):
                    values = paired.get("difference"), paired.get("interval"), str(path)
                    cells.append(_cell(Measurement(*values), published, minus=0.0))
                # A bootstrap with 2000 draws cannot resolve smaller p-values.
                p = f1.get("p_value", 0)
                cells.append(Cell(f"{p:.3f}" if p >= 0.001 else "< 0.001") if f1 else MISSING)
                cells.append(Cell(str(f1["n"])) if f1 else MISSING)
                table.rows.append(Row(MEASURED, (name, title), tuple(cells)))
    return table


def benco_sweeps(results: Results) -> Table:
    """List the logs of BenCo's own ``test_robust.py``; without images there are no intervals."""
    table = Table(
        "benco-robustness",
        "BenCo's own test_robust.py",
        ("Folder", "Attack"),
        (("", ("Levels", "Pixel F1 at every level", "Average")),),
        notes=[
            "As logged. In every run, BenCo draws new noise and the JPEG quality from {q - 1, q}, "
            "and it counts authentic images as 0; Tables 7 and 8 are based on qma-net robust."
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
            table.rows.append(Row(MEASURED, (str(folder), transform), tuple(map(Cell, texts))))
    return table
