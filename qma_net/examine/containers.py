"""The structure of image files: segments, chunks and boxes, metadata, and what follows the image.

Everything is parsed from the raw bytes, without trusting sizes declared in the file, so that it can
be reported even if no pixel can be decoded. The work is bounded for every format.
"""

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..core.exif import EXIF_PREFIX, HEADERS, ExifBlock
from .embedded import covered, read_embedded
from .texts import MAX_LISTED, decode_png_text, decode_xmp

MAX_PARTS = 4096  # JPEG segments and HEIF boxes to read, and parts to list.
MAX_STEPS = 500_000  # Chunks of a PNG or WebP file, and blocks of a GIF.
MAX_BLOCKS = 500  # Blocks of metadata.
MAX_BLOCK = 2**20  # Bytes of one block of metadata.
MAX_ICC = 2**24  # Bytes; printer profiles have a few million.
MAX_METADATA = 2**26  # Bytes of all blocks together.
MAX_ITEMS = MAX_PARTS  # Items of a HEIC or AVIF file; one of 200 megapixels has about 800.
MAX_EXTENTS = 100  # Pieces of one item.
MAX_PAGES = 10  # Pages of a TIFF whose metadata is read.

# Markers of JPEG segments (ITU-T T.81, Annex B).
SOS, EOI, COM = 0xDA, 0xD9, 0xFE
APP0, APP1, APP2, APP11, APP13, APP14 = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xEE
STANDALONE = {0x01, *range(0xD0, 0xD8)}  # Markers without a length: TEM and RSTn.
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

# What a block of metadata contains.
EXIF, XMP, IPTC, PHOTOSHOP = "EXIF", "XMP", "IPTC", "Photoshop"
ICC, TEXT, COMMENT = "ICC profile", "text", "comment"

XMP_START = b"http://ns.adobe.com/xap/1.0/\0"
EXTENDED_XMP_START = b"http://ns.adobe.com/xmp/extension/\0"
PHOTOSHOP_START, ICC_START, MPF_START = b"Photoshop 3.0\0", b"ICC_PROFILE\0", b"MPF\0"

# The content of JPEG segments, by marker and first bytes.
SEGMENTS = (
    (APP0, b"JFIF\0", "JFIF"),
    (APP0, b"JFXX\0", "JFIF extension"),
    (APP1, EXIF_PREFIX, "EXIF"),
    (APP1, XMP_START, "XMP"),
    (APP1, EXTENDED_XMP_START, "extended XMP"),
    (APP2, ICC_START, "color profile"),
    (APP2, MPF_START, "index of further images"),
    (APP2, b"urn:iso:std:iso:ts:21496:-1\0", "gain map metadata"),
    (APP11, b"JP", "JUMBF boxes, as used by C2PA"),
    (APP13, PHOTOSHOP_START, "Photoshop, may contain IPTC"),
    (APP13, b"\x1c\x02", "IPTC"),
    (APP14, b"Adobe", "Adobe color transform"),
    (COM, b"", "comment"),
)
# The metadata in JPEG segments, and where it begins.
SEGMENT_BLOCKS = {
    "XMP": (XMP, len(XMP_START)),
    "IPTC": (IPTC, 0),
    "comment": (COMMENT, 0),
}

# Chunks of a PNG, and below those of a WebP file and boxes of a HEIF file, that are not reported as
# unread.
PNG_CHUNKS = set(
    b"IHDR PLTE IDAT IEND cHRM gAMA sBIT sRGB bKGD hIST tRNS pHYs sPLT tIME cICP mDCV cLLI mDCv "
    b"cLLi acTL fcTL fdAT iCCP eXIf tEXt zTXt iTXt orNT oFFs sCAL pCAL sTER vpAg caNv iDOT".split()
)
XMP_KEYWORD = "XML:com.adobe.xmp"
RAW_PROFILE = "Raw profile type "
RAW_PROFILES = {"exif": EXIF, "app1": EXIF, "xmp": XMP, "iptc": IPTC, "icc": ICC, "icm": ICC}
WEBP_CHUNKS = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"}
HEIF_BOXES = {b"ftyp", b"meta", b"mdat", b"free", b"skip", b"moov", b"mfra", b"sidx", b"styp"}

C2PA_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # C2PA specification, appendix A.
GIF_XMP_END = b"\x01\xff\xfe\xfd"
GIF_APPLICATIONS = {b"NETSCAPE2.0": "", b"ANIMEXTS1.0": ""}
GIF_APPLICATIONS |= {b"ICCRGBG1012": ICC, b"MGKIPTC0000": IPTC, b"MGK8BIM0000": PHOTOSHOP}

# Tags of a TIFF whose content is metadata of a different kind.
TIFF_BLOCKS = {0x02BC: XMP, 0x83BB: IPTC, 0x8649: PHOTOSHOP, 0x8773: ICC}
C2PA_TAG = 0xCD41


@dataclass(frozen=True)
class Block:
    """A block of metadata.

    Attributes:
        kind: :data:`EXIF`, :data:`XMP`, :data:`IPTC`, :data:`PHOTOSHOP` (which can contain IPTC),
            :data:`ICC`, :data:`TEXT` or :data:`COMMENT`.
        content: Its bytes; those of a :data:`TEXT` are in UTF-8.
        source: Where it was found, if that is not the usual place.
        keyword: The keyword of a text.
    """

    kind: str
    content: bytes
    source: str = ""
    keyword: str = ""


@dataclass
class Structure:
    """The parts of a file.

    Attributes:
        parts: Each part with its size, in file order.
        segments: The marker and payload of each segment of a JPEG.
        blocks: The blocks of metadata.
        blocks_size: The total size of the blocks in bytes.
        unread: Parts that can contain metadata but were not read, in words.
        embedded: Further images and videos that the file declares, in words.
        c2pa: Whether there is a C2PA manifest. It is not verified.
        primaries: The code of the color primaries (ITU-T H.273); 0 if the file states none.
        trailing: Number of bytes after the end of the image that the file does not declare; None if
            it is not known where the image ends.
        notes: What could not be read or is unusual.
    """

    parts: list[str] = field(default_factory=list)
    segments: list[tuple[int, bytes]] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    blocks_size: int = 0
    unread: list[str] = field(default_factory=list)
    embedded: list[str] = field(default_factory=list)
    c2pa: bool = False
    primaries: int = 0
    trailing: int | None = None
    notes: list[str] = field(default_factory=list)

    def add_block(self, kind: str, content: bytes, *, source: str = "", keyword: str = "") -> None:
        """Add a block of metadata, unless there are too many; truncate any but EXIF to a limit."""
        limit = MAX_ICC if kind == ICC else MAX_BLOCK
        if len(self.blocks) >= MAX_BLOCKS or self.blocks_size > MAX_METADATA:
            self.stop("the file has an implausible amount of metadata; the rest was not read")
            return
        if len(content) > limit and kind != EXIF:
            self.stop(f"the {kind} has more than {limit:,} bytes; the rest of it is not read")
            content = content[:limit]
        self.blocks.append(Block(kind, content, source, keyword))
        self.blocks_size += len(content)

    def note(self, note: str) -> None:
        """Add a note once, unless there are too many."""
        if note not in self.notes and len(self.notes) < MAX_LISTED:
            self.notes.append(note)

    def skip(self, part: str) -> None:
        """Record a part that can contain metadata and is not read."""
        if part not in self.unread and len(self.unread) < MAX_LISTED:
            self.unread.append(part)

    def stop(self, note: str) -> None:
        """Note why the rest of the file, or of a part, is not read."""
        self.note(note)
        self.skip("the rest of the file")


def read_structure(data: bytes, kind: str, structure: Structure) -> None:
    """Read the structure of a file in a format such as ``JPEG``; damage is noted, never raised."""
    readers = {"JPEG": _read_jpeg, "PNG": _read_png, "WebP": _read_webp, "GIF": _read_gif}
    readers |= {"AVIF": _read_heif, "HEIC": _read_heif, "TIFF": _read_tiff}
    if kind in readers:
        readers[kind](data, structure)
    elif kind != "BMP":  # A BMP contains only pixels and, rarely, a color profile.
        structure.skip("the file")


# --- JPEG ---------------------------------------------------------------------------------


def _read_jpeg(data: bytes, structure: Structure) -> None:
    index, end = _read_segments(data, structure)
    _collect_segments(structure)
    if end is None:
        return
    packets = (decode_xmp(block.content) for block in structure.blocks if block.kind == XMP)
    embedded = list(read_embedded(data, end, index, next(packets, "")))
    structure.embedded = [str(item) for item in embedded]
    structure.trailing = len(data) - end - covered(embedded, end, len(data))


def _read_segments(data: bytes, structure: Structure) -> tuple[int, int | None]:
    """Read the segments up to the end of the image.

    Returns:
        The position of the index of further images, 0 if there is none; and the position after the
        image, None if its end is missing.
    """
    position, index = 2, 0
    for _ in range(MAX_PARTS):
        match = _MARKER.search(data, position)
        if not match:
            structure.stop("the JPEG has no end-of-image marker")
            return index, None
        if match.start() > position:  # Decoders skip these bytes.
            skipped = match.start() - position
            structure.note(f"{skipped:,} bytes at byte {position} belong to no segment")
        marker, position = match[1][0], match.end()
        if marker == EOI:
            return index, position
        if marker in STANDALONE:
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2 or position + length > len(data):
            structure.stop(
                f"the JPEG segment at byte {position} is incomplete: it declares {length:,} bytes"
            )
            return index, None
        payload = data[position + 2 : position + length]
        if marker == APP2 and payload.startswith(MPF_START):
            index = index or position + 2 + len(MPF_START)
        position += length
        structure.segments.append((marker, payload))
        _add_segment(marker, payload, structure)
        if marker == SOS:
            following = _AFTER_SCAN.search(data, position)
            position = following.start() if following else len(data)
    structure.stop(f"the JPEG has more than {MAX_PARTS} segments; the rest was not read")
    return index, None


def _add_segment(marker: int, payload: bytes, structure: Structure) -> None:
    content = _segment_content(marker, payload)
    if not content:
        return
    label = "COM" if marker == COM else f"APP{marker - APP0}"
    structure.parts.append(f"{label}: {content}, {len(payload):,} bytes")
    if content == "extended XMP":
        structure.note("the XMP continues in further segments, which are not shown")
        structure.skip(content)
    elif content.startswith("unknown") or marker == APP11:
        structure.skip(f"{label} ({content})")
    elif content in SEGMENT_BLOCKS:
        kind, start = SEGMENT_BLOCKS[content]
        structure.add_block(kind, payload[start:])
    # A manifest is a JUMBF box with the label c2pa.
    is_jumbf = marker == APP11 and payload.startswith(b"JP")
    structure.c2pa |= is_jumbf and b"jumb" in payload[:64] and b"c2pa" in payload[:128]


def _segment_content(marker: int, payload: bytes) -> str:
    for expected, start, name in SEGMENTS:
        if marker == expected and payload.startswith(start):
            return name
    if not APP0 <= marker <= 0xEF:
        return ""
    identifier = re.match(rb"[\w .:/-]{3,40}", payload)
    return f"unknown, {identifier[0].decode()}" if identifier else "unknown"


def _collect_segments(structure: Structure) -> None:
    """Add metadata that can extend over several segments."""
    exif: list[list[bytes]] = []
    profile: dict[int, bytes] = {}
    resources = []
    for marker, payload in structure.segments:
        if marker == APP1 and payload.startswith(EXIF_PREFIX):
            content = payload[len(EXIF_PREFIX) :]
            if exif and not content.startswith(HEADERS):  # It continues the previous segment.
                exif[-1].append(content)
            else:
                exif.append([content])
        elif marker == APP2 and payload.startswith(ICC_START) and len(payload) > 14:
            profile.setdefault(payload[12], payload[14:])
        elif marker == APP13 and payload.startswith(PHOTOSHOP_START):
            resources.append(payload[len(PHOTOSHOP_START) :])
    for pieces in exif:
        structure.add_block(EXIF, b"".join(pieces))
    if profile:
        structure.add_block(ICC, b"".join(profile[number] for number in sorted(profile)))
    if resources:
        structure.add_block(PHOTOSHOP, b"".join(resources))


# --- Chunks and boxes ---------------------------------------------------------------------


def _add_part(name: bytes, size: int, structure: Structure) -> None:
    if len(structure.parts) < MAX_PARTS:
        structure.parts.append(f"{name.decode('latin-1')}, {size:,} bytes")


def _read_png(data: bytes, structure: Structure) -> None:
    position, budget = 8, 4 * MAX_BLOCK
    for _ in range(MAX_STEPS):
        name = data[position + 4 : position + 8]
        size = int.from_bytes(data[position : position + 4], "big")
        start, following = position + 8, position + 12 + size
        if len(name) < 4 or start + size > len(data):
            structure.stop(f"the file is damaged or truncated at byte {position}")
            return
        if name not in (b"IDAT", b"fdAT", b"fcTL"):
            _add_part(name, size, structure)
        if name not in PNG_CHUNKS:
            structure.skip(name.decode("latin-1"))
        structure.c2pa |= name == b"caBX"
        if name == b"cICP":
            structure.primaries = data[start] if size else 0
        if name == b"eXIf":
            structure.add_block(EXIF, data[start : start + size])
        elif name in (b"tEXt", b"zTXt", b"iTXt", b"iCCP") and budget > 0:
            content = data[start : start + min(size, MAX_ICC)]
            budget -= _add_png_text(name, content, structure, budget)
            if budget <= 0:
                structure.stop("the text chunks are too large; the rest of them is not read")
        elif name == b"IEND":
            structure.trailing = max(0, len(data) - following)
            return
        position = following
    structure.stop(f"the file has more than {MAX_STEPS:,} chunks; the rest was not read")


def _add_png_text(name: bytes, content: bytes, structure: Structure, budget: int) -> int:
    """Add a text or color profile; return the number of bytes to deduct from the budget."""
    if name == b"iCCP":
        if any(block.kind == ICC for block in structure.blocks):
            return 0  # The standard allows only one.
        _, _, compressed = content.partition(b"\0")
        try:
            profile = zlib.decompressobj().decompress(compressed[1:], MAX_ICC)
        except zlib.error:
            structure.note("the color profile cannot be decompressed")
            return 0
        structure.add_block(ICC, profile)
        return 0
    keyword, text = decode_png_text(name, content, min(budget, MAX_BLOCK + 1))
    if text is None:
        structure.note("a text chunk cannot be decompressed")
        structure.skip(f"text chunk {keyword}")
        return len(content)
    if keyword == XMP_KEYWORD:
        structure.add_block(XMP, text)
    elif keyword.startswith(RAW_PROFILE):
        _add_raw_profile(keyword, text, structure)
    else:
        structure.add_block(TEXT, text, keyword=keyword)
    return len(text) + 1


def _add_raw_profile(keyword: str, text: bytes, structure: Structure) -> None:
    """Add metadata that ImageMagick stored as text: a name, a length and hexadecimal digits."""
    try:
        content = bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        structure.note(f'the text chunk "{keyword}" cannot be decoded')
        structure.skip(keyword)
        return
    kind = RAW_PROFILES.get(keyword.removeprefix(RAW_PROFILE).lower(), "")
    if content.startswith(XMP_START):
        kind, content = XMP, content.removeprefix(XMP_START)
    elif content.startswith((PHOTOSHOP_START, b"8BIM")):
        kind, content = PHOTOSHOP, content.removeprefix(PHOTOSHOP_START)
    if kind:
        structure.add_block(kind, content, source=keyword)
    else:
        structure.skip(keyword)


def _read_webp(data: bytes, structure: Structure) -> None:
    end, position = 8 + int.from_bytes(data[4:8], "little"), 12
    kinds = {b"EXIF": EXIF, b"XMP ": XMP, b"ICCP": ICC}
    for _ in range(MAX_STEPS):
        if position >= min(end, len(data)):
            break
        name, size = (
            data[position : position + 4],
            int.from_bytes(data[position + 4 : position + 8], "little"),
        )
        start = position + 8
        if len(name) < 4 or start + size > len(data):
            structure.stop(f"the file is damaged or truncated at byte {position}")
            break
        _add_part(name, size, structure)
        structure.c2pa |= name == b"C2PA"
        if name in kinds:
            structure.add_block(kinds[name], data[start : start + size])
        elif name not in WEBP_CHUNKS:
            structure.skip(name.decode("latin-1"))
        position = start + size + size % 2
    else:
        structure.stop(f"the file has more than {MAX_STEPS:,} chunks; the rest was not read")
    structure.trailing = max(0, len(data) - end - end % 2)


def _read_gif(data: bytes, structure: Structure) -> None:
    """Read the blocks of a GIF (GIF89a specification)."""
    position, steps = 13 + _color_table_size(data[10:11]), 0
    while steps < MAX_STEPS:
        kind, label = data[position : position + 1], data[position + 1 : position + 2]
        if kind == b";":
            structure.trailing = len(data) - position - 1
            return
        if kind == b",":  # An image.
            start = position + 11 + _color_table_size(data[position + 9 : position + 10])
        elif kind == b"!":
            start = position + 2
        else:
            structure.stop(f"the file is damaged or truncated at byte {position}")
            return
        position = start
        while position < len(data) and data[position] and steps < MAX_STEPS:
            position += 1 + data[position]
            steps += 1
        position += 1
        steps += 1
        if kind == b"!" and label != b"\xf9":  # That is the timing of a frame.
            _add_gif_extension(label, data, start, min(position, len(data)), structure)
    structure.stop("the GIF has too many blocks; the rest was not read")


def _add_gif_extension(
    label: bytes, data: bytes, start: int, end: int, structure: Structure
) -> None:
    """Add an extension, whose sub-blocks lie between ``start`` and ``end``."""
    names = {b"\xff": data[start + 1 : start + 12], b"\xfe": b"comment", b"\x01": b"plain text"}
    name = names.get(label, b"unknown extension")
    _add_part(name, end - start, structure)
    structure.c2pa |= name.startswith(b"C2PA_GIF")
    if label == b"\xfe":
        structure.add_block(COMMENT, _sub_blocks(data, start, end))
    elif label == b"\x01":  # Text drawn on the image, after 13 bytes of layout.
        content = _sub_blocks(data, start + 13, end)
        structure.add_block(COMMENT, content, source="plain text")
    elif name == b"XMP DataXMP":  # It is not divided into sub-blocks, and a trailer follows.
        packet, _, _ = data[start + 12 : min(end, start + 12 + MAX_BLOCK)].partition(GIF_XMP_END)
        structure.add_block(XMP, packet)
    elif name in GIF_APPLICATIONS:
        if kind := GIF_APPLICATIONS[name]:
            structure.add_block(kind, _sub_blocks(data, start + 12, end))
    else:
        structure.skip(name.decode("latin-1"))


def _sub_blocks(data: bytes, start: int, end: int) -> bytes:
    content = bytearray()
    while start < end and data[start] and len(content) < MAX_ICC:
        content += data[start + 1 : start + 1 + data[start]]
        start += 1 + data[start]
    return bytes(content)


def _color_table_size(flags: bytes) -> int:
    """Return the size in bytes of the color table that the flags announce; 0 if there is none."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _read_tiff(data: bytes, structure: Structure) -> None:
    try:
        tiff = ExifBlock(data)
    except ValueError as error:
        structure.stop(f"the file {error}")
        return
    for page, directory in enumerate(tiff.chain(MAX_PAGES)):
        structure.c2pa |= C2PA_TAG in directory.entries
        if page > 1:  # The second page is read like the thumbnail of EXIF data.
            structure.skip("tags of the third and later pages")
        for tag, kind in TIFF_BLOCKS.items():
            if tag in directory.entries:
                source = f"page {page + 1}" if page else ""
                content = tiff.content(directory.entries[tag], MAX_ICC)
                structure.add_block(kind, content, source=source)
    structure.add_block(EXIF, data)


# --- AVIF and HEIC (ISO 14496-12, ISO 23008-12) -------------------------------------------


def _read_heif(data: bytes, structure: Structure) -> None:
    for name, start, end in _boxes(data, 0, len(data), structure):
        _add_part(name, end - start, structure)
        if name == b"uuid":
            structure.c2pa |= C2PA_UUID in data[start + 8 : start + 32]
        if name == b"meta":
            _read_meta(data, start + 12, end, structure)
        elif name not in HEIF_BOXES:
            structure.skip(name.decode("latin-1"))


def _boxes(
    data: bytes, position: int, end: int, structure: Structure
) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, the start and the end of each box between two positions."""
    for _ in range(MAX_PARTS):
        if position >= end:
            return
        size, name = (
            int.from_bytes(data[position : position + 4], "big"),
            data[position + 4 : position + 8],
        )
        minimum = 8
        if size == 1:  # The size follows in 64 bits.
            size, minimum = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        elif size == 0:  # The box extends to the end.
            size = end - position
        if len(name) < 4 or size < minimum or position + size > end:
            structure.stop(f"the file is damaged or truncated at byte {position}")
            return
        yield name, position, position + size
        position += size
    structure.stop(f"the file has more than {MAX_PARTS} parts; the rest was not read")


def _read_meta(data: bytes, start: int, end: int, structure: Structure) -> None:
    """Read the items that contain metadata, and the colors of the primary item."""
    boxes = {name: (at, stop) for name, at, stop in _boxes(data, start, end, structure)}
    if b"pitm" in boxes and b"iprp" in boxes:
        at, stop = boxes[b"pitm"]
        _read_colors(data, *boxes[b"iprp"], data[at + 12 : stop], structure)
    kinds = dict(_item_kinds(data, *_content(boxes, b"iinf"), structure))
    idat = _content(boxes, b"idat")[0]
    extents = dict(_item_extents(data, *_content(boxes, b"iloc"), idat, structure))
    for item, kind in kinds.items():
        pieces = extents.get(item, [])
        content = _joined(data, pieces) if kind in (EXIF, XMP) else b""
        if content:
            skipped = 4 + int.from_bytes(content[:4], "big") if kind == EXIF else 0
            structure.add_block(kind, content[skipped:])
        if len(content) < max(1, sum(size for _, size in pieces)):
            structure.skip(f"{'the rest of ' if content else ''}item {item} ({kind})")


def _joined(data: bytes, pieces: Iterable[tuple[int, int]]) -> bytes:
    """Join pieces of the file, given by position and size, up to a limit."""
    content = bytearray()
    for position, size in pieces:
        content += data[position : position + min(size, MAX_BLOCK + 1 - len(content))]
    return bytes(content)


def _read_colors(data: bytes, start: int, end: int, item: bytes, structure: Structure) -> None:
    """Read the color properties of the item whose number, as stored, is ``item``."""
    boxes = {name: (at, stop) for name, at, stop in _boxes(data, start + 8, end, structure)}
    wanted = set(_property_numbers(data, *_content(boxes, b"ipma"), int.from_bytes(item, "big")))
    properties = _boxes(data, *_content(boxes, b"ipco"), structure)
    for number, (name, at, stop) in enumerate(properties, 1):
        kind = data[at + 8 : at + 12] if name == b"colr" and number in wanted else b""
        if kind in (b"prof", b"rICC"):
            structure.add_block(ICC, data[at + 12 : stop])
        elif kind == b"nclx":
            structure.primaries = int.from_bytes(data[at + 12 : at + 14], "big")


def _property_numbers(data: bytes, start: int, end: int, item: int) -> list[int]:
    """Return the numbers of the properties of an item."""
    if end - start < 8:
        return []
    item_width = 4 if data[start] else 2
    width = 2 if data[start + 3] & 1 else 1
    position, count = start + 8, int.from_bytes(data[start + 4 : start + 8], "big")
    for _ in range(min(count, MAX_ITEMS)):
        number = int.from_bytes(data[position : position + item_width], "big")
        position += item_width
        if position >= end:
            return []
        size, position = data[position] * width, position + 1
        if number == item:
            content = data[position : position + size]
            mask = 0x7FFF if width == 2 else 0x7F  # The highest bit is a flag.
            values = (content[i : i + width] for i in range(0, len(content), width))
            return [int.from_bytes(value, "big") & mask for value in values]
        position += size
    return []


def _content(boxes: dict[bytes, tuple[int, int]], name: bytes) -> tuple[int, int]:
    at, stop = boxes.get(name, (0, 0))
    return (at + 8, stop) if stop else (0, 0)


def _item_kinds(
    data: bytes, start: int, end: int, structure: Structure
) -> Iterator[tuple[int, str]]:
    """Yield the number and the kind of each item that can contain metadata."""
    if end - start < 4:
        return
    first = start + (6 if data[start] == 0 else 8)
    for _, at, stop in _boxes(data, first, end, structure):
        version = int.from_bytes(data[at + 8 : min(at + 9, stop)], "big")
        if version not in (2, 3):
            structure.skip("an item of unknown type")
            continue
        width = 2 if version == 2 else 4
        number = int.from_bytes(data[at + 12 : at + 12 + width], "big")
        kind = data[at + 14 + width : at + 18 + width]
        mime = data[at + 18 + width : at + 18 + width + 200].split(b"\0")[1:2]
        if kind == b"Exif":
            yield number, EXIF
        elif kind == b"mime" and mime == [b"application/rdf+xml"]:
            yield number, XMP
        elif kind in (b"mime", b"uri "):
            yield number, kind.decode()


def _item_extents(
    data: bytes, start: int, end: int, idat: int, structure: Structure
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield the number of each item, and the position and size of each of its extents.

    There are no extents if the item is stored elsewhere or in too many pieces.
    """
    position = start + 4

    def number(width: int) -> int:
        nonlocal position
        position += width
        return int.from_bytes(data[position - width : min(position, end)], "big")

    if end - start < 4:
        return
    version, sizes = data[start], number(2)
    offset_size, length_size, base_size, index_size = (
        sizes >> shift & 15 for shift in (12, 8, 4, 0)
    )
    index_size = index_size if version else 0
    total = number(2 if version < 2 else 4)
    if total > MAX_ITEMS:
        structure.stop(f"the file has more than {MAX_ITEMS} items; the rest was not read")
    for _ in range(min(total, MAX_ITEMS)):
        item = number(2 if version < 2 else 4)
        method = number(2) & 15 if version else 0
        is_elsewhere = number(2) != 0 or method > 1 or (method == 1 and not idat)
        base, count = number(base_size), number(2)
        base += idat if method else 0
        extents = []
        for _ in range(min(count, MAX_EXTENTS)):
            number(index_size)
            extents.append((base + number(offset_size), number(length_size)))
        position += max(0, count - MAX_EXTENTS) * (index_size + offset_size + length_size)
        if position > end:
            return
        yield item, [] if is_elsewhere or count > MAX_EXTENTS else extents
