"""Create the README's example image: a synthetic splice and the mask that qma-net-small predicts.

    python -m benchmarks.readme_example

Pastes the cup of scikit-image's ``coffee`` (CC0, Rachel Michetti) into ``astronaut`` (NASA, public
domain), runs ``qma-net predict`` on the result and writes photo, mask and overlay next to each
other to ``docs/images/example.png``. Prints the F1 score of the mask. Also writes the maps of the
queries for this photo to ``docs/images/query-maps.jpg``.
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from qma_net import cli
from qma_net.modeling.config import DEFAULT_THRESHOLD

OUT = Path(__file__).parents[1] / "docs/images/example.png"
QUERY_MAPS, QUERY_MAPS_WIDTH = OUT.with_name("query-maps.jpg"), 1040
HOST_QUALITY = 70  # The host has been compressed before; the cup has not.
CUP_BOX = (70, 10, 490, 392)  # In coffee: left, top, right, bottom.
CUP_ELLIPSES = ((7, 32, 408, 376), (100, 7, 338, 202))  # Saucer and cup, within CUP_BOX.
CUP_WIDTH = 160
CUP_POSITION = (350, 199)  # In astronaut.
PANEL = 352  # Side in pixels.


def make_splice(folder: Path) -> tuple[Path, np.ndarray]:
    """Create the spliced photo in a folder.

    Returns:
        The path of the photo and its ground truth, bool ``(H, W)``.
    """
    photo, host = folder / "photo.jpg", folder / "host.jpg"
    Image.fromarray(data.astronaut()).save(host, quality=HOST_QUALITY)
    spliced = Image.open(host).convert("RGB")
    cup = Image.fromarray(data.coffee()).crop(CUP_BOX)
    shape = Image.new("L", cup.size)
    for ellipse in CUP_ELLIPSES:
        ImageDraw.Draw(shape).ellipse(ellipse, fill=255)
    size = CUP_WIDTH, round(CUP_WIDTH * cup.height / cup.width)
    cup, shape = (image.resize(size, Image.Resampling.LANCZOS) for image in (cup, shape))
    spliced.paste(cup, CUP_POSITION, shape)
    spliced.save(photo, quality=95, subsampling=0)
    truth = Image.new("L", spliced.size)
    truth.paste(shape, CUP_POSITION)
    return photo, np.asarray(truth) > 127


def main() -> None:
    """Write the figures and print the F1 score."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo, truth = make_splice(folder)
        cli.main(["predict", str(photo), "--out", name])
        paths = (photo, folder / "photo_mask.png", folder / "photo_overlay.png")
        panels = [Image.open(path).convert("RGB") for path in paths]
        cli.main(["query-maps", str(photo), "--out", str(folder / "maps.png")])
        maps = Image.open(folder / "maps.png").convert("RGB")
        size = (QUERY_MAPS_WIDTH, round(QUERY_MAPS_WIDTH * maps.height / maps.width))
        maps.resize(size, Image.Resampling.LANCZOS).save(QUERY_MAPS, quality=80)
    marked = np.asarray(panels[1])[..., 0] > 255 * DEFAULT_THRESHOLD
    f1 = 2 * (marked & truth).sum() / (marked.sum() + truth.sum())
    figure = Image.new("RGB", (3 * PANEL + 16, PANEL), "white")
    for number, panel in enumerate(panels):
        side = (PANEL, PANEL)
        figure.paste(panel.resize(side, Image.Resampling.LANCZOS), (number * (PANEL + 8), 0))
    OUT.parent.mkdir(exist_ok=True)
    figure.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(OUT, optimize=True)
    print(f"{OUT}: F1 {f1:.3f}, {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
