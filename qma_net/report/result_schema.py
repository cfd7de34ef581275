"""What a JSON file must contain to be accepted as a result.

A schema is a type, a union of types, or:

- a dictionary of keys and their schemas; a key that ends in ``?`` may be absent or null, and the
  key ``*`` or ``*?`` stands for any number of keys;
- ``[schema]`` for a list of any length, and ``[schema, schema, ...]`` for a list of that length.
"""

from typing import Any

NUMBER = int | float
MAX_NUMBER = 1e15  # Larger numbers, and NaN, cannot be results.
INTERVAL = [NUMBER, NUMBER]

# A JSON file of `evaluate` or `robust`.
RESULT = {
    "header": {
        "set": str,
        "path": str,
        "files_sha256": str,
        "model": str,
        "model_flags": dict,
        "checkpoint": str,
        "checkpoint_sha256": str,
        "fit": str,
        "image_size": int,
        "attack?": {"name": str, "level": NUMBER, "unit?": str},
        "versions?": {"*?": str},
        "about?": str,
        "picked_on?": str,
    },
    "n_tampered": int,
    **dict.fromkeys(("pixel_f1?", "permute_f1?", "iou?", "auc?"), NUMBER),
    "intervals": {"*?": INTERVAL},
}

# comparison.json: by test set, by pair of checkpoints, by metric.
DIFFERENCE = {"difference": NUMBER, "interval": INTERVAL, "p_value": NUMBER, "n": int}
COMPARISON = {"*": {"*": {"*?": DIFFERENCE}}}

# The report of `data prepare`, and the output of `data check --json`.
PREPARED = {"dataset": str, "tampered": int, "types?": {"*": int}}
CHECKED = {
    "sets": [
        {
            "name": str,
            "dataset?": str,
            "part?": str,
            "tampered": int,
            "types?": {"*": int},
            "smallest": str,
            "largest": str,
        }
    ]
}


def find_fault(content: Any, schema: Any, path: str = "") -> str:
    """Describe the first value that deviates from a schema, with its path; "" if there is none."""
    parts: list[tuple[Any, Any, str]] = []  # Contents, their schemas and their paths.
    if isinstance(schema, dict) and isinstance(content, dict):
        for key, inner in schema.items():
            name = key.removesuffix("?")
            names = content if name == "*" else (name,)
            values = [(content.get(name), inner, f"{path}.{name}") for name in names]
            parts += [v for v in values if v[0] is not None or not key.endswith("?")]
    elif (
        isinstance(schema, list) and isinstance(content, list) and len(schema) in (1, len(content))
    ):
        schemas = schema * len(content) if len(schema) == 1 else schema
        numbered = enumerate(zip(content, schemas, strict=True))
        parts = [(value, inner, f"{path}[{i}]") for i, (value, inner) in numbered]
    elif isinstance(schema, dict | list) or not _is_instance(content, schema):
        value = "missing" if content is None else repr(str(content)[:40])
        return f"{path.removeprefix('.')[:100] or 'the content'} is {value}"
    return next(filter(None, (find_fault(*part) for part in parts)), "")


def _is_instance(content: Any, schema: Any) -> bool:
    if isinstance(content, int | float) and not -MAX_NUMBER < content < MAX_NUMBER:
        return False
    return isinstance(content, schema) and not isinstance(content, bool)
