"""Any image of a set from its number alone."""

import math
import os
from pathlib import Path

import numpy as np

from .camera import final_file, png_bytes
from .manipulate import manipulate
from .photographs import Photographs
from .recipe import KINDS, SIDES, UNTOUCHED, Recipe


class Maker:
    """Makes any image of a set.

    Args:
        photos: folder of the photographs.
        labels: folder of the label maps, or ``None``.
        settings: as in ``settings.json``: the photographs of each side, their label maps, the
            seed and the recipe.
    """

    def __init__(self, photos: str | os.PathLike, labels: str | os.PathLike | None, settings: dict):
        self.recipe = Recipe(**settings["recipe"])
        self.seed = settings["seed"]
        self.sides = {
            side: Photographs(photos, names, labels, settings["labels"])
            for side, names in settings["photos"].items()
        }

    def make(self, side: str, index: int) -> tuple[bytes, bytes | None, dict]:
        """Bytes of an image's file and of its mask's PNG file, and its row of the manifest.

        The mask of an untouched image is ``None``.
        """
        rng = np.random.default_rng([self.seed, SIDES.index(side), index])
        kind = kind_of(side, index, self.recipe)
        data, mask, history = make_image(rng, kind, self.sides[side], self.recipe)
        ending = "jpg" if history["final_quality"] else "png"
        row = {
            "side": side,
            "index": index,
            "seed": self.seed,
            "name": f"{kind}_{index:05d}.{ending}",
            "kind": kind,
            "size": list(mask.shape),
            "area": float((mask > 0).mean()),
            **history,
        }
        return data, None if kind == UNTOUCHED else png_bytes(mask), row

    def write(self, folder: Path, side: str, index: int) -> dict:
        """Writes one image and its mask into a set's folder; returns its row."""
        image, mask, row = self.make(side, index)
        for path, data in zip(paths_of(row), (image, mask), strict=False):
            (folder / path).write_bytes(data)
        return row


def make_image(
    rng: np.random.Generator, kind: str, photographs: Photographs, recipe: Recipe
) -> tuple[bytes, np.ndarray, dict]:
    """An image's file, its mask uint8 ``(H, W)`` of 0 and 255, and its history.

    Args: as of :func:`~qma_net.synth.manipulate.manipulate`.
    """
    image, mask, history = manipulate(rng, kind, photographs, recipe)
    data, drawn = final_file(rng, image, recipe)
    return data, mask, {"kind": kind, **history, **drawn}


def kind_of(side: str, index: int, recipe: Recipe) -> str:
    """One of ``KINDS`` or ``UNTOUCHED``, from the number alone: any first part of a set is mixed.

    Training images follow the recipe's shares by the golden ratio's multiples, which spread
    evenly; test images take turns.
    """
    untouched_before, untouched = (
        math.floor(recipe.untouched * number + 0.5) for number in (index, index + 1)
    )
    if untouched > untouched_before:
        return UNTOUCHED
    manipulated = index - untouched_before
    if side == "test":
        return KINDS[manipulated % len(KINDS)]
    golden = (math.sqrt(5) - 1) / 2
    shares = np.cumsum(recipe.kinds) / np.sum(recipe.kinds)
    return KINDS[int(np.searchsorted(shares[:-1], manipulated * golden % 1, side="right"))]


def write_image(shared: tuple[Maker, Path], image: tuple[str, int]) -> dict:
    """Writes one image of a set, for :func:`qma_net.core.workers.map_in_processes`.

    Args:
        shared: the set's maker, and its folder with its sub-folders.
        image: side and number.

    Returns:
        Its row of the manifest, once its files are written.
    """
    maker, folder = shared
    side, index = image
    return maker.write(folder, side, index)


def paths_of(row: dict) -> list[str]:
    """Image and, if it is manipulated, mask of a row, relative to the set's folder."""
    side, name = row["side"], row["name"]
    if row["kind"] == UNTOUCHED:
        return [f"{side}/Au/{name}"]
    return [f"{side}/Tp/{name}", f"{side}/Gt/{Path(name).stem}.png"]
