"""The entries of EXIF data as text, and the position that it states."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from PIL import ExifTags

from ..core.exif import (
    ASCII,
    MAX_CONTENT,
    MAX_ENTRIES,
    MAX_VALUES,
    ORIENTATIONS,
    RATIONALS,
    UTF8,
    Directory,
    Entry,
    ExifBlock,
    stored_orientation,
)
from .texts import decode_comment, decode_undeclared, printable

MAKER_NOTE, USER_COMMENT, COPYRIGHT = 0x927C, 0x9286, 0x8298
GPS_METHOD, GPS_AREA = 0x1B, 0x1C
THUMBNAIL_OFFSET, THUMBNAIL_LENGTH = 0x0201, 0x0202
WINDOWS_TEXTS = range(0x9C9B, 0x9CA0)  # XPTitle to XPSubject, in UTF-16LE.
SHOWN_ELSEWHERE = {0x02BC: "XMP", 0x83BB: "IPTC", 0x8649: "IPTC", 0x8773: "the color profile"}

# Tags that Pillow does not know (EXIF 3.0).
NEW_TAGS = {
    0xA436: "ImageTitle",
    0xA437: "Photographer",
    0xA438: "ImageEditor",
    0xA439: "CameraFirmware",
    0xA43A: "RAWDevelopingSoftware",
    0xA43B: "ImageEditingSoftware",
    0xA43C: "MetadataEditingSoftware",
}
# For each EXIF directory: the directory and the tag that point to it, and the names of its entries.
DIRECTORIES: Mapping[str, tuple[str, int, Mapping[int, str]]] = {
    "Exif": ("IFD0", ExifTags.IFD.Exif, NEW_TAGS | ExifTags.TAGS),
    "GPS": ("IFD0", ExifTags.IFD.GPSInfo, ExifTags.GPSTAGS),
    "Interoperability": ("Exif", ExifTags.IFD.Interop, {1: "InteroperabilityIndex"}),
}
POINTERS = {tag for _, tag, _ in DIRECTORIES.values()}
# Tags of the GPS directory.
LATITUDE, LONGITUDE, ALTITUDE, ALTITUDE_REFERENCE = 2, 4, 6, 5
ALTITUDES = {0: "above sea level", 1: "below sea level"}
ALTITUDES |= {2: "above the ellipsoid", 3: "below the ellipsoid"}


@dataclass
class ExifFacts:
    """What EXIF data says.

    Attributes:
        directories: The texts of each directory, by the name of the tag.
        position: Latitude and longitude in degrees; None if absent, incomplete or not valid.
        altitude: The altitude in words; empty if absent or not valid.
        thumbnail: The bytes of the embedded thumbnail.
        orientation: The orientation as stored, not necessarily valid; None if there is none.
        is_complete: Whether all directories and entries could be read.
    """

    directories: dict[str, dict[str, str]] = field(default_factory=dict)
    position: tuple[float, float] | None = None
    altitude: str = ""
    thumbnail: bytes = b""
    orientation: int | None = None
    is_complete: bool = True


def read_exif(data: bytes, note: Callable[[str], None]) -> ExifFacts | None:
    """Read EXIF data or a TIFF file; return None if it is neither.

    Args:
        data: The bytes.
        note: Called with a message about anything that cannot be read.
    """
    try:
        block = ExifBlock(data)
    except ValueError as error:
        note(f"the EXIF data cannot be read: it {error}")
        return None
    faults: list[str] = []
    directories = _directories(block, faults.append)
    for fault in faults:
        note(fault)
    facts = ExifFacts(orientation=stored_orientation(data), is_complete=not faults)
    for name, directory in directories.items():
        names = DIRECTORIES[name][2] if name in DIRECTORIES else NEW_TAGS | ExifTags.TAGS
        texts = {
            names.get(tag, f"tag 0x{tag:04x}"): _text(block, tag, entry)
            for tag, entry in directory.entries.items()
            if tag not in POINTERS
        }
        if texts:
            facts.directories[name] = texts
    if facts.orientation is not None and facts.orientation not in ORIENTATIONS:
        stored = facts.directories["IFD0"].get("Orientation", "")
        note(f"EXIF: the orientation ({stored}) is invalid, so the photo is shown as stored")
    if "GPS" in directories:
        gps = {tag: block.value(entry) for tag, entry in directories["GPS"].entries.items()}
        facts.position = _position(gps, note)
        facts.altitude = _altitude(gps)
    if "IFD1" in directories:
        start = block.integer(directories["IFD1"], THUMBNAIL_OFFSET)
        length = block.integer(directories["IFD1"], THUMBNAIL_LENGTH)
        if start and length:
            facts.thumbnail = block.data[start : start + length]
    return facts


def _directories(block: ExifBlock, note: Callable[[str], None]) -> dict[str, Directory]:
    """Read the directories, and note those that cannot be read."""
    found: dict[str, Directory] = {}
    visited: set[int] = set()

    def read(name: str, start: int) -> None:
        directory = None if start in visited else block.directory(start)
        if start in visited:
            note(f"EXIF: the directory {name} refers to another one")
        elif directory is None:
            note(f"EXIF: the directory {name} lies outside the data")
        else:
            found[name] = directory
            _check(name, directory, note)
        visited.add(start)

    read("IFD0", block.first)
    for name, (parent, tag, _) in DIRECTORIES.items():
        entries = found[parent].entries if parent in found else {}
        start = block.integer(found[parent], tag) if tag in entries else None
        if start is not None:
            read(name, start)
        elif tag in entries:
            note(f"EXIF: the directory {name} lies outside the data")
    if "IFD0" in found and found["IFD0"].next:
        read("IFD1", found["IFD0"].next)
    return found


def _check(name: str, directory: Directory, note: Callable[[str], None]) -> None:
    count = len(directory.entries) + len(directory.repeated)
    if directory.declared > MAX_ENTRIES:
        note(f"EXIF: more than {MAX_ENTRIES} entries of {name}; the rest is not shown")
    elif directory.declared > count and not directory.repeated:
        missing = directory.declared - count
        note(f"EXIF: {missing} of the {directory.declared} entries of {name} cannot be read")
    elif directory.repeated:
        tags = ", ".join(f"0x{tag:04x}" for tag in sorted(directory.repeated)[:5])
        note(f"EXIF: entries of {name} are repeated ({tags}); the first of each is shown")


def _text(block: ExifBlock, tag: int, entry: Entry) -> str:
    if tag in SHOWN_ELSEWHERE:
        return f"{entry.size:,} bytes, shown under {SHOWN_ELSEWHERE[tag]}"
    value = block.value(entry)
    if isinstance(value, bytes):
        text = _bytes_text(block, tag, entry, value)
        if entry.size <= MAX_CONTENT:
            return text
        return f"{text.rsplit(' ... (', 1)[0]} ... ({entry.size:,} bytes)"
    if entry.kind in RATIONALS:
        words = " ".join(f"{pair[0]}/{pair[1]}" for pair in _pairs(value))
    else:
        words = " ".join(
            f"{number:g}" if isinstance(number, float) else str(number) for number in value
        )
    return words + (f" ... ({entry.count} values)" if entry.count > MAX_VALUES else "")


def _bytes_text(block: ExifBlock, tag: int, entry: Entry, value: bytes) -> str:
    if tag in (USER_COMMENT, GPS_METHOD, GPS_AREA):
        return decode_comment(value, block.order)
    if tag in WINDOWS_TEXTS:
        return printable(value.decode("utf-16-le", "backslashreplace").rstrip("\0"))
    if entry.kind in (ASCII, UTF8):  # Copyright: a photographer's and an editor's text.
        texts = value.split(b"\0") if tag == COPYRIGHT else value.split(b"\0")[:1]
        return "; ".join(printable(decode_undeclared(text)) for text in texts[:2] if text.strip())
    if tag != MAKER_NOTE and re.fullmatch(rb"[ -~]+\0*", value):
        return printable(value.rstrip(b"\0"))
    if len(value) <= 16:
        return " ".join(map(str, value))
    return f"{value[:16].hex(' ')} ... ({entry.size} bytes)"


def _pairs(value: object) -> list[tuple[int, int]]:
    """Return the numerators and denominators of a rational value; empty for any other type."""
    if not isinstance(value, tuple):
        return []
    return [item for item in value if isinstance(item, tuple)]


def _position(gps: Mapping[int, object], note: Callable[[str], None]) -> tuple[float, float] | None:
    """Return latitude and longitude in degrees; None if they are absent, incomplete or invalid."""
    if LATITUDE not in gps or LONGITUDE not in gps:
        return None
    degrees = []
    for tag, limit, hemispheres in ((LATITUDE, 90, "NS"), (LONGITUDE, 180, "EW")):
        angle = _angle(gps[tag])
        if angle is None or angle > limit:
            note("the GPS position is invalid, so it is not shown; see the GPS entries")
            return None
        reference = gps.get(tag - 1, b"")
        letter = reference[:1].decode("latin-1").upper() if isinstance(reference, bytes) else ""
        if not letter or letter not in hemispheres:
            note(
                "the GPS position is not shown, since its hemisphere is missing or invalid; see "
                "the GPS entries"
            )
            return None
        degrees.append(-angle if letter == hemispheres[1] else angle)
    return round(degrees[0], 7), round(degrees[1], 7)


def _angle(value: object) -> float | None:
    """Convert degrees, minutes and seconds to degrees; return None if they are not valid.

    Minutes and seconds may be absent.
    """
    pairs = _pairs(value)
    if len(pairs) == 3 and pairs[2][1] == 0:
        pairs = pairs[:2]  # The seconds are unknown.
    if not 1 <= len(pairs) <= 3 or any(divisor == 0 for _, divisor in pairs):
        return None
    numbers = [number / divisor for number, divisor in pairs]
    # Rounded minutes or seconds can be 60.
    if any(number < 0 for number in numbers) or any(number > 60 for number in numbers[1:]):
        return None
    return sum(number / 60**power for power, number in enumerate(numbers))


def _altitude(gps: Mapping[int, object]) -> str:
    pairs = _pairs(gps.get(ALTITUDE))
    if len(pairs) != 1 or pairs[0][1] == 0 or pairs[0][0] < 0:
        return ""
    reference = gps.get(ALTITUDE_REFERENCE, b"")
    key = reference[0] if isinstance(reference, bytes) and len(reference) == 1 else -1
    words = ALTITUDES.get(key, "(without a reference)")
    return f"{pairs[0][0] / pairs[0][1]:g} m {words}"
