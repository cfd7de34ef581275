"""What a file says besides its pixels: format, EXIF, XMP, IPTC, text, JPEG tables, thumbnail, C2PA.

Pillow reads the metadata; :mod:`.containers` adds the structure of the file. Everything is bounded
and nothing is trusted: what cannot be read becomes a note, never an error.
"""

import hashlib
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from ..core.images import (
    HEADER_SIZE,
    ImageError,
    decoding,
    describe_content,
    open_image,
    rgb_pixels,
)
from ..inference.photograph import (
    EXIF_PREFIX,
    bounded_orientation,
    open_photograph,
    require_bounded_exif,
)
from .containers import APP13, COM, Structure, read_structure
from .iptc import iptc_of_photoshop, read_iptc
from .jpeg import JpegFacts, jpeg_facts
from .texts import MAX_CHARACTERS, MAX_LISTED, decode_xmp, printable

MAX_NUMBERS = 32  # Of one EXIF value.
MAX_ENTRIES = 1000  # In all EXIF directories; a camera writes about a hundred.
MAX_XMP_PACKET = 2**20  # Bytes.
MAX_NOTES = 20
MAX_THUMBNAIL_PIXELS = 2_000_000  # Cameras embed 160x120 pixels, some 640x480.

XMP_KEYWORD = "XML:com.adobe.xmp"  # Of a PNG text chunk.
GIF_XMP = b"\x21\xff\x0bXMP DataXMP"
C2PA_TAG, XMP_TAG, MAKER_NOTE, USER_COMMENT = 0xCD41, 0x02BC, 0x927C, 0x9286
THUMBNAIL_OFFSET, THUMBNAIL_LENGTH = 0x0201, 0x0202

# EXIF directories, with the tag that points to each and the names of their entries.
DIRECTORIES: Mapping[str, tuple[int, Mapping[int, str]]] = {
    "IFD1": (ExifTags.IFD.IFD1, ExifTags.TAGS),
    "Exif": (ExifTags.IFD.Exif, ExifTags.TAGS),
    "GPS": (ExifTags.IFD.GPSInfo, ExifTags.GPSTAGS),
    "Interoperability": (ExifTags.IFD.Interop, {1: "InteroperabilityIndex"}),
}
POINTERS = {tag for tag, _ in DIRECTORIES.values()}


@dataclass(kw_only=True)
class FileFacts(Structure):
    """What a file says besides its pixels. All texts are printable and limited in length.

    Attributes:
        format: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC, according to the first bytes and not
            to the name.
        size: Size of the file in bytes.
        sha256: Hash of the file, hexadecimal.
        jpeg: How a JPEG is compressed; None for other formats.
        exif: Text by the name of the tag, by directory: IFD0, IFD1, Exif, GPS, Interoperability.
        position: Latitude and longitude in degrees; None if absent or not a valid position.
        xmp: The XMP packet as text, shortened for display; empty if there is none.
        xmp_packet: The decoded XMP packet, at most 1 MiB.
        iptc: IPTC metadata by name.
        texts: Comments and text chunks by keyword.
        thumbnail: The embedded thumbnail, uint8 ``(h, w, 3)``; None if there is none.
    """

    format: str
    size: int
    sha256: str
    jpeg: JpegFacts | None = None
    exif: dict[str, dict[str, str]] = field(default_factory=dict)
    position: tuple[float, float] | None = None
    xmp: str = ""
    xmp_packet: str = ""
    iptc: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    thumbnail: np.ndarray | None = None


def read_facts(data: bytes, image: Image.Image | None = None) -> FileFacts:
    """Read the facts about a file. Damage is noted, never raised.

    ``image`` is the file as opened by Pillow, if it is open already.
    """
    kind = describe_content(data[:HEADER_SIZE]).removeprefix("a ")
    facts = FileFacts(format=kind, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    read_structure(data, kind, facts)
    if image is None:
        image = _attempt("the metadata", facts.notes, partial(open_photograph, data))
    tables: dict[int, tuple[int, ...]] = {}
    if image is not None:
        stored = getattr(image, "quantization", {})
        tables = {number: tuple(values) for number, values in sorted(stored.items())}
        _read_exif(image, data, facts)
        _read_texts(image, data, facts)
        _note_orientation(image, facts)
    elif kind == "TIFF":
        _read_exif(None, data, facts)
    if kind == "JPEG":
        facts.jpeg = jpeg_facts(facts.segments, tables, facts.notes)
        for marker, payload in facts.segments:
            if marker == COM:
                _add_text("comment", payload, facts.texts)
    facts.parts = _limited(map(printable, facts.parts), MAX_LISTED)
    facts.notes = _limited(dict.fromkeys(facts.notes), MAX_NOTES)
    return facts


def _attempt(what: str, notes: list[str], read: Callable[[], Any]) -> Any:
    """Call a Pillow function; add a note and return None if the file is damaged."""
    try:
        with decoding("the file"):
            return read()
    except ImageError as error:
        notes.append(f"{what} cannot be read: it {error.reason}")
        return None


def _limited(items: Iterable[str], limit: int) -> list[str]:
    items = list(items)
    more = [f"... and {len(items) - limit} more"] if len(items) > limit else []
    return items[:limit] + more


def _read_exif(image: Image.Image | None, data: bytes, facts: FileFacts) -> None:
    """Read EXIF from the same bytes as Pillow does when it orients the pixels.

    ``Image.getexif`` itself is not used, because it adds the orientation of the XMP.
    """
    block = data if facts.format == "TIFF" else image.info.get("exif") if image else None
    if not block:
        return
    block = block.removeprefix(EXIF_PREFIX)
    exif = _attempt("the EXIF data", facts.notes, lambda: _parse_exif(block))
    if exif is None:
        return
    found: dict[str, Mapping[int, Any]] = {"IFD0": dict(exif)}
    for name, (pointer, _) in DIRECTORIES.items():
        if name != "Interoperability" or pointer in found.get("Exif", {}):
            read = partial(exif.get_ifd, pointer)
            found[name] = _attempt(f"the EXIF directory {name}", facts.notes, read) or {}
    _check_directories(block, found, facts.notes)
    remaining = MAX_ENTRIES
    for name, tags in found.items():
        names = DIRECTORIES[name][1] if name in DIRECTORIES else ExifTags.TAGS
        shown = [(tag, value) for tag, value in tags.items() if tag not in POINTERS]
        if len(shown) > remaining:
            facts.notes.append(f"EXIF: more than {MAX_ENTRIES} entries; the rest is not shown")
        texts = {
            names.get(tag, f"tag 0x{tag:04x}"): _exif_text(tag, value)
            for tag, value in shown[:remaining]
        }
        remaining -= len(texts)
        if texts:
            facts.exif[name] = texts
    facts.position = _position(found.get("GPS", {}))
    facts.c2pa |= C2PA_TAG in found["IFD0"]
    first = found.get("IFD1", {})
    start, length = first.get(THUMBNAIL_OFFSET), first.get(THUMBNAIL_LENGTH)
    if isinstance(start, int) and isinstance(length, int) and block[start : start + length]:
        facts.thumbnail = _thumbnail(block[start : start + length], facts.notes)


def _parse_exif(block: bytes) -> Image.Exif:
    require_bounded_exif(block)
    exif = Image.Exif()
    exif.load(block)
    return exif


def _check_directories(
    block: bytes, found: Mapping[str, Mapping[int, Any]], notes: list[str]
) -> None:
    """Note entries that are missing and directories that lead nowhere; Pillow skips them."""
    order = "<" if block.startswith(b"II") else ">"
    offsets = {"IFD0": struct.unpack_from(order + "I", block, 4)[0] if len(block) >= 8 else 0}
    for name in ("Exif", "GPS"):
        offset = found["IFD0"].get(DIRECTORIES[name][0])
        if isinstance(offset, int):
            offsets[name] = offset
    seen: set[int] = set()
    for name, offset in offsets.items():
        if offset in seen:
            notes.append(f"EXIF: the directory {name} refers to another one")
        elif not 8 <= offset <= len(block) - 2:
            notes.append(f"EXIF: the directory {name} lies outside the data")
        else:
            (count,) = struct.unpack_from(order + "H", block, offset)
            if count > len(found.get(name, {})):
                missing = count - len(found.get(name, {}))
                notes.append(f"EXIF: {missing} of the {count} entries of {name} cannot be read")
        seen.add(offset)


def _note_orientation(image: Image.Image, facts: FileFacts) -> None:
    """Note an orientation that does not come from EXIF, or that has no effect."""
    applied = _attempt("the orientation", facts.notes, partial(bounded_orientation, image))
    is_from_exif = "Orientation" in facts.exif.get("IFD0", {})
    if applied in range(2, 9) and not is_from_exif and facts.xmp:
        facts.notes.append(f"the orientation ({applied}) comes from the XMP; EXIF has none")
    original = image.info.get("original_orientation")
    if original not in (None, 1):  # pillow-heif applies the rotation of the container instead.
        facts.notes.append(
            f"its EXIF orientation is {original}, shown as 1: it has no effect in a HEIC"
        )


def _exif_text(tag: int, value: Any) -> str:
    if isinstance(value, str):  # Pillow decodes as Latin-1; many programs write UTF-8.
        return printable(value.split("\0")[0].encode("latin-1", "replace"))
    if isinstance(value, bytes):
        return _bytes_text(tag, value)
    values = value if isinstance(value, tuple) else (value,)
    words = " ".join(map(_number_text, values[:MAX_NUMBERS]))
    return words + (f" ... ({len(values)} values)" if len(values) > MAX_NUMBERS else "")


def _bytes_text(tag: int, value: bytes) -> str:
    if tag == USER_COMMENT:
        encodings = {b"UNICODE\0": "utf-16", b"JIS\0\0\0\0\0": "iso2022_jp"}
        text = value[8:].decode(encodings.get(value[:8], "utf-8"), "replace")
        return printable(text.strip("\0 "), MAX_CHARACTERS)  # AI generators store long prompts.
    if tag == XMP_TAG:
        return f"{len(value):,} bytes, shown under XMP"
    if tag != MAKER_NOTE and re.fullmatch(rb"[ -~]+\0*", value):
        return printable(value.rstrip(b"\0"))
    if len(value) <= 16:
        return " ".join(map(str, value))
    return f"{value[:16].hex(' ')} ... ({len(value)} bytes)"


def _number_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if hasattr(value, "denominator") and not isinstance(value, int):
        return f"{value.numerator}/{value.denominator}"
    return printable(str(value))


def _position(gps: Mapping[int, Any]) -> tuple[float, float] | None:
    """Return latitude and longitude in degrees; None if they are absent or invalid."""
    degrees = []
    for tag, limit, reference, negative in ((2, 90, 1, "S"), (4, 180, 3, "W")):
        try:
            hours, minutes, seconds = map(float, gps[tag])
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None
        angle = hours + minutes / 60 + seconds / 3600
        if not angle <= limit:  # Also rejects NaN.
            return None
        text = gps.get(reference)
        is_negative = isinstance(text, str) and text.startswith(negative)
        degrees.append(-angle if is_negative else angle)
    return round(degrees[0], 7), round(degrees[1], 7)


def _read_texts(image: Image.Image, data: bytes, facts: FileFacts) -> None:
    """Read XMP, IPTC and texts."""
    xmp = image.info.get("xmp")
    if facts.format == "GIF" and (start := data.find(GIF_XMP)) >= 0:
        packet = data[start + len(GIF_XMP) :][:MAX_XMP_PACKET]
        xmp = packet.split(b"<?xpacket end")[0].split(b"\x01\xff\xfe")[0]
    if facts.format == "PNG":
        texts = _attempt("the text", facts.notes, lambda: image.text) or {}  # type: ignore[attr-defined]
        xmp = xmp or texts.pop(XMP_KEYWORD, "")
        for keyword, text in texts.items():
            if keyword != XMP_KEYWORD:
                _add_text(printable(keyword), text, facts.texts)
    elif facts.format == "GIF" and "comment" in image.info:
        _add_text("comment", image.info["comment"], facts.texts)
    if xmp:
        packet = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
        facts.xmp_packet = decode_xmp(packet[:MAX_XMP_PACKET])
        lines = (line.rstrip() for line in facts.xmp_packet.splitlines())
        facts.xmp = printable("\n".join(line for line in lines if line), MAX_CHARACTERS)
    resources = b"".join(
        payload[14:]
        for marker, payload in facts.segments
        if marker == APP13 and payload.startswith(b"Photoshop 3.0\0")
    )
    facts.iptc = read_iptc(iptc_of_photoshop(resources), facts.notes)


def _add_text(keyword: str, text: str | bytes, texts: dict[str, str]) -> None:
    name, number = keyword, 1
    while name in texts and number < MAX_LISTED:
        number += 1
        name = f"{keyword} {number}"
    if len(texts) < MAX_LISTED:
        stripped = text.rstrip("\0") if isinstance(text, str) else text.rstrip(b"\0")
        texts[name] = printable(stripped, MAX_CHARACTERS)


def _thumbnail(data: bytes, notes: list[str]) -> np.ndarray | None:
    try:
        with open_image(data, name="the thumbnail", max_pixels=MAX_THUMBNAIL_PIXELS) as image:
            return rgb_pixels(image)
    except ImageError as error:
        notes.append(f"the embedded thumbnail cannot be decoded: it {error.reason}")
        return None
