"""Measure the cost of ``qma-net data check`` relative to decoding the same files.

    python -m benchmarks.check_speed --photos DIR [--files 2000] [--fast-files 100000]

Creates two Tp/Gt folders of JPEG photos and PNG masks in a temporary folder and checks them twice:
as the sets of one protocol, which are not searched for near-duplicates, and as separate sets, which
are. The time is compared with that of only decoding the files, for one process and for one per
core. Prints medians of three interleaved runs with files in the page cache, and then the time of
``--fast``.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from qma_net.core.files import write_json
from qma_net.core.workers import available_cores, map_in_processes
from qma_net.data.check import check
from qma_net.synth.photographs import list_photos


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", required=True, metavar="DIR")
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--fast-files", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photos = list_photos(args.photos)
        sets = [folder / "train", folder / "test"]
        for path, half in zip(sets, (photos[::2], photos[1::2]), strict=True):
            write_dataset(path, half, args.files // 4)
        protocol = folder / "protocol.json"
        write_json(protocol, [["ManiDataset", str(path)] for path in sets])
        files = [file for path in sets for part in ("Tp", "Gt") for file in (path / part).iterdir()]
        print(
            "| processes | files | decoding only (s) | check (s) | relative speed "
            "| with near-duplicates (s) | relative speed |"
        )
        print("|---|---|---|---|---|---|---|")
        for workers in (1, available_cores()):
            runs: list[tuple[float, float, float]] = []
            for _ in range(3):
                runs.append(
                    (
                        seconds_of(decode_all, files, workers),
                        seconds_of(check, [protocol], workers=workers, progress=False),
                        seconds_of(check, sets, workers=workers, progress=False),
                    )
                )
            decoding, checking, leaks = map(statistics.median, zip(*runs, strict=True))
            print(
                f"| {workers} | {len(files)} | {decoding:.2f} | {checking:.2f} "
                f"| {decoding / checking:.0%} | {leaks:.2f} | {decoding / leaks:.0%} |",
                flush=True,
            )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_dataset(folder, list_photos(args.photos), args.fast_files // 2, link=True)
        seconds = seconds_of(check, [folder], fast=True, progress=False)
        print(f"\n--fast, {args.fast_files} files, {available_cores()} processes: {seconds:.1f} s")


def write_dataset(folder: Path, photos: list[Path], count: int, *, link: bool = False) -> None:
    """Fill Tp/ and Gt/. With ``link``, most files are hard links to a hundred different ones."""
    for part in ("Tp", "Gt"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        image, mask = folder / f"Tp/{i:06d}.jpg", folder / f"Gt/{i:06d}.png"
        if link and i >= 100:
            os.link(folder / f"Tp/{i % 100:06d}.jpg", image)
            os.link(folder / f"Gt/{i % 100:06d}.png", mask)
            continue
        photo = Image.open(photos[i % len(photos)]).convert("RGB")
        pixels = np.asarray(photo).copy()
        pixels[0, 0] = rng.integers(256, size=3)  # Every file is different.
        Image.fromarray(pixels).save(image, quality=92)
        tampered = np.zeros(pixels.shape[:2], np.uint8)
        y, x = (rng.integers(side // 2) for side in tampered.shape)
        tampered[y : y + 60, x : x + 80] = 255
        Image.fromarray(tampered).save(mask)


def decode_all(files: list[Path], workers: int) -> None:
    """Decode every file in the same kind of processes as the check."""
    for _ in map_in_processes(decode, None, files, workers, chunk=32):
        pass


def decode(_: None, file: Path) -> None:
    """Decode one file."""
    with Image.open(file) as image:
        image.load()


def seconds_of(function: Callable, *args: object, **kwargs: object) -> float:
    """Return the duration of a call in seconds."""
    start = time.perf_counter()
    function(*args, **kwargs)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
