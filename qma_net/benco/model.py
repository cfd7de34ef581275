"""QMA-Net as a model of IMDL-BenCo: ``--model QMANet``.

No ``from __future__ import annotations`` here: BenCo makes command-line flags out of the
constructor's annotations, and needs them as types.
"""

from dataclasses import asdict
from importlib import import_module

from IMDLBenCo.registry import MODELS
from torch import Tensor, nn

from ..build import build_qma_net
from ..modeling.config import QMANetConfig
from ..modeling.losses import (
    DICE_SMOOTHING,
    EDGE_WEIGHT,
    MASK_WEIGHT,
    cross_entropy_loss,
    mask_and_edge_losses,
)
from ..modeling.precision import widen
from ..modeling.qma_net import QMANetModel, image_score
from ..weights.checkpoint import (
    CONFIG_KEY,
    Checkpoint,
    config_from_extra_state,
    config_to_extra_state,
    require_same_architecture,
)


@MODELS.register_module()
class QMANet(nn.Module):
    """The paper's network and loss behind BenCo's forward contract.

    The flags are those of :func:`qma_net.build_qma_net`, and:

    Args:
        alpha: weight of the mask loss (equation 8).
        beta: weight of the edge loss (equation 8).
        dice_smoothing: share of the image area that smooths both Dice losses: more spares
            authentic images false alarms, less finds smaller masks.
        bce: weight of a cross-entropy of the mask beside both Dice losses; ours, not in the
            paper: from random weights Dice alone starts slowly.
        init_from: a checkpoint of BenCo's trainer to start from: a fine-tuning, not a resume.
            With it no other weights are needed. In Python also a
            :class:`~qma_net.modeling.qma_net.QMANetModel`, which becomes the network itself.
        gradient_checkpointing: 1 trades time for memory in training, for larger batches (BenCo
            would read any word as True, so this is a number).
    """

    def __init__(
        self,
        size: str = QMANetConfig.size,
        views: str = QMANetConfig.views,
        backbone_weights: str = "",
        noiseprint_weights: str = "",
        query_count: int = QMANetConfig.query_count,
        dfcm_stages: str = QMANetConfig.dfcm_stages,
        decode_levels: str = QMANetConfig.decode_levels,
        decoder: str = QMANetConfig.decoder,
        drop_path: float = QMANetConfig.drop_path,
        alpha: float = MASK_WEIGHT,
        beta: float = EDGE_WEIGHT,
        dice_smoothing: float = DICE_SMOOTHING,
        bce: float = 0.0,
        init_from: str = "",
        gradient_checkpointing: int = 0,
    ):
        super().__init__()
        self.alpha, self.beta, self.bce, self.dice_smoothing = alpha, beta, bce, dice_smoothing
        self.config = QMANetConfig(
            size, views, query_count, dfcm_stages, decode_levels, decoder, drop_path
        )
        if isinstance(init_from, QMANetModel):
            what = f"checkpoint {init_from.weights_file}"
            require_same_architecture(init_from.config, self.config, what)
            self.network = init_from
        elif init_from:
            self.network = QMANetModel.from_config(self.config)
            Checkpoint.read(init_from).load_into(self.network)
        else:
            self.network = build_qma_net(
                backbone_weights=backbone_weights,
                noiseprint_weights=noiseprint_weights,
                **asdict(self.config),
            )
        self.network.checkpoint_gradients(bool(gradient_checkpointing))

    def forward(
        self,
        image: Tensor,
        mask: Tensor | None = None,
        label: Tensor | None = None,
        edge_mask: Tensor | None = None,
        shape_mask: Tensor | None = None,
        *args,
        **kwargs,
    ) -> dict:
        """One batch of BenCo's loaders.

        BenCo's own ``edge_mask`` is not used: the edge target is made from the mask the loss
        sees (:func:`qma_net.modeling.losses.edge_target`).

        Args:
            image: float32 ``(B, 3, H, W)``, ImageNet-normalised.
            mask: float64 ``(B, 1, H, W)`` of 0 and 1; without it there are no losses.
            label: int64 ``(B,)``; unused, the image score comes from the mask.
            shape_mask: ``(B, 1, H, W)``, 1 on the photograph, when BenCo pads.

        Returns:
            BenCo's dictionary: ``pred_mask`` ``(B, 1, H, W)`` in 0..1, ``pred_label`` ``(B,)``,
            ``backward_loss``, ``visual_loss`` and ``visual_image``.
        """
        output = self.network(image)
        pred_mask = output.mask_logits.sigmoid()
        result = {
            "pred_mask": pred_mask,
            "pred_label": image_score(pred_mask, shape_mask),
            "visual_loss": {},
            "visual_image": {"edge": widen(output.edge_logits[0]).sigmoid()},
        }
        if mask is not None:
            seg_loss, edge_loss = mask_and_edge_losses(
                output, mask, shape_mask, self.dice_smoothing
            )
            losses = {"seg_loss": seg_loss, "edge_loss": edge_loss}
            total = self.alpha * seg_loss + self.beta * edge_loss
            if self.bce:
                losses["bce_loss"] = cross_entropy_loss(output.mask_logits, mask, shape_mask)
                total = total + self.bce * losses["bce_loss"]
            result["backward_loss"] = total
            result["visual_loss"] = {"total_loss": total, **losses}
        return result

    def get_extra_state(self) -> Tensor:
        """What a checkpoint keeps beside the weights: enough to rebuild the model."""
        return config_to_extra_state(self.config)

    def set_extra_state(self, state: Tensor) -> None:
        """Refuses a checkpoint of another architecture before a tensor is touched."""
        got = config_from_extra_state(state, "state dict")
        require_same_architecture(got, self.config, "state dict")

    def _load_from_state_dict(self, state_dict, prefix, *args):
        if prefix + CONFIG_KEY not in state_dict:
            config_from_extra_state(None, "state dict")  # raises, naming the flags
        super()._load_from_state_dict(state_dict, prefix, *args)


def attention_flops(inputs, outputs) -> int:
    """Multiply-adds of ``scaled_dot_product_attention``: both of its matrix products.

    fvcore counts none; BenCo's complexity script would leave all fused attention out.
    """
    query, key = (value.type().sizes() for value in inputs[:2])
    batch_and_heads = 1
    for extent in query[:-2]:
        batch_and_heads *= extent
    return 2 * batch_and_heads * query[-2] * key[-2] * query[-1]


# By name: in fvcore.nn a function of the same name hides the module.
_flop_count = import_module("fvcore.nn.flop_count")


_flop_count._DEFAULT_SUPPORTED_OPS["aten::scaled_dot_product_attention"] = attention_flops
