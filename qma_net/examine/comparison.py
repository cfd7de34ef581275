"""Comparison of a photo with the authentic photos of a calibration, in words."""

from collections.abc import Sequence

from ..modeling.calibration import PhotoProperties, PhotoRanges

# How far a photo may be outside the range of the calibration's photos and still be compared.
SIZE_TOLERANCE = 1.25  # Factor of the longer side.
QUALITY_TOLERANCE = 10  # JPEG quality.


def describe_photos(photos: PhotoRanges) -> str:
    """Describe photos by their formats, JPEG quality and sizes.

    For example, ``100 JPEG files of quality 95, with a longer side of 4,000 pixels (12
    megapixels)``.
    """
    text = _join([f"{n} {name} file{'s' * (n != 1)}" for name, n in photos.formats.items()])
    if photos.jpeg_quality:
        kind = "quality" if list(photos.formats) == ["JPEG"] else "JPEG quality"
        text += f" of {kind} {_range(photos.jpeg_quality)}"
    size = f"{_range(photos.megapixels)} megapixels"
    if photos.longer_side[0] != photos.longer_side[-1]:
        size = f"median {photos.longer_side[1]:,.15g}; {size}"
    return f"{text}, with a longer side of {_range(photos.longer_side)} pixels ({size})"


def differences(photo: PhotoProperties, photos: PhotoRanges) -> list[str]:
    """Return a clause for each property of a photo that is outside the calibration's ranges."""
    clauses = []
    smallest, _, largest = photos.longer_side
    if not smallest / SIZE_TOLERANCE <= photo.longer_side <= largest * SIZE_TOLERANCE:
        clauses.append(
            f"the photo's longer side is {photo.longer_side:,} pixels, while "
            f"those of the comparison photos {_spread(photos.longer_side)} pixels"
        )
    if photo.format and photo.format not in photos.formats:
        clauses.append(
            f"the photo's format is {photo.format}, while the comparison photos are "
            f"{_join(list(photos.formats))} files"
        )
    if photo.quality is not None and photos.jpeg_quality:
        lowest, _, highest = photos.jpeg_quality
        if not lowest - QUALITY_TOLERANCE <= photo.quality <= highest + QUALITY_TOLERANCE:
            clauses.append(
                f"the photo's JPEG quality is about {photo.quality}, while "
                f"those of the comparison photos {_spread(photos.jpeg_quality)}"
            )
    return clauses


def _spread(spread: Sequence[float]) -> str:
    values = _range(spread)
    return f"are all {values}" if spread[0] == spread[-1] else f"range from {values}"


def _range(spread: Sequence[float]) -> str:
    smallest, largest = (f"{value:,.15g}" for value in (spread[0], spread[-1]))
    return smallest if smallest == largest else f"{smallest} to {largest}"


def _join(items: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(items[:-1]), *items[-1:])))
