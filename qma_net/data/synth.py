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

import hashlib
import json
import math
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from .. import __version__
from ..files import cores, write_text

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
LABEL_FOLDER = "_seg"

KINDS = ("splice", "copymove", "removal")
UNTOUCHED = "untouched"
SIDES = ("train", "test")

CHUNK = 8  # images handed to a worker at once
CACHE_BYTES = 256 * 2**20  # of decoded photographs, per worker


@dataclass(frozen=True)
class Recipe:
    """How the images are made; the defaults are for training in earnest.

    A pair is a range to draw from. Areas are shares of the image, qualities JPEG's (1 to 100),
    noise and blur standard deviations in grey levels and in pixels, and what is called a chance
    is a probability.

    Attributes:
        image_size: longest side in pixels. A photograph smaller than that gives smaller images:
            nothing is enlarged. It is used when its longest side is at least half of this and
            its shortest a quarter.
        square: square crops of ``image_size``, turned by any quarter, in place of upright ones
            in the photograph's proportions; needs a shortest side of ``image_size``.
        zoom: pixels of the image per pixel of the photograph: how much of it is seen.
        exposure: exponent of a gamma curve, 1 leaves the photograph as it is.
        kinds: shares of ``KINDS`` among the manipulated training images; the test images have
            equal numbers of each.
        untouched: share of untouched images on both sides.
        test_share: share of the photographs kept for testing.
        area: of a region.
        from_labels: chance that a region is a segment, where a label map offers a fitting one.
        edge_softness: Gaussian blur of a region's edge, in pixels.
        host_saved_before: chance that the host was saved as JPEG before.
        host_quality: of that.
        same_photograph: chance that a splice comes out of the host's own photograph.
        donor_noise: of the donor's camera, added before all else.
        donor_saved_before: chance that the donor was saved as JPEG before.
        donor_quality: of that.
        resampled: chance that a splice or a copy is rescaled and rotated.
        scale: factor of its lengths.
        rotation: degrees, to either side.
        colour_match: how far a donor's mean and contrast are brought to the host's, 0 to 1.
        copy_distance: least way of a copy from its place, in square roots of its area.
        inpainting: what removes, drawn from these: ``"telea"`` and ``"ns"`` paint inwards from
            the edge, ``"clone"`` covers with another part of the image, blended in.
        blur: chance that the whole image is blurred before it is saved.
        blur_sigma: of that.
        noise: chance that noise is added to the whole image before it is saved.
        noise_sigma: of that.
        final_quality: of the image as it is written.
        final_full_colour: chance that it is written with colour in full resolution, as editors
            do, in place of half, as cameras do.
    """

    image_size: int = 384
    square: bool = False
    zoom: tuple[float, float] = (0.5, 1.0)
    exposure: tuple[float, float] = (1.0, 1.0)
    kinds: tuple[float, float, float] = (0.4, 0.3, 0.3)
    untouched: float = 0.1
    test_share: float = 0.25
    area: tuple[float, float] = (0.01, 0.2)
    from_labels: float = 0.8
    edge_softness: tuple[float, float] = (0.5, 2.0)
    host_saved_before: float = 0.8
    host_quality: tuple[int, int] = (60, 98)
    same_photograph: float = 0.1
    donor_noise: tuple[float, float] = (0.0, 3.0)
    donor_saved_before: float = 0.8
    donor_quality: tuple[int, int] = (60, 98)
    resampled: float = 0.6
    scale: tuple[float, float] = (0.6, 1.6)
    rotation: float = 20.0
    colour_match: tuple[float, float] = (0.0, 0.8)
    copy_distance: float = 1.0
    inpainting: tuple[str, ...] = ("telea", "ns", "clone", "clone")
    blur: float = 0.1
    blur_sigma: tuple[float, float] = (0.3, 1.0)
    noise: float = 0.1
    noise_sigma: tuple[float, float] = (1.0, 4.0)
    final_quality: tuple[int, int] = (70, 98)
    final_full_colour: float = 0.3


class SynthesisError(ValueError):
    """Photographs, settings or folders that cannot be used; one line says why."""


def synthesise(
    photos: str | os.PathLike,
    out: str | os.PathLike,
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
    """
    out, photos = Path(out).resolve(), Path(photos)
    recipe = recipe or Recipe()
    recipe = recipe if image_size is None else replace(recipe, image_size=image_size)
    test_count = max(3, round(count / 10)) if test_count is None else test_count
    workers = cores() if workers is None else workers
    for name, number, least in (
        ("count", count, 1),
        ("test count", test_count, 1),
        ("image size", recipe.image_size, 32),
        ("number of workers", workers, 1),
        ("seed", seed, 0),
    ):
        if number < least:
            raise SynthesisError(f"got {number} as {name}, expected at least {least}")
    names, maps = _inputs(photos, labels, recipe)
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
    if not _is_there(unfinished, settings, finished=False):
        unfinished.mkdir(parents=True, exist_ok=True)
        write_text(unfinished / "settings.json", json.dumps(settings, indent=1) + "\n")
    for side in SIDES:
        for folder in ("Tp", "Gt", "Au"):
            (unfinished / side / folder).mkdir(parents=True, exist_ok=True)
    rows = _journal(unfinished)
    numbers = {"train": count, "test": test_count}
    images = [(side, index) for side in SIDES for index in range(numbers[side])]
    missing = [image for image in images if image not in rows]
    maker = Maker(photos, labels, settings)
    bar = tqdm(total=len(images), initial=len(rows), desc="images", unit="image")
    with bar, open(unfinished / "journal.jsonl", "a", buffering=1) as journal:
        for made in make_files(maker, missing, unfinished, workers):
            journal.write("".join(json.dumps(row) + "\n" for row in made))
            rows.update({(row["side"], row["index"]): row for row in made})
            bar.update(len(made))
    ordered = [rows[image] for image in images]
    lines = "".join(json.dumps(row) + "\n" for row in ordered)
    write_text(unfinished / "manifest.jsonl", lines)
    for side in SIDES:
        pairs = [_pair(out, row) for row in ordered if row["side"] == side]
        write_text(unfinished / f"{side}.json", json.dumps(pairs, indent=1) + "\n")
    (unfinished / "journal.jsonl").unlink()
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
        The bytes of its JPEG file, and those of its mask's PNG file unless it is untouched.
    """
    settings = json.loads((Path(out) / "settings.json").read_text())
    image, mask, _ = Maker(photos, labels, settings).make(row["side"], row["index"])
    return image, mask


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


class Photographs:
    """Photographs of one side, read when they are asked for; the latest are kept in memory.

    Args:
        folder: where they are.
        names: of these, relative to it.
        labels: folder of label maps, or ``None``.
        maps: names of label maps by photograph, relative to that.
    """

    def __init__(self, folder, names: list[str], labels=None, maps: dict[str, str] | None = None):
        self.folder, self.names = Path(folder), names
        self.labels, self.maps = labels, maps or {}
        self._kept = {}

    def draw(self, rng: np.random.Generator, but: str = "") -> tuple[str, np.ndarray]:
        """A random photograph other than one, with its name; what cannot be decoded is not one."""
        names = [name for name in self.names if name != but]
        for _ in range(1000):
            name = names[rng.integers(len(names))]
            photo = self.read(name)
            if photo is not None:
                return name, photo
        raise SynthesisError(
            f"got no photograph that can be decoded among {len(names)} in {self.folder}, expected "
            "at least two on each side: repair or replace the files"
        )

    def read(self, name: str) -> np.ndarray | None:
        """A photograph, uint8 ``(H, W, 3)`` in BGR, or ``None`` if it cannot be decoded."""
        if name in self._kept:
            self._kept[name] = self._kept.pop(name)
            return self._kept[name]
        data = np.fromfile(self.folder / name, np.uint8)
        photo = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        self._kept[name] = photo
        while sum(p.nbytes for p in self._kept.values() if p is not None) > CACHE_BYTES:
            self._kept.pop(next(iter(self._kept)))
        return photo

    def label_map(self, name: str) -> np.ndarray | None:
        """A photograph's label map, int32 ``(H, W)``, or ``None`` if it has none."""
        if name not in self.maps:
            return None
        with Image.open(Path(self.labels) / self.maps[name]) as file:
            labels = np.asarray(file)
        if labels.ndim == 3:  # a colour per segment
            labels = labels[..., :3].astype(np.int32) @ np.array([1, 256, 65536], np.int32)
        return labels.astype(np.int32)


def find_photos(folder: str | os.PathLike) -> list[Path]:
    """Image files under a folder, sorted by path; none of a folder of label maps."""
    folder = Path(folder)
    if not folder.is_dir():
        raise SynthesisError(f"got {folder}, expected a folder of photographs: there is none")
    files = (p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    inside = ((p, p.relative_to(folder).parent.parts) for p in files)
    return sorted(p for p, parts in inside if not any(n.endswith(LABEL_FOLDER) for n in parts))


def split_photos(names: list[str], test_share: float, seed: int) -> dict[str, list[str]]:
    """Training and test photographs, disjoint; at least two on each side."""
    if len(names) < 4:
        raise SynthesisError(
            f"got {len(names)} usable photographs, expected at least 4: two to learn from and two "
            "to test on, all different and large enough for the image size"
        )
    order = [names[i] for i in np.random.default_rng([seed, 2]).permutation(len(names))]
    held_out = min(max(2, round(test_share * len(names))), len(names) - 2)
    return {"train": sorted(order[held_out:]), "test": sorted(order[:held_out])}


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


def manipulate(
    rng: np.random.Generator, kind: str, photographs: Photographs, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray, dict]:
    """One image before it is blurred, made noisy and saved.

    The host is the same for every kind when the generator's state is.

    Args:
        rng: source of everything random.
        kind: one of ``KINDS``, or ``"untouched"``: the host itself.
        photographs: to make it from.
        recipe: how it is made.

    Returns:
        The image, uint8 ``(H, W, 3)``; its mask, uint8 ``(H, W)`` of 0 and 255; its history.
    """
    name, photo = photographs.draw(rng)
    crop = random_crop(rng, photo.shape[:2], recipe)
    host, quality = _saved_before(
        rng, crop.of(photo), recipe.host_saved_before, recipe.host_quality
    )
    history = {"host": name, "host_crop": asdict(crop), "host_quality": quality}
    if kind == UNTOUCHED:
        return host, np.zeros(host.shape[:2], np.uint8), history
    if kind == "splice":
        region, filling, more = _spliced(rng, photographs, name, photo, host, recipe)
    else:
        labels = photographs.label_map(name)
        labels = None if labels is None else crop.of_labels(labels)
        region, source = _region(rng, labels, host.shape[:2], recipe, kind == "copymove")
        if kind == "removal" and source != "random":  # with its rim
            region = cv2.dilate(region, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7)))
        change = _copied if kind == "copymove" else _removed
        region, filling, more = change(rng, host, region, recipe)
        more = {"region": source, **more}
    softness = rng.uniform(*recipe.edge_softness)
    alpha = cv2.GaussianBlur(region.astype(np.float32), (0, 0), softness)
    if not (alpha > 0.5).any():  # too thin to be softened
        alpha = region.astype(np.float32)
    alpha = alpha[..., None]
    image = np.rint(alpha * filling + (1 - alpha) * host).astype(np.uint8)
    mask = np.where(alpha[..., 0] > 0.5, 255, 0).astype(np.uint8)
    return image, mask, {**history, **more, "edge_softness": softness}


@dataclass(frozen=True)
class Crop:
    """A part of a photograph and what is done to it: lengths in pixels, ``turns`` by 90 degrees."""

    top: int
    left: int
    height: int
    width: int
    out_height: int
    out_width: int
    gamma: float
    turns: int
    mirrored: bool

    def of(self, photo: np.ndarray) -> np.ndarray:
        """The crop of a photograph, uint8 ``(H, W, 3)``."""
        levels = 255 * (np.arange(256) / 255) ** self.gamma
        crop = self._resized(photo, cv2.INTER_AREA)
        return self._turned(cv2.LUT(crop, np.rint(levels).astype(np.uint8)))

    def of_labels(self, labels: np.ndarray) -> np.ndarray:
        """The same part of its label map, int32 ``(H, W)``."""
        return self._turned(self._resized(labels, cv2.INTER_NEAREST_EXACT))

    def _resized(self, photo, interpolation):
        crop = photo[self.top : self.top + self.height, self.left : self.left + self.width]
        if (self.height, self.width) == (self.out_height, self.out_width):
            return crop
        return cv2.resize(crop, (self.out_width, self.out_height), interpolation=interpolation)

    def _turned(self, photo):
        photo = np.rot90(photo, self.turns)
        return np.ascontiguousarray(photo[:, ::-1] if self.mirrored else photo)


def random_crop(rng: np.random.Generator, size: tuple[int, int], recipe: Recipe) -> Crop:
    """A crop of a photograph of ``size`` (height, width) as the recipe wants it."""
    seen = recipe.image_size / rng.uniform(*recipe.zoom)
    if recipe.square:
        height = width = min(*size, round(seen))
        out_height = out_width = recipe.image_size
    else:
        part = min(1, seen / max(size))
        height, width = (max(1, round(part * side)) for side in size)
        longest = min(recipe.image_size, max(height, width))
        out_height, out_width = (max(1, round(longest / max(size) * side)) for side in size)
    return Crop(
        top=int(rng.integers(size[0] - height, endpoint=True)),
        left=int(rng.integers(size[1] - width, endpoint=True)),
        height=height,
        width=width,
        out_height=out_height,
        out_width=out_width,
        gamma=rng.uniform(*recipe.exposure),
        turns=int(rng.integers(4)) if recipe.square else 0,
        mirrored=bool(rng.random() < 0.5),
    )


def random_region(rng: np.random.Generator, size: tuple[int, int], area: float) -> np.ndarray:
    """A random smooth shape inside a frame, uint8 ``(H, W)`` of 0 and 1.

    Its radius is a circle's with a few harmonics; ``size`` is (height, width), ``area`` its
    share of the frame.
    """
    height, width = size
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    radius = np.ones_like(angle)
    for harmonic in range(2, 6):
        amplitude, phase = rng.normal(0, 0.35 / harmonic), rng.uniform(0, 2 * np.pi)
        radius += amplitude * np.cos(harmonic * angle + phase)
    radius = radius.clip(0.3)
    stretch = rng.uniform(0.7, 1.4)
    shape = np.stack([radius * np.cos(angle) * stretch, radius * np.sin(angle) / stretch], axis=1)
    x, y = shape.T
    outline_area = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
    shape *= np.sqrt(area * height * width / outline_area)
    low, high = shape.min(axis=0), shape.max(axis=0)
    room = np.maximum([width, height] - (high - low), 0)
    shape += rng.uniform(0, 1, 2) * room - low
    region = np.zeros((height, width), np.uint8)
    cv2.fillPoly(region, [np.rint(shape).astype(np.int32)], 1)
    return region


def segments(
    labels: np.ndarray, area: tuple[float, float], whole: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Connected parts of a label map that can be cut out.

    Args:
        labels: int32 ``(H, W)``; zero means no segment.
        area: least and largest share of the frame.
        whole: leave out what the frame cuts off.

    Yields:
        The value, and the part without holes, uint8 ``(H, W)`` of 0 and 1. Splinters, which
        fill less than a third of their box or are under 8 pixels across, are left out.
    """
    height, width = labels.shape
    least, most = (share * labels.size for share in area)
    for value, pixels in zip(*np.unique(labels, return_counts=True), strict=True):
        if value == 0 or pixels < least:
            continue
        parts = cv2.connectedComponentsWithStats((labels == value).astype(np.uint8))
        for number, (x, y, w, h, size) in enumerate(parts[2][1:], start=1):
            cut_off = x == 0 or y == 0 or x + w == width or y + h == height
            if size < least or min(w, h) < 8 or 3 * size < w * h or (whole and cut_off):
                continue
            part = (parts[1] == number).astype(np.uint8)
            outline, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            part = cv2.drawContours(part, outline, -1, 1, cv2.FILLED)
            if part.sum() <= most:
                yield int(value), part


def _region(rng, labels, size, recipe, whole) -> tuple[np.ndarray, str]:
    """A region of a frame, uint8 ``(H, W)`` of 0 and 1, and what it was made of."""
    if rng.random() < recipe.from_labels and labels is not None:
        fitting = list(segments(labels, recipe.area, whole))
        if fitting:
            value, region = fitting[rng.integers(len(fitting))]
            return region, f"label {value}"
    return random_region(rng, size, np.exp(rng.uniform(*np.log(recipe.area)))), "random"


def _spliced(rng, photographs, host_name, host_photo, host, recipe):
    """The region, the donor moved there, and the history of both."""
    name, photo = host_name, host_photo
    if rng.random() >= recipe.same_photograph:
        name, photo = photographs.draw(rng, but=host_name)
    crop = random_crop(rng, photo.shape[:2], recipe)
    donor = crop.of(photo)
    noise = rng.uniform(*recipe.donor_noise)
    donor = _noisy(rng, donor, noise)
    if _is_grey(host_photo):
        donor = cv2.cvtColor(cv2.cvtColor(donor, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    donor, quality = _saved_before(rng, donor, recipe.donor_saved_before, recipe.donor_quality)
    match = rng.uniform(*recipe.colour_match)
    donor = _colour_matched(donor, host, match)
    scale, angle = _resampling(rng, recipe)
    labels = photographs.label_map(name)
    labels = None if labels is None else crop.of_labels(labels)
    region, source = _region(rng, labels, host.shape[:2], recipe, whole=True)
    height, width = host.shape[:2]
    if source == "random":  # in the host's frame: find it a place in the donor
        place, scale = _placed(rng, region, donor.shape[:2], 1 / scale, -angle)
        scale, flags = 1 / scale, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    else:  # in the donor's frame: find it a place in the host
        least, most = (np.sqrt(a * height * width / region.sum()) for a in recipe.area)
        place, scale = _placed(rng, region, (height, width), np.clip(scale, least, most), angle)
        flags = cv2.INTER_LINEAR
        region = _warped_region(region, place, (height, width))
    filling = cv2.warpAffine(
        donor, place, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101
    )
    return (
        region,
        filling,
        {
            "region": source,
            "donor": name,
            "donor_crop": asdict(crop),
            "donor_noise": noise,
            "donor_quality": quality,
            "colour_match": match,
            "scale": float(scale),
            "angle": angle,
            "place": place.tolist(),
        },
    )


def _copied(rng, host, region, recipe):
    """The region's new place and the host moved there: copy-move, never onto itself."""
    scale, angle = _resampling(rng, recipe)
    least, most = (np.sqrt(share / region.mean()) for share in recipe.area)
    scale = float(np.clip(scale, min(1, least), max(1, most)))
    place, scale = _elsewhere(rng, region, scale, angle, recipe.copy_distance)
    filling = cv2.warpAffine(host, place, host.shape[1::-1], borderMode=cv2.BORDER_REFLECT_101)
    history = {"scale": scale, "angle": angle, "place": place.tolist()}
    return _warped_region(region, place, host.shape[:2]), filling, history


def _removed(rng, host, region, recipe):
    """The region, and the host without what was in it."""
    method = recipe.inpainting[rng.integers(len(recipe.inpainting))]
    grown = cv2.dilate(region, np.ones((5, 5), np.uint8))
    if method == "clone":
        place, _ = _elsewhere(rng, region, 1.0, 0.0, recipe.copy_distance)
        cover = cv2.warpAffine(
            host,
            place,
            host.shape[1::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        return region, _blended(cover, host, grown), {"inpainting": method, "place": place.tolist()}
    algorithm = {"telea": cv2.INPAINT_TELEA, "ns": cv2.INPAINT_NS}[method]
    return region, cv2.inpaint(host, grown, 3, algorithm), {"inpainting": method}


def _blended(cover, host, region) -> np.ndarray:
    """The host with its region covered, the cover's colours led to the host's at the edge."""
    region = region.copy()
    region[[0, -1]] = region[:, [0, -1]] = 0  # Poisson's equation needs a rim
    x, y, width, height = cv2.boundingRect(region)
    centre = (x + width // 2, y + height // 2)
    return cv2.seamlessClone(cover, host, 255 * region, centre, cv2.NORMAL_CLONE)


def _resampling(rng, recipe) -> tuple[float, float]:
    """Scale, and angle in degrees."""
    if rng.random() >= recipe.resampled:
        return 1.0, 0.0
    scale = np.exp(rng.uniform(*np.log(recipe.scale)))
    return float(scale), rng.uniform(-recipe.rotation, recipe.rotation)


def _placed(rng, region, frame, scale, angle) -> tuple[np.ndarray, float]:
    """A random place for a region inside a frame: float64 ``(2, 3)`` on (x, y, 1), and the scale.

    The scale is less than asked for where the region would not fit. Unscaled and unturned, the
    place is a whole number of pixels away.
    """
    ys, xs = np.nonzero(region)
    outline = cv2.convexHull(np.stack([xs, ys], axis=1).astype(np.int32))[:, 0]  # (N, 2)
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turned = outline @ np.array([[cos, sin], [-sin, cos]])
    low, extent = turned.min(axis=0), np.ptp(turned, axis=0)
    inside = np.array(frame[::-1]) - 1
    scale = float(min(scale, *(inside / np.maximum(extent, 1e-9))))
    room = np.floor(inside - scale * extent + 1e-6).astype(int).clip(0)
    shift = rng.integers(0, room, endpoint=True) - scale * low
    return np.array(
        [[scale * cos, -scale * sin, shift[0]], [scale * sin, scale * cos, shift[1]]]
    ), scale


def _elsewhere(rng, region, scale, angle, distance) -> tuple[np.ndarray, float]:
    """As ``_placed`` in the region's own frame, but some way off, and smaller if it must be."""
    centre = np.append(np.mean(np.nonzero(region)[::-1], axis=1), 1)
    side = np.sqrt(region.sum())
    while True:
        for _ in range(50):
            place, used = _placed(rng, region, region.shape, scale, angle)
            if np.abs(place @ centre - centre[:2]).max() >= max(4, distance * used * side):
                return place, used
        scale *= 0.8


def _warped_region(region, place, size) -> np.ndarray:
    moved = cv2.warpAffine(255 * region, place, size[::-1])
    return (moved > 127).astype(np.uint8)


def _colour_matched(donor, host, strength) -> np.ndarray:
    """The donor with each channel's mean and contrast brought towards the host's."""
    if strength == 0:
        return donor
    (mean, std), (goal, goal_std) = (
        [values.ravel() for values in cv2.meanStdDev(image)] for image in (donor, host)
    )
    gain = np.clip(goal_std / np.maximum(std, 1), 0.6, 1.6) ** strength
    levels = np.arange(256)[:, None]
    curve = gain * (levels - mean) + mean + strength * (goal - mean)  # (256, 3)
    return cv2.LUT(donor, np.rint(curve).clip(0, 255).astype(np.uint8)[None])


def _saved_before(rng, image, chance, quality) -> tuple[np.ndarray, int | None]:
    """The image, saved as JPEG by chance, and the quality if it was."""
    if rng.random() >= chance:
        return image, None
    quality = int(rng.integers(*quality, endpoint=True))
    data = np.frombuffer(_jpeg(image, quality), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR), quality


def _finished(rng, image, recipe) -> tuple[bytes, dict]:
    """JPEG bytes of the image after blur and noise, and what was drawn for them."""
    blur = rng.uniform(*recipe.blur_sigma) if rng.random() < recipe.blur else None
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    noise = rng.uniform(*recipe.noise_sigma) if rng.random() < recipe.noise else None
    if noise:
        image = _noisy(rng, image, noise)
    quality = int(rng.integers(*recipe.final_quality, endpoint=True))
    full_colour = bool(rng.random() < recipe.final_full_colour)
    ending = {
        "blur": blur,
        "noise": noise,
        "final_quality": quality,
        "final_full_colour": full_colour,
    }
    return _jpeg(image, quality, full_colour), ending


def _noisy(rng, image, sigma) -> np.ndarray:
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(sigma)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def _is_grey(photo: np.ndarray) -> bool:
    return bool((photo == photo[..., :1]).all())


def _jpeg(image: np.ndarray, quality: int, full_colour: bool = False) -> bytes:
    """JPEG bytes; colour at half resolution as cameras save it, or in full as editors do."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if full_colour:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", image, options)[1].tobytes()


def _png(mask: np.ndarray) -> bytes:
    return cv2.imencode(".png", mask)[1].tobytes()


def _paths(row: dict) -> list[str]:
    """Image and, if it is manipulated, mask, relative to the set's folder."""
    side, name = row["side"], row["name"]
    if row["kind"] == UNTOUCHED:
        return [f"{side}/Au/{name}"]
    return [f"{side}/Tp/{name}", f"{side}/Gt/{Path(name).stem}.png"]


def _pair(out: Path, row: dict) -> list[str]:
    paths = [str(out / path) for path in _paths(row)]
    return paths if len(paths) == 2 else [*paths, "Negative"]


def _inputs(photos: Path, labels, recipe: Recipe) -> tuple[list[str], dict[str, str]]:
    """Names of the usable photographs, and of the label maps by photograph.

    Usable are those whose header can be read and whose sides are long enough; of files with the
    same bytes only the first is.
    """
    files = find_photos(photos)
    maps = {} if labels is None else _label_maps(photos, files, Path(labels))
    taken = {(Path(labels) / name).resolve() for name in maps.values()}
    longest, shortest = recipe.image_size / 2, recipe.image_size / 4
    if recipe.square:
        longest = shortest = recipe.image_size
    sizes = {}
    for path in tqdm(files, desc="photographs", unit="file", delay=2):
        size = _image_size(path)
        if size and max(size) >= longest and min(size) >= shortest and path.resolve() not in taken:
            sizes[path] = size
    alike = Counter(path.stat().st_size for path in sizes)
    seen, names = set(), []
    for path in sizes:
        length = path.stat().st_size
        content = hashlib.sha256(path.read_bytes()).digest() if alike[length] > 1 else length
        if content not in seen:
            seen.add(content)
            names.append(str(path.relative_to(photos)))
    maps = {name: maps[name] for name in names if name in maps}
    for name, label in maps.items():
        size, expected = _image_size(Path(labels) / label), sizes[photos / name]
        if size != expected:
            got = "a file that is no image" if size is None else f"{size[1]}x{size[0]} pixels"
            raise SynthesisError(
                f"got {got} in the label map {Path(labels) / label}, expected the "
                f"{expected[1]}x{expected[0]} of its photograph: give a label map of the "
                "photograph's size, or remove it"
            )
    if labels is not None and not maps:
        raise SynthesisError(
            f"got no label map in {labels} for any of {len(names)} usable photographs in {photos}, "
            f"expected PNG files named like them: x.png or, beside a folder, folder{LABEL_FOLDER}"
            "/x.png"
        )
    return names, maps


def _label_maps(photos: Path, files: list[Path], labels: Path) -> dict[str, str]:
    if not labels.is_dir():
        raise SynthesisError(f"got {labels}, expected a folder of label maps: there is none")
    maps = {}
    for path in files:
        name = path.relative_to(photos).with_suffix(".png")
        folder = name.parent
        places = [name]
        if folder.name:
            places.append(folder.with_name(folder.name + LABEL_FOLDER) / name.name)
        for place in places:
            if (labels / place).is_file() and (labels / place).resolve() != path.resolve():
                maps[str(path.relative_to(photos))] = str(place)
                break
    return maps


def _image_size(path: Path) -> tuple[int, int] | None:
    """Height and width from a file's header, as it is to be shown, or ``None`` if there is none."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) >= 5
            return image.size if turned else image.size[::-1]
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


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
    kept = json.loads(file.read_text())
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


def _journal(folder: Path) -> dict[tuple[str, int], dict]:
    """Rows of the images that an earlier run finished, by side and number."""
    files = [folder / name for name in ("manifest.jsonl", "journal.jsonl")]
    rows = {}
    for line in "".join(file.read_text() for file in files if file.is_file()).splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # cut off by the end of the run
            continue
        if all((folder / path).is_file() for path in _paths(row)):
            rows[row["side"], row["index"]] = row
    return rows
