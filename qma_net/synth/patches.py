"""Inpainting with patches of the same image, as editors fill in removed objects."""

import cv2
import numpy as np

PATCH = 15  # Side of a patch in pixels.
STEP = 9  # Distance between patches; they overlap, so that neighbors agree.
REACH = 80  # Largest distance between a patch and its source.


def fill_with_patches(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Fill a region with the patches that best match the surroundings, from the outside in.

    Args:
        image: uint8 ``(H, W, 3)``.
        region: uint8 ``(H, W)`` of 0 and 1, the pixels to fill.

    Returns:
        The image, changed only inside the region. What cannot be filled is inpainted.
    """
    filled, missing = image.copy(), region > 0
    is_source = cv2.dilate(region, np.ones((PATCH, PATCH), np.uint8)) == 0  # Centers of patches.
    half = PATCH // 2
    is_source[:half] = is_source[-half:] = False
    is_source[:, :half] = is_source[:, -half:] = False
    depth = cv2.distanceTransform(region, cv2.DIST_L2, 3)
    ys, xs = np.nonzero(missing)
    on_grid = (ys % STEP == 0) & (xs % STEP == 0) | (depth[ys, xs] <= 1) & ((ys + xs) % STEP == 0)
    order = np.argsort(depth[ys[on_grid], xs[on_grid]], kind="stable")
    for y, x in zip(ys[on_grid][order], xs[on_grid][order], strict=True):
        _fill_patch(filled, missing, is_source, int(y), int(x))
    if missing.any():
        return cv2.inpaint(filled, missing.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    return filled


def _fill_patch(
    filled: np.ndarray, missing: np.ndarray, is_source: np.ndarray, y: int, x: int
) -> None:
    half = PATCH // 2
    height, width = missing.shape
    y, x = min(max(y, half), height - half - 1), min(max(x, half), width - half - 1)
    here = np.s_[y - half : y + half + 1, x - half : x + half + 1]
    unknown = missing[here]
    if not unknown.any() or unknown.all():
        return
    top, left = max(0, y - REACH - half), max(0, x - REACH - half)
    around = np.s_[top : y + REACH + half + 1, left : x + REACH + half + 1]
    centers = is_source[around][half:-half, half:-half]
    if not centers.any():
        return
    known = np.repeat((~unknown)[..., None], 3, axis=2).astype(np.float32)
    error = cv2.matchTemplate(
        filled[around].astype(np.float32),
        filled[here].astype(np.float32),
        cv2.TM_SQDIFF,
        None,
        known,
    )
    error[~centers] = np.inf
    row, column = np.unravel_index(np.argmin(error), error.shape)
    source = filled[around][row : row + PATCH, column : column + PATCH]
    filled[here][unknown] = source[unknown]
    missing[here] = False
