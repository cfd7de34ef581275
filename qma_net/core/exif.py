"""EXIF data and the directories of TIFF files (EXIF 3.0, TIFF 6.0), read with bounded effort."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

EXIF_PREFIX = b"Exif\0\0"
HEADERS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # The last two are those of BigTIFF.
MAX_ENTRIES = 1000  # Entries of one directory; a camera writes about fifty.
MAX_CONTENT = 2**16  # Bytes of one entry, which a thousand others may share.
MAX_VALUES = 32  # Numbers of one entry.

ORIENTATION_TAG = 0x0112
ORIENTATIONS = range(1, 9)

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, UTF8 = 1, 2, 3, 4, 5, 7, 129
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
SIZES |= {16: 8, 17: 8, 18: 8, UTF8: 1}
NUMBERS = {3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I"}
NUMBERS |= {16: "Q", 17: "q", 18: "Q"}
RATIONALS = {5: "II", 10: "ii"}

# The bytes of text or opaque data, numbers, or pairs of numerator and denominator.
Value: TypeAlias = "bytes | tuple[float, ...] | tuple[tuple[int, int], ...]"


@dataclass(frozen=True)
class Entry:
    """An entry of a directory: its type, number of values, and where they are."""

    kind: int
    count: int
    start: int

    @property
    def size(self) -> int:
        """Length of the values in bytes."""
        return self.count * SIZES[self.kind]


@dataclass(frozen=True)
class Directory:
    """One directory (IFD) of EXIF data or a TIFF file.

    Attributes:
        entries: The readable entries by tag; only the first if a tag is repeated.
        declared: How many entries it declares.
        next: Offset of the next directory; 0 if there is none.
        repeated: The tags that occur more than once.
    """

    entries: dict[int, Entry]
    declared: int
    next: int
    repeated: set[int] = field(default_factory=set)


class ExifBlock:
    """EXIF data or a TIFF file.

    Args:
        data: The bytes, with or without :data:`EXIF_PREFIX`.

    Raises:
        ValueError: If it does not begin like a TIFF file.
    """

    def __init__(self, data: bytes):
        while data.startswith(EXIF_PREFIX):
            data = data[len(EXIF_PREFIX) :]
        if not data.startswith(HEADERS):
            raise ValueError("does not begin with a TIFF header")
        self.data = data
        self.order: Literal["little", "big"] = "little" if data.startswith(b"I") else "big"
        self._format = "<" if self.order == "little" else ">"
        self._width = 8 if b"+" in data[2:4] else 4
        self.first = self.number(self._width, self._width)

    def number(self, start: int, length: int) -> int:
        """Read an unsigned integer; bytes beyond the end count as absent."""
        return int.from_bytes(self.data[start : start + length], self.order)

    def directory(self, start: int) -> Directory | None:
        """Read the directory at an offset; None if it lies outside the data."""
        count_width = 8 if self._width == 8 else 2
        if not 8 <= start <= len(self.data) - count_width:
            return None
        declared, first = self.number(start, count_width), start + count_width
        form = struct.Struct(self._format + ("HHQ8s" if self._width == 8 else "HHI4s"))
        entries: dict[int, Entry] = {}
        repeated = set()
        for number in range(min(declared, MAX_ENTRIES)):
            position = first + number * form.size
            if position + form.size > len(self.data):
                break
            tag, kind, count, content = form.unpack_from(self.data, position)
            size = count * SIZES.get(kind, 0)
            at = position + form.size - self._width
            if size > self._width:
                at = int.from_bytes(content, self.order)
            if tag in entries:
                repeated.add(tag)
            elif size and at + size <= len(self.data):
                entries[tag] = Entry(kind, count, at)
        following = self.number(first + declared * form.size, self._width)
        return Directory(entries, declared, following, repeated)

    def content(self, entry: Entry, limit: int = MAX_CONTENT) -> bytes:
        """Return the bytes of an entry up to a limit."""
        return self.data[entry.start : entry.start + min(entry.size, limit)]

    def value(self, entry: Entry) -> Value:
        """Return the value of an entry, at most 64 KiB or 32 numbers."""
        content = self.content(entry)
        if entry.kind in RATIONALS:
            form = struct.Struct(self._format + RATIONALS[entry.kind])
            pairs = form.iter_unpack(content[: 8 * min(entry.count, MAX_VALUES)])
            return tuple((numerator, denominator) for numerator, denominator in pairs)
        if entry.kind in NUMBERS:
            count = min(entry.count, MAX_VALUES)
            return struct.unpack_from(f"{self._format}{count}{NUMBERS[entry.kind]}", content)
        return content

    def integer(self, directory: Directory, tag: int) -> int | None:
        """Return the value of an entry that is a single integer; None if there is no such entry."""
        entry = directory.entries.get(tag)
        if entry is None or entry.count != 1 or entry.kind not in (SHORT, LONG, 13, 16, 18):
            return None
        return self.number(entry.start, entry.size)

    def chain(self, limit: int) -> Iterator[Directory]:
        """Yield the directories of a TIFF file, up to a limit, a loop or a damaged offset."""
        visited, start = set[int](), self.first
        while start not in visited and len(visited) < limit:
            visited.add(start)
            directory = self.directory(start)
            if directory is None:
                return
            yield directory
            start = directory.next


def stored_orientation(block: bytes) -> int | None:
    """Return the orientation in EXIF data; None if there is none, 0 if it is not a single SHORT.

    The result is not necessarily valid. The type SHORT is the one that the standard prescribes and
    that browsers require.
    """
    try:
        exif = ExifBlock(block)
    except ValueError:
        return None
    directory = exif.directory(exif.first)
    if directory is None or ORIENTATION_TAG not in directory.entries:
        return None
    if directory.entries[ORIENTATION_TAG].kind != SHORT:
        return 0
    return exif.integer(directory, ORIENTATION_TAG) or 0


def valid_orientation(block: bytes) -> int:
    """Return the orientation that EXIF data prescribes, 1 to 8; 1 if it is absent or invalid."""
    orientation = stored_orientation(block)
    return orientation if orientation and orientation in ORIENTATIONS else 1
