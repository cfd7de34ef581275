"""Signs that a file is a screenshot or a copy of a photo rather than the original."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ..core.files import read_yaml
from .metadata import FileFacts
from .origin import FILE_NAME, Origin

RULES = Path(__file__).with_name("resaved.yaml")
UNUSUAL_FORMATS = ("PNG", "GIF", "BMP")  # Others, such as WebP, are noted when they are decoded.
COPY_CATEGORIES = ("screenshot", "platform")


def resaved_note(facts: FileFacts, origin: Origin, size: tuple[int, int] | None) -> str:
    """Say why a file may not be the original; return an empty string if nothing suggests it.

    Args:
        facts: The file's metadata.
        origin: What the file says about its origin.
        size: Width and height in pixels; None if unknown.
    """
    signs = list(_signs(facts, origin, size))
    if not signs:
        return ""
    return (
        f"this may be a screenshot or a copy instead of the original file: {'; '.join(signs)}. "
        "Such files have lost forensic traces, so the mask and the leads are less reliable; if you "
        "can, examine the original"
    )


def _signs(facts: FileFacts, origin: Origin, size: tuple[int, int] | None) -> Iterator[str]:
    for mark in origin.marks:
        if mark.category in COPY_CATEGORIES:
            is_name = mark.where == FILE_NAME
            yield f"it has a {mark.name}" if is_name else f"{mark.name} ({mark.where})"
    if facts.format in UNUSUAL_FORMATS and not origin.camera:
        sign = f"cameras rarely write {facts.format} files, and this one names no camera"
        if size and "{}x{}".format(*sorted(size)) in _rules()["screens"].split():
            sign += f"; its size of {size[0]}x{size[1]} pixels is that of a common screen"
        yield sign
    elif facts.format == "JPEG" and facts.has_no_metadata and size:
        platforms = _rules()["platforms"].get(max(size))
        if platforms:
            yield (
                f"it contains no metadata, and its longer side is {max(size):,} pixels, a size to "
                f"which {platforms} and other services downscale photos"
            )


@cache
def _rules() -> Any:
    return read_yaml(RULES, "the image sizes of screens and messaging apps")
