"""What a lead is, and how the leads limit the part of a photo that they examine."""

from dataclasses import asdict, dataclass

import cv2
import numpy as np

from ..readability import BLOCK

WINDOW = 8192  # Pixels; only the middle of a longer side is examined.

# Left, top, right and bottom edge in pixels of the photo as displayed; right and bottom exclusive.
Box = tuple[int, int, int, int]

# Colors of outlines on a photo, RGB; color-blind readers can tell neighbors apart.
OUTLINES = ((255, 60, 60), (60, 220, 255), (255, 220, 40), (230, 90, 255), (90, 255, 120))


@dataclass(frozen=True)
class Lead:
    """A hint about where to look: a view, or the result of a method with a view of what it found.

    Attributes:
        name: Name of the lead.
        picture: uint8 ``(h, w)`` or ``(h, w, 3)``; None if there is nothing to show.
        meaning: What it shows.
        innocent: What looks suspicious in it but is harmless.
        window: The part of the photo that it covers, or the resolution, in words; empty for the
            whole photo at original resolution.
        result: What was found, in words; empty for a view that is judged by eye.
        rates: How often the method was right and wrong in tests, in words; empty if not measured.
        reference: The publication of the method.
        findings: The boxes of each finding: two for a pair of copies, otherwise one.
        limits: What the method cannot detect; empty for a view.
    """

    name: str
    picture: np.ndarray | None
    meaning: str
    innocent: str
    window: str = ""
    result: str = ""
    rates: str = ""
    reference: str = ""
    findings: tuple[tuple[Box, ...], ...] = ()
    limits: str = ""

    def report(self) -> dict[str, object]:
        """Return the lead's part of ``report.json``."""
        return {
            "name": self.name,
            "result": self.result or None,
            "rates": self.rates or None,
            "regions": [[list(box) for box in boxes] for boxes in self.findings],
            "covers": self.window or "the whole photo",
            "reference": self.reference,
        }


def middle(pixels: np.ndarray, limit: int) -> tuple[np.ndarray, tuple[int, int], str]:
    """Crop sides longer than ``limit`` pixels to their middle.

    Returns:
        The remaining pixels, their left and top edges, and a description of what remains; empty if
        nothing was cropped.
    """
    height, width = pixels.shape[:2]
    h, w = min(height, limit), min(width, limit)
    if (h, w) == (height, width):
        return pixels, (0, 0), ""
    top, left = (height - h) // 2, (width - w) // 2
    part = pixels[top : top + h, left : left + w]
    return part, (left, top), f"the middle {w}x{h} pixels"


def dct_matrix() -> np.ndarray:
    """Return the matrix of JPEG's orthonormal DCT, float64 ``(frequency, pixel)``."""
    k = np.arange(BLOCK)
    dct = np.cos((2 * k + 1) * k[:, None] * np.pi / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    dct[0] /= np.sqrt(2)
    return dct


def line_width(image: np.ndarray) -> int:
    """Return the width in pixels of outlines that remain visible when an image is shrunk."""
    return max(1, round(max(image.shape[:2]) / 400))


def draw_outlines(image: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> None:
    """Draw the outlines of a bool ``(H, W)`` mask on an image, in place."""
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    cv2.drawContours(image, contours, -1, color, line_width(image), cv2.LINE_AA)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """The results of a method on the images of ``benchmarks/leads.py``.

    Attributes:
        false_alarms: Number of authentic photos in which it reported a region.
        authentic: Number of authentic photos.
        detected_real: Number of manipulated images from published collections in which it reported
            the manipulated region.
        real: Number of all such images, whatever the kind of their manipulation.
        detected: Number of manipulations that it found, among those of the kind it looks for.
        manipulated: Number of all manipulations of that kind.
        template: The sentences that state the rates, with the names above in braces.
    """

    false_alarms: int
    authentic: int
    detected_real: int
    real: int
    detected: int = 0
    manipulated: int = 0
    template: str

    def sentence(self) -> str:
        """State the rates in words."""
        return self.template.format(**asdict(self))
