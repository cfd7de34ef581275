"""Is a dataset what BenCo will take it for? One pass over its files, every fault by name.

:mod:`.facts` reads the files; the judges here compare facts and name the faults. BenCo's loader
(0.1.45) is the measure: it reads with Pillow, ignores EXIF orientation, and calls a mask's pixel
tampered where the mean of its three channels is above 127.5.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..core.images import TRANSPOSED_ORIENTATIONS
from .facts import AllFacts, Facts, observe_all
from .findings import DraftReport, Report
from .journal import recorded_types
from .leaks import find_copies
from .listing import Listing, Pair, find_beside, read_listings
from .published import PublishedDataset, count_types, dataset_named

# A mask's stem may be its image's stem and one of these.
MASK_SUFFIX = re.compile(r"[-_ ](gt\d?|mask|forged|edgemask|groundtruth)$", re.IGNORECASE)
INVERTED_ABOVE = 0.75  # share of white
GREY_SHARE = 0.01  # of the mask: less is an edge, more is something else than a mask


def check(
    paths: Iterable[str | os.PathLike],
    *,
    fast: bool = False,
    workers: int | None = None,
    crop_size: int = 0,
    allow: Iterable[str] = (),
    progress: bool = True,
) -> Report:
    """Checks datasets against what BenCo would make of them.

    Args:
        paths: folders with Tp/ and Gt/, lists, protocols or test-sets JSONs, checked together:
            the same image in two of them is an error unless one protocol trains on both.
        fast: headers and file sizes only; pixels, values, duplicates and near-duplicates stay
            unseen.
        workers: processes, default one per core.
        crop_size: the training size in pixels if training pads; larger images are then errors.
        allow: problems that are known to be right here, reported as warnings.
        progress: show a progress bar on standard error.

    Raises:
        ListingError: for a path that is not a dataset.
        FindingsError: for a problem to allow that there is not.
        WorkersError: when a process was killed.
    """
    report, _, _ = check_pairs(
        paths, fast=fast, workers=workers, crop_size=crop_size, allow=allow, progress=progress
    )
    return report


def check_pairs(
    paths: Iterable[str | os.PathLike],
    *,
    fast: bool = False,
    workers: int | None = None,
    crop_size: int = 0,
    allow: Iterable[str] = (),
    progress: bool = True,
) -> tuple[Report, list[tuple[Listing, list[Pair]]], AllFacts]:
    """As :func:`check`; also every dataset's pairs that the names mean and are there, and facts."""
    report, sets = DraftReport(allow), []
    for listing in [one for path in paths for one in read_listings(path)]:
        pairs = _paired_by_name(listing, report) if listing.is_folder else listing.pairs
        sets.append((listing, [pair for pair in pairs if _present(pair, listing, report)]))
    groups = _groups([listing for listing, _ in sets])
    facts = observe_all(
        [pair.image for _, pairs in sets for pair in pairs],
        [pair.mask for _, pairs in sets for pair in pairs if pair.mask is not None],
        fast=fast,
        thumbnails=len(set(groups)) > 1,
        workers=workers,
        progress=progress,
    )
    for listing, pairs in sets:
        for pair in dict.fromkeys(pairs):
            _judge_pair(pair, facts, crop_size, report)
        report.sets.append(_counts(listing, pairs, facts))
    _judge_duplicates(sets, facts, report)
    _judge_near_duplicates(sets, groups, facts, report)
    return report, sets, facts


def stem_of(path: Path) -> str:
    """What an image and its mask share: the name without suffix and without a mask's suffix."""
    return MASK_SUFFIX.sub("", path.stem)


def _paired_by_name(listing: Listing, report: DraftReport) -> Iterator[Pair]:
    """The pairs that the names mean, and a finding for what BenCo's sort order makes of them."""
    images, masks = {}, {}
    for files, found, other in ((listing.images, images, "Gt"), (listing.masks, masks, "Tp")):
        for file in files:
            if file.name.startswith(".") or file.name in ("Thumbs.db", "desktop.ini"):
                report.error(
                    file, "unpaired", "a hidden file, which BenCo pairs as data: delete it"
                )
            elif os.path.isdir(file):
                report.error(file, "unpaired", f"a folder inside {file.parent.name}/: move it out")
            elif stem_of(file) in found:
                twin = found[stem_of(file)].name
                advice = f"has the same stem as {twin}: one {other}/ file cannot pair with both"
                report.error(file, "unpaired", advice)
            else:
                found[stem_of(file)] = file
    for stem in sorted(images.keys() ^ masks.keys()):
        lonely, other = (images[stem], "Gt") if stem in images else (masks[stem], "Tp")
        advice = f"has no counterpart in {other}/, and shifts the pairs after it: add that, or "
        report.error(lonely, "unpaired", advice + f"delete it; stem {stem!r} is looked for")
    pairs = [Pair(images[stem], masks[stem]) for stem in images if stem in masks]
    order = [masks[stem_of(pair.image)] for pair in pairs]
    if images.keys() == masks.keys() and order != sorted(order):
        for pair, taken in zip(pairs, sorted(order), strict=True):
            if pair.mask != taken:
                advice = f"sorted by name, BenCo pairs it with {taken.name}: give image and mask "
                report.error(pair.image, "unpaired", advice + "the same stem", fixable=True)
    yield from pairs


def _present(pair: Pair, listing: Listing, report: DraftReport) -> bool:
    """Whether both files are there from here; a finding where they are not."""
    present = True
    for file in (pair.image, pair.mask):
        if file is None:
            continue
        if os.path.isfile(file):
            if not file.is_absolute() and not listing.is_folder:
                advice = f"lists relative paths, which only work from {Path.cwd()}: make them "
                report.warning(listing.path, "relative-path", advice + "absolute", fixable=True)
            continue
        present = False
        if (listing.path.parent / file).is_file():
            place = listing.path.parent.resolve()
            advice = f"is found from {place} only: make the paths of {listing.path} absolute"
        elif place := find_beside(listing.path, file):
            advice = f"is listed but not there, {place} is: write its path in {listing.path}"
        else:
            advice = f"is listed but not there: download it, or take it out of {listing.path}"
        report.error(file, "missing-file", advice, fixable=True)
    return present


def _judge_pair(pair: Pair, facts: AllFacts, crop_size: int, report: DraftReport) -> None:
    image, mask = facts.images[pair.image], facts.masks.get(pair.mask)
    for file, seen in ((pair.image, image), (pair.mask, mask)):
        if seen and seen.fault:
            report.error(file, "unreadable", f"{seen.fault}: fetch it again, or take the pair out")
    if image.fault:
        return
    _judge_image(pair.image, image, crop_size, report)
    fits = mask is None or mask.fault or mask.mode == "array" or mask.size == image.size
    if image.orientation in TRANSPOSED_ORIENTATIONS and not fits and mask.size == image.size[::-1]:
        advice = (
            "its mask was drawn on the turned photograph, BenCo reads pixels as stored: turn the "
            "mask back"
        )
        report.error(pair.image, "exif-orientation", advice, fixable=True)
    else:
        if image.orientation != 1:
            advice = (
                f"orientation {image.orientation}: viewers and OpenCV turn it, BenCo and its mask "
                "do not; nothing to do for BenCo, take the tag out for other tools"
            )
            report.warning(pair.image, "exif-orientation", advice)
        if not fits:
            turned = mask.size == image.size[::-1]
            advice = f"is {_width_x_height(mask.size)}, its image {_width_x_height(image.size)}: "
            advice += (
                "turn it by 90 degrees (look which way)"
                if turned
                else "take the authors' corrected mask"
            )
            report.error(pair.mask, "size-mismatch", advice)
    if mask and not mask.fault:
        _judge_mask(pair.mask, mask, report)


def _judge_image(file: Path, image: Facts, crop_size: int, report: DraftReport) -> None:
    if image.mode != "RGB":
        what = {"L": "greyscale", "1": "black and white", "CMYK": "CMYK", "P": "a palette image"}
        what |= {"RGBA": "with alpha", "LA": "grey with alpha", "array": "an array, not an image"}
        name = what.get(image.mode, "16 bits or more" if "I" in image.mode else image.mode)
        report.warning(file, "colour-mode", f"is {name}: BenCo converts it to RGB with Pillow")
    if crop_size and max(image.size) > crop_size:
        advice = (
            f"is {_width_x_height(image.size)}, larger than the padded {crop_size}x{crop_size}: "
            "BenCo would crop it; resize instead"
        )
        report.error(file, "larger-than-training", advice)


def _judge_mask(file: Path, mask: Facts, report: DraftReport) -> None:
    """At most one finding about a mask's values: the first of these that explains it."""
    if mask.mode == "array":
        advice = f"is {file.suffix}, BenCo reads images only: write it as PNG of 0 and 255"
        how = "(--fix does, above 0 as tampered)"
        report.error(file, "mask-values", advice, fixable=True, fixed_how=how)
    elif mask.white is None:  # the header was all that was read
        if mask.mode not in ("L", "1", "RGB", "RGBA"):
            advice = f"has mode {mask.mode}: run without --fast to see what BenCo makes of it"
            report.warning(file, "mask-values", advice)
    elif mask.top == 0:
        advice = "marks nothing though its image is listed as tampered: list the image with "
        report.error(file, "empty-mask", advice + "'Negative', or find the right mask")
    elif mask.coloured > 0:
        advice = f"is coloured ({mask.coloured:.1%} of it): write which colour is tampered as 255"
        report.error(file, "mask-values", advice + ", the rest as 0 (data prepare knows Columbia)")
    elif mask.white == 0:
        advice = f"has no value above 127 (largest {mask.top}), so BenCo reads it as all black: "
        advice += "write tampered as 255"
        report.error(file, "mask-values", advice, fixable=True, fixed_how="(--fix: above 0)")
    elif mask.mode == "P" or mask.mode.startswith(("I", "F")):
        advice = f"has mode {mask.mode}; BenCo reads {mask.white:.1%} of it as tampered: write it "
        add = report.warning if mask.two_valued else report.error
        add(file, "mask-values", advice + "as 8-bit grey of 0 and 255", fixable=True)
    elif mask.grey > GREY_SHARE:
        advice = f"is neither black nor white in {mask.grey:.1%} of it: BenCo cuts at 127.5; write "
        report.error(file, "mask-values", advice + "0 and 255 yourself if that is not meant")
    elif mask.white > INVERTED_ABOVE:
        advice = f"is {mask.white:.0%} white, white is tampered for BenCo: invert it"
        otherwise = ", or say --allow mask-inverted if it is right"
        report.error(file, "mask-inverted", advice, fixable=True, otherwise=otherwise)
    elif not mask.two_valued:
        advice = "has values between 0 and 255 at its edges: BenCo cuts at 127.5;"
        how = "--fix writes that"
        report.warning(file, "mask-values", advice, fixable=True, fixed_how=how)


def _width_x_height(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _judge_duplicates(
    sets: list[tuple[Listing, list[Pair]]], facts: AllFacts, report: DraftReport
) -> None:
    """The same bytes twice: within a set or a protocol a warning, across other sets an error."""
    places = defaultdict(list)
    for listing, pairs in sets:
        for pair in pairs:
            if digest := facts.images[pair.image].digest:
                places[digest].append((listing, pair.image))
    for first, *others in places.values():
        for listing, file in others:
            where = f"{first[1]} ({first[0].name})"
            advice = f"holds the same bytes as {where}: take one of the two out"
            if file == first[1] and listing is first[0]:
                advice = f"is listed more than once in {listing.path}: take one line out"
            leak = listing is not first[0] and not (listing.trained and first[0].trained)
            (report.error if leak else report.warning)(file, "duplicate", advice)


def _groups(listings: list[Listing]) -> list[int]:
    """Which listings may share photographs: a number each, one for all that protocols train on."""
    found = {}
    keys = ("trained" if one.trained else number for number, one in enumerate(listings))
    return [found.setdefault(key, len(found)) for key in keys]


def _judge_near_duplicates(
    sets: list[tuple[Listing, list[Pair]]], groups: list[int], facts: AllFacts, report: DraftReport
) -> None:
    """The same photograph, saved again, in sets that must not share any: an error.

    Within a set or what one training reads it is no finding: manipulated sets hold many versions of
    a photograph.
    """
    shown = {}
    for (listing, pairs), group in zip(sets, groups, strict=True):
        for pair in pairs:
            if facts.images[pair.image].thumbnail:
                shown.setdefault((pair.image, group), listing)
    files = list(shown)
    thumbnails = [facts.images[file].thumbnail for file, _ in files]
    for copy, first, likeness in find_copies(thumbnails, [group for _, group in files]):
        file, original = files[copy][0], files[first][0]
        if facts.images[file].digest == facts.images[original].digest:
            continue  # a duplicate, and told as such
        where = f"{original} ({shown[files[first]].name})"
        advice = (
            f"shows the same photograph as {where}, saved again, resized or cropped (correlation "
            f"{likeness:.2f}): take one of the two out"
        )
        report.error(file, "near-duplicate", advice)


def _counts(listing: Listing, pairs: list[Pair], facts: AllFacts) -> dict:
    """Counts and the range of resolutions of one dataset, as in Tables 3 and 4.

    Returns:
        ``name`` and ``path`` of the listing; ``dataset``, which of the paper's the name means, and
        ``part`` where it means the list of a subset (``sp_COCO_list``: ``TampCOCO`` and ``sp``), of
        which several make up a row of Table 3; ``tampered`` and ``authentic`` images; ``smallest``
        and ``largest`` resolution by area, width x height, "" where none is known; ``types``, how
        many of the tampered are of each of :data:`~.published.TYPES`. ``dataset``, ``part`` and
        ``types`` are absent where they do not apply or are not known.
    """
    sizes = [facts.images[pair.image].size for pair in pairs]
    sizes = sorted((size for size in sizes if size[0]), key=lambda size: size[0] * size[1])
    tampered = [pair.image for pair in pairs if pair.mask is not None]
    dataset, part = dataset_named(listing.name)
    types = _types(dataset, part, tampered) if dataset else None
    return {
        "name": listing.name,
        "path": str(listing.path),
        **({"dataset": dataset.name} if dataset else {}),
        **({"part": part} if part else {}),
        "tampered": len(tampered),
        "authentic": len(pairs) - len(tampered),
        "smallest": _width_x_height(sizes[0]) if sizes else "",
        "largest": _width_x_height(sizes[-1]) if sizes else "",
        **({"types": types} if types else {}),
    }


def _types(dataset: PublishedDataset, part: str, images: list[Path]) -> dict[str, int] | None:
    """How many images are of each manipulation type, if names, subset or journal tell of all."""
    if not dataset.table:
        return count_types(dataset.type_of(image.name, part) for image in images)
    recorded = {}
    for folder in {image.parent.parent for image in images}:
        recorded |= recorded_types(folder)
    return count_types(recorded.get(image) for image in images)
