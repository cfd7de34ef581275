"""Everything that fixes the architecture: the size table, the choices, the configuration."""

from dataclasses import asdict, dataclass, fields

from ..core.errors import QMANetError

# SegFormer's Mix Transformers (Xie et al. 2021, Table 6): channels and depths of the stages.
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
FITS = ("resize", "pad", "native")


# Which network a configuration means. A change of the network that makes old tensors mean
# something else counts it up; checkpoints carry it.
ARCHITECTURE = 2


# A pixel or an image counts as manipulated where its probability is strictly above this value.
# BenCo's evaluators use 0.5, so every number that is compared with theirs must use it as well.
DEFAULT_THRESHOLD = 0.5

# Width in pixels of the ring along mask boundaries that serves as the edge target. It is the
# width that BenCo's training scripts pass for models with edge supervision.
EDGE_WIDTH = 7


MOST_QUERIES = 1024  # 32 are the most in the paper

_KINDS = {str: (str,), int: (int,), float: (float, int)}  # what each kind of field may hold


class ConfigError(QMANetError):
    """A choice that does not exist; one line says what was got, expected, and what to do."""


@dataclass(frozen=True)
class QMANetConfig:
    """Everything that fixes the architecture; what a checkpoint carries to be rebuilt from.

    The defaults are the paper's model; Tables 2 and 9 are other values of these fields.

    Raises:
        ConfigError: for a value outside the choices, naming them.
    """

    size: str = "b3"
    views: str = "srm,bayar,noiseprint"
    query_count: int = 16
    dfcm_stages: str = "1234"
    decode_levels: str = "1234"
    decoder: str = "query"
    drop_path: float = 0.1

    def __post_init__(self):
        for field in fields(self):
            value, kinds = getattr(self, field.name), _KINDS[field.type]
            if type(value) not in kinds:
                raise ConfigError(
                    f"got {field.name}={str(value)[:80]!r} of type {type(value).__name__}, "
                    f"expected {kinds[0].__name__}"
                )
        for name, choices in (
            ("size", tuple(SIZES)),
            ("dfcm_stages", DFCM_STAGES),
            ("decode_levels", DECODE_LEVELS),
            ("decoder", DECODERS),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"got {name}={getattr(self, name)!r}, expected one of {', '.join(choices)}"
                )
        named = self.views.replace(" ", "").split(",")
        if len(set(named)) < len(named) or not set(named) <= set(VIEWS):
            raise ConfigError(
                f"got views={self.views!r}, expected a comma-separated choice of {', '.join(VIEWS)}"
            )
        object.__setattr__(self, "views", ",".join(view for view in VIEWS if view in named))
        if not 1 <= self.query_count <= MOST_QUERIES:
            raise ConfigError(
                f"got query_count={self.query_count}, expected 1 or more, at most {MOST_QUERIES} "
                "(paper: 16)"
            )
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"got drop_path={self.drop_path}, expected 0 <= drop_path < 1")

    def as_flags(self) -> list[str]:
        """The command line that names this architecture, e.g. ``["--size", "b3", ...]``."""
        return [word for name, value in asdict(self).items() for word in (f"--{name}", str(value))]

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))


@dataclass(frozen=True)
class Preprocessing:
    """How photographs reached a model in training, and so how they should reach it later.

    Attributes:
        image_size: side of a square in pixels.
        fit: ``"resize"`` to that square, ``"pad"`` into it, or ``"native"``: crops at the
            photograph's own resolution.

    Raises:
        ConfigError: for a side below 32 or a fit that does not exist.
    """

    image_size: int = 512
    fit: str = "resize"

    def __post_init__(self):
        if type(self.image_size) is not int or not 32 <= self.image_size <= 2**15:
            raise ConfigError(
                f"got image_size={self.image_size!r}, expected a side from 32 to 32768 pixels"
            )
        if self.fit not in FITS:
            raise ConfigError(f"got fit={self.fit!r}, expected one of {', '.join(FITS)}")

    def __str__(self) -> str:
        side = f"{self.image_size}x{self.image_size}"
        return {"resize": f"resized to {side}", "pad": f"padded to {side}"}.get(
            self.fit, "at their own size"
        )
