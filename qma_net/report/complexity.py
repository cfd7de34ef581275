"""What BenCo's ``test_complexity`` printed."""

import ast
import math
import re
from dataclasses import dataclass
from pathlib import Path

COMPLEXITY = re.compile(r"complexity.*\.(txt|log)$", re.IGNORECASE)  # names of logs

# A row of fvcore's table: a module, and its parameters as a rounded count or as a shape.
MODULE = re.compile(r"^\| +([\w.]+) +\| +(?:([\d.]+)([KMG]?)|\(([\d, ]+)\)) +\|", re.MULTILINE)


@dataclass(frozen=True)
class Complexity:
    """What BenCo's ``test_complexity`` printed: parameters, and multiply-adds of one image.

    ``flags`` are the model's own; ``image_size`` is the side in pixels.
    """

    path: Path
    model: str
    flags: dict
    image_size: int
    parameters: float
    multiply_adds: float


def read_complexity(path: Path) -> Complexity | None:
    """Reads a log of BenCo's ``test_complexity``; None where it did not come to its table."""
    text = path.read_text(errors="replace")
    arguments = [_arguments(block) for block in re.findall(r"Namespace\((.*?)\)\n", text, re.S)]
    total = re.search(r"^(?:\[[\d:.]+\] +)?(\d{6,})$", text, re.MULTILINE)
    parameters = _parameters(text)
    if not total or not parameters or not arguments:
        return None
    flags = arguments[1] if len(arguments) > 1 else {}
    size = int(arguments[0].get("image_size", 512))
    model = str(arguments[0].get("model", "?"))
    return Complexity(path, model, flags, size, parameters, float(total[1]))


def _arguments(block: str) -> dict:
    """``name=value`` pairs as BenCo prints an argparse namespace."""
    found = re.findall(r"(\w+)=('(?:[^'\\]|\\.)*'|[^,\n]+)", block)
    values = {}
    for name, value in found:
        try:
            values[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            values[name] = value
    return values


def _parameters(text: str) -> float | None:
    """All parameters of fvcore's table: it rounds the top row, so its parts are added up."""
    scale = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9}
    rows = {}
    for name, count, unit, shape in MODULE.findall(text):
        sides = [int(side) for side in shape.split(",") if side.strip()]
        rows[name] = math.prod(sides) if shape else float(count) * scale[unit]
    return _added_up(next(iter(rows)), rows, is_top=True) if rows else None


def _added_up(name: str, rows: dict[str, float], is_top: bool = False) -> float:
    """A module's count from its parts where they make it up to rounding, else as printed."""
    inner = [other for other in rows if other != name and (is_top or other.startswith(f"{name}."))]
    nearest = [one for one in inner if not any(one.startswith(f"{other}.") for other in inner)]
    total = sum(_added_up(one, rows) for one in nearest)
    return total if nearest and abs(total - rows[name]) <= 0.006 * rows[name] else rows[name]
