"""The same photograph in two datasets, saved again, resized or lightly cropped.

Of every image the pass over the files keeps a thumbnail. A perceptual hash (pHash: the signs of a
thumbnail's 8x8 lowest cosine frequencies about their median) of the whole and of five crops finds
candidates, by a table of its four quarters and not by comparing all with all. A candidate is a
copy if one thumbnail, cropped by up to 5 % a side, correlates with the other: hashes alone confuse
different photographs as soon as there are some thousand.

Turned, mirrored and further cropped copies are not found, nor are images of one tone.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from PIL import Image

THUMBNAIL = 32  # side in pixels

# Measured on 1,048 photographs by `python -m benchmarks.leaks`.
DISTANCE = 12  # bits of 64: more, and a pair is no candidate
LIKELY = 0.6  # correlation at one of the crops below: less, and no closer look is taken
CORRELATION = 0.85  # at the best crop: less, and a candidate is another photograph
FLAT = 2.0  # deviation in grey levels: what has less shows nothing to be known by

# Shares cut off left, above, right and below; the whole image first.
CROPS = (
    (0, 0, 0, 0),
    (0.04, 0.04, 0.04, 0.04),
    (0.05, 0.05, 0, 0),
    (0, 0.05, 0.05, 0),
    (0.05, 0, 0, 0.05),
    (0, 0, 0.05, 0.05),
)
CUTS = np.linspace(0, 0.05, 5)  # shares of a side that are tried on a candidate

FREQUENCIES = 8
BANDS, BAND_BITS = 4, 16
# What is tried in each quarter of a hash. Of 11 wrong bits one quarter has two or fewer; of pairs
# with 12, three in each quarter, which are passed over, are one in 30.
FLIPS = np.array(
    [sum(1 << bit for bit in bits) for n in range(3) for bits in combinations(range(BAND_BITS), n)]
)
CHUNK = 4_000_000  # pairs of hashes compared at once
BIT_COUNTS = np.array([i.bit_count() for i in range(1 << 16)], np.uint8)


def thumbnail_of(image: Image.Image) -> bytes:
    """A decoded image as 32x32 grey bytes, whatever its sides; empty for one of one tone."""
    if image.mode.startswith(("I", "F")):
        deep = np.asarray(image, np.float32)
        image = Image.fromarray((deep * (255 / max(deep.max(), 1))).clip(0, 255).astype(np.uint8))
    elif image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    side = (THUMBNAIL, THUMBNAIL)
    small = image.resize(side, Image.Resampling.BILINEAR, reducing_gap=3.0).convert("L")
    return small.tobytes() if np.asarray(small).std() >= FLAT else b""


def find_copies(thumbnails: Sequence[bytes], groups: Sequence[int]) -> Iterator[tuple]:
    """For each image the photograph of an earlier group that it is a copy of, if there is one.

    Args:
        thumbnails: by :func:`thumbnail_of`, none empty.
        groups: which of the groups 0, 1, ... each belongs to; within a group nothing is compared.

    Yields:
        Index of the copy, index of the image of an earlier group, and their correlation.
    """
    pixels = np.frombuffer(b"".join(thumbnails), np.uint8)
    pixels = pixels.reshape(-1, THUMBNAIL, THUMBNAIL)
    hashes, groups = perceptual_hashes(pixels), np.asarray(groups)
    for group in range(1, max(groups, default=0) + 1):
        before, here = np.flatnonzero(groups < group), np.flatnonzero(groups == group)
        pairs = candidates(hashes[before], hashes[here])
        first, second = before[pairs[:, 0]], here[pairs[:, 1]]
        likeness = correlations(pixels, first, second)
        order = np.lexsort((first, -likeness, second))
        order = order[likeness[order] >= CORRELATION]
        _, best = np.unique(second[order], return_index=True)
        for i in order[best]:
            yield int(second[i]), int(first[i]), float(likeness[i])


def perceptual_hashes(pixels: np.ndarray) -> np.ndarray:
    """The hash of each of :data:`CROPS`: uint8 ``(N, 32, 32)`` to uint64 ``(N, 6)``."""
    cosines = np.cos(
        np.pi * np.arange(FREQUENCIES)[:, None] * (np.arange(THUMBNAIL) + 0.5) / THUMBNAIL
    ).astype(np.float32)
    hashes = np.zeros((len(pixels), len(CROPS)), np.uint64)
    places = np.arange(FREQUENCIES**2, dtype=np.uint64)
    # Neighbouring frequencies go to different quarters, which are so equally informative.
    places = places % BANDS * BAND_BITS + places // BANDS
    for start in range(0, len(pixels), 4096):
        some = pixels[start : start + 4096].astype(np.float32)
        for column, (left, above, right, below) in enumerate(CROPS):
            rows, columns = (cosines @ _cropping(*cut) for cut in ((above, below), (left, right)))
            waves = (rows @ some @ columns.T).reshape(len(some), -1)
            bits = waves > np.median(waves, axis=1, keepdims=True)
            hashes[start : start + 4096, column] = (bits.astype(np.uint64) << places).sum(axis=1)
    return hashes


def candidates(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pairs of images of which a crop of one has nearly the hash of the other.

    Args:
        first, second: hashes, uint64 ``(N, 6)`` and ``(M, 6)``.

    Returns:
        Indices into both, ``(K, 2)``, each pair once. Of images in ``first`` with one hash only the
        first counts.
    """
    crops = first.shape[1]
    if not len(first) or not len(second):
        return np.zeros((0, 2), int)
    of_first = _close(first.ravel(), second[:, 0]) // (crops, 1)
    of_second = _close(first[:, 0], second[:, 1:].ravel()) // (1, crops - 1)
    return np.unique(np.concatenate([of_first, of_second]), axis=0)


def correlations(pixels: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How alike the two thumbnails of each pair are when either may be a light crop of the other.

    Args:
        pixels: thumbnails, uint8 ``(N, 32, 32)``.
        first, second: indices ``(K,)``.

    Returns:
        Pearson's correlation at the best crop found, ``(K,)``; 0 below :data:`LIKELY`.
    """
    alike = np.zeros(len(first))
    for start in range(0, len(first), 1024):
        one, other = (
            pixels[index[start : start + 1024]].astype(np.float32) for index in (first, second)
        )
        rough = np.maximum(_at_crops(one, other), _at_crops(other, one))
        likely = np.flatnonzero(rough >= LIKELY)
        one, other = one[likely], other[likely]
        alike[start + likely] = np.maximum(_as_crop(one, other), _as_crop(other, one))
    return alike


def _cropping(before: float, after: float) -> np.ndarray:
    """The matrix ``(32, 32)`` that cuts shares off both ends of 32 samples and samples the rest."""
    at = (np.arange(THUMBNAIL) + 0.5) * (1 - before - after) + THUMBNAIL * before - 0.5
    at = at.clip(0, THUMBNAIL - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(THUMBNAIL))).astype(np.float32)


def _as_crop(whole: np.ndarray, crop: np.ndarray) -> np.ndarray:
    """Correlation of ``crop`` with the best crop of ``whole``; float32 ``(K, 32, 32)`` to ``(K,)``.

    Columns and rows are searched in turn, twice.
    """
    cuts = np.stack([_cropping(before, after) for before in CUTS for after in CUTS])
    wanted = _normalised(crop)
    rows = np.zeros(len(whole), int)
    for _ in range(2):
        fitted = cuts[rows] @ whole
        columns, _ = _best(fitted.transpose(0, 2, 1), cuts, wanted.transpose(0, 2, 1))
        fitted = whole @ cuts[columns].transpose(0, 2, 1)
        rows, best = _best(fitted, cuts, wanted)
    return best


def _at_crops(whole: np.ndarray, crop: np.ndarray) -> np.ndarray:
    """As :func:`_as_crop`, of :data:`CROPS` only."""
    wanted, best = _normalised(crop), np.full(len(whole), -1.0)
    for left, above, right, below in CROPS:
        tried = _cropping(above, below) @ whole @ _cropping(left, right).T
        best = np.maximum(best, (_normalised(tried) * wanted).sum(axis=(1, 2)))
    return best


def _normalised(images: np.ndarray) -> np.ndarray:
    """``(K, 32, 32)`` of mean 0 and sum of squares 1."""
    images = images - images.mean(axis=(1, 2), keepdims=True)
    return images / (np.sqrt((images**2).sum(axis=(1, 2), keepdims=True)) + 1e-6)


def _best(images: np.ndarray, cuts: np.ndarray, wanted: np.ndarray) -> tuple:
    """Which cut of the rows of each image correlates best with what is wanted, and how much."""
    tried = (cuts @ images[:, None]).reshape(len(images), len(cuts), -1)  # (K, C, 32 * 32)
    alike = (tried @ wanted.reshape(len(images), -1, 1))[..., 0]
    alike /= tried.std(axis=2) * THUMBNAIL + 1e-6
    best = alike.argmax(axis=1)
    return best, np.take_along_axis(alike, best[:, None], axis=1)[:, 0]


def _close(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pairs of hashes at most :data:`DISTANCE` apart: indices ``(K, 2)``, some of them twice."""
    first, first_at = np.unique(first, return_index=True)
    second, copies = np.unique(second, return_inverse=True)
    swapped = len(first) > len(second)
    asked, table = (second, first) if swapped else (first, second)
    found = []
    for band in range(BANDS):
        shift = np.uint64(band * BAND_BITS)
        keys, known = (((one >> shift) & np.uint64(0xFFFF)).astype(int) for one in (asked, table))
        order = np.argsort(known, kind="stable")
        starts = np.searchsorted(known[order], np.arange((1 << BAND_BITS) + 1))
        for flip in FLIPS:
            begin = starts[keys ^ flip]
            lengths = starts[(keys ^ flip) + 1] - begin
            for one, many in _expanded(begin, lengths):
                apart = bit_counts(asked[one] ^ table[order[many]])
                near = apart <= DISTANCE
                found.append(np.stack([one[near], order[many[near]]], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    pairs = pairs[:, ::-1] if swapped else pairs
    # back from distinct hashes to images: the first of the first, all of the second
    by_hash = np.argsort(copies, kind="stable")
    counts = np.bincount(copies, minlength=len(second))
    begin = (np.cumsum(counts) - counts)[pairs[:, 1]]
    rows = [
        np.stack([first_at[pairs[one, 0]], by_hash[many]], axis=1)
        for one, many in _expanded(begin, counts[pairs[:, 1]])
    ]
    return np.concatenate(rows) if rows else np.zeros((0, 2), int)


def _expanded(begin: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ranges written out: the number of the range and each of its members, in chunks."""
    ends = np.cumsum(lengths)
    start = 0
    while start < len(begin):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + CHUNK, side="right")))
        counts = lengths[start:stop]
        one = np.repeat(np.arange(start, stop), counts)
        offsets = np.arange(len(one)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield one, begin[one] + offsets
        start = stop


def bit_counts(numbers: np.ndarray) -> np.ndarray:
    """How many bits of each uint64 are set."""
    return BIT_COUNTS[numbers.view(np.uint16).reshape(-1, 4)].sum(axis=1)
