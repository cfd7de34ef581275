"""Facts about JPEG compression: quantization tables, quality, subsampling and coding."""

import io
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image, JpegImagePlugin

from ..core.jpeg_header import LOSSLESS
from .containers import APP0, APP14

# Frame headers (ITU-T T.81, Annex B) and the coding that they announce, in exiftool's words.
FRAMES = {
    0xC0: "Baseline DCT, Huffman coding",
    0xC1: "Extended sequential DCT, Huffman coding",
    0xC2: "Progressive DCT, Huffman coding",
    0xC3: "Lossless, Huffman coding",
    0xC5: "Sequential DCT, differential Huffman coding",
    0xC6: "Progressive DCT, differential Huffman coding",
    0xC7: "Lossless, differential Huffman coding",
    0xC9: "Extended sequential DCT, arithmetic coding",
    0xCA: "Progressive DCT, arithmetic coding",
    0xCB: "Lossless, arithmetic coding",
    0xCD: "Sequential DCT, differential arithmetic coding",
    0xCE: "Progressive DCT, differential arithmetic coding",
    0xCF: "Lossless, differential arithmetic coding",
}
DQT = 0xDB
ZIGZAG = JpegImagePlugin.zigzag_index  # The position in the file of each value, row by row.
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}

# Horizontal and vertical sampling of luma relative to chroma, with the usual names.
SUBSAMPLINGS = {
    (1, 1): "4:4:4",
    (2, 1): "4:2:2",
    (2, 2): "4:2:0",
    (1, 2): "4:4:0",
    (4, 1): "4:1:1",
    (4, 2): "4:1:0",
}


@dataclass(frozen=True)
class JpegFacts:
    """How a JPEG is compressed.

    Attributes:
        quality: The quality, 1 to 100, whose standard IJG (libjpeg) tables are closest to those of
            the file; None if there are no tables.
        is_ijg: Whether the tables are exactly the standard IJG (libjpeg) tables of this quality.
        subsampling: For example ``"4:2:0"``; ``"gray, no chroma"``, ``"RGB, no chroma"`` or
            ``"CMYK, no chroma"`` if there is no chroma.
        sampling: The sampling factors of each component, for example ``"2x2,1x1,1x1"``.
        tables: The quantization tables, keyed by table number; 64 values each, in row-major order.
        coding: Baseline, progressive and so on, in words.
        progressive: Whether the image is stored in scans of increasing detail.
    """

    quality: int | None
    is_ijg: bool
    subsampling: str
    sampling: str
    tables: Mapping[int, tuple[int, ...]]
    coding: str
    progressive: bool


def jpeg_facts(
    segments: Sequence[tuple[int, bytes]], note: Callable[[str], None]
) -> JpegFacts | None:
    """Describe how a JPEG is compressed; return None if there is no readable frame header.

    Args:
        segments: The marker and payload of each segment.
        note: Called with a message about anything that cannot be read.
    """
    tables = _quantization_tables(segments)
    frame = next(((m, payload) for m, payload in segments if m in FRAMES), None)
    if frame is None:
        note("the JPEG has no known frame header")
        return None
    marker, payload = frame
    count = payload[5] if len(payload) > 5 else 0
    components = [payload[6 + 3 * i : 9 + 3 * i] for i in range(count)]
    factors = [(c[1] >> 4, c[1] & 15) for c in components if len(c) == 3]
    if not factors or len(factors) < count or min(map(min, factors)) < 1:
        note("the frame header of the JPEG cannot be read")
        return None
    space = _space(segments, [c[0] for c in components])
    chroma = (1, 2) if space in ("YCbCr", "YCCK") else ()
    pairs = dict.fromkeys(  # Each table in use and the number of its standard counterpart.
        (c[2], int(i in chroma)) for i, c in enumerate(components) if c[2] in tables
    )
    used = [(tables[number], base_tables()[base]) for number, base in pairs]
    has_quality = bool(used) and marker not in LOSSLESS
    quality, is_ijg = nearest_quality(used) if has_quality else (None, False)
    return JpegFacts(
        quality=quality,
        is_ijg=is_ijg,
        subsampling=_subsampling(factors) if chroma else f"{space}, no chroma",
        sampling=_in_words(factors),
        tables=tables,
        coding=FRAMES[marker],
        progressive=marker in PROGRESSIVE,
    )


def _quantization_tables(segments: Sequence[tuple[int, bytes]]) -> dict[int, tuple[int, ...]]:
    """Return the tables of all DQT segments (T.81, section B.2.4.1), row-major, by number."""
    tables = {}
    for marker, payload in segments:
        while marker == DQT and payload:
            size, form = (129, ">64H") if payload[0] >> 4 else (65, ">64B")
            if len(payload) < size:
                break
            values = struct.unpack_from(form, payload, 1)
            tables[payload[0] & 15] = tuple(values[index] for index in ZIGZAG)
            payload = payload[size:]
    return dict(sorted(tables.items()))


def nearest_quality(
    tables: Sequence[tuple[Sequence[int], Sequence[int]]],
) -> tuple[int, bool]:
    """Find the quality of the nearest standard IJG (libjpeg) tables, and whether they are equal.

    Each of ``tables`` is a pair of the table in the file and the standard one of quality 50 with
    which libjpeg compresses the same component: 64 values each, row-major.
    """

    def distance(quality: int) -> int:
        # 16-bit tables keep values that baseline files limit to 255.
        return sum(
            abs(min(value, 255) - expected)
            for table, base in tables
            for value, expected in zip(table, ijg_table(base, quality), strict=True)
        )

    best = min(range(100, 0, -1), key=distance)
    return best, distance(best) == 0


@cache
def base_tables() -> tuple[list[int], list[int]]:
    """Return the standard IJG (libjpeg) tables of luma and chroma at quality 50 (T.81, K.1)."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=50)
    file.seek(0)
    tables = JpegImagePlugin.JpegImageFile(file).quantization
    return tables[0], tables[1]


def ijg_table(base: Sequence[int], quality: int) -> list[int]:
    """Scale a quality-50 table to a given quality, as IJG (libjpeg) does for baseline files."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return [min(255, max(1, (value * scale + 50) // 100)) for value in base]


def _space(segments: Sequence[tuple[int, bytes]], identifiers: Sequence[int]) -> str:
    """Return the color space of the components, determined as in libjpeg (jdapimin.c)."""
    transforms = [p[11] for m, p in segments if m == APP14 and p[:5] == b"Adobe" and len(p) >= 12]
    has_jfif = any(m == APP0 and p[:5] == b"JFIF\0" for m, p in segments)
    if len(identifiers) < 3:
        return "gray"
    if len(identifiers) == 4:
        return "YCCK" if transforms[-1:] == [2] else "CMYK"
    if has_jfif:
        return "YCbCr"
    is_rgb = transforms[-1] == 0 if transforms else bytes(identifiers) == b"RGB"
    return "RGB" if is_rgb else "YCbCr"


def _subsampling(factors: Sequence[tuple[int, int]]) -> str:
    (h, v), chroma = factors[0], factors[1]
    name = SUBSAMPLINGS.get((h // chroma[0], v // chroma[1]))
    is_regular = factors[1] == factors[2] and h % chroma[0] == 0 and v % chroma[1] == 0
    return name if name and is_regular else f"unusual ({_in_words(factors)})"


def _in_words(factors: Sequence[tuple[int, int]]) -> str:
    return ",".join(f"{h}x{v}" for h, v in factors)
