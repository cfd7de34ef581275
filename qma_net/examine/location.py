"""Detection and removal of metadata that can reveal where a photo was taken.

In case of doubt, a text counts as revealing. It is then left out on request; nothing is concluded
about the photo.
"""

import re
from dataclasses import fields, is_dataclass, replace
from html import unescape
from operator import is_
from typing import Any
from urllib.parse import unquote

LEFT_OUT = "(left out on request)"

# Names of properties, with any prefix, in upper or lower case. SubjectLocation is excluded, since
# it is a position in the photo, in pixels.
_NAMES = (
    r"(?:(?<!subject)location\w{0,20}|(?<![a-z])(?:city|state|worldregion|place|street|address|"
    r"coverage|spatial|(?:province|country|CiAdr)\w{0,20}))"
)
_DECIMAL = r"\d{1,3}(?:\.\d{2,20}|,\d{4,20})"
_REVEALING = re.compile(
    rf"""
    gps(?!VersionID)  # The version alone says nothing.
    | (?:lat|longt?|alt)itude
    | \bgeo(?:tag|code|name|:)
    | <[\w.:-]{{0,80}}?{_NAMES}\b(?!\s{{0,20}}(?:/>|>\s{{0,20}}</))  # XML, unless it is empty.
    | {_NAMES}["']?\s{{0,20}}[=:]\s{{0,20}}["']?[^\s"'<>]  # City="Berlin" or City: Berlin.
    | (?<!f)(?:lat|lon|lng)["']?\s{{0,5}}[=:>]\s{{0,5}}["']?[-+]?\d  # lat=22.5 or "lat": 22.5.
    | \b(?:lat|lon|lng)\b\W{{1,5}}\d  # Lat. 22.5.
    | (?<![\d.]){_DECIMAL}°?\s?(?-i:[NS])?(?:\s?[,;/|\s]\s{{0,5}}[-+]?|[-+]){_DECIMAL}(?![\d.])
    | \d\.\d{{3,20}}\s?(?-i:[NSEW])\b
    | \d\s?(?:°|º|deg)\s?(?:\d|(?-i:[NSEW])\b)  # 33°51' or 22.5° N.
    | \d,\d{{1,2}}[.,]\d{{1,20}}(?-i:[NSEW])\b  # 33,51.5S, as in XMP.
    """,
    re.IGNORECASE | re.VERBOSE,
)


def reveals_location(text: str) -> bool:
    """Return whether a text contains GPS data, coordinates or a field that names a place."""
    return any(map(_REVEALING.search, (text, unquote(unescape(text)))))


def without_location(value: Any) -> Any:
    """Return metadata without texts that can reveal a location; the same object if none can.

    Dictionary entries whose name or text can are removed; other such texts are replaced by
    :data:`LEFT_OUT`.
    """
    if isinstance(value, str):
        return LEFT_OUT if reveals_location(value) else value
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not reveals_location(f"{k}: {v}")}
        return value if len(kept) == len(value) else kept
    if isinstance(value, tuple | list):
        items = type(value)(map(without_location, value))
        return value if all(map(is_, items, value)) else items
    if is_dataclass(value) and not isinstance(value, type):
        old = {field.name: getattr(value, field.name) for field in fields(value)}
        new = {name: without_location(part) for name, part in old.items()}
        changes = {name: part for name, part in new.items() if part is not old[name]}
        return replace(value, **changes) if changes else value
    return value
