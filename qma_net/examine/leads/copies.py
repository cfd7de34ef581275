"""Copied regions within a photo (copy-move)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import cv2
import numpy as np
import torch

from .lead import OUTLINES, Box, Lead, Rates, draw_outlines, line_width

NAME = "Copied regions"
REFERENCE = (
    "Amerini et al., A SIFT-based forensic method for copy-move attack detection and "
    "transformation recovery, 2011; regions as in Christlein et al., An evaluation of popular "
    "copy-move forgery detection approaches, 2012"
)
MEANING = (
    "A search for pairs of regions that match in shape and in fine detail after a shift, rotation "
    "or change of size. A part of the photo may have been copied to hide or repeat something."
)
OUTLINED = " Both regions of a pair are outlined in the same color and connected by a line."
INNOCENT = (
    "Printed patterns, windows, letters, products and other identical objects, and repeated "
    "elements of graphics and screenshots."
)
LIMITS = "Small, smooth and mirrored copies."
# Measured with benchmarks/leads.py; see docs/examine.md.
RATES = Rates(
    false_alarms=3,
    authentic=777,
    detected=5,
    manipulated=12,
    detected_real=9,
    real=41,
    template="In tests, this method outlined copies in {false_alarms} of {authentic} authentic "
    "photos. Of {real} manipulated images from four collections published by researchers, it "
    "outlined the manipulated region in {detected_real}. These {real} images include {manipulated} "
    "from a collection of copy-moves (CoMoFoD), of which it found {detected}.",
)

MAX_PIXELS = 2_000_000  # A larger photo is downscaled, to save time and memory.
MAX_KEYPOINTS = 10_000
CONTRAST = 0.01  # SIFT's own 0.04 yields too few keypoints in soft regions.
CHUNK = 1024  # Rows of distance matrices that are computed together, to bound memory.

NEIGHBORS = 6
RATIO = 0.6  # Of the distances before and after a gap.
MIN_SHIFT = 24  # Pixels between a keypoint and its copy.

MAX_MATCHES = 3000
MIN_MATCHES = 5  # Matches in a region.
MAX_CANDIDATES = 8  # Transforms that are tested.
TOLERANCE, TOLERANCE_PER_PIXEL = 3.0, 0.1  # Pixels; for a transform from a single match.
RANSAC_TOLERANCE = 3.0
MAX_SCALE, MAX_STRETCH = 2.5, 1.6
WHOLE_SHIFT_TOLERANCE = 2.5  # Pixels.

DETAIL_SIZE = 2.0  # Pixels; coarser structure is ignored.
WINDOW = 15  # Pixels; the window in which details are correlated.
DETAIL_POWER = 0.5  # Gray levels squared; weaker details do not count.
MIN_CORRELATION = 0.8
MIN_AREA = 400  # Pixels.
MAX_OVERLAP = 0.2  # Of a region with its copy.

# Two identical objects differ in noise, so their finest details are hardly correlated. The finest
# details of copies are, unless compression or downscaling destroyed them; many matches then make up
# for it.
FINEST = np.outer((1, -2, 1), (1, -2, 1)).astype(np.float32)
MIN_FINEST_CORRELATION = 0.45
MANY_MATCHES, MIN_FINEST_OF_MANY = 40, 0.25


@dataclass(frozen=True)
class Copy:
    """Two regions that look like copies of each other.

    Attributes:
        masks: Bool ``(h, w)`` masks of the two regions.
        matches: Number of matching keypoints.
        correlation: Median correlation of the details.
        finest: Correlation of the finest details.
    """

    masks: tuple[np.ndarray, np.ndarray]
    matches: int
    correlation: float
    finest: float


def copies_lead(pixels: np.ndarray) -> Lead:
    """Search a photo, uint8 ``(H, W, 3)`` RGB, for copied regions and outline them."""
    height, width = pixels.shape[:2]
    gray, window = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), ""
    if gray.size > MAX_PIXELS:
        scale = (MAX_PIXELS / gray.size) ** 0.5
        size = max(1, int(width * scale)), max(1, int(height * scale))
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
        window = f"downscaled to {size[0]}x{size[1]} pixels"
    copies = find_copies(gray)
    lead = Lead(
        NAME,
        None,
        MEANING,
        INNOCENT,
        window,
        "No copies were found.",
        RATES.sentence(),
        REFERENCE,
        limits=LIMITS,
    )
    if not copies:
        return lead
    regions = "Two regions" if len(copies) == 1 else f"{len(copies)} pairs of regions"
    picture = cv2.resize(pixels, gray.shape[::-1], interpolation=cv2.INTER_AREA)
    scales = np.tile((width / gray.shape[1], height / gray.shape[0]), 2)
    findings: list[tuple[Box, ...]] = []
    for number, copy in enumerate(copies):
        color = OUTLINES[number % len(OUTLINES)]
        rectangles = [cv2.boundingRect(mask.astype(np.uint8)) for mask in copy.masks]
        centers = [(x + w // 2, y + h // 2) for x, y, w, h in rectangles]
        cv2.line(picture, centers[0], centers[1], color, line_width(picture), cv2.LINE_AA)
        boxes: list[Box] = []
        for mask, (x, y, w, h) in zip(copy.masks, rectangles, strict=True):
            draw_outlines(picture, mask, color)
            left, top, right, bottom = np.rint(np.multiply((x, y, x + w, y + h), scales))
            boxes.append((int(left), int(top), int(right), int(bottom)))
        findings.append(tuple(boxes))
    result = f"{regions} look like copies of each other."
    return replace(
        lead,
        picture=picture,
        meaning=MEANING + OUTLINED,
        result=result,
        findings=tuple(findings),
    )


def find_copies(gray: np.ndarray) -> list[Copy]:
    """Find pairs of regions in an image, uint8 ``(H, W)``, that look like copies of each other."""
    matches = match_within(gray)
    copies: list[Copy] = []
    for _ in range(MAX_CANDIDATES):
        transform, members = _largest_cluster(matches)
        if len(members) < MIN_MATCHES:
            break
        copy = None if transform is None else _verify(gray, transform, matches[members, 0, :2])
        if copy is not None and not any(_is_same(copy, other) for other in copies):
            copies.append(copy)
        matches = np.delete(matches, members, axis=0)
    return copies


def match_within(gray: np.ndarray) -> np.ndarray:
    """Match the SIFT keypoints of an image with each other (g2NN).

    Returns:
        float32 ``(M, 2, 4)``: x, y, size and angle of both keypoints of each match.
    """
    # OpenCV's type stubs do not know that the mask is optional.
    sift = cv2.SIFT.create(nfeatures=MAX_KEYPOINTS, contrastThreshold=CONTRAST)
    keypoints, descriptors = sift.detectAndCompute(gray, cast(np.ndarray, None))
    if len(keypoints) <= NEIGHBORS:
        return np.empty((0, 2, 4), np.float32)
    points = np.array([(*k.pt, k.size, k.angle) for k in keypoints], np.float32)  # (N, 4)
    descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-6)
    all_pairs, all_ratios = [], []
    for start in range(0, len(points), CHUNK):
        rows = slice(start, start + CHUNK)
        similarity = descriptors[rows] @ descriptors.T  # (CHUNK, N)
        dx, dy = (points[rows, None, axis] - points[:, axis] for axis in (0, 1))
        similarity[dx * dx + dy * dy < MIN_SHIFT**2] = -1
        nearest, indices = torch.topk(torch.from_numpy(similarity), NEIGHBORS)
        distances = np.sqrt(np.maximum(2 - 2 * nearest.numpy(), 1e-6))
        ratios = distances[:, :-1] / distances[:, 1:]  # (CHUNK, NEIGHBORS - 1)
        # All neighbors before the last gap match, so that a region with several copies is found.
        is_gap = ratios < RATIO
        count = np.where(is_gap.any(axis=1), NEIGHBORS - 1 - is_gap[:, ::-1].argmax(axis=1), 0)
        row, rank = np.nonzero(np.arange(NEIGHBORS) < count[:, None])
        all_pairs.append(np.stack((row + start, indices.numpy()[row, rank]), axis=1))
        all_ratios.append(ratios[row, count[row] - 1])
    pairs = np.sort(np.concatenate(all_pairs), axis=1)  # A match (a, b) is also a match (b, a).
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    best = np.argsort(np.concatenate(all_ratios)[first], kind="stable")[:MAX_MATCHES]
    return points[pairs[best]]


def _largest_cluster(matches: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the affine transform on which the most matches agree, and their indices.

    The positions, sizes and angles of a single match's keypoints determine a similarity transform
    (Lowe 2004, section 7.1). The affine transform is fitted to the matches that agree with the best
    similarity transform; it is None if there are too few or if it is not plausible.
    """
    members = np.empty(0, int)
    if len(matches) < MIN_MATCHES:
        return None, members
    source, target = matches[:, 0].astype(np.float32), matches[:, 1].astype(np.float32)
    turn = target[:, 2] / source[:, 2] * np.exp(1j * np.radians(target[:, 3] - source[:, 3]))
    start_points, end_points = (p[:, 0] + 1j * p[:, 1] for p in (source, target))
    for start in range(0, len(matches), CHUNK):
        rows = slice(start, start + CHUNK)
        offsets = start_points - start_points[rows, None]  # (CHUNK, M)
        errors = np.abs(end_points[rows, None] + turn[rows, None] * offsets - end_points)
        agrees = errors < TOLERANCE + TOLERANCE_PER_PIXEL * np.abs(offsets)
        best = int(agrees.sum(axis=1).argmax())
        if np.count_nonzero(agrees[best]) > len(members):
            members = agrees[best].nonzero()[0]
    if len(members) < MIN_MATCHES:
        return None, members
    transform, inliers = cv2.estimateAffine2D(
        source[members, :2], target[members, :2], ransacReprojThreshold=RANSAC_TOLERANCE
    )
    if transform is None or np.count_nonzero(inliers) < MIN_MATCHES:
        return None, members
    long, short = np.linalg.svd(transform[:, :2], compute_uv=False)
    is_plausible = short > 1 / MAX_SCALE and long < min(MAX_SCALE, MAX_STRETCH * short)
    return (transform if is_plausible else None), members[inliers.ravel() > 0]


def _verify(gray: np.ndarray, transform: np.ndarray, points: np.ndarray) -> Copy | None:
    """Return the pair of regions whose details agree under a transform; None if there is none."""
    height, width = gray.shape
    details = _details(gray)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    x, y = np.rint(points).astype(int).T
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    copies = []
    for candidate in _candidates(transform, points):
        inverse = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        moved = cv2.warpAffine(gray, candidate, (width, height), flags=inverse)
        correlation = _correlation_map(details, _details(moved))
        above = (correlation > MIN_CORRELATION).astype(np.uint8)
        similar = cv2.morphologyEx(above, cv2.MORPH_OPEN, kernel)
        similar = cv2.morphologyEx(similar, cv2.MORPH_CLOSE, kernel)
        _, labels = cv2.connectedComponents(similar)
        matches = np.bincount(labels[y, x])
        matches[0] = 0
        label = int(matches.argmax())
        region = labels == label
        area = np.count_nonzero(region)
        if matches[label] < MIN_MATCHES or area < MIN_AREA:
            continue
        target = cv2.warpAffine(region.astype(np.uint8), candidate, (width, height)) > 0
        finest = _finest_correlation(gray, moved, region)
        overlap = np.count_nonzero(region & target)
        is_many = matches[label] >= MANY_MATCHES
        limit = MIN_FINEST_OF_MANY if is_many else MIN_FINEST_CORRELATION
        if finest >= limit and overlap <= MAX_OVERLAP * area:
            median = float(np.median(correlation[region]))
            copies.append(Copy((region, target), int(matches[label]), median, finest))
    return max(copies, key=lambda copy: copy.correlation, default=None)


def _candidates(transform: np.ndarray, points: np.ndarray) -> Iterator[np.ndarray]:
    """Yield a transform and, if it is nearly a shift by whole pixels, that shift."""
    yield transform
    shifts = points @ transform[:, :2].T + transform[:, 2] - points
    shift = np.rint(np.median(shifts, axis=0))
    if np.abs(shifts - shift).max() <= WHOLE_SHIFT_TOLERANCE:
        yield np.array([[1, 0, shift[0]], [0, 1, shift[1]]])


def _details(gray: np.ndarray) -> np.ndarray:
    values = gray.astype(np.float32)
    return np.asarray(values - cv2.GaussianBlur(values, (0, 0), DETAIL_SIZE))


def _correlation_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute the correlation of two images of details in the window around each pixel."""
    ab, aa, bb = (cv2.blur(product, (WINDOW, WINDOW)) for product in (a * b, a * a, b * b))
    return np.asarray(ab / np.sqrt((aa + DETAIL_POWER) * (bb + DETAIL_POWER)))


def _finest_correlation(a: np.ndarray, b: np.ndarray, region: np.ndarray) -> float:
    """Compute the correlation of the finest details in a region, limiting the effect of edges."""
    finest = []
    for image in (a, b):
        values = cv2.filter2D(image, cv2.CV_32F, FINEST)[region]
        limit = 3 * np.abs(values).mean()
        finest.append(values.clip(-limit, limit))
    power = np.linalg.norm(finest[0]) * np.linalg.norm(finest[1])
    return float(finest[0] @ finest[1] / max(power, 1e-6))


def _is_same(copy: Copy, other: Copy) -> bool:
    """Return whether two pairs outline the same regions, in either order."""
    pairs = (zip(copy.masks, masks, strict=True) for masks in (other.masks, other.masks[::-1]))
    return any(
        all(np.count_nonzero(a & b) > 0.5 * min(a.sum(), b.sum()) for a, b in pair)
        for pair in pairs
    )
