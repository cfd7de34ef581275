"""Traces of an earlier JPEG compression with the same grid (JPEG ghosts)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..jpeg import ZIGZAG, base_tables, ijg_table
from ..readability import BLOCK
from .lead import OUTLINES, Box, Lead, Rates, dct_matrix, draw_outlines, middle

NAME = "Double JPEG compression"
REFERENCE = "Farid, Exposing digital forgeries from JPEG ghosts, 2009"
MEANING = (
    "If a JPEG is saved again with its blocks in the same position, traces of the quantization "
    "steps of an earlier, heavier compression remain in the pixels. A region that has such "
    "traces, while the rest of the photo does not, may have been pasted from a JPEG of lower "
    "quality; it is outlined."
)
INNOCENT = (
    "Websites, messaging apps and editors recompress photos, so an earlier compression of the "
    "whole photo is normal. Collages, logos and screenshots contain parts with their own "
    "compression history."
)
LIMITS = (
    "Earlier compressions whose quality was similar or higher, blocks whose position has changed, "
    "small regions, and pasted regions without such traces in a photo that has them."
)
# Measured with benchmarks/leads.py; see docs/examine.md.
RATES = Rates(
    false_alarms=0,
    authentic=349,
    detected=326,
    manipulated=349,
    detected_real=1,
    real=41,
    template="In tests, this method outlined a region in {false_alarms} of {authentic} authentic "
    "photos. It found {detected} of {manipulated} test splices that we made from these photos "
    "(regions of JPEG quality 60, 70 or 80 in photos that were then saved with quality 90), but "
    "the manipulated region in only {detected_real} of {real} manipulated images from four "
    "collections published by researchers.",
)

MAX_SIDE = 4096  # Pixels; only the middle of a longer side is examined.
STRIP = 64  # Rows of blocks that are processed together, to bound memory.
CELL = 2 * BLOCK  # Pixels; the smallest unit of a region.

QUALITIES = range(50, 96)
FREQUENCIES = np.argsort(ZIGZAG)[1:13]  # Row-major indices of the lowest AC coefficients.
MAX_VALUE = 127  # Of quantized coefficients; larger ones are rare.
COARSER = 1.3  # Minimum ratio of the mean earlier step to the mean step of the file.
MIN_QUALITIES = 12  # Qualities to compare; below about quality 60 there are fewer.
MAX_DEVIATION, CHECKED_STEP = 0.18, 3  # Steps; smaller ones cannot be checked in rounded pixels.
NEAR, FAR = 3, 8  # Distances of the qualities with which each quality is compared.
SHIFT = BLOCK // 2  # Pixels, to destroy the traces of the grid.

# The contrast is about 1 without an earlier compression; see docs/examine.md.
PHOTO_LIMIT, PHOTO_ERROR = 0.7, 100.0
CELL_LIMIT, REGION_LIMIT, REST_LIMIT = 0.6, 0.5, 0.93
MIN_CELLS, REGION_ERROR = 16, 20.0
WINDOW_CELLS = 3  # Cells on each side that are averaged.


@dataclass(frozen=True)
class Ghost:
    """A region with traces of an earlier compression that are absent from the rest of the photo.

    Attributes:
        quality: The earlier quality.
        cells: The cells of the region, bool ``(H // 16, W // 16)``.
        box: The bounding box in pixels.
    """

    quality: int
    cells: np.ndarray
    box: Box


def double_jpeg_lead(
    pixels: np.ndarray,
    file_grid: tuple[int, int] | None,
    luma_table: Sequence[int] | None,
    *,
    is_transposed: bool = False,
) -> Lead:
    """Search a JPEG for traces of an earlier compression.

    Args:
        pixels: uint8 ``(H, W, 3)`` RGB, at least 32x32.
        file_grid: See :func:`qma_net.examine.leads.leads`.
        luma_table: See :func:`qma_net.examine.leads.leads`.
        is_transposed: See :func:`qma_net.examine.leads.leads`.
    """
    lead = Lead(
        NAME,
        None,
        MEANING,
        INNOCENT,
        rates=RATES.sentence(),
        reference=REFERENCE,
        limits=LIMITS,
    )
    if file_grid is None or luma_table is None:
        return replace(lead, result="Not examined: the file is not a JPEG with known tables.")
    part, (left, top), window = middle(pixels, MAX_SIDE)
    x, y = (file_grid[0] - left) % BLOCK, (file_grid[1] - top) % BLOCK
    part, left, top = part[y:, x:], left + x, top + y
    # Tables are not symmetric, so blocks must be turned as in the file; reflections have no effect.
    stored = np.ascontiguousarray(part.swapaxes(0, 1)) if is_transposed else part
    analysis = find_ghosts(stored, luma_table)
    if analysis is None:
        return replace(lead, window=window, result="Not examined: the traces cannot be measured.")
    quality, ghosts = analysis
    result = "No traces of an earlier compression were found."
    if quality is not None:
        result = (
            f"Most of the photo has traces of an earlier compression at about quality {quality}."
        )
    if ghosts:
        result = "" if quality is None else f"{result} "
        found = ", ".join(str(ghost.quality) for ghost in ghosts)
        found = " and ".join(found.rsplit(", ", 1))
        result += f"Regions with a separate earlier compression were found (quality about {found})."
    picture, findings = part.copy() if ghosts else None, []
    for number, ghost in enumerate(ghosts):
        cells = ghost.cells.T if is_transposed else ghost.cells
        mask = cells.repeat(CELL, axis=0).repeat(CELL, axis=1)
        if picture is not None:
            draw_outlines(picture, mask, OUTLINES[number % len(OUTLINES)])
        x0, y0, x1, y1 = ghost.box
        if is_transposed:
            x0, y0, x1, y1 = y0, x0, y1, x1
        findings.append(((x0 + left, y0 + top, x1 + left, y1 + top),))
    return replace(lead, window=window, result=result, picture=picture, findings=tuple(findings))


def find_ghosts(pixels: np.ndarray, table: Sequence[int]) -> tuple[int | None, list[Ghost]] | None:
    """Find the earlier quality of a photo, and regions with a separate earlier quality.

    The requantization errors are compared with those of the photo shifted by half a block, which
    stands in for a photo that was compressed only once. This replaces the paper's normalization.

    Args:
        pixels: uint8 ``(H, W, 3)`` RGB; a block of the last compression begins at ``(0, 0)``.
        table: The 64 luma quantization steps of the last compression, row by row.

    Returns:
        The earlier quality, which is None if there are no traces, and the regions. None instead of
        both if the last compression is too strong, the photo is too small or too plain, or the
        table is not that of the pixels.
    """
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    height, width = (side // CELL * CELL for side in gray.shape)
    steps = np.array(table, np.float32)[FREQUENCIES]
    qualities, errors = _requantization_errors(steps)
    if min(height, width) < CELL or len(qualities) < MIN_QUALITIES:
        return None
    own, deviation = _cell_errors(gray[:height, :width], steps, errors)
    shifted = cv2.copyMakeBorder(gray[SHIFT:, SHIFT:], 0, SHIFT, 0, SHIFT, cv2.BORDER_REFLECT_101)
    once, _ = _cell_errors(shifted[:height, :width], steps, errors)
    if deviation > MAX_DEVIATION or once.sum(axis=(0, 1)).min() < PHOTO_ERROR:
        return None
    totals = own.sum(axis=(0, 1)), once.sum(axis=(0, 1))
    photo = _contrast(totals[0] / totals[1])
    best = int(photo.argmin())
    earlier = int(qualities[best]) if photo[best] < PHOTO_LIMIT else None

    kernel = (WINDOW_CELLS, WINDOW_CELLS)
    smooth = [
        np.dstack([cv2.blur(values[..., i], kernel) for i in range(len(qualities))])
        for values in (own, once)
    ]
    local = _contrast(smooth[0] / np.maximum(smooth[1], 1e-3))
    local[smooth[1].min(axis=2) < REGION_ERROR / MIN_CELLS] = 1
    ghosts: list[Ghost] = []
    covered = np.zeros(own.shape[:2], bool)
    # The quality on which the most cells agree comes first; its neighbors are similar.
    below = local < CELL_LIMIT
    counts = np.count_nonzero(below, axis=(0, 1))
    for index in np.argsort(-counts, kind="stable"):
        # A finer table whose steps divide those of the earlier one fits it, too.
        if earlier is not None and qualities[index] >= earlier - FAR:
            continue
        if counts[index] < MIN_CELLS:
            break
        _, labels, stats, _ = cv2.connectedComponentsWithStats(
            below[..., index].astype(np.uint8), connectivity=4
        )
        areas = stats[:, cv2.CC_STAT_AREA]
        areas[0] = 0  # The background.
        for label in np.flatnonzero((areas >= MIN_CELLS) & (areas <= labels.size // 2)):
            x, y, w, h, _ = (int(value) for value in stats[label])
            cells = labels == label
            if (cells & covered).any():
                continue
            sums = own[cells].sum(axis=0), once[cells].sum(axis=0)
            inside = _contrast(sums[0] / np.maximum(sums[1], 1e-3))
            rest = _contrast((totals[0] - sums[0]) / np.maximum(totals[1] - sums[1], 1e-3))
            lowest = int(inside.argmin())
            if inside[lowest] < REGION_LIMIT and rest[lowest] > REST_LIMIT:
                box = (x * CELL, y * CELL, (x + w) * CELL, (y + h) * CELL)
                ghosts.append(Ghost(int(qualities[lowest]), cells, box))
                covered |= cells
    return earlier, ghosts


def _requantization_errors(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the coarser qualities, and squared errors in steps ``(frequency, value, quality)``."""
    base = base_tables()[0]
    tables = {q: np.array(ijg_table(base, q), np.float32)[FREQUENCIES] for q in QUALITIES}
    qualities = [q for q, table in tables.items() if table.mean() > COARSER * steps.mean()]
    earlier = np.array([tables[q] for q in qualities], np.float32).reshape(-1, len(steps))
    values = np.arange(MAX_VALUE + 1)[:, None] * steps[:, None, None] / earlier.T[:, None]
    return np.array(qualities), ((values - np.rint(values)) ** 2).astype(np.float32)


def _cell_errors(
    gray: np.ndarray, steps: np.ndarray, errors: np.ndarray
) -> tuple[np.ndarray, float]:
    """Sum the errors in each cell; measure how far coefficients are from multiples of the steps."""
    dct = dct_matrix()
    basis = np.kron(dct, dct)[FREQUENCIES].T.astype(np.float32)  # (64, frequency)
    sums, deviations, count = [], 0.0, 0
    for top in range(0, len(gray), STRIP * BLOCK):
        part = gray[top : top + STRIP * BLOCK].astype(np.float32)
        rows, columns = part.shape[0] // BLOCK, part.shape[1] // BLOCK
        blocks = part.reshape(rows, BLOCK, columns, BLOCK).swapaxes(1, 2).reshape(-1, BLOCK**2)
        values = np.abs(blocks @ basis / steps)
        whole = np.rint(values)
        checked = (whole > 0) & (steps >= CHECKED_STEP)
        deviations += float(np.abs(values - whole)[checked].sum())
        count += int(np.count_nonzero(checked))
        indices = np.minimum(whole, MAX_VALUE).astype(np.intp)
        total = np.zeros((len(blocks), errors.shape[2]), np.float32)
        for frequency, error in enumerate(errors):
            total += error.take(indices[:, frequency], axis=0)
        sums.append(total.reshape(rows // 2, 2, columns // 2, 2, -1).sum(axis=(1, 3)))
    return np.concatenate(sums), deviations / max(count, 1)


def _contrast(ratios: np.ndarray) -> np.ndarray:
    """Divide the ratio of each quality (last axis) by the mean ratio of qualities around it."""
    distance = np.abs(np.subtract.outer(*[np.arange(ratios.shape[-1])] * 2))
    weights = ((distance >= NEAR) & (distance <= FAR)).astype(np.float32)
    return np.asarray(ratios / np.maximum(ratios @ (weights / weights.sum(axis=0)), 1e-6))
