"""Any photograph as RGB pixels, the way a viewer shows it, and a note of what had to be done."""

import os
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..core.errors import QMANetError
from ..core.images import FORMATS, ImageError, decoding, exif_orientation, open_image
from ..modeling.qma_net import SMALLEST_SIDE

CUT = "{} bits per channel cut to 8"
TOO_SMALL = "too small to judge"

# No camera writes these; what was compressed twice has another mask.
ANEW = {"WEBP": "WebP", "AVIF": "AVIF"}
COMPRESSED_ANEW = (
    "{}: as a rule compressed anew since it left the camera; the same photograph as JPEG gets "
    "another mask"
)

LARGEST = 500_000_000  # pixels; the largest phone cameras make 200 million


class PhotographError(QMANetError):
    """Something that is not a photograph; one line names it and says why."""


@dataclass(frozen=True)
class Photograph:
    """Pixels as displayed, uint8 ``(H, W, 3)`` RGB; a name; notes on what was changed."""

    pixels: np.ndarray
    name: str
    notes: tuple[str, ...] = ()

    @property
    def too_small(self) -> str:
        """Why nothing can be said of it: a side is shorter than the network takes; else empty."""
        height, width = self.pixels.shape[:2]
        if min(height, width) >= SMALLEST_SIDE:
            return ""
        return (
            f"{TOO_SMALL}: {width}x{height} pixels, where the network needs {SMALLEST_SIDE} on "
            "each side"
        )


def read_photograph(source, name: str = "") -> Photograph:
    """Reads a path, bytes, a file object, a PIL image or a NumPy array.

    The EXIF orientation is followed. Alpha is left away, palette and CMYK become RGB, grey is
    repeated, 16 bits are cut to 8, of an animation the first frame is taken: each is noted, and so
    are formats that no camera writes.

    Args:
        source: a path; the bytes of an image file; an open file; a ``PIL.Image.Image``; an array,
            uint8 or uint16, ``(H, W)``, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA.
        name: for messages, where the source has none.

    Raises:
        PhotographError: naming the source, for what is no photograph.
    """
    if isinstance(source, Photograph):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source, name or "array")
    if isinstance(source, Image.Image):
        return _from_pil(source, name or getattr(source, "filename", "") or "PIL image")
    if isinstance(source, bytes | bytearray):
        return _decode(bytes(source), name or "bytes")
    if hasattr(source, "read"):
        return _decode(source.read(), name or str(getattr(source, "name", "file")))
    if not isinstance(source, str | os.PathLike):
        raise PhotographError(
            f"got a {type(source).__name__}, expected a path, bytes, a PIL image or a NumPy array"
        )
    if re.match(r"[a-z]+://", str(source), re.IGNORECASE):
        raise PhotographError(
            f"got the address {source}, expected a file: save the picture first, in its original "
            "size (what a web site shows is often compressed anew)"
        )
    path = Path(source)
    if path.is_dir():
        raise PhotographError(f"got {path}, expected a photograph: it is a folder")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PhotographError(f"got {path}, expected a photograph: {error.strerror}") from None
    return _decode(data, name or str(path))


def _decode(data: bytes, name: str) -> Photograph:
    largest, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd EXIF
            with open_image(data, name=name) as image:
                _require_plausible(image, name)
                with decoding(name):
                    photograph = _from_pil(image, name)
                    bits = _bits(image, data)
                notes = list(photograph.notes)
                if bits > 8:
                    notes.append(CUT.format(bits))
                if image.format in ANEW:
                    notes.append(COMPRESSED_ANEW.format(ANEW[image.format]))
        return Photograph(photograph.pixels, name, tuple(notes))
    except ImageError as error:
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _decode_deep(data, name)
        raise PhotographError(
            f"got {name}, expected a complete photograph ({', '.join(FORMATS)}): it "
            f"{error.reason}{_hint(data)}"
        ) from None
    finally:
        Image.MAX_IMAGE_PIXELS = largest


def _hint(data: bytes) -> str:
    if data.lstrip()[:4] == b"%PDF":
        return "; take the picture out of it as it is stored there (pdfimages -all FILE.pdf NAME)"
    return ""


def _require_plausible(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > LARGEST:
        raise PhotographError(
            f"got {name}, expected a photograph: its header claims {width}x{height} pixels, more "
            f"than {LARGEST // 10**6} million"
        )


def _decode_deep(data: bytes, name: str) -> Photograph:
    """A TIFF that Pillow does not read, such as one of 16-bit colour, through OpenCV."""
    import cv2

    pixels = None
    with suppress(ImageError), decoding(name):
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise PhotographError(
            f"got {name}, expected a complete photograph: neither Pillow nor OpenCV can decode "
            "this TIFF"
        )
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return _from_array(pixels, name)


def _from_pil(image: Image.Image, name: str) -> Photograph:
    notes = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format == "HEIF":  # which names one of its pictures as the photograph
        notes.append(f"of {frames} pictures the one taken that the file shows ({image.tell() + 1})")
    elif frames > 1:
        image.seek(0)
        notes.append(f"first of {frames} frames taken")
    turned = exif_orientation(image)
    if turned != 1:
        image = ImageOps.exif_transpose(image)
        notes.append(f"turned by its EXIF orientation ({turned})")
    if image.mode.startswith("I"):  # 16-bit grey, and 32-bit containers of it
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > 65535:
            raise PhotographError(f"got {name} with values beyond 16 bits, expected 8 or 16 bits")
        array = _from_array(deep.astype(np.uint16), name)
        return Photograph(array.pixels, name, (*notes, *array.notes))
    if image.mode == "F":
        raise PhotographError(f"got {name} with floating-point pixels, expected 8 or 16 bits")
    named = {"L": "grey repeated in all channels", "1": "black and white as grey"}
    named |= {"P": "palette to RGB", "CMYK": "CMYK to RGB", "YCbCr": "YCbCr to RGB"}
    named |= {mode: "alpha left away" for mode in ("RGBA", "LA", "PA", "RGBX", "RGBa", "La")}
    if image.mode != "RGB":
        notes.append(named.get(image.mode, f"{image.mode} to RGB"))
    elif "transparency" in image.info:
        notes.append("alpha left away")
    return Photograph(np.asarray(image.convert("RGB")), name, tuple(notes))


def _from_array(array: np.ndarray, name: str) -> Photograph:
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
        notes.append(CUT.format(16))
    if channels == 1:
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
        notes.append("grey repeated in all channels")
    elif channels == 4:
        array = array[..., :3]
        notes.append("alpha left away")
    return Photograph(np.ascontiguousarray(array), name, tuple(notes))


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits per channel in the file, by its header: Pillow reads deep colour as 8 without a word."""
    if image.format == "HEIF":
        return image.info.get("bit_depth", 8)
    if image.mode not in ("RGB", "RGBA", "LA", "CMYK"):
        return 8
    if image.format == "PNG":
        return data[24]
    return max(image.tag_v2.get(258, (8,))) if image.format == "TIFF" else 8
