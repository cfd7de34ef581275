"""Is a dataset what BenCo will take it for? One pass over its files, every fault by name.

Two halves: :func:`observe` opens one file and reports plain facts (in parallel, the only part that
costs), and the judges compare facts and name the faults. BenCo's loader is the measure: it reads
with Pillow, ignores EXIF orientation, and calls a mask's pixel tampered where the mean of its
three channels is above 127.5.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from .facts import Facts, observe_all
from .findings import Report, _Judge
from .listing import Listing, Pair, read_listings

# A mask's stem may be its image's stem and one of these.
MASK_SUFFIX = re.compile(r"[-_ ](gt\d?|mask|forged|edgemask|groundtruth)$", re.IGNORECASE)
INVERTED_ABOVE = 0.75  # share of white
GREY_SHARE = 0.01  # of the mask: less is an edge, more is something else than a mask
TRANSPOSING = (5, 6, 7, 8)  # orientations that exchange height and width


def check(
    paths: Iterable[str | os.PathLike],
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
        fast: headers and file sizes only; pixels, values and duplicates stay unseen.
        workers: processes, default one per core.
        crop_size: the training size in pixels if training pads; larger images are then errors.
        allow: problems that are known to be right here, reported as warnings.
        progress: show a progress bar on standard error.

    Raises:
        ListingError: for a path that is not a dataset.
    """
    return check_pairs(paths, fast, workers, crop_size, allow, progress)[0]


def check_pairs(
    paths, fast=False, workers=None, crop_size=0, allow=(), progress=True
) -> tuple[Report, list[tuple[Listing, list[Pair]]], dict[tuple[Path, bool], Facts]]:
    """As :func:`check`; also the pairs that the names mean and are there, and all facts."""
    report = _Judge(set(allow))
    work, jobs = [], {}
    for listing in [one for path in paths for one in read_listings(path)]:
        pairs = _paired_by_name(listing, report) if listing.is_folder else listing.pairs
        pairs = [pair for pair in pairs if _present(pair, listing, report)]
        work.append((listing, pairs))
        jobs |= {(pair.image, False): None for pair in pairs}
        jobs |= {(pair.mask, True): None for pair in pairs if pair.mask is not None}
    facts = observe_all(list(jobs), fast, workers, progress)
    for listing, pairs in work:
        for pair in dict.fromkeys(pairs):
            _judge_pair(pair, facts, crop_size, report)
        report.sets.append(_figures(listing, pairs, facts))
    _judge_duplicates(work, facts, report)
    return report, work, facts


def stem_of(path: Path) -> str:
    """What an image and its mask share: the name without suffix and without a mask's suffix."""
    return MASK_SUFFIX.sub("", path.stem)


def _paired_by_name(listing: Listing, report: _Judge) -> Iterator[Pair]:
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
                remedy = f"has the same stem as {twin}: one {other}/ file cannot pair with both"
                report.error(file, "unpaired", remedy)
            else:
                found[stem_of(file)] = file
    for stem in sorted(images.keys() ^ masks.keys()):
        lonely, other = (images[stem], "Gt") if stem in images else (masks[stem], "Tp")
        remedy = f"has no counterpart in {other}/, and shifts the pairs after it: add that, or "
        report.error(lonely, "unpaired", remedy + f"delete it; stem {stem!r} is looked for")
    pairs = [Pair(images[stem], masks[stem]) for stem in images if stem in masks]
    order = [masks[stem_of(pair.image)] for pair in pairs]
    if images.keys() == masks.keys() and order != sorted(order):
        for pair, taken in zip(pairs, sorted(order), strict=True):
            if pair.mask != taken:
                remedy = f"sorted by name, BenCo pairs it with {taken.name}: give image and mask "
                report.error(pair.image, "unpaired", remedy + "the same stem (--fix does)")
    yield from pairs


def _present(pair: Pair, listing: Listing, report: _Judge) -> bool:
    """Whether both files are there from here; a finding where they are not."""
    present = True
    for file in (pair.image, pair.mask):
        if file is None:
            continue
        if os.path.isfile(file):
            if not file.is_absolute() and not listing.is_folder:
                remedy = f"lists relative paths, which only work from {Path.cwd()}: make them "
                report.warning(listing.path, "relative-path", remedy + "absolute (--fix does)")
            continue
        present = False
        beside = listing.path.parent / file
        if beside.is_file():
            remedy = f"is found from {beside.parent.resolve()} only: make the paths of "
        else:
            remedy = "is listed but not there: download it, or take it out of "
        report.error(file, "missing-file", f"{remedy}{listing.path} {_absolute(beside)}".strip())
    return present


def _absolute(beside: Path) -> str:
    return "absolute (--fix does)" if beside.is_file() else "(--fix does)"


def _judge_pair(pair: Pair, facts: dict, crop_size: int, report: _Judge) -> None:
    image, mask = facts[pair.image, False], facts.get((pair.mask, True))
    for file, seen in ((pair.image, image), (pair.mask, mask)):
        if seen and seen.fault:
            report.error(file, "unreadable", f"{seen.fault}: fetch it again, or take the pair out")
    if image.fault:
        return
    _judge_image(pair.image, image, crop_size, report)
    fits = mask is None or mask.fault or mask.mode == "array" or mask.size == image.size
    if image.orientation in TRANSPOSING and not fits and mask.size == image.size[::-1]:
        remedy = (
            "its mask was drawn on the turned photograph, BenCo reads pixels as stored: turn the "
            "mask back (--fix does)"
        )
        report.error(pair.image, "exif-orientation", remedy)
    else:
        if image.orientation != 1:
            remedy = (
                f"orientation {image.orientation}: viewers and OpenCV turn it, BenCo and its mask "
                "do not; nothing to do for BenCo, take the tag out for other tools"
            )
            report.warning(pair.image, "exif-orientation", remedy)
        if not fits:
            turned = mask.size == image.size[::-1]
            remedy = f"is {_by(mask.size)}, its image {_by(image.size)}: " + (
                "turn it by 90 degrees (look which way)"
                if turned
                else "take the authors' corrected mask"
            )
            report.error(pair.mask, "size-mismatch", remedy)
    if mask and not mask.fault:
        _judge_mask(pair.mask, mask, report)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _judge_image(file: Path, image: Facts, crop_size: int, report: _Judge) -> None:
    if image.mode != "RGB":
        what = {"L": "greyscale", "1": "black and white", "CMYK": "CMYK", "P": "a palette image"}
        what |= {"RGBA": "with alpha", "LA": "grey with alpha", "array": "an array, not an image"}
        name = what.get(image.mode, "16 bits or more" if "I" in image.mode else image.mode)
        report.warning(file, "colour-mode", f"is {name}: BenCo converts it to RGB with Pillow")
    if crop_size and max(image.size) > crop_size:
        remedy = (
            f"is {_by(image.size)}, larger than the padded {crop_size}x{crop_size}: BenCo would "
        )
        report.error(file, "larger-than-training", remedy + "crop it; resize instead")


def _judge_mask(file: Path, mask: Facts, report: _Judge) -> None:
    """At most one finding about a mask's values: the first of these that explains it."""
    if mask.mode == "array":
        remedy = f"is {file.suffix}, BenCo reads images only: write it as PNG of 0 and 255 "
        report.error(file, "mask-values", remedy + "(--fix does, above 0 as tampered)")
    elif mask.white is None:  # the header was all that was read
        if mask.mode not in ("L", "1", "RGB", "RGBA"):
            remedy = f"has mode {mask.mode}: run without --fast to see what BenCo makes of it"
            report.warning(file, "mask-values", remedy)
    elif mask.top == 0:
        remedy = "marks nothing though its image is listed as tampered: list the image with "
        report.error(file, "empty-mask", remedy + "'Negative', or find the right mask")
    elif mask.coloured > 0:
        remedy = f"is coloured ({mask.coloured:.1%} of it): write which colour is tampered as 255"
        report.error(file, "mask-values", remedy + ", the rest as 0 (data prepare knows Columbia)")
    elif mask.white == 0:
        remedy = f"has no value above 127 (largest {mask.top}), so BenCo reads it as all black: "
        report.error(file, "mask-values", remedy + "write tampered as 255 (--fix: above 0)")
    elif mask.mode == "P" or mask.mode.startswith(("I", "F")):
        remedy = f"has mode {mask.mode}; BenCo reads {mask.white:.1%} of it as tampered: write it "
        severe = report.warning if mask.two_valued else report.error
        severe(file, "mask-values", remedy + "as 8-bit grey of 0 and 255 (--fix does)")
    elif mask.grey > GREY_SHARE:
        remedy = f"is neither black nor white in {mask.grey:.1%} of it: BenCo cuts at 127.5; write "
        report.error(file, "mask-values", remedy + "0 and 255 yourself if that is not meant")
    elif mask.white > INVERTED_ABOVE:
        remedy = f"is {mask.white:.0%} white, white is tampered for BenCo: invert it (--fix does), "
        report.error(file, "mask-inverted", remedy + "or say --allow mask-inverted if it is right")
    elif not mask.two_valued:
        remedy = "has values between 0 and 255 at its edges: BenCo cuts at 127.5; --fix writes that"
        report.warning(file, "mask-values", remedy)


def _judge_duplicates(work: list, facts: dict, report: _Judge) -> None:
    """The same bytes twice: within a set or a protocol a warning, across other sets an error."""
    places = defaultdict(list)
    for listing, pairs in work:
        for pair in pairs:
            if digest := facts[pair.image, False].digest:
                places[digest].append((listing, pair.image))
    for first, *others in places.values():
        for listing, file in others:
            where = f"{first[1]} ({first[0].name})"
            remedy = f"holds the same bytes as {where}: take one of the two out"
            if file == first[1] and listing is first[0]:
                remedy = f"is listed more than once in {listing.path}: take one line out"
            leak = listing is not first[0] and not (listing.trained and first[0].trained)
            (report.error if leak else report.warning)(file, "duplicate", remedy)


def _figures(listing: Listing, pairs: list[Pair], facts: dict) -> dict:
    """Counts and the range of resolutions of one dataset, as in Tables 3 and 4."""
    sizes = [facts[pair.image, False].size for pair in pairs]
    sizes = sorted((size for size in sizes if size[0]), key=lambda size: size[0] * size[1])
    authentic = sum(pair.mask is None for pair in pairs)
    return {
        "name": listing.name,
        "path": str(listing.path),
        "tampered": len(pairs) - authentic,
        "authentic": authentic,
        "smallest": _by(sizes[0]) if sizes else "",
        "largest": _by(sizes[-1]) if sizes else "",
    }
