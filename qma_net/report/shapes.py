"""What a file must hold to be taken for a result: a file of a stranger may hold anything.

A shape is a type or a tuple of types; a dictionary of the keys that are needed, each with a shape;
a list of shapes for a list of as many; :class:`Maybe` of a shape, which may be null or absent; or
:class:`Each` of a shape, for a dictionary of any keys or a list of any length.
"""

from dataclasses import dataclass

NUMBER = (int, float)
LARGEST = 1e15  # of a number that is shown


@dataclass(frozen=True)
class Maybe:
    """The shape, null, or nothing."""

    shape: object


@dataclass(frozen=True)
class Each:
    """A container of any number of the shape: a ``dict`` or a ``list``."""

    container: type
    shape: object


# A JSON of `evaluate` or `robust`.
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
        "attack": Maybe({"name": str, "level": NUMBER, "unit": Maybe(str)}),
        "versions": Maybe(Each(dict, Maybe(str))),
        "about": Maybe(str),
        "picked_on": Maybe(str),
    },
    "n_tampered": int,
    "n_authentic": int,
    **dict.fromkeys(("pixel_f1", "permute_f1", "iou", "auc"), Maybe(NUMBER)),
    **dict.fromkeys(("authentic_marked", "image_auc", "image_f1"), Maybe(NUMBER)),
    "intervals": Each(dict, Maybe([NUMBER, NUMBER])),
}

_COMPARED = {"difference": NUMBER, "interval": [NUMBER, NUMBER], "p_value": NUMBER, "n": int}

# comparison.json: by test set, by pair of checkpoints, by metric.
COMPARISON = Each(dict, Each(dict, Each(dict, Maybe(_COMPARED))))

_TYPES = Maybe(Each(dict, int))

# The report of `data prepare`, and what `data check --json` printed.
PREPARED = {"dataset": str, "tampered": int, "types": _TYPES}
CHECKED = Each(
    list,
    {
        "name": str,
        "dataset": Maybe(str),
        "part": Maybe(str),
        "tampered": int,
        "types": _TYPES,
        "smallest": str,
        "largest": str,
    },
)


def fault(content: object, shape: object, place: str = "it") -> str:
    """Where a content is not of a shape, in words; empty where it is."""
    if isinstance(shape, Maybe):
        return "" if content is None else fault(content, shape.shape, place)
    if isinstance(shape, Each):
        if not isinstance(content, shape.container):
            return _is_a(content, place)
        inner = content.items() if isinstance(content, dict) else enumerate(content)
        return _first(fault(value, shape.shape, f"{place}[{key!r}]") for key, value in inner)
    if isinstance(shape, dict):
        if not isinstance(content, dict):
            return _is_a(content, place)
        return _first(
            fault(content.get(key), one, f"{place}[{key!r}]") for key, one in shape.items()
        )
    if isinstance(shape, list):
        if not isinstance(content, list) or len(content) != len(shape):
            return _is_a(content, place)
        pairs = enumerate(zip(content, shape, strict=True))
        return _first(fault(value, one, f"{place}[{number}]") for number, (value, one) in pairs)
    usable = isinstance(content, shape) and not isinstance(content, bool)
    if isinstance(content, int | float):  # also no NaN
        usable = usable and -LARGEST < content < LARGEST
    return "" if usable else _is_a(content, place)


def _is_a(content: object, place: str) -> str:
    return f"{place[:100]} is {'absent' if content is None else str(content)[:40]!r}"


def _first(faults) -> str:
    return next((one for one in faults if one), "")
