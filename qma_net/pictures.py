"""What is known of image files without looking at their pixels."""

import os
from pathlib import Path

from PIL import Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif")

ORIENTATION = 0x0112  # EXIF tag
TRANSPOSING = (5, 6, 7, 8)  # orientations that exchange height and width

# How to turn what was drawn on the displayed photograph back to how its pixels are stored.
UNTURN = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (as stored) where there is none."""
    return image.getexif().get(ORIENTATION, 1)


def find_images(folder: str | os.PathLike) -> list[Path]:
    """Image files under a folder, sorted by path."""
    found = (path for path in Path(folder).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in found if path.is_file())
