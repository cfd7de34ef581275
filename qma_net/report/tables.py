"""The paper's Tables 1 to 10 and a few more: published numbers, ours, and the difference.

Here is said which run belongs to which row and which of its numbers to which cell.
"""

from collections.abc import Iterable

from ..evaluation.metrics import mean_and_interval
from .beyond import comparisons, other_attacks, other_sets, sweeps
from .counts import counts
from .layout import DASH, MINUS, MISSING, Cell, Row, Table
from .measured import (
    DIFFERENCE,
    MEASURED,
    OURS,
    PAIRED,
    PAPER,
    UNPAIRED,
    Measured,
    has_any_of,
    measured_by,
    measured_cell,
    our_name,
    paired_values,
    published_row,
    runs_of_setting,
    setting_words,
    with_label,
)
from .paper import (
    SETS,
    Column,
    PublishedTable,
    normalised_name,
    paper_model,
    published_tables,
    read_ablations,
)
from .results import Results, Run


def all_tables(results: Results) -> list[Table]:
    """The paper's ten, then those of what the paper has no table for, where there is anything."""
    build = {2: ablations, 3: counts, 4: counts, 9: ablations, 10: costs}
    paper = published_tables()
    tables = [build.get(number, comparison)(paper[number], results) for number in sorted(paper)]
    more = (other_sets(results), other_attacks(results), comparisons(results), sweeps(results))
    return [*tables, *(table for table in more if table.rows)]


def comparison(published: PublishedTable, results: Results) -> Table:
    """Tables 1 and 5 to 8: the peers, QMA-Net's row, ours, and ours minus the paper's."""
    table = published.empty_table()
    ours = [run for run in results.runs if run.is_default and has_any_of(run, published)]
    others = [run for run in results.runs if not run.is_ours and has_any_of(run, published)]
    for labels, cells in published.rows:
        if labels[0] != published.ours:
            table.rows.append(published_row(published, labels, cells))
    table.rows.append(published_row(published, (PAPER,), published.our_cells, is_ours=True))
    as_paper = next((run for run in ours if not run.variant), None)
    measured = [(our_name(run), run, published.our_cells) for run in ours]
    if not as_paper:  # another size does not stand for the paper's
        measured.insert(0, (OURS, None, published.our_cells))
    for run in others:
        name, cells = _peer(published, run)
        measured.append((with_label(f"{name} (measured here)", run.label), run, cells))
    _measured_rows(table, published, measured)
    _say_missing(table, published, as_paper)
    _say_sizes(table, published, [run for _, run, _ in measured])
    return table


def _peer(published: PublishedTable, run: Run) -> tuple[str, tuple]:
    """The paper's name and cells of another model; no cells where the table has no row of it."""
    for labels, cells in published.rows:
        if normalised_name(labels[0]) == normalised_name(run.model):
            return labels[0], cells
    return paper_model(run.model), (None,) * len(published.columns)


def _measured_rows(table: Table, published: PublishedTable, measured) -> None:
    """Rows (name, run or None, the paper's cells), and then their differences."""
    for block in (MEASURED, DIFFERENCE):
        for name, run, cells in measured:
            labels = name if isinstance(name, tuple) else (name,)
            shown = []
            for column, cell in zip(published.columns, cells, strict=True):
                found = measured_by(run, column, published) if run else Measured(None)
                minus = None if block == MEASURED else cell
                absent = block == DIFFERENCE and cell is None
                shown.append(MISSING if absent else measured_cell(found, published, minus))
            is_ours = run is not None and run.is_default
            table.rows.append(Row(block, labels, tuple(shown), is_ours))


def _say_missing(table: Table, published: PublishedTable, run: Run | None) -> None:
    """The command that makes what a run lacks for a table."""
    columns = [column for column in published.columns if not column.is_average]
    lacking = [c for c in columns if run is None or measured_by(run, c, published).value is None]
    places = " ".join(f"ROOT/{name}" for name in dict.fromkeys(c.set for c in lacking))
    if not lacking:
        return
    command = "robust" if lacking[0].attack else "evaluate"
    checkpoint = run.header["checkpoint"] if run else "CHECKPOINT"
    line = f"qma-net {command} --checkpoint {checkpoint} --test-sets {places} --out DIR"
    table.commands += [line] if line not in table.commands else []


def _say_sizes(table: Table, published: PublishedTable, runs: Iterable[Run | None]) -> None:
    """A note where a test set has another number of tampered images here than in the paper."""
    counted = {labels[0]: cells[4] for labels, cells in published_tables()[4].rows}
    counted = {SETS.get(normalised_name(name)): count for name, count in counted.items()}
    wanted = {column.set for column in published.columns}
    attacked = any(column.attack for column in published.columns)
    for run in filter(None, runs):
        for name in sorted(wanted & set(run.attacked if attacked else run.clean)):
            places = run.attacked[name].values() if attacked else [run.clean[name]]
            here, paper = next(iter(places)).summary["n_tampered"], counted.get(name)
            note = f"{name}: {here} tampered images here, {paper} in the paper."
            if here != paper and note not in table.notes:
                table.notes.append(note)


def ablations(published: PublishedTable, results: Results) -> Table:
    """Tables 2 and 9: every setting, and its paired difference from the default model."""
    table = published.empty_table()
    for labels, cells in published.rows:
        is_ours = labels[0] == published.ours
        table.rows.append(published_row(published, labels, cells, is_ours))
    settings = {one.row: one for one in read_ablations() if one.table == published.number}
    touching = [run for run in results.runs if run.is_ours and has_any_of(run, published)]
    variants = list(dict.fromkeys(run.variant for run in touching))
    measured, paired, absent = [], [], []
    for variant in variants or [()]:
        base = runs_of_setting(touching, variant, {})
        for labels, cells in published.rows:
            setting = next((settings[label] for label in labels if label in settings), None)
            found = runs_of_setting(touching, variant, setting.flags) if setting else []
            absent += [setting.name] if setting and not found else []
            for run in found or [None]:
                words = run.label if run else ", ".join(variant)
                name = (with_label(f"{_bare(labels[0])} (ours)", words), *labels[1:])
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


def _paired_cell(
    base: Run | None, run: Run | None, column: Column, published: PublishedTable
) -> Cell:
    """A setting minus the default on the images that both have; an average resamples each set."""
    if base is None or run is None:
        return MISSING
    columns = published.averaged(column) if column.is_average else [column]
    differences = [paired_values(base, run, one.set, one.metric) for one in columns]
    if not all(differences):
        return Cell(DASH, why=UNPAIRED)
    value, interval = mean_and_interval(differences)
    low, high = (published.show(edge, sign=True) for edge in interval)
    why = f"{sum(map(len, differences))} images"
    return Cell(published.show(value, sign=True), f"[{low}, {high}]", why)


def costs(published: PublishedTable, results: Results) -> Table:
    """Table 10: parameters and multiply-adds, as BenCo's complexity script printed them."""
    table = published.empty_table()
    for labels, cells in published.rows:
        name = PAPER if labels[0] == published.ours else labels[0]
        is_ours = labels[0] == published.ours
        table.rows.append(published_row(published, (name,), cells, is_ours))
    measured = []
    for one in results.complexities:
        values = (one.parameters / 1e6, one.multiply_adds / 1e9)
        header = {"model": one.model, "model_flags": one.flags, "image_size": one.image_size}
        run = Run(header)
        words = [*run.variant, *setting_words(run)]
        if run.is_ours:
            name, paper = OURS, () if words else published.our_cells
        else:
            name, paper = _peer(published, run)
            name = f"{name} (measured here)"
        measured.append((with_label(name, ", ".join(words)), values, paper, bool(words)))
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


def _share(value: float, paper: float, published: PublishedTable) -> Cell:
    """A difference from the paper's value, and under it as a share of that."""
    share = f"{(value - paper) / paper:+.1%}".replace("-", MINUS)
    return Cell(published.show(value - paper, sign=True), f"({share})")
