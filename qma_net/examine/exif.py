"""EXIF of any file, read with bounds: a directory that lies, loops or never ends is a note.

EXIF is a small TIFF file inside another: directories of entries (TIFF 6.0, section 2), of which
some point to further directories.
"""

import re
import struct
import unicodedata
from dataclasses import dataclass, field

from PIL import ExifTags

MOST_ENTRIES = 1000  # over all directories of a file; a camera writes about a hundred
MOST_BYTES = 4096  # of one value that are looked at
MOST_CHARACTERS = 400  # of one value that are shown

# Tags that point to further directories, by the name that these are given here.
POINTERS = {0x8769: "Exif", 0x8825: "GPS", 0xA005: "Interoperability"}
THUMBNAIL_OFFSET, THUMBNAIL_BYTES = 0x0201, 0x0202
ORIENTATION, XMP, C2PA = 0x0112, 0x02BC, 0xCD41
MAKER_NOTE, USER_COMMENT = 0x927C, 0x9286

# Size in bytes of a value of each type, and how struct reads one.
BYTE, ASCII, UNDEFINED = 1, 2, 7
TYPES = {BYTE: (1, "B"), ASCII: (1, ""), 3: (2, "H"), 4: (4, "I"), 5: (8, "II"), 6: (1, "b")}
TYPES |= {UNDEFINED: (1, ""), 8: (2, "h"), 9: (4, "i"), 10: (8, "ii"), 11: (4, "f"), 12: (8, "d")}
RATIONALS = {5, 10}

NAMES = {"GPS": ExifTags.GPSTAGS, "Interoperability": {1: "InteroperabilityIndex"}}


@dataclass
class Exif:
    """What EXIF says.

    Attributes:
        directories: text by tag's name, by directory: IFD0, IFD1, Exif, GPS, Interoperability.
        orientation: 1 to 8, how the picture is to be turned.
        position: latitude and longitude in degrees; None where they are absent or no position.
        thumbnail: the bytes of the embedded small picture, which may be anything; empty without.
        xmp: a packet stored as a tag, as in TIFF files; empty without.
        has_c2pa: whether a tag holds a C2PA manifest, as in TIFF files.
    """

    directories: dict[str, dict[str, str]] = field(default_factory=dict)
    orientation: int = 1
    position: tuple[float, float] | None = None
    thumbnail: bytes = b""
    xmp: bytes = b""
    has_c2pa: bool = False


def read_exif(data: bytes, notes: list[str]) -> Exif:
    """Reads EXIF without its ``Exif\\0\\0`` prefix, or a whole TIFF file.

    Args:
        data: beginning with ``II*\\0`` or ``MM\\0*``.
        notes: what cannot be read is added here.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if not order or len(data) < 8:
        notes.append(f"the EXIF begins with {printable(data[:4])}, which no EXIF does: not read")
        return Exif()
    reader = _Reader(data, order, notes)
    following = reader.read("IFD0", struct.unpack_from(order + "I", data, 4)[0])
    if following:
        reader.read("IFD1", following)
    return reader.exif


def printable(value: str | bytes, most: int = MOST_CHARACTERS) -> str:
    """Text that shows what it is: no control or direction characters, cut where it is long."""
    text = value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
    shown = "".join(c if c == "\n" or _is_shown(c) else _escaped(c) for c in text[:most])
    return shown if len(text) <= most else f"{shown} ... ({len(text)} characters)"


def _is_shown(character: str) -> bool:
    return character.isprintable() and not unicodedata.category(character).startswith("C")


def _escaped(character: str) -> str:
    return " " if character in "\t\r" else f"\\x{ord(character):02x}"


class _Reader:
    """Walks directories, each once, and counts the entries of all of them."""

    def __init__(self, data: bytes, order: str, notes: list[str]):
        self.data, self.order, self.notes = data, order, notes
        self.exif, self.seen, self.entries = Exif(), set(), 0  # seen: offsets and names

    def read(self, name: str, offset: int) -> int:
        """Reads the directory at an offset; returns the offset of the one that follows it."""
        if offset in self.seen or name in self.seen:
            self.notes.append(f"EXIF: the directory {name} leads back to one that was read")
            return 0
        self.seen |= {offset, name}
        if not 8 <= offset <= len(self.data) - 2:
            self.notes.append(f"EXIF: the directory {name} lies outside the data")
            return 0
        (count,) = struct.unpack_from(self.order + "H", self.data, offset)
        stored = self.data[offset + 2 : offset + 2 + 12 * count]
        if len(stored) < 12 * count:
            self.notes.append(f"EXIF: {name} claims {count} entries and has {len(stored) // 12}")
        numbers, texts = {}, self.exif.directories.setdefault(name, {})
        for start in range(0, len(stored) - 11, 12):
            self.entries += 1
            if self.entries > MOST_ENTRIES:
                self.notes.append(f"EXIF: more than {MOST_ENTRIES} entries; the rest was not read")
                break
            tag, kind, size = struct.unpack_from(self.order + "HHI", stored, start)
            if tag in POINTERS:
                self.read(POINTERS[tag], *struct.unpack_from(self.order + "I", stored, start + 8))
                continue
            label = self._name(name, tag)
            raw = self._raw(label, kind, size, stored[start + 8 : start + 12])
            if raw is None:
                continue
            numbers[tag] = self._numbers(kind, raw)
            texts[label] = _text(tag, kind, raw, numbers[tag], size)
            if tag == XMP and name == "IFD0":
                self.exif.xmp = self._whole(kind, size, stored[start + 8 : start + 12])
            self.exif.has_c2pa |= tag == C2PA
        self._keep(name, numbers, texts)
        after = self.data[offset + 2 + 12 * count : offset + 6 + 12 * count]
        return struct.unpack(self.order + "I", after)[0] if len(after) == 4 else 0

    def _name(self, directory: str, tag: int) -> str:
        return NAMES.get(directory, ExifTags.TAGS).get(tag, f"tag {tag:#06x}")

    def _raw(self, label: str, kind: int, count: int, inline: bytes) -> bytes | None:
        """The bytes of a value, at most so many as are looked at."""
        if kind not in TYPES:
            self.notes.append(f"EXIF: {label} is of type {kind}, which does not exist")
            return None
        size = count * TYPES[kind][0]
        if size <= 4:
            return inline[:size]
        (offset,) = struct.unpack(self.order + "I", inline)
        if offset + size > len(self.data):
            self.notes.append(f"EXIF: {label} claims {size} bytes, which are not there")
            return None
        return self.data[offset : offset + min(size, MOST_BYTES)]

    def _whole(self, kind: int, count: int, inline: bytes) -> bytes:
        (offset,) = struct.unpack(self.order + "I", inline)
        return self.data[offset : offset + count * TYPES[kind][0]]

    def _numbers(self, kind: int, raw: bytes) -> list:
        """The values of a numeric entry; rationals as pairs."""
        size, letters = TYPES[kind]
        if not letters:
            return []
        whole = raw[: len(raw) // size * size]
        values = [
            v[0] if len(v) == 1 else v for v in struct.iter_unpack(self.order + letters, whole)
        ]
        return values

    def _keep(self, name: str, numbers: dict, texts: dict) -> None:
        """What the rest of the examination uses."""
        if name == "IFD0" and numbers.get(ORIENTATION, [1])[:1] != [1]:
            turned = numbers[ORIENTATION][:1]
            self.exif.orientation = turned[0] if turned and turned[0] in range(1, 9) else 1
        if name == "GPS":
            self.exif.position = _position(numbers, texts)
        if name == "IFD1":
            place, size = (numbers.get(tag, [0])[:1] for tag in (THUMBNAIL_OFFSET, THUMBNAIL_BYTES))
            if place and size and all(isinstance(value, int) for value in place + size):
                self.exif.thumbnail = self.data[place[0] : place[0] + size[0]]


def _text(tag: int, kind: int, raw: bytes, numbers: list, count: int) -> str:
    if kind == ASCII:
        return printable(raw.split(b"\0")[0])
    if tag == USER_COMMENT:
        coding = {b"UNICODE\0": "utf-16", b"JIS\0\0\0\0\0": "iso2022_jp"}.get(raw[:8], "utf-8")
        return printable(raw[8:].decode(coding, "replace").strip("\0 "))
    if kind == UNDEFINED or (kind == BYTE and count > 16):
        if tag != MAKER_NOTE and re.fullmatch(rb"[ -~]+\0*", raw):
            return printable(raw.rstrip(b"\0"))
        start = raw[:16].hex(" ")
        return f"{start} ... ({count} bytes)" if count > 16 else start
    words = [f"{v[0]}/{v[1]}" if kind in RATIONALS else f"{v:g}" for v in numbers[:32]]
    return " ".join(words) + (f" ... ({count} values)" if count > 32 else "")


def _position(numbers: dict, texts: dict) -> tuple[float, float] | None:
    """Degrees north and east."""
    degrees = []
    for tag, largest, reference, negative in (
        (2, 90, "GPSLatitudeRef", "S"),
        (4, 180, "GPSLongitudeRef", "W"),
    ):
        parts = numbers.get(tag, ())
        if len(parts) != 3 or not all(isinstance(p, tuple) and p[1] for p in parts):
            return None
        angle = sum(p[0] / p[1] / 60**i for i, p in enumerate(parts))
        if not angle <= largest:
            return None
        degrees.append(-angle if texts.get(reference, "") == negative else angle)
    return round(degrees[0], 7), round(degrees[1], 7)
