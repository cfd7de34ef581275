"""One HTML page that holds everything and needs nothing: tables, figures as data, inline style.

What was measured comes first: the runs, tables beyond the paper's, those of the paper's that have
anything measured beside them, figures. The paper's other tables follow, folded, a line each.
"""

import base64
from collections.abc import Iterable
from html import escape

from .. import __version__
from .layout import DASH, Cell, Figure, Table
from .measured import is_measured, name_of
from .paper import published_tables
from .results import DEFAULTS, Results, Run

INTERVALS = (
    "Our figures stand with their 95 % intervals: the photographs of a test set drawn anew 2000 "
    "times (bootstrap); for an average, those of every set. An interval says what other "
    "photographs would change, not what another training would. The paper prints no intervals, so "
    "a difference from it carries ours alone."
)

RUN_COLUMNS = (
    "Model",
    "Flags beyond the defaults",
    "Checkpoint",
    "SHA-256",
    "Images",
    "Test sets",
    "qma-net",
)

UNMEASURED = "The paper's tables that nothing was measured for yet"
FOLDED = (
    "Each line opens on what the paper printed, and names the command that puts ours beside it."
)

STYLE = """
:root { --ink: #1c2127; --quiet: #66707a; --line: #d9dee3; --ours: #eef5fb; --accent: #1f5f99; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 5rem; max-width: 84rem; color: var(--ink);
  background: #fff; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 3rem 0 .6rem; }
p, ul { max-width: 48rem; }
nav { columns: 2; column-gap: 2rem; margin: 1.5rem 0; font-size: .92rem; }
nav a { display: block; padding: .08rem 0; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums;
  border-top: 2px solid var(--ink); border-bottom: 2px solid var(--ink); }
th, td { padding: .26rem .45rem; text-align: right; vertical-align: top; white-space: nowrap; }
th[scope=row], thead th.label, .left { text-align: left; font-weight: 400; }
thead th { font-weight: 600; border-bottom: 1px solid var(--line); }
thead th.group { text-align: center; }
tbody th.block { text-align: left; font-weight: 600; color: var(--quiet); font-size: .8rem;
  padding-top: .7rem; border-top: 1px solid var(--line); }
tr.ours { background: var(--ours); }
td small { display: block; color: var(--quiet); font-size: .74em; letter-spacing: -.01em; }
td.missing { color: #a3abb3; cursor: help; }
details { margin: .5rem 0; } details[open] { margin-bottom: 2.5rem; }
summary { cursor: pointer; } summary .command { color: var(--quiet); font-size: .88rem; }
.notes, .missing-list { font-size: .88rem; color: var(--quiet); }
code { font: .86em/1.4 ui-monospace, Menlo, Consolas, monospace; background: #f4f6f8;
  padding: .1em .3em; border-radius: 3px; overflow-wrap: anywhere; }
figure { margin: 1rem 0 2rem; } figure img { max-width: 100%; height: auto; }
figcaption { font-size: .88rem; color: var(--quiet); max-width: 48rem; }
@media print { body { max-width: none; padding: 0; } h2 { break-after: avoid; } }
"""


def page(results: Results, tables: list[Table], figures: list[Figure], dirs: Iterable) -> str:
    """The whole page as HTML.

    Args:
        results: for the runs and the notes.
        tables: the paper's in its order, then those beyond it.
        figures: drawn, as files.
        dirs: where the results were found.
    """
    measured = [table for table in tables if is_measured(table)]
    measured.sort(key=_is_of_the_paper)
    unmeasured = [table for table in tables if not is_measured(table)]
    where = ", ".join(f"<code>{escape(str(one))}</code>" for one in dirs)
    links = [(table.key, table.title) for table in measured]
    links += [(f"figure-{i}", figure.title) for i, figure in enumerate(figures)]
    links += [("unmeasured", UNMEASURED)] if unmeasured else []
    body = [
        "<h1>QMA-Net: the paper's tables, and ours beside them</h1>",
        f"<p>Made by qma-net {__version__} from the result files in {where}.</p>",
        f"<p>{INTERVALS}</p>",
        "<nav>"
        + "".join(f'<a href="#{key}">{escape(title)}</a>' for key, title in links)
        + "</nav>",
        _runs(results.runs),
        *(_section(table) for table in measured),
        *(_figure(f"figure-{i}", figure) for i, figure in enumerate(figures)),
    ]
    if unmeasured:
        body.append(f'<h2 id="unmeasured">{UNMEASURED}</h2><p>{FOLDED}</p>')
        body += map(_folded, unmeasured)
    if results.notes:
        body.append("<h2>About the files</h2>" + _list(map(escape, results.notes), "notes"))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>QMA-Net report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _runs(runs: list[Run]) -> str:
    """Which checkpoints were measured, and how."""
    if not runs:
        return "<p>No results of <code>qma-net evaluate</code> or <code>robust</code>.</p>"
    head = "".join(f'<th class="label">{name}</th>' for name in RUN_COLUMNS)
    rows = []
    for run in runs:
        header = run.header
        fit, side = header["fit"], header["image_size"]
        flags = [
            f"{key} {value}"
            for key, value in header["model_flags"].items()
            if value != "" and str(value) != str(DEFAULTS.get(key))
        ]
        cells = (
            "; ".join([name_of(run), *([header["about"]] if header.get("about") else [])]),
            ", ".join(flags),
            header["checkpoint"],
            header["checkpoint_sha256"][:12],
            "own size" if fit == "native" else f"{fit}, {side}",
            ", ".join([*run.clean, *(f"{name} attacked" for name in run.attacked)]),
            header.get("versions", {}).get("qma-net", "?"),
        )
        wrap = 'style="white-space: normal; min-width: 9rem"'
        rows.append("".join(f'<td class="left" {wrap}>{escape(cell)}</td>' for cell in cells))
    rows = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<h2 id="runs">What was measured</h2><div class="scroll"><table><thead><tr>{head}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


def _is_of_the_paper(table: Table) -> bool:
    return table.key in {f"table-{number}" for number in published_tables()}


def _section(table: Table) -> str:
    return f'<h2 id="{table.key}">{escape(table.title)}</h2>\n{_content(table)}'


def _folded(table: Table) -> str:
    """One line that names a table and the command that fills it; the table is behind it."""
    more = len(table.commands) - 1
    command = f"filled by <code>{escape(table.commands[0])}</code>" if table.commands else ""
    command += f" and {more} more" if more > 0 else ""
    return (
        f'<details id="{table.key}"><summary>{escape(table.title)} '
        f'<span class="command">{command}</span></summary>\n{_content(table)}\n</details>'
    )


def _content(table: Table) -> str:
    """A table, its notes, and the commands that make what it lacks."""
    parts = [html_table(table)]
    if table.notes:
        parts.append(_list(map(escape, table.notes), "notes"))
    if table.commands:
        commands = [f"<code>{escape(command)}</code>" for command in table.commands]
        parts.append('<p class="missing-list">What is missing here is made by:</p>')
        parts.append(_list(commands, "missing-list"))
    return "\n".join(parts)


def _list(items: Iterable[str], kind: str) -> str:
    return f'<ul class="{kind}">' + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def html_table(table: Table) -> str:
    """A table with its headings in two rows where the paper groups columns."""
    columns = len(table.labels) + table.width
    grouped = any(group for group, _ in table.groups)
    labels = "".join(
        f'<th class="label" rowspan="{1 + grouped}">{escape(label)}</th>' for label in table.labels
    )
    groups = "".join(
        f'<th class="group" colspan="{len(names)}">{escape(group)}</th>'
        for group, names in table.groups
    )
    names = "".join(f"<th>{escape(name)}</th>" for _, inner in table.groups for name in inner)
    head = f"<tr>{labels}{groups}</tr><tr>{names}</tr>" if grouped else f"<tr>{labels}{names}</tr>"
    body = []
    for block, rows in table.blocks:
        body.append(f'<tr><th class="block" colspan="{columns}">{escape(block)}</th></tr>')
        for row in rows:
            labels = "".join(f'<th scope="row">{escape(label)}</th>' for label in row.labels)
            cells = "".join(map(_cell, row.cells))
            kind = ' class="ours"' if row.is_ours else ""
            body.append(f"<tr{kind}>{labels}{cells}</tr>")
    rows = "".join(body)
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    why = f' title="{escape(cell.why)}"' if cell.why else ""
    kind = ' class="missing"' if cell.text == DASH else ""
    small = f"<small>{escape(cell.small)}</small>" if cell.small else ""
    return f"<td{kind}{why}>{escape(cell.text)}{small}</td>"


def _figure(key: str, figure: Figure) -> str:
    data = base64.b64encode(figure.path.read_bytes()).decode()
    return (
        f'<h2 id="{key}">{escape(figure.title)}</h2><figure><img alt="{escape(figure.title)}" '
        f'src="data:image/png;base64,{data}"><figcaption>{escape(figure.caption)}</figcaption></figure>'
    )
