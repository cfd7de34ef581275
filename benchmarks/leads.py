r"""Measure how often the leads of ``qma-net examine`` are right and wrong, and what they cost.

    python -m benchmarks.leads rates --data ../shared --out docs/leads/rates.json
    python -m benchmarks.leads double_jpeg --data ../shared --limit 60 \
        --out docs/leads/double_jpeg.json
    python -m benchmarks.leads time --data ../shared --out docs/leads/time.json

``rates``: every second image of each set, in the order of the names, is measured, up to
``--limit`` per set. The thresholds of the methods were chosen with samples of all images of
COMOFOD, CASIA2_samples, DST18, IMD2020, WEB, CCP and CAMERA, so these are not strictly held out. Of
BSDS500 only the grids of 24 images were looked at; COCO256 and ImageNetSample1000 were not used.
``--sets`` measures some of the sets again and replaces them in the file.

- *copies*: copy-moves of ``real/COMOFOD``, of which one is found if one region of a pair overlaps
  the mask, which covers the copy alone, by an intersection over union above 0.3. Authentic photos
  with any pair are false alarms.
- *synthetic copy-moves*: a rectangle of an eighth of the photo is copied to a random place, and the
  result is saved as JPEG at quality 90.
- *regions with a different grid*: a region cut from another photo is pasted at an offset that is
  not a multiple of 8, and the result saved as PNG, which makes the ground truth known. It is found
  if a reported region overlaps it by an intersection over union above 0.3. False alarms are as
  above.
- *grid of the photo*: authentic photos are cropped by a random offset and saved as PNG and as JPEG
  of higher quality, and downscaled to 60%, which destroys the grid.
- *noise level*: the area under the ROC curve (AUC) of the deviation from the typical level, for the
  pixels of the mask against the others. The region stands out if it is at least 0.75. For authentic
  photos, the masks of the manipulated images of the set are used in turn.
- *real manipulations*: how many images of each set have any pair or region, and in how many it
  overlaps the mask. They are of all kinds, and most are not what the methods look for.

``double_jpeg``: traces of an earlier JPEG compression with the same grid. Thresholds were chosen
with the other images of CAMERA, WEB, CCP, BSDS500, COCO256 and ImageNetSample1000.

- *files*: how many are JPEGs in which the traces can be measured, how many of the photos had
  already been compressed (their history is unknown, except that those of CAMERA are camera
  originals), and in how many a region is reported, which is a false alarm in authentic photos.
- *reduced*: authentic photos downscaled to 60%, which destroys earlier traces, saved
  with quality 90 or 95 (an earlier compression and regions are false), and saved with quality 60,
  70 or 80 and then 90 (an earlier compression within 2 of this is detected, regions are false).
- *resaved*: authentic photos saved again as they are with quality 90 or 95; regions are false.
- *splices*: in a photo downscaled in the same way, the middle quarter is saved with quality 60, 70
  or 80, and the result with quality 90. It is found as in ``rates``.

``time``: seconds for a JPEG of 4000x3000 pixels, composed of crops of ``photos/CAMERA``, with one
thread: the examination without a model and with qma-net-small, including its report, and each new
lead.
"""

import argparse
import io
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from qma_net.core.files import write_json
from qma_net.examine import examine_photo
from qma_net.examine.leads.copies import copies_lead
from qma_net.examine.leads.double_jpeg import Ghost, find_ghosts
from qma_net.examine.leads.jpeg_grid import find_grids, grid_lead, present_grid
from qma_net.examine.leads.noise_level import noise_lead, noise_levels, typical_levels
from qma_net.inference.photograph import Photograph, read_photograph
from qma_net.inference.predictor import QMANetPredictor
from qma_net.weights.locate import load_model
from qma_net.weights.names import SMALL

MANIPULATED = ("COMOFOD", "CASIA2_samples", "DST18", "IMD2020")
AUTHENTIC = ("WEB", "CCP", "CAMERA", "BSDS500", "COCO256", "ImageNetSample1000")
FOUND = 0.3  # Intersection over union.
STANDS_OUT = 0.75  # Area under the ROC curve.


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("rates", "double_jpeg", "time"))
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--limit", type=int, default=150, help="images of each set")
    parser.add_argument("--half", choices=("even", "odd", "all"), default="odd")
    parser.add_argument("--sets", nargs="+", default=[*MANIPULATED, *AUTHENTIC], metavar="NAME")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    if args.what == "time":
        result = measure_time(args.data / "photos/CAMERA")
    elif args.what == "double_jpeg":
        result = measure_double_jpeg(args.data, args.sets, args.half, args.limit)
        result |= {"half": args.half, "limit": args.limit}
    else:
        result = {"manipulated": {}, "authentic": {}}
        if args.out.exists():
            result = json.loads(args.out.read_text(encoding="utf-8"))
        new = measure_rates(args.data, args.sets, args.half, args.limit)
        for kind, rates in new.items():
            result[kind] |= rates
        result |= {"half": args.half, "limit": args.limit}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, result)


def measure_rates(data: Path, sets: list[str], half: str, limit: int) -> dict[str, Any]:
    """Measure detection and false alarms of all leads."""
    result: dict[str, Any] = {"manipulated": {}, "authentic": {}}
    noise_masks = []
    for name in MANIPULATED:
        rows = []
        for path in select(data / "real" / name / "Tp", half, limit):
            photo = read_photograph(path)
            mask = read_mask(path, photo.pixels.shape[:2])
            noise_masks.append(mask)
            if name in sets:
                rows.append(measure_image(photo, mask))
        if name in sets:
            result["manipulated"][name] = summary(rows)
            print(name, result["manipulated"][name], flush=True)
    rng = np.random.default_rng(0)
    previous: np.ndarray | None = None
    for name in (name for name in AUTHENTIC if name in sets):
        rows = []
        for number, path in enumerate(select(data / "photos" / name, half, limit)):
            photo = read_photograph(path)
            pixels = photo.pixels
            mask = noise_masks[number % len(noise_masks)]
            mask = cv2.resize(mask.astype(np.uint8), pixels.shape[1::-1], interpolation=0) > 0
            row = measure_image(photo, mask) | measure_crop(pixels, rng) | measure_copy(pixels, rng)
            if previous is not None:
                row |= measure_splice(pixels, previous, rng)
            previous = pixels
            rows.append(row)
        result["authentic"][name] = rates = summary(rows)
        print(name, rates, flush=True)
    return result


def select(folder: Path, half: str, limit: int) -> list[Path]:
    """Return at most ``limit`` images of one half of a folder, evenly distributed."""
    paths = sorted(folder.iterdir())
    if half != "all":
        paths = paths[half == "odd" :: 2]
    return [paths[i] for i in np.linspace(0, len(paths) - 1, min(limit, len(paths))).astype(int)]


def read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read the mask of an image in the layout of IMDL-BenCo, bool ``(H, W)``."""
    file = next((path.parents[1] / "Gt").glob(f"{path.stem}*"))
    mask = np.asarray(Image.open(file).convert("L"))
    return np.asarray(cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST) > 127)


def measure_image(photo: Photograph, mask: np.ndarray) -> dict[str, bool]:
    """Measure what the leads report for an image, and whether it is inside the mask."""
    pixels, is_jpeg = photo.pixels, Path(photo.name).suffix == ".jpg"
    copies = copies_lead(pixels).findings
    regions = grid_lead(pixels, present_grid(photo) if is_jpeg else None).findings
    levels, brightness = noise_levels(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    deviation = np.abs(levels - typical_levels(levels, brightness))
    auc = area_under_curve(deviation, block_mask(mask, deviation.shape))
    return {
        "copies": bool(copies),
        "copies_at_mask": any(overlap(box, mask) > FOUND for pair in copies for box in pair),
        "grid_regions": bool(regions),
        "grid_regions_at_mask": any(overlap(region[0], mask) > FOUND for region in regions),
        "noise_stands_out": auc >= STANDS_OUT,
    }


def overlap(box: tuple[int, int, int, int], mask: np.ndarray) -> float:
    """Return the intersection over union of a box and the bounding box of a mask."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    left, top, right, bottom = box
    width, height = min(right, x + w) - max(left, x), min(bottom, y + h) - max(top, y)
    both = max(width, 0) * max(height, 0)
    return both / ((right - left) * (bottom - top) + w * h - both)


def block_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Reduce a mask to blocks, of which most pixels count."""
    blocks = cv2.resize(mask.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(blocks > 0.5)


def area_under_curve(scores: np.ndarray, mask: np.ndarray) -> float:
    """Return the probability that a score inside the mask is higher than one outside."""
    inside, outside = scores[mask], np.sort(scores[~mask])
    if not inside.size or not outside.size:
        return 0.5
    below = np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")
    return float(below.mean() / (2 * outside.size))


def measure_crop(pixels: np.ndarray, rng: np.random.Generator) -> dict[str, bool]:
    """Measure whether the grid of a cropped photo is detected, and one that was destroyed."""
    x, y = (int(value) for value in rng.integers(1, 8, 2))
    cropped = pixels[8 - y :, 8 - x :]
    file = io.BytesIO()
    Image.fromarray(cropped).save(file, "JPEG", quality=98)
    reduced = cv2.resize(pixels, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    origins = [find_grids(p)[0] for p in (cropped, np.asarray(Image.open(file)), reduced)]
    return {
        "crop_found": origins[0] == (x, y),
        "crop_wrong": origins[0] not in ((x, y), None),
        "crop_found_after_jpeg_98": origins[1] == (x, y),
        "crop_wrong_after_jpeg_98": origins[1] not in ((x, y), (0, 0), None),
        "grid_after_reduction": origins[2] is not None,
    }


def measure_copy(pixels: np.ndarray, rng: np.random.Generator) -> dict[str, bool]:
    """Measure whether a copy-move of an eighth of the photo is found after compression."""
    height, width = (round(side / 8**0.5) for side in pixels.shape[:2])
    bottom, right = pixels.shape[0] - height, pixels.shape[1] - width
    # From the upper to the lower part, or they could overlap.
    source = int(rng.integers(0, bottom - height)), int(rng.integers(0, right))
    target = int(rng.integers(source[0] + height, bottom)), int(rng.integers(0, right))
    tampered, mask = pixels.copy(), np.zeros(pixels.shape[:2], bool)
    patch = pixels[source[0] : source[0] + height, source[1] : source[1] + width]
    inside = slice(target[0], target[0] + height), slice(target[1], target[1] + width)
    tampered[inside], mask[inside] = patch, True
    file = io.BytesIO()
    Image.fromarray(tampered).save(file, "JPEG", quality=90)
    pairs = copies_lead(np.array(Image.open(file))).findings
    return {"copy_found": any(overlap(box, mask) > FOUND for pair in pairs for box in pair)}


def measure_splice(
    pixels: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> dict[str, bool]:
    """Measure whether a quarter of another photo is found that is pasted with shifted blocks."""
    height, width = (
        min(a, b) // 2 // 8 * 8 for a, b in zip(pixels.shape[:2], other.shape[:2], strict=True)
    )
    x, y = (int(value) for value in rng.integers(1, 8, 2))
    spliced = pixels.copy()
    spliced[y : y + height, x : x + width] = other[:height, :width]
    mask = np.zeros(pixels.shape[:2], bool)
    mask[y : y + height, x : x + width] = True
    regions = find_grids(spliced)[1]
    return {
        "splices": True,
        "splice_found": any(r.origin == (x, y) and overlap(r.box, mask) > FOUND for r in regions),
    }


def measure_double_jpeg(data: Path, sets: list[str], half: str, limit: int) -> dict[str, Any]:
    """Measure detection and false alarms of traces of an earlier JPEG compression."""
    result: dict[str, Any] = {"manipulated": {}, "authentic": {}}
    for name in sets:
        is_real = name in MANIPULATED
        folder = data / "real" / name / "Tp" if is_real else data / "photos" / name
        rows = []
        for number, path in enumerate(select(folder, half, limit)):
            data_of_file = path.read_bytes()
            ghosts = ghosts_of(data_of_file)
            row = {"measured": ghosts is not None} | ghost_row("file", ghosts)
            if is_real:
                mask = read_mask(path, read_photograph(path).pixels.shape[:2])
                row["regions_at_mask"] = any(
                    overlap(g.box, mask) > FOUND for g in (ghosts or (None, []))[1]
                )
            else:
                pixels, earlier = read_photograph(path).pixels, (60, 70, 80)[number % 3]
                last = (90, 95)[number % 2]
                row |= ghost_row("resaved", ghosts_of(as_jpeg(pixels, last)))
                row |= measure_reduced(pixels, earlier, last)
            rows.append(row)
        kind = "manipulated" if is_real else "authentic"
        result[kind][name] = summary(rows)
        print(name, result[kind][name], flush=True)
    return result


def measure_reduced(pixels: np.ndarray, earlier: int, last: int) -> dict[str, bool]:
    """Measure a downscaled photo that is compressed once, twice, and twice in a quarter."""
    reduced = cv2.resize(pixels, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    row = ghost_row("once", ghosts_of(as_jpeg(reduced, last)))
    saved = np.array(Image.open(io.BytesIO(as_jpeg(reduced, earlier))).convert("RGB"))
    twice = ghosts_of(as_jpeg(saved, 90))
    row |= ghost_row("twice", twice)
    quality = twice[0] if twice else None
    row["twice_found"] = quality is not None and abs(quality - earlier) <= 2
    y, x = (side // 4 // 8 * 8 for side in reduced.shape[:2])
    inside = slice(y, 3 * y), slice(x, 3 * x)
    mask = np.zeros(reduced.shape[:2], bool)
    reduced[inside], mask[inside] = saved[inside], True
    found = ghosts_of(as_jpeg(reduced, 90))
    regions = found[1] if found else []
    row["splice_found"] = any(overlap(region.box, mask) > FOUND for region in regions)
    row["splice_elsewhere"] = any(overlap(region.box, mask) == 0 for region in regions)
    return row


def as_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """Encode pixels as JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def ghosts_of(data: bytes) -> tuple[int | None, list[Ghost]] | None:
    """Search a file that is not rotated for ghosts; None if it is no JPEG."""
    with Image.open(io.BytesIO(data)) as image:
        tables = getattr(image, "quantization", None)
        return find_ghosts(np.array(image.convert("RGB")), tables[0]) if tables else None


def ghost_row(name: str, ghosts: tuple[int | None, list[Ghost]] | None) -> dict[str, bool]:
    """Return whether an earlier compression and regions were reported."""
    quality, regions = ghosts or (None, [])
    return {f"{name}_double": quality is not None, f"{name}_regions": bool(regions)}


def summary(rows: list[dict[str, bool]]) -> dict[str, int]:
    """Count the images, and those for which each condition is true."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {"images": len(rows)} | {
        name: sum(row.get(name, False) for row in rows) for name in names
    }


def measure_time(folder: Path) -> dict[str, Any]:
    """Measure the seconds of an examination and of each new lead."""
    data = large_photo(folder)
    pixels = read_photograph(data).pixels
    seconds: dict[str, float] = {}
    for lead in (copies_lead, grid_lead, noise_lead):
        start = time.perf_counter()
        lead(pixels)
        seconds[lead.__name__] = time.perf_counter() - start
    new = sum(seconds.values())
    result: dict[str, Any] = {"size": [pixels.shape[1], pixels.shape[0]], "new_leads": seconds}
    for name, predictor in (("without_model", None), ("with_model", small_model())):
        with tempfile.TemporaryDirectory() as folder_of_report:
            start = time.perf_counter()
            examine_photo(predictor, data, out=folder_of_report)
            total = time.perf_counter() - start
        result[name] = {"before": total - new, "after": total, "ratio": total / (total - new)}
        result[name]["leads_to_before"] = new / (total - new)
        print(name, result[name], flush=True)
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return result


def large_photo(folder: Path) -> bytes:
    """Compose a JPEG of 4000x3000 pixels from crops of 1000x1000 pixels."""
    tiles: list[np.ndarray] = []
    for path in sorted(folder.iterdir()):
        pixels = read_photograph(path).pixels
        if min(pixels.shape[:2]) >= 1000 and len(tiles) < 12:
            tiles.append(pixels[:1000, :1000])
    file = io.BytesIO()
    photo = np.vstack([np.hstack(tiles[i : i + 4]) for i in (0, 4, 8)])
    Image.fromarray(photo).save(file, "JPEG", quality=92)
    return file.getvalue()


def small_model() -> QMANetPredictor:
    """Load the model that is included in the package."""
    return QMANetPredictor(load_model(SMALL), device="cpu")


if __name__ == "__main__":
    main()
