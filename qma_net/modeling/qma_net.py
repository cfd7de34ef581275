"""QMA-Net, composed: ``forward`` is Figure 2 of the paper."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .aggregation import MFAM, NoQueries, QueryMLP, TamperQueries
from .backbone import HEADS, REDUCTIONS, MiT
from .calibration import Calibration
from .config import SIZES, Preprocessing, QMANetConfig
from .decoder import ESM, QMFD, PyramidDecoder
from .hub import HubMixin
from .interaction import DFCM, NoInteraction
from .noise import MNFM

SMALLEST_SIDE = 32
STRIDE = 32
SCORED_AT_ONCE = 2**22  # pixels: a choice of the largest takes 16 bytes for each


@dataclass
class QMANetOutput:
    """What the model says of a batch.

    Attributes:
        mask_logits: ``(B, 1, H, W)``, float32, at the size of the input.
        edge_logits: a list of one map ``(B, 1, h, w)`` at stride 4 of the input padded to a
            multiple of 32; :func:`to_image_size` brings it to the input's size. An empty list
            with ``edges=False``.
    """

    mask_logits: Tensor
    edge_logits: list[Tensor]


class QMANetModel(nn.Module, HubMixin):
    """Query-driven Multi-stage Alternating feature extraction and interaction Network.

    Built by :func:`qma_net.build_qma_net` from its parts: the noise view (MNFM), two encoders
    with four stages each (GAE on RGB, LAE on noise), and per level an interaction (DFCM) and an
    aggregation (MFAM) with the MLP that carries the queries on; last the decoder (QMFD) and the
    edge supervision (ESM).

    Shapes: ImageNet-normalised ``(B, 3, H, W)``, any H and W from 32 up, to
    :class:`QMANetOutput`.

    Attributes:
        config: what it was built from.
        preprocessing: how photographs reached it in training; None where that is not known.
        about: what its user must know, such as that it is a demo's; shown with every result.
        weights_file: where its weights were read from; None where they were not.
        calibration: what untouched photographs score with these weights; None where not measured.
    """

    preprocessing: Preprocessing | None = None
    about: str = ""
    weights_file: Path | None = None
    calibration: Calibration | None = None

    def __init__(
        self,
        noise_view: nn.Module,
        rgb_backbone: nn.Module,
        noise_backbone: nn.Module,
        interactions: list[nn.Module],
        tamper_queries: nn.Module,
        aggregations: list[nn.Module],
        query_mlps: list[nn.Module],
        decoder: nn.Module,
        edge_head: nn.Module,
        config=None,
    ):
        super().__init__()
        self.config = config
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
    def from_config(cls, config: QMANetConfig) -> "QMANetModel":
        """The model that a configuration names, freshly initialised."""
        channels, depths = SIZES[config.size]
        levels = range(4)
        interacting = "" if config.dfcm_stages == "none" else config.dfcm_stages
        queried = config.decoder == "query"
        decoded = tuple(int(level) - 1 for level in config.decode_levels)
        model = cls(
            noise_view=MNFM(tuple(config.views.split(","))),
            rgb_backbone=MiT(channels, depths, config.drop_path),
            noise_backbone=MiT(channels, depths, config.drop_path),
            interactions=[
                DFCM(channels[i], HEADS[i], REDUCTIONS[i])
                if str(i + 1) in interacting
                else NoInteraction()
                for i in levels
            ],
            tamper_queries=(
                TamperQueries(config.query_count, channels[0]) if queried else NoQueries()
            ),
            aggregations=[MFAM(channels[i]) if queried else NoQueries() for i in levels],
            query_mlps=[
                QueryMLP(channels[i], channels[i + 1]) if queried and i < 3 else NoQueries()
                for i in levels
            ],
            decoder=(
                QMFD(channels, decoded, config.query_count)
                if queried
                else PyramidDecoder(channels, decoded, config.decoder)
            ),
            edge_head=ESM(channels),
            config=config,
        )
        return model.to(memory_format=torch.channels_last)  # as the tokens of the encoders are

    def forward(
        self, image: Tensor, edges: bool = True, noise: Tensor | None = None
    ) -> QMANetOutput:
        """From R_0 to the mask.

        Args:
            image: R_0, ``(B, 3, H, W)``.
            edges: False leaves out the edge supervision, which only the loss needs.
            noise: N_0, ``(B, 3, H, W)``, where it is known already; default: ``noise_view`` of
                the image. Of a tile of a photograph, that of the whole photograph has no borders.
        """
        _require_usable(image)
        size = image.shape[2:]
        noise = self.noise_view(image) if noise is None else noise
        r, n = _padded(image, noise)  # R_0, N_0: (B, 3, H', W')
        q_init = self.tamper_queries(image.shape[0])  # Q_tag: (B, query_count, C_1)
        triplets = []
        for gae, lae, dfcm, mfam, mlp in zip(
            self.rgb_backbone.stages,
            self.noise_backbone.stages,
            self.interactions,
            self.aggregations,
            self.query_mlps,
            strict=True,
        ):
            r, n = gae(r), lae(n)  # (B, C_i, h_i, w_i)             eq 1
            r, n = dfcm(r, n)  #                                    eq 2-4
            q = mfam(q_init, r, n)  # (B, query_count, C_i)         eq 5-6
            q_init = mlp(q)  # (B, query_count, C_{i+1})
            triplets.append((q, r, n))
        mask = self.decoder(triplets)  # (B, 1, h_1, w_1)           eq 7
        edge = [self.edge_head([r for _, r, _ in triplets])] if edges else []  # (B, 1, h_1, w_1)
        return QMANetOutput(to_image_size(mask, size), edge)

    def checkpoint_gradients(self, enabled: bool = True) -> None:
        """Trades time for memory in training: the backbones' blocks run again in backward."""
        for backbone in (self.rgb_backbone, self.noise_backbone):
            for stage in backbone.stages:
                stage.checkpointing = enabled

    def compile_for_inference(self) -> None:
        """Has torch.compile fuse the backbones' blocks: some seconds for each size, then faster.

        Block by block, so that all blocks of a stage share one graph. Stochastic depth is taken
        out, which would give every block a graph of its own: for inference only.
        """
        for backbone in (self.rgb_backbone, self.noise_backbone):
            for stage in backbone.stages:
                for block in stage.blocks:
                    block.drop_path = nn.Identity()
                    block.compile(dynamic=False)


def _require_usable(image: Tensor) -> None:
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(
            f"got an image tensor of shape {tuple(image.shape)}, expected (B, 3, H, W): give RGB"
        )
    height, width = image.shape[2:]
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"got an image of {height}x{width} pixels (height x width), expected at least "
            f"{SMALLEST_SIDE}x{SMALLEST_SIDE}: enlarge it or leave it out"
        )


def _padded(*views: Tensor) -> list[Tensor]:
    """Repeats the last row and column to a multiple of 32.

    A reflection would be a second grid of JPEG's blocks, turned around, and the model marks what
    is beside it (docs/reading-the-paper.md).
    """
    height, width = views[0].shape[2:]
    bottom, right = -height % STRIDE, -width % STRIDE
    if not (bottom or right):
        return list(views)
    return [F.pad(view, (0, right, 0, bottom), mode="replicate") for view in views]


def to_image_size(logits: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Maps of any level, ``(B, C, h, w)``, to ``(B, C, H, W)``: upsampled, padding cropped."""
    height, width = size
    padded = (height + -height % STRIDE, width + -width % STRIDE)
    full = F.interpolate(logits, padded, mode="bilinear", align_corners=False)
    return full[..., :height, :width]


def image_score(mask: Tensor, shape_mask: Tensor | None = None, share: float = 0.01) -> Tensor:
    """Score of an image: the mean of its most suspicious pixels (ours, not in the paper).

    Shapes: probabilities ``(B, 1, H, W)`` to ``(B,)``; ``shape_mask`` is 0 on padding.
    """
    if shape_mask is not None:
        mask = mask * shape_mask
    pixels = mask.flatten(1)
    count = max(1, int(share * pixels.shape[1]))
    if pixels.shape[1] > SCORED_AT_ONCE:
        parts = pixels.split(SCORED_AT_ONCE, dim=1)
        best = [part.topk(min(count, part.shape[1]), dim=1).values for part in parts]
        pixels = torch.cat(best, dim=1)
    return pixels.topk(count, dim=1).values.mean(dim=1)
