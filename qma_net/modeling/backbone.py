"""GAE and LAE: the two SegFormer encoders, run stage by stage (paper section 3.2, equation 1)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import SegformerConfig, SegformerModel

HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
STRIDES = (4, 8, 16, 32)

# The official SegFormer: 1e-6 in block and stage norms, PyTorch's 1e-5 in all others.
BLOCK_NORM_EPS = 1e-6

# What an official or BenCo checkpoint may hold beside the encoder.
FOREIGN_HEADS = ("head.", "decode_head.", "deconv_model.")

# On a CPU without gradients, a Mix-FFN is computed in strips of rows that stay in the cache, where
# its hidden map, four times as wide as the tokens, would not.
WHOLE_VALUES = 2**22  # values of a hidden map (16 MiB) from which it is cut into strips
STRIP_VALUES = 2**18  # values of a strip's hidden map, about


class MiT(nn.Module):
    """Mix Transformer encoder (Xie et al. 2021) as four stages, each NCHW in and out.

    Stage i maps ``(B, C_{i-1}, h, w)`` to ``(B, C_i, h / s, w / s)`` with s = 4, 2, 2, 2.

    Args:
        channels: C_1..C_4.
        depths: number of transformer blocks in each stage.
        drop_path: stochastic depth, rising linearly over the blocks to this rate.
    """

    def __init__(self, channels: tuple[int, ...], depths: tuple[int, ...], drop_path: float):
        super().__init__()
        config = SegformerConfig(
            hidden_sizes=list(channels),
            depths=list(depths),
            num_attention_heads=list(HEADS),
            sr_ratios=list(REDUCTIONS),
            drop_path_rate=drop_path,
        )
        stages = SegformerModel(config).stages
        stages.apply(_initialise)
        for stage in stages:
            stage.layer_norm.eps = BLOCK_NORM_EPS
            for block in stage.blocks:
                block.layernorm_before.eps = block.layernorm_after.eps = BLOCK_NORM_EPS
        self.stages = nn.ModuleList(map(Stage, stages))

    def forward(self, image: Tensor) -> list[Tensor]:
        """The plain pyramid: four maps at strides 4, 8, 16, 32 (QMA-Net calls the stages)."""
        features = []
        for stage in self.stages:
            image = stage(image)
            features.append(image)
        return features


class Stage(nn.Module):
    """A stage of transformers' SegFormer whose maps stay channels-last, as its tokens are.

    ``checkpointing``: while training, keep only the tokens between the blocks and compute the
    rest again in the backward pass.
    """

    def __init__(self, stage: nn.Module):
        super().__init__()
        self.patch_embeddings = stage.patch_embeddings
        self.blocks = stage.blocks
        self.layer_norm = stage.layer_norm
        self.checkpointing = False
        for block in self.blocks:
            block.mlp = MixFFN(block.mlp)

    def forward(self, image: Tensor) -> Tensor:
        tokens, height, width = self.patch_embeddings(image)  # (B, h w, C)
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, height, width, use_reentrant=False)
            else:
                tokens = block(tokens, height, width)
        return _as_map(self.layer_norm(tokens), width)


class MixFFN(nn.Module):
    """The feed-forward part of a block: linear, depth-wise 3x3, GELU, linear.

    Shapes: tokens ``(B, h w, C)`` to the same.
    """

    def __init__(self, mlp: nn.Module):
        super().__init__()
        self.fc1, self.dwconv, self.fc2 = mlp.fc1, mlp.dwconv, mlp.fc2

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        if _plainly(tokens) or tokens.shape[1] * self.fc1.out_features < WHOLE_VALUES:
            return self._rows(tokens, width, above=0, below=0)
        rows = max(1, STRIP_VALUES // (width * self.fc1.out_features))
        out = torch.empty_like(tokens)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            above, below = min(top, 1), min(height - bottom, 1)  # rows that the 3x3 looks into
            strip = tokens[:, (top - above) * width : (bottom + below) * width]
            out[:, top * width : bottom * width] = self._rows(strip, width, above, below)
        return out

    def _rows(self, tokens: Tensor, width: int, above: int, below: int) -> Tensor:
        """Some rows of tokens; of them, ``above`` and ``below`` belong to the neighbours."""
        hidden = _as_map(self.fc1(tokens), width)
        conv = self.dwconv.dwconv
        if above or below:
            hidden = F.pad(hidden, (0, 0, 1 - above, 1 - below))
            hidden = F.conv2d(hidden, conv.weight, conv.bias, padding=(0, 1), groups=conv.groups)
        else:
            hidden = conv(hidden)
        if torch.is_grad_enabled():  # GELU again in backward: its map is a third of what is kept
            return checkpoint(self._last, hidden, use_reentrant=False, preserve_rng_state=False)
        return self._last(hidden)

    def _last(self, hidden: Tensor) -> Tensor:
        return self.fc2(F.gelu(hidden.flatten(2).transpose(1, 2)))


def _plainly(tokens: Tensor) -> bool:
    """Whether strips would not pay, or would be unrolled into a graph."""
    return (
        tokens.device.type != "cpu"
        or torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
    )


def _as_map(tokens: Tensor, width: int) -> Tensor:
    """``(B, h w, C)`` to ``(B, C, h, w)``, in channels-last memory: nothing is moved."""
    return tokens.transpose(1, 2).unflatten(2, (-1, width))


def _initialise(module: nn.Module) -> None:
    """The official initialisation, for training without ImageNet weights.

    transformers draws convolutions with a deviation of 0.02; the depth-wise ones of the Mix-FFN
    have 0.47 officially, and with 0.02 the network hardly learns from scratch.
    """
    if isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)


_BLOCK_NAMES = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.q": "attention.q_proj",
    "attn.proj": "attention.o_proj",
    "attn.sr": "attention.sequence_reduction.sequence_reduction",
    "attn.norm": "attention.sequence_reduction.layer_norm",
    "mlp.fc1": "mlp.fc1",
    "mlp.dwconv.dwconv": "mlp.dwconv.dwconv",
    "mlp.fc2": "mlp.fc2",
}


def remap_official(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State of :class:`MiT` from the naming of the official ``mit_bX.pth`` files.

    Heads of other tasks are dropped; a name it does not know is kept, for strict loading
    to report.
    """
    state = {}
    for name, tensor in official.items():
        if name.startswith(FOREIGN_HEADS):
            continue
        module, _, leaf = name.rpartition(".")
        root, _, rest = module.partition(".")
        stage = f"stages.{int(root[-1]) - 1}" if root[-1:].isdigit() else ""
        if not stage:
            state[name] = tensor
        elif root.startswith("patch_embed"):
            state[f"{stage}.patch_embeddings.{'layer_norm' if rest == 'norm' else rest}.{leaf}"] = (
                tensor
            )
        elif root.startswith("norm"):
            state[f"{stage}.layer_norm.{leaf}"] = tensor
        else:
            block, _, part = rest.partition(".")
            prefix = f"{stage}.blocks.{block}"
            if part == "attn.kv":
                key, value = tensor.chunk(2)
                state[f"{prefix}.attention.k_proj.{leaf}"] = key
                state[f"{prefix}.attention.v_proj.{leaf}"] = value
            else:
                state[f"{prefix}.{_BLOCK_NAMES.get(part, part)}.{leaf}"] = tensor
    return state
