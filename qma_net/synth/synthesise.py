"""``qma-net data synth``: datasets of splices, copy-moves and removals with exact masks.

Host and donor have different processing histories, and the result is saved once more. Regions are
segments of label maps if there are any, otherwise random shapes, and have soft edges. Photos are
split into training and test before images are created, so no photo contributes to both. Every image
depends only on the photos, the recipe, the seed, its split and its index, not on the number of
images or processes.

A label map is a PNG file of its photo's size with one value (or color) per segment; zero means no
segment. For the photo ``a/x.jpg`` it is ``a/x.png`` or ``a_seg/x.png`` in the folder of label maps.
Folders that end in ``_seg`` are not searched for photos.
"""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from .. import __version__
from ..core.errors import first_line
from ..core.files import (
    ContentError,
    read_json_lines,
    read_json_object,
    sha256,
    to_json,
    write_json,
    write_text,
)
from ..core.runs import Run, difference
from ..core.workers import available_cores, map_in_processes
from .camera import encode_png
from .manipulate import generate_image, kind_at
from .photographs import Photographs, find_usable_photos, split_by
from .recipe import AUTHENTIC, SIDES, Recipe, SynthesisError

logger = logging.getLogger(__name__)

SETTINGS_EXPECTED = "the settings of a synthetic dataset; choose a different --out or delete it"
SETTINGS, MANIFEST, COMPLETE = "settings.json", "manifest.jsonl", "complete.json"
JOURNAL = "journal.jsonl"  # It exists until completion.


class ImageGenerator:
    """Generates any image of a dataset.

    Args:
        photos: Folder of the photos.
        labels: Folder of the label maps, or None.
        settings: The content of ``settings.json``: the photos of each split, their label maps, the
            seed and the recipe.
        sizes: (height, width) of the photos by name, if they are known.
    """

    def __init__(
        self,
        photos: Path,
        labels: str | os.PathLike[str] | None,
        settings: dict[str, Any],
        sizes: Mapping[str, tuple[int, int]] | None = None,
    ):
        self.recipe = Recipe(**settings["recipe"])
        self.seed = settings["seed"]
        self.sides = {
            side: Photographs(photos, names, labels, settings["labels"])
            for side, names in settings["photos"].items()
        }
        if self.recipe.by_area:
            for photographs in self.sides.values():
                photographs.weigh_by_area(sizes)

    def generate(self, side: str, index: int) -> tuple[bytes, bytes | None, dict[str, Any]]:
        """Generate an image from its split and its index.

        Returns:
            The bytes of the image file, those of the mask's PNG file (None for an authentic
            image), and the row of the manifest.
        """
        rng = np.random.default_rng([self.seed, SIDES.index(side), index])
        kind = kind_at(side, index, self.recipe)
        data, mask, history = generate_image(rng, kind, self.sides[side], self.recipe)
        row = {
            "side": side,
            "index": index,
            "seed": self.seed,
            "name": f"{kind}_{index:05d}.{history['format']}",
            "kind": kind,
            "size": list(mask.shape),
            "area": float((mask > 0).mean()),
            **history,
        }
        return data, None if kind == AUTHENTIC else encode_png(mask), row


def synthesise(
    photos: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    count: int = 1000,
    test_count: int | None = None,
    image_size: int | None = None,
    seed: int = 0,
    recipe: Recipe | None = None,
    labels: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Create a training set and a test set in BenCo's formats.

    ``train/Tp`` and ``train/Gt`` contain the tampered images and their masks, ``train/Au`` the
    authentic images, and ``train.json`` lists all of them with absolute paths; likewise for
    ``test``. ``manifest.jsonl`` has a row per image, and ``settings.json`` all settings; with the
    photos, :class:`.ImageGenerator` recreates any image from them. ``complete.json`` has the
    SHA-256 of these two files and the total size of all images and masks. Except for the two lists,
    all bytes are the same for the same photos, settings and library versions.

    The folder appears when it is complete; until then it is called ``<out>.unfinished``, and the
    same call resumes an interrupted run. A complete dataset with the same settings is checked and
    left unchanged, except that damaged lists are restored from the manifest. Nothing is deleted.

    Args:
        photos: Folder of authentic photos, searched recursively.
        out: Folder to write, which is returned.
        count: Number of training images.
        test_count: Number of test images, by default a tenth of ``count`` but at least three.
        image_size: Longest side in pixels; replaces the recipe's.
        seed: Random seed.
        recipe: The recipe.
        labels: Folder of label maps.
        workers: Number of processes, by default one per core.
        progress: Show progress bars on standard error.

    Raises:
        SynthesisError: If the photos, the label maps or a number cannot be used, or if ``out``
            contains something else or a damaged dataset.
        RunError: If an unfinished dataset with different settings exists.
        WorkersError: If a process was killed. Finished images are kept.
        BusyError: If another run is writing the same dataset.
    """
    out, photos = Path(out).resolve(), Path(photos)
    recipe = recipe or Recipe()
    recipe = recipe if image_size is None else replace(recipe, image_size=image_size)
    test_count = max(3, round(count / 10)) if test_count is None else test_count
    workers = available_cores() if workers is None else workers
    for name, number, minimum in (
        ("count", count, 1),
        ("test count", test_count, 1),
        ("image size", recipe.image_size, 32),
        ("number of workers", workers, 1),
        ("seed", seed, 0),
    ):
        if number < minimum:
            raise SynthesisError(f"the {name} is {number}, expected at least {minimum}")
    usable, maps = find_usable_photos(photos, labels, recipe, progress=progress)
    settings = {
        "photos": split_by(photos, list(usable), recipe, seed),
        "labels": maps,
        "count": count,
        "test_count": test_count,
        "seed": seed,
        "recipe": asdict(recipe),
        "made_with": {"qma_net": __version__, "opencv": cv2.__version__, "numpy": np.__version__},
    }
    settings = json.loads(to_json(settings))
    unfinished = out.with_name(out.name + ".unfinished")
    # A complete dataset may come from different library versions.
    if _is_dataset(out, settings, ignored=("made_with",)):
        check_complete(out, out, settings)
        return out
    _is_dataset(unfinished, settings)
    counts = {"train": count, "test": test_count}
    images = [(side, index) for side in SIDES for index in range(counts[side])]
    key = ("side", "index")
    with Run(unfinished, settings, key=key, journal=JOURNAL, contents="images") as run:
        # The record is written last: only the journal and the folder's name are left to change.
        if (unfinished / COMPLETE).exists():
            check_complete(unfinished, out, settings)
        else:
            write_json(unfinished / SETTINGS, settings)
            generator = ImageGenerator(photos, labels, settings, usable)
            _generate(run, generator, images, workers=workers, progress=progress)
            rows = [run.finished[image] for image in images]
            rows = [{key: row[key] for key in row if key != "outputs"} for row in rows]
            for name, pairs in _lists(out, rows).items():
                write_json(unfinished / name, pairs)
            write_text(unfinished / MANIFEST, "".join(to_json(row) + "\n" for row in rows))
            write_json(unfinished / COMPLETE, _completion_record(unfinished, rows))
        run.remove_journal()
    if out.is_dir():
        out.rmdir()  # It is empty. Windows does not rename a folder to an existing one.
    unfinished.rename(out)
    return out


def _generate(
    run: Run,
    generator: ImageGenerator,
    images: list[tuple[str, int]],
    *,
    workers: int,
    progress: bool,
) -> None:
    """Write all images that are not finished."""
    for side in SIDES:
        for folder in ("Tp", "Gt", "Au"):
            (run.folder / side / folder).mkdir(parents=True, exist_ok=True)
    pending = list(run.pending(images, key=tuple))
    done = len(images) - len(pending)
    with tqdm(
        total=len(images), initial=done, desc="images", unit="image", disable=not progress
    ) as bar:
        for row in map_in_processes(write_image, (generator, run.folder), pending, workers):
            run.finish(row, [run.folder / path for path in output_paths(row)])
            bar.update()


def _lists(out: Path, rows: list[dict[str, Any]]) -> dict[str, list[list[str]]]:
    """Return BenCo's lists by file name: each image's path and its mask's, or ``"Negative"``."""
    lists: dict[str, list[list[str]]] = {f"{side}.json": [] for side in SIDES}
    for row in rows:
        paths = [str(out / path) for path in output_paths(row)]
        lists[f"{row['side']}.json"].append(paths if len(paths) == 2 else [*paths, "Negative"])
    return lists


def _completion_record(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the content of ``complete.json``, which reveals later damage.

    Raises:
        OSError: If a file is missing.
    """
    record: dict[str, Any] = {name: sha256(folder / name) for name in (SETTINGS, MANIFEST)}
    paths = [folder / path for row in rows for path in output_paths(row)]
    return record | {"image_bytes": sum(path.stat().st_size for path in paths)}


def check_complete(folder: Path, out: Path, settings: dict[str, Any]) -> None:
    """Check a complete dataset, and restore damaged lists from the manifest.

    Datasets from earlier versions have no ``complete.json``. For these, only the rows of the
    manifest and the existence of the images are checked.

    Raises:
        SynthesisError: If anything else is damaged.
    """
    counts = {"train": settings["count"], "test": settings["test_count"]}
    images = [(side, index) for side in SIDES for index in range(counts[side])]
    try:
        rows = read_json_lines(folder / MANIFEST, ("side", "index", "name", "kind"))
        names = [f"{row['kind']}_{row['index']:05d}" for row in rows]
    except (TypeError, ValueError):
        raise _damage(folder, f"{MANIFEST} has a row with an invalid index") from None
    if [(row["side"], row["index"]) for row in rows] != images:
        raise _damage(folder, f"{MANIFEST} does not have a row for each of its images")
    for row, name in zip(rows, names, strict=True):
        if row["name"] not in (f"{name}.jpg", f"{name}.png"):
            raise _damage(folder, f"{MANIFEST} has a row with the invalid name {row['name']!r}")
    try:
        recorded = record = _completion_record(folder, rows)
        if (folder / COMPLETE).exists():
            recorded = read_json_object(folder / COMPLETE, "the record of a complete dataset")
    except (OSError, ContentError) as error:
        raise _damage(folder, first_line(error)) from None
    changed = [name for name in record if recorded.get(name) != record[name]]
    if changed:
        raise _damage(folder, f"it does not match {COMPLETE} in {', '.join(changed)}")
    for name, pairs in _lists(out, rows).items():
        path, content = folder / name, to_json(pairs, indent=1) + "\n"
        if not path.is_file() or path.read_bytes() != content.encode():
            write_text(path, content)
            logger.warning("Restored %s from %s", path, MANIFEST)


def _damage(folder: Path, fault: str) -> SynthesisError:
    remedy = "choose a different --out or delete it"
    return SynthesisError(f"the dataset in {folder} is damaged: {fault}; {remedy}")


def _is_dataset(folder: Path, settings: dict[str, Any], ignored: tuple[str, ...] = ()) -> bool:
    """Check whether a folder contains the dataset generated with these settings, complete or not.

    Raises:
        SynthesisError: If it contains something else.
    """
    file = folder / SETTINGS
    if not file.is_file():
        # A killed run may have left its journal, its lock and temporary files.
        ours = folder.is_dir() and all(
            path.name == JOURNAL or path.name.startswith(".qma-net") for path in folder.iterdir()
        )
        if folder.exists() and not ours:
            raise SynthesisError(
                f"{folder} contains other files; choose an --out that does not exist, is empty or "
                "contains a synthetic dataset"
            )
        return False
    recorded = read_json_object(file, SETTINGS_EXPECTED)
    recorded |= {name: settings[name] for name in ignored}
    if isinstance(recorded.get("recipe"), dict):
        # Fields that an earlier version did not have yet get their defaults.
        recorded["recipe"] = json.loads(to_json(asdict(Recipe()))) | recorded["recipe"]
    if recorded != settings:
        # A different seed also changes the split of the photos; naming the seed is clearer.
        changed = difference(recorded, dict(reversed(settings.items())))
        raise SynthesisError(
            f"{folder} contains a different dataset ({changed}); choose a different "
            "--out or delete it"
        )
    return True


def write_image(shared: tuple[ImageGenerator, Path], job: tuple[str, int]) -> dict[str, Any]:
    """Write an image and its mask to the folder of a dataset, in a worker process.

    ``shared`` is the generator and the folder, ``job`` is (side, index).

    Returns:
        The row of the manifest.
    """
    generator, folder = shared
    image, mask, row = generator.generate(*job)
    image_path, *mask_path = output_paths(row)
    (folder / image_path).write_bytes(image)
    if mask is not None:
        (folder / mask_path[0]).write_bytes(mask)
    return row


def output_paths(row: dict[str, Any]) -> list[str]:
    """List the files of a manifest row relative to the folder: the image and the mask, if any."""
    side, name = row["side"], row["name"]
    if row["kind"] == AUTHENTIC:
        return [f"{side}/Au/{name}"]
    return [f"{side}/Tp/{name}", f"{side}/Gt/{Path(name).stem}.png"]
