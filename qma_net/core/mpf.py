"""The index of further images in a JPEG (CIPA DC-007, Multi-Picture Format)."""

import struct
from dataclasses import dataclass

from .exif import ExifBlock

MAX_IMAGES = 1000
IMAGE_LIST = 0xB002
SINGLE_IMAGES = (0x01, 0x04, 0x05)  # Thumbnails, original images and gain maps are not frames.


@dataclass(frozen=True)
class IndexedImage:
    """An image in the index: its type, its size, and its offset from the beginning of the index."""

    kind: int
    size: int
    offset: int

    @property
    def is_frame(self) -> bool:
        """Whether it is a photo in its own right, such as one of a stereo pair."""
        return self.kind >> 16 not in SINGLE_IMAGES


def read_index(content: bytes) -> list[IndexedImage]:
    """Read the index, which begins like a TIFF file; the first entry is the photo itself.

    A damaged index gives an empty list.
    """
    try:
        block = ExifBlock(content)
    except ValueError:
        return []
    directory = block.directory(block.first)
    if directory is None or IMAGE_LIST not in directory.entries:
        return []
    entries = block.content(directory.entries[IMAGE_LIST], 16 * MAX_IMAGES)
    form = struct.Struct(("<" if block.order == "little" else ">") + "IIIHH")
    whole = entries[: len(entries) // form.size * form.size]
    return [
        IndexedImage(attributes & 0xFFFFFF, size, offset)
        for attributes, size, offset, _, _ in form.iter_unpack(whole)
    ]
