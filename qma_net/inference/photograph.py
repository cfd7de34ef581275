"""Reading a photo from any source as RGB pixels, oriented as a viewer displays it."""

import os
import re
import struct
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core import files
from ..core.errors import QMANetError
from ..core.exif import EXIF_PREFIX, HEADERS
from ..core.images import (
    FORMATS,
    ORIENTATION_TAG,
    ORIENTED_BY_PILLOW,
    TRANSPOSED_ORIENTATIONS,
    TRANSPOSES,
    ImageError,
    LimitError,
    decoding,
    exif_orientation,
    open_image,
    require_plausible_size,
)
from ..core.jpeg_header import MAX_SEGMENTS, header_segments, unsupported_coding
from ..modeling.qma_net import SMALLEST_SIDE
from .frames import MAX_FRAMES, count_frames, count_gif_frames
from .truncated import read_truncated

MAX_PIXELS = 500_000_000  # The largest phone cameras have 200 million.
MAX_FILE_BYTES = 2**31

# Limits on EXIF data. All of its entries may refer to the same bytes, and Pillow copies these for
# every entry.
MAX_EXIF_REPETITION = 2  # Bytes that entries may claim, relative to the length of the block.
FREE_EXIF_BYTES = 2**20  # Bytes that they may always claim.
MAX_EXIF_BLOCKS = 16  # Candidate EXIF blocks in one file.
MAX_EXIF_SEGMENTS = 64  # EXIF segments in a JPEG; nearly all files have only one.
MAX_EXIF_ENTRIES = 100_000  # Entries in all directories.
MAX_EXIF_DIRECTORIES = 100
JPEG_START, APP1 = b"\xff\xd8", 0xE1
_EXIF_HEADER = re.compile(rb"II\*\0|MM\0\*|II\+\0")
_EXIF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_EXIF_SIZES[16] = 8
_EXIF_POINTERS = (0x8769, 0x8825, 0xA005)  # Exif, GPS, Interoperability.

TOO_SMALL = "too small to judge"
TOO_TRUNCATED = "too truncated to judge"
DEPTH_NOTE = "{} bits per channel reduced to 8"
GREY_NOTE = "gray repeated in all channels"
ALPHA_NOTE = "alpha channel ignored"

# No camera writes these formats. A photo that was compressed twice gets a different mask.
RECOMPRESSED = {"WEBP": "WebP", "AVIF": "AVIF"}
RECOMPRESSED_NOTE = (
    "{}: usually recompressed after the camera saved it; a JPEG copy of the photo would get a "
    "different mask"
)

MODE_NOTES = {
    "L": GREY_NOTE,
    "1": "black and white converted to gray",
    "P": "palette converted to RGB",
    "CMYK": "CMYK converted to RGB",
    "YCbCr": "YCbCr converted to RGB",
    **dict.fromkeys(("RGBA", "LA", "PA", "RGBX", "RGBa", "La"), ALPHA_NOTE),
}


class PhotographError(QMANetError):
    """A source that is not a photo."""


class ExifError(LimitError):
    """EXIF data that would need far more memory than the size of the file."""


@dataclass(frozen=True)
class Photograph:
    """A photo as displayed.

    Attributes:
        pixels: uint8 ``(H, W, 3)`` RGB; ``(H, W, 0)`` if they are not kept in memory.
        name: The path, or a different name for messages and results.
        notes: What was converted.
        orientation: The EXIF orientation, 1 to 8, that was applied to the stored pixels.
        present: The rows and columns that the file contains. The rest of a truncated file is
            filled with one color and must not be judged.
        truncation: What is missing in a truncated file, which is also the first note; empty
            otherwise.
        icc_profile: The color profile of the pixels, which are not converted to sRGB; empty if
            there is none.
    """

    pixels: NDArray[np.uint8]
    name: str
    notes: tuple[str, ...] = ()
    orientation: int = 1
    present: tuple[slice, slice] = (slice(None), slice(None))
    truncation: str = ""
    icc_profile: bytes = b""

    @property
    def present_pixels(self) -> NDArray[np.uint8]:
        """The pixels that the file contains, uint8 ``(h, w, 3)``."""
        return self.pixels[self.present]

    def complete_mask(self, mask: NDArray[np.float32]) -> NDArray[np.float32]:
        """Extend a mask of the pixels that the file contains to the whole photo, with zeros."""
        if mask.shape == self.pixels.shape[:2]:
            return mask
        whole = np.zeros(self.pixels.shape[:2], np.float32)
        whole[self.present] = mask
        return whole

    @property
    def too_small(self) -> str:
        """Why the photo cannot be judged, if a side is shorter than 32 pixels; empty otherwise."""
        height, width = self.present_pixels.shape[:2]
        if min(height, width) >= SMALLEST_SIDE:
            return ""
        fault = TOO_SMALL if (height, width) == self.pixels.shape[:2] else TOO_TRUNCATED
        return (
            f"{fault}: {width}x{height} pixels; the network needs at least {SMALLEST_SIDE} on "
            "each side"
        )


PhotoSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | IO[bytes] | Image.Image | NDArray[Any] | Photograph
)


def read_photograph(source: PhotoSource, name: str = "") -> Photograph:
    """Read a photo as RGB pixels.

    The EXIF orientation is applied. Alpha is ignored, palette and CMYK are converted to RGB, gray
    is repeated, 16 bits are reduced to 8, and the first frame of an animation is read. A truncated
    JPEG or PNG is decoded as far as possible. Each of these is noted, and so are formats that no
    camera writes.

    Args:
        source: A path; the bytes of an image file; an open file; a PIL image; or an array, uint8
            or uint16, ``(H, W)``, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA.
        name: The name for messages and results, if the source has none.

    Raises:
        PhotographError: If the source is not a photo; the message names the source.
    """
    if isinstance(source, Photograph):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source, name or "array")
    if isinstance(source, Image.Image):
        return _from_pil(source, name or getattr(source, "filename", "") or "PIL image")
    data, name = read_bytes(source, name)
    return decode_photograph(data, name)


def read_bytes(source: object, name: str = "") -> tuple[bytes, str]:
    """Read an image file; return its bytes and its name.

    Raises:
        PhotographError: If the source is not a path, the bytes of a file or an open file, or cannot
            be read.
    """
    if isinstance(source, bytes | bytearray):
        return bytes(source), name or "bytes"
    if hasattr(source, "read"):
        name, data = name or str(getattr(source, "name", "file")), source.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise PhotographError(f"cannot read {name}: it is larger than {MAX_FILE_BYTES} bytes")
        return data, name
    if not isinstance(source, str | os.PathLike):
        raise PhotographError(
            f"got a {type(source).__name__}, expected a path, bytes, a PIL image or a NumPy array"
        )
    reject_address(source)
    path = Path(source)
    if os.path.isdir(path):
        raise PhotographError(f"cannot read {path}: it is a folder, not a photo")
    try:
        return files.read_bytes(path, limit=MAX_FILE_BYTES), name or str(path)
    except files.ContentError as error:
        reason = str(error).removeprefix(f"{path} ")
        raise PhotographError(f"cannot read {path}: it {reason}") from None
    except OSError as error:
        raise PhotographError(f"cannot read {path}: {error.strerror}") from None


def reject_address(name: str | os.PathLike[str]) -> None:
    """Raise an error if a name is a URL such as ``https://example.org/photo.jpg``.

    Raises:
        PhotographError: If the name is a URL.
    """
    # In a path, // becomes /, so one slash must suffice. Windows drives have a single letter.
    if re.match(r"[a-z]{2,}:[/\\]", str(name), re.IGNORECASE) and not os.path.exists(name):
        raise PhotographError(
            f"got the URL {name}, expected a file; download the image first, in its original "
            "size (images on web pages are often compressed again)"
        )


def decode_photograph(data: bytes, name: str) -> Photograph:
    """Decode the bytes of an image file.

    Raises:
        PhotographError: If the file is not a photo or is too damaged to be decoded.
    """
    try:
        return _decode(data, name)
    except ImageError as error:
        is_limit = isinstance(error, LimitError)
        if data[:4] in (b"II*\0", b"MM\0*") and not is_limit:
            return _decode_tiff(data, name)
        unsupported = unsupported_coding(data) if data.startswith(JPEG_START) else ""
        if unsupported and not is_limit:
            raise PhotographError(
                f"cannot read {name}: it is a JPEG {unsupported}, which is not supported"
            ) from None
        decoded = None if is_limit else _decode_truncated(data, name)
        if decoded:
            return decoded
        hint = ""
        if data.lstrip()[:4] == b"%PDF":
            hint = "; extract the image from it (pdfimages -all FILE.pdf NAME)"
        raise PhotographError(
            f"cannot read {name}: it {error.reason}{hint} (supported: {', '.join(FORMATS)})"
        ) from None


def _decode(data: bytes, name: str) -> Photograph:
    image = open_photograph(data, name)
    with decoding(name):
        photograph = _from_pil(image, name, frames=count_frames(image, data))
        depth = _bits_per_channel(image, data)
    notes = list(photograph.notes)
    if depth > 8:
        notes.append(DEPTH_NOTE.format(depth))
    if image.format in RECOMPRESSED:
        notes.append(RECOMPRESSED_NOTE.format(RECOMPRESSED[image.format]))
    return replace(photograph, notes=tuple(notes))


def _decode_truncated(data: bytes, name: str) -> Photograph | None:
    """Decode a truncated file; return None if it is not truncated or nothing can be decoded."""
    try:
        truncated = read_truncated(data, MAX_PIXELS)
        if truncated is None:
            return None
        photograph = _decode(truncated.data, name)
    except ImageError:
        return None
    height, width = photograph.pixels.shape[:2]
    is_turned = photograph.orientation in TRANSPOSED_ORIENTATIONS
    length, rows = width if is_turned else height, truncated.rows
    is_reversed = photograph.orientation in (3, 4, 6, 7)
    span = slice(length - rows, length) if is_reversed else slice(rows)
    present = (slice(None), span) if is_turned else (span, slice(None))
    if truncated.reduced:
        fault = f"{truncated.reduced}, so the whole photo has less detail and cannot be judged"
    elif rows == length:
        fault = "every row can be decoded"
    else:
        unit = "column" if is_turned else "row"
        first, last = (1, length - rows) if is_reversed else (rows + 1, length)
        fault = f"{unit}s {first} to {last} of {length} are missing or unreliable"
    joint = ", but" if rows == length and not truncated.reduced else ":"
    fault = f"the file is truncated{joint} {fault}"
    notes = (fault, *photograph.notes)
    return replace(photograph, present=present, truncation=fault, notes=notes)


def open_photograph(data: bytes, name: str = "the file") -> Image.Image:
    """Open an image file with limits on its pixels and on its EXIF data.

    Raises:
        ImageError: See :func:`qma_net.core.images.open_image`.
        ExifError: If its EXIF data exceeds the limits. Pillow may parse it on opening.
        LimitError: If another limit is exceeded.
    """
    if data.startswith(b"GIF8"):
        count_gif_frames(data, name)
    if data.startswith(JPEG_START):
        _require_bounded_segments(data, name)
    elif data.startswith(HEADERS):
        require_bounded_exif(data, name)
    else:
        matches = list(islice(_EXIF_HEADER.finditer(data), MAX_EXIF_BLOCKS + 1))
        for match in matches[:MAX_EXIF_BLOCKS]:
            require_bounded_exif(memoryview(data)[match.start() :], name)
        if len(matches) > MAX_EXIF_BLOCKS:
            raise ExifError(name, f"has more than {MAX_EXIF_BLOCKS} blocks of EXIF data")
    return open_image(data, name=name, max_pixels=MAX_PIXELS)


def _require_bounded_segments(data: bytes, name: str) -> None:
    """Check the segments of a JPEG, since Pillow joins its EXIF data in quadratic time."""
    count, blocks = 0, []
    for marker, payload in header_segments(data):
        count += 1
        if marker == APP1 and payload.startswith(EXIF_PREFIX):
            blocks.append(payload.removeprefix(EXIF_PREFIX))
    if count >= MAX_SEGMENTS or len(blocks) > MAX_EXIF_SEGMENTS:
        raise ExifError(name, "has more segments before its pixels than any photo")
    require_bounded_exif(b"".join(blocks), name)


def require_bounded_exif(block: bytes | memoryview, name: str = "the file") -> None:
    """Check how many bytes the entries of EXIF data, or of a TIFF file, claim altogether.

    Only the entries are read, not their values, so that hostile data costs no memory. The bytes of
    directories count, too, so that overlapping ones cost no time. Further pages of a TIFF do not.

    Raises:
        ExifError: If the entries claim more than 1 MiB and more than twice the length of the block,
            or if there are more than 100 directories or 100,000 entries.
    """
    order: Literal["little", "big"] = "little" if block[:1] == b"I" else "big"
    is_big = block[2:3] == b"+"  # BigTIFF
    width = 8 if is_big else 4
    entry = struct.Struct(("<" if order == "little" else ">") + ("HHQ8s" if is_big else "HHI4s"))

    def number(start: int, length: int) -> int:
        return int.from_bytes(block[start : start + length], order)

    directories, visited, claimed, total = [number(width, width)], {0}, 0, 0
    while directories:
        start = directories.pop()
        if start in visited or start >= len(block):
            continue
        visited.add(start)
        count_width = 8 if is_big else 2
        first = start + count_width
        available = max(0, len(block) - first) // entry.size
        count = min(number(start, count_width), available)
        end = first + count * entry.size
        claimed += end - start
        total += count
        if total > MAX_EXIF_ENTRIES or len(visited) > MAX_EXIF_DIRECTORIES:
            raise ExifError(name, "has more EXIF entries or directories than any photo")
        if len(visited) == 2:  # After the first directory, Pillow reads at most the thumbnail's.
            directories.append(number(end, width))
        for position in range(first, end, entry.size):
            tag, kind, values, content = entry.unpack_from(block, position)
            size = values * _EXIF_SIZES.get(kind, 0)
            at = int.from_bytes(content, order) if size > width else position + entry.size - width
            claimed += max(0, min(size, len(block) - at))
            if tag in _EXIF_POINTERS and size <= 8:
                directories.append(number(at, size))
        if claimed > max(FREE_EXIF_BYTES, MAX_EXIF_REPETITION * len(block)):
            raise ExifError(name, "has EXIF entries that claim more bytes than the file holds")


def _decode_tiff(data: bytes, name: str) -> Photograph:
    """Decode a TIFF file that Pillow cannot read, such as one with 16-bit color, with OpenCV."""
    import cv2

    exif, pixels = Image.Exif(), None
    with suppress(ImageError), decoding(name):
        exif.load(data)
    width, height = (s if isinstance(s := exif.get(tag), int) else 0 for tag in (256, 257))
    try:
        require_plausible_size(
            (width, height), file_bytes=len(data), max_pixels=MAX_PIXELS, name=name
        )
    except ImageError as error:
        raise PhotographError(f"cannot read {name}: it {error.reason}") from None
    with suppress(ImageError), decoding(name):
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise PhotographError(f"cannot read {name}: neither Pillow nor OpenCV can decode this TIFF")
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    stored = _from_array(pixels, name)
    image = Image.fromarray(stored.pixels)
    image.getexif()[ORIENTATION_TAG] = exif.get(ORIENTATION_TAG, 1)
    oriented = _from_pil(image, name)
    return replace(oriented, notes=(*oriented.notes, *stored.notes))


def _from_pil(image: Image.Image, name: str, frames: int | None = None) -> Photograph:
    notes = []
    if frames is None:
        frames = getattr(image, "n_frames", 1)
    count = f"more than {MAX_FRAMES}" if frames > MAX_FRAMES else str(frames)
    if frames > 1 and image.format == "HEIF":  # The file says which image is the photo.
        notes.append(f"primary image ({image.tell() + 1}) of {count} used")
    elif frames > 1:
        image.seek(0)
        notes.append(f"first of {count} frames used")
    orientation = bounded_orientation(image, name)
    if orientation != 1:
        source = "AVIF" if image.format == "AVIF" else "EXIF"
        notes.append(f"rotated or mirrored by its {source} orientation ({orientation})")
        if image.format not in ORIENTED_BY_PILLOW:
            image = image.transpose(TRANSPOSES[orientation])
    if image.mode.startswith("I"):  # 16-bit gray, even if stored in 32 bits.
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > 65535:
            raise PhotographError(f"got {name} with values above 16 bits, expected 8 or 16 bits")
        grey = _from_array(deep.astype(np.uint16), name)
        return replace(grey, notes=(*notes, *grey.notes), orientation=orientation)
    if image.mode == "F":
        raise PhotographError(f"got {name} with floating-point pixels, expected 8 or 16 bits")
    if image.mode != "RGB":
        notes.append(MODE_NOTES.get(image.mode, f"{image.mode} converted to RGB"))
    elif "transparency" in image.info:
        notes.append(ALPHA_NOTE)
    profile = image.info.get("icc_profile") or b""
    is_rgb = profile[16:20] == b"RGB "  # Others do not apply to converted pixels.
    return Photograph(
        np.asarray(image.convert("RGB")),
        name,
        tuple(notes),
        orientation,
        icc_profile=profile if is_rgb else b"",
    )


def bounded_orientation(image: Image.Image, name: str = "the file") -> int:
    """Return the EXIF orientation, 1 to 8; see :func:`qma_net.core.images.exif_orientation`.

    Raises:
        ImageError: If the EXIF data is damaged or exceeds the limits.
    """
    with decoding(name):
        require_bounded_exif(_exif_block(image), name)
    return exif_orientation(image, name)


def _exif_block(image: Image.Image) -> bytes:
    """Return the EXIF data from which the orientation is taken; empty for a TIFF."""
    if image.format == "PNG":
        image.load()  # A PNG may store metadata after the pixels.
    return (image.info.get("exif") or b"").removeprefix(EXIF_PREFIX)


def _from_array(array: NDArray[Any], name: str) -> Photograph:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype not in (np.uint8, np.uint16) or array.ndim not in (2, 3) or not array.size:
        raise PhotographError(
            f"got {name} of shape {array.shape} and type {array.dtype}, expected uint8 or uint16 "
            "(H, W), (H, W, 3) RGB or (H, W, 4)"
        )
    if channels not in (1, 3, 4):
        raise PhotographError(f"got {name} with {channels} channels, expected 1, 3 or 4")
    notes = []
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
        notes.append(DEPTH_NOTE.format(16))
    if channels == 1:
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
        notes.append(GREY_NOTE)
    elif channels == 4:
        array = array[..., :3]
        notes.append(ALPHA_NOTE)
    return Photograph(np.ascontiguousarray(array), name, tuple(notes))


def _bits_per_channel(image: Any, data: bytes) -> int:
    """Return the depth that the header states; Pillow silently reads deep color as 8-bit."""
    if image.format == "HEIF":
        return int(image.info.get("bit_depth", 8))
    if image.mode not in ("RGB", "RGBA", "LA", "CMYK"):
        return 8
    if image.format == "PNG":
        return data[24]
    return int(max(image.tag_v2.get(258, (8,)))) if image.format == "TIFF" else 8
