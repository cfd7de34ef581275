"""The paper's Tables 1 to 10 and a few more: published figures, ours, and the difference.

Here is said which run belongs to which row and which of its figures to which cell.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..data.published import DATASETS
from ..evaluate import SEED
from ..metrics import paired_bootstrap
from .layout import ABSENT, DASH, MINUS, MISSING, Cell, Row, Table
from .paper import (
    ATTACKS,
    SETS,
    Column,
    Published,
    normalised,
    paper_levels,
    published_tables,
    read_ablations,
)
from .results import Results, Run, mean_and_interval, setting_of

OURS, PAPER = "QMA-Net (ours)", "QMA-Net (paper)"
PUBLISHED, MEASURED, DIFFERENCE = "As published", "Measured here", "Measured here minus published"
PAIRED = "Measured here: setting minus QMA-Net (ours), on the same images"


@dataclass(frozen=True)
class Figure:
    """A measured mean and its interval; without a value, why there is none."""

    value: float | None
    interval: list[float] | None = None
    why: str = ABSENT


def figure(run: Run, column: Column, published: Published) -> Figure:
    """What a run measured for a column: a mean, or an average where all its cells are there."""
    if column.is_average:
        return _average(run, published.averaged(column))
    if column.attack:
        return _under_attack(run, column.set, column.attack, column.metric)
    result = run.clean.get(column.set)
    if result is None:
        return Figure(None)
    value = result.figures.get(column.metric)
    interval = result.figures.get("intervals", {}).get(column.metric)
    return Figure(value, interval, "" if value is not None else "undefined on these images")


def _average(run: Run, columns: Sequence[Column]) -> Figure:
    found = [run.clean.get(column.set) for column in columns]
    metric = columns[0].metric
    values = [result.figures.get(metric) if result else None for result in found]
    if None in values:
        there = sum(value is not None for value in values)
        return Figure(None, why=f"{there} of {len(values)} test sets" if there else ABSENT)
    lists = [list(result.values(metric).values()) for result in found]
    interval = mean_and_interval(lists)[1] if all(lists) else None
    return Figure(sum(values) / len(values), interval, "")


def _under_attack(run: Run, name: str, attack: str, metric: str) -> Figure:
    """The mean over all levels of an attack, photographs as they are not among them."""
    place = run.attacked.get(name, {})
    levels = paper_levels().get(attack) or [level for one, level in place if one == attack]
    found = [place[attack, level] for level in levels if (attack, level) in place]
    if not found or len(found) < len(levels):
        return Figure(None, why=f"{len(found)} of {len(levels)} levels" if found else ABSENT)
    values = [result.figures.get(metric) for result in found]
    if None in values:
        return Figure(None, why="undefined on these images")
    images = [result.values(metric) for result in found]
    common = [path for path in images[0] if all(path in one for one in images)]
    per_image = [sum(one[path] for one in images) / len(images) for path in common]
    interval = mean_and_interval([per_image])[1] if per_image else None
    return Figure(sum(values) / len(values), interval, "")


def all_tables(results: Results) -> list[Table]:
    """The paper's ten, then those of what the paper has no table for, where there is anything."""
    build = {2: ablations, 3: counts, 4: counts, 9: ablations, 10: costs}
    paper = published_tables()
    tables = [build.get(number, comparison)(paper[number], results) for number in sorted(paper)]
    more = (other_sets(results), other_attacks(results), comparisons(results))
    return [*tables, *(table for table in more if table.rows)]


def comparison(published: Published, results: Results) -> Table:
    """Tables 1 and 5 to 8: the peers, QMA-Net's row, ours, and ours minus the paper's."""
    table = published.new()
    ours = [run for run in results.runs if run.is_default and _touches(run, published)]
    others = [run for run in results.runs if not run.is_ours and _touches(run, published)]
    for labels, cells in published.rows:
        if labels[0] != published.ours:
            table.rows.append(_published_row(published, labels, cells))
    table.rows.append(_published_row(published, (PAPER,), published.our_cells, True))
    as_paper = next((run for run in ours if not run.variant), None)
    measured = [(our_name(run), run, published.our_cells) for run in ours]
    if not as_paper:  # another size does not stand for the paper's
        measured.insert(0, (OURS, None, published.our_cells))
    for run in others:
        name, cells = _peer(published, run)
        measured.append((_with(f"{name} (measured here)", run.label), run, cells))
    _measured_rows(table, published, measured)
    if "GN" in [column.name for column in published.columns]:
        _noise_as_benco(table, published, ours)
    _say_missing(table, published, as_paper)
    _say_sizes(table, published, [run for _, run, _ in measured])
    return table


def _touches(run: Run, published: Published) -> bool:
    """Whether a run has anything for a table of the paper's, be it unfinished."""
    return any(figure(run, column, published).why != ABSENT for column in published.columns)


def our_name(run: Run | None) -> str:
    return _with(OURS, run.label if run else "")


def _with(name: str, label: str) -> str:
    """``name (x)`` and a label: ``name (x, label)``."""
    if not label:
        return name
    return f"{name[:-1]}, {label})" if name.endswith(")") else f"{name} ({label})"


def _peer(published: Published, run: Run) -> tuple[str, tuple]:
    """The paper's name and cells of another model; its own name and none without."""
    for labels, cells in published.rows:
        if normalised(labels[0]) == normalised(run.model):
            return labels[0], cells
    return run.model, (None,) * len(published.columns)


def _published_row(published: Published, labels, cells, is_ours: bool = False) -> Row:
    shown = tuple(
        Cell(published.show(cell), why="" if cell is not None else "not in the paper")
        for cell in cells
    )
    return Row(PUBLISHED, tuple(labels), shown, is_ours)


def _measured_rows(table: Table, published: Published, measured) -> None:
    """Rows (name, run or None, the paper's cells), and then their differences."""
    for block in (MEASURED, DIFFERENCE):
        for name, run, cells in measured:
            labels = name if isinstance(name, tuple) else (name,)
            shown = []
            for column, cell in zip(published.columns, cells, strict=True):
                found = figure(run, column, published) if run else Figure(None)
                minus = None if block == MEASURED else cell
                absent = block == DIFFERENCE and cell is None
                shown.append(MISSING if absent else _cell(found, published, minus))
            is_ours = run is not None and run.is_default
            table.rows.append(Row(block, labels, tuple(shown), is_ours))


def _cell(found: Figure, published: Published, minus: float | None = None) -> Cell:
    """A figure with its interval, less a published one where it is given."""
    if found.value is None:
        return Cell(DASH, why=found.why)
    is_difference, minus = minus is not None, minus or 0.0
    text = published.show(found.value - minus, is_difference)
    if not found.interval:
        return Cell(text, why="no CSV beside the result, hence no interval")
    edges = (published.show(edge - minus, is_difference) for edge in found.interval)
    return Cell(text, f"[{', '.join(edges)}]")


def _noise_as_benco(table: Table, published: Published, ours: list[Run]) -> None:
    """One row more where the noise was also measured with BenCo's reading of its parameter."""
    for run in ours:
        cells = []
        for column in published.columns:
            found = Figure(None, why="as above")
            if column.name == "GN":
                name = f"{ATTACKS['GN']}-variance"
                found = _under_attack(run, column.set, name, column.metric)
            cells.append(_cell(found, published))
        if any(cell.text != DASH for cell in cells):
            name = _with(our_name(run), "GN as a variance")
            table.rows.append(Row(MEASURED, (name,), tuple(cells), True))


def _say_missing(table: Table, published: Published, run: Run | None) -> None:
    """The command that makes what a run lacks for a table."""
    columns = [column for column in published.columns if not column.is_average]
    lacking = [c for c in columns if run is None or figure(run, c, published).value is None]
    places = " ".join(f"ROOT/{name}" for name in dict.fromkeys(c.set for c in lacking))
    if not lacking:
        return
    command = "robust" if lacking[0].attack else "evaluate"
    checkpoint = run.header["checkpoint"] if run else "CHECKPOINT"
    line = f"qma-net {command} --checkpoint {checkpoint} --test-sets {places} --out DIR"
    table.commands += [line] if line not in table.commands else []


def _say_sizes(table: Table, published: Published, runs: Iterable[Run | None]) -> None:
    """A note where a test set has another number of tampered images here than in the paper."""
    counted = {labels[0]: cells[4] for labels, cells in published_tables()[4].rows}
    counted = {SETS.get(normalised(name)): count for name, count in counted.items()}
    wanted = {column.set for column in published.columns}
    attacked = any(column.attack for column in published.columns)
    for run in filter(None, runs):
        for name in sorted(wanted & set(run.attacked if attacked else run.clean)):
            places = run.attacked[name].values() if attacked else [run.clean[name]]
            here, paper = next(iter(places)).figures["n_tampered"], counted.get(name)
            note = f"{name}: {here} tampered images here, {paper} in the paper."
            if here != paper and note not in table.notes:
                table.notes.append(note)


def ablations(published: Published, results: Results) -> Table:
    """Tables 2 and 9: every setting, and its paired difference from the default model."""
    table = published.new()
    for labels, cells in published.rows:
        is_ours = labels[0] == published.ours
        table.rows.append(_published_row(published, labels, cells, is_ours))
    settings = {one.row: one for one in read_ablations() if one.table == published.number}
    touching = [run for run in results.runs if run.is_ours and _touches(run, published)]
    families = list(dict.fromkeys(run.variant for run in touching))
    measured, paired, absent = [], [], []
    for family in families or [()]:
        base = _runs_of(touching, family, {})
        for labels, cells in published.rows:
            setting = next((settings[label] for label in labels if label in settings), None)
            found = _runs_of(touching, family, setting.flags) if setting else []
            absent += [setting.name] if setting and not found else []
            for run in found or [None]:
                words = run.label if run else ", ".join(family)
                name = (_with(f"{_bare(labels[0])} (ours)", words), *labels[1:])
                measured.append((name, run, cells))
                if labels[0] != published.ours:
                    paired.append((name, base[0] if base else None, run))
            for run in found:
                _say_missing(table, published, run)
    if absent:
        names = ",".join(dict.fromkeys(absent))
        table.commands.insert(0, f"bash shell/ablations.sh --only {names}")
    _measured_rows(table, published, measured)
    for name, base, run in paired:
        cells = [_paired_cell(base, run, column, published) for column in published.columns]
        table.rows.append(Row(PAIRED, name, tuple(cells)))
    _say_sizes(table, published, [run for _, run, _ in measured])
    return table


def _bare(label: str) -> str:
    """A label without its "(Ours)"."""
    return label.removesuffix("(Ours)").rstrip()


def _runs_of(runs: Iterable[Run], family: tuple[str, ...], flags: dict) -> list[Run]:
    """Runs of one setting of Tables 2 and 9 among models that are otherwise alike."""
    wanted = setting_of(flags)
    return [run for run in runs if run.is_ours and run.variant == family and run.setting == wanted]


def _paired_cell(base: Run | None, run: Run | None, column: Column, published: Published) -> Cell:
    """A setting minus the default on the images that both have; an average resamples each set."""
    if base is None or run is None:
        return MISSING
    columns = published.averaged(column) if column.is_average else [column]
    differences = [paired_values(base, run, one.set, one.metric) for one in columns]
    if not all(differences):
        return Cell(DASH, why="no CSV files of both on the same images")
    value, interval = mean_and_interval(differences)
    low, high = (published.show(edge, True) for edge in interval)
    why = f"{sum(map(len, differences))} images"
    return Cell(published.show(value, True), f"[{low}, {high}]", why)


def paired_values(base: Run, run: Run, name: str, metric: str) -> list[float]:
    """Differences run - base on the images that both saw, matched by path."""
    found = [one.clean.get(name) for one in (base, run)]
    if None in found:
        return []
    first, second = (result.values(metric) for result in found)
    return [second[path] - first[path] for path in first if path in second]


def counts(published: Published, results: Results) -> Table:
    """Tables 3 and 4: datasets as ``data prepare`` and ``data check --json`` counted them."""
    table = published.new()
    names = [column.name for column in published.columns]
    at = names.index("Number")
    measured, differences = [], []
    for labels, cells in published.rows:
        table.rows.append(_published_row(published, labels, cells))
        if labels[0] == "Total":
            number, smallest, largest = _totals(measured)
        else:
            number, smallest, largest = _counted(labels[0], results, table)
        here = [number, smallest, largest]
        measured.append((labels, here))
        by_type = [Cell(DASH, why="no command counts these")] * at
        shown = [Cell(published.show(value)) if value is not None else MISSING for value in here]
        table.rows.append(Row(MEASURED, labels, (*by_type, *shown)))
        gap = Cell(published.show(number - cells[at], True)) if number is not None else MISSING
        blank = Cell("", why="")
        differences.append(Row(DIFFERENCE, labels, (*[blank] * at, gap, blank, blank)))
    table.rows += differences
    return table


def _counted(label: str, results: Results, table: Table) -> tuple:
    """Tampered images, smallest and largest resolution of a dataset; None where unknown."""
    name = normalised(label)
    prepared, checked = results.prepared.get(name), results.checked.get(name)
    spelt = next((one for one in DATASETS if normalised(one) == name), label)
    if not prepared and not checked:
        table.commands.append(f"qma-net data prepare {spelt} --source ARCHIVE --out ROOT/{spelt}")
    if not checked:
        table.commands.append(f"qma-net data check ROOT/{spelt} --json > ROOT/{spelt}.check.json")
    number = prepared["tampered"] if prepared else checked["tampered"] if checked else None
    sizes = (checked["smallest"] or None, checked["largest"] or None) if checked else (None, None)
    return number, *sizes


def _totals(measured: list) -> tuple:
    """Sum and range over all datasets; None where one is missing. Resolutions by area."""
    numbers, smallest, largest = zip(*(here for _, here in measured), strict=True)

    def area(size: str) -> int:
        width, height = size.split("x")
        return int(width) * int(height)

    return (
        None if None in numbers else sum(numbers),
        None if None in smallest else min(smallest, key=area),
        None if None in largest else max(largest, key=area),
    )


def costs(published: Published, results: Results) -> Table:
    """Table 10: parameters and multiply-adds, as BenCo's complexity script printed them."""
    table = published.new()
    for labels, cells in published.rows:
        name = PAPER if labels[0] == published.ours else labels[0]
        is_ours = labels[0] == published.ours
        table.rows.append(_published_row(published, (name,), cells, is_ours))
    measured = []
    for one in results.complexities:
        values = (one.parameters / 1e6, one.multiply_adds / 1e9)
        header = {"model": one.model, "model_flags": one.flags, "image_size": one.image_size}
        run = Run(header)
        words = [*run.variant, *_setting_words(run)]
        if run.is_ours:
            name, paper = OURS, () if words else published.our_cells
        else:
            name, paper = _peer(published, run)
            name = f"{name} (measured here)"
        measured.append((_with(name, ", ".join(words)), values, paper, bool(words)))
    measured.sort(key=lambda row: (not row[0].startswith(OURS[:-1]), row[3], row[0]))
    empty = [(OURS, (None, None), published.our_cells, False)]
    for name, values, _, _ in measured or empty:
        cells = tuple(MISSING if v is None else Cell(published.show(v)) for v in values)
        table.rows.append(Row(MEASURED, (name,), cells, name.startswith(OURS[:-1])))
    for name, values, paper, _ in measured or empty:
        if paper and None not in paper:
            pairs = zip(values, paper, strict=True)
            cells = tuple(MISSING if v is None else _share(v, p, published) for v, p in pairs)
            table.rows.append(Row(DIFFERENCE, (name,), cells, name.startswith(OURS[:-1])))
    if not any(name == OURS for name, *_ in measured):
        table.commands.append(
            "qma-net test_complexity --model QMANet --noiseprint_weights noiseprint++.th "
            "--image_size 512 --if_resizing --test_batch_size 1 | tee DIR/complexity.txt"
        )
    return table


def _share(value: float, paper: float, published: Published) -> Cell:
    share = f"{(value - paper) / paper:+.1%}".replace("-", MINUS)
    return Cell(published.show(value - paper, True), f"({share})")


def _setting_words(run: Run) -> list[str]:
    """A setting's name in ``ablations.yaml``, else its flags; nothing for the default."""
    if not run.is_ours or run.is_default:
        return []
    named = [one for one in read_ablations() if setting_of(one.flags) == run.setting]
    default = setting_of({})
    flags = [f"{key} {value}" for key, value in run.setting.items() if value != default[key]]
    return [named[0].name] if named else flags


def name_of(run: Run) -> str:
    """A run in one cell: model, setting, and what tells it apart."""
    name = "QMA-Net" if run.is_ours else run.model
    words = [*_setting_words(run), *([run.label] if run.label else [])]
    return f"{name} ({', '.join(words)})" if words else name


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


def _cell_signed(found: Figure, printed: Published) -> Cell:
    return _cell(found, printed) if found.value is None else _cell(found, printed, 0.0)


def _p_value(found: dict) -> str:
    """A bootstrap of 2000 draws cannot tell less than 0.001."""
    return f"{found['p_value']:.3f}" if found["p_value"] >= 0.001 else "< 0.001"
