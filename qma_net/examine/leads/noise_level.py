"""The noise level of each block of a photo, relative to equally bright blocks."""

import cv2
import numpy as np

from .lead import WINDOW, Lead, Rates, middle

REFERENCE = (
    "Immerkaer, Fast noise variance estimation, 1996, in blocks as in Mahdian and Saic, Using "
    "noise inconsistencies for blind image forensics, 2009"
)
MEANING = (
    "The noise in blocks of {block}x{block} pixels, minus the median of equally bright blocks in "
    "this photo. Mid-gray is the median; white means {scale:.1f} gray levels or more above it, and "
    "black {scale:.1f} or more below. A part from another photo, or a smoothed or sharpened part, "
    "can stand out."
)
INNOCENT = (
    "Texture counts as noise: foliage, hair and fabric are bright. Sky, defocused areas, plain "
    "surfaces, clipped areas and heavily compressed blocks are dark."
)
# Measured with benchmarks/leads.py; see docs/examine.md.
RATES = Rates(
    false_alarms=80,
    authentic=777,
    detected_real=14,
    real=41,
    template="In tests, the manipulated region stood out in {detected_real} of {real} manipulated "
    "images from four collections published by researchers, and a region with the shape of "
    "one of these also stood out in {false_alarms} of {authentic} authentic photos. Do not draw "
    "conclusions from this view.",
)

SUBBLOCK, BLOCK = 4, 16  # Pixels.
# Immerkaer's estimate is sqrt(pi / 2) / 6 times the mean absolute response to his kernel. The
# median of 16 subblocks ignores an edge in some of them; for white noise it is 4% lower.
KERNEL = np.outer((1, -2, 1), (1, -2, 1)).astype(np.float32)
TO_DEVIATION = float(np.sqrt(np.pi / 2) / 6) * 1.04

BRIGHTNESS_BINS = 16
MIN_BLOCKS = 20  # In a bin, to determine its typical level.
MIN_SCALE = 1.0  # Gray levels; a smaller range would only show rounding.
SCALE_PERCENTILE = 99


def noise_lead(pixels: np.ndarray) -> Lead:
    """Show the noise level of a photo, uint8 ``(H, W, 3)`` RGB, at least 32x32."""
    part, _, window = middle(pixels, WINDOW)
    levels, brightness = noise_levels(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY))
    difference = levels - typical_levels(levels, brightness)
    scale = max(MIN_SCALE, float(np.percentile(np.abs(difference), SCALE_PERCENTILE)))
    shades = (127.5 + 127.5 * difference / scale).clip(0, 255).astype(np.uint8)
    picture = shades.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
    return Lead(
        "Noise level",
        picture[: part.shape[0], : part.shape[1]],
        MEANING.format(block=BLOCK, scale=scale),
        INNOCENT,
        window,
        f"The median noise level is {np.median(levels):.1f} gray levels.",
        RATES.sentence(),
        REFERENCE,
    )


def noise_levels(gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the standard deviation of the noise, and the mean brightness, of each block.

    Args:
        gray: uint8 ``(H, W)``. Incomplete blocks are completed by reflection.

    Returns:
        Two arrays, float32 ``(ceil(H / 16), ceil(W / 16))``, in gray levels.
    """
    bottom, right = -gray.shape[0] % BLOCK, -gray.shape[1] % BLOCK
    gray = cv2.copyMakeBorder(gray, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
    response = np.abs(cv2.filter2D(gray, cv2.CV_16S, KERNEL, borderType=cv2.BORDER_REFLECT_101))
    rows, columns = gray.shape[0] // BLOCK, gray.shape[1] // BLOCK
    per_side = BLOCK // SUBBLOCK
    size = (columns * per_side, rows * per_side)
    means = cv2.resize(response.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    blocks = means.reshape(rows, per_side, columns, per_side).swapaxes(1, 2)
    levels = np.median(blocks.reshape(rows, columns, -1), axis=2) * np.float32(TO_DEVIATION)
    brightness = cv2.resize(gray, (columns, rows), interpolation=cv2.INTER_AREA)
    return levels, brightness.astype(np.float32)


def typical_levels(levels: np.ndarray, brightness: np.ndarray) -> np.ndarray:
    """Compute for each block the median noise level of equally bright blocks, interpolated."""
    bins = (brightness * (BRIGHTNESS_BINS / 256)).astype(int)
    known = [(bins == number) for number in range(BRIGHTNESS_BINS)]
    points = [
        (float(np.median(brightness[member])), float(np.median(levels[member])))
        for member in known
        if np.count_nonzero(member) >= MIN_BLOCKS
    ]
    if not points:
        return np.full_like(levels, np.median(levels))
    grays, medians = zip(*points, strict=True)
    return np.interp(brightness, grays, medians).astype(np.float32)
