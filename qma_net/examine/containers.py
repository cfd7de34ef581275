"""The structure of image files: their segments, chunks and boxes, and what follows the image.

No library reports these. They are parsed from the raw bytes, without trusting sizes declared in
the file.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

MAX_PARTS = 4096  # A photo has tens of parts, a progressive JPEG somewhat more.

# Markers of JPEG segments (ITU-T T.81, Annex B).
SOS, EOI, COM = 0xDA, 0xD9, 0xFE
APP0, APP1, APP2, APP11, APP13, APP14 = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xEE
STANDALONE = {0x01, *range(0xD0, 0xD8)}  # Markers without a length: TEM and RSTn.
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

# The content of JPEG segments, by their first bytes.
SEGMENTS = (
    (APP0, b"JFIF\0", "JFIF"),
    (APP0, b"JFXX\0", "JFIF extension"),
    (APP1, b"Exif\0\0", "EXIF"),
    (APP1, b"http://ns.adobe.com/xap/1.0/\0", "XMP"),
    (APP1, b"http://ns.adobe.com/xmp/extension/\0", "extended XMP"),
    (APP2, b"ICC_PROFILE\0", "color profile"),
    (APP2, b"MPF\0", "index of further images"),
    (APP11, b"JP", "JUMBF boxes, as used by C2PA"),
    (APP13, b"Photoshop 3.0\0", "Photoshop, may contain IPTC"),
    (APP14, b"Adobe", "Adobe color transform"),
    (COM, b"", "comment"),
)

C2PA_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # C2PA specification, appendix A.


@dataclass
class Structure:
    """The parts of a file.

    Attributes:
        parts: Each part with its size, in the order of the file.
        segments: The marker and payload of each segment of a JPEG.
        c2pa: Whether there is a C2PA manifest. It is not verified.
        trailing: Number of bytes after the end of the image; None if the format has no end marker.
        notes: What could not be read.
    """

    parts: list[str] = field(default_factory=list)
    segments: list[tuple[int, bytes]] = field(default_factory=list)
    c2pa: bool = False
    trailing: int | None = None
    notes: list[str] = field(default_factory=list)


def read_structure(data: bytes, kind: str, structure: Structure) -> None:
    """Read the structure of a file of a kind such as ``JPEG``; damage is noted, never raised."""
    readers = {"JPEG": _read_jpeg, "PNG": _read_png, "WebP": _read_webp}
    readers |= {"AVIF": _read_heif, "HEIC": _read_heif}
    if kind in readers:
        readers[kind](data, structure)
    elif kind == "GIF":
        structure.c2pa = b"\x21\xff\x0bC2PA_GIF" in data


def _read_jpeg(data: bytes, structure: Structure) -> None:
    position = 2
    for _ in range(MAX_PARTS):
        match = _MARKER.match(data, position)
        if not match:
            structure.notes.append(f"the JPEG segments end unexpectedly at byte {position}")
            return
        marker, position = match[1][0], match.end()
        if marker == EOI:
            structure.trailing = len(data) - position
            return
        if marker in STANDALONE:
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2 or position + length > len(data):
            structure.notes.append(
                f"the JPEG segment at byte {position} claims {length} bytes, which are missing"
            )
            return
        payload, position = data[position + 2 : position + length], position + length
        structure.segments.append((marker, payload))
        _add_segment(marker, payload, structure)
        if marker == SOS:
            following = _AFTER_SCAN.search(data, position)
            if not following:
                structure.notes.append("the JPEG has no end-of-image marker")
                return
            position = following.start()
    structure.notes.append(f"the JPEG has more than {MAX_PARTS} segments; the rest was not read")


def _add_segment(marker: int, payload: bytes, structure: Structure) -> None:
    names = (name for m, start, name in SEGMENTS if m == marker and payload.startswith(start))
    content = next(names, "unknown" if APP0 <= marker <= 0xEF else "")
    if not content:
        return
    label = "COM" if marker == COM else f"APP{marker - APP0}"
    structure.parts.append(f"{label}: {content}, {len(payload):,} bytes")
    if content == "extended XMP":
        structure.notes.append("the XMP continues in further segments, which are not shown")
    # A manifest is a JUMBF box with the label c2pa.
    is_jumbf = marker == APP11 and payload.startswith(b"JP")
    structure.c2pa |= is_jumbf and b"jumb" in payload[:64] and b"c2pa" in payload[:128]


# The name of a part, where it or its content begins, its size, and where the next part begins.
_Part: TypeAlias = tuple[bytes, int, int, int]


def _parts(
    length: int, position: int, end: int, read_header: Callable[[int], _Part], structure: Structure
) -> Iterator[_Part]:
    """Yield the chunks or boxes between two positions of a file of this length."""
    for _ in range(MAX_PARTS):
        if position >= end:
            return
        part = name, start, size, following = read_header(position)
        if len(name) < 4 or start + size > length or following <= position:
            structure.notes.append(f"the file is damaged or truncated at byte {position}")
            return
        yield part
        position = following
    structure.notes.append(f"the file has more than {MAX_PARTS} parts; the rest was not read")


def _add_part(name: bytes, size: int, structure: Structure) -> None:
    structure.parts.append(f"{name.decode('latin-1')}, {size:,} bytes")


def _read_png(data: bytes, structure: Structure) -> None:
    def header(at: int) -> _Part:
        size = int.from_bytes(data[at : at + 4], "big")
        return data[at + 4 : at + 8], at + 8, size, at + 12 + size

    for name, _, size, following in _parts(len(data), 8, len(data) + 1, header, structure):
        if name != b"IDAT":
            _add_part(name, size, structure)
        structure.c2pa |= name == b"caBX"
        if name == b"IEND":
            structure.trailing = max(0, len(data) - following)
            return


def _read_webp(data: bytes, structure: Structure) -> None:
    def header(at: int) -> _Part:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        return data[at : at + 4], at + 8, size, at + 8 + size + size % 2

    end = 8 + int.from_bytes(data[4:8], "little")
    for name, _, size, _ in _parts(len(data), 12, min(end, len(data)), header, structure):
        _add_part(name, size, structure)
        structure.c2pa |= name == b"C2PA"
    structure.trailing = max(0, len(data) - end - end % 2)


def _read_heif(data: bytes, structure: Structure) -> None:
    """Read the boxes of an AVIF or HEIC file (ISO 14496-12)."""

    def header(at: int) -> _Part:
        size, start = int.from_bytes(data[at : at + 4], "big"), at + 8
        if size == 1:  # The size follows in 64 bits.
            size, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        elif size == 0:  # The box extends to the end of the file.
            size = len(data) - at
        return data[at + 4 : at + 8], at, size, max(start, at + size)

    for name, start, size, _ in _parts(len(data), 0, len(data), header, structure):
        _add_part(name, size, structure)
        structure.c2pa |= name == b"uuid" and C2PA_UUID in data[start + 8 : start + 32]
