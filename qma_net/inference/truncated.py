"""Photos whose file ends too early: what can be decoded, and which rows are reliable."""

import random
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.images import MAX_SCANS, decoding, open_image, rgb_pixels
from ..core.jpeg_scans import EOI, read_jpeg_scans

BLOCK = 8  # Rows of a JPEG block.
MIN_ZEROS = 64  # From this many, zeros at the end of a file count as space that was never written.
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # Channels by color type.


@dataclass(frozen=True)
class TruncatedImage:
    """A file whose end is missing.

    Attributes:
        data: A file with the same image that decoders accept; missing data is filled in.
        rows: The number of stored rows, from the top, that are reliable.
        reduced: Why no row is reliable although all can be decoded; empty otherwise.
    """

    data: bytes
    rows: int
    reduced: str = ""


def read_truncated(data: bytes, max_pixels: int) -> TruncatedImage | None:
    """Read a truncated file.

    Returns:
        The image; None if the file is not truncated, or if its reliable rows cannot be determined.

    Raises:
        ImageError: If it cannot be decoded at all.
    """
    if data.startswith(b"\xff\xd8"):
        return _read_jpeg(data, max_pixels)
    return _read_png(data, max_pixels) if data.startswith(PNG_SIGNATURE) else None


def _read_jpeg(data: bytes, max_pixels: int) -> TruncatedImage | None:
    """Find the reliable rows of a JPEG by decoding it with two different endings.

    A decoder replaces missing data with gray. If random data is appended instead, the rows that
    change are those whose data is missing.
    """
    written = data.rstrip(b"\0")
    data = written if len(data) - len(written) >= MIN_ZEROS else data
    stream = read_jpeg_scans(data, MAX_SCANS)
    if stream.is_complete or not stream.scans:
        return None
    body, end = data[: stream.end].rstrip(b"\xff"), bytes((0xFF, EOI))
    draw = random.Random(0)
    noise = bytes(draw.randrange(255) for _ in range(2048))  # Without 0xFF, hence no markers.
    # A decoder that expects a certain restart marker skips everything before it.
    start = stream.scans[-1].start
    last = max(range(8), key=lambda number: body.rfind(bytes((0xFF, 0xD0 + number)), start))
    following = last + 1 if bytes((0xFF, 0xD0 + last)) in body[start:] else 0
    restarts = b"".join(bytes((0xFF, 0xD0 + (following + i) % 8)) + noise[:256] for i in range(16))
    filled = _pixels(body + end, max_pixels)
    other = _pixels(body + noise + restarts + end, max_pixels)
    changed = (filled != other).any(axis=(1, 2))
    rows = len(changed)
    if changed.any():
        # Chroma is interpolated from the rows above and below.
        mcu, context = BLOCK * stream.block_rows, int(stream.block_rows > 1)
        rows = max(0, (int(changed.argmax()) + context) // mcu * mcu - context)
    if stream.has_all_coefficients:
        return TruncatedImage(body + end, rows)
    kind = "progressive JPEG" if stream.is_progressive else "JPEG with several scans"
    reduced = f"the scans after scan {len(stream.scans)} of this {kind} are missing"
    return TruncatedImage(body + end, 0, reduced)


def _pixels(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    with open_image(data, max_pixels=max_pixels) as image:
        return rgb_pixels(image)


def _read_png(data: bytes, max_pixels: int) -> TruncatedImage | None:
    """Fill the missing rows of a PNG with zeros; interlaced files are not supported."""
    with open_image(data, max_pixels=max_pixels) as image:
        width, height = image.size
    depth, color, _, _, interlaced = data[24:29]
    if interlaced or color not in PNG_CHANNELS:
        return None
    compressed: list[bytes] = []
    head, position = PNG_SIGNATURE, 8
    while len(data) >= position + 8:
        size, name = struct.unpack_from(">I4s", data, position)
        start, stop = position + 8, position + 8 + size
        content, checksum = data[start:stop], data[stop : stop + 4]
        if name == b"IEND":
            return None
        if name == b"IDAT":
            if len(checksum) == 4 and checksum != _checksum(name, content):
                return None  # Damaged rather than truncated.
            compressed.append(content)
        elif not compressed:
            head += data[position : stop + 4]
        position = stop + 4
    if not compressed:
        return None
    row_bytes = 1 + -(-width * PNG_CHANNELS[color] * depth // 8)
    with decoding():
        raw = zlib.decompressobj().decompress(b"".join(compressed), height * row_bytes)
    rows = len(raw) // row_bytes
    raw = raw[: rows * row_bytes].ljust(height * row_bytes, b"\0")
    chunks = (b"IDAT", zlib.compress(raw, 1)), (b"IEND", b"")
    tail = b"".join(
        struct.pack(">I", len(content)) + name + content + _checksum(name, content)
        for name, content in chunks
    )
    return TruncatedImage(head + tail, rows)


def _checksum(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(name + content))
