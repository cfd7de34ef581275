"""Scores of authentic photos, against which the score of a new photo can be compared."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any, NamedTuple, Self

from .config import ConfigError, Preprocessing

# With fewer photos than this, "no authentic photo scores as high" does not rule out a false
# positive rate of about 3% (at 95% confidence).
FEW_PHOTOS = 100

# Scores are compared after rounding to this many decimal places.
DIGITS = 6

# The definition of the score. Calibrations without one are from versions in which it was the mean
# of the highest 1% of the mask.
SCORE = "highest mean in a square whose side is a tenth of the shorter side"


class PhotoProperties(NamedTuple):
    """The properties of a photo on which its score depends most.

    Attributes:
        width: In pixels, as displayed.
        height: In pixels, as displayed.
        format: For example JPEG; empty if unknown.
        quality: The estimated JPEG quality, 1 to 100; None if unknown or not a JPEG.
    """

    width: int
    height: int
    format: str = ""
    quality: int | None = None

    @property
    def longer_side(self) -> int:
        """The longer of width and height, in pixels."""
        return max(self.width, self.height)


@dataclass(frozen=True)
class PhotoRanges:
    """Ranges of the properties of the photos in a calibration.

    Attributes:
        longer_side: Minimum, median and maximum in pixels.
        megapixels: Minimum, median and maximum.
        formats: Number of photos by format, the most frequent first.
        jpeg_quality: Minimum, median and maximum of the JPEG files; empty if there are none.
    """

    longer_side: tuple[float, ...]
    megapixels: tuple[float, ...]
    formats: Mapping[str, int]
    jpeg_quality: tuple[float, ...] = ()

    @classmethod
    def of(cls, photos: Sequence[PhotoProperties]) -> Self:
        """Summarize the properties of photos."""
        qualities = [photo.quality for photo in photos if photo.quality is not None]
        return cls(
            longer_side=_spread([photo.longer_side for photo in photos]),
            megapixels=_spread([round(p.width * p.height / 1e6, 2) for p in photos]),
            formats=dict(Counter(photo.format for photo in photos).most_common()),
            jpeg_quality=_spread(qualities) if qualities else (),
        )

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Build from the content of ``calibration.json``.

        Raises:
            KeyError, TypeError, ValueError: If a key is missing or a value is invalid.
        """
        spreads = {
            name: tuple(content[name]) for name in ("longer_side", "megapixels", "jpeg_quality")
        }
        for name, values in spreads.items():
            are_numbers = all(isinstance(v, int | float) and 0 <= v < 1e9 for v in values)
            is_spread = are_numbers and len(values) == 3 and list(values) == sorted(values)
            if not is_spread and (values or name != "jpeg_quality"):
                raise ValueError(f"got {name} {values!r}, expected minimum, median and maximum")
        formats = {str(name): int(count) for name, count in content["formats"].items()}
        return cls(formats=formats, **spreads)


@dataclass(frozen=True)
class Calibration:
    """Scores that a model gives to authentic photos.

    Attributes:
        quantiles: One score in 0..1 per photo, in ascending order.
        preprocessing: How the photos were fed to the model.
        native: Whether they were processed at their original resolution instead.
        date: Day of the measurement in ISO 8601.
        photos: Sizes, formats and JPEG qualities of the photos; None if they were not recorded.
        score: The definition of the score; only scores with the definition :data:`SCORE` can be
            compared.

    Raises:
        ConfigError: If there are no scores, or if they are outside 0..1 or not ascending.
    """

    quantiles: tuple[float, ...]
    preprocessing: Preprocessing
    native: bool = False
    date: str = ""
    photos: PhotoRanges | None = None
    score: str = SCORE

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.quantiles))
        if not ordered or self.quantiles != ordered or not 0 <= ordered[0] <= ordered[-1] <= 1:
            raise ConfigError(
                f"invalid calibration: expected at least one quantile, in ascending order from 0 "
                f"to 1, got {len(self.quantiles)}; run `qma-net calibrate`"
            )

    @property
    def count(self) -> int:
        """Number of authentic photos."""
        return len(self.quantiles)

    @property
    def input_description(self) -> str:
        """How the photos were fed to the model, in words."""
        return self.preprocessing.describe(native=self.native)

    def count_at_least(self, score: float) -> int:
        """Return how many of the authentic photos score at least this high."""
        return self.count - bisect_left(self.quantiles, round(score, DIGITS))

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``calibration.json``."""
        content = {
            "count": self.count,
            "quantiles": list(self.quantiles),
            **asdict(self.preprocessing),
            "native": self.native,
            "date": self.date,
            "score": self.score,
        }
        return content | ({"photos": asdict(self.photos)} if self.photos else {})

    @classmethod
    def from_scores(
        cls,
        scores: Iterable[float],
        preprocessing: Preprocessing,
        *,
        native: bool,
        photos: Sequence[PhotoProperties] = (),
    ) -> Self:
        """Build from scores in any order and the properties of the photos, dated today."""
        quantiles = tuple(sorted(round(score, DIGITS) for score in scores))
        ranges = PhotoRanges.of(photos) if photos else None
        return cls(quantiles, preprocessing, native, datetime.now(UTC).date().isoformat(), ranges)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Build from the content of ``calibration.json``.

        Raises:
            KeyError, TypeError, ValueError: If a key is missing or a value is invalid.
        """
        return cls(
            quantiles=tuple(float(score) for score in content["quantiles"]),
            preprocessing=Preprocessing.from_dict(content),
            native=bool(content["native"]),
            date=str(content.get("date", "")),
            photos=PhotoRanges.from_dict(content["photos"]) if content.get("photos") else None,
            score=str(content.get("score", "")),
        )


def _spread(values: Sequence[float]) -> tuple[float, ...]:
    return min(values), median(values), max(values)
