"""The grid of JPEG blocks in the pixels of a photo, and regions with a different grid (ZERO)."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ...inference.photograph import Photograph
from ..readability import BLOCK, first_block
from .lead import OUTLINES, WINDOW, Box, Lead, Rates, dct_matrix, draw_outlines, middle

NAME = "JPEG grid"
REFERENCE = (
    "Nikoukhah et al., JPEG grid detection based on the number of DCT zeros and its application to "
    "automatic and localized forgery detection (ZERO), 2019"
)
MEANING = (
    "JPEG compresses blocks of 8x8 pixels and sets many of their coefficients to zero, which shows "
    "where the blocks begin, even after the photo has been cropped or converted. A region whose "
    "blocks begin elsewhere may have been pasted from another JPEG."
)
INNOCENT = (
    "A grid that does not begin in the corner only means that the photo was cropped, or had a "
    "border added, after it had been compressed. Collages, screenshots, logos and subtitles have "
    "separate grids. Regular textures, graphics, and photos that were converted from WebP, AVIF or "
    "HEIC can imitate one."
)
LIMITS = (
    "Parts that were pasted with their blocks aligned, parts that were resized before pasting, and "
    "photos that were resized afterwards. Recompression after the manipulation weakens or removes "
    "the grid."
)
# Measured with benchmarks/leads.py; see docs/examine.md.
RATES = Rates(
    false_alarms=0,
    authentic=777,
    detected=766,
    manipulated=776,
    detected_real=3,
    real=41,
    template="In tests, this method outlined a region in {false_alarms} of {authentic} authentic "
    "photos. It found {detected} of {manipulated} test splices (with shifted blocks, and not "
    "recompressed) that we made from these photos, but the manipulated region in only "
    "{detected_real} of {real} manipulated images from four collections published by researchers.",
)


# The formats for which the rates hold; TIFF and BMP store pixels without loss, as PNG does.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP")

GRIDS = BLOCK * BLOCK  # A grid is numbered 8 * y + x, where (x, y) is its first complete block.
NO_VOTE = GRIDS
TILE = 256  # Pixels; such tiles fit in the processor's cache.
ZERO = 0.5  # Smaller coefficients count as zero, since the pixels are rounded.

# Logarithms (base 10) of the expected number of false alarms per photo; the paper's limit is 0.
GLOBAL_LIMIT, REGION_LIMIT = 0.0, -3.0
PARTS = 4  # Per side of a photo; in most parts, the main grid must have the most votes.
MIN_VOTES = 0.1  # Fraction of a part's pixels that must vote; in plain areas too few do.
CELL_SHARE = 0.25  # A block can join a region if this fraction of its pixels votes for one grid.
MAX_REGIONS = 20  # Of one grid.
MIN_CELLS = 16  # Blocks with such votes in a region.


@dataclass(frozen=True)
class GridRegion:
    """A region with a separate grid.

    Attributes:
        origin: ``(x, y)`` of its first complete block, 0 to 7.
        cells: Bool ``(ceil(H / 8), ceil(W / 8))``: its blocks.
        box: The bounding box in pixels.
        log_nfa: Logarithm (base 10) of the expected number of false alarms.
    """

    origin: tuple[int, int]
    cells: np.ndarray
    box: Box
    log_nfa: float


def grid_lead(
    pixels: np.ndarray, file_grid: tuple[int, int] | None = None, file_format: str = ""
) -> Lead:
    """Describe the JPEG grids of a photo.

    Args:
        pixels: uint8 ``(H, W, 3)`` RGB, at least 32x32.
        file_grid: See :func:`qma_net.examine.leads.leads`.
        file_format: See :func:`qma_net.examine.leads.leads`.
    """
    if file_format and file_format not in FORMATS:
        return Lead(
            NAME,
            None,
            MEANING,
            INNOCENT,
            result=f"Not examined: the method does not apply to {file_format} files, only to "
            f"{', '.join(FORMATS[:-1])} and {FORMATS[-1]}.",
            rates=RATES.sentence(),
            reference=REFERENCE,
            limits=LIMITS,
        )
    part, (left, top), window = middle(pixels, WINDOW)
    main, regions = find_grids(part, None if file_grid is None else _moved(file_grid, -left, -top))
    origin = None if main is None else _moved(main, left, top)
    picture, boxes = None, []
    if regions:
        picture = part.copy()
        for number, region in enumerate(regions):
            mask = region.cells.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
            draw_outlines(picture, mask, OUTLINES[number % len(OUTLINES)])
            x0, y0, x1, y1 = region.box
            boxes.append((x0 + left, y0 + top, x1 + left, y1 + top))
    names = {0: "No region", 1: "One region"}
    kind = "a different grid"
    if main is None:
        kind = "a grid" if file_grid is None else "a grid other than that of the file"
    found = f"{names.get(len(regions), f'{len(regions)} regions')} with {kind}"
    found += " was found." if len(regions) < 2 else " were found."
    return Lead(
        NAME,
        picture,
        MEANING,
        INNOCENT,
        window,
        f"{_describe_main(origin, file_grid)} {found}",
        RATES.sentence(),
        REFERENCE,
        tuple((box,) for box in boxes),
        LIMITS,
    )


def present_grid(photograph: Photograph) -> tuple[int, int]:
    """Return the position ``(x, y)`` of the first complete block among a JPEG's decoded pixels."""
    height, width = photograph.pixels.shape[:2]
    rows, columns = photograph.present
    first = first_block(width, height, photograph.orientation)
    return _moved(first, -columns.indices(width)[0], -rows.indices(height)[0])


def _moved(origin: tuple[int, int], x: int, y: int) -> tuple[int, int]:
    return (origin[0] + x) % BLOCK, (origin[1] + y) % BLOCK


def _describe_main(origin: tuple[int, int] | None, file_grid: tuple[int, int] | None) -> str:
    if origin is None:
        return "No grid was detected in the photo as a whole."
    if origin == file_grid:
        return "The JPEG grid found in the pixels is the one that the file itself uses."
    if file_grid is not None:
        return (
            f"The JPEG grid found in the pixels begins {_position(origin)}, but the one that the "
            f"file itself uses begins {_position(file_grid)}. The photo was probably saved as "
            "JPEG, then cropped or extended at an edge, and saved again."
        )
    conclusion = (
        "there is no sign of a crop at the left or top (a crop by a multiple of 8 pixels leaves "
        "none)"
        if origin == (0, 0)
        else "the photo was probably cropped or extended afterwards"
    )
    return (
        "Most of the photo has probably been compressed as JPEG at some point. The grid begins "
        f"{_position(origin)}, so {conclusion}."
    )


def _position(origin: tuple[int, int]) -> str:
    if origin == (0, 0):
        return "in the top left corner"
    return f"{origin[0]} pixels from the left and {origin[1]} from the top"


def find_grids(
    pixels: np.ndarray, file_grid: tuple[int, int] | None = None
) -> tuple[tuple[int, int] | None, list[GridRegion]]:
    """Detect the main grid of a photo and regions with a different one.

    Args:
        pixels: uint8 ``(H, W, 3)`` RGB.
        file_grid: The grid of the file; no region is reported for it.

    Returns:
        ``(x, y)`` of the first complete block of the main grid, or None, and the regions with
        a different grid, the most significant first.
    """
    votes = grid_votes(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    main = _main_grid(votes)
    known = {main, None if file_grid is None else BLOCK * file_grid[1] + file_grid[0]}
    regions = _regions(votes, set(range(GRIDS)) - known)
    return (None if main is None else (main % BLOCK, main // BLOCK)), regions


def grid_votes(gray: np.ndarray) -> np.ndarray:
    """Let each pixel vote for the grid of the block around it that has the most zeros.

    Args:
        gray: uint8 ``(H, W)``, at least 8x8.

    Returns:
        uint8 ``(H, W)``: the number of a grid, or ``NO_VOTE`` in case of a tie or near the border,
        where blocks are incomplete.
    """
    zeros = np.zeros(gray.shape, np.uint16)
    zeros[: 1 - BLOCK, : 1 - BLOCK] = zero_counts(gray)
    y, x = np.indices((BLOCK, BLOCK), np.uint16)
    repeats = -(-gray.shape[0] // BLOCK), -(-gray.shape[1] // BLOCK)
    grid = np.tile(y * BLOCK + x, repeats)[: gray.shape[0], : gray.shape[1]]
    # The blocks around a pixel belong to 64 different grids. Of those with the most zeros, find the
    # highest and the lowest number; they agree if there is only one.
    kernel, anchor = np.ones((BLOCK, BLOCK), np.uint8), (BLOCK - 1, BLOCK - 1)
    highest = cv2.dilate(zeros * GRIDS + grid, kernel, anchor=anchor) % GRIDS
    lowest = (
        GRIDS - 1 - cv2.dilate(zeros * GRIDS + (GRIDS - 1 - grid), kernel, anchor=anchor) % GRIDS
    )
    votes = np.where(highest == lowest, highest, NO_VOTE).astype(np.uint8)
    inner = np.full_like(votes, NO_VOTE)
    inside = slice(BLOCK - 1, 1 - BLOCK)
    inner[inside, inside] = votes[inside, inside]
    return inner


def zero_counts(gray: np.ndarray) -> np.ndarray:
    """Count the zeros among the 63 AC coefficients of the 8x8 block at each position.

    Args:
        gray: uint8 ``(H, W)``, at least 8x8.

    Returns:
        uint8 ``(H - 7, W - 7)``.
    """
    dct = dct_matrix().astype(np.float32)
    counts = np.zeros((gray.shape[0] - BLOCK + 1, gray.shape[1] - BLOCK + 1), np.uint8)
    for top in range(0, counts.shape[0], TILE):
        for left in range(0, counts.shape[1], TILE):
            tile = counts[top : top + TILE, left : left + TILE]
            height, width = tile.shape
            part = gray[top : top + height + BLOCK - 1, left : left + width + BLOCK - 1]
            part = part.astype(np.float32)
            for u in range(BLOCK):
                rows = cv2.filter2D(part, -1, dct[u][None], anchor=(0, 0))[:, :width].copy()
                for v in range(u == 0, BLOCK):
                    columns = cv2.filter2D(rows, -1, dct[v][:, None], anchor=(0, 0))[:height]
                    is_zero = cv2.inRange(columns, np.array(-ZERO), np.array(ZERO))
                    tile += (np.asarray(is_zero) > 0).astype(np.uint8)
    return counts


def _main_grid(votes: np.ndarray) -> int | None:
    """Return the significant grid that wins the vote in most parts of the photo, or None."""
    counts = np.bincount(votes.ravel(), minlength=GRIDS + 1)[:GRIDS]
    best = int(counts.argmax())
    if _log_nfa(votes.size / GRIDS, counts[best] / GRIDS, votes.size) >= GLOBAL_LIMIT:
        return None
    parts = [
        part for band in np.array_split(votes, PARTS) for part in np.array_split(band, PARTS, 1)
    ]
    leading = []
    for part in parts:
        counts = np.bincount(part.ravel(), minlength=GRIDS + 1)[:GRIDS]
        if counts.sum() >= MIN_VOTES * part.size:
            leading.append(int(counts.argmax()) == best)
    return best if leading and np.mean(leading) > 0.5 else None


def _log_nfa(blocks: float, votes: float, pixels: int) -> float:
    """Bound log10 of the expected number of false alarms by Hoeffding's inequality.

    ``blocks`` and ``votes`` are the pixels of a region and the votes in it, divided by the 64
    pixels of a block; ``pixels`` are those of the photo.
    """
    share, chance = votes / blocks, 1 / GRIDS
    tests = math.log10(GRIDS) + 1.5 * math.log10(pixels)
    if share <= chance:
        return tests
    divergence = share * math.log(share / chance)
    if share < 1:
        divergence += (1 - share) * math.log((1 - share) / (1 - chance))
    return tests - blocks * divergence / math.log(10)


def _regions(votes: np.ndarray, grids: set[int]) -> list[GridRegion]:
    height, width = votes.shape
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    cell = np.arange(height)[:, None] // BLOCK * columns + np.arange(width) // BLOCK
    counts = np.bincount(
        (cell * (GRIDS + 1) + votes).ravel(), minlength=rows * columns * (GRIDS + 1)
    ).reshape(rows, columns, GRIDS + 1)
    regions = []
    for grid in grids:
        candidates = counts[..., grid] >= CELL_SHARE * GRIDS
        if np.count_nonzero(candidates) < MIN_CELLS:
            continue
        joined = cv2.dilate(candidates.astype(np.uint8), np.ones((3, 3), np.uint8))
        _, labels = cv2.connectedComponents(joined)
        sizes = np.bincount(labels[candidates])
        largest = np.argsort(sizes)[: -MAX_REGIONS - 1 : -1]  # Bounds the work for any image.
        for label in largest[sizes[largest] >= MIN_CELLS]:
            cells = candidates & (labels == label)
            y, x = cells.any(axis=1).nonzero()[0], cells.any(axis=0).nonzero()[0]
            box = (
                int(x[0]) * BLOCK,
                int(y[0]) * BLOCK,
                min(int(x[-1] + 1) * BLOCK, width),
                min(int(y[-1] + 1) * BLOCK, height),
            )
            blocks = (x[-1] - x[0] + 1) * (y[-1] - y[0] + 1)
            log_nfa = _log_nfa(blocks, counts[..., grid][cells].sum() / GRIDS, votes.size)
            if log_nfa < REGION_LIMIT:
                regions.append(GridRegion((grid % BLOCK, grid // BLOCK), cells, box, log_nfa))
    return sorted(regions, key=lambda region: region.log_nfa)
