"""The scans of a JPEG file, read from its markers (ITU-T T.81, Annex B) without decoding it."""

import re
from dataclasses import dataclass

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15.
PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
STANDALONE = frozenset((0x01, *range(0xD0, 0xD8)))  # Markers without a length: TEM and RSTn.
COEFFICIENTS = 64
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True)
class Scan:
    """One scan of a JPEG: the components and coefficient bits that it contains.

    Attributes:
        components: The components that it contains.
        first: The first coefficient.
        last: The last coefficient.
        low_bit: The lowest bit of these coefficients.
        start: The position of its data in the file.
    """

    components: bytes
    first: int
    last: int
    low_bit: int
    start: int


@dataclass(frozen=True)
class JpegScans:
    """The scans of the first image in a file.

    Attributes:
        scans: The scans that have begun, in the order of the file.
        components: The components of the frame; empty if there is no frame header.
        block_rows: The largest number of block rows that a component has in an MCU.
        is_progressive: Whether the scans refine each other.
        is_complete: Whether the file contains the end-of-image marker.
        end: The position after the image, or after the last complete segment or scan of a file
            that is not complete.
    """

    scans: tuple[Scan, ...]
    components: bytes
    block_rows: int
    is_progressive: bool
    is_complete: bool
    end: int

    @property
    def has_all_coefficients(self) -> bool:
        """Whether the scans that have begun contain every coefficient with all its bits."""
        lowest: dict[tuple[int, int], int] = {}
        for scan in self.scans:
            for component in scan.components:
                for coefficient in range(scan.first, scan.last + 1):
                    lowest[component, coefficient] = scan.low_bit
        count = COEFFICIENTS * len(self.components)
        return len(lowest) == count and not any(lowest.values())


def read_jpeg_scans(data: bytes, limit: int) -> JpegScans:
    """Read the scans of a JPEG file, and stop as soon as there are more than ``limit``."""
    position, end, is_complete = 2, 2, False
    scans: list[Scan] = []
    components, block_rows, is_progressive = b"", 1, False
    while len(scans) <= limit and (match := _MARKER.match(data, position)):
        marker, position = match[1][0], match.end()
        if marker == EOI:
            is_complete, end = True, position
            break
        if marker in STANDALONE:
            end = position
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        payload = data[position + 2 : position + length]
        if length < 2 or position + length > len(data):
            break
        position += length
        if marker in FRAME_HEADERS and len(payload) > 5:
            is_progressive = marker in PROGRESSIVE
            components = payload[6::3][: payload[5]]
            factors = payload[7::3][: payload[5]]
            block_rows = max((factor & 15 for factor in factors), default=1)
        elif marker == SOS and payload:
            count = payload[0]
            first, last, bits = payload[1 + 2 * count : 4 + 2 * count].ljust(3, b"\0")
            if not is_progressive:
                first, last, bits = 0, COEFFICIENTS - 1, 0
            ids = payload[1 : 1 + 2 * count : 2]
            scans.append(Scan(ids, first, min(last, COEFFICIENTS - 1), bits & 15, position))
            following = _AFTER_SCAN.search(data, position)
            position = following.start() if following else len(data)
        end = position
    return JpegScans(tuple(scans), components, block_rows, is_progressive, is_complete, end)
