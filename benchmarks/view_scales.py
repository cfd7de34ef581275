"""Standard deviation of each raw noise view, the source of VIEW_STD in qma_net/modeling/noise.py.

    python -m benchmarks.view_scales [--noiseprint noiseprint++.th] [--photos DIR] [--picture PNG]

Every photo is cropped to the central 256x256 pixels and saved as JPEG with quality 90. Bayar's
kernels are learned, so its value is the mean over 20 random initializations. For SRM, the share of
values that a truncation at +-3 gray levels would cut is printed as well. ``--picture`` draws the
views of a splice.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from qma_net.demo import DEMO_RECIPE, copy_packaged_photos
from qma_net.modeling.noise import SRM, VIEW_STD, Bayar, NoisePrint
from qma_net.synth.manipulate import manipulate
from qma_net.synth.photographs import Photographs, list_photos
from qma_net.weights.sources import load_noiseprint


def main() -> None:
    """Print the standard deviations and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--noiseprint", default="")
    parser.add_argument("--photos", default="")
    parser.add_argument("--picture", default="")
    args = parser.parse_args()
    torch.manual_seed(0)
    noiseprint = NoisePrint() if args.noiseprint else None
    if noiseprint:
        load_noiseprint(noiseprint, args.noiseprint)
    with tempfile.TemporaryDirectory() as folder:
        folder = args.photos or copy_packaged_photos(Path(folder))
        photos = [cv2.imread(str(path)) for path in list_photos(folder)]
        if args.picture:
            draw(Path(folder), noiseprint, args.picture)
    crops = torch.stack([crop(photo) for photo in photos if min(photo.shape[:2]) >= 256])
    print(f"{len(crops)} photos")
    with torch.no_grad():
        residuals = SRM()(crops)
        report("srm", residuals.std())
        print(f"srm: {(residuals.abs() > 3).float().mean():.1%} of the values are beyond +-3")
        report("bayar", torch.stack([Bayar()(crops).std() for _ in range(20)]).mean())
        if noiseprint:
            prints = torch.cat([noiseprint(crop[None] * 255 / 256) for crop in crops])
            report("noiseprint", prints.std())


def crop(photo: np.ndarray) -> torch.Tensor:
    """Return the center of a BGR photo, saved as JPEG, as RGB ``(3, 256, 256)`` in 0..1."""
    y, x = ((side - 256) // 2 for side in photo.shape[:2])
    data = cv2.imencode(".jpg", photo[y : y + 256, x : x + 256], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    rgb = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return torch.from_numpy(rgb).permute(2, 0, 1) / 255


def report(view: str, std: torch.Tensor) -> None:
    """Print the standard deviation of a view next to the constant in use."""
    print(f"{view}: standard deviation {std.item():.3f}, VIEW_STD {VIEW_STD[view]}")


@torch.no_grad()
def draw(folder: Path, noiseprint: NoisePrint | None, path: str) -> None:
    """Draw the views of a splice with a noisy, uncompressed donor and a host compressed twice."""
    from matplotlib.figure import Figure

    names = [str(name.relative_to(folder)) for name in list_photos(folder)]
    recipe = replace(DEMO_RECIPE, image_size=256, zoom=(0.5, 0.6), host_quality=(70, 70))
    rng = np.random.default_rng(23)
    image, mask, _ = manipulate(rng, "splice", Photographs(folder, names), recipe)
    rgb = torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)[None] / 255
    panels = {"image": rgb, "ground truth": torch.from_numpy(mask)[None, None] / 255}
    panels["SRM"] = as_picture(SRM()(rgb))
    panels["Bayar (untrained)"] = as_picture(Bayar()(rgb))
    if noiseprint:
        panels["NoisePrint++"] = as_picture(noiseprint(rgb * 255 / 256))
    canvas = Figure(figsize=(2.2 * len(panels), 2.5), layout="constrained")
    for axes, (title, panel) in zip(canvas.subplots(1, len(panels)), panels.items(), strict=True):
        axes.imshow(panel[0].permute(1, 2, 0), cmap="gray")
        axes.set(title=title, xticks=[], yticks=[])
    canvas.savefig(path, dpi=80)


def as_picture(view: torch.Tensor) -> torch.Tensor:
    """Scale a view so that 0 is medium gray and +-2 standard deviations are white and black."""
    return (view / view.std() / 4 + 0.5).clamp(0, 1)


if __name__ == "__main__":
    main()
