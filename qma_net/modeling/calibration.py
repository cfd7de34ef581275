"""What untouched photographs score: the only thing that a score can be held against."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from .config import ConfigError, Preprocessing

FEW = 100  # photographs; of fewer, "none scores as high" leaves more than 3 % open
DIGITS = 6  # of a score; both sides of a comparison are rounded to them


@dataclass(frozen=True)
class Calibration:
    """Scores of untouched photographs, and how these were shown to the model.

    Attributes:
        quantiles: the scores in 0..1, rising: one for each photograph.
        preprocessing: how the photographs reached the model.
        native: whether they were looked at in their own size instead.
        date: when, as ISO 8601 has it.

    Raises:
        ConfigError: without scores, or with some that are none or not in order.
    """

    quantiles: tuple[float, ...]
    preprocessing: Preprocessing
    native: bool = False
    date: str = ""

    def __post_init__(self):
        ordered = sorted(self.quantiles)
        if (
            not ordered
            or list(self.quantiles) != ordered
            or not 0 <= ordered[0] <= ordered[-1] <= 1
        ):
            raise ConfigError(
                f"got {len(self.quantiles)} quantiles of scores, expected one or more from 0 to 1, "
                "rising: make them with qma-net calibrate"
            )

    @property
    def count(self) -> int:
        """Photographs that were looked at."""
        return len(self.quantiles)

    @property
    def shown(self) -> str:
        """How the photographs reached the model, in words."""
        return shown(self.preprocessing, self.native)

    def as_high(self, score: float) -> int:
        """How many of the photographs score at least as high."""
        return self.count - bisect_left(self.quantiles, round(score, DIGITS))

    def as_dict(self) -> dict:
        """What ``calibration.json`` holds."""
        return {
            "count": self.count,
            "quantiles": list(self.quantiles),
            "image_size": self.preprocessing.image_size,
            "fit": self.preprocessing.fit,
            "native": self.native,
            "date": self.date,
        }

    @classmethod
    def of_scores(
        cls, scores: Iterable[float], preprocessing: Preprocessing, *, native: bool
    ) -> "Calibration":
        """Of today, from scores in any order."""
        rising = tuple(sorted(round(score, DIGITS) for score in scores))
        return cls(rising, preprocessing, native, datetime.now(UTC).date().isoformat())

    @classmethod
    def of(cls, content: Mapping) -> "Calibration":
        """From what ``calibration.json`` holds.

        Raises:
            ConfigError, KeyError, TypeError, ValueError: where it is none.
        """
        return cls(
            quantiles=tuple(float(score) for score in content["quantiles"]),
            preprocessing=Preprocessing(image_size=content["image_size"], fit=content["fit"]),
            native=bool(content["native"]),
            date=str(content.get("date", "")),
        )


def shown(preprocessing: Preprocessing, native: bool) -> str:
    """How a photograph reaches the model, in words; equal words are equal ways."""
    return "at their own size" if native else str(preprocessing)
