"""A copy of a dataset with the repairs that lose nothing; the source stays as it is."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from ..core.errors import QMANetError
from ..core.files import copy_file, safe_path, unique_name, write_png, write_text
from ..core.images import INVERSE_TRANSPOSE, ImageError, decoding, open_image
from .check import check_pairs
from .facts import AllFacts, Facts, mask_as_benco
from .findings import ERRORS, Finding
from .listing import NEGATIVE, Listing, Pair


class RepairError(QMANetError):
    """A place that a copy must not be written to; one line says why."""


def repair(
    paths: Iterable[str | os.PathLike],
    out: str | os.PathLike,
    *,
    workers: int | None = None,
    allow: Iterable[str] = (),
    progress: bool = True,
) -> list[str]:
    """Writes repaired copies of datasets, and says what it changed and what it left out.

    Repaired: masks coded 0/1 or as arrays (above 0 is tampered), palette and deep masks and grey
    edges (cut where BenCo cuts), inverted masks (unless allowed), masks drawn on the turned
    photograph, names that pair wrongly, relative and dead paths. Left out: pairs with an
    unreadable, missing or lonely file, an empty mask, or a fault that needs a person.

    Args:
        paths: what :func:`qma_net.data.check.check` takes.
        out: folder for one dataset, or of folders, one per dataset and named after it.
        workers: processes, default one per core.
        allow: problems that are known to be right here.
        progress: show a progress bar.

    Returns:
        One line per file that is not copied as it was.

    Raises:
        RepairError: for an ``out`` inside a source, or around it.
        PathError: for a set or a file whose name leads out of ``out``; nothing is written.
        ListingError, FindingsError, WorkersError: as :func:`qma_net.data.check.check`.
    """
    out = Path(out).resolve()
    report, sets, facts = check_pairs(paths, workers=workers, allow=allow, progress=progress)
    for listing, _ in sets:
        source = listing.path.resolve()
        if out == source or out in source.parents or (listing.is_folder and source in out.parents):
            raise RepairError(f"got --fix {out} with {source}, expected a folder apart from it")
    findings = {(finding.file, finding.problem): finding for finding in report.errors}
    taken = set()
    names = [unique_name(listing.name, taken) for listing, _ in sets]
    for name in names:
        safe_path(out, f"{name}.json")
    changes = []
    for name, (listing, pairs) in zip(names, sets, strict=True):
        folder = safe_path(out, name) if len(sets) > 1 else out
        changes += _copy(listing, list(dict.fromkeys(pairs)), facts, findings, folder, name)
    changes += [
        f"{one.file}: left out ({one.problem}: {one.remedy})"
        for one in report.errors
        if one.problem in ("unpaired", "missing-file") and not one.fixable
    ]
    return changes


def _copy(
    listing: Listing,
    pairs: list[Pair],
    facts: AllFacts,
    findings: dict[tuple[str, str], Finding],
    folder: Path,
    name: str,
) -> list[str]:
    """Writes the repaired copy of one dataset; returns what was changed and left out, in lines."""
    changes, rows, taken = [], [], set()
    for pair in pairs:
        stem = unique_name(pair.image.stem, taken)
        mask = facts.masks.get(pair.mask)
        left_out = _left_out(pair, findings)
        if left_out:
            changes.append(f"{left_out.file}: left out ({left_out.problem}: {left_out.remedy})")
            continue
        part = folder / ("Tp" if mask else "Au")
        image = safe_path(part, f"{stem}{pair.image.suffix}")
        if not mask:
            copy_file(pair.image, image)
            rows.append([str(image), NEGATIVE])
            continue
        inverted = (str(pair.mask), "mask-inverted") in findings
        try:
            target, change = _copy_mask(
                pair,
                mask,
                facts.images[pair.image],
                inverted=inverted,
                target=safe_path(folder / "Gt", f"{stem}.png"),
            )
        except ImageError as error:
            changes.append(f"{pair.mask}: left out (unreadable: {error.reason})")
            continue
        copy_file(pair.image, image)
        rows.append([str(image), str(target)])
        if change:
            changes.append(f"{pair.mask}: {change}")
        if target.stem != pair.mask.stem:
            changes.append(f"{pair.mask}: renamed to {target.name}")
    if not listing.is_folder:
        write_text(safe_path(folder, f"{name}.json"), json.dumps(rows, indent=1))
        changes.append(f"{listing.path}: {len(rows)} rows, absolute paths, {folder / name}.json")
    return changes


def _left_out(pair: Pair, findings: dict[tuple[str, str], Finding]) -> Finding | None:
    """The finding about a pair that no lossless repair answers, if there is one."""
    for file in (pair.image, pair.mask):
        for problem in ERRORS:
            finding = findings.get((str(file), problem))
            if problem in ("duplicate", "near-duplicate", "unpaired") or not finding:
                continue
            if not finding.fixable:
                return finding
    return None


def _copy_mask(
    pair: Pair, mask: Facts, image: Facts, *, inverted: bool, target: Path
) -> tuple[Path, str]:
    """Writes a mask; returns where, and what was changed in it ('' for nothing)."""
    change = ""
    if mask.mode == "array":
        pixels, change = _first_array(pair.mask), "array to PNG, above 0 as tampered"
    elif mask.white == 0:
        with open_image(pair.mask) as opened, decoding(str(pair.mask)):
            pixels = np.asarray(opened) > 0
        change = f"largest value {mask.top}: above 0 as tampered"
    elif mask.two_valued and mask.mode in ("L", "1", "RGB", "RGBA"):
        pixels = None
    else:
        pixels, change = mask_as_benco(pair.mask), "cut at 127.5, as BenCo does, to 0 and 255"
    turned = image.orientation in INVERSE_TRANSPOSE and mask.size == image.size[::-1] != image.size
    if pixels is None and not inverted and not turned:
        target = target.with_suffix(pair.mask.suffix)
        copy_file(pair.mask, target)
        return target, ""
    if pixels is None:
        pixels = mask_as_benco(pair.mask)
    if inverted:
        pixels, change = ~pixels, f"{change}, inverted".lstrip(", ")
    written = Image.fromarray(np.where(pixels, 255, 0).astype(np.uint8))
    if turned:
        written = written.transpose(INVERSE_TRANSPOSE[image.orientation])
        change = f"{change}, turned back by its photograph's EXIF orientation".lstrip(", ")
    write_png(target, np.asarray(written))
    return target, change


def _first_array(path: Path) -> np.ndarray:
    """The mask in an .npy or the first of an .npz, ``(H, W)``, without single dimensions."""
    with decoding(str(path)):
        content = np.load(path, allow_pickle=False)
        if not isinstance(content, np.ndarray):
            content = content[content.files[0]]
        return np.squeeze(content) > 0
