"""From a configuration and published weights to a model ready to train."""

import warnings

from .modeling.config import ConfigError, QMANetConfig
from .modeling.qma_net import QMANetModel
from .weights.sources import NOISEPRINT_MISSING, load_backbones, load_noiseprint


def build_qma_net(
    size: str = QMANetConfig.size,
    views: str = QMANetConfig.views,
    backbone_weights: str = "",
    noiseprint_weights: str = "",
    query_count: int = QMANetConfig.query_count,
    dfcm_stages: str = QMANetConfig.dfcm_stages,
    decode_levels: str = QMANetConfig.decode_levels,
    decoder: str = QMANetConfig.decoder,
    drop_path: float = QMANetConfig.drop_path,
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
        qma_net.modeling.state.WeightsError: for weights that are missing or do not fit.
    """

    config = QMANetConfig(size, views, query_count, dfcm_stages, decode_levels, decoder, drop_path)
    if "noiseprint" in config.views and not noiseprint_weights:
        raise ConfigError(NOISEPRINT_MISSING)
    if "noiseprint" not in config.views and noiseprint_weights:
        raise ConfigError(
            f"got noiseprint_weights={noiseprint_weights!r} with views={config.views!r}, expected "
            "the noiseprint view with them: add it to views or leave the weights out"
        )
    model = QMANetModel.from_config(config)
    if noiseprint_weights:
        load_noiseprint(model.noise_view.noiseprint, noiseprint_weights)
    if backbone_weights:
        load_backbones(model, config.size, backbone_weights)
    else:
        warnings.warn(
            "QMA-Net starts with random backbones: give backbone_weights (`qma-net weights` says "
            "where they are published) to train as the paper does",
            stacklevel=2,
        )
    return model
