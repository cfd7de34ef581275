"""From a configuration to a model: the size table and the one builder."""

import warnings
from dataclasses import asdict, dataclass, fields

import torch

from .modeling.aggregation import MFAM, NoQueries, QueryMLP, TamperQueries
from .modeling.backbone import HEADS, REDUCTIONS, MiT
from .modeling.decoder import ESM, QMFD
from .modeling.interaction import DFCM, NoInteraction
from .modeling.noise import MNFM
from .modeling.qma_net import QMANetModel

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


class ConfigError(ValueError):
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
        if self.query_count < 1:
            raise ConfigError(f"got query_count={self.query_count}, expected 1 or more (paper: 16)")
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"got drop_path={self.drop_path}, expected 0 <= drop_path < 1")

    def as_flags(self) -> list[str]:
        """The command line that names this architecture, e.g. ``["--size", "b3", ...]``."""
        return [word for name, value in asdict(self).items() for word in (f"--{name}", str(value))]

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))


def assemble(config: QMANetConfig) -> QMANetModel:
    """The model a configuration names, freshly initialised: weights are loaded by others."""
    channels, depths = SIZES[config.size]
    levels = range(4)
    interacting = "" if config.dfcm_stages == "none" else config.dfcm_stages
    queried = config.decoder == "query"
    decoded = tuple(int(level) - 1 for level in config.decode_levels)
    model = QMANetModel(
        noise_view=MNFM(tuple(config.views.split(","))),
        rgb_backbone=MiT(channels, depths, config.drop_path),
        noise_backbone=MiT(channels, depths, config.drop_path),
        interactions=[
            DFCM(channels[i], HEADS[i], REDUCTIONS[i])
            if str(i + 1) in interacting
            else NoInteraction()
            for i in levels
        ],
        tamper_queries=TamperQueries(config.query_count, channels[0]) if queried else NoQueries(),
        aggregations=[MFAM(channels[i], HEADS[i]) if queried else NoQueries() for i in levels],
        query_mlps=[
            QueryMLP(channels[i], channels[i + 1]) if queried and i < 3 else NoQueries()
            for i in levels
        ],
        edge_heads=[ESM(channels[i]) for i in levels],
        decoder=QMFD(channels, decoded, config.decoder, config.query_count),
        config=config,
    )
    return model.to(memory_format=torch.channels_last)  # as the tokens of the encoders are


def build_qma_net(
    size: str = "b3",
    views: str = "srm,bayar,noiseprint",
    backbone_weights: str = "",
    noiseprint_weights: str = "",
    query_count: int = 16,
    dfcm_stages: str = "1234",
    decode_levels: str = "1234",
    decoder: str = "query",
    drop_path: float = 0.1,
) -> QMANetModel:
    """Builds a QMA-Net ready to train.

    Args:
        size: MiT size of both backbones, b0 to b5; the paper's parameter count fits b3.
        views: noise views of the MNFM, a comma-separated choice of srm, bayar, noiseprint.
        backbone_weights: ImageNet weights for both backbones: an official ``mit_bX.pth``, a
            Hugging Face directory, or an id such as ``nvidia/mit-b3``. Empty: random, with a
            warning.
        noiseprint_weights: the published ``noiseprint++.th``, or a TruFor checkpoint.
        query_count: tamper-aware queries (Table 9: 4, 8, 16, 32).
        dfcm_stages: stages with DFCM: ``"none"``, ``"4"``, ``"1234"`` (Table 2).
        decode_levels: levels that are decoded: ``"4"``, ``"1234"`` (Table 2).
        decoder: ``"query"``, ``"conv"`` or ``"mlp"`` (Table 2).
        drop_path: stochastic depth of both backbones while training.

    Returns:
        The model; called on ``(B, 3, H, W)`` it gives ``mask_logits`` and ``edge_logits``.

    Raises:
        ConfigError: for a value outside the choices, or the noiseprint view without its weights.
        qma_net.weights.WeightsError: for weights that are missing or do not fit.
    """
    from . import weights

    config = QMANetConfig(size, views, query_count, dfcm_stages, decode_levels, decoder, drop_path)
    if "noiseprint" in config.views and not noiseprint_weights:
        raise ConfigError(weights.NOISEPRINT_MISSING)
    if "noiseprint" not in config.views and noiseprint_weights:
        raise ConfigError(
            f"got noiseprint_weights={noiseprint_weights!r} with views={config.views!r}, expected "
            "the noiseprint view with them: add it to views or leave the weights out"
        )
    model = assemble(config)
    if noiseprint_weights:
        weights.load_noiseprint(model.noise_view.noiseprint, noiseprint_weights)
    if backbone_weights:
        weights.load_backbones(model, config.size, backbone_weights)
    else:
        warnings.warn(
            "QMA-Net starts with random backbones: give backbone_weights (`qma-net weights` says "
            "where they are published) to train as the paper does",
            stacklevel=2,
        )
    return model
