"""Measure which copies of photos ``qma-net data check`` reports as near-duplicates.

    python -m benchmarks.leaks --photos DIR

For the photos in DIR, it prints how many pairs of different photos have a small hash distance, and
their correlation. For every kind of copy, it prints the largest distance, the smallest correlation,
the number of missed copies, and the number of copies assigned to the wrong original. Finally, it
prints the time to compute a thumbnail. Copies are made in memory; random crops have a fixed seed.
"""

import argparse
import io
import time
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from tqdm import tqdm

from qma_net.data import near_duplicates
from qma_net.synth.photographs import list_photos

RANDOM = "random crop, up to 5% per side"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", required=True, metavar="DIR")
    files = list_photos(parser.parse_args().photos)
    rng = np.random.default_rng(0)
    names = [str(file) for file in files]
    kinds = copies(rng)
    thumbnails: dict[str, list[bytes]] = {kind: [] for kind in ("original", *kinds)}
    seconds = 0.0
    for file in tqdm(files):
        with Image.open(file) as opened:
            photo = opened.convert("RGB")
        start = time.perf_counter()
        thumbnails["original"].append(near_duplicates.thumbnail_of(photo))
        seconds += time.perf_counter() - start
        for kind, make in kinds.items():
            thumbnails[kind].append(near_duplicates.thumbnail_of(make(photo)))
    pixels = {kind: as_pixels(rows) for kind, rows in thumbnails.items()}
    hashes = {kind: near_duplicates.perceptual_hashes(rows) for kind, rows in pixels.items()}
    print_different_pairs(names, pixels["original"], hashes["original"])
    print(
        "\n| copy | largest distance | smallest correlation | missed | wrong original "
        "| missed with only the whole image's hash |"
    )
    print("|---|---|---|---|---|---|")
    count = len(files)
    for kind in kinds:
        both = np.concatenate([pixels["original"], pixels[kind]])
        correlation = near_duplicates.correlations(both, np.arange(count), np.arange(count) + count)
        rows = [*thumbnails["original"], *thumbnails[kind]]
        matches = list(near_duplicates.find_copies(rows, [0] * count + [1] * count))
        correct = sum(copy == original + count for copy, original, _ in matches)
        distance = distances(hashes["original"], hashes[kind]).max()
        whole = near_duplicates.bit_counts(hashes["original"][:, 0] ^ hashes[kind][:, 0])
        print(
            f"| {kind} | {distance} | {correlation.min():.3f} | {count - correct} of {count} "
            f"| {len(matches) - correct} | {(whole > near_duplicates.DISTANCE).sum()} |",
            flush=True,
        )
    print(f"\ntime for the thumbnail of a decoded photo: {seconds / count * 1000:.2f} ms")


def copies(rng: np.random.Generator) -> dict[str, Callable[[Image.Image], Image.Image]]:
    """Return functions that copy a photo, by description."""
    kinds = {
        f"JPEG {quality}": lambda photo, quality=quality: encoded(photo, "JPEG", quality=quality)
        for quality in (50, 75, 95)
    }
    kinds["PNG"] = lambda photo: encoded(photo, "PNG", compress_level=1)
    kinds["WebP 80"] = lambda photo: encoded(photo, "WEBP", quality=80, method=0)
    for scale in (0.5, 0.75, 1.25, 1.5):
        kinds[f"resized by {scale}"] = lambda photo, scale=scale: resized(photo, scale)
    for share in (0.01, 0.025, 0.05):
        sides = (share,) * 4
        kinds[f"cropped by {share:.1%} on every side"] = lambda photo, s=sides: cropped(photo, s)
    for name, sides in (
        ("on the left", (0.05, 0, 0, 0)),
        ("on the left and right", (0.05, 0, 0.05, 0)),
        ("on the left and top", (0.05, 0.05, 0, 0)),
        ("on all sides but the bottom", (0.05, 0.05, 0.05, 0)),
    ):
        kinds[f"cropped by 5.0% {name}"] = lambda photo, s=sides: cropped(photo, s)
    kinds[RANDOM] = lambda photo: cropped(photo, rng.uniform(0, 0.05, 4))
    kinds[f"{RANDOM}, resized by 0.7, JPEG 75"] = lambda photo: encoded(
        resized(cropped(photo, rng.uniform(0, 0.05, 4)), 0.7), "JPEG", quality=75
    )
    return kinds


def encoded(photo: Image.Image, kind: str, **options: int) -> Image.Image:
    """Encode and decode a photo."""
    file = io.BytesIO()
    photo.save(file, format=kind, **options)
    return Image.open(file).convert("RGB")


def resized(photo: Image.Image, scale: float) -> Image.Image:
    """Resize a photo by a factor."""
    width, height = (max(1, round(side * scale)) for side in photo.size)
    return photo.resize((width, height), Image.Resampling.BICUBIC)


def cropped(photo: Image.Image, sides: Sequence[float] | np.ndarray) -> Image.Image:
    """Remove shares of the photo on the left, top, right and bottom."""
    (width, height), (left, top, right, bottom) = photo.size, sides
    return photo.crop(
        (
            round(width * left),
            round(height * top),
            width - round(width * right),
            height - round(height * bottom),
        )
    )


def as_pixels(thumbnails: list[bytes]) -> np.ndarray:
    """Convert thumbnails to uint8 ``(N, 32, 32)``."""
    side = near_duplicates.THUMBNAIL
    return np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, side, side)


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the smallest distance between one whole image and any crop of the other."""
    differences = [first ^ second[:, :1], first[:, :1] ^ second]
    counts = near_duplicates.bit_counts(np.concatenate(differences, axis=1).ravel())
    return counts.reshape(len(first), -1).min(axis=1)


def print_different_pairs(names: list[str], pixels: np.ndarray, hashes: np.ndarray) -> None:
    """Print how similar different photos are."""
    rows, columns = np.triu_indices(len(names), 1)
    distance = np.concatenate(
        [distances(hashes[i : i + 1].repeat(len(names) - i - 1, 0), hashes[i + 1 :])
         for i in range(len(names) - 1)]
    )  # fmt: skip
    print(f"{len(names)} photos, {len(rows)} pairs of different photos")
    print("\n| maximum distance | pairs | largest correlation |\n|---|---|---|")
    for most in (6, 8, 10, 12, 14):
        near = np.flatnonzero(distance <= most)
        correlation = near_duplicates.correlations(pixels, rows[near], columns[near])
        print(f"| {most} | {len(near)} | {correlation.max(initial=0):.3f} |")
    near = np.flatnonzero(distance <= near_duplicates.DISTANCE)
    correlation = near_duplicates.correlations(pixels, rows[near], columns[near])
    pairs = [f"{names[rows[i]]} = {names[columns[i]]}" for i in near]
    wrong = np.flatnonzero(correlation >= near_duplicates.CORRELATION)
    limits = f"distance {near_duplicates.DISTANCE}, correlation {near_duplicates.CORRELATION}"
    print(f"\nfalse near-duplicates ({limits}): {len(wrong)}", *(pairs[i] for i in wrong))
    if pairs:
        print(f"most similar: {pairs[correlation.argmax()]}")


if __name__ == "__main__":
    main()
