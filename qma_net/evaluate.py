"""``qma-net evaluate``: exact numbers for any model of BenCo's registry, no image dropped.

BenCo's datasets read the images, so what the model sees is what BenCo shows it; what is done with
its answer is ours (:mod:`qma_net.metrics`). Batches are formed from the whole list and then dealt
out: one process and many see the same ones. Every image's row is kept as soon as it is known, so
that a stopped run continues; a set's files appear when it is complete.
"""

import csv
import hashlib
import inspect
import io
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from . import __version__
from .data.check import check
from .data.listing import NEGATIVE, Listing, read_listings
from .files import write_png, write_text, written_beside
from .metrics import (
    PIXEL,
    THRESHOLD,
    bootstrap_interval,
    image_metrics,
    mean,
    paired_bootstrap,
    pixel_metrics,
)
from .weights import checkpoint_config, load_strictly, read_state, sha256

# Findings of `data check --fast` with which numbers would be wrong.
REFUSED = ("unreadable", "size-mismatch", "unpaired", "mask-values", "missing-file")
COLUMNS = ("name", "label", *PIXEL, "score", "marked", "path")
SEED = 0  # of the bootstrap


class EvaluationError(ValueError):
    """Input that cannot be evaluated; one line says got, expected and remedy."""


@dataclass(frozen=True)
class Settings:
    """How the images reach the model.

    Args:
        fit: ``"resize"`` to or ``"pad"`` into a square of ``image_size`` pixels, as BenCo trains,
            or ``"native"``: every image at its own size, one at a time.
        image_size: side of that square in pixels.
        batch_size: images per forward pass and process.
    """

    fit: str = "resize"
    image_size: int = 512
    batch_size: int = 4

    def __post_init__(self):
        if self.fit not in ("resize", "pad", "native"):
            raise EvaluationError(f"got fit {self.fit!r}, expected resize, pad or native")
        if self.batch_size < 1 or self.image_size < 32:
            raise EvaluationError(
                f"got batch size {self.batch_size} and image size {self.image_size}, expected at "
                "least 1 and 32"
            )


AS_TRAINED = Settings()


@dataclass(frozen=True)
class Process:
    """This process among those that torchrun started; alone without it."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @classmethod
    def join(cls, device: str = "") -> "Process":
        """Joins the others; on CUDA each takes the device of its local rank."""
        rank, world = (int(os.environ.get(name, alone)) for name, alone in _TORCHRUN.items())
        if world > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo")
        if not device:
            local = os.environ.get("LOCAL_RANK", 0)
            device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
        return cls(rank, world, device)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            torch.distributed.barrier()

    def say(self, message: str) -> None:
        if self.is_first:
            print(message, flush=True)


_TORCHRUN = {"RANK": 0, "WORLD_SIZE": 1}


def evaluate(
    checkpoints: Sequence[str | os.PathLike],
    test_sets: Sequence[str | os.PathLike],
    out: str | os.PathLike,
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
        checkpoints: files of BenCo's trainer.
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
    """
    process = Process.join(device)
    sets = read_test_sets(test_sets, settings, allow, process)
    folders = result_folders(checkpoints, Path(out))
    for checkpoint, folder in folders.items():
        subject = Subject.load(model, model_flags, checkpoint, process.device)
        for listing in sets:
            evaluate_set(subject, listing, folder, settings, process, workers, save_masks)
    if process.is_first and len(folders) > 1:
        compare(list(folders.values()), [listing.name for listing in sets], Path(out))
    process.wait()


def read_test_sets(
    paths: Iterable, settings: Settings, allow: Iterable[str], process: Process
) -> list[Listing]:
    """The test sets behind the paths, refused where numbers would be wrong."""
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
        crop_size = settings.image_size if settings.fit == "pad" else 0
        report = check(paths, fast=True, crop_size=crop_size, allow=allow)
        refused = (*REFUSED, "larger-than-training")
        faults = [finding for finding in report.errors if finding.problem in refused]
        if faults:
            first = faults[0]
            raise EvaluationError(
                f"got {len(faults)} files that would make the numbers wrong, the first "
                f"{first.file} ({first.problem}): {first.remedy}; qma-net data check lists all"
            )
    process.wait()
    return sets


def result_folders(checkpoints: Sequence, out: Path) -> dict[Path, Path]:
    """Where each checkpoint's results go: ``out`` itself for one, else a folder of its own."""
    paths = [Path(checkpoint) for checkpoint in checkpoints]
    for path in paths:
        if not path.is_file():
            raise EvaluationError(f"got checkpoint {path}, expected a file: there is none")
    if len(paths) == 1:
        return {paths[0]: out}
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):  # runs are told apart by their folders
        names = ["-".join([*path.resolve().parent.parts[-2:], path.stem]) for path in paths]
    if len(set(names)) < len(names):
        raise EvaluationError("got a checkpoint twice, expected different ones")
    return dict(zip(paths, (out / name for name in names), strict=True))


@dataclass(frozen=True)
class Subject:
    """A model of BenCo's registry with a checkpoint's weights, and what identifies it."""

    model: torch.nn.Module
    identity: dict
    post_function: object
    device: str

    @classmethod
    def load(cls, name: str, flags: Sequence[str], checkpoint: Path, device: str) -> "Subject":
        """Builds a registered model from its flags and loads the checkpoint strictly.

        For QMANet the flags come from the checkpoint; given ones must agree with it.
        """
        import IMDLBenCo.model_zoo  # noqa: F401  (registers BenCo's models)
        from IMDLBenCo.registry import MODELS, POSTFUNCS
        from IMDLBenCo.training_scripts.utils.misc import create_argparser

        from . import benco  # noqa: F401  (registers QMANet)

        if not MODELS.has(name):
            known = ", ".join(sorted(MODELS.module_dict))
            raise EvaluationError(f"got --model {name}, expected one of BenCo's registry: {known}")
        build = MODELS.get(name)
        if name == "QMANet":
            flags = [*checkpoint_config(checkpoint).as_flags(), *flags]
            flags += ["--init_from", str(checkpoint)]
        parser = create_argparser(build)
        parser.prog = f"qma-net evaluate --model {name}"
        arguments = vars(parser.parse_args([str(flag) for flag in flags]))
        # BenCo's models may be functions; both take exactly what the parser was made of
        accepted = inspect.signature(build).parameters
        model = build(**{key: arguments[key] for key in accepted})
        if name != "QMANet":
            load_strictly(model, read_state(checkpoint), f"{checkpoint} (checkpoint of {name})")
        hook = f"{name.lower()}_post_func"
        identity = {
            "model": name,
            "model_flags": {key: arguments[key] for key in sorted(accepted) if key != "init_from"},
            "checkpoint": str(checkpoint),
            "checkpoint_sha256": sha256(checkpoint),
        }
        post_function = POSTFUNCS.get_lower(hook) if POSTFUNCS.has(hook) else None
        return cls(model.to(device).eval(), identity, post_function, device)

    @torch.no_grad()
    def __call__(self, batch: dict) -> tuple[np.ndarray, np.ndarray, str]:
        """Masks ``(B, H, W)`` float32, scores ``(B,)``, and where the scores come from."""
        batch = {
            key: value.to(self.device) if isinstance(value, torch.Tensor) else value
            for key, value in batch.items()
        }
        output = self.model(**batch)
        masks = output["pred_mask"].float().cpu().numpy()[:, 0]
        scores = output.get("pred_label")
        if scores is None:
            return masks, masks.reshape(len(masks), -1).max(axis=1), "largest probability"
        return masks, scores.float().cpu().numpy().reshape(-1), "pred_label"


class TestImages(torch.utils.data.Dataset):
    """A test set as BenCo's own dataset reads it, with the index of every image.

    Args:
        attack: albumentations transform done before resizing, or None.
        seed: with the attack's name and the image's index, of everything random in it.
    """

    __test__ = False  # not a test, for pytest

    def __init__(self, listing: Listing, settings: Settings, post_function=None, attack=None):
        import albumentations
        from albumentations.pytorch import ToTensorV2
        from IMDLBenCo.datasets import JsonDataset, ManiDataset

        self.attack = attack
        side = (settings.image_size, settings.image_size)
        self.images = (ManiDataset if listing.is_folder else JsonDataset)(
            str(listing.path),
            is_padding=settings.fit != "resize",
            is_resizing=settings.fit == "resize",
            output_size=side,
            common_transforms=attack.transform if attack else None,
            post_funcs=post_function,
        )
        if settings.fit == "native":  # BenCo knows only squares: its own steps without the square
            self.images.post_transform = albumentations.Compose(
                [albumentations.Normalize(), ToTensorV2(transpose_mask=True)]
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        if self.attack:
            self.attack.seed(index)
        return {**self.images[index], "index": index}

    def path(self, index: int) -> str:
        return str(self.images.tp_path[index])

    def label(self, index: int) -> int:
        """1 for an image listed as tampered; BenCo's own follows the mask when attacked."""
        return int(self.images.gt_path[index] != NEGATIVE)

    def fingerprint(self) -> str:
        """SHA-256 of all paths and file sizes: another set under the same name has another."""
        digest = hashlib.sha256()
        for path in (*self.images.tp_path, *self.images.gt_path):
            size = "" if path == NEGATIVE else os.path.getsize(path)
            digest.update(f"{path} {size}\n".encode())
        return digest.hexdigest()


def evaluate_set(
    subject: Subject,
    listing: Listing,
    folder: Path,
    settings: Settings,
    process: Process,
    workers: int = 2,
    save_masks: str = "",
    attack=None,
    stem: str = "",
) -> None:
    """One model on one test set (attacked or not): ``<stem>.json`` and ``<stem>.csv`` in a folder.

    ``stem`` is the set's name by default. Finished results of the same settings are left as they
    are, unfinished ones completed.
    """
    stem = stem or listing.name
    images = TestImages(listing, settings, subject.post_function, attack)
    header = {
        "set": listing.name,
        "path": str(listing.path),
        "files_sha256": images.fingerprint(),
        **subject.identity,
        **asdict(settings),
        "attack": attack.describe() if attack else None,
        "threshold": THRESHOLD,
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
    bar = tqdm(total=total, desc=f"{stem}", unit="image", disable=not process.is_first)
    with bar:
        for batch in loader:
            for row, mask in judge(subject, images, batch, settings):
                if save_masks:
                    save_mask(folder / f"{stem}_masks", row, mask, save_masks)
                rows.add(row)
            bar.update(len(batch["index"]))
    process.wait()
    if process.is_first:
        rows.finish()
    process.wait()


def judge(subject: Subject, images: TestImages, batch: dict, settings: Settings):
    """Yields (row, mask) for every image of a batch; padding is cut off first."""
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
        figures = pixel_metrics(mask, truth)
        label = images.label(index)
        row = {
            "index": index,
            "name": batch["name"][i],
            "label": label,
            **(figures if label else figures | dict.fromkeys(PIXEL)),
            "score": float(scores[i]),
            "score_source": source,
            "path": images.path(index),
        }
        yield row, mask


class Rows:
    """The rows of one set: kept one by one while it runs, written whole when it is complete."""

    def __init__(self, folder: Path, stem: str, header: dict, process: Process):
        self.result = folder / f"{stem}.json"
        self.table = folder / f"{stem}.csv"
        self.header = json.loads(json.dumps(header))
        self.process = process
        self.partial = folder / f".{stem}.unfinished"
        self._known: dict[int, dict] = {}
        if self.finished():
            return
        if process.is_first:
            self.partial.mkdir(parents=True, exist_ok=True)
            note = self.partial / "header.json"
            if note.is_file() and json.loads(note.read_text()) != self.header:
                shutil.rmtree(self.partial)
                self.partial.mkdir()
            write_text(note, json.dumps(self.header))
        process.wait()
        self._known = self._read()

    def finished(self) -> bool:
        """Whether the result is there, of the same settings.

        Raises:
            EvaluationError: for a result of other settings.
        """
        if not self.result.is_file():
            return False
        found = json.loads(self.result.read_text()).get("header", {})
        differing = [key for key in self.header if found.get(key) != self.header[key]]
        if differing:
            key = differing[0]
            raise EvaluationError(
                f"got {self.result} of another evaluation ({key} {found.get(key)}), expected one "
                f"with {key} {self.header[key]}: give another --out, or delete it"
            )
        return True

    def has(self, indices: Iterable[int]) -> bool:
        return all(index in self._known for index in indices)

    def add(self, row: dict) -> None:
        with open(self.partial / f"{self.process.rank}.jsonl", "a") as file:
            file.write("\n" + json.dumps(row))

    def finish(self) -> None:
        """Writes the CSV, then the JSON, and forgets the rest."""
        rows = [row for _, row in sorted(self._read().items())]
        write_text(self.table, as_csv(rows))
        result = {**summary(rows), "header": self.header}
        write_text(self.result, json.dumps(result, indent=1) + "\n")
        shutil.rmtree(self.partial)

    def _read(self) -> dict[int, dict]:
        rows = {}
        for file in sorted(self.partial.glob("*.jsonl")):
            for line in file.read_text().splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:  # the line on which a run was killed
                    continue
                rows[row["index"]] = row
        return rows


def summary(rows: list[dict]) -> dict:
    """The means over one set's rows, with bootstrap intervals; authentic images apart."""
    tampered = [row for row in rows if row["label"]]
    authentic = [row for row in rows if not row["label"]]
    values = {_mean_name(key): [row[key] for row in tampered] for key in PIXEL}
    values["authentic_marked"] = [row["marked"] for row in authentic]
    return {
        **{name: mean(column) for name, column in values.items()},
        **image_metrics([row["score"] for row in rows], [row["label"] for row in rows]),
        "n_tampered": len(tampered),
        "n_authentic": len(authentic),
        "n_undefined": {
            name: sum(value is None for value in column) for name, column in values.items()
        },
        "intervals": {name: bootstrap_interval(column, SEED) for name, column in values.items()},
        "score_source": rows[0]["score_source"],
    }


def _mean_name(key: str) -> str:
    return "pixel_f1" if key == "f1" else key


def as_csv(rows: list[dict]) -> str:
    """The rows as CSV text; undefined figures are empty cells."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_rows(path: str | os.PathLike) -> list[dict]:
    """The rows of a set's CSV: numbers as floats, empty cells as None."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for key in (*PIXEL, "score", "marked", "label"):
            row[key] = float(row[key]) if row[key] else None
    return rows


def save_mask(folder: Path, row: dict, mask: np.ndarray, kind: str) -> None:
    """``<index>_<stem>.npy`` (float32) or ``.png`` (8 bits) of one mask."""
    path = folder / f"{row['index']:06d}_{Path(row['name']).stem}.{kind}"
    if kind == "png":
        write_png(path, np.rint(mask * 255).astype(np.uint8))
        return
    with written_beside(path) as beside, open(beside, "wb") as file:
        np.save(file, mask.astype(np.float32))


def compare(folders: list[Path], sets: list[str], out: Path) -> None:
    """``comparison.json``: paired bootstrap between every two checkpoints, on every set."""
    result = {}
    for name in sets:
        tables = {folder.name: read_rows(folder / f"{name}.csv") for folder in folders}
        result[name] = {
            f"{second} - {first}": {
                _mean_name(key): paired_bootstrap(
                    *([row[key] for row in tables[one]] for one in (first, second)), SEED
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
