"""``qma-net evaluate``: exact numbers for any model of BenCo's registry, no image dropped.

BenCo's datasets read the images, so what the model sees is what BenCo shows it; what is done with
its answer is ours (:mod:`qma_net.evaluation.metrics`). Batches are formed from the whole list and
then dealt out: one process and many see the same ones. Every image's row is kept as soon as it is
known, so that a stopped run continues; a set's files appear when it is complete.
"""

import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from .. import __version__
from ..core.files import atomic_write, safe_path, write_png, write_text
from ..data.check import check
from ..data.findings import Report
from ..data.listing import Listing, read_listings
from ..inference.prediction import as_grey
from ..modeling.config import DEFAULT_THRESHOLD, Preprocessing
from ..weights.names import SMALL
from .attacks import Attack
from .images import BenCoImages
from .metrics import PIXEL, paired_bootstrap, pixel_metrics
from .process import Process
from .rows import Rows, mean_name, read_rows, results_table
from .settings import AS_TRAINED, EvaluationError, Settings
from .subject import Subject

# Findings of `data check --fast` with which numbers would be wrong.
REFUSED = ("unreadable", "size-mismatch", "unpaired", "mask-values", "missing-file")


def evaluate(
    checkpoints: Sequence[str | os.PathLike],
    test_sets: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    settings: Settings = AS_TRAINED,
    model: str = "QMANet",
    model_flags: Sequence[str] = (),
    device: str = "",
    workers: int = 2,
    save_masks: str = "",
    allow: Iterable[str] = (),
) -> None:
    """Writes ``<set>.json`` and ``<set>.csv`` per test set; several checkpoints get subfolders.

    Args:
        checkpoints: files of BenCo's trainer; for QMANet also directories of ``save_pretrained``
            and ``"qma-net-small"``.
        test_sets: folders with Tp/ and Gt/, lists, or JSONs of test sets.
        out: folder for the results; finished sets in it are kept.
        settings: how the images reach the model.
        model: its name in BenCo's registry.
        model_flags: the model's own flags; for QMANet the checkpoint knows them.
        device: "cpu", or a CUDA device; default CUDA where there is one.
        workers: processes that read images, per process that computes.
        save_masks: "npy" (float32) or "png" (8 bits) keeps every mask in ``<set>_masks/``.
        allow: problems of ``data check`` that are right here.

    Raises:
        EvaluationError, WeightsError, ListingError: in one line each; finished sets are kept.
        BusyError: for a folder that another run is writing to.
    """
    process = Process.join(device)
    sets = read_test_sets(test_sets, allow, process)
    folders = result_folders(checkpoints, Path(out))
    with process.alone_in(out):
        for checkpoint, folder in folders.items():
            subject = Subject.load(model, model_flags, checkpoint, process.device)
            shown = shown_as(subject, settings, process)
            require_uncropped(test_sets, shown, allow, process)
            for listing in sets:
                evaluate_set(
                    subject,
                    listing,
                    folder,
                    settings=shown,
                    process=process,
                    workers=workers,
                    save_masks=save_masks,
                )
            process.say(results_table(folder, [listing.name for listing in sets]))
        if process.is_first and len(folders) > 1:
            compare(list(folders.values()), [listing.name for listing in sets], Path(out))
        process.wait()


def shown_as(subject: Subject, settings: Settings, process: Process) -> Settings:
    """How images reach a model: as asked, else as it was trained; a difference is said."""
    shown, trained = settings.completed(subject.preprocessing), subject.preprocessing
    here = Preprocessing(shown.image_size, shown.fit)
    said = [f"{subject.identity['checkpoint']}: images {here}"]
    if trained and here != trained:
        said.append(f"training had them {trained}")
    elif not trained:
        said.append("the checkpoint does not say how it was trained")
    said += [subject.identity["about"]] if "about" in subject.identity else []
    process.say("; ".join(said))
    return shown


def read_test_sets(
    paths: Iterable[str | os.PathLike], allow: Iterable[str], process: Process
) -> list[Listing]:
    """The test sets behind the paths.

    Raises:
        EvaluationError, ListingError: where numbers would be wrong; ``allow`` names problems of
            ``data check`` that are right here.
    """
    sets = [listing for path in paths for listing in read_listings(path)]
    names = [listing.name for listing in sets]
    for listing in sets:
        if not listing.pairs:
            raise EvaluationError(f"got {listing.path} without images, expected at least one")
        if names.count(listing.name) > 1:
            raise EvaluationError(
                f"got two test sets named {listing.name!r}, expected different names: name them "
                "in a JSON {name: path}"
            )
    if process.is_first:
        _refuse(check(paths, fast=True, allow=allow), REFUSED)
    process.wait()
    return sets


def require_uncropped(
    paths: Iterable[str | os.PathLike], settings: Settings, allow: Iterable[str], process: Process
) -> None:
    """Refuses images that BenCo would crop to fit into the square that it pads to."""
    if settings.fit == "pad" and process.is_first:
        report = check(paths, fast=True, crop_size=settings.image_size, allow=allow, progress=False)
        _refuse(report, ("larger-than-training",))


def _refuse(report: Report, problems: Sequence[str]) -> None:
    faults = [finding for finding in report.errors if finding.problem in problems]
    if faults:
        first = faults[0]
        raise EvaluationError(
            f"got {len(faults)} files that would make the numbers wrong, the first "
            f"{first.file} ({first.problem}): {first.remedy}; qma-net data check lists all"
        )


def result_folders(checkpoints: Sequence[str | os.PathLike], out: Path) -> dict[Path, Path]:
    """Where each checkpoint's results go: ``out`` itself for one, else a folder of its own.

    Raises:
        EvaluationError: for a checkpoint that is not there or is named twice.
    """
    paths = [Path(checkpoint) for checkpoint in checkpoints]
    for path in paths:
        if not path.exists() and str(path) != SMALL:
            raise EvaluationError(
                f"got checkpoint {path}, expected a file, a directory of save_pretrained or "
                f"{SMALL}: there is none of that name"
            )
    if len(paths) == 1:
        return {paths[0]: out}
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):  # runs are told apart by their folders
        names = ["-".join([*path.resolve().parent.parts[-2:], path.stem]) for path in paths]
    if len(set(names)) < len(names):
        raise EvaluationError("got a checkpoint twice, expected different ones")
    return dict(zip(paths, (safe_path(out, name) for name in names), strict=True))


def evaluate_set(
    subject: Subject,
    listing: Listing,
    folder: Path,
    *,
    settings: Settings,
    process: Process,
    workers: int = 2,
    save_masks: str = "",
    attack: Attack | None = None,
    stem: str = "",
) -> None:
    """One model on one test set (attacked or not): ``<stem>.json`` and ``<stem>.csv`` in a folder.

    ``stem`` is the set's name by default; what is not explained here is as in :func:`evaluate`.
    Finished results of the same settings are left as they are, unfinished ones completed.
    """
    stem = stem or listing.name
    images = BenCoImages(
        listing, settings, subject.post_function, attack, with_edges=subject.needs_edges
    )
    header = {
        "set": listing.name,
        "path": str(listing.path),
        "files_sha256": images.fingerprint(),
        **subject.identity,
        **asdict(settings),
        "attack": attack.describe() if attack else None,
        "threshold": DEFAULT_THRESHOLD,
        "versions": versions(),
    }
    rows = Rows(folder, stem, header, process)
    if rows.finished():
        process.say(f"{folder / stem}.json is there already")
        return
    size = 1 if settings.fit == "native" else settings.batch_size
    batches = [list(range(len(images)))[i : i + size] for i in range(0, len(images), size)]
    mine = [batch for batch in batches[process.rank :: process.world] if not rows.has(batch)]
    loader = torch.utils.data.DataLoader(images, batch_sampler=mine, num_workers=workers)
    total = sum(map(len, mine))
    bar = tqdm(total=total, desc=stem, unit="image", disable=not process.is_first)
    with bar, rows.journal() as keep:
        for batch in loader:
            for row, mask in judge(subject, images, batch, settings):
                if save_masks:
                    save_mask(safe_path(folder, f"{stem}_masks"), row, mask, save_masks)
                keep(row)
            bar.update(len(batch["index"]))
    process.wait()
    if process.is_first:
        rows.finish()
    process.wait()


def judge(
    subject: Subject, images: BenCoImages, batch: dict, settings: Settings
) -> Iterator[tuple[dict, np.ndarray]]:
    """The row and the mask, float32 ``(H, W)``, of every image of a batch; padding is cut off.

    Raises:
        EvaluationError: for a mask of another size than the truth.
    """
    masks, scores, source = subject({key: value for key, value in batch.items() if key != "index"})
    for i, index in enumerate(batch["index"].tolist()):
        mask, truth = masks[i], batch["mask"][i, 0].numpy() > 0.5
        if mask.shape != truth.shape:
            raise EvaluationError(
                f"got a mask {mask.shape} for {images.path(index)}, expected {truth.shape}: this "
                "model does not answer at the size of its input"
            )
        if settings.fit == "pad":
            height, width = batch["shape"][i].tolist()
            mask, truth = mask[:height, :width], truth[:height, :width]
        measured = pixel_metrics(mask, truth)
        label = images.label(index)
        row = {
            "index": index,
            "name": batch["name"][i],
            "label": label,
            **(measured if label else measured | dict.fromkeys(PIXEL)),
            "score": float(scores[i]),
            "score_source": source,
            "path": images.path(index),
        }
        yield row, mask


def save_mask(folder: Path, row: dict, mask: np.ndarray, kind: str) -> None:
    """``<index>_<stem>.npy`` (float32) or ``.png`` (8 bits) of one mask."""
    path = safe_path(folder, f"{row['index']:06d}_{Path(row['name']).stem}.{kind}")
    if kind == "png":
        write_png(path, as_grey(mask))
        return
    content = io.BytesIO()  # numpy's own writing hides why a disk refuses
    np.save(content, mask.astype(np.float32))
    with atomic_write(path) as beside:
        beside.write_bytes(content.getvalue())


def compare(folders: list[Path], sets: list[str], out: Path) -> None:
    """``comparison.json``: paired bootstrap between every two checkpoints, on every set."""
    result = {}
    for name in sets:
        tables = {folder.name: read_rows(folder / f"{name}.csv") for folder in folders}
        result[name] = {
            f"{second} - {first}": {
                mean_name(key): paired_bootstrap(
                    [row[key] for row in tables[first]], [row[key] for row in tables[second]]
                )
                for key in PIXEL
            }
            for first, second in combinations(tables, 2)
        }
    write_text(out / "comparison.json", json.dumps(result, indent=1) + "\n")


def versions() -> dict[str, str]:
    """Of everything that could change a number."""
    packages = ("torch", "transformers", "imdlbenco", "albumentations", "numpy", "Pillow")
    return {"qma-net": __version__, **{name: version(name) for name in packages}}
