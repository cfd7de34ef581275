"""QMA-Net as an IMDL-BenCo model: ``--model QMANet``.

BenCo turns the constructor's annotations into the types of command-line flags, so they must be
plain ``str``, ``int`` or ``float``, without ``from __future__ import annotations``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, cast

from fvcore.nn.flop_count import _DEFAULT_SUPPORTED_OPS
from IMDLBenCo.registry import MODELS
from torch import Tensor, nn

from ..build import build_qma_net
from ..modeling.compilation import compile_function
from ..modeling.config import ConfigError, QMANetConfig
from ..modeling.losses import (
    DICE_SMOOTHING,
    EDGE_WEIGHT,
    MASK_WEIGHT,
    cross_entropy_loss,
    mask_and_edge_losses,
)
from ..modeling.noise import Bayar
from ..modeling.precision import widen
from ..modeling.qma_net import QMANetModel, image_score
from ..weights.checkpoint import (
    CONFIG_KEY,
    config_from_extra_state,
    config_to_extra_state,
    require_same_architecture,
)
from ..weights.locate import read_source


@MODELS.register_module()
class QMANet(nn.Module):
    """The paper's network and loss with BenCo's interface.

    The other arguments are those of :func:`qma_net.build_qma_net`.

    Args:
        alpha: Weight of the mask loss (equation 8).
        beta: Weight of the edge loss (equation 8).
        dice_smoothing: Smoothing term of both Dice losses, as a fraction of the image area. With
            larger values, missing a small region costs less; with smaller values, authentic images
            contribute almost no gradient until a pixel is marked, and the model may learn to mark
            nothing (docs/reading-the-paper.md).
        bce: Weight of an additional cross-entropy loss on the mask, which is not in the paper;
            Dice losses alone converge slowly at first when training from scratch.
        init_from: A model to fine-tune: a checkpoint, a folder of checkpoints, a folder written by
            ``save_pretrained``, a Hugging Face Hub ID, or qma-net-small; no other weights are
            needed.
        gradient_checkpointing: 1 enables gradient checkpointing (less memory, slower); must be 0 or
            1, because BenCo parses any string as True.
        compile: 1 compiles the network (except the noise views and the patch embeddings) and the
            losses with torch.compile (fewer and larger kernels; the first step takes minutes); must
            be 0 or 1.
    """

    # In Python, ``init_from`` may also be a QMANetModel, which then becomes the network itself.

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
        dfcm_scale: float = QMANetConfig.dfcm_scale,
        interaction: str = QMANetConfig.interaction,
        alpha: float = MASK_WEIGHT,
        beta: float = EDGE_WEIGHT,
        dice_smoothing: float = DICE_SMOOTHING,
        bce: float = 0.0,
        init_from: str = "",
        gradient_checkpointing: int = 0,
        compile: int = 0,
    ):
        super().__init__()
        for name, value in (
            ("gradient_checkpointing", gradient_checkpointing),
            ("compile", compile),
        ):
            if value not in (0, 1):
                raise ConfigError(f"got --{name} {value}, but it must be 0 or 1")
        self.alpha, self.beta, self.bce, self.dice_smoothing = alpha, beta, bce, dice_smoothing
        self.config = QMANetConfig(
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
        start = cast(str | QMANetModel, init_from)  # BenCo needs the annotation str.
        self.network: QMANetModel
        if isinstance(start, QMANetModel):
            source = f"checkpoint {start.weights_file}"
            require_same_architecture(start.config, self.config, source)
            self.network = start
        elif start:
            self.network = QMANetModel.from_config(self.config)
            read_source(start).load_into(self.network)
        else:
            self.network = build_qma_net(
                backbone_weights=backbone_weights,
                noiseprint_weights=noiseprint_weights,
                **asdict(self.config),
            )
        self.network.loss = {
            "alpha": float(alpha),
            "beta": float(beta),
            "dice_smoothing": float(dice_smoothing),
            "bce": float(bce),
        }
        self.network.checkpoint_gradients(bool(gradient_checkpointing))
        self._mask_and_edge_losses: Callable[..., tuple[Tensor, Tensor]] = mask_and_edge_losses
        if compile:
            self.compile_for_training()

    def compile_for_training(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compile the network and its losses with torch.compile."""
        self.network.compile_for_training(backend)
        self._mask_and_edge_losses = compile_function(mask_and_edge_losses, backend)

    def forward(
        self,
        image: Tensor,
        mask: Tensor | None = None,
        label: Tensor | None = None,
        edge_mask: Tensor | None = None,
        shape_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Compute predictions and losses for a batch of BenCo's data loader.

        ``image`` is float32 ``(B, 3, H, W)``, normalized with ImageNet's statistics, and ``mask``
        is float64 ``(B, 1, H, W)``, 1 on tampered pixels and 0 elsewhere; without it no losses are
        computed. ``shape_mask`` is 1 inside the image and 0 in BenCo's padding. Other fields of the
        batch are ignored: the edge target is derived from ``mask``
        (:func:`qma_net.modeling.losses.edge_target`), and the image-level score from the predicted
        mask.

        Returns:
            BenCo's dictionary: ``pred_mask`` ``(B, 1, H, W)`` from 0 to 1, ``pred_label``
            ``(B,)``, ``backward_loss``, ``visual_loss`` and ``visual_image``.
        """
        output = self.network(image)
        pred_mask = output.mask_logits.sigmoid()
        result: dict[str, Any] = {
            "pred_mask": pred_mask,
            "pred_label": image_score(pred_mask, shape_mask),
            "visual_loss": {},
            "visual_image": {"edge": widen(output.edge_logits[0]).sigmoid()},
        }
        if mask is None:
            return result
        seg_loss, edge_loss = self._mask_and_edge_losses(
            output, mask, shape_mask, self.dice_smoothing
        )
        losses = {"seg_loss": seg_loss, "edge_loss": edge_loss}
        total = self.alpha * seg_loss + self.beta * edge_loss
        if self.bce:
            losses["bce_loss"] = cross_entropy_loss(output.mask_logits, mask, shape_mask)
            total = total + self.bce * losses["bce_loss"]
        return result | {"backward_loss": total, "visual_loss": {"total_loss": total, **losses}}

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that timm's optimizers, which BenCo uses, do not decay.

        Decay would pull queries, scales and the weights of Bayar kernels toward zero, although
        their magnitude says nothing about the complexity of the model. timm excludes biases and
        vectors by itself.
        """
        names = {
            name
            for name, _ in self.named_parameters()
            if name.rpartition(".")[2].startswith(("queries", "scale"))
        }
        bayar = {name for name, module in self.named_modules() if isinstance(module, Bayar)}
        return names | {f"{name}.weight" for name in bayar}

    def get_extra_state(self) -> Tensor:
        """Return the configuration, so that a checkpoint suffices to rebuild the model.

        The flags of the loss are included, so that results of the checkpoint can state them.
        """
        return config_to_extra_state(self.config, self.network.loss)

    def set_extra_state(self, state: Tensor) -> None:
        """Reject a checkpoint of a different architecture before any tensor is loaded.

        Raises:
            WeightsError: If the configurations differ.
        """
        got = config_from_extra_state(state, "a state dict")
        require_same_architecture(got, self.config, "a state dict")

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        if prefix + CONFIG_KEY not in state_dict:
            config_from_extra_state(None, "a state dict")  # Raises an error that names the flags.
        super()._load_from_state_dict(state_dict, prefix, *args)


def attention_flops(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Count the multiply-adds of ``scaled_dot_product_attention``: both of its matrix products.

    fvcore does not count them, so BenCo's test_complexity would otherwise ignore fused attention.
    The traced inputs are query ``(..., L, E)``, key ``(..., S, E)``, value and options.
    """
    query, key = (value.type().sizes() for value in inputs[:2])
    return 2 * math.prod(query) * key[-2]


_DEFAULT_SUPPORTED_OPS["aten::scaled_dot_product_attention"] = attention_flops
