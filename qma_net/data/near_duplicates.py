"""Near-duplicate images: the same photo saved again, resized or slightly cropped.

Each image is represented by a thumbnail. Candidates are found by perceptual hashes (pHash: the
signs of the 8x8 lowest cosine frequencies relative to their median) of the thumbnail and of five
crops of it. Indexing the four 16-bit quarters of each hash avoids comparing all pairs. A
candidate is a near-duplicate if one thumbnail, cropped by up to 5% per side, correlates with the
other. Hashes alone produce false matches among a few thousand photos.

Rotated, mirrored and further cropped copies are not found, nor are uniform images.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from PIL import Image

THUMBNAIL = 32  # Side in pixels.

# These values were measured on 1,048 photos by `python -m benchmarks.leaks`.
DISTANCE = 12  # Candidates differ in at most this many of 64 bits.
LIKELY = 0.6  # If no crop in CROPS reaches this correlation, no other crops are tried.
CORRELATION = 0.85  # Near-duplicates have at least this correlation at the best crop.
FLAT = 2.0  # Images with a smaller standard deviation in gray levels are ignored as uniform.

# Fractions removed at the left, top, right and bottom. The first crop is the whole image.
CROPS = (
    (0, 0, 0, 0),
    (0.04, 0.04, 0.04, 0.04),
    (0.05, 0.05, 0, 0),
    (0, 0.05, 0.05, 0),
    (0.05, 0, 0, 0.05),
    (0, 0, 0.05, 0.05),
)
CUTS = np.linspace(0, 0.05, 5)  # Fractions of a side whose removal is tried for candidates.

FREQUENCIES = 8
BANDS, BAND_BITS = 4, 16
# Bit flips that are tried in each quarter of a hash. If up to 11 bits differ, at least one quarter
# has at most two of them. Pairs with 12 are missed if each quarter has three (one pair in 30).
FLIPS = np.array(
    [sum(1 << bit for bit in bits) for n in range(3) for bits in combinations(range(BAND_BITS), n)]
)
CHUNK = 4_000_000  # Number of pairs of hashes that are compared at once.
BIT_COUNTS = np.array([i.bit_count() for i in range(1 << 16)], np.uint8)


def thumbnail_of(image: Image.Image) -> bytes:
    """Downscale a decoded image to 32x32 gray bytes; return empty bytes for a uniform image."""
    if image.mode.startswith(("I", "F")):
        deep = np.asarray(image, np.float32)
        image = Image.fromarray((deep * (255 / max(deep.max(), 1))).clip(0, 255).astype(np.uint8))
    elif image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    size = (THUMBNAIL, THUMBNAIL)
    small = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0).convert("L")
    return small.tobytes() if np.asarray(small).std() >= FLAT else b""


def find_copies(
    thumbnails: Sequence[bytes], groups: Sequence[int]
) -> Iterator[tuple[int, int, float]]:
    """Find images that are near-duplicates of an image in an earlier group.

    The thumbnails come from :func:`thumbnail_of` and must not be empty. Groups are numbered from
    0, and images of the same group are not compared.

    Yields:
        The index of the copy, the index of the most similar image in an earlier group, and
        their correlation.
    """
    pixels = np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL)
    hashes, group_of = perceptual_hashes(pixels), np.asarray(groups)
    for group in range(1, max(groups, default=0) + 1):
        earlier, members = np.flatnonzero(group_of < group), np.flatnonzero(group_of == group)
        pairs = candidates(hashes[earlier], hashes[members])
        originals, copies = earlier[pairs[:, 0]], members[pairs[:, 1]]
        correlation = correlations(pixels, originals, copies)
        order = np.lexsort((originals, -correlation, copies))
        order = order[correlation[order] >= CORRELATION]
        _, best = np.unique(copies[order], return_index=True)
        for i in order[best]:
            yield int(copies[i]), int(originals[i]), float(correlation[i])


def perceptual_hashes(pixels: np.ndarray) -> np.ndarray:
    """Hash the :data:`CROPS` of each thumbnail: uint8 ``(N, 32, 32)`` to uint64 ``(N, 6)``."""
    cosines = np.cos(
        np.pi * np.arange(FREQUENCIES)[:, None] * (np.arange(THUMBNAIL) + 0.5) / THUMBNAIL
    ).astype(np.float32)
    hashes = np.zeros((len(pixels), len(CROPS)), np.uint64)
    # Neighboring frequencies go to different quarters, so that each is equally informative.
    bit_index = np.arange(FREQUENCIES**2, dtype=np.uint64)
    bit_index = bit_index % BANDS * BAND_BITS + bit_index // BANDS
    for start in range(0, len(pixels), 4096):
        batch = pixels[start : start + 4096].astype(np.float32)
        for column, (left, top, right, bottom) in enumerate(CROPS):
            rows, columns = (cosines @ _crop_matrix(*cut) for cut in ((top, bottom), (left, right)))
            waves = (rows @ batch @ columns.T).reshape(len(batch), -1)
            bits = waves > np.median(waves, axis=1, keepdims=True)
            values = (bits.astype(np.uint64) << bit_index).sum(axis=1)
            hashes[start : start + 4096, column] = values
    return hashes


def candidates(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Find pairs of images where a crop of one has nearly the same hash as the other.

    The hashes are uint64, ``(N, 6)`` and ``(M, 6)``. The result has an index into each for every
    pair, ``(K, 2)``, without repetition. Of several equal hashes in ``first``, only the first
    counts.
    """
    crops = first.shape[1]
    if not len(first) or not len(second):
        return np.zeros((0, 2), int)
    crops_of_first = _close_hashes(first.ravel(), second[:, 0]) // (crops, 1)
    crops_of_second = _close_hashes(first[:, 0], second[:, 1:].ravel()) // (1, crops - 1)
    return np.unique(np.concatenate([crops_of_first, crops_of_second]), axis=0)


def correlations(pixels: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compare pairs of thumbnails ``(N, 32, 32)``, given the indices ``(K,)`` of both.

    Either may be a slight crop of the other. The result is Pearson's correlation at the best crop
    found, ``(K,)``; 0 if it is below :data:`LIKELY` at all :data:`CROPS`.
    """
    result = np.zeros(len(first))
    for start in range(0, len(first), 1024):
        a, b = (pixels[index[start : start + 1024]].astype(np.float32) for index in (first, second))
        rough = np.maximum(_at_crops(a, b), _at_crops(b, a))
        likely = np.flatnonzero(rough >= LIKELY)
        a, b = a[likely], b[likely]
        result[start + likely] = np.maximum(_at_best_crop(a, b), _at_best_crop(b, a))
    return result


def bit_counts(numbers: np.ndarray) -> np.ndarray:
    """Count the bits that are set in each uint64."""
    return BIT_COUNTS[numbers.view(np.uint16).reshape(-1, 4)].sum(axis=1)


def _crop_matrix(before: float, after: float) -> np.ndarray:
    """Return a matrix ``(32, 32)`` that crops 32 samples and resamples the rest to 32.

    ``before`` and ``after`` are the fractions to remove at the beginning and the end.
    """
    position = (np.arange(THUMBNAIL) + 0.5) * (1 - before - after) + THUMBNAIL * before - 0.5
    position = position.clip(0, THUMBNAIL - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(THUMBNAIL))).astype(np.float32)


def _at_crops(whole: np.ndarray, crop: np.ndarray) -> np.ndarray:
    """Correlate ``crop`` with the best of :data:`CROPS` of ``whole``; see `_at_best_crop`."""
    target, best = _normalized(crop), np.full(len(whole), -1.0)
    for left, top, right, bottom in CROPS:
        cropped = _crop_matrix(top, bottom) @ whole @ _crop_matrix(left, right).T
        best = np.maximum(best, (_normalized(cropped) * target).sum(axis=(1, 2)))
    return best


def _at_best_crop(whole: np.ndarray, crop: np.ndarray) -> np.ndarray:
    """Correlate ``crop`` with the best crop of ``whole``: float32 ``(K, 32, 32)`` to ``(K,)``."""
    cuts = np.stack([_crop_matrix(before, after) for before in CUTS for after in CUTS])
    target = _normalized(crop)
    rows = np.zeros(len(whole), int)
    for _ in range(2):  # Alternate between the best columns and the best rows.
        cropped = cuts[rows] @ whole
        columns, _ = _best_cut(cropped.transpose(0, 2, 1), cuts, target.transpose(0, 2, 1))
        cropped = whole @ cuts[columns].transpose(0, 2, 1)
        rows, best = _best_cut(cropped, cuts, target)
    return best


def _best_cut(
    images: np.ndarray, cuts: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of each image's best cut of rows, and its correlation with ``target``."""
    pixels = THUMBNAIL**2
    cropped = (cuts @ images[:, None]).reshape(len(images), len(cuts), pixels)  # (K, C, 32 * 32)
    correlation = (cropped @ target.reshape(len(images), pixels, 1))[..., 0]  # (K, C)
    correlation /= cropped.std(axis=2) * THUMBNAIL + 1e-6
    best = correlation.argmax(axis=1)
    return best, np.take_along_axis(correlation, best[:, None], axis=1)[:, 0]


def _normalized(images: np.ndarray) -> np.ndarray:
    """Shift and scale images ``(K, 32, 32)`` to mean 0 and sum of squares 1."""
    images = images - images.mean(axis=(1, 2), keepdims=True)
    return images / (np.sqrt((images**2).sum(axis=(1, 2), keepdims=True)) + 1e-6)


def _close_hashes(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Find pairs of hashes that differ in at most :data:`DISTANCE` bits.

    The result has an index into ``first`` and ``second`` for each pair, ``(K, 2)``; pairs may be
    repeated.
    """
    table, first_index = np.unique(first, return_index=True)
    close = []
    for band in range(BANDS):
        shift = np.uint64(band * BAND_BITS)
        table_keys, keys = (
            ((hashes >> shift) & np.uint64(0xFFFF)).astype(int) for hashes in (table, second)
        )
        order = np.argsort(table_keys, kind="stable")
        starts = np.searchsorted(table_keys[order], np.arange((1 << BAND_BITS) + 1))
        for flip in FLIPS:
            begin = starts[keys ^ flip]
            lengths = starts[(keys ^ flip) + 1] - begin
            for query, position in _expand_ranges(begin, lengths):
                member = order[position]
                near = bit_counts(table[member] ^ second[query]) <= DISTANCE
                close.append(np.stack([first_index[member[near]], query[near]], axis=1))
    return np.concatenate(close)


def _expand_ranges(
    begin: np.ndarray, lengths: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all values of integer ranges, in chunks: the number of the range, and the value."""
    ends = np.cumsum(lengths)
    start = 0
    while start < len(begin):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + CHUNK, side="right")))
        counts = lengths[start:stop]
        number = np.repeat(np.arange(start, stop), counts)
        offset = np.arange(len(number)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield number, begin[number] + offset
        start = stop
