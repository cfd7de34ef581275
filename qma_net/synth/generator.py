"""Generation of any image of a synthetic dataset from its index."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from .camera import encode_final, encode_png
from .manipulate import manipulate
from .photographs import Photographs
from .recipe import AUTHENTIC, KINDS, SIDES, Recipe


class ImageGenerator:
    """Generates any image of a dataset.

    Args:
        photos: Folder of the photos.
        labels: Folder of the label maps, or None.
        settings: The content of ``settings.json``: the photos of each side, their label maps, the
            seed and the recipe.
    """

    def __init__(
        self,
        photos: str | os.PathLike[str],
        labels: str | os.PathLike[str] | None,
        settings: dict[str, Any],
    ):
        self.recipe = Recipe(**settings["recipe"])
        self.seed = settings["seed"]
        self.sides = {
            side: Photographs(photos, names, labels, settings["labels"])
            for side, names in settings["photos"].items()
        }

    def generate(self, side: str, index: int) -> tuple[bytes, bytes | None, dict[str, Any]]:
        """Generate an image.

        Args:
            side: ``"train"`` or ``"test"``.
            index: Number of the image on this side.

        Returns:
            The bytes of the image file, those of the mask's PNG file (None for an authentic
            image), and the row of the manifest.
        """
        rng = np.random.default_rng([self.seed, SIDES.index(side), index])
        kind = kind_at(side, index, self.recipe)
        data, mask, history = generate_image(rng, kind, self.sides[side], self.recipe)
        suffix = "jpg" if history["final_quality"] else "png"
        row = {
            "side": side,
            "index": index,
            "seed": self.seed,
            "name": f"{kind}_{index:05d}.{suffix}",
            "kind": kind,
            "size": list(mask.shape),
            "area": float((mask > 0).mean()),
            **history,
        }
        return data, None if kind == AUTHENTIC else encode_png(mask), row

    def write(self, folder: Path, side: str, index: int) -> dict[str, Any]:
        """Write an image and its mask to the folder of a dataset; return its manifest row."""
        image, mask, row = self.generate(side, index)
        image_path, *mask_path = output_paths(row)
        (folder / image_path).write_bytes(image)
        if mask is not None:
            (folder / mask_path[0]).write_bytes(mask)
        return row


def generate_image(
    rng: np.random.Generator, kind: str, photographs: Photographs, recipe: Recipe
) -> tuple[bytes, np.ndarray, dict[str, Any]]:
    """Generate an image of a kind; see :func:`~qma_net.synth.manipulate.manipulate`.

    Returns:
        The bytes of its file, its mask (uint8 ``(H, W)`` of 0 and 255), and its history.
    """
    image, mask, history = manipulate(rng, kind, photographs, recipe)
    data, drawn = encode_final(rng, image, recipe)
    return data, mask, {"kind": kind, **history, **drawn}


def kind_at(side: str, index: int, recipe: Recipe) -> str:
    """Determine the kind of an image from its index: one of ``KINDS`` or ``AUTHENTIC``.

    Kinds are mixed evenly, so the beginning of a dataset has the same shares as all of it. Kinds of
    training images follow the multiples of the golden ratio; those of test images take turns.
    """
    authentic_before, authentic = (
        math.floor(recipe.untouched * number + 0.5) for number in (index, index + 1)
    )
    if authentic > authentic_before:
        return AUTHENTIC
    manipulated = index - authentic_before
    if side == "test":
        return KINDS[manipulated % len(KINDS)]
    golden = (math.sqrt(5) - 1) / 2
    shares = np.cumsum(recipe.kinds) / np.sum(recipe.kinds)
    return KINDS[int(np.searchsorted(shares[:-1], manipulated * golden % 1, side="right"))]


def write_image(shared: tuple[ImageGenerator, Path], image: tuple[str, int]) -> dict[str, Any]:
    """Write one image in a worker process.

    Args:
        shared: The generator and the folder of the dataset.
        image: Side and index.

    Returns:
        The row of the manifest.
    """
    generator, folder = shared
    side, index = image
    return generator.write(folder, side, index)


def output_paths(row: dict[str, Any]) -> list[str]:
    """List the files of a manifest row relative to the folder: the image and the mask, if any."""
    side, name = row["side"], row["name"]
    if row["kind"] == AUTHENTIC:
        return [f"{side}/Au/{name}"]
    return [f"{side}/Tp/{name}", f"{side}/Gt/{Path(name).stem}.png"]
