"""The rooms of qma_net/: which may use which, and that no file imports another in a circle."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "qma_net"

# From the top floor down: a room uses only rooms of the floors below it, and itself.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("demo", "web"),
    ("report",),
    ("evaluation",),
    ("launch",),
    ("benco",),
    ("examine",),
    ("inference",),
    ("build",),
    ("weights",),
    ("data",),
    ("synth",),
    ("modeling",),
    ("core",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

LONGEST = 350  # lines of a file
TABLES_OF_FACTS = {"data/published.py"}


def modules(package: Path) -> dict[str, Path]:
    """Files by dotted name inside the package: ``data.check``, ``data`` for its __init__.py."""
    names = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


def imports(package: Path) -> dict[str, set[str]]:
    """Which files each file imports: at its top, inside functions, relative or by full name."""
    known = modules(package)
    found = {}
    for name, file in known.items():
        found[name] = set()
        here = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
        here = [part for part in here if part]
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                targets = [(alias.name.split("."), ()) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = here[: len(here) - node.level + 1] if node.level else []
                base = [*([package.name] if node.level else []), *base]
                base += node.module.split(".") if node.module else []
                targets = [(base, tuple(alias.name for alias in node.names))]
            else:
                continue
            for path, names in targets:
                if path[0] != package.name:
                    continue
                inside = ".".join(path[1:])
                for one in names or ("",):
                    deeper = f"{inside}.{one}".strip(".")
                    target = deeper if deeper in known else inside
                    if target and target != name:
                        found[name].add(target)
    return found


def upward(package: Path) -> list[str]:
    """Imports from a room into one that is not below it."""
    return [
        f"{name} imports {target}"
        for name, targets in imports(package).items()
        for target in sorted(targets)
        if name
        and name.split(".")[0] != target.split(".")[0]
        and FLOOR_OF[target.split(".")[0]] <= FLOOR_OF[name.split(".")[0]]
    ]


def circles(package: Path) -> list[str]:
    """Files that import each other, directly or through others."""
    graph = imports(package)
    found, state = [], {}

    def visit(name: str, way: tuple[str, ...]) -> None:
        state[name] = "open"
        for target in sorted(graph[name]):
            if state.get(target) == "open":
                found.append(" > ".join([*way[way.index(target) :], target]))
            elif target not in state:
                visit(target, (*way, target))
        state[name] = "done"

    for name in graph:
        if name not in state:
            visit(name, (name,))
    return found


def test_every_room_has_a_floor():
    assert {name.split(".")[0] for name in modules(PACKAGE)} - {""} == set(FLOOR_OF)


def test_no_room_uses_a_room_above_it():
    assert upward(PACKAGE) == []


def test_no_file_imports_another_in_a_circle():
    assert circles(PACKAGE) == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("from ..report import page", "modeling.config imports report.page"),
        ("def f():\n    from qma_net.weights.reading import sha256", "modeling.config imports"),
        ("import qma_net.cli.data", "modeling.config imports cli.data"),
    ],
)
def test_an_import_upwards_is_found(tmp_path, line, fault):
    package = tmp_path / "qma_net"
    for name, file in modules(PACKAGE).items():
        copy = package / file.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text() + (f"\n{line}\n" if name == "modeling.config" else ""))
    assert [one for one in upward(package) if one.startswith(fault)]


def test_a_circle_inside_a_function_is_found(tmp_path):
    package = tmp_path / "qma_net" / "modeling"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "config.py").write_text("def f():\n    from . import state\n")
    (package / "state.py").write_text("import qma_net.modeling.noise\n")
    (package / "noise.py").write_text("from ..modeling.config import f\n")
    circle = "modeling.config > modeling.state > modeling.noise > modeling.config"
    assert circles(tmp_path / "qma_net") == [circle]


def test_no_file_is_long():
    long = {
        file.relative_to(PACKAGE).as_posix(): count
        for file in modules(PACKAGE).values()
        if (count := len(file.read_text().splitlines())) > LONGEST
    }
    assert set(long) <= TABLES_OF_FACTS, long
