"""Configuration of the architecture and of the image preprocessing."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from ..core.errors import QMANetError

# Channels and depths of the four stages of SegFormer's encoders (Xie et al. 2021, Table 6).
SIZES = {
    "b0": ((32, 64, 160, 256), (2, 2, 2, 2)),
    "b1": ((64, 128, 320, 512), (2, 2, 2, 2)),
    "b2": ((64, 128, 320, 512), (3, 4, 6, 3)),
    "b3": ((64, 128, 320, 512), (3, 4, 18, 3)),
    "b4": ((64, 128, 320, 512), (3, 8, 27, 3)),
    "b5": ((64, 128, 320, 512), (3, 6, 40, 3)),
}

VIEWS = ("srm", "bayar", "noiseprint")
DFCM_STAGES = ("none", "4", "1234")
DECODE_LEVELS = ("4", "1234")
DECODERS = ("query", "conv", "mlp")
INTERACTIONS = ("dfcm", "equation-4", "no-feedback", "add", "concat")
FITS = ("resize", "pad", "native")

# Version of the architecture, stored in every checkpoint. Increase it whenever a change to the
# network makes existing weights invalid.
ARCHITECTURE = 2

# A pixel or an image counts as tampered if its score is strictly above this value.
# BenCo's evaluators use 0.5, so every number that is compared with their results must use it too.
DEFAULT_THRESHOLD = 0.5

# Width in pixels of the ring along mask boundaries that serves as the edge target. It is the
# width that BenCo's training scripts pass for models with edge supervision.
EDGE_WIDTH = 7

# Flags of the training loss. They are stored with the weights, since reports distinguish models by
# them, but the network does not depend on them.
LOSS_FLAGS = ("alpha", "beta", "dice_smoothing", "bce")

# Configurations come from files of unknown origin, so the number of queries needs a limit.
MAX_QUERY_COUNT = 1024

# Fields that were added after the first checkpoints of this architecture; their defaults describe
# those checkpoints.
ADDED_FIELDS = ("dfcm_scale", "interaction")

# Accepted types of a field's value, by the field's annotation. Types must match exactly: True is
# not a number here.
_ACCEPTED_TYPES: Mapping[object, tuple[type, ...]] = {str: (str,), int: (int,), float: (float, int)}


class ConfigError(QMANetError):
    """Invalid choice in a configuration."""


@dataclass(frozen=True)
class QMANetConfig:
    """Complete description of the architecture, stored in every checkpoint.

    The defaults give the paper's model, except for ``dfcm_scale``, which is ours. Other values give
    the variants in the paper's Tables 2 and 9, and some that are not in the paper.

    Attributes:
        size: Size of both SegFormer encoders, ``"b0"`` to ``"b5"``.
        views: Comma-separated noise views, any of :data:`VIEWS`.
        query_count: Number of tamper-aware queries.
        dfcm_stages: Stages that have a DFCM: ``"none"``, ``"4"`` or ``"1234"``.
        decode_levels: Levels that are decoded: ``"4"`` or ``"1234"``.
        decoder: ``"query"`` for the paper's QMFD; ``"conv"`` or ``"mlp"`` for the ablations.
        drop_path: Rate of stochastic depth in both encoders during training.
        dfcm_scale: Initial scale of the DFCM's residual; it is learned.
        interaction: Type of interaction at the DFCM stages: ``"dfcm"``; a variant of it,
            ``"equation-4"`` (no projection back for the noise features, as printed in the paper) or
            ``"no-feedback"`` (the encoders do not receive its output); or ``"add"`` or
            ``"concat"`` instead of it.

    Raises:
        ConfigError: If a value is invalid.
    """

    size: str = "b3"
    views: str = "srm,bayar,noiseprint"
    query_count: int = 16
    dfcm_stages: str = "1234"
    decode_levels: str = "1234"
    decoder: str = "query"
    drop_path: float = 0.1
    dfcm_scale: float = 0.1
    interaction: str = "dfcm"

    def __post_init__(self) -> None:
        for field in fields(self):
            value, accepted = getattr(self, field.name), _ACCEPTED_TYPES[field.type]
            if type(value) not in accepted:
                raise ConfigError(
                    f"got {field.name}={str(value)[:80]!r} of type {type(value).__name__}, "
                    f"expected {accepted[0].__name__}"
                )
        for name, value, choices in (
            ("size", self.size, SIZES),
            ("dfcm_stages", self.dfcm_stages, DFCM_STAGES),
            ("decode_levels", self.decode_levels, DECODE_LEVELS),
            ("decoder", self.decoder, DECODERS),
            ("interaction", self.interaction, INTERACTIONS),
        ):
            if value not in choices:
                raise ConfigError(f"got {name}={value!r}, expected one of {', '.join(choices)}")
        views = self.views.replace(" ", "").split(",")
        if len(set(views)) < len(views) or not set(views) <= set(VIEWS):
            raise ConfigError(
                f"got views={self.views!r}, expected a comma-separated list of {', '.join(VIEWS)}"
            )
        object.__setattr__(self, "views", ",".join(view for view in VIEWS if view in views))
        if not 1 <= self.query_count <= MAX_QUERY_COUNT:
            raise ConfigError(
                f"got query_count={self.query_count}, expected 1 to {MAX_QUERY_COUNT} (paper: 16)"
            )
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"got drop_path={self.drop_path}, expected 0 <= drop_path < 1")
        if not 0 < self.dfcm_scale <= 10:
            raise ConfigError(
                f"got dfcm_scale={self.dfcm_scale}, expected 0 < dfcm_scale <= 10 (default: 0.1)"
            )

    def as_flags(self) -> list[str]:
        """Return the command-line flags of this architecture, e.g. ``["--size", "b3", ...]``."""
        return [word for name, value in asdict(self).items() for word in (f"--{name}", str(value))]

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """Return the names of all fields in order."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def required_names(cls) -> tuple[str, ...]:
        """Return the names of the fields that every saved configuration has."""
        return tuple(name for name in cls.field_names() if name not in ADDED_FIELDS)


@dataclass(frozen=True)
class Preprocessing:
    """How images were fed to a model in training, which prediction should repeat.

    Attributes:
        image_size: Side of the square input in pixels, 32 to 32768.
        fit: ``"resize"`` to that square, ``"pad"`` into it, or ``"native"``: the model was trained
            on crops at original resolution.

    Raises:
        ConfigError: If a value is invalid.
    """

    image_size: int = 512
    fit: str = "resize"

    def __post_init__(self) -> None:
        if type(self.image_size) is not int or not 32 <= self.image_size <= 2**15:
            raise ConfigError(
                f"got image_size={self.image_size!r}, expected a side of 32 to 32768 pixels"
            )
        if self.fit not in FITS:
            raise ConfigError(f"got fit={self.fit!r}, expected one of {', '.join(FITS)}")

    def __str__(self) -> str:
        return self.describe()

    def describe(self, *, native: bool = False) -> str:
        """Return a description such as ``"resized to 512x512"``, or that of native prediction."""
        if native or self.fit == "native":
            return "at original resolution"
        verb = "resized" if self.fit == "resize" else "padded"
        return f"{verb} to {self.image_size}x{self.image_size}"

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Build from the content of a JSON file; keys that are not fields are ignored."""
        return cls(image_size=content["image_size"], fit=content["fit"])
