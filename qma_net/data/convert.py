"""One image and its mask of a published archive, written as BenCo reads them."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from ..files import copy_file, write_png, written_beside
from ..workers import cores
from .facts import UNTURN
from .plan import Job, PrepareError, _name, _stem
from .published import DATASETS, Published, as_benco, black, total

ORIENTATION = 0x0112  # EXIF tag
JPEG_QUALITY = 95  # of images that are resized; colour at full resolution


@dataclass(frozen=True)
class Settings:
    """What a worker needs to know."""

    dataset: str
    source: Path
    out: Path
    max_side: int
    repair: bool
    link: bool


def _convert_all(settings: Settings, todo: list[Job], workers, progress) -> Iterator[dict]:
    workers = min(workers or cores(), max(1, len(todo) // 8))
    one = partial(_convert, settings)
    with tqdm(total=len(todo), desc=settings.dataset, unit="image", disable=not progress) as bar:
        if workers <= 1:
            for job in todo:
                yield one(job)
                bar.update()
            return
        context = get_context("forkserver")
        context.set_forkserver_preload([__name__])
        with ProcessPoolExecutor(workers, context, _leave_with_parent) as pool:
            try:
                for record in pool.map(one, todo, chunksize=8):
                    yield record
                    bar.update()
            except BrokenExecutor:
                raise PrepareError(
                    f"got {workers} processes, of which one was killed (memory?): run it again "
                    "with fewer --workers; what is finished stays"
                ) from None


def _leave_with_parent() -> None:
    """Ends this worker when the command is killed, which would leave it waiting for ever."""
    cv2.setNumThreads(1)

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _convert(settings: Settings, job: Job) -> dict:
    """Writes one image and its mask; returns what was written, or why not."""
    try:
        return {"image": job.image} | _written(settings, job)
    except _LeftOut as reason:
        started = settings.out / f"{job.target}{PurePosixPath(job.image).suffix}"
        started.unlink(missing_ok=True)  # by a killed run, from other sources
        return {"image": job.image, "left_out": str(reason)}


class _LeftOut(Exception):
    """Why an image cannot be used."""


def _written(settings: Settings, job: Job) -> dict:
    dataset = DATASETS[settings.dataset]
    with _opened(settings.source / job.image, "it") as image:
        size = image.size
        shrunk = _shrunk(size, settings.max_side)
        record = {}
        if job.mask is not None:
            pixels, grey = _read_mask(dataset, settings.source / job.mask)
            record = {"grey": grey} if grey else {}
            if pixels.shape[::-1] != size:
                pixels, record["repaired"] = _fitted(pixels, image, settings, job)
            if not pixels.any():
                raise _LeftOut(f"its mask {_name(job.mask)} marks nothing ({dataset.rule})")
        suffix = PurePosixPath(job.image).suffix
        if shrunk == size:
            _copy(
                settings.source / job.image, settings.out / f"{job.target}{suffix}", settings.link
            )
        else:
            suffix = _save_reduced(image, shrunk, settings.out, job.target, suffix)
    record["target"] = f"{job.target}{suffix}"
    if job.mask is not None:
        pixels = pixels if shrunk == size else _reduced(pixels, shrunk)
        write_png(settings.out / job.mask_target, np.where(pixels, 255, 0).astype(np.uint8))
        record["mask_target"] = job.mask_target
    return record


@contextmanager
def _opened(path: Path, what: str) -> Iterator[Image.Image]:
    """An image with its header read; what Pillow cannot read is left out."""
    try:
        if path.stat().st_size == 0:
            raise _LeftOut(f"{what} is empty (0 bytes): fetch it again")
        with Image.open(path) as image:
            yield image
    except _LeftOut:
        raise
    except (OSError, SyntaxError, ValueError, TypeError, EOFError) as error:
        raise _LeftOut(f"{what} cannot be decoded ({str(error).splitlines()[0]})") from None


def _read_mask(dataset: Published, path: Path) -> tuple[np.ndarray, float]:
    """The tampered pixels, bool ``(H, W)``, and the share that is neither black nor white."""
    if path.suffix.lower() == ".npz":
        return dataset.read(_read_array(path)), 0.0
    with _opened(path, f"its mask {path.name}") as image:
        if image.mode.startswith(("I", "F")):
            values = np.asarray(image).astype(np.float32)
            values = (values / 257 if values.max() > 255 else values).astype(np.uint8)
            mask = np.repeat(values[..., None], 3, axis=-1)
        else:
            mask = np.asarray(image.convert("RGB"))
    grey = 0.0
    if dataset.read in (as_benco, black):
        sums = total(mask)
        grey = round(float(((sums > 0) & (sums < 765)).mean()), 4)
    return dataset.read(mask), grey


def _read_array(path: Path) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as content:
            array = content["arr_0"].squeeze()
    except Exception as error:  # a torn zip raises nearly anything
        raise _LeftOut(f"its mask {path.name} cannot be read ({error})") from None
    if array.ndim != 2:
        raise _LeftOut(f"its mask {path.name} has shape {array.shape}, expected (H, W)")
    return array


def _fitted(pixels, image: Image.Image, settings: Settings, job: Job) -> tuple[np.ndarray, str]:
    """A mask of another size than its image made to fit, and how; or a reason not to."""
    (height, width), size = pixels.shape, image.size
    transposed = (height, width) == size
    orientation = image.getexif().get(ORIENTATION, 1)  # decodes a PNG
    if transposed and orientation in UNTURN:
        turned = Image.fromarray(pixels).transpose(UNTURN[orientation])
        return np.asarray(turned), "mask turned back as its photograph's EXIF orientation says"
    dataset = DATASETS[settings.dataset]
    known = "known fault: " if _stem(job.image) in dataset.known_faults else ""
    fault = f"{known}mask {width}x{height}, image {size[0]}x{size[1]}"
    subsets = [PurePosixPath(path).parent.parent for path in (job.target, job.mask_target)]
    if subsets[0] != subsets[1]:
        raise _LeftOut(f"{fault}, and the mask is another subset's")
    if not settings.repair:
        raise _LeftOut(f"{fault}; {dataset.remedy}, or --repair it")
    if transposed:
        how = "turned by 90 degrees counter-clockwise, which may be the wrong way: look at it"
        return np.ascontiguousarray(np.rot90(pixels)), f"{fault}; {how}"
    resized = cv2.resize(pixels.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return resized > 0, f"{fault}; mask resized to the nearest pixel"


def _shrunk(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """The size with its long side at most ``max_side``, if that is given."""
    scale = max_side / max(size)
    if not max_side or scale >= 1:
        return size
    return tuple(max(1, round(side * scale)) for side in size)


def _reduced(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask reduced by area and cut at one half; one that would vanish keeps what it touches."""
    shares = cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    half = shares > 0.5
    return half if half.any() else shares > 0


def _save_reduced(image, size, out: Path, target: str, suffix: str) -> str:
    """Writes the image at another size; returns its suffix."""
    with_mode = image if image.mode in ("L", "RGB") else image.convert("RGB")
    try:
        pixels = np.asarray(with_mode)
    except OSError as error:
        raise _LeftOut(f"it cannot be decoded ({error})") from None
    reduced = Image.fromarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    if image.format in ("JPEG", "MPO"):
        suffix = suffix if suffix.lower() in (".jpg", ".jpeg") else ".jpg"
        options = {"format": "JPEG", "quality": JPEG_QUALITY, "subsampling": 0}
    else:
        suffix, options = ".png", {"format": "PNG"}
    with written_beside(out / f"{target}{suffix}") as beside:
        reduced.save(beside, **options)
    return suffix


def _copy(source: Path, target: Path, link: bool) -> None:
    if link:
        target.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), target)
            return
        except OSError:  # another file system
            pass
    copy_file(source, target)
