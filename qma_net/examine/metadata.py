"""What a file says beside its pixels: format, EXIF, XMP, JPEG tables, C2PA, a small picture.

Everything is read from the bytes, with bounds on size, count and depth, and nothing in them is
trusted: what cannot be read is a note, never an error.
"""

import hashlib
import re
import zlib
from dataclasses import dataclass, field

import numpy as np

from ..core.images import HEADER_SIZE, ImageError, describe_content, open_image, rgb_pixels
from .exif import Exif, printable, read_exif
from .jpeg import (
    APP0,
    APP1,
    APP2,
    APP11,
    APP13,
    APP14,
    COM,
    EOI,
    JpegFacts,
    jpeg_facts,
    jpeg_segments,
)

MOST_CHARACTERS = 20_000  # of XMP and other text that are kept
MOST_PARTS = 60  # of a file that are named
MOST_NOTES = 20
MOST_CHUNKS = 4096  # of a PNG, WebP, AVIF or HEIC that are walked over
LARGEST_THUMBNAIL = 2_000_000  # pixels; cameras embed 160x120, some 640x480

EXIF_PREFIX = b"Exif\0\0"
XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
XMP_MORE = b"http://ns.adobe.com/xmp/extension/\0"
C2PA_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # in AVIF and HEIC: C2PA, appendix A
XMP_KEYWORD = b"XML:com.adobe.xmp"  # of a PNG's text chunk

# What the segments of a JPEG hold, by their first bytes.
SEGMENTS = (
    (APP0, b"JFIF\0", "JFIF"),
    (APP0, b"JFXX\0", "JFIF extension"),
    (APP1, EXIF_PREFIX, "EXIF"),
    (APP1, XMP_PREFIX, "XMP"),
    (APP1, XMP_MORE, "more XMP"),
    (APP2, b"ICC_PROFILE\0", "colour profile"),
    (APP2, b"MPF\0", "index of further pictures"),
    (APP11, b"JP", "JUMBF boxes, in which C2PA is kept"),
    (APP13, b"Photoshop 3.0\0", "Photoshop, in which IPTC is kept"),
    (APP14, b"Adobe", "Adobe colour transform"),
    (COM, b"", "comment"),
)


@dataclass
class FileFacts:
    """What a file says of itself; all text is printable, and cut where it is long.

    Attributes:
        format: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC, by its first bytes, whatever its
            name says.
        size: in bytes.
        sha256: hexadecimal, of the whole file.
        jpeg: what a JPEG's header says; None for other formats.
        exif: directories, orientation, position.
        xmp: the packet as text; empty without.
        texts: comments and text chunks, by keyword.
        c2pa: whether a C2PA manifest is there. It is not verified.
        thumbnail: the embedded small picture, uint8 ``(h, w, 3)``; None where there is none.
        parts: what the file is made of, in its order, with sizes.
        trailing: bytes behind the end of the picture; None where the format has no such end.
        notes: what could not be read.
    """

    format: str
    size: int
    sha256: str
    jpeg: JpegFacts | None = None
    exif: Exif = field(default_factory=Exif)
    xmp: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    c2pa: bool = False
    thumbnail: np.ndarray | None = None
    parts: list[str] = field(default_factory=list)
    trailing: int | None = None
    notes: list[str] = field(default_factory=list)


def read_facts(data: bytes) -> FileFacts:
    """Reads a file's bytes; never fails on them."""
    kind = describe_content(data[:HEADER_SIZE]).removeprefix("a ")
    facts = FileFacts(kind, len(data), hashlib.sha256(data).hexdigest())
    readers = {"JPEG": _read_jpeg, "PNG": _read_png, "WebP": _read_webp, "GIF": _read_gif}
    readers |= {"TIFF": _read_tiff, "AVIF": _read_heif, "HEIC": _read_heif}
    if facts.format in readers:
        readers[facts.format](data, facts)
    if facts.exif.thumbnail:
        facts.thumbnail = _decoded(facts.exif.thumbnail, facts.notes)
    for kept in (facts.notes, facts.parts):
        most = MOST_NOTES if kept is facts.notes else MOST_PARTS
        unique = list(dict.fromkeys(kept)) if kept is facts.notes else list(kept)
        more = [f"... and {len(unique) - most} more"] if len(unique) > most else []
        kept[:] = unique[:most] + more
    return facts


def _read_jpeg(data: bytes, facts: FileFacts) -> None:
    segments = list(jpeg_segments(data, facts.notes))
    facts.jpeg = jpeg_facts(segments, facts.notes)
    for segment in segments:
        kinds = (
            what
            for marker, start, what in SEGMENTS
            if segment.marker == marker and segment.payload.startswith(start)
        )
        kind = next(kinds, "unknown" if 0xE0 <= segment.marker <= 0xEF else "")
        if kind:
            marker = "COM" if segment.marker == COM else f"APP{segment.marker - APP0}"
            facts.parts.append(f"{marker}: {kind}, {len(segment.payload):,} bytes")
        if kind == "EXIF" and not facts.exif.directories:
            facts.exif = read_exif(segment.payload[len(EXIF_PREFIX) :], facts.notes)
        elif kind == "XMP":
            _keep_xmp(segment.payload[len(XMP_PREFIX) :], facts)
        elif kind == "more XMP":
            facts.notes.append("more XMP follows in parts, which are not shown")
        elif kind == "comment":
            _keep_text("comment", segment.payload, facts)
        elif segment.marker == APP11:
            facts.c2pa |= _is_c2pa(segment.payload)
    if segments and segments[-1].marker == EOI:
        facts.trailing = len(data) - segments[-1].end


def _read_png(data: bytes, facts: FileFacts) -> None:
    position = 8
    for _ in range(MOST_CHUNKS):
        size, kind = (
            int.from_bytes(data[position : position + 4], "big"),
            data[position + 4 : position + 8],
        )
        content = data[position + 8 : position + 8 + size]
        if len(kind) < 4 or len(content) < size:
            facts.notes.append(f"the PNG's chunks break off at byte {position}")
            return
        position += 12 + size
        if kind != b"IDAT":
            facts.parts.append(f"{printable(kind)}, {size:,} bytes")
        if kind == b"eXIf":
            facts.exif = read_exif(content.removeprefix(EXIF_PREFIX), facts.notes)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            _keep_chunk(kind, content, facts)
        elif kind == b"caBX":
            facts.c2pa = True
        elif kind == b"IEND":
            facts.trailing = len(data) - position
            return
    facts.notes.append(f"the PNG has more than {MOST_CHUNKS} chunks; the rest was not read")


def _keep_chunk(kind: bytes, content: bytes, facts: FileFacts) -> None:
    """A text chunk of a PNG: a keyword, and text that may be compressed."""
    keyword, _, rest = content.partition(b"\0")
    is_compressed = kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        is_compressed = rest[:1] == b"\1"
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # language, translated keyword
    if is_compressed:
        try:
            rest = zlib.decompressobj().decompress(rest, 4 * MOST_CHARACTERS)
        except zlib.error:
            facts.notes.append(f"the PNG's text {printable(keyword)} cannot be decompressed")
            return
    if keyword == XMP_KEYWORD:
        _keep_xmp(rest, facts)
    else:
        _keep_text(printable(keyword), rest, facts)


def _read_webp(data: bytes, facts: FileFacts) -> None:
    position, end = 12, 8 + int.from_bytes(data[4:8], "little")
    for _ in range(MOST_CHUNKS):
        if position >= min(end, len(data)):
            facts.trailing = max(0, len(data) - end - end % 2)
            return
        kind, size = (
            data[position:][:4],
            int.from_bytes(data[position + 4 : position + 8], "little"),
        )
        content = data[position + 8 : position + 8 + size]
        if len(content) < size:
            facts.notes.append(f"the WebP's chunks break off at byte {position}")
            return
        position += 8 + size + size % 2
        facts.parts.append(f"{printable(kind)}, {size:,} bytes")
        if kind == b"EXIF":
            facts.exif = read_exif(content.removeprefix(EXIF_PREFIX), facts.notes)
        elif kind == b"XMP ":
            _keep_xmp(content, facts)
        facts.c2pa |= kind == b"C2PA"
    facts.notes.append(f"the WebP has more than {MOST_CHUNKS} chunks; the rest was not read")


def _read_gif(data: bytes, facts: FileFacts) -> None:
    facts.c2pa = b"\x21\xff\x0bC2PA_GIF" in data
    if (start := data.find(b"\x21\xff\x0bXMP DataXMP")) >= 0:
        packet = data[start + 14 :][: 4 * MOST_CHARACTERS]
        _keep_xmp(packet.split(b"<?xpacket end")[0].split(b"\x01\xff\xfe")[0], facts)


def _read_tiff(data: bytes, facts: FileFacts) -> None:
    facts.exif = read_exif(data, facts.notes)
    facts.c2pa = facts.exif.has_c2pa
    if facts.exif.xmp:
        _keep_xmp(facts.exif.xmp, facts)


def _read_heif(data: bytes, facts: FileFacts) -> None:
    """AVIF and HEIC: boxes one after the other (ISO 14496-12); EXIF and XMP as Pillow finds them.

    Pillow gives the rotation that the file asks for as the EXIF's orientation, pillow-heif turns
    the picture and sets it to 1.
    """
    position = 0
    for _ in range(MOST_CHUNKS):
        if position >= len(data):
            break
        size, kind = int.from_bytes(data[position:][:4], "big"), data[position + 4 :][:4]
        start = position + 8
        if size == 1:  # it is long, and its size follows
            size, start = int.from_bytes(data[start:][:8], "big"), start + 8
        elif size == 0:  # the last one
            size = len(data) - position
        if position + size > len(data) or start > position + size:
            facts.notes.append(f"the {facts.format}'s boxes break off at byte {position}")
            break
        facts.parts.append(f"{printable(kind)}, {size:,} bytes")
        facts.c2pa |= kind == b"uuid" and data[start:].startswith(C2PA_BOX)
        position += size
    try:
        with open_image(data, name="the file") as image:
            said = image.info
    except ImageError as error:
        facts.notes.append(f"its EXIF and XMP are not read: it {error.reason}")
        return
    if exif := said.get("exif"):
        facts.exif = read_exif(exif.removeprefix(EXIF_PREFIX), facts.notes)
    if said.get("original_orientation", 1) not in (None, 1):
        orientation = said["original_orientation"]
        facts.notes.append(
            f"its EXIF has orientation {orientation}, shown as 1: in a HEIC it counts for nothing"
        )
    if xmp := said.get("xmp"):
        _keep_xmp(xmp, facts)


def _is_c2pa(payload: bytes) -> bool:
    """Whether a JPEG's APP11 segment begins a C2PA manifest: a JUMBF box whose label is c2pa."""
    return payload[:2] == b"JP" and b"jumb" in payload[:64] and b"c2pa" in payload[:128]


def _keep_xmp(packet: bytes, facts: FileFacts) -> None:
    text = re.sub(rb"\s*\n\s*\n\s*", b"\n", packet[: 4 * MOST_CHARACTERS]).strip()
    facts.xmp = printable(text, MOST_CHARACTERS)


def _keep_text(keyword: str, text: bytes, facts: FileFacts) -> None:
    name, number = keyword, 1
    while name in facts.texts and number < MOST_PARTS:
        number += 1
        name = f"{keyword} {number}"
    if len(facts.texts) < MOST_PARTS:
        facts.texts[name] = printable(text.rstrip(b"\0"), MOST_CHARACTERS)


def _decoded(data: bytes, notes: list[str]) -> np.ndarray | None:
    """An embedded picture's pixels: a picture of moderate size, or nothing."""
    try:
        with open_image(data, name="the embedded thumbnail") as image:
            if image.width * image.height <= LARGEST_THUMBNAIL:
                return rgb_pixels(image)
            notes.append(f"the embedded thumbnail claims {image.width}x{image.height} pixels")
    except ImageError:
        notes.append("the embedded thumbnail cannot be decoded")
    return None
