"""Scores of authentic photos, against which the score of a new photo can be compared."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Self

from .config import ConfigError, Preprocessing

# With fewer photos than this, "no authentic photo scores as high" leaves a false positive rate of
# more than 3% possible (95% confidence).
FEW_PHOTOS = 100

# Scores are compared after rounding to this many decimal places.
DIGITS = 6


@dataclass(frozen=True)
class Calibration:
    """Scores that a model gives to authentic photos.

    Attributes:
        quantiles: One score in 0..1 per photo, in ascending order.
        preprocessing: How the photos were fed to the model.
        native: Whether they were processed at their original resolution instead.
        date: Day of the measurement in ISO 8601.

    Raises:
        ConfigError: If there are no scores, or if they are outside 0..1 or not ascending.
    """

    quantiles: tuple[float, ...]
    preprocessing: Preprocessing
    native: bool = False
    date: str = ""

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
        return {
            "count": self.count,
            "quantiles": list(self.quantiles),
            **asdict(self.preprocessing),
            "native": self.native,
            "date": self.date,
        }

    @classmethod
    def from_scores(
        cls, scores: Iterable[float], preprocessing: Preprocessing, *, native: bool
    ) -> Self:
        """Build from scores in any order, dated today."""
        quantiles = tuple(sorted(round(score, DIGITS) for score in scores))
        return cls(quantiles, preprocessing, native, datetime.now(UTC).date().isoformat())

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
        )
