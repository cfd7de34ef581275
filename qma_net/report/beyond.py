"""Tables of what the paper has no table for."""

from ..evaluation.metrics import SEED, paired_bootstrap
from .layout import DASH, MISSING, Cell, Row, Table
from .measured import (
    MEASURED,
    Figure,
    _cell,
    _cell_signed,
    _runs_of,
    _under_attack,
    name_of,
    paired_values,
)
from .paper import ATTACKS, SETS, Published, published_tables, read_ablations
from .results import Results, Run, setting_of


def _is_in_the_paper(run: Run) -> bool:
    """Whether some row of Tables 1, 2 or 9 is this run's."""
    settings = [setting_of(one.flags) for one in read_ablations() if one.table in (2, 9)]
    return not run.is_ours or run.is_default or run.setting in settings


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
    printed = published_tables()[1]
    for name in sorted({name for run in results.runs for name in run.clean}):
        for run in results.runs:
            result = run.clean.get(name)
            if result is None or (name in SETS.values() and _is_in_the_paper(run)):
                continue
            cells = [Cell(str(result.figures["n_tampered"]))]
            for metric in metrics.values():
                value, interval = (
                    one.get(metric) for one in (result.figures, result.figures["intervals"])
                )
                cells.append(_cell(Figure(value, interval, "undefined"), printed))
            cells.append(_paired_with_default(results, run, name, printed))
            labels = (name, name_of(run))
            table.rows.append(Row(MEASURED, labels, tuple(cells), run.is_default))
    return table


def _paired_with_default(results: Results, run: Run, name: str, printed: Published) -> Cell:
    """F1 against the default model of the same family; empty for that model itself."""
    base = [one for one in _runs_of(results.runs, run.variant, {}) if name in one.clean]
    if not run.is_ours or run.is_default or not base:
        return Cell("")
    differences = paired_values(base[0], run, name, "pixel_f1")
    if not differences:
        return Cell(DASH, why="no CSV files of both on the same images")
    found = paired_bootstrap([0.0] * len(differences), differences, SEED)
    edges = ", ".join(printed.show(edge, True) for edge in found["interval"])
    why = f"p = {found['p_value']:.3f}, {found['n']} images"
    return Cell(printed.show(found["difference"], True), f"[{edges}]", why)


def other_attacks(results: Results) -> Table:
    """Averages under attacks that Tables 7 and 8 do not hold."""
    table = Table(
        "other-attacks",
        "Robustness beyond Tables 7 and 8",
        ("Test set", "Model", "Attack"),
        [("", ["Levels"]), ("Average over the levels", ["F1", "IoU", "AUC"])],
        notes=["Photographs as they are are in no average."],
    )
    printed = published_tables()[7]
    in_paper = {column.set for number in (7, 8) for column in published_tables()[number].columns}
    for name in sorted({name for run in results.runs for name in run.attacked}):
        for run in results.runs:
            place = run.attacked.get(name, {})
            for attack in dict.fromkeys(attack for attack, _ in place):
                shown = name in in_paper and (run.is_default or not run.is_ours)
                if shown and attack in (*ATTACKS.values(), f"{ATTACKS['GN']}-variance"):
                    continue
                levels = [level for one, level in place if one == attack]
                figures = [
                    _under_attack(run, name, attack, metric)
                    for metric in ("pixel_f1", "iou", "auc")
                ]
                cells = [Cell(", ".join(map(str, sorted(levels))))]
                cells += [_cell(found, printed) for found in figures]
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
    printed = published_tables()[1]
    for path, content in results.comparisons.items():
        for name, pairs in content.items():
            for title, found in pairs.items():
                cells = []
                for metric in ("pixel_f1", "iou"):
                    one = found.get(metric) or {}
                    value = Figure(one.get("difference"), one.get("interval"), "undefined")
                    cells.append(_cell_signed(value, printed))
                f1 = found.get("pixel_f1")
                cells.append(Cell(_p_value(f1)) if f1 else MISSING)
                cells.append(Cell(str(f1["n"])) if f1 else MISSING)
                cells[0] = Cell(cells[0].text, cells[0].small, str(path))
                table.rows.append(Row(MEASURED, (name, title), tuple(cells)))
    return table


def _p_value(found: dict) -> str:
    """A bootstrap of 2000 draws cannot tell less than 0.001."""
    return f"{found['p_value']:.3f}" if found["p_value"] >= 0.001 else "< 0.001"
