"""Manipulated photographs with exact masks, made out of untouched ones.

Splicing, copy-move and removal by inpainting on JPEG photographs with a known history: the host
has been saved as JPEG before; what is spliced into it mostly not, and it has the noise of a more
sensitive camera; the result is saved again. Half of the splices come from the host's own
photograph: only their history gives them away, not their content. Photographs are divided before
anything is made, so none lends pixels to both sides. Each image depends on nothing but the seed,
its side and its number.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")

# Kinds of manipulation and their shares of the training set; the test set has equal shares.
KIND_SHARES = {"splice": 0.7, "copymove": 0.1, "removal": 0.2}


@dataclass(frozen=True)
class Recipe:
    """How the images are made.

    Lengths are in pixels, qualities on JPEG's scale, areas are shares, noise is the standard
    deviation in grey levels. The defaults make a history that a small model learns to see in
    minutes.
    """

    image_size: int = 128
    area: tuple[float, float] = (0.05, 0.15)
    host_quality: tuple[int, int] = (40, 70)
    donor_quality: tuple[int, int] = (90, 100)
    donor_saved_before: float = 0.2
    donor_noise: tuple[float, float] = (5.0, 12.0)
    same_photograph: float = 0.5
    final_quality: tuple[int, int] = (94, 99)
    zoom: tuple[float, float] = (0.25, 0.6)
    exposure: tuple[float, float] = (0.7, 1.4)
    edge_softness: float = 0.7
    test_share: float = 0.25


class SynthesisError(ValueError):
    """Photographs that cannot be used; one line says why."""


def synthesise(
    photos: str | os.PathLike,
    out: str | os.PathLike,
    count: int = 600,
    test_count: int = 90,
    image_size: int = 128,
    seed: int = 0,
    recipe: Recipe | None = None,
) -> Path:
    """Writes ``train/{Tp,Gt}``, ``test/{Tp,Gt}`` and ``manifest.jsonl`` under ``out``.

    A finished ``out`` of the same settings is left as it is; one of other settings is replaced.
    The folder appears complete or not at all.

    Args:
        photos: folder of untouched photographs, searched recursively.
        out: folder to write.
        count: training images.
        test_count: test images, an equal number of each kind of manipulation.
        image_size: their side in pixels.
        seed: of everything random.
        recipe: how they are made; ``image_size`` overrides its own.

    Returns:
        ``out``.

    Raises:
        SynthesisError: when there are fewer than four usable photographs.
    """
    recipe = Recipe(**{**asdict(recipe or Recipe()), "image_size": image_size})
    out, photos = Path(out), Path(photos)
    names = [str(path.relative_to(photos)) for path in find_photos(photos)]
    settings = {
        "photos": names,
        "count": count,
        "test_count": test_count,
        "seed": seed,
        "recipe": asdict(recipe),
    }
    settings = json.loads(json.dumps(settings))
    if _settings_of(out) == settings:
        return out
    photographs = _read_all(photos, names, recipe.image_size)
    sides = split_photos(sorted(photographs), recipe.test_share, seed)
    unfinished = out.with_name(out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    rows = []
    for side, number in (("train", count), ("test", test_count)):
        pool = {name: photographs[name] for name in sides[side]}
        kinds = _kinds(side, number)
        for folder in ("Tp", "Gt"):
            (unfinished / side / folder).mkdir(parents=True)
        for index, kind in enumerate(tqdm(kinds, desc=f"{side} images", unit="image")):
            rng = np.random.default_rng([seed, side == "test", index])
            image, mask, history = manipulate(rng, kind, pool, recipe)
            stem = f"{kind}_{index:05d}"
            quality = int(rng.integers(*recipe.final_quality, endpoint=True))
            (unfinished / side / "Tp" / f"{stem}.jpg").write_bytes(
                _jpeg(image, quality, full_colour=True)
            )
            (unfinished / side / "Gt" / f"{stem}.png").write_bytes(_png(mask))
            row = {"side": side, "name": f"{stem}.jpg", "kind": kind, "final_quality": quality}
            rows.append({**row, "area": float((mask > 0).mean()), **history})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (unfinished / "manifest.jsonl").write_text(lines)
    (unfinished / "settings.json").write_text(json.dumps(settings, indent=1))
    shutil.rmtree(out, ignore_errors=True)
    unfinished.rename(out)
    return out


def find_photos(folder: str | os.PathLike) -> list[Path]:
    """Image files under a folder, sorted by path."""
    folder = Path(folder)
    if not folder.is_dir():
        raise SynthesisError(f"got {folder}, expected a folder of photographs: there is none")
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)


def split_photos(names: list[str], test_share: float, seed: int) -> dict[str, list[str]]:
    """Training and test photographs, disjoint; at least two on each side."""
    if len(names) < 4:
        raise SynthesisError(
            f"got {len(names)} usable photographs, expected at least 4: two to learn from and two "
            "to test on"
        )
    order = [names[i] for i in np.random.default_rng([seed, 2]).permutation(len(names))]
    held_out = min(max(2, round(test_share * len(names))), len(names) - 2)
    return {"test": sorted(order[:held_out]), "train": sorted(order[held_out:])}


def manipulate(
    rng: np.random.Generator, kind: str, pool: dict[str, np.ndarray], recipe: Recipe
) -> tuple[np.ndarray, np.ndarray, dict]:
    """One manipulated image.

    Args:
        rng: source of everything random.
        kind: ``"splice"``, ``"copymove"`` or ``"removal"``.
        pool: photographs by name, uint8 ``(H, W, 3)``.
        recipe: how it is made.

    Returns:
        The image, uint8 ``(S, S, 3)``; its mask, uint8 ``(S, S)`` of 0 and 255; its history.
    """
    names = sorted(pool)
    host_name = names[rng.integers(len(names))]
    host_quality = int(rng.integers(*recipe.host_quality, endpoint=True))
    host = _resave(_crop(rng, pool[host_name], recipe), host_quality)
    history = {"host": host_name, "host_quality": host_quality}
    area = np.exp(rng.uniform(*np.log(recipe.area)))
    region = random_region(rng, recipe.image_size, area)
    if kind == "splice":
        filling, source = _donor(rng, pool, host_name, recipe)
        history.update(source)
    elif kind == "copymove":
        region, filling, history["shift"] = _shifted(rng, host, region)
    else:
        filling = cv2.inpaint(host, _grown(region), 3, cv2.INPAINT_TELEA)
    alpha = cv2.GaussianBlur(region.astype(np.float32), (0, 0), recipe.edge_softness)[..., None]
    image = np.rint(alpha * filling + (1 - alpha) * host).astype(np.uint8)
    return image, np.where(alpha[..., 0] > 0.5, 255, 0).astype(np.uint8), history


def random_region(rng: np.random.Generator, size: int, area: float) -> np.ndarray:
    """A random smooth shape inside a square, uint8 ``(size, size)`` of 0 and 1.

    Its radius is a circle's with a few harmonics; ``area`` is its share of the square.
    """
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
    shape *= np.sqrt(area * size * size / outline_area)
    low, high = shape.min(axis=0), shape.max(axis=0)
    room = np.maximum(size - (high - low), 0)
    shape += rng.uniform(0, 1, 2) * room - low
    region = np.zeros((size, size), np.uint8)
    cv2.fillPoly(region, [np.rint(shape).astype(np.int32)], 1)
    return region


def _donor(rng, pool, host_name, recipe) -> tuple[np.ndarray, dict]:
    others = [name for name in sorted(pool) if name != host_name]
    name = host_name if rng.random() < recipe.same_photograph else others[rng.integers(len(others))]
    donor = _crop(rng, pool[name], recipe)
    noise = rng.uniform(*recipe.donor_noise)
    donor = np.clip(np.rint(donor + rng.normal(0, noise, donor.shape)), 0, 255).astype(np.uint8)
    if _is_grey(pool[host_name]):
        donor = cv2.cvtColor(cv2.cvtColor(donor, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    quality = None
    if rng.random() < recipe.donor_saved_before:
        quality = int(rng.integers(*recipe.donor_quality, endpoint=True))
        donor = _resave(donor, quality)
    return donor, {"donor": name, "donor_quality": quality, "donor_noise": float(noise)}


def _shifted(rng, host, region) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """The region's new place and the host moved there: copy-move, never onto itself."""
    ys, xs = np.nonzero(region)
    size = len(region)
    low = np.array([-ys.min(), -xs.min()])
    high = np.array([size - 1 - ys.max(), size - 1 - xs.max()])
    reach = max(4, round(np.sqrt(region.sum()) / 2))
    for _ in range(50):
        shift = rng.integers(low, high, endpoint=True)
        if np.abs(shift).max() >= reach:
            break
    dy, dx = (int(s) for s in shift)
    return (
        np.roll(region, (dy, dx), axis=(0, 1)),
        np.roll(host, (dy, dx), axis=(0, 1)),
        [dy, dx],
    )


def _crop(rng, photo: np.ndarray, recipe: Recipe) -> np.ndarray:
    """A random square, zoomed out a little and turned or mirrored, ``(S, S, 3)``."""
    size = recipe.image_size
    shortest = min(photo.shape[:2])
    side = min(shortest, round(size / rng.uniform(*recipe.zoom)))
    y = rng.integers(photo.shape[0] - side, endpoint=True)
    x = rng.integers(photo.shape[1] - side, endpoint=True)
    crop = photo[y : y + side, x : x + side]
    crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    crop = np.rot90(_exposed(crop, rng.uniform(*recipe.exposure)), rng.integers(4))
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


def _exposed(photo: np.ndarray, gamma: float) -> np.ndarray:
    """The photograph a little darker or lighter: fewer images look alike."""
    return cv2.LUT(photo, np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8))


def _read_all(folder: Path, names: list[str], image_size: int) -> dict[str, np.ndarray]:
    """The photographs that can be decoded and are large enough, by name."""
    photographs = {}
    for name in names:
        data = np.fromfile(folder / name, np.uint8)
        photo = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if photo is not None and min(photo.shape[:2]) >= image_size:
            photographs[name] = photo
    return photographs


def _kinds(side: str, number: int) -> list[str]:
    """The kind of each image, in blocks; equal numbers on the test side."""
    kinds = list(KIND_SHARES)
    if side == "test":
        return sorted(kinds[i % len(kinds)] for i in range(number))
    shares = np.cumsum(list(KIND_SHARES.values()))
    return [kinds[int(np.searchsorted(shares, (i + 0.5) / number))] for i in range(number)]


def _settings_of(out: Path) -> dict | None:
    file = out / "settings.json"
    return json.loads(file.read_text()) if file.is_file() else None


def _is_grey(photo: np.ndarray) -> bool:
    return bool((photo == photo[..., :1]).all())


def _grown(region: np.ndarray) -> np.ndarray:
    return cv2.dilate(region, np.ones((5, 5), np.uint8))


def _jpeg(image: np.ndarray, quality: int, full_colour: bool = False) -> bytes:
    """JPEG bytes; colour at half resolution as cameras save it, or in full as editors do."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if full_colour:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", image, options)[1].tobytes()


def _png(mask: np.ndarray) -> bytes:
    return cv2.imencode(".png", mask)[1].tobytes()


def _resave(image: np.ndarray, quality: int) -> np.ndarray:
    data = np.frombuffer(_jpeg(image, quality), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)
