"""Encoders GAE and LAE: SegFormer's Mix Transformers, run stage by stage (section 3.2)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)

# The official SegFormer has 1e-6 in block and stage norms, and PyTorch's 1e-5 in all others.
BLOCK_NORM_EPS = 1e-6

# Parts of official and BenCo checkpoints that do not belong to the encoder.
FOREIGN_HEADS = ("head.", "decode_head.", "deconv_model.")

# On a CPU without gradients, a Mix-FFN is computed in strips of rows so that its hidden map, which
# is four times as wide as the tokens, stays in the cache.
STRIPS_FROM_VALUES = 2**22  # size of a hidden map (16 MiB) above which strips are faster
STRIP_VALUES = 2**18  # approximate size of a strip's hidden map


class MiT(nn.Module):
    """Mix Transformer encoder (Xie et al. 2021) as four stages with NCHW maps.

    Stage i maps ``(B, C_{i-1}, h, w)`` to ``(B, C_i, h / s, w / s)``, where s is 4, 2, 2, 2. The
    rate of stochastic depth grows linearly over the blocks up to ``drop_path``.
    """

    def __init__(self, channels: Sequence[int], depths: Sequence[int], drop_path: float):
        # This import takes seconds, and commands that build no model can do without it.
        from transformers import SegformerConfig, SegformerModel

        super().__init__()
        config = SegformerConfig(
            hidden_sizes=list(channels),
            depths=list(depths),
            num_attention_heads=list(HEADS),
            sr_ratios=list(REDUCTIONS),
            drop_path_rate=drop_path,
        )
        stages: Any = SegformerModel(config).stages
        stages.apply(_initialize)
        for stage in stages:
            stage.layer_norm.eps = BLOCK_NORM_EPS
            for block in stage.blocks:
                block.layernorm_before.eps = block.layernorm_after.eps = BLOCK_NORM_EPS
        self.stages = nn.ModuleList(map(Stage, stages))


class Stage(nn.Module):
    """One stage of SegFormer (from `transformers`) that maps NCHW to NCHW.

    The maps are channels-last in memory, which is the layout of the tokens.
    With ``checkpointing``, training keeps only the tokens between blocks and recomputes the rest in
    the backward pass.
    """

    def __init__(self, stage: Any):
        super().__init__()
        self.patch_embeddings = stage.patch_embeddings
        self.blocks = stage.blocks
        self.layer_norm = stage.layer_norm
        self.checkpointing = False
        for block in self.blocks:
            block.mlp = MixFFN(block.mlp)

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(B, C_{i-1}, h, w)`` to ``(B, C_i, h / s, w / s)``."""
        tokens, height, width = self.patch_embeddings(image)  # (B, h w, C)
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, height, width, use_reentrant=False)
            else:
                tokens = block(tokens, height, width)
        return _as_map(self.layer_norm(tokens), width)  # (B, C, h, w)


class MixFFN(nn.Module):
    """Feed-forward part of a block: linear, depth-wise 3x3 convolution, GELU, linear."""

    def __init__(self, mlp: Any):
        super().__init__()
        self.fc1, self.dwconv, self.fc2 = mlp.fc1, mlp.dwconv, mlp.fc2

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Map tokens ``(B, h w, C)`` of a map of this height and width to the same shape."""
        if not self._benefits_from_strips(tokens):
            return self._rows(tokens, width, above=0, below=0)
        rows = max(1, STRIP_VALUES // (width * self.fc1.out_features))
        out = torch.empty_like(tokens)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            above, below = min(top, 1), min(height - bottom, 1)  # neighbors for the 3x3 kernel
            strip = tokens[:, (top - above) * width : (bottom + below) * width]
            out[:, top * width : bottom * width] = self._rows(strip, width, above, below)
        return out

    def _benefits_from_strips(self, tokens: Tensor) -> bool:
        """Return whether to use strips.

        They are faster for large maps, but must not be unrolled into a traced graph.
        """
        return (
            tokens.shape[1] * self.fc1.out_features >= STRIPS_FROM_VALUES
            and tokens.device.type == "cpu"
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
        )

    def _rows(self, tokens: Tensor, width: int, above: int, below: int) -> Tensor:
        """Compute rows of tokens; ``above`` and ``below`` count those of neighboring strips."""
        hidden = _as_map(self.fc1(tokens), width)  # (B, 4 C, h, w)
        conv = self.dwconv.dwconv  # transformers wraps the convolution.
        if above or below:
            hidden = F.pad(hidden, (0, 0, 1 - above, 1 - below))
            hidden = F.conv2d(hidden, conv.weight, conv.bias, padding=(0, 1), groups=conv.groups)
        else:
            hidden = conv(hidden)
        if torch.is_grad_enabled():
            # GELU is recomputed in the backward pass: storing its map takes a third of the memory.
            return checkpoint(self._project, hidden, use_reentrant=False, preserve_rng_state=False)
        return self._project(hidden)

    def _project(self, hidden: Tensor) -> Tensor:
        return self.fc2(F.gelu(hidden.flatten(2).transpose(1, 2)))  # (B, h w, C)


def _as_map(tokens: Tensor, width: int) -> Tensor:
    """View tokens ``(B, h w, C)`` as a channels-last map ``(B, C, h, w)`` without a copy."""
    return tokens.transpose(1, 2).unflatten(2, (-1, width))


def _initialize(module: nn.Module) -> None:
    """Initialize as the official SegFormer does, for training without ImageNet weights.

    transformers draws convolutions with a standard deviation of 0.02. The depth-wise ones of the
    Mix-FFN have 0.47 officially; with 0.02 the network barely learns when trained from scratch.
    """
    if isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)


# Official names and ours, after the number of the stage.
_RENAMED = {
    r"^patch_embed\.norm\.": "patch_embeddings.layer_norm.",
    r"^patch_embed\.": "patch_embeddings.",
    r"^norm\.": "layer_norm.",
    r"^block\.": "blocks.",
    r"\.norm1\.": ".layernorm_before.",
    r"\.norm2\.": ".layernorm_after.",
    r"\.attn\.q\.": ".attention.q_proj.",
    r"\.attn\.proj\.": ".attention.o_proj.",
    r"\.attn\.sr\.": ".attention.sequence_reduction.sequence_reduction.",
    r"\.attn\.norm\.": ".attention.sequence_reduction.layer_norm.",
}


def remap_official(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of an official ``mit_bX.pth`` file to the names in :class:`MiT`.

    Heads of other tasks are dropped. Unknown names are kept, so that strict loading reports them.
    """
    state = {}
    for name, tensor in official.items():
        match = re.fullmatch(r"(patch_embed|block|norm)(\d)(\..+)", name)
        if match:
            part = match[1] + match[3]
            for pattern, ours in _RENAMED.items():
                part = re.sub(pattern, ours, part)
            name = f"stages.{int(match[2]) - 1}.{part}"
        if ".attn.kv." in name:
            for letter, half in zip("kv", tensor.chunk(2), strict=False):
                state[name.replace("attn.kv", f"attention.{letter}_proj")] = half
        elif not name.startswith(FOREIGN_HEADS):
            state[name] = tensor
    return state
