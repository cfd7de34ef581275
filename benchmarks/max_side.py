"""Measure how much ``data prepare --max-side 1024`` speeds up BenCo's data loader.

    python -m benchmarks.max_side --photos DIR [--images 24] [--size 4000x3000] [--max-side 1024]

Enlarges photos to ``--size``, adds noise like that of a camera and saves them as JPEG 92. It
prepares the set twice, as published and downscaled, and reads both with BenCo's ManiDataset,
resized to 512x512 with BenCo's training augmentation, in one process and in a DataLoader with one
worker per core. It prints images per second: medians of three interleaved passes with files in the
page cache.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from torch.utils.data import DataLoader

from qma_net.core.workers import available_cores
from qma_net.data.prepare import prepare
from qma_net.synth.photographs import list_photos


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", required=True, metavar="DIR")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--size", default="4000x3000", help="width x height")
    parser.add_argument("--max-side", type=int, default=1024)
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_imd2020(folder / "source", list_photos(args.photos)[: args.images], (width, height))
        start = time.perf_counter()
        for name, max_side in (("as published", 0), ("reduced", args.max_side)):
            prepare("IMD2020", folder / "source", folder / name, max_side=max_side, progress=False)
            print(f"prepared {name}: {time.perf_counter() - start:.1f} s, including the check")
            start = time.perf_counter()
        print(
            f"\n{args.images} JPEGs of {args.size}, --max-side {args.max_side}, "
            f"{available_cores()} cores\n"
        )
        print("| worker processes | as published (images/s) | reduced (images/s) | speed-up |")
        print("|---|---|---|---|")
        for workers in (0, available_cores()):
            speeds: dict[str, list[float]] = {"as published": [], "reduced": []}
            for _ in range(3):
                for name, measured in speeds.items():
                    measured.append(images_per_second(folder / name, workers))
            before, after = map(statistics.median, speeds.values())
            row = f"| {workers or 'none'} | {before:.2f} | {after:.2f} |"
            print(f"{row} {after / before:.1f}x |", flush=True)


def write_imd2020(folder: Path, photos: list[Path], size: tuple[int, int]) -> None:
    """Write photo-sized images and masks in the layout of IMD2020."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 4, (size[1], size[0], 3)).astype(np.float32)
    for i, photo in enumerate(photos):
        image = cv2.resize(cv2.imread(str(photo)), size, interpolation=cv2.INTER_CUBIC)
        image = np.clip(image + np.roll(noise, 37 * i, axis=0), 0, 255).astype(np.uint8)
        mask = np.zeros(size[::-1], np.uint8)
        mask[size[1] // 4 : size[1] // 2, size[0] // 4 : size[0] // 2] = 255
        target = folder / f"IMD2020/{i:04d}"
        target.mkdir(parents=True)
        cv2.imwrite(str(target / f"{i:04d}_0.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        cv2.imwrite(str(target / f"{i:04d}_0_mask.png"), mask)


def images_per_second(folder: Path, workers: int) -> float:
    """Read BenCo's training set once with a DataLoader of ``workers`` processes."""
    from IMDLBenCo.datasets import ManiDataset
    from IMDLBenCo.transforms import get_albu_transforms

    data = ManiDataset(
        str(folder),
        is_resizing=True,
        output_size=(512, 512),
        common_transforms=get_albu_transforms("train"),
    )
    loader = DataLoader(data, batch_size=4, num_workers=workers)
    start = time.perf_counter()
    images = sum(len(batch["name"]) for batch in loader)
    return images / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
