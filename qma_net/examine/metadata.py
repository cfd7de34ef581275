"""What a file contains besides pixels: EXIF, XMP, IPTC, texts, JPEG tables, thumbnail, C2PA.

Everything is read from the bytes of the file, so that it can be reported even if no pixel can be
decoded. The work is bounded and nothing is trusted: what cannot be read becomes a note, never an
error.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..core.images import HEADER_SIZE, ImageError, describe_content, open_image, rgb_pixels
from .containers import COMMENT, EXIF, ICC, IPTC, PHOTOSHOP, TEXT, XMP, Structure, read_structure
from .exif import read_exif
from .icc import Profile, read_profile
from .iptc import iptc_of_photoshop, is_empty_iptc, read_iptc
from .jpeg import JpegFacts, jpeg_facts
from .location import reveals_location, without_location
from .texts import MAX_CHARACTERS, MAX_LISTED, decode_undeclared, decode_xmp, printable

MAX_EXIF = 3  # Blocks of EXIF data to show.
MAX_NOTES = 20
AS_STORED = "the colors were read as stored, without converting them"
PRIMARIES = {4: "NTSC", 9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}  # ITU-T H.273, table 2.
XMP_ORIENTATION = re.compile(r"tiff:Orientation(?:\s?=\s?[\"']|>)\s?(\d)")
MAX_THUMBNAIL_PIXELS = 2_000_000  # Most cameras embed 160x120 pixels, some 640x480.


@dataclass(kw_only=True)
class FileFacts(Structure):
    """What a file contains besides pixels.

    All texts are printable and limited in length.

    Attributes:
        format: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC, according to the first bytes, not the
            name.
        size: Size of the file in bytes.
        sha256: Hash of the file, hexadecimal.
        jpeg: How a JPEG is compressed; None for other formats.
        exif: The tags of each directory (IFD0, IFD1, Exif, GPS, Interoperability), as a mapping
            from tag name to text.
        position: Latitude and longitude in degrees, according to EXIF; None if absent, incomplete
            or not valid.
        altitude: Altitude in words, according to EXIF.
        xmp: The XMP packet as text, shortened for display; empty if there is none.
        xmp_packet: The decoded XMP packet, at most 1 MiB.
        profile: The color profile; None if there is none.
        iptc: IPTC metadata by name.
        texts: Comments and text chunks by keyword.
        thumbnail: The embedded thumbnail, uint8 ``(h, w, 3)``; None if there is none.
        omits_location: Whether something was left out because it can reveal a location.
    """

    format: str
    size: int
    sha256: str
    jpeg: JpegFacts | None = None
    exif: dict[str, dict[str, str]] = field(default_factory=dict)
    position: tuple[float, float] | None = None
    altitude: str = ""
    xmp: str = ""
    xmp_packet: str = ""
    profile: Profile | None = None
    iptc: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    thumbnail: np.ndarray | None = None
    omits_location: bool = False

    @property
    def has_no_metadata(self) -> bool:
        """Whether the whole file was read and contains no EXIF, XMP, IPTC or text metadata."""
        metadata = self.exif or self.xmp_packet or self.iptc or self.texts
        return not (metadata or self.unread or self.omits_location)

    def without_location(self) -> "FileFacts":
        """Return these facts without metadata that can reveal a location.

        If there is none, this is the same object. XMP that can reveal one is left out
        entirely, and so are the GPS directories of EXIF, unless they contain only a version.
        """
        exif = {
            name: without_location(tags)
            for name, tags in self.exif.items()
            if not name.startswith("GPS") or tags.keys() == {"GPSVersionID"}
        }
        changes: dict[str, Any] = {
            "exif": {name: tags for name, tags in exif.items() if tags},
            "position": None,
            "altitude": "",
            **{
                name: without_location(getattr(self, name))
                for name in ("iptc", "texts", "parts", "unread", "notes")
            },
        }
        if reveals_location(self.xmp_packet):
            changes |= {"xmp": "", "xmp_packet": ""}
        is_same = all(getattr(self, name) == value for name, value in changes.items())
        return self if is_same else replace(self, **changes)


def read_facts(data: bytes) -> FileFacts:
    """Read the facts about a file; damage is noted, never raised."""
    kind = describe_content(data[:HEADER_SIZE]).removeprefix("a ")
    facts = FileFacts(format=kind, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    read_structure(data, kind, facts)
    _read_exif_blocks(facts)
    _read_xmp(facts)
    _read_iptc(facts)
    _read_profile(facts)
    for block in facts.blocks:
        if block.kind in (TEXT, COMMENT):
            _add_text(block.keyword or block.source or "comment", block.content, facts)
    if kind == "JPEG":
        facts.jpeg = jpeg_facts(facts.segments, facts.note)
    facts.blocks.clear()
    if facts.trailing:
        facts.skip(f"{facts.trailing:,} bytes after the end of the image")
    facts.parts = _limited(map(printable, facts.parts), MAX_LISTED)
    facts.unread = _limited(map(printable, facts.unread), MAX_LISTED)
    facts.notes = _limited(facts.notes, MAX_NOTES)
    return facts


def _limited(items: Iterable[str], limit: int) -> list[str]:
    items = list(items)
    more = [f"... and {len(items) - limit} more"] if len(items) > limit else []
    return items[:limit] + more


def _read_exif_blocks(facts: FileFacts) -> None:
    """Read the EXIF data; directories of further blocks are numbered, such as ``IFD0 2``.

    The first block is the one that was used to decode the photo.
    """
    blocks = [block for block in facts.blocks if block.kind == EXIF]
    if facts.format == "PNG":  # Pillow uses the last eXIf chunk, and we ignore text chunks.
        blocks.reverse()
        blocks.sort(key=lambda block: block.source != "")
    for number, block in enumerate(blocks[:MAX_EXIF], 1):
        exif = read_exif(block.content, facts.note)
        if exif is None:
            facts.skip("EXIF")
            continue
        if not exif.is_complete:
            facts.skip("parts of the EXIF" if exif.directories else "EXIF")
        for name, texts in exif.directories.items():
            facts.exif[name if number == 1 else f"{name} {number}"] = texts
        if number == 1:
            facts.position, facts.altitude = exif.position, exif.altitude
            if exif.thumbnail:
                facts.thumbnail = _thumbnail(exif.thumbnail, facts)
        elif exif.position != facts.position:
            facts.note(f"the GPS position of EXIF block {number} differs from that of the first")
        _note_orientation(exif.orientation, number, block.source, facts)
    if len(blocks) > 1:
        facts.note(
            f"the file has {len(blocks)} blocks of EXIF data, which is unusual; the one that "
            "this report uses is shown first"
        )
    if len(blocks) > MAX_EXIF:
        facts.skip(f"EXIF blocks {MAX_EXIF + 1} to {len(blocks)}")


def _note_orientation(orientation: int | None, number: int, source: str, facts: FileFacts) -> None:
    """Add a note if the EXIF orientation has no effect."""
    if orientation not in range(2, 9):
        return
    if facts.format in ("AVIF", "HEIC"):
        reason = f"in {facts.format} files only the orientation of the container counts"
    elif number > 1:
        reason = "only that of the block shown first is applied"
    elif source:
        reason = "viewers ignore EXIF data in text chunks"
    else:
        return
    facts.note(f"the EXIF orientation {orientation} has no effect: {reason}")


def _read_xmp(facts: FileFacts) -> None:
    packets = [block.content for block in facts.blocks if block.kind == XMP]
    if not packets:
        return
    if len(packets) > 1:
        facts.note(f"the file has {len(packets)} XMP packets; the first one is shown")
        facts.skip("further XMP")
    facts.xmp_packet = decode_xmp(packets[0])
    lines = (line.rstrip() for line in facts.xmp_packet.splitlines())
    facts.xmp = printable("\n".join(line for line in lines if line), MAX_CHARACTERS)
    match = XMP_ORIENTATION.search(facts.xmp_packet)
    stored = facts.exif.get("IFD0", {}).get("Orientation", "1")
    if match and match[1] != stored:
        facts.note(
            f"the orientation {match[1]} in the XMP has no effect: viewers use only that of EXIF"
        )


def _read_iptc(facts: FileFacts) -> None:
    for block in facts.blocks:
        content, has_more = block.content, False
        if block.kind == PHOTOSHOP:
            content, has_more = iptc_of_photoshop(content)
        elif block.kind != IPTC:
            continue
        faults: list[str] = []
        texts = read_iptc(content, faults.append)
        for fault in faults:
            facts.note(fault)
        if has_more and not texts:
            facts.skip("Photoshop resources")
        if faults or not (texts or is_empty_iptc(content)):
            facts.skip("parts of the IPTC" if texts else "IPTC")
        for name, text in texts.items():
            facts.iptc.setdefault(name, text)


def _read_profile(facts: FileFacts) -> None:
    if name := PRIMARIES.get(facts.primaries):
        facts.note(f"the color primaries are those of {name}, not sRGB; {AS_STORED}")
    index = facts.exif.get("Interoperability", {}).get("InteroperabilityIndex", "")
    contents = [block.content for block in facts.blocks if block.kind == ICC]
    if index.startswith("R03") and not contents:
        facts.note(f"according to EXIF (R03) the colors are Adobe RGB, not sRGB; {AS_STORED}")
    facts.profile = read_profile(contents[0]) if contents else None
    if contents and not facts.profile:
        facts.note("the color profile cannot be read")
    elif facts.profile and facts.profile.space != "gray" and not facts.profile.is_srgb:
        reading = AS_STORED if facts.profile.space == "RGB" else "the colors were read without it"
        facts.note(f"the color profile is {facts.profile}, not sRGB; {reading}")


def _add_text(keyword: str, text: bytes, facts: FileFacts) -> None:
    name, number = keyword, 1
    while name in facts.texts and number < MAX_LISTED:
        number += 1
        name = f"{keyword} {number}"
    if len(facts.texts) < MAX_LISTED:
        facts.texts[name] = printable(decode_undeclared(text.rstrip(b"\0")), MAX_CHARACTERS)
    else:
        facts.note(f"the file has more than {MAX_LISTED} texts; the rest is not shown")


def _thumbnail(data: bytes, facts: FileFacts) -> np.ndarray | None:
    try:
        with open_image(data, name="the thumbnail", max_pixels=MAX_THUMBNAIL_PIXELS) as image:
            return rgb_pixels(image)
    except ImageError as error:
        facts.note(f"the embedded thumbnail cannot be decoded: it {error.reason}")
        return None
