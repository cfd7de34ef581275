"""Layers of qma_net/: packages import only from packages below them, and imports have no cycles."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "qma_net"

# From top to bottom. A package imports only from packages in the layers below it.
LAYERS = (
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
LAYER_OF = {package: number for number, layer in enumerate(LAYERS) for package in layer}


@cache
def import_statements(text: str) -> list[tuple[ast.AST, ast.AST]]:
    """Return all import statements in a module's text, each with its parent node."""
    return [
        (node, parent)
        for parent in ast.walk(ast.parse(text))
        for node in ast.iter_child_nodes(parent)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]


def modules(root: Path) -> dict[str, Path]:
    """Map dotted names inside the package to files; ``data`` is ``data/__init__.py``."""
    files = {}
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


def imported_names(node: ast.AST, package: list[str], root: str) -> list[tuple[list[str], str]]:
    """Return the modules that a statement imports from, as absolute paths, each with a name in it.

    Args:
        node: Any syntax node; only import statements import something.
        package: Path of the package of the importing module, for relative imports.
        root: Name of the top package.
    """
    if isinstance(node, ast.Import):
        return [(alias.name.split("."), "") for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = [root, *package[: len(package) - node.level + 1]] if node.level else []
        base += node.module.split(".") if node.module else []
        return [(base, alias.name) for alias in node.names]
    return []


def imports(root: Path) -> dict[str, set[str]]:
    """Map each module to the modules that it imports, also inside functions."""
    files = modules(root)
    graph = {name: set() for name in files}
    for name, file in files.items():
        parts = [part for part in name.split(".") if part]
        package = parts if file.name == "__init__.py" else parts[:-1]
        for node, _ in import_statements(file.read_text(encoding="utf-8")):
            for path, member in imported_names(node, package, root.name):
                if path[0] != root.name:
                    continue
                module = ".".join(path[1:])
                submodule = f"{module}.{member}".strip(".")
                target = submodule if submodule in files else module
                if target and target != name:
                    graph[name].add(target)
    return graph


def upward_imports(root: Path) -> list[str]:
    """List the imports from packages that are not in a lower layer."""
    return [
        f"{name} imports {target}"
        for name, targets in imports(root).items()
        for target in sorted(targets)
        if name
        and name.split(".")[0] != target.split(".")[0]
        and LAYER_OF[target.split(".")[0]] <= LAYER_OF[name.split(".")[0]]
    ]


def import_cycles(root: Path) -> list[str]:
    """List the cycles of modules that import each other, directly or through others."""
    graph = imports(root)
    cycles, state = [], {}

    def visit(name: str, ancestors: tuple[str, ...]) -> None:
        state[name] = "open"
        path = (*ancestors, name)
        for target in sorted(graph.get(name, ())):
            if state.get(target) == "open":
                cycles.append(" > ".join([*path[path.index(target) :], target]))
            elif target not in state:
                visit(target, path)
        state[name] = "done"

    for name in graph:
        if name not in state:
            visit(name, ())
    return cycles


def test_every_package_has_a_layer():
    assert {name.split(".")[0] for name in modules(PACKAGE)} - {""} == set(LAYER_OF)


def test_packages_import_only_from_lower_layers():
    assert upward_imports(PACKAGE) == []


def test_imports_have_no_cycles():
    assert import_cycles(PACKAGE) == []


def test_transformers_is_imported_only_where_a_model_is_built():
    """It takes five seconds, for which commands without a model and the web page would wait."""
    importing = {
        f"{name}: {type(parent).__name__}"
        for name, file in modules(PACKAGE).items()
        for node, parent in import_statements(file.read_text(encoding="utf-8"))
        for path, _ in imported_names(node, [], "qma_net")
        if path[0] == "transformers"
    }
    assert importing == {"modeling.backbone: FunctionDef", "weights.sources: FunctionDef"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from ..report import page", "modeling.config imports report"),
        ("def f():\n    from qma_net.weights.reading import is_hub_id", "modeling.config imports"),
        ("import qma_net.cli.data", "modeling.config imports cli.data"),
    ],
)
def test_upward_import_is_reported(tmp_path, line, expected):
    copy = tmp_path / "qma_net"
    for name, file in modules(PACKAGE).items():
        target = copy / file.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = file.read_text(encoding="utf-8")
        target.write_text(
            text + (f"\n{line}\n" if name == "modeling.config" else ""), encoding="utf-8"
        )
    assert [fault for fault in upward_imports(copy) if fault.startswith(expected)]


def test_cycle_inside_a_function_is_reported(tmp_path):
    package = tmp_path / "qma_net" / "modeling"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "config.py").write_text("def f():\n    from . import state\n", encoding="utf-8")
    (package / "state.py").write_text("import qma_net.modeling.noise\n", encoding="utf-8")
    (package / "noise.py").write_text("from ..modeling.config import f\n", encoding="utf-8")
    cycle = "modeling.config > modeling.state > modeling.noise > modeling.config"
    assert import_cycles(tmp_path / "qma_net") == [cycle]
