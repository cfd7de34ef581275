"""``qma-net evaluate``: metrics over every image of a test set, for any model in BenCo's registry.

BenCo's datasets read the images, so the model's input is the same as in BenCo, and
:mod:`qma_net.evaluation.metrics` computes the metrics. Batches are formed before they are
distributed to processes, so their contents do not depend on the number of processes. The rows of
all images are saved as they are computed, so an interrupted run can be resumed.
"""

import io
import json
import math
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import chain, combinations
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from .. import __version__
from ..core.files import atomic_write, safe_path, to_json, write_json, write_png
from ..data.check import MASK_PROBLEMS, Report, check
from ..data.listing import Listing, manipulation_types, read_listings
from ..inference.prediction import as_gray, require_finite
from ..launch.recipes import require_image_size
from ..modeling.config import DEFAULT_THRESHOLD, Preprocessing
from ..modeling.qma_net import SMALLEST_SIDE
from ..weights.names import SMALL
from .attacks import Attack
from .distributed import DistributedContext
from .evaluated_model import EvaluatedModel
from .images import BenCoImages, TestSet, content_sha256
from .metrics import PIXEL, boundary_band, paired_bootstrap, pixel_metrics
from .results import (
    Row,
    average_levels,
    format_means,
    is_complete,
    mask_path,
    mean_name,
    read_result_table,
    unfinished_folder,
    unfinished_rows,
    write_result,
)
from .settings import AS_TRAINED, EvaluationError, Settings

# Other packages whose version can affect the metrics.
PACKAGES = ("torch", "transformers", "imdlbenco", "albumentations", "numpy", "Pillow")

# Problems found by `data check` that would invalidate the metrics. A duplicate is an image that
# is listed more than once.
FATAL_PROBLEMS = (
    *("unreadable", "size-mismatch", "unpaired", "missing-file", "exif-orientation", "duplicate"),
    *MASK_PROBLEMS,
)


def evaluate(
    checkpoints: Sequence[str | os.PathLike[str]],
    test_sets: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    settings: Settings = AS_TRAINED,
    model: str = "QMANet",
    model_flags: Sequence[str] = (),
    device: str = "",
    workers: int = 2,
    save_masks: str = "",
    allow: Collection[str] = (),
    attacks: Sequence[Attack] = (),
    progress: bool = True,
) -> None:
    """Write ``<set>.json`` and ``<set>.csv`` for every test set.

    With several checkpoints, each has a subfolder, and ``comparison.json`` compares them. With
    attacks, the results are those of :func:`qma_net.evaluation.robust.robust`.

    Args:
        checkpoints: Checkpoints saved by BenCo's trainer, or folders of them; for QMANet also
            ``"qma-net-small"`` or a folder written by ``save_pretrained``.
        test_sets: Folders with Tp/ and Gt/, lists, or JSON files of test sets.
        out: Folder for the results. Test sets whose results are already complete are skipped.
        settings: How the images are fed to the model.
        model: The model's name in BenCo's registry.
        model_flags: The model's own flags; not needed for QMANet.
        device: ``"cpu"`` or a CUDA device; by default CUDA if it is available. Under torchrun,
            ``"cuda"`` is the GPU of the local rank.
        workers: Data loader processes, for each process that torchrun starts.
        save_masks: ``"npy"`` (float32) or ``"png"`` (8 bits) saves every mask in
            ``<set>_masks/``. A test set whose results are complete is evaluated again if masks
            are missing.
        allow: Problems of ``data check`` to ignore.
        attacks: Attacks to apply to the images.
        progress: Show a progress bar on standard error.

    Raises:
        EvaluationError: If the input or the output folder cannot be used.
        WeightsError: If a checkpoint cannot be loaded.
        ListingError: If a path is not a test set.
        BusyError: If another run is writing to one of the folders.
    """
    if workers < 0:
        raise EvaluationError(f"invalid number of workers {workers}: expected at least 0")
    context = DistributedContext.from_environment(device)
    folders = result_folders(checkpoints, Path(out))
    sets = read_test_sets(test_sets)
    sizes: dict[Path, tuple[int, int]] = {}  # Of the images; only in the first process.
    if context.is_first:
        report = _require_no(
            FATAL_PROBLEMS, test_sets, mask_sample=sys.maxsize, allow=allow, progress=progress
        )
        sizes = {path: facts.size for path, facts in report.images.items()}
        inverted = [item for item in report.warnings if item.problem == "mask-inverted"]
        for finding in inverted[:1]:
            context.log(
                f"{len(inverted)} masks are mostly white, such as {finding.file}; check that they "
                "are not inverted"
            )
    digests = context.share([content_sha256(item) for item in sets] if context.is_first else [])
    pixels = {str(path): math.prod(size) for path, size in sizes.items()}
    tests = [TestSet(item, digest, pixels) for item, digest in zip(sets, digests, strict=True)]
    names = [listing.name for listing in sets]
    # With attacks, every test set has a folder that contains a result per attack.
    set_folders = {
        checkpoint: [safe_path(folder, name) if attacks else folder for name in names]
        for checkpoint, folder in folders.items()
    }
    with context.locked(out, *chain(*set_folders.values())):
        for checkpoint in folders:
            evaluated = EvaluatedModel.load(model, model_flags, checkpoint, context.device)
            completed = complete_settings(evaluated, settings, context)
            if completed.fit == "pad" and context.is_first:  # BenCo would crop larger images.
                size = completed.image_size
                problems = ["larger-than-training"]
                _require_no(problems, test_sets, crop_size=size, allow=allow, progress=False)
            if completed.fit == "native" and model == "QMANet":
                _require_smallest_side(sizes)
            for test_set, folder in zip(tests, set_folders[checkpoint], strict=True):
                name = test_set.listing.name
                clean = "clean" if attacks else name
                for attack in (None, *attacks):
                    evaluate_set(
                        evaluated,
                        test_set,
                        folder,
                        settings=completed,
                        context=context,
                        workers=workers,
                        save_masks=save_masks,
                        attack=attack,
                        name=attack.stem if attack else clean,
                        progress=progress,
                    )
                if attacks and context.is_first:
                    write_json(folder / "averages.json", average_levels(folder, attacks))
                    stems = ["clean", *(attack.stem for attack in attacks)]
                    context.log(f"{name}\n{format_means(folder, stems, 'attack')}")
            if not attacks:
                context.log(format_means(folders[checkpoint], names))
        if not attacks and context.is_first and len(folders) > 1:
            compare(list(folders.values()), names, Path(out))
        context.wait()


def complete_settings(
    evaluated: EvaluatedModel, settings: Settings, context: DistributedContext
) -> Settings:
    """Fill in missing settings from training, and log how images are fed to the model.

    Raises:
        LaunchError: If the model does not work at this size.
    """
    trained, completed = evaluated.preprocessing, settings.completed(evaluated.preprocessing)
    used = Preprocessing(completed.image_size, completed.fit)
    size = "native" if completed.fit == "native" else str(completed.image_size)
    require_image_size(evaluated.identity["model"], size)
    parts = [f"{evaluated.identity['checkpoint']}: images {used}"]
    if settings.image_size and completed.fit == "native":
        parts.append(f"--image-size {settings.image_size} has no effect at original resolution")
    if trained and used != trained:
        parts.append(f"in training, they were {trained}")
    elif not trained:
        parts.append("the checkpoint does not record the preprocessing used in training")
    if "about" in evaluated.identity:
        parts.append(evaluated.identity["about"])
    context.log("; ".join(parts))
    return completed


def read_test_sets(paths: Sequence[str | os.PathLike[str]]) -> list[Listing]:
    """Read the listings of test sets; reject empty sets and duplicate names."""
    sets = [listing for path in paths for listing in read_listings(path)]
    names = [listing.name for listing in sets]
    for listing in sets:
        if not listing.pairs:
            raise EvaluationError(f"{listing.path} contains no images")
        if names.count(listing.name) > 1:
            raise EvaluationError(
                f"several test sets are named {listing.name!r}; give each its own name in a JSON "
                "file {name: path}"
            )
    return sets


def _require_no(
    problems: Collection[str], paths: Sequence[str | os.PathLike[str]], **options: Any
) -> Report:
    report = check(paths, fast=True, **options)
    faults = [finding for finding in report.errors if finding.problem in problems]
    # In training, a repeated row is only a warning, but here the image would count twice.
    faults += [
        finding
        for finding in report.warnings
        if finding.problem == "duplicate" in problems and "duplicate" not in report.allow
    ]
    if faults:
        first = faults[0]
        raise EvaluationError(
            f"{len(faults)} files would invalidate the metrics, such as {first.file} "
            f"({first.problem}: {first.remedy}); run qma-net data check to list all of them, or "
            f"pass --allow {first.problem} to accept them"
        )
    return report


def _require_smallest_side(sizes: Mapping[Path, tuple[int, int]]) -> None:
    small = [path for path, size in sizes.items() if 0 < min(size) < SMALLEST_SIDE]
    if small:
        width, height = sizes[small[0]]
        raise EvaluationError(
            f"{small[0]} has {width}x{height} pixels, expected at least "
            f"{SMALLEST_SIDE}x{SMALLEST_SIDE} at original resolution (images that are too small: "
            f"{len(small)}); exclude them, or pass --resize"
        )


def result_folders(checkpoints: Sequence[str | os.PathLike[str]], out: Path) -> dict[Path, Path]:
    """Choose the result folder of each checkpoint: ``out`` for a single one, else subfolders."""
    paths = [Path(checkpoint) for checkpoint in checkpoints]
    for path in paths:
        if not path.exists() and str(path) != SMALL:
            raise EvaluationError(
                f"checkpoint {path} does not exist; expected a file, a folder written by "
                f"save_pretrained, or {SMALL}"
            )
    if len(paths) == 1:
        return {paths[0]: out}
    if len({os.path.abspath(path) for path in paths}) < len(paths):
        raise EvaluationError("the same checkpoint was given twice")
    return dict(zip(paths, (safe_path(out, name) for name in _distinct_names(paths)), strict=True))


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """Name each checkpoint by its stem; if that is ambiguous, add folders, then the suffix."""
    parents = [Path(os.path.abspath(path)).parent.parts[1:] for path in paths]
    depths = [0, *range(2, max(2, *map(len, parents)) + 1)]
    for labels in ([path.stem for path in paths], [path.name for path in paths]):
        for depth in depths:
            names = [
                "-".join([*folders[len(folders) - min(depth, len(folders)) :], label])
                for folders, label in zip(parents, labels, strict=True)
            ]
            if len(set(names)) == len(names):
                return names
    raise EvaluationError("the names of the checkpoints are ambiguous; rename one of them")


def evaluate_set(
    evaluated: EvaluatedModel,
    test_set: TestSet,
    folder: Path,
    *,
    settings: Settings,
    context: DistributedContext,
    workers: int,
    save_masks: str,
    attack: Attack | None,
    name: str,
    progress: bool,
) -> None:
    """Evaluate a model on one test set and write ``<name>.json`` and ``<name>.csv``.

    Complete results with the same settings are kept, and interrupted ones are completed. Images
    whose mask should be saved but is missing count as unfinished. A new evaluation deletes the
    masks of an earlier one. The caller must hold the lock of ``folder``. At original resolution,
    progress is measured in pixels.

    Raises:
        EvaluationError: If existing result files have different settings, or if the model fails.
    """
    listing = test_set.listing
    images = BenCoImages(
        listing, settings, evaluated.post_function, attack, with_edges=evaluated.needs_edges
    )
    header = {
        "set": listing.name,
        "path": str(listing.path),
        "files_sha256": images.fingerprint(),
        "content_sha256": test_set.content_sha256,
        **evaluated.identity,
        **settings.as_header(),
        "attack": attack.description if attack else None,
        "threshold": DEFAULT_THRESHOLD,
        "versions": {"qma-net": __version__, **{name: version(name) for name in PACKAGES}},
    }
    header = json.loads(to_json(header))

    def path_of_mask(index: int, file_format: str = save_masks) -> Path:
        return mask_path(folder, name, index, images.path(index), file_format)

    def is_mask_missing(index: int) -> bool:
        return bool(save_masks) and not path_of_mask(index).is_file()

    has_result = is_complete(folder, name, header)
    if has_result and not any(map(is_mask_missing, range(len(images)))):
        context.log(f"{folder / name}.json is already complete")
        if context.is_first:  # A killed run may have left this folder behind.
            rmtree(unfinished_folder(folder, name), ignore_errors=True)
        return
    size = 1 if settings.fit == "native" else settings.batch_size
    batches = [list(range(len(images)))[i : i + size] for i in range(0, len(images), size)]
    stale = (
        path_of_mask(index, file_format)
        for index in range(0 if has_result else len(images))
        for file_format in ("npy", "png")
    )
    with unfinished_rows(folder, name, header, context, masks=stale) as run:
        pending = [
            batch
            for batch in batches[context.rank :: context.world_size]
            if not run.finished.keys() >= set(batch) or any(map(is_mask_missing, batch))
        ]
        loader = torch.utils.data.DataLoader(images, batch_sampler=pending, num_workers=workers)
        by_pixels = settings.fit == "native"  # A photo can take as long as 80 images of 512x512.

        def work_in(indices: Iterable[int]) -> int:
            return sum(test_set.pixels.get(images.path(i), 0) if by_pixels else 1 for i in indices)

        with tqdm(
            total=work_in(chain(*pending)),
            desc=name,
            unit="pixel" if by_pixels else "image",
            unit_scale=by_pixels,
            disable=not (progress and context.is_first),
        ) as bar:
            for batch in loader:
                for row, mask in measure_batch(evaluated, images, batch, settings):
                    outputs = [path_of_mask(row["index"])] if save_masks else []
                    for path in outputs:
                        save_mask(path, mask)
                    run.finish(row, outputs)
                bar.update(work_in(batch["index"].tolist()))
        context.wait()
        if context.is_first:
            run.reload()
            rows = [run.finished[index] for index in range(len(images))]
            tampered = [Path(row["path"]) for row in rows if row["label"]]
            types = manipulation_types(listing.name, tampered)
            rows = [row | {"type": types.get(Path(row["path"]))} for row in rows]
            write_result(folder, name, header, rows)
    context.wait()
    if context.is_first:
        rmtree(unfinished_folder(folder, name))


def measure_batch(
    evaluated: EvaluatedModel, images: BenCoImages, batch: Mapping, settings: Settings
) -> Iterator[tuple[Row, np.ndarray]]:
    """Predict a batch and yield the row and the mask of every image.

    Masks are float32 ``(H, W)``, without padding. If the model has no scores, the score is the
    largest value of the mask.

    Raises:
        EvaluationError: If the size of a mask differs from that of the ground truth.
        NonFiniteError: If a mask or a score contains NaN or infinity.
    """
    inputs = {key: value for key, value in batch.items() if key != "index"}
    masks, scores = evaluated(inputs)
    for i, index in enumerate(batch["index"].tolist()):
        mask, truth = masks[i], batch["mask"][i, 0].numpy() > 0.5
        if mask.shape != truth.shape:
            raise EvaluationError(
                f"the model returned a mask of shape {mask.shape} for {images.path(index)} instead "
                f"of {truth.shape}; models whose output and input sizes differ are not supported"
            )
        if settings.fit == "pad":
            height, width = batch["shape"][i].tolist()
            mask, truth = mask[:height, :width], truth[:height, :width]
        checkpoint, path = evaluated.identity["checkpoint"], images.path(index)
        score = float(mask.max() if scores is None else scores[i])
        require_finite(mask, score, checkpoint=checkpoint, photo=path)
        counted: Any = ...
        if settings.ignore_border:
            counted = ~boundary_band(truth, settings.ignore_border)
        metrics, label = pixel_metrics(mask[counted], truth[counted]), images.label(index)
        row = {
            "index": index,
            "name": batch["name"][i],
            "label": label,
            **(metrics if label else metrics | dict.fromkeys(PIXEL)),
            "score": score,
            "score_source": "largest probability" if scores is None else "pred_label",
            "path": path,
        }
        yield row, mask


def save_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask to a ``.npy`` (float32) or ``.png`` file (8 bits)."""
    if path.suffix == ".png":
        write_png(path, as_gray(mask))
        return
    content = io.BytesIO()  # numpy's own errors when writing a file do not state the cause.
    np.save(content, mask.astype(np.float32))
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getvalue())


def compare(folders: Sequence[Path], sets: Iterable[str], out: Path) -> None:
    """Write ``comparison.json``: a paired bootstrap of each pair of checkpoints per test set."""
    result = {}
    for name in sets:
        tables = {folder.name: read_result_table(folder / f"{name}.csv") for folder in folders}
        result[name] = {
            f"{second} - {first}": {
                mean_name(key): paired_bootstrap(
                    [row[key] for row in tables[first]], [row[key] for row in tables[second]]
                )
                for key in PIXEL
            }
            for first, second in combinations(tables, 2)
        }
    write_json(out / "comparison.json", result)
