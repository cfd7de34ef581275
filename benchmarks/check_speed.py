"""How much ``qma-net data check`` adds to decoding the same files, and what ``--fast`` costs.

    python -m benchmarks.check_speed --photos DIR [--files 2000] [--fast-files 100000]

Makes two Tp/Gt folders of real JPEG photographs and PNG masks in a temporary folder, and prints,
for one process and for one per core, the check's time beside that of opening and decoding the same
files in the same processes (medians of three, interleaved; files warm in the page cache): as one
training's, where no near-duplicates are looked for, and as two sets apart, where they are.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from qma_net.core.workers import available_cores, map_in_processes
from qma_net.data.check import check
from qma_net.synth.photographs import list_photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--fast-files", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        photos = list_photos(args.photos)
        sets = [folder / "train", folder / "test"]
        for one, some in zip(sets, (photos[::2], photos[1::2]), strict=True):
            make(one, some, args.files // 4)
        together = folder / "protocol.json"
        together.write_text(json.dumps([["ManiDataset", str(one)] for one in sets]))
        files = [path for one in sets for part in ("Tp", "Gt") for path in (one / part).iterdir()]
        print(
            "| processes | files | decoding alone (s) | check (s) | speed | leaks too (s) | speed |"
        )
        print("|---|---|---|---|---|---|---|")
        for workers in (1, available_cores()):
            times = {"decode": [], "check": [], "leaks": []}
            for _ in range(3):
                times["decode"].append(timed(decode_all, files, workers))
                times["check"].append(timed(check, [together], workers=workers, progress=False))
                times["leaks"].append(timed(check, sets, workers=workers, progress=False))
            alone, whole, leaks = (statistics.median(seconds) for seconds in times.values())
            print(
                f"| {workers} | {len(files)} | {alone:.2f} | {whole:.2f} | {alone / whole:.0%} "
                f"| {leaks:.2f} | {alone / leaks:.0%} |",
                flush=True,
            )
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make(folder, list_photos(args.photos), args.fast_files // 2, link=True)
        seconds = timed(check, [folder], fast=True, progress=False)
        print(f"\n--fast, {args.fast_files} files, {available_cores()} processes: {seconds:.1f} s")


def make(folder: Path, photos: list[Path], count: int, link: bool = False) -> None:
    """Fills Tp/ and Gt/; ``link`` makes hard links to a hundred files of each."""
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
        pixels[0, 0] = rng.integers(256, size=3)  # no two files alike
        Image.fromarray(pixels).save(image, quality=92)
        marked = np.zeros(pixels.shape[:2], np.uint8)
        y, x = (rng.integers(side // 2) for side in marked.shape)
        marked[y : y + 60, x : x + 80] = 255
        Image.fromarray(marked).save(mask)


def decode_all(files: list[Path], workers: int) -> None:
    """Decodes every file in processes like the check's."""
    for _ in map_in_processes(decode, None, files, workers, chunk=32):
        pass


def decode(_: None, file: Path) -> None:
    with Image.open(file) as image:
        image.load()


def timed(call, *args, **kwargs) -> float:
    start = time.perf_counter()
    call(*args, **kwargs)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
