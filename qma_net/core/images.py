"""Opening and decoding image files, restricted to a list of formats."""

import io
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from .errors import QMANetError, first_line

IMAGE_SUFFIXES = tuple(".jpg .jpeg .png .tif .tiff .bmp .webp .gif .heic .heif .avif".split())

# The formats of photos and masks; JPEG includes MPO. Pillow supports forty more, some of which
# start external programs.
COMMON = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
FORMATS = (*COMMON, "AVIF", "HEIF")

ORIENTATION_TAG = 0x0112  # EXIF
TRANSPOSED_ORIENTATIONS = (5, 6, 7, 8)  # EXIF orientations that swap height and width

# Map a mask drawn on the displayed photo back to the orientation of the stored pixels.
INVERSE_TRANSPOSE = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}

HEADER_SIZE = 64  # Bytes that suffice to recognize a file's type.

# Regular expressions that match the beginning of a file, and what the file then is.
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
    (rb".{4}ftyp", "a video"),
    (rb"\0\0\x01\0", "an icon"),
    (rb"P[1-7]\s", "a PNM"),
    (rb"PK\x03\x04", "a ZIP archive"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"7z\xbc\xaf|Rar!", "an archive"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"version https://git-lfs", "a Git LFS pointer without the file itself"),
    (rb"(?i)\s*(<\?xml[^>]*>\s*)?<svg", "an SVG drawing"),
    (rb"(?i)\s*<(!doctype html|html|head|body)", "a web page"),
)
IMAGE_CONTENTS = frozenset(
    ("a JPEG", "a PNG", "a TIFF", "a WebP", "a GIF", "a BMP", "AVIF", "HEIC")
)


class ImageError(QMANetError):
    """A file that is damaged or not an image in one of :data:`FORMATS`.

    ``reason`` tells what is wrong, as the end of a sentence that begins with "it".
    """

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"got {self.name}, expected an image ({', '.join(FORMATS)}): it {self.reason}"


@contextmanager
def decoding(name: str = "the file") -> Iterator[None]:
    """Convert any exception that a decoder raises in this block to an :class:`ImageError`.

    Decoders raise nearly anything for damaged files (TypeError, IndexError, struct.error, ...).
    The block should contain decoder calls only, or a bug in our own code would look like a
    damaged file. A MemoryError is not converted.
    """
    try:
        yield
    except (MemoryError, QMANetError):
        raise
    except Image.DecompressionBombError as error:
        reason = f"claims more pixels than any photo has ({error})"
        raise ImageError(name, reason) from None
    except Exception as error:
        raise ImageError(name, f"cannot be decoded ({first_line(error)})") from None


def open_image(source, *, name: str = "", max_pixels: int | None = None) -> Image.Image:
    """Open an image and read its header only. The result is a context manager, as in Pillow.

    The type is detected from the content; the file name's suffix does not matter.

    Args:
        source: A path, the bytes of a file, or an open file at its beginning.
        name: The source's name for error messages, if it has none of its own.
        max_pixels: The largest image to accept, instead of ``PIL.Image.MAX_IMAGE_PIXELS``, which
            is one setting for all threads.

    Raises:
        ImageError: If the file is not an image in one of :data:`FORMATS`, or if its header is
            damaged or claims too many pixels.
        OSError: If the path cannot be read.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        source, name = io.BytesIO(source), name or "bytes"
    if isinstance(source, str | os.PathLike):
        name = name or str(source)
        with open(source, "rb") as file:
            head = file.read(HEADER_SIZE)
    else:
        name = name or str(getattr(source, "name", "file"))
        with decoding(name):
            head = source.read(HEADER_SIZE)
            source.seek(0)
    if not head:
        raise ImageError(name, "is empty (0 bytes)")
    kind = describe_content(head)
    formats = _readable(kind, name)
    with decoding(name), suppress(UnidentifiedImageError):
        if max_pixels is None:
            return Image.open(source, formats=formats)
        return _open_up_to(max_pixels, source, head=head, formats=formats, name=name)
    if kind in IMAGE_CONTENTS:
        kind = f"damaged: it starts like {kind}, but its header cannot be read"
    raise ImageError(name, f"is {kind}")


def _open_up_to(
    max_pixels: int, source, *, head: bytes, formats: tuple[str, ...], name: str
) -> Image.Image:
    """Open an image like ``Image.open``, but with a limit of its own."""
    Image.init()  # Registers the decoders.
    for kind in formats:
        decoder, accepts = Image.OPEN[kind]
        accepted = not accepts or accepts(head)
        if not accepted or isinstance(accepted, str):  # A string says why not.
            continue
        if not isinstance(source, str | os.PathLike):
            source.seek(0)
        try:
            image = decoder(source, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
        width, height = image.size
        if width * height > max_pixels:
            image.close()
            limit = f"{max_pixels / 10**6:g} million"
            raise ImageError(name, f"claims {width}x{height} pixels, more than {limit}")
        return image
    raise UnidentifiedImageError


def _readable(kind: str, name: str) -> tuple[str, ...]:
    """Return the Pillow formats allowed for this kind of content.

    Raises:
        ImageError: If the kind needs a package that is not installed; the message names it.
    """
    if kind == "AVIF":
        if not features.check("avif"):
            reason = "is AVIF, which the installed Pillow cannot read; run: pip install -U pillow"
            raise ImageError(name, reason)
        return ("AVIF",)
    if kind == "HEIC":
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            reason = "is HEIC, which needs an extra package; run: pip install 'qma-net[heif]'"
            raise ImageError(name, reason) from None
        register_heif_opener()
        return ("HEIF",)
    return COMMON


def decode(image: Image.Image, name: str = "the file") -> None:
    """Decode the pixels of an opened image; raise an :class:`ImageError` if it is damaged."""
    with decoding(name):
        image.load()


def rgb_pixels(image: Image.Image, name: str = "the file") -> np.ndarray:
    """Convert an opened image to RGB pixels, uint8 ``(H, W, 3)``; see :func:`decode`."""
    with decoding(name):
        return np.asarray(image.convert("RGB"))


def read_rgb(path: str | os.PathLike) -> np.ndarray:
    """Read a file's RGB pixels as stored, without applying its orientation, uint8 ``(H, W, 3)``.

    The exceptions are those of :func:`open_image`.
    """
    with open_image(path) as image:
        return rgb_pixels(image, str(path))


def describe_content(head: bytes) -> str:
    """Describe a file from its first bytes, with an article: ``"a PDF"``, ``"a text file"``."""
    for pattern, kind in CONTENTS:
        if re.match(pattern, head, re.DOTALL):
            return kind
    try:
        text = head.decode(errors="strict" if len(head) < HEADER_SIZE else "ignore")
    except UnicodeDecodeError:
        return "not an image"
    is_text = text and all(c.isprintable() or c.isspace() for c in text)
    return "a text file" if is_text else "not an image"


def exif_orientation(image: Image.Image, name: str = "the file") -> int:
    """Return the EXIF orientation, 1 to 8; 1 (as stored) if the image has none.

    Raises:
        ImageError: If the EXIF data is damaged. Pillow decodes a PNG to look for it.
    """
    with decoding(name):
        return image.getexif().get(ORIENTATION_TAG, 1)


def find_images(folder: str | os.PathLike) -> list[Path]:
    """List the image files under a folder by suffix, sorted by path."""
    paths = (path for path in Path(folder).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in paths if path.is_file())
