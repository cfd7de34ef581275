"""QMA-Net composed of its modules; ``forward`` implements Figure 2 of the paper."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .aggregation import MFAM, MLP, NoQueries, TamperQueries
from .backbone import HEADS, REDUCTIONS, MiT, Stage
from .compilation import compilation_errors, compile_parts
from .config import SIZES, QMANetConfig
from .decoder import ESM, QMFD, PyramidDecoder
from .hub import HubModule
from .interaction import NoInteraction, build_interaction
from .noise import MNFM
from .precision import cast_weights

SMALLEST_SIDE = 32
STRIDE = 32

# The squares of the image score: how many fit along the shorter side, and steps per square side.
SCORE_SQUARES, SCORE_STEPS = 10, 4


@dataclass
class QMANetOutput:
    """Output of the model for a batch.

    Attributes:
        mask_logits: Float32 ``(B, 1, H, W)`` at the size of the input.
        edge_logits: A list of one map ``(B, 1, h, w)`` at stride 4 of the padded input, which
            :func:`to_image_size` brings to the size of the input; empty if not requested.
    """

    mask_logits: Tensor
    edge_logits: list[Tensor]


class QMANetModel(HubModule):
    """Query-driven Multi-stage Alternating feature extraction and interaction Network.

    :meth:`from_config` builds the parts: the noise view (MNFM), an RGB and a noise encoder of four
    stages each (GAE and LAE), for every level an interaction (DFCM), an aggregation (MFAM) and the
    MLP that passes the queries on, the decoder (QMFD) and the edge supervision (ESM).

    Attributes:
        feeds_back: Whether the encoders continue with the output of the interactions, as in the
            paper; otherwise only the queries, the decoder and the edge supervision receive it.
    """

    feeds_back = True

    def __init__(
        self,
        noise_view: MNFM,
        rgb_backbone: MiT,
        noise_backbone: MiT,
        interactions: Sequence[nn.Module],
        tamper_queries: nn.Module,
        aggregations: Sequence[nn.Module],
        query_mlps: Sequence[nn.Module],
        decoder: nn.Module,
        edge_head: nn.Module,
    ):
        super().__init__()
        self.noise_view = noise_view
        self.rgb_backbone = rgb_backbone
        self.noise_backbone = noise_backbone
        self.interactions = nn.ModuleList(interactions)
        self.tamper_queries = tamper_queries
        self.aggregations = nn.ModuleList(aggregations)
        self.query_mlps = nn.ModuleList(query_mlps)
        self.decoder = decoder
        self.edge_head = edge_head

    @classmethod
    def from_config(cls, config: QMANetConfig) -> Self:
        """Build the model that a configuration describes, with random weights."""
        channels, depths = SIZES[config.size]
        levels = tuple(int(level) - 1 for level in config.decode_levels)
        has_queries = config.decoder == "query"
        model = cls(
            noise_view=MNFM(tuple(config.views.split(","))),
            rgb_backbone=MiT(channels, depths, config.drop_path),
            noise_backbone=MiT(channels, depths, config.drop_path),
            interactions=[
                build_interaction(config.interaction, c, heads, reduction, config.dfcm_scale)
                if stage in config.dfcm_stages
                else NoInteraction()
                for stage, c, heads, reduction in zip(
                    "1234", channels, HEADS, REDUCTIONS, strict=True
                )
            ],
            tamper_queries=(
                TamperQueries(config.query_count, channels[0]) if has_queries else NoQueries()
            ),
            aggregations=[MFAM(c) if has_queries else NoQueries() for c in channels],
            query_mlps=[
                *(
                    MLP(c, out, out) if has_queries else NoQueries()
                    for c, out in pairwise(channels)
                ),
                NoQueries(),
            ],
            decoder=(
                QMFD(channels, levels, config.query_count)
                if has_queries
                else PyramidDecoder(channels, levels, config.decoder)
            ),
            edge_head=ESM(channels),
        )
        # Not an argument of the constructor: huggingface_hub would convert it to a different type.
        model.config = config
        model.feeds_back = config.interaction != "no-feedback"
        # The encoders' tokens are channels-last, so maps in this layout are never rearranged.
        return model.to(memory_format=torch.channels_last)

    def forward(
        self, image: Tensor, edges: bool = True, noise: Tensor | None = None
    ) -> QMANetOutput:
        """Localize the tampered pixels (Figure 2).

        Args:
            image: R_0, ``(B, 3, H, W)``, ImageNet-normalized, with H and W of at least 32.
            edges: Whether to compute the edge map, which only the loss needs.
            noise: N_0, ``(B, 3, H, W)``; default: ``noise_view`` of the image. A tile cut from
                the noise view of the whole image has no border effects.

        Raises:
            ValueError: If the image has the wrong shape or a side below 32 pixels.
        """
        _check_image(image)
        with compilation_errors(), cast_weights(self._parts()):
            return self._localize(image, edges, noise)

    def _localize(self, image: Tensor, edges: bool, noise: Tensor | None) -> QMANetOutput:
        # fmt: off
        noise = self.noise_view(image) if noise is None else noise  # (B, 3, H, W)
        r, n = _pad_to_stride(image, noise)                         # (B, 3, H', W')
        q_init = self.tamper_queries(image.shape[0])                 # (B, N, C_1)
        triplets = []
        for gae, lae, dfcm, mfam, mlp in zip(
            self.rgb_backbone.stages,
            self.noise_backbone.stages,
            self.interactions,
            self.aggregations,
            self.query_mlps,
            strict=True,
        ):
            r_init, n_init = gae(r), lae(n)                         # (B, C_i, h_i, w_i)   eq 1
            r, n = dfcm(r_init, n_init)                             # (B, C_i, h_i, w_i)   eq 2-4
            q = mfam(q_init, r, n)                                  # (B, N, C_i)          eq 5-6
            q_init = mlp(q)                                         # (B, N, C_{i+1})
            triplets.append((q, r, n))
            if not self.feeds_back:
                r, n = r_init, n_init
        mask = self.decoder(triplets)                               # (B, 1, H'/4, W'/4)   eq 7
        edge_maps = [self.edge_head([r for _, r, _ in triplets])] if edges else []
        # fmt: on
        return QMANetOutput(to_image_size(mask, image.shape[2:]), edge_maps)

    def checkpoint_gradients(self, enabled: bool = True) -> None:
        """Save memory in training by recomputing the encoder blocks in the backward pass."""
        for stage in self._encoder_stages():
            stage.checkpointing = enabled

    def compile_for_inference(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compile the encoder blocks with torch.compile (about half a minute per image size).

        They are compiled one by one, because the blocks of a stage then share a graph. After
        about 64 image sizes, further ones are computed without compilation.
        """
        compile_parts(self._blocks(), backend, fullgraph=False)

    def compile_for_training(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compile all parts with weights except the noise views and the patch embeddings.

        Each part has a graph for training and one for evaluation, for a fixed batch and image size.
        Further sizes are compiled when they occur, up to a limit of about 32.
        """
        parts = [*self._fusion_parts(), self.decoder, self.edge_head]
        with_weights = [part for part in parts if any(True for _ in part.parameters())]
        compile_parts([*self._blocks(), *with_weights], backend, fullgraph=True)

    def _blocks(self) -> list[nn.Module]:
        return [block for stage in self._encoder_stages() for block in stage.blocks]

    def _encoder_stages(self) -> list[Stage]:
        return [*self.rgb_backbone.stages, *self.noise_backbone.stages]

    def _fusion_parts(self) -> list[nn.Module]:
        return [*self.interactions, *self.aggregations, *self.query_mlps]

    def _parts(self) -> list[nn.Module]:
        """Return the parts that run in half precision under autocast."""
        return [*self._encoder_stages(), *self._fusion_parts(), self.decoder, self.edge_head]


def _check_image(image: Tensor) -> None:
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(
            f"got an image tensor of shape {tuple(image.shape)}, expected (B, 3, H, W); convert it "
            "to RGB"
        )
    height, width = image.shape[2:]
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"the image has {height}x{width} pixels (height x width), expected at least "
            f"{SMALLEST_SIDE}x{SMALLEST_SIDE}; enlarge or exclude it"
        )


def _pad_to_stride(*views: Tensor) -> list[Tensor]:
    """Pad to a multiple of 32 by repeating the last row and column.

    A reflection would mirror the JPEG grid, and the model marks the pixels next to such a second
    grid (docs/reading-the-paper.md). Zeros would create an edge in the noise view.
    """
    height, width = views[0].shape[2:]
    bottom, right = -height % STRIDE, -width % STRIDE
    if not (bottom or right):
        return list(views)
    return [F.pad(view, (0, right, 0, bottom), mode="replicate") for view in views]


def to_image_size(logits: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Upsample maps ``(B, C, h, w)`` to the padded size and crop them to ``size``, (H, W)."""
    height, width = size
    padded = (height + -height % STRIDE, width + -width % STRIDE)
    full = F.interpolate(logits, padded, mode="bilinear", align_corners=False)  # (B, C, H', W')
    return full[..., :height, :width]


def image_score(mask: Tensor, shape_mask: Tensor | None = None) -> Tensor:
    """Return BenCo's ``pred_label``, the mean of each image's most suspicious square, ``(B,)``.

    The side of a square is about a tenth of the image's shorter side. Rows and columns that remain
    at the bottom and on the right, fewer than a fortieth of it, are ignored. The paper does not
    define this score; docs/evidence.md compares it with others.

    Args:
        mask: Mask values in 0..1, ``(B, 1, H, W)``.
        shape_mask: ``(B, 1, H, W)``, 0 on padding below and to the right of the image; default: no
            padding.
    """
    if shape_mask is None:
        return _highest_square_mean(mask)
    inside = shape_mask > 0
    sizes = torch.stack([inside.any(side).sum((1, 2)) for side in (3, 2)], dim=1)  # (B, 2)
    images = [values[:, :h, :w] for values, (h, w) in zip(mask, sizes.tolist(), strict=True)]
    return torch.cat([_highest_square_mean(image[None]) for image in images])


def _highest_square_mean(mask: Tensor) -> Tensor:
    """Return each mask's highest mean over a square, moved in steps of a quarter of its side."""
    shorter = min(mask.shape[2:])
    step = max(1, shorter // (SCORE_SQUARES * SCORE_STEPS))
    cells = F.avg_pool2d(mask, step)
    squares = F.avg_pool2d(cells, min(SCORE_STEPS, shorter), stride=1)
    return squares.amax(dim=(1, 2, 3))
