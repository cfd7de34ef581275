"""Any image of a set from its number, written by one process or several."""

import math
import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
import numpy as np

from .camera import _finished, _png
from .manipulate import manipulate
from .photographs import Photographs
from .recipe import KINDS, SIDES, UNTOUCHED, Recipe, SynthesisError

CHUNK = 8  # images handed to a worker at once


class Maker:
    """Makes any image of a set.

    Args:
        photos: folder of photographs.
        labels: folder of label maps, or ``None``.
        settings: as in ``settings.json``: the photographs of each side, their label maps, the
            seed and the recipe.
    """

    def __init__(self, photos, labels, settings: dict):
        self.recipe = Recipe(**settings["recipe"])
        self.seed = settings["seed"]
        self.sides = {
            side: Photographs(photos, names, labels, settings["labels"])
            for side, names in settings["photos"].items()
        }

    def make(self, side: str, index: int) -> tuple[bytes, bytes | None, dict]:
        """Bytes of the JPEG image, of the PNG mask (``None``: untouched), row of the manifest."""
        rng = np.random.default_rng([self.seed, SIDES.index(side), index])
        kind = kind_of(side, index, self.recipe)
        image, mask, history = manipulate(rng, kind, self.sides[side], self.recipe)
        data, ending = _finished(rng, image, self.recipe)
        row = {
            "side": side,
            "index": index,
            "seed": self.seed,
            "name": f"{kind}_{index:05d}.jpg",
            "kind": kind,
            "size": list(mask.shape),
            "area": float((mask > 0).mean()),
            **history,
            **ending,
        }
        return data, None if kind == UNTOUCHED else _png(mask), row

    def write(self, folder: Path, side: str, index: int) -> dict:
        """Writes one image and its mask into a set's folder; returns its row."""
        image, mask, row = self.make(side, index)
        for path, data in zip(_paths(row), (image, mask), strict=False):
            (folder / path).write_bytes(data)
        return row


def kind_of(side: str, index: int, recipe: Recipe) -> str:
    """What is done to an image, from its number alone: any first part of a set is well mixed."""
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


def make_files(
    maker: Maker, images: list[tuple[str, int]], folder: Path, workers: int
) -> Iterator[list[dict]]:
    """Writes images into a set's folder, in this process or in several.

    Args:
        maker: of the set.
        images: side and number of each.
        folder: with its sub-folders.
        workers: processes; fewer where there is too little to do.

    Yields:
        Rows of the manifest, in order, some at a time, once their files are written.
    """
    chunks = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
    workers = min(workers, len(chunks))
    if workers <= 1:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            for chunk in chunks:
                yield [maker.write(folder, *image) for image in chunk]
        finally:
            cv2.setNumThreads(threads)
        return
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start_worker, (maker, folder)
    )
    try:
        yield from pool.map(_write_chunk, chunks)
    except BrokenProcessPool as error:
        raise SynthesisError(
            "got a worker that ended early, expected it to stay: out of memory, or a script "
            "without `if __name__ == '__main__':`; start again to go on, with fewer workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(maker: Maker, folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the others
    cv2.setNumThreads(1)
    _WORKER.update(maker=maker, folder=folder)


def _write_chunk(images: list[tuple[str, int]]) -> list[dict]:
    return [_WORKER["maker"].write(_WORKER["folder"], *image) for image in images]


_WORKER = {}


def _paths(row: dict) -> list[str]:
    """Image and, if it is manipulated, mask, relative to the set's folder."""
    side, name = row["side"], row["name"]
    if row["kind"] == UNTOUCHED:
        return [f"{side}/Au/{name}"]
    return [f"{side}/Tp/{name}", f"{side}/Gt/{Path(name).stem}.png"]
