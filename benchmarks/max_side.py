"""How much ``data prepare --max-side 1024`` speeds up BenCo's loader.

    python -m benchmarks.max_side --photos DIR [--images 24] [--size 4000x3000] [--max-side 1024]

Enlarges photographs to ``--size`` with camera-like noise, saves them as JPEG 92, prepares the set
twice (as published, and reduced) and reads both through BenCo's ManiDataset with resizing to
512x512 and BenCo's training augmentation, in one process and in a DataLoader with one worker per
core: images per second, medians of three passes, interleaved, files warm in the page cache.
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--size", default="4000x3000", help="width x height")
    parser.add_argument("--max-side", type=int, default=1024)
    args = parser.parse_args()
    size = tuple(int(side) for side in args.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_imd2020(folder / "source", list_photos(args.photos)[: args.images], size)
        start = time.perf_counter()
        for name, max_side in (("as published", 0), ("reduced", args.max_side)):
            prepare("IMD2020", folder / "source", folder / name, max_side=max_side, progress=False)
            print(f"prepared {name}: {time.perf_counter() - start:.1f} s, check included")
            start = time.perf_counter()
        print(
            f"\n{args.images} JPEGs of {args.size}, --max-side {args.max_side}, "
            f"{available_cores()} cores\n"
        )
        print("| loader processes | as published (images/s) | reduced (images/s) | gain |")
        print("|---|---|---|---|")
        for workers in (0, available_cores()):
            speeds = {"as published": [], "reduced": []}
            for _ in range(3):
                for name, found in speeds.items():
                    found.append(images_per_second(folder / name, workers))
            before, after = (statistics.median(found) for found in speeds.values())
            row = f"| {workers or 'none beside'} | {before:.2f} | {after:.2f} |"
            print(f"{row} {after / before:.1f}x |", flush=True)


def make_imd2020(folder: Path, photos: list[Path], size: tuple[int, int]) -> None:
    """A miniature of IMD2020's layout with images of a camera's size, and their masks."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 4, (size[1], size[0], 3)).astype(np.float32)
    for i, photo in enumerate(photos):
        image = cv2.resize(cv2.imread(str(photo)), size, interpolation=cv2.INTER_CUBIC)
        image = np.clip(image + np.roll(noise, 37 * i, axis=0), 0, 255).astype(np.uint8)
        mask = np.zeros(size[::-1], np.uint8)
        mask[size[1] // 4 : size[1] // 2, size[0] // 4 : size[0] // 2] = 255
        place = folder / f"IMD2020/{i:04d}"
        place.mkdir(parents=True)
        cv2.imwrite(str(place / f"{i:04d}_0.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        cv2.imwrite(str(place / f"{i:04d}_0_mask.png"), mask)


def images_per_second(folder: Path, workers: int) -> float:
    """One pass of BenCo's training set through a DataLoader of so many processes."""
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
