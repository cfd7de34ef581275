"""Regions to manipulate, and placements of regions.

A region is uint8 ``(H, W)`` of 0 and 1. A placement is an affine map of (x, y, 1) in pixels,
float64 ``(2, 3)``.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from .photographs import size_of
from .recipe import Recipe


def random_region(rng: np.random.Generator, size: tuple[int, int], area: float) -> np.ndarray:
    """Draw a smooth shape: a stretched circle whose radius is modulated by a few harmonics.

    ``size`` is (height, width) of the frame that contains it; ``area`` is its fraction of the
    frame.
    """
    height, width = size
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    radius = np.ones_like(angle)
    for harmonic in range(2, 6):
        amplitude, phase = rng.normal(0, 0.35 / harmonic), rng.uniform(0, 2 * np.pi)
        radius += amplitude * np.cos(harmonic * angle + phase)
    radius = radius.clip(0.3)
    stretch = rng.uniform(0.7, 1.4)
    shape = np.stack([radius * np.cos(angle) * stretch, radius * np.sin(angle) / stretch], axis=1)
    x, y = shape.T
    outline_area = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
    shape *= np.sqrt(area * height * width / outline_area)
    low, high = shape.min(axis=0), shape.max(axis=0)
    space = np.maximum([width, height] - (high - low), 0)
    shape += rng.uniform(0, 1, 2) * space - low
    region = np.zeros((height, width), np.uint8)
    cv2.fillPoly(region, [np.rint(shape).astype(np.int32)], (1,))
    return region


def angular_region(rng: np.random.Generator, size: tuple[int, int], area: float) -> np.ndarray:
    """Draw a quadrilateral: a rectangle, in half of the cases rotated and with displaced corners.

    The arguments are those of :func:`random_region`. The shape is shrunk if it would not fit.
    """
    height, width = size
    aspect = np.exp(rng.uniform(np.log(1 / 3), np.log(3)))
    sides = np.sqrt(area * height * width) * np.array([np.sqrt(aspect), 1 / np.sqrt(aspect)])
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * sides
    if rng.random() < 0.5:
        corners += rng.uniform(-0.15, 0.15, (4, 2)) * sides
        angle = np.radians(rng.uniform(-45, 45))
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        corners = corners @ turn
    low, extent = corners.min(axis=0), np.ptp(corners, axis=0)
    shrink = min(1.0, *((np.array([width, height]) - 1) / extent))
    space = np.array([width, height]) - 1 - shrink * extent
    corners = shrink * (corners - low) + rng.uniform(0, 1, 2) * space
    region = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(region, np.rint(corners).astype(np.int32), (1,))
    return region


def segments(
    labels: np.ndarray, area: tuple[float, float], whole: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Find the connected parts of a label map, int32 ``(H, W)``, that can be cut out.

    A part is skipped if its fraction of the frame is outside ``area``, if it fills less than a
    third of its bounding box, if it is less than 8 pixels wide or high, or, with ``whole``, if it
    touches the border.

    Yields:
        The part's value in the label map, and the part with its holes filled.
    """
    height, width = labels.shape
    least, most = (share * labels.size for share in area)
    for value, pixels in zip(*np.unique(labels, return_counts=True), strict=True):
        if value == 0 or pixels < least:
            continue
        parts = cv2.connectedComponentsWithStats((labels == value).astype(np.uint8))
        for number, (x, y, w, h, size) in enumerate(parts[2][1:], start=1):
            cut_off = x == 0 or y == 0 or x + w == width or y + h == height
            if size < least or min(w, h) < 8 or 3 * size < w * h or (whole and cut_off):
                continue
            part = (parts[1] == number).astype(np.uint8)
            outline, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            part = cv2.drawContours(part, outline, -1, (1,), cv2.FILLED)
            if part.sum() <= most:
                yield int(value), part


def draw_region(
    rng: np.random.Generator,
    labels: np.ndarray | None,
    size: tuple[int, int],
    recipe: Recipe,
    *,
    whole: bool,
    largest_segment: float = 0.0,
) -> tuple[np.ndarray, str]:
    """Draw a region of a frame of ``size`` (height, width).

    ``labels`` is the frame's label map, if any; ``whole`` skips segments that touch the border;
    ``largest_segment``, if not 0, replaces the recipe's largest area for segments.

    Returns:
        The region and its origin: ``"random"`` or ``"label <value>"``.
    """
    if rng.random() < recipe.from_labels and labels is not None:
        least, most = recipe.area
        fitting = list(segments(labels, (least, largest_segment or most), whole))
        if fitting:
            value, region = fitting[rng.integers(len(fitting))]
            return region, f"label {value}"
    area = np.exp(rng.uniform(*np.log(recipe.area)))
    if recipe.angular and rng.random() < recipe.angular:
        return angular_region(rng, size, area), "random"
    return random_region(rng, size, area), "random"


def draw_resampling(rng: np.random.Generator, recipe: Recipe) -> tuple[float, float]:
    """Draw the scale and the angle in degrees of a region; 1 and 0 if it is not resampled."""
    if rng.random() >= recipe.resampled:
        return 1.0, 0.0
    scale = np.exp(rng.uniform(*np.log(recipe.scale)))
    if recipe.turned and rng.random() < recipe.turned:
        return float(scale), rng.uniform(-180, 180)
    return float(scale), rng.uniform(-recipe.rotation, recipe.rotation)


def outline_of(region: np.ndarray) -> np.ndarray:
    """Return (x, y) of the corners of a region's convex hull, ``(N, 2)``."""
    ys, xs = np.nonzero(region)
    return cv2.convexHull(np.stack([xs, ys], axis=1).astype(np.int32))[:, 0]


def draw_placement(
    rng: np.random.Generator,
    outline: np.ndarray,
    frame: tuple[int, int],
    *,
    scale: float,
    angle: float,
) -> tuple[np.ndarray, float]:
    """Draw a placement of a region with this outline inside a frame of (height, width).

    Without scaling and rotation, regions move by whole pixels.

    Returns:
        The placement and its scale, which is smaller than ``scale`` if the region would not fit.
    """
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turned = outline @ np.array([[cos, sin], [-sin, cos]])
    low, extent = turned.min(axis=0), np.ptp(turned, axis=0)
    inside = np.array(frame[::-1]) - 1
    scale = float(min(scale, *(inside / np.maximum(extent, 1e-9))))
    space = np.floor(inside - scale * extent + 1e-6).astype(int).clip(0)
    shift = rng.integers(0, space, endpoint=True) - scale * low
    place = np.array([[scale * cos, -scale * sin, shift[0]], [scale * sin, scale * cos, shift[1]]])
    return place, scale


def draw_placement_elsewhere(
    rng: np.random.Generator, region: np.ndarray, *, scale: float, angle: float, distance: float
) -> tuple[np.ndarray, float]:
    """Draw a placement of a region in its own frame, at a minimum distance from its old place.

    ``distance`` is in units of the square root of the area after scaling; the minimum is never less
    than four pixels.

    Returns:
        The placement and its scale, which is smaller than ``scale`` if no such placement was found.
    """
    centre = np.append(np.mean(np.nonzero(region)[::-1], axis=1), 1)
    side, outline = np.sqrt(region.sum()), outline_of(region)
    while True:
        for _ in range(50):
            place, used = draw_placement(rng, outline, size_of(region), scale=scale, angle=angle)
            if np.abs(place @ centre - centre[:2]).max() >= max(4, distance * used * side):
                return place, used
        scale *= 0.8


def move_region(region: np.ndarray, place: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Move a region to its place in a frame of (height, width)."""
    moved = cv2.warpAffine(255 * region, place, size[::-1])
    return (moved > 127).astype(np.uint8)
