"""Counting the frames of an image file without decoding them."""

import struct
from typing import Any

from ..core.images import LimitError
from ..core.mpf import read_index

MAX_FRAMES = 1000
MAX_GIF_EXTENSIONS = 2**20  # Bytes of comments and the like before the first frame.


def count_frames(image: Any, data: bytes) -> int:
    """Count the frames of an opened file, at most :data:`MAX_FRAMES` plus one.

    Pillow reads every frame of a GIF and every directory of a TIFF to count them, which takes
    minutes if there are millions.
    """
    if image.format == "GIF":
        return count_gif_frames(data)
    if image.format == "TIFF":
        return _count_tiff(data)
    if image.format == "JPEG":
        return _count_jpeg(image)
    return min(getattr(image, "n_frames", 1), MAX_FRAMES + 1)


def _count_jpeg(image: Any) -> int:
    """Count the photos in the MPF index of a JPEG; previews and gain maps are not photos."""
    if any(name == "APP1" and b"hdrgm:" in content for name, content in image.applist):
        return 1  # The second image of Ultra HDR files is a gain map of unspecified type.
    return max(1, sum(item.is_frame for item in read_index(image.info.get("mp", b""))))


def count_gif_frames(data: bytes, name: str = "the file") -> int:
    """Count image descriptors (GIF89a, section 20) up to the trailer or the first damage.

    Raises:
        LimitError: If there is too much before the first frame: the time in which Pillow joins
            comments grows with the square of their length.
    """
    count, position = 0, 13 + _color_table(data[10:11])
    while count <= MAX_FRAMES and position < len(data):
        kind = data[position]
        if kind == 0x2C:
            count += 1
            position += 11 + _color_table(data[position + 9 : position + 10])
        elif kind == 0x21:
            position += 2
        else:
            break
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1
        if not count and position > MAX_GIF_EXTENSIONS:
            raise LimitError(name, "has more than 1 MiB of text before its first frame")
    return max(1, count)


def _color_table(flags: bytes) -> int:
    """Return the size in bytes of the color table that follows, according to its flags."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _count_tiff(data: bytes) -> int:
    """Count the directories of a TIFF up to the end of the chain, a loop or a damaged offset."""
    order = "<" if data[:1] == b"I" else ">"
    is_big = b"+" in data[2:4]
    width, number, count_format = (8, "Q", "Q") if is_big else (4, "I", "H")
    entry, count_width = (20, 8) if is_big else (12, 2)
    position, visited = width, set[int]()
    while len(visited) <= MAX_FRAMES and position + width <= len(data):
        (start,) = struct.unpack_from(order + number, data, position)
        if not start or start in visited or start + count_width > len(data):
            break
        visited.add(start)
        (entries,) = struct.unpack_from(order + count_format, data, start)
        position = start + count_width + entries * entry
    return max(1, len(visited))
