"""GAE and LAE: the two SegFormer encoders, run stage by stage (paper section 3.2, equation 1)."""

from collections.abc import Mapping

from torch import Tensor, nn
from transformers import SegformerConfig, SegformerModel

HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
STRIDES = (4, 8, 16, 32)

# The official SegFormer: 1e-6 in block and stage norms, PyTorch's 1e-5 in all others.
BLOCK_NORM_EPS = 1e-6

# What an official or BenCo checkpoint may hold beside the encoder.
FOREIGN_HEADS = ("head.", "decode_head.", "deconv_model.")


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
        self.stages = SegformerModel(config).stages
        self.stages.apply(_initialise)
        for stage in self.stages:
            stage.layer_norm.eps = BLOCK_NORM_EPS
            for block in stage.blocks:
                block.layernorm_before.eps = block.layernorm_after.eps = BLOCK_NORM_EPS

    def forward(self, image: Tensor) -> list[Tensor]:
        """The plain pyramid: four maps at strides 4, 8, 16, 32 (QMA-Net calls the stages)."""
        features = []
        for stage in self.stages:
            image = stage(image)
            features.append(image)
        return features


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
