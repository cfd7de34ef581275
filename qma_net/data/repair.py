"""Repaired copies of datasets, for ``data check --fix``; the source is not modified."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from ..core.errors import QMANetError
from ..core.files import copy_file, safe_path, unique_name, write_json
from ..core.images import TRANSPOSED_ORIENTATIONS, ImageError, decoding, open_image, rgb_pixels
from ..core.runs import LOCK_NAME, Run
from .check import Finding, Report, check
from .convert import rotate_mask, write_mask
from .facts import Facts, mask_as_benco, read_array
from .listing import NEGATIVE, Listing, Pair

REPAIR_JOURNAL = ".fix.jsonl"  # Lists the files of a copy, so that no others are overwritten.
# Problems after which files of an earlier copy may be the only ones left.
_UNAVAILABLE = ("missing-file", "unreadable")
# Problems between several files, which are no reason to leave out a single pair.
_NOT_OF_ONE_PAIR = ("duplicate", "near-duplicate", "unpaired")


class RepairError(QMANetError):
    """A folder to which a copy must not be written."""


def repair(
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    allow: Collection[str] = (),
    progress: bool = True,
) -> list[str]:
    """Write repaired copies of datasets.

    The following are repaired: NumPy arrays and masks whose values are too low, such as 0 and 1
    (values above 0 count as tampered), palette and 16-bit masks and soft edges (by BenCo's
    threshold), inverted masks (unless allowed), masks that are rotated relative to their image,
    names that BenCo pairs wrongly, and relative paths. Pairs are left out if a file is missing or
    unreadable, if the mask is empty, or if only a person can decide how to fix the problem. If
    there are several datasets, each gets its own folder in ``out``. Files of an earlier copy there
    that do not belong to this one are removed, unless a source file is missing or unreadable. The
    other arguments and exceptions are those of :func:`.check.check`.

    Returns:
        A line for each file that is not copied unchanged, and for each that is removed.

    Raises:
        RepairError: If ``out`` is inside a source or contains it, or if it contains files that
            were not written by this function.
        RunError: If ``out`` contains a copy of different datasets.
        PathError: If the name of a set or a file points outside ``out``.
    """
    out = Path(out).resolve()
    report = check(paths, workers=workers, allow=allow, progress=progress)
    for listing, _ in report.pairs:
        source = listing.path.resolve()
        if out == source or out in source.parents or (listing.is_folder and source in out.parents):
            raise RepairError(f"--fix {out} overlaps with {source}; choose a separate folder")
    findings = defaultdict(list)
    for finding in report.errors:
        findings[finding.file].append(finding)
    taken: set[str] = set()
    names = [unique_name(listing.name, taken) for listing, _ in report.pairs]
    lists = [safe_path(out, f"{name}.json") for name in names]
    if len(names) > 1:
        lists = [safe_path(out, name) / f"{name}.json" for name in names]
    changes = []
    _require_own_folder(out)
    identity = {"paths": [str(listing.path.resolve()) for listing, _ in report.pairs]}
    contents = "a repaired copy"
    with Run(out, identity, key=("file",), journal=REPAIR_JOURNAL, contents=contents) as run:
        files = _Files(run)
        for list_path, (listing, pairs) in zip(lists, report.pairs, strict=True):
            pairs = list(dict.fromkeys(pairs))
            changes += _copy(listing, pairs, report, findings, list_path, files)
        if not any(finding.problem in _UNAVAILABLE for finding in report.errors):
            changes += files.remove_obsolete()
    changes += [
        _left_out_line(finding)
        for finding in report.errors
        if finding.problem == "unpaired" and not finding.fixable
    ]
    return changes


def _require_own_folder(out: Path) -> None:
    if not out.is_dir() or (out / REPAIR_JOURNAL).is_file():
        return
    files = [file.name for file in out.iterdir() if file.name != LOCK_NAME]
    if files:
        raise RepairError(
            f"--fix {out} contains other files ({files[0]}); choose an empty folder or one created "
            "by data check --fix"
        )


class _Files:
    """The files of a copy that the current call writes."""

    def __init__(self, run: Run):
        self._run = run
        self._written: set[str] = set()

    def claim(self, path: Path) -> Path:
        """Record that a path will be written, and return it.

        Raises:
            RepairError: If the file exists and was not written by this run or an earlier one.
        """
        name = path.relative_to(self._run.folder).as_posix()
        if name not in self._run.owned:
            if path.exists():
                raise RepairError(f"{path} was not written by data check --fix; move it elsewhere")
            self._run.claim([path])
        self._written.add(name)
        return path

    def remove_obsolete(self) -> list[str]:
        """Remove the files that only an earlier call wrote; return a line for each of them.

        From then on, files with these names belong to the user.
        """
        changes = []
        obsolete = self._run.owned - self._written
        for name in sorted(obsolete):
            path = safe_path(self._run.folder, name, nested=True)
            if path.is_file():
                path.unlink()
                changes.append(f"{path}: removed (written by an earlier --fix, now obsolete)")
        if obsolete:
            self._run.owned -= obsolete
            self._run.retain(lambda _: True)
        return changes


def _copy(
    listing: Listing,
    pairs: list[Pair],
    report: Report,
    findings: dict[str, list[Finding]],
    list_path: Path,
    files: _Files,
) -> list[str]:
    """Write the repaired copy of one dataset; return a line for each change."""
    folder = list_path.parent
    changes, rows = [], []
    taken: set[str] = set()
    for pair in pairs:
        stem = unique_name(pair.image.stem, taken)
        if reason := _unrepairable(pair, findings):
            changes.append(_left_out_line(reason))
            continue
        image_name = f"{stem}{pair.image.suffix}"
        if pair.mask is None:
            image_target = safe_path(folder / "Au", image_name)
            copy_file(pair.image, files.claim(image_target))
            rows.append([str(image_target), NEGATIVE])
            continue
        image_target = safe_path(folder / "Tp", image_name)
        problems = {finding.problem for finding in findings.get(str(pair.mask), [])}
        try:
            mask_target, change = _copy_mask(
                pair.mask,
                report.masks[pair.mask],
                report.images[pair.image],
                inverted="mask-inverted" in problems,
                target=safe_path(folder / "Gt", f"{stem}.png"),
                files=files,
            )
        except ImageError as error:
            changes.append(f"{pair.mask}: left out (unreadable: {error.reason})")
            continue
        copy_file(pair.image, files.claim(image_target))
        rows.append([str(image_target), str(mask_target)])
        if change:
            changes.append(f"{pair.mask}: {change}")
        if mask_target.stem != pair.mask.stem:
            changes.append(f"{pair.mask}: renamed to {mask_target.name}")
    if not listing.is_folder:
        write_json(files.claim(list_path), rows)
        changes.append(f"{listing.path}: {len(rows)} rows with absolute paths in {list_path}")
    return changes


def _left_out_line(finding: Finding) -> str:
    return f"{finding.file}: left out ({finding.problem}: {finding.remedy})"


def _unrepairable(pair: Pair, findings: dict[str, list[Finding]]) -> Finding | None:
    """Return a pair's first error that cannot be repaired without loss, if any."""
    for finding in (*findings.get(str(pair.image), ()), *findings.get(str(pair.mask), ())):
        if not finding.fixable and finding.problem not in _NOT_OF_ONE_PAIR:
            return finding
    return None


def _copy_mask(
    source: Path, mask: Facts, image: Facts, *, inverted: bool, target: Path, files: _Files
) -> tuple[Path, str]:
    """Write a mask; return its path and a description of the change, empty if there is none."""
    pixels, changes = None, []
    if mask.mode == "array":
        pixels = read_array(source) > 0
        changes.append("array saved as PNG, values above 0 are tampered")
    elif mask.white == 0:
        with open_image(source) as opened, decoding(str(source)):
            if opened.mode.startswith(("I", "F")):  # RGB has no fractions.
                pixels = np.asarray(opened) > 0
            else:
                pixels = (rgb_pixels(opened) > 0).any(axis=-1)
        changes.append(f"maximum was {mask.maximum}, values above 0 are tampered")
    elif not mask.two_valued or mask.mode not in ("L", "1", "RGB", "RGBA"):
        pixels = mask_as_benco(source)
        changes.append("BenCo's threshold of 127.5 applied")
    rotated = mask.size == image.size[::-1] != image.size
    rotated &= image.orientation in TRANSPOSED_ORIENTATIONS
    if pixels is None and not inverted and not rotated:
        target = target.with_suffix(source.suffix)
        copy_file(source, files.claim(target))
        return target, ""
    pixels = mask_as_benco(source) if pixels is None else pixels
    if inverted:
        pixels = ~pixels
        changes.append("inverted")
    if rotated:
        pixels = rotate_mask(pixels, image.orientation, is_oriented=image.is_oriented)
        changes.append("rotated according to the image's EXIF orientation")
    write_mask(files.claim(target), pixels)
    return target, ", ".join(changes)
