"""Standard deviation of each raw noise view: where VIEW_STD of qma_net/modeling/noise.py is from.

    python -m benchmarks.view_scales [--noiseprint noiseprint++.th] [--photos DIR]

Every photograph is cropped to 256x256 in its middle and saved as JPEG 90. Bayar's kernels are
learnt, so its value is the mean over 20 random starts.
"""

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch

from qma_net.demo import packaged_photographs
from qma_net.modeling.noise import SRM, VIEW_STD, Bayar, NoisePrint
from qma_net.synth.photographs import find_photos
from qma_net.weights.sources import load_noiseprint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--noiseprint", default="")
    parser.add_argument("--photos", default="")
    args = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        photos = args.photos or packaged_photographs(Path(folder))
        photos = [cv2.imread(str(path)) for path in find_photos(photos)]
    crops = torch.stack([crop(photo) for photo in photos if min(photo.shape[:2]) >= 256])
    print(f"{len(crops)} photographs")
    with torch.no_grad():
        report("srm", SRM()(crops).std())
        report("bayar", torch.stack([Bayar()(crops).std() for _ in range(20)]).mean())
        if args.noiseprint:
            noiseprint = NoisePrint()
            load_noiseprint(noiseprint, args.noiseprint)
            prints = torch.cat([noiseprint(crop[None] * 255 / 256) for crop in crops])
            report("noiseprint", prints.std())


def crop(photo: np.ndarray) -> torch.Tensor:
    """The middle of a BGR photograph, saved as JPEG: RGB, ``(3, 256, 256)``, 0 to 1."""
    y, x = ((side - 256) // 2 for side in photo.shape[:2])
    data = cv2.imencode(".jpg", photo[y : y + 256, x : x + 256], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    rgb = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return torch.from_numpy(rgb).permute(2, 0, 1) / 255


def report(view: str, std: torch.Tensor) -> None:
    print(f"{view}: standard deviation {std.item():.3f}, VIEW_STD {VIEW_STD[view]}")


if __name__ == "__main__":
    main()
