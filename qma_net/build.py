"""Building a model, ready for training, from a configuration and published weights."""

import warnings

from .modeling.config import ConfigError, QMANetConfig
from .modeling.qma_net import QMANetModel
from .weights.sources import NOISEPRINT_SOURCE, load_backbones, load_noiseprint


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
    dfcm_scale: float = QMANetConfig.dfcm_scale,
    interaction: str = QMANetConfig.interaction,
) -> QMANetModel:
    """Build a QMA-Net that is ready for training.

    Args:
        size: Size of both SegFormer encoders; b3 matches the paper's parameter count.
        views: Noise views of the MNFM, a comma-separated list of srm, bayar, noiseprint.
        backbone_weights: ImageNet weights for both encoders: an official ``mit_bX.pth``, a Hugging
            Face folder, or a Hugging Face Hub ID such as ``nvidia/mit-b3``. If empty, the
            encoders start with random weights and a warning is issued.
        noiseprint_weights: The published ``noiseprint++.th``, or a TruFor checkpoint.
        query_count: Number of tamper-aware queries.
        dfcm_stages: Stages with a DFCM.
        decode_levels: Levels that are decoded.
        decoder: Type of decoder; query is the paper's QMFD.
        drop_path: Rate of stochastic depth in both encoders during training.
        dfcm_scale: Initial scale of the DFCM's residual; the paper adds it unscaled.
        interaction: Type of interaction at the DFCM stages; add and concat replace the DFCM.

    Returns:
        The model. It maps ``(B, 3, H, W)`` to ``mask_logits`` and ``edge_logits``.

    Raises:
        ConfigError: If a value is invalid, or if the noiseprint view and its weights are not given
            together.
        qma_net.modeling.state.WeightsError: If weights are missing or do not match.
    """
    config = QMANetConfig(
        size,
        views,
        query_count,
        dfcm_stages,
        decode_levels,
        decoder,
        drop_path,
        dfcm_scale,
        interaction,
    )
    if "noiseprint" in config.views and not noiseprint_weights:
        raise ConfigError(
            "the noiseprint view needs noiseprint_weights; pass the path of noiseprint++.th "
            f"(published in {NOISEPRINT_SOURCE}; nonprofit research use), "
            'or omit the view with views="srm,bayar"'
        )
    model = QMANetModel.from_config(config)
    if noiseprint_weights:
        if model.noise_view.noiseprint is None:
            raise ConfigError(
                f"got noiseprint_weights={noiseprint_weights!r} with views={config.views!r}; add "
                "noiseprint to views, or omit the weights"
            )
        load_noiseprint(model.noise_view.noiseprint, noiseprint_weights)
    if backbone_weights:
        load_backbones(model, backbone_weights)
    else:
        warnings.warn(
            "QMA-Net starts with random encoders; pass backbone_weights to train as in the paper "
            "(`qma-net weights` lists where they are published)",
            stacklevel=2,
        )
    return model
