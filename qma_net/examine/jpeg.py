"""What the header of a JPEG file says: quantisation tables, quality, subsampling, how it is coded.

Read from the bytes alone (ITU-T T.81, Annex B), with bounds on everything that a file claims.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

SOS, EOI, DQT, COM = 0xDA, 0xD9, 0xDB, 0xFE
APP0, APP1, APP2, APP11, APP13, APP14 = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xEE
STANDALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length: TEM and RSTn

MOST_SEGMENTS = 4096  # a photograph has some tens, a progressive one some tens more

# Frame headers: how the picture is coded, in exiftool's words.
FRAMES = {
    0xC0: "Baseline DCT, Huffman coding",
    0xC1: "Extended sequential DCT, Huffman coding",
    0xC2: "Progressive DCT, Huffman coding",
    0xC3: "Lossless, Huffman coding",
    0xC9: "Extended sequential DCT, arithmetic coding",
    0xCA: "Progressive DCT, arithmetic coding",
    0xCB: "Lossless, arithmetic coding",
}
PROGRESSIVE = {0xC2, 0xCA}

# Horizontal and vertical sampling of luma relative to chroma, as it is usually called.
SUBSAMPLINGS = {
    (1, 1): "4:4:4",
    (2, 1): "4:2:2",
    (2, 2): "4:2:0",
    (1, 2): "4:4:0",
    (4, 1): "4:1:1",
    (4, 2): "4:1:0",
}
GREY = "grey, no chroma"

# Tables store their 64 values along diagonals: ZIGZAG[i] is the place, row by row, of the i-th.
ZIGZAG = sorted(
    range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8)
)

# The Independent JPEG Group's tables at quality 50, row by row (T.81, Annex K.1).
IJG_LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
IJG_CHROMA = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)

_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True)
class Segment:
    """One marker segment of a file."""

    marker: int
    payload: bytes
    end: int  # place in the file of what follows


@dataclass(frozen=True)
class JpegFacts:
    """What a JPEG's header says.

    Attributes:
        quality: 1 to 100, that of the IJG's tables nearest to the file's; None without tables.
        is_ijg: whether the tables are the IJG's of that quality, to the last value.
        subsampling: such as ``"4:2:0"``; ``"grey, no chroma"`` for one component.
        sampling: the factors of each component, such as ``"2x2,1x1,1x1"``.
        tables: 64 values each, row by row, by the table's number.
        coding: baseline, progressive and so on, in words.
        progressive: whether it is sent in scans of growing detail.
    """

    quality: int | None
    is_ijg: bool
    subsampling: str
    sampling: str
    tables: Mapping[int, tuple[int, ...]]
    coding: str
    progressive: bool


def jpeg_segments(data: bytes, notes: list[str]) -> Iterator[Segment]:
    """The marker segments of a file in their order, up to and with the end of the picture.

    Args:
        data: the file.
        notes: what cannot be followed is added here, and ends the walk.
    """
    position = 2
    for _ in range(MOST_SEGMENTS):
        found = _MARKER.match(data, position)
        if not found:
            notes.append(f"the JPEG's segments break off at byte {position}")
            return
        marker, position = found[1][0], found.end()
        if marker == EOI or marker in STANDALONE:
            yield Segment(marker, b"", position)
            if marker == EOI:
                return
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2 or position + length > len(data):
            notes.append(f"the JPEG's segment at byte {position} claims {length} bytes, not there")
            return
        payload, position = data[position + 2 : position + length], position + length
        if marker == SOS:
            following = _AFTER_SCAN.search(data, position)
            if not following:
                notes.append("the JPEG has no end-of-image marker")
                return
            position = following.start()
        yield Segment(marker, payload, position)
    notes.append(f"the JPEG has more than {MOST_SEGMENTS} segments; the rest was not read")


def jpeg_facts(parts: Sequence[Segment], notes: list[str]) -> JpegFacts | None:
    """What the segments of a JPEG say; None where they hold no frame.

    Args:
        parts: see :func:`jpeg_segments`.
        notes: what cannot be read is added here.
    """
    tables, frame = {}, None
    for part in parts:
        if part.marker == DQT:
            tables |= _tables(part.payload, notes)
        elif part.marker in FRAMES and frame is None:
            frame = part
    if frame is None:
        notes.append("the JPEG has no frame header that is known")
        return None
    count = frame.payload[5] if len(frame.payload) > 5 else 0
    components = [frame.payload[6 + 3 * i : 9 + 3 * i] for i in range(count)]
    factors = [(c[1] >> 4, c[1] & 15) for c in components if len(c) == 3]
    if not factors or len(factors) < count or min(map(min, factors)) < 1:
        notes.append("the JPEG's frame header cannot be read")
        return None
    used = [tables[c[2]] for c in components if c[2] in tables]
    quality, is_ijg = nearest_quality(used[:2]) if used else (None, False)
    return JpegFacts(
        quality=quality,
        is_ijg=is_ijg,
        subsampling=_subsampling(factors),
        sampling=_in_words(factors),
        tables=tables,
        coding=FRAMES[frame.marker],
        progressive=frame.marker in PROGRESSIVE,
    )


def nearest_quality(tables: Sequence[Sequence[int]]) -> tuple[int, bool]:
    """The quality whose IJG tables are nearest, and whether they are equal.

    Args:
        tables: of luma and, where there is one, of chroma; 64 values row by row.
    """

    def distance(quality: int) -> int:
        references = (ijg_table(base, quality) for base in (IJG_LUMA, IJG_CHROMA))
        pairs = zip(tables, references, strict=False)
        # A file that may hold 16 bits keeps what a baseline one cuts at 255.
        return sum(
            abs(min(mine, 255) - theirs)
            for table, reference in pairs
            for mine, theirs in zip(table, reference, strict=True)
        )

    best = min(range(100, 0, -1), key=distance)
    return best, distance(best) == 0


def ijg_table(base: Sequence[int], quality: int) -> list[int]:
    """A table of quality 50 scaled to another, as the IJG's library does for baseline files."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return [min(255, max(1, (value * scale + 50) // 100)) for value in base]


def _tables(payload: bytes, notes: list[str]) -> dict[int, tuple[int, ...]]:
    found, position = {}, 0
    while position < len(payload):
        width, number = 1 + bool(payload[position] >> 4), payload[position] & 15
        stored = payload[position + 1 : position + 1 + 64 * width]
        if len(stored) < 64 * width:
            notes.append("a quantisation table of the JPEG is cut off")
            break
        values = [int.from_bytes(stored[i : i + width], "big") for i in range(0, 64 * width, width)]
        table = [0] * 64
        for place, value in zip(ZIGZAG, values, strict=True):
            table[place] = value
        found[number] = tuple(table)
        position += 1 + 64 * width
    return found


def _subsampling(factors: Sequence[tuple[int, int]]) -> str:
    if len(factors) < 3:
        return GREY
    (h, v), chroma = factors[0], factors[1]
    named = SUBSAMPLINGS.get((h // chroma[0], v // chroma[1]))
    is_plain = factors[1] == factors[2] and h % chroma[0] == 0 and v % chroma[1] == 0
    return named if named and is_plain else f"unusual ({_in_words(factors)})"


def _in_words(factors: Sequence[tuple[int, int]]) -> str:
    return ",".join(f"{h}x{v}" for h, v in factors)
