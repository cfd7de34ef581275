"""Tables of what the paper has no table for."""

from ..evaluation.metrics import paired_bootstrap
from .layout import DASH, MISSING, Cell, Row, Table
from .measured import (
    MEASURED,
    UNPAIRED,
    Measured,
    measured_cell,
    name_of,
    paired_values,
    runs_of_setting,
    under_attack,
)
from .paper import ATTACKS, SETS, PublishedTable, published_tables, read_ablations
from .results import Results, Run, setting_of


def other_sets(results: Results) -> Table:
    """What was measured on test sets that the paper does not have, or with settings of no row."""
    metrics = {"F1": "pixel_f1", "permute-F1": "permute_f1", "IoU": "iou", "AUC": "auc"}
    table = Table(
        "other-test-sets",
        "Other test sets",
        ("Test set", "Model"),
        [("", ["Images"]), ("Pixel level", list(metrics)), ("Paired", ["F1 minus QMA-Net"])],
        notes=["Test sets that are not in the paper, and models that are in none of its rows."],
    )
    published = published_tables()[1]  # its number of decimals
    for name in sorted({name for run in results.runs for name in run.clean}):
        for run in results.runs:
            result = run.clean.get(name)
            if result is None or (name in SETS.values() and _is_in_the_paper(run)):
                continue
            cells = [Cell(str(result.summary["n_tampered"]))]
            for metric in metrics.values():
                value, interval = (
                    one.get(metric) for one in (result.summary, result.summary["intervals"])
                )
                cells.append(measured_cell(Measured(value, interval, "undefined"), published))
            cells.append(_paired_with_default(results, run, name, published))
            labels = (name, name_of(run))
            table.rows.append(Row(MEASURED, labels, tuple(cells), run.is_default))
    return table


def sweeps(results: Results) -> Table:
    """What BenCo's own ``test_robust.py`` logged, as it is: no images, so no intervals."""
    table = Table(
        "benco-robustness",
        "BenCo's own test_robust.py",
        ("Folder", "Attack"),
        [("", ["Levels", "Pixel F1, level by level", "Average"])],
        notes=[
            "As logged. It draws noise, and JPEG's quality from {q - 1, q}, anew in every run, and "
            "counts authentic images as 0; Tables 7 and 8 are made of qma-net robust's results."
        ],
    )
    for folder, found in results.sweeps.items():
        for transform, points in found.items():
            levels, f1 = zip(*points, strict=True)
            cells = (
                Cell(", ".join(f"{level:g}" for level in levels)),
                Cell(", ".join(f"{value:.3f}" for value in f1)),
                Cell(f"{sum(f1) / len(f1):.3f}"),
            )
            table.rows.append(Row(MEASURED, (str(folder), transform), cells))
    return table


def _is_in_the_paper(run: Run) -> bool:
    """Whether some row of Tables 1, 2 or 9 is this run's."""
    settings = [setting_of(one.flags) for one in read_ablations() if one.table in (2, 9)]
    return not run.is_ours or run.is_default or run.setting in settings


def _paired_with_default(results: Results, run: Run, name: str, published: PublishedTable) -> Cell:
    """F1 against the default model of the same variant; empty for that model itself."""
    base = [one for one in runs_of_setting(results.runs, run.variant, {}) if name in one.clean]
    if not run.is_ours or run.is_default or not base:
        return Cell("")
    differences = paired_values(base[0], run, name, "pixel_f1")
    if not differences:
        return Cell(DASH, why=UNPAIRED)
    found = paired_bootstrap([0.0] * len(differences), differences)
    edges = ", ".join(published.show(edge, sign=True) for edge in found["interval"])
    why = f"p = {found['p_value']:.3f}, {found['n']} images"
    return Cell(published.show(found["difference"], sign=True), f"[{edges}]", why)


def other_attacks(results: Results) -> Table:
    """Averages under attacks that Tables 7 and 8 do not hold."""
    table = Table(
        "other-attacks",
        "Robustness beyond Tables 7 and 8",
        ("Test set", "Model", "Attack"),
        [("", ["Levels"]), ("Average over the levels", ["F1", "IoU", "AUC"])],
        notes=[
            "Photographs as they are are in no average.",
            "gaussian-noise is the other reading of GN: its levels as standard deviations.",
        ],
    )
    published = published_tables()[7]
    in_paper = {column.set for number in (7, 8) for column in published_tables()[number].columns}
    for name in sorted({name for run in results.runs for name in run.attacked}):
        for run in results.runs:
            place = run.attacked.get(name, {})
            for attack in dict.fromkeys(attack for attack, _ in place):
                shown = name in in_paper and (run.is_default or not run.is_ours)
                if shown and attack in ATTACKS.values():
                    continue
                levels = [level for one, level in place if one == attack]
                cells = [Cell(", ".join(map(str, sorted(levels))))]
                for metric in ("pixel_f1", "iou", "auc"):
                    found = under_attack(run, name, attack=attack, metric=metric)
                    cells.append(measured_cell(found, published))
                labels = (name, name_of(run), attack)
                table.rows.append(Row(MEASURED, labels, tuple(cells), run.is_default))
    return table


def comparisons(results: Results) -> Table:
    """What ``comparison.json`` holds: checkpoints evaluated together, image by image."""
    table = Table(
        "comparisons",
        "Checkpoints compared on the same images",
        ("Test set", "Difference"),
        [("", ["F1", "IoU", "p (F1)", "Images"])],
        notes=["As written by qma-net evaluate with several checkpoints; paired bootstrap."],
    )
    published = published_tables()[1]  # its number of decimals
    for path, content in results.comparisons.items():
        for name, pairs in content.items():
            for title, found in pairs.items():
                cells = []
                for metric in ("pixel_f1", "iou"):
                    one = found.get(metric) or {}
                    value = Measured(one.get("difference"), one.get("interval"), "undefined")
                    cells.append(measured_cell(value, published, minus=0.0))
                f1 = found.get("pixel_f1")
                cells.append(Cell(_p_value(f1)) if f1 else MISSING)
                cells.append(Cell(str(f1["n"])) if f1 else MISSING)
                cells[0] = Cell(cells[0].text, cells[0].small, str(path))
                table.rows.append(Row(MEASURED, (name, title), tuple(cells)))
    return table


def _p_value(found: dict) -> str:
    """A bootstrap of 2000 draws cannot tell less than 0.001."""
    return f"{found['p_value']:.3f}" if found["p_value"] >= 0.001 else "< 0.001"
