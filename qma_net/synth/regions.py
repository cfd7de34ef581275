"""Regions to manipulate, and places to move them to.

A region is uint8 ``(H, W)`` of 0 and 1. A place is the affine map that moves it there, float64
``(2, 3)`` on (x, y, 1) in pixels.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from .recipe import Recipe


def random_region(rng: np.random.Generator, size: tuple[int, int], area: float) -> np.ndarray:
    """A random smooth shape inside a frame.

    Its radius is a circle's with a few harmonics; ``size`` is (height, width), ``area`` its
    share of the frame.
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
    room = np.maximum([width, height] - (high - low), 0)
    shape += rng.uniform(0, 1, 2) * room - low
    region = np.zeros((height, width), np.uint8)
    cv2.fillPoly(region, [np.rint(shape).astype(np.int32)], 1)
    return region


def segments(
    labels: np.ndarray, area: tuple[float, float], whole: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Connected parts of a label map that can be cut out.

    Args:
        labels: int32 ``(H, W)``; zero means no segment.
        area: least and largest share of the frame.
        whole: leave out what the frame cuts off.

    Yields:
        The value, and the part without holes. Splinters, which fill less than a third of their
        box or are under 8 pixels across, are left out.
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
            part = cv2.drawContours(part, outline, -1, 1, cv2.FILLED)
            if part.sum() <= most:
                yield int(value), part


def draw_region(
    rng: np.random.Generator,
    labels: np.ndarray | None,
    size: tuple[int, int],
    recipe: Recipe,
    *,
    whole: bool,
) -> tuple[np.ndarray, str]:
    """A region of a frame, and what it was made of: ``"random"`` or ``"label <value>"``.

    Args:
        rng: source of everything random.
        labels: the frame's label map, int32 ``(H, W)``, or ``None``.
        size: (height, width) of the frame.
        recipe: how often a segment is taken, and of which area.
        whole: no segment that the frame cuts off.
    """
    if rng.random() < recipe.from_labels and labels is not None:
        fitting = list(segments(labels, recipe.area, whole))
        if fitting:
            value, region = fitting[rng.integers(len(fitting))]
            return region, f"label {value}"
    return random_region(rng, size, np.exp(rng.uniform(*np.log(recipe.area)))), "random"


def draw_resampling(rng: np.random.Generator, recipe: Recipe) -> tuple[float, float]:
    """Scale, and angle in degrees, of what is moved; 1 and 0 where it is not resampled."""
    if rng.random() >= recipe.resampled:
        return 1.0, 0.0
    scale = np.exp(rng.uniform(*np.log(recipe.scale)))
    return float(scale), rng.uniform(-recipe.rotation, recipe.rotation)


def random_place(
    rng: np.random.Generator,
    region: np.ndarray,
    frame: tuple[int, int],
    *,
    scale: float,
    angle: float,
) -> tuple[np.ndarray, float]:
    """A random place for a region inside a frame of (height, width), and the scale.

    The scale is less than asked for where the region would not fit. Unscaled and unturned, the
    place is a whole number of pixels away.
    """
    return _random_place(rng, _outline(region), frame, scale=scale, angle=angle)


def _outline(region: np.ndarray) -> np.ndarray:
    """(x, y) of the corners of a region's convex hull, ``(N, 2)``."""
    ys, xs = np.nonzero(region)
    return cv2.convexHull(np.stack([xs, ys], axis=1).astype(np.int32))[:, 0]


def _random_place(
    rng: np.random.Generator,
    outline: np.ndarray,
    frame: tuple[int, int],
    *,
    scale: float,
    angle: float,
) -> tuple[np.ndarray, float]:
    """:func:`random_place` of a region by its outline."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turned = outline @ np.array([[cos, sin], [-sin, cos]])
    low, extent = turned.min(axis=0), np.ptp(turned, axis=0)
    inside = np.array(frame[::-1]) - 1
    scale = float(min(scale, *(inside / np.maximum(extent, 1e-9))))
    room = np.floor(inside - scale * extent + 1e-6).astype(int).clip(0)
    shift = rng.integers(0, room, endpoint=True) - scale * low
    return np.array(
        [[scale * cos, -scale * sin, shift[0]], [scale * sin, scale * cos, shift[1]]]
    ), scale


def random_place_elsewhere(
    rng: np.random.Generator, region: np.ndarray, *, scale: float, angle: float, distance: float
) -> tuple[np.ndarray, float]:
    """As :func:`random_place` in the region's own frame, but some way off.

    The way is at least ``distance`` square roots of the area where it lands, and four pixels; the
    scale is less than asked for where no such place is found.
    """
    centre = np.append(np.mean(np.nonzero(region)[::-1], axis=1), 1)
    side, outline = np.sqrt(region.sum()), _outline(region)
    while True:
        for _ in range(50):
            place, used = _random_place(rng, outline, region.shape, scale=scale, angle=angle)
            if np.abs(place @ centre - centre[:2]).max() >= max(4, distance * used * side):
                return place, used
        scale *= 0.8


def moved_region(region: np.ndarray, place: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A region at its place in a frame of (height, width)."""
    moved = cv2.warpAffine(255 * region, place, size[::-1])
    return (moved > 127).astype(np.uint8)
