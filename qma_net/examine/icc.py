"""The name of a color profile, and whether its colors differ from sRGB (ICC.1:2022)."""

import struct
from dataclasses import dataclass

from .texts import printable

SIZE_OF_HEADER = 128
MAX_TAGS = 100
TOLERANCE = 0.01  # Of the coordinates of primaries.

SPACES = {b"RGB ": "RGB", b"GRAY": "gray", b"CMYK": "CMYK", b"Lab ": "Lab", b"XYZ ": "XYZ"}
# The primaries of sRGB, adapted to D50 as in all profiles.
SRGB = {
    b"rXYZ": (0.4361, 0.2225, 0.0139),
    b"gXYZ": (0.3851, 0.7169, 0.0971),
    b"bXYZ": (0.1431, 0.0606, 0.7141),
}


@dataclass(frozen=True)
class Profile:
    """A color profile.

    Attributes:
        name: Its description; empty if it has none.
        space: The color space of the photo: RGB, gray, CMYK and so on.
        is_srgb: Whether its primaries are those of sRGB.
    """

    name: str
    space: str
    is_srgb: bool

    def __str__(self) -> str:
        return f"{self.name or 'unnamed profile'} ({self.space})"


def read_profile(content: bytes) -> Profile | None:
    """Read a color profile; return None if the content is not one."""
    if len(content) < SIZE_OF_HEADER + 4 or content[36:40] != b"acsp":
        return None
    count = min(int.from_bytes(content[128:132], "big"), MAX_TAGS)
    tags = {}
    for number in range(count):
        entry = content[132 + 12 * number : 144 + 12 * number]
        if len(entry) == 12:
            name, start, size = struct.unpack(">4sII", entry)
            tags[name] = content[start : start + size]
    space = SPACES.get(content[16:20], printable(content[16:20].strip()))
    is_srgb = space == "RGB" and all(_is_near(tags.get(name, b""), SRGB[name]) for name in SRGB)
    return Profile(_text(tags.get(b"desc", b"")), space, is_srgb)


def _is_near(tag: bytes, expected: tuple[float, ...]) -> bool:
    if tag[:4] != b"XYZ " or len(tag) < 20:
        return False
    values = (number / 65536 for number in struct.unpack_from(">3i", tag, 8))
    return all(abs(a - b) < TOLERANCE for a, b in zip(values, expected, strict=True))


def _text(tag: bytes) -> str:
    """Decode the description of a version 2 profile, or the first one of a version 4 profile."""
    if tag[:4] == b"desc":
        length = int.from_bytes(tag[8:12], "big")
        return printable(tag[12 : 12 + min(length, 1000)].split(b"\0")[0].strip())
    if tag[:4] == b"mluc" and len(tag) >= 28:
        length, start = struct.unpack_from(">II", tag, 20)
        text = tag[start : start + min(length, 2000)].decode("utf-16-be", "backslashreplace")
        return printable(text.strip("\0 "))
    return ""
