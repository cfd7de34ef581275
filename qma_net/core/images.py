"""Pictures opened, in one place and from a list of formats; what is known of them from outside."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from .errors import QMANetError

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif"),
    *(".heic", ".heif", ".avif"),
)

# What photographs and masks are; JPEG includes MPO. Pillow knows forty more, some of which start
# other programs.
COMMON = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
FORMATS = (*COMMON, "AVIF", "HEIF")

ORIENTATION = 0x0112  # EXIF tag
TRANSPOSING = (5, 6, 7, 8)  # orientations that exchange height and width

# How to turn what was drawn on the displayed photograph back to how its pixels are stored.
UNTURN = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}

HEAD = 64  # bytes that tell what a file is

# How files of a kind begin.
CONTENTS = (
    (rb"\xff\xd8\xff", "a JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "a PNG"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "a TIFF"),
    (rb"RIFF.{4}WEBP", "a WebP"),
    (rb"GIF8", "a GIF"),
    (rb"BM", "a BMP"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript (EPS)"),
    (rb"\s*%PDF", "a PDF"),
    (rb"8BPS", "a Photoshop file"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL"),
    (rb".{4}ftyp(avi[fs]|m[is]f1.{4}.{0,40}avi[fs])", "AVIF"),
    (rb".{4}ftyp(hei[cxms]|hev[cxms]|m[is]f1)", "HEIC"),
    (rb".{4}ftyp", "a film"),
    (rb"\0\0\x01\0", "an icon"),
    (rb"P[1-7]\s", "a PNM"),
    (rb"PK\x03\x04", "a ZIP archive"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"7z\xbc\xaf|Rar!", "an archive"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"version https://git-lfs", "a Git LFS pointer, without the file itself"),
    (rb"(?i)\s*(<\?xml[^>]*>\s*)?<svg", "an SVG drawing"),
    (rb"(?i)\s*<(!doctype html|html|head|body)", "a web page"),
)
PICTURES = frozenset(("a JPEG", "a PNG", "a TIFF", "a WebP", "a GIF", "a BMP", "AVIF", "HEIC"))


class PictureError(QMANetError):
    """A file that is no picture of :data:`FORMATS`, or a damaged one; ``reason`` says which."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"got {self.name}, expected a picture ({', '.join(FORMATS)}): it {self.reason}"


@contextmanager
def decoding(name: str = "the file") -> Iterator[None]:
    """Makes whatever a decoder throws in this block a :class:`PictureError`.

    Damaged files make decoders raise nearly anything (TypeError, IndexError, struct.error, ...), so
    the block holds calls of the decoder only: a fault of our own code would pass for a bad file.
    A MemoryError passes.
    """
    try:
        yield
    except (MemoryError, QMANetError):
        raise
    except Image.DecompressionBombError as error:
        reason = f"claims more pixels than any photograph has ({error})"
        raise PictureError(name, reason) from None
    except Exception as error:
        raise PictureError(name, f"cannot be decoded ({_first_line(error)})") from None


def open_picture(source, *, name: str = "") -> Image.Image:
    """Opens a picture and reads its header only; a context manager, as Pillow's images are.

    Args:
        source: a path; the bytes of a file; an open file, from its beginning.
        name: for messages, where the source has none.

    Raises:
        PictureError: for what is none of :data:`FORMATS`, by its content and not by its name's
            ending, and for a header that is damaged or claims too many pixels
            (``PIL.Image.MAX_IMAGE_PIXELS``).
        OSError: for a path that cannot be read.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        source, name = io.BytesIO(source), name or "bytes"
    if isinstance(source, str | os.PathLike):
        name = name or str(source)
        with open(source, "rb") as file:
            head = file.read(HEAD)
    else:
        name = name or str(getattr(source, "name", "file"))
        with decoding(name):
            head = source.read(HEAD)
            source.seek(0)
    if not head:
        raise PictureError(name, "is empty (0 bytes)")
    kind = content_of(head)
    formats = _readable(kind, name)
    with decoding(name), suppress(UnidentifiedImageError):
        return Image.open(source, formats=formats)
    if kind in PICTURES:
        kind = f"damaged: it begins like {kind}, but its header cannot be read"
    raise PictureError(name, f"is {kind}")


def _readable(kind: str, name: str) -> tuple[str, ...]:
    """The formats that a file of a kind may be opened as; those of phones need what may be missing.

    Raises:
        PictureError: for a kind that cannot be read here; it says what to install.
    """
    if kind == "AVIF" and not features.check("avif"):
        raise PictureError(name, "is AVIF, which this Pillow cannot read: pip install -U pillow")
    if kind == "HEIC":
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            reason = "is HEIC, which needs one more package: pip install 'qma-net[heif]'"
            raise PictureError(name, reason) from None
        register_heif_opener()
        return ("HEIF",)
    return ("AVIF",) if kind == "AVIF" else COMMON


def decode(image: Image.Image, name: str = "the file") -> None:
    """Decodes the pixels of an opened picture.

    Raises:
        PictureError: for a damaged one.
    """
    with decoding(name):
        image.load()


def rgb_pixels(image: Image.Image, name: str = "the file") -> np.ndarray:
    """The pixels as Pillow converts them to RGB, uint8 ``(H, W, 3)``.

    Raises:
        PictureError: for a damaged picture.
    """
    with decoding(name):
        return np.asarray(image.convert("RGB"))


def read_rgb(path: str | os.PathLike) -> np.ndarray:
    """The pixels of a file as they are stored, uint8 ``(H, W, 3)``.

    Raises:
        PictureError, OSError: see :func:`open_picture`.
    """
    with open_picture(path) as picture:
        return rgb_pixels(picture, str(path))


def content_of(head: bytes) -> str:
    """What a file is by its first bytes, with an article: ``"a PDF"``, ``"a text"``."""
    for pattern, kind in CONTENTS:
        if re.match(pattern, head, re.DOTALL):
            return kind
    try:
        text = head.decode(errors="strict" if len(head) < HEAD else "ignore")
    except UnicodeDecodeError:
        text = "\0"
    return "a text" if text and all(c.isprintable() or c.isspace() for c in text) else "no picture"


def orientation(image: Image.Image, name: str = "the file") -> int:
    """The EXIF orientation, 1 to 8; 1 (as stored) where there is none.

    Raises:
        PictureError: for EXIF that cannot be read; Pillow decodes a PNG to look for it.
    """
    with decoding(name):
        return image.getexif().get(ORIENTATION, 1)


def find_images(folder: str | os.PathLike) -> list[Path]:
    """Image files under a folder, sorted by path."""
    found = (path for path in Path(folder).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in found if path.is_file())


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
