"""The segments before the pixels of a JPEG, read as decoders do (ITU-T T.81, Annex B)."""

import re
from collections.abc import Iterator

MAX_SEGMENTS = 4096  # A photo has tens; a large depth map in XMP takes hundreds.
SOS = 0xDA
# Markers without a length: SOI, EOI, RSTn and those that decoders do not know.
STANDALONE = frozenset((0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))
FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15.
LOSSLESS = frozenset((0xC3, 0xC7, 0xCB, 0xCF))
HIERARCHICAL = frozenset((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF))
_MARKER = re.compile(rb"\xff+([^\x00\xff])")


def header_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and payload of each segment up to the first scan, at most 4096.

    Bytes between segments are skipped.
    """
    position = 2
    for _ in range(MAX_SEGMENTS):
        match = _MARKER.search(data, position)
        if not match or match[1][0] == SOS:
            return
        marker, position = match[1][0], match.end()
        if marker not in STANDALONE:
            length = max(2, int.from_bytes(data[position : position + 2], "big"))
            yield marker, data[position + 2 : position + length]
            position += length


def unsupported_coding(data: bytes) -> str:
    """Describe the coding of a JPEG that Pillow cannot decode.

    The result is the end of a sentence that begins with "a JPEG"; empty if the coding is supported.
    """
    frames = (
        (marker, payload)
        for marker, payload in header_segments(data)
        if marker in FRAME_HEADERS and len(payload) > 5
    )
    marker, payload = next(frames, (0, b""))
    if not payload:
        return ""
    if marker in LOSSLESS:
        return "with lossless compression"
    if marker in HIERARCHICAL:
        return "with hierarchical coding"
    if marker >= 0xC9:
        return "with arithmetic coding"
    if payload[0] != 8:
        return f"with {payload[0]} bits per channel"
    if payload[1:3] == b"\0\0":
        return "whose height follows its pixels (DNL)"
    return "" if payload[5] in (1, 3, 4) else f"with {payload[5]} channels"
