"""Encoders GAE and LAE: SegFormer's Mix Transformers, run stage by stage (section 3.2)."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .precision import to_autocast

HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)

# The official SegFormer uses 1e-6 in block and stage norms, and PyTorch's 1e-5 in all others.
BLOCK_NORM_EPS = 1e-6

# Parts of official and BenCo checkpoints that do not belong to the encoder.
FOREIGN_HEADS = ("head.", "decode_head.", "deconv_model.")

# On a CPU, when no gradients are needed, a Mix-FFN is computed in strips of rows so that its hidden
# map, which has four times as many channels as the tokens, stays in the cache.
STRIPS_FROM_VALUES = 2**22  # size of a hidden map (16 MiB) above which strips are faster
STRIP_VALUES = 2**18  # approximate size of a strip's hidden map


class MiT(nn.Module):
    """Mix Transformer encoder (Xie et al. 2021) as four stages with NCHW feature maps.

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

    keep: Tensor

    def __init__(self, stage: Any):
        super().__init__()
        self.patch_embeddings = stage.patch_embeddings
        rates = [getattr(layer.drop_path, "drop_prob", 0.0) for layer in stage.blocks]
        self.blocks = nn.ModuleList(map(Block, stage.blocks))
        self.layer_norm = stage.layer_norm
        self.checkpointing = False
        keep = [1 - rate for rate in rates if rate]  # Probabilities; the first rate is 0.
        self.register_buffer("keep", torch.tensor(keep), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(B, C_{i-1}, h, w)`` to ``(B, C_i, h / s, w / s)``."""
        tokens, height, width = self.patch_embeddings(image)  # (B, h w, C)
        for block, divisors in zip(self.blocks, self._drop_path(image.shape[0]), strict=True):
            arguments = (tokens, height, width, divisors)
            if self.checkpointing and torch.is_grad_enabled():
                weights: dict[str, Tensor] = dict(
                    block.named_parameters()
                )  # cast_weights may have replaced them.
                run = partial(functional_call, block, weights, tie_weights=False)
                # A block draws no random numbers, so their state need not be kept.
                tokens = checkpoint(run, arguments, use_reentrant=False, preserve_rng_state=False)
            else:
                tokens = block(*arguments)
        return _as_map(self.layer_norm(tokens), width)  # (B, C, h, w)

    def _drop_path(self, batch_size: int) -> Sequence[Tensor | None]:
        """Draw the divisors of each block's two residuals for stochastic depth, in training.

        Their shape is ``(2, B, 1, 1)`` for each block. A divisor is infinity if the residual of an
        image is dropped, and the probability of keeping it otherwise. All numbers are drawn at
        once. Blocks receive divisors, not probabilities, so they can share a compiled graph.
        """
        count = len(self.keep)
        if not self.training or not count:
            return [None] * len(self.blocks)
        drawn = torch.rand(count, 2, batch_size, 1, 1, device=self.keep.device)
        keep = self.keep.view(-1, 1, 1, 1, 1)
        divisors = keep / (drawn + keep).floor()
        undropped = [torch.ones_like(divisors[0])] * (len(self.blocks) - count)
        return [*undropped, *divisors.unbind()]


class Block(nn.Module):
    """Transformer block: self-attention and Mix-FFN, each pre-norm and with a residual.

    It takes over the layers of a `transformers` block, under the same names.
    """

    def __init__(self, layer: Any):
        super().__init__()
        self.layernorm_before = layer.layernorm_before
        self.attention = SelfAttention(layer.attention)
        self.layernorm_after = layer.layernorm_after
        self.mlp = MixFFN(layer.mlp)

    def forward(
        self, tokens: Tensor, height: int, width: int, divisors: Tensor | None = None
    ) -> Tensor:
        """Map tokens ``(B, h w, C)`` to the same shape.

        For stochastic depth, the two residuals are divided by ``divisors``, ``(2, B, 1, 1)``.
        """
        residual = self.attention(self.layernorm_before(tokens), height, width)
        tokens = (residual if divisors is None else residual / divisors[0]) + tokens
        residual = self.mlp(self.layernorm_after(tokens), height, width)
        return (residual if divisors is None else residual / divisors[1]) + tokens


class SelfAttention(nn.Module):
    """Multi-head self-attention in which a strided convolution shortens keys and values."""

    def __init__(self, attention: Any):
        super().__init__()
        self.q_proj, self.k_proj = attention.q_proj, attention.k_proj
        self.v_proj, self.o_proj = attention.v_proj, attention.o_proj
        self.sequence_reduction = getattr(attention, "sequence_reduction", None)
        self.head_channels = attention.head_dim

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Map tokens ``(B, h w, C)`` to the same shape."""
        tokens = context = to_autocast(tokens)
        if self.sequence_reduction is not None:
            # (B, h w / reduction^2, C)
            context = to_autocast(self.sequence_reduction(tokens, height, width))
        q = self._split_heads(self.q_proj(tokens))  # (B, heads, h w, C / heads)
        # (B, heads, h w / reduction^2, C / heads)
        k, v = map(self._split_heads, self._keys_and_values(context))
        attended = F.scaled_dot_product_attention(q, k, v)  # (B, heads, h w, C / heads)
        return self.o_proj(attended.transpose(1, 2).flatten(2))  # (B, h w, C)

    def _keys_and_values(self, context: Tensor) -> Sequence[Tensor]:
        """Project to keys and values; compiled graphs do so with a single matrix product."""
        k, v = self.k_proj, self.v_proj
        if not torch.compiler.is_compiling():
            return k(context), v(context)
        weight, bias = torch.cat([k.weight, v.weight]), torch.cat([k.bias, v.bias])
        return F.linear(context, weight, bias).chunk(2, dim=-1)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, self.head_channels)).transpose(1, 2)


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
        """Compute a strip whose first ``above`` and last ``below`` rows belong to its neighbors."""
        hidden = _as_map(self.fc1(tokens), width)  # (B, 4 C, h, w)
        conv = self.dwconv.dwconv  # transformers wraps the convolution.
        if above or below:
            hidden = F.pad(hidden, (0, 0, 1 - above, 1 - below))
            hidden = F.conv2d(hidden, conv.weight, conv.bias, padding=(0, 1), groups=conv.groups)
        else:
            hidden = conv(hidden)
        hidden = hidden.flatten(2).transpose(1, 2)  # (B, h w, 4 C)
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return self.fc2(F.gelu(hidden))
        return _GeluLinear.apply(hidden, self.fc2.weight, self.fc2.bias)  # (B, h w, C)


class _GeluLinear(torch.autograd.Function):
    """GELU and linear layer; the GELU is recomputed in the backward pass.

    Storing its output would take a third of the memory of a training step.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        weight, bias = weight.to(hidden.dtype), bias.to(hidden.dtype)
        ctx.save_for_backward(hidden, weight)
        return F.linear(F.gelu(hidden), weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden, weight = ctx.saved_tensors
        rows = gradient.flatten(0, 1)  # (B h w, C)
        in_hidden = torch.ops.aten.gelu_backward(gradient @ weight, hidden)
        return in_hidden, rows.T @ F.gelu(hidden).flatten(0, 1), rows.sum(0)


def _as_map(tokens: Tensor, width: int) -> Tensor:
    """View tokens ``(B, h w, C)`` as a channels-last map ``(B, C, h, w)`` without a copy."""
    return tokens.transpose(1, 2).unflatten(2, (-1, width))


def _initialize(module: nn.Module) -> None:
    """Initialize as the official SegFormer does, for training without ImageNet weights.

    `transformers` draws the weights of convolutions with a standard deviation of 0.02. The official
    value for the depth-wise convolutions of the Mix-FFN is 0.47; with 0.02 the network barely
    learns when trained from scratch.
    """
    if isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)


# Patterns in official names, without the number of the stage, and what replaces them.
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
