"""Opening and decoding image files, restricted to a list of formats."""

import io
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, JpegImagePlugin, UnidentifiedImageError, features

from .errors import QMANetError, first_line
from .exif import ORIENTATION_TAG, ORIENTATIONS, valid_orientation
from .files import ContentError, open_regular
from .jpeg_scans import read_jpeg_scans

IMAGE_SUFFIXES = tuple(".jpg .jpeg .png .tif .tiff .bmp .webp .gif .heic .heif .avif".split())

# The formats of photos and masks; JPEG includes MPO. Pillow supports forty more, some of which
# start external programs.
COMMON = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
FORMATS = (*COMMON, "AVIF", "HEIF")

TRANSPOSED_ORIENTATIONS = (5, 6, 7, 8)  # EXIF orientations that swap height and width

# How stored pixels are transposed for each EXIF orientation. Pillow does so only for the formats in
# ORIENTED_BY_PILLOW, whose ``size`` is already that of the displayed photo.
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTED_BY_PILLOW = ("TIFF",)

# Map a mask drawn on the displayed photo back to the orientation of the stored pixels.
INVERSE_TRANSPOSE = TRANSPOSES | {6: TRANSPOSES[8], 8: TRANSPOSES[6]}

# Limits on files that a stranger may have crafted to cost time and memory.
MAX_SCANS = 100  # Scans of a JPEG, as in djpeg -maxscans; progressive photos have about ten.
MAX_PIXELS_PER_BYTE = 250  # A blank JPEG has up to 170, a photo rarely more than 20.
FREE_PIXELS = 25_000_000  # Images up to this size may have fewer bytes.

HEADER_SIZE = 64  # Bytes that suffice to recognize a file's type.

# Regular expressions that match the beginning of a file, and a description of such a file.
CONTENTS = (
    (rb"\xff\xd8\xff", "a JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "a PNG"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "a TIFF"),
    (rb"RIFF.{4}WEBP", "a WebP"),
    (rb"GIF8", "a GIF"),
    (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", "a BMP"),
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

    ``reason`` completes a sentence that begins with "it", e.g. "is empty (0 bytes)".
    """

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"cannot read {self.name}: it {self.reason} (supported: {', '.join(FORMATS)})"


class LimitError(ImageError):
    """A file that would need too much time or memory, so that no other decoder should try it."""


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
    """Open an image and read only its header.

    The result is a context manager, as in Pillow. The type is detected from the content; the file
    name's suffix does not matter.

    Args:
        source: A path, the bytes of a file, or an open file at its beginning.
        name: The source's name for error messages, if it has none of its own.
        max_pixels: The largest number of pixels to accept, instead of
            ``PIL.Image.MAX_IMAGE_PIXELS``, which is a single setting for all threads. If it is
            given and ``source`` is bytes, they are also checked for too many scans and too many
            pixels per byte.

    Raises:
        ImageError: If the file is not an image in one of :data:`FORMATS` or not a regular file,
            or if its header is damaged or claims too many pixels.
        OSError: If the path cannot be read.
    """
    content = b""
    if isinstance(source, bytes | bytearray | memoryview):
        content = bytes(source)
        source, name = io.BytesIO(content), name or "bytes"
    if isinstance(source, str | os.PathLike):
        name = name or str(source)
        try:
            with open_regular(source) as file:
                head = file.read(HEADER_SIZE)
        except ContentError:
            raise ImageError(name, "is a pipe or a device, not a regular file") from None
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
        _require_few_scans(content, name)
        image = _open_without_limit(source, head=head, formats=formats)
        file_bytes = len(content) or None
        require_plausible_size(image.size, file_bytes=file_bytes, max_pixels=max_pixels, name=name)
        return image
    if kind in IMAGE_CONTENTS:
        kind = f"damaged: it starts like {kind}, but its header cannot be read"
    raise ImageError(name, f"is {kind}")


def _open_without_limit(source, *, head: bytes, formats: tuple[str, ...]) -> Image.Image:
    """Open an image like ``Image.open``, but without its limit on pixels."""
    Image.init()  # Registers the decoders.
    for kind in formats:
        decoder, accepts = Image.OPEN[kind]
        accepted = not accepts or accepts(head)
        if not accepted or isinstance(accepted, str):  # A string says why not.
            continue
        if kind == "JPEG":  # Without the index of an MPO, which Pillow reads unchecked.
            decoder = JpegImagePlugin.JpegImageFile
        if not isinstance(source, str | os.PathLike):
            source.seek(0)
        try:
            return decoder(source, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
    raise UnidentifiedImageError


def require_plausible_size(
    size: tuple[int, int], *, file_bytes: int | None, max_pixels: int, name: str
) -> None:
    """Check the width and height that a header claims, before memory for pixels is allocated.

    Raises:
        LimitError: If the image exceeds ``max_pixels``, or if it is large and the file is too short
            to contain such a photo.
    """
    width, height = size
    pixels = width * height
    if pixels > max_pixels:
        limit = f"{max_pixels / 10**6:g} million"
        raise LimitError(name, f"claims {width}x{height} pixels, more than {limit}")
    if file_bytes and pixels > max(FREE_PIXELS, MAX_PIXELS_PER_BYTE * file_bytes):
        reason = f"claims {width}x{height} pixels, which its {file_bytes} bytes cannot contain"
        raise LimitError(name, reason)


def _require_few_scans(content: bytes, name: str) -> None:
    """Reject a JPEG with many scans: each may need only 100 bytes but seconds to decode."""
    if not content.startswith(b"\xff\xd8"):
        return
    if len(read_jpeg_scans(content, MAX_SCANS).scans) > MAX_SCANS:
        raise LimitError(name, f"has more than {MAX_SCANS} scans, which no camera or editor writes")


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
    """Read a file's RGB pixels as Pillow and BenCo do, uint8 ``(H, W, 3)``.

    The orientation is applied only to the formats in :data:`ORIENTED_BY_PILLOW`.

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
    """Return the EXIF orientation, 1 to 8; 1 (as stored) if the image has none or an invalid one.

    Like browsers, this ignores an orientation in XMP or in text chunks, which Pillow applies. For
    an AVIF, it is the rotation stated by the container.

    Raises:
        ImageError: If the EXIF data is damaged, or if a PNG must be decoded to find it and is
            damaged.
    """
    with decoding(name):
        if hasattr(image, "tag_v2"):
            orientation = image.tag_v2.get(ORIENTATION_TAG)
            valid = orientation if orientation in ORIENTATIONS else 1
            # Pillow transposes a TIFF as soon as it is decoded, and would use the XMP otherwise.
            image.getexif()[ORIENTATION_TAG] = valid
            return int(valid)
        if image.format == "PNG" and "exif" not in image.info:
            image.load()  # A PNG may store metadata after the pixels.
        block = image.info.get("exif") or b""
        if not block and image.format is None:  # Not from a file.
            block = image.getexif().tobytes() if "xmp" not in image.info else b""
        return valid_orientation(block)


def find_images(folder: str | os.PathLike) -> list[Path]:
    """List the image files under a folder by suffix, sorted by path."""
    paths = (path for path in Path(folder).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in paths if path.is_file())
