"""What ``qma-net data check`` finds of photographs that were saved again, resized or cropped.

    python -m benchmarks.leaks --photos DIR

Prints, of the photographs in DIR: how many pairs of different ones are candidates by hash distance
and how they correlate; of each kind of copy, the largest distance, the smallest correlation and how
many copies are missed; all photographs named wrongly; and the cost of a thumbnail and of matching.
Copies are made in memory, crops from a fixed seed.
"""

import argparse
import io
import time
from collections.abc import Callable

import numpy as np
from PIL import Image
from tqdm import tqdm

from qma_net.data import near_duplicates
from qma_net.synth.photographs import list_photos

RANDOM = "random crop, up to 5 % a side"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", required=True)
    files = list_photos(parser.parse_args().photos)
    rng = np.random.default_rng(0)
    names = [str(file) for file in files]
    kinds = copies(rng)
    thumbnails = {kind: [] for kind in ("original", *kinds)}
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
    different(names, pixels["original"], hashes["original"])
    print(
        "\n| copy | largest distance | smallest correlation | missed | named wrongly "
        "| missed by the whole image's hash alone |"
    )
    print("|---|---|---|---|---|---|")
    count = len(files)
    for kind in kinds:
        both = np.concatenate([pixels["original"], pixels[kind]])
        alike = near_duplicates.correlations(both, np.arange(count), np.arange(count) + count)
        rows = [*thumbnails["original"], *thumbnails[kind]]
        found = list(near_duplicates.find_copies(rows, [0] * count + [1] * count))
        right = sum(copy == original + count for copy, original, _ in found)
        apart = distances(hashes["original"], hashes[kind]).max()
        whole = near_duplicates.bit_counts(hashes["original"][:, 0] ^ hashes[kind][:, 0])
        print(
            f"| {kind} | {apart} | {alike.min():.3f} | {count - right} of {count} "
            f"| {len(found) - right} | {(whole > near_duplicates.DISTANCE).sum()} |",
            flush=True,
        )
    print(f"\na thumbnail of a decoded photograph: {seconds / count * 1000:.2f} ms")


def copies(rng: np.random.Generator) -> dict[str, Callable[[Image.Image], Image.Image]]:
    """How a photograph is copied, by name."""
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
        ("left", (0.05, 0, 0, 0)),
        ("left and right", (0.05, 0, 0.05, 0)),
        ("left and above", (0.05, 0.05, 0, 0)),
        ("all but below", (0.05, 0.05, 0.05, 0)),
    ):
        kinds[f"cropped by 5.0% {name}"] = lambda photo, s=sides: cropped(photo, s)
    kinds[RANDOM] = lambda photo: cropped(photo, rng.uniform(0, 0.05, 4))
    kinds[f"{RANDOM}, resized by 0.7, JPEG 75"] = lambda photo: encoded(
        resized(cropped(photo, rng.uniform(0, 0.05, 4)), 0.7), "JPEG", quality=75
    )
    return kinds


def encoded(photo: Image.Image, kind: str, **options) -> Image.Image:
    file = io.BytesIO()
    photo.save(file, format=kind, **options)
    return Image.open(file).convert("RGB")


def resized(photo: Image.Image, scale: float) -> Image.Image:
    size = tuple(max(1, round(side * scale)) for side in photo.size)
    return photo.resize(size, Image.Resampling.BICUBIC)


def cropped(photo: Image.Image, sides) -> Image.Image:
    """Without these shares of the left, upper, right and lower side."""
    (width, height), (left, above, right, below) = photo.size, sides
    return photo.crop(
        (
            round(width * left),
            round(height * above),
            width - round(width * right),
            height - round(height * below),
        )
    )


def as_pixels(thumbnails: list[bytes]) -> np.ndarray:
    side = near_duplicates.THUMBNAIL
    return np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, side, side)


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The distance that decides: the smallest between a whole image and a crop of the other."""
    ways = [first ^ second[:, :1], first[:, :1] ^ second]
    counts = near_duplicates.bit_counts(np.concatenate(ways, axis=1).ravel())
    return counts.reshape(len(first), -1).min(axis=1)


def different(names: list[str], pixels: np.ndarray, hashes: np.ndarray) -> None:
    """Prints how near different photographs come."""
    rows, columns = np.triu_indices(len(names), 1)
    apart = np.concatenate(
        [distances(hashes[i : i + 1].repeat(len(names) - i - 1, 0), hashes[i + 1 :])
         for i in range(len(names) - 1)]
    )  # fmt: skip
    print(f"{len(names)} photographs, {len(rows)} pairs of different ones")
    print("\n| distance of at most | pairs | whose correlation is at most |\n|---|---|---|")
    for most in (6, 8, 10, 12, 14):
        near = np.flatnonzero(apart <= most)
        alike = near_duplicates.correlations(pixels, rows[near], columns[near])
        print(f"| {most} | {len(near)} | {alike.max(initial=0):.3f} |")
    near = np.flatnonzero(apart <= near_duplicates.DISTANCE)
    alike = near_duplicates.correlations(pixels, rows[near], columns[near])
    print(
        f"\nfalse alarms (distance {near_duplicates.DISTANCE}, correlation {near_duplicates.CORRELATION}): ",
        end="",
    )
    wrong = np.flatnonzero(alike >= near_duplicates.CORRELATION)
    print(len(wrong), *(f"{names[rows[near[i]]]} = {names[columns[near[i]]]}" for i in wrong))
    top = alike.argmax()
    print(f"the most alike: {names[rows[near[top]]]} and {names[columns[near[top]]]}")


if __name__ == "__main__":
    main()
