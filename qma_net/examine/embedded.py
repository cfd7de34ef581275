"""Images and videos that a JPEG file declares after the end of its own image."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from ..core.mpf import read_index

MAX_ITEMS = 60
MAX_INDEX = 2**16  # Bytes; a segment cannot be longer.

# The types of images in the index (CIPA DC-007, section 5.2.3.3.1).
KINDS = {
    0x010001: "preview, VGA",
    0x010002: "preview, Full HD",
    0x010003: "preview, 4K",
    0x010004: "preview, 8K",
    0x020001: "part of a panorama",
    0x020002: "other view of a stereo pair",
    0x020003: "other view",
    0x040000: "original image",
    0x050000: "gain map",
}
# The types of items in Google's container (Motion Photo and Ultra HDR specifications).
SEMANTICS = {"GainMap": "gain map", "MotionPhoto": "video of a motion photo", "Depth": "depth map"}

# An item and its fields, which are attributes or elements.
_ITEM = re.compile(
    r"<(?:\w{1,30}:)?Item(?=[\s>])"
    r"([^<>]{0,1000}(?:(?<=/)>|(?<!/)>(?:(?!<(?:\w{1,30}:)?Item[\s>]).){0,2000}?</(?:\w{1,30}:)?Item>))",
    re.DOTALL,
)
_FIELD = re.compile(
    r"\b(Mime|Semantic|Length|Padding)(?:\s?=\s?[\"']|>)\s{0,20}([^\s\"'<>][^\"'<>]{0,99})"
)
_VIDEO_OFFSET = re.compile(r":MicroVideoOffset(?:\s?=\s?[\"']|>)(\d{1,12})")


@dataclass(frozen=True)
class Embedded:
    """An image or video that lies between the positions ``start`` and ``end`` of the file.

    ``missing`` is the number of its declared bytes that are beyond the end of the file.
    """

    description: str
    start: int
    end: int
    missing: int = 0

    def __str__(self) -> str:
        size = self.end - self.start
        addition = f" of {size + self.missing:,} declared" if self.missing else ""
        return f"{self.description}, {size:,} bytes{addition}"


def read_embedded(data: bytes, end: int, index: int, xmp: str) -> Iterator[Embedded]:
    """Yield the images and videos that the file declares after its own image and really contains.

    Args:
        data: The file.
        end: The position after its own image.
        index: The position of the index of further images; 0 for none.
        xmp: The XMP packet.
    """
    declared = {(item.start, item.end): item for item in _indexed(data, end, index)}
    for item in _contained(data, end, xmp):
        declared[item.start, item.end] = item
    yield from sorted(declared.values(), key=lambda item: item.start)


def covered(items: Iterable[Embedded], start: int, end: int) -> int:
    """Count the bytes between two positions that belong to at least one item."""
    count, position = 0, start
    for item in sorted(items, key=lambda item: item.start):
        first, last = max(item.start, position), min(item.end, end)
        count += max(0, last - first)
        position = max(position, last)
    return count


def _indexed(data: bytes, end: int, index: int) -> Iterator[Embedded]:
    images = read_index(data[index : index + MAX_INDEX])[1:] if index else []
    for image in images[:MAX_ITEMS]:
        start, stop = index + image.offset, index + image.offset + image.size
        if start >= end and _content_kind(data, start):
            kind = KINDS.get(image.kind, "further image")
            if image.kind not in KINDS and b"hdrgm:" in data[start : min(stop, start + MAX_INDEX)]:
                kind = "gain map"
            missing = max(0, stop - len(data))
            yield Embedded(f"{_content_kind(data, start)}, {kind}", start, stop - missing, missing)


def _contained(data: bytes, end: int, xmp: str) -> Iterator[Embedded]:
    """Yield the items that Google's XMP declares; they are stored one after the other."""
    items = [
        {name: value.strip() for name, value in _FIELD.findall(match[1])}
        for match in islice(_ITEM.finditer(xmp), MAX_ITEMS)
    ]
    lengths = [int(i.get("Length", "0")) if i.get("Length", "0").isdecimal() else 0 for i in items]
    padding = items[0].get("Padding", "0") if items else "0"
    candidates = (
        end + (int(padding) if padding.isdecimal() else 0),
        len(data) - sum(lengths[1:]),
    )
    for position in candidates:
        if items[1:] and all(lengths[1:]) and _content_kind(data, position):
            for item, length in zip(items[1:], lengths[1:], strict=True):
                content = _content_kind(data, position)
                if position >= end and content and position + length <= len(data):
                    semantic = SEMANTICS.get(item.get("Semantic", ""), "further item")
                    yield Embedded(f"{content}, {semantic}", position, position + length)
                position += length
            break
    if match := _VIDEO_OFFSET.search(xmp):
        start = len(data) - int(match[1])
        if start >= end and _content_kind(data, start):
            description = f"{_content_kind(data, start)}, video of a motion photo"
            yield Embedded(description, start, len(data))


def _content_kind(data: bytes, start: int) -> str:
    if start < 0:
        return ""
    if data[start : start + 3] == b"\xff\xd8\xff":
        return "JPEG"
    return "MP4" if data[start + 4 : start + 8] == b"ftyp" else ""
