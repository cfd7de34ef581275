"""The schemas of the JSON files that are accepted as results.

A schema is a type, a union of types, a regular expression for a string, or:

- a dictionary of keys and their schemas; a key that ends in ``?`` may be absent or null, and the
  key ``*`` or ``*?`` stands for any number of keys;
- ``[schema]`` for a list of any length, and ``[schema, schema, ...]`` for a list of that length.
"""

import re
from typing import Any

from ..core.files import ContentError
from ..evaluation.metrics import PIXEL

NUMBER = int | float
MAX_NUMBER = 1e15  # Larger numbers, and NaN, cannot be results.
INTERVAL = [NUMBER, NUMBER]
RESOLUTION = re.compile(r"(\d{1,9}x\d{1,9})?")  # Empty if it is not known.

# A JSON file of `evaluate` or `robust`.
TEXTS = ("set", "path", "files_sha256", "model", "checkpoint", "checkpoint_sha256", "fit")
HEADER = dict.fromkeys((*TEXTS, "about?", "picked_on?"), str) | {
    "model_flags": dict,
    "image_size": int,
    "ignore_border?": int,
    "attack?": {"name": str, "level": NUMBER, "unit?": str},
    "versions?": {"*?": str},
}
METRICS = ("pixel_f1", "permute_f1", "iou", "auc", *PIXEL[7:])
IMAGE_METRICS = ("image_f1", "image_auc", "image_accuracy", "image_balanced_accuracy")
RESULT = {f"{name}?": NUMBER for name in (*METRICS, *IMAGE_METRICS)} | {
    "header": HEADER,
    "types?": {"*": {"n_tampered": int, "*?": NUMBER}},
    "n_tampered": int,
    "intervals": {"*?": INTERVAL},
}

# comparison.json: by test set, by pair of checkpoints, by metric.
DIFFERENCE = {"difference": NUMBER, "interval": INTERVAL, "p_value": NUMBER, "n": int}
COMPARISON = {"*": {"*": {"*?": DIFFERENCE}}}

# The report of `data prepare`, and the output of `data check --json`.
COUNTS = {"tampered": int, "types?": {"*": int}}
PREPARED = COUNTS | {"dataset": str}
SET = {"name": str, "dataset?": str, "part?": str, "smallest": RESOLUTION, "largest": RESOLUTION}
CHECKED = {"sets": [COUNTS | SET]}


def check(content: Any, schema: Any, path: str = "") -> None:
    """Raise a ContentError that names the first value that deviates from a schema."""
    if isinstance(schema, dict) and isinstance(content, dict):
        for key, inner in schema.items():
            wanted = key.removesuffix("?")
            for name in content if wanted == "*" else (wanted,):
                value = content.get(name)
                if value is not None or not key.endswith("?"):
                    check(value, inner, f"{path}.{name}")
    elif (
        isinstance(schema, list) and isinstance(content, list) and len(schema) in (1, len(content))
    ):
        for i, value in enumerate(content):
            check(value, schema[i % len(schema)], f"{path}[{i}]")
    elif isinstance(schema, dict | list) or not _is_instance(content, schema):
        value = "missing" if content is None else repr(str(content)[:40])
        name = path.removeprefix(".")[:100] or "the content"
        raise ContentError(f"not a valid result, because {name} is {value}")


def _is_instance(content: Any, schema: Any) -> bool:
    if isinstance(content, int | float) and not -MAX_NUMBER < content < MAX_NUMBER:
        return False
    if isinstance(schema, re.Pattern):
        return isinstance(content, str) and schema.fullmatch(content) is not None
    return isinstance(content, schema) and not isinstance(content, bool)
