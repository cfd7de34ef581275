"""Manipulated photographs with exact masks, made out of untouched ones.

Splicing, copy-move, removal and untouched images. Every host has a history of its own, what is
put into it another one, and the result is saved again. Regions come from label maps where there
are some, else they are random shapes; their edges are soft. Photographs are divided before
anything is made, so none lends pixels to both sides. Each image depends on the photographs, the
recipe, the seed, its side and its number, and on nothing else: not on how many images there are
nor on how many processes make them.

A label map is a PNG of its photograph's size with one value (or colour) per segment; zero means
no segment. For the photograph ``a/x.jpg`` it is ``a/x.png`` or ``a_seg/x.png`` in the folder of
label maps. Folders that end in ``_seg`` are never searched for photographs.
"""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from .. import __version__
from ..core.files import open_journal, read_journal, read_json_object, write_text
from ..core.runs import FolderLock
from ..core.workers import available_cores, map_in_processes
from .maker import Maker, paths_of, write_image
from .photographs import find_usable, split_photos
from .recipe import SIDES, Recipe, SynthesisError

SETTINGS_EXPECTED = "the settings of a synthesised set: give another --out, or delete it"
MANIFEST, JOURNAL = "manifest.jsonl", "journal.jsonl"  # whole, and of an unfinished set


def synthesise(
    photos: str | os.PathLike,
    out: str | os.PathLike,
    *,
    count: int = 1000,
    test_count: int | None = None,
    image_size: int | None = None,
    seed: int = 0,
    recipe: Recipe | None = None,
    labels: str | os.PathLike | None = None,
    workers: int | None = None,
) -> Path:
    """Writes a training and a test set in BenCo's formats.

    ``train/Tp`` and ``train/Gt`` hold the manipulated images and their masks, ``train/Au`` the
    untouched images, and ``train.json`` lists all of them with absolute paths; likewise for
    ``test``. ``manifest.jsonl`` has a row per image, ``settings.json`` what ``remake`` needs
    besides. All but the two lists are the same to the byte for the same photographs, settings
    and library versions, wherever they are written and by however many workers.

    The folder appears complete or not at all. A killed run goes on where it was when it is
    started again; a finished one of the same settings is left as it is. Nothing is deleted.

    Args:
        photos: folder of untouched photographs, searched recursively.
        out: folder to write.
        count: training images.
        test_count: test images; a tenth of ``count`` unless given, at least three.
        image_size: their longest side in pixels; overrides the recipe's.
        seed: of everything random.
        recipe: how they are made.
        labels: folder of label maps.
        workers: processes; as many as there are cores unless given.

    Returns:
        ``out``.

    Raises:
        SynthesisError: when the photographs, the label maps or a number cannot be used, or when
            ``out`` holds something else.
        WorkersError: when a process was killed; what is made stays.
        BusyError: when another run is making the same folder.
    """
    out, photos = Path(out).resolve(), Path(photos)
    recipe = recipe or Recipe()
    recipe = recipe if image_size is None else replace(recipe, image_size=image_size)
    test_count = max(3, round(count / 10)) if test_count is None else test_count
    workers = available_cores() if workers is None else workers
    for name, number, least in (
        ("count", count, 1),
        ("test count", test_count, 1),
        ("image size", recipe.image_size, 32),
        ("number of workers", workers, 1),
        ("seed", seed, 0),
    ):
        if number < least:
            raise SynthesisError(f"got {number} as {name}, expected at least {least}")
    names, maps = find_usable(photos, labels, recipe)
    settings = {
        "photos": split_photos(names, recipe.test_share, seed),
        "labels": maps,
        "count": count,
        "test_count": test_count,
        "seed": seed,
        "recipe": asdict(recipe),
        "made_with": {
            "qma_net": __version__,
            "opencv": cv2.__version__,
            "numpy": np.__version__,
        },
    }
    settings = json.loads(json.dumps(settings))
    unfinished = out.with_name(out.name + ".unfinished")
    if _is_there(out, settings, finished=True):
        return out
    with FolderLock(unfinished):
        if not _is_there(unfinished, settings, finished=False):
            write_text(unfinished / "settings.json", json.dumps(settings, indent=1) + "\n")
        for side in SIDES:
            for folder in ("Tp", "Gt", "Au"):
                (unfinished / side / folder).mkdir(parents=True, exist_ok=True)
        rows = _finished_rows(unfinished)
        numbers = {"train": count, "test": test_count}
        images = [(side, index) for side in SIDES for index in range(numbers[side])]
        missing = [image for image in images if image not in rows]
        shared = Maker(photos, labels, settings), unfinished
        bar = tqdm(total=len(images), initial=len(rows), desc="images", unit="image")
        with bar, open_journal(unfinished / JOURNAL) as add:
            for row in map_in_processes(write_image, shared, missing, workers):
                add(row)
                rows[row["side"], row["index"]] = row
                bar.update()
        ordered = [rows[image] for image in images]
        lines = "".join(json.dumps(row) + "\n" for row in ordered)
        write_text(unfinished / MANIFEST, lines)
        for side in SIDES:
            pairs = [_listed(out, row) for row in ordered if row["side"] == side]
            write_text(unfinished / f"{side}.json", json.dumps(pairs, indent=1) + "\n")
        (unfinished / JOURNAL).unlink()
        unfinished.rename(out)
    return out


def remake(
    out: str | os.PathLike,
    row: dict,
    photos: str | os.PathLike,
    labels: str | os.PathLike | None = None,
) -> tuple[bytes, bytes | None]:
    """Makes one image again, from its row of the manifest and the set's ``settings.json``.

    Args:
        out: folder of the set; of it, only ``settings.json`` is read.
        row: a row of ``manifest.jsonl``; of it, only side and index are used.
        photos: the folder of photographs it was made from.
        labels: the folder of label maps it was made with.

    Returns:
        The bytes of its JPEG file, and those of its mask's PNG file, or ``None`` where it is
        untouched.
    """
    settings = read_json_object(Path(out) / "settings.json", SETTINGS_EXPECTED)
    image, mask, _ = Maker(photos, labels, settings).make(row["side"], row["index"])
    return image, mask


def _listed(out: Path, row: dict) -> list[str]:
    """An image's row of BenCo's list: the paths of image and mask, or ``"Negative"``."""
    paths = [str(out / path) for path in paths_of(row)]
    return paths if len(paths) == 2 else [*paths, "Negative"]


def _is_there(folder: Path, settings: dict, finished: bool) -> bool:
    """Whether a folder holds a set of these settings, whole or in part; an error if another.

    A finished set may be of other library versions, an unfinished one may not go on with them.
    """
    file = folder / "settings.json"
    if not file.is_file():
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise SynthesisError(
                f"got {folder}, which holds other files, expected a folder that is absent, empty "
                "or a synthesised set: give another --out"
            )
        return False
    kept = read_json_object(file, SETTINGS_EXPECTED)
    if finished:
        kept["made_with"] = settings["made_with"]
    if kept == settings:
        return True
    got, expected = _different(settings, kept)
    raise SynthesisError(
        f"got {got}, expected {expected} as in {file}: this folder holds another set; give another "
        "--out, or delete it"
    )


def _different(settings: dict, kept: dict) -> tuple[str, str]:
    """What differs between two settings, in words for each."""
    numbers, others = (
        {
            **{name: one.get(name) for name in ("count", "test_count", "seed")},
            **one.get("recipe", {}),
            **one.get("made_with", {}),
        }
        for one in (settings, kept)
    )
    names = [name for name in numbers if numbers[name] != others.get(name)]
    if not names:
        return "other photographs or label maps", "those"
    return tuple(
        ", ".join(f"{name} {one.get(name)}" for name in names) for one in (numbers, others)
    )


def _finished_rows(folder: Path) -> dict[tuple[str, int], dict]:
    """Rows of the images that an earlier run finished, by side and number."""
    rows = {}
    for row in [
        row
        for name in (MANIFEST, JOURNAL)
        for row in read_journal(folder / name, ("side", "index"))
    ]:
        if all((folder / path).is_file() for path in paths_of(row)):
            rows[row["side"], row["index"]] = row
    return rows
