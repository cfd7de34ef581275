"""Tamper-aware queries and their aggregation of features (section 3.3, equations 5-6)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .precision import to_autocast


class TamperQueries(nn.Module):
    """Learnable tamper-aware queries Q_tag: one set, passed on from level to level."""

    def __init__(self, query_count: int, channels: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(query_count, channels))

    def forward(self, batch_size: int) -> Tensor:
        """Return the queries for a batch, ``(B, N, C_1)``."""
        return self.queries.expand(batch_size, -1, -1)


class Attention(nn.Module):
    """Multi-head attention from tokens to a context."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels, bias=False)  # The softmax would cancel a bias.
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """Map tokens ``(B, N, C)`` and a context ``(B, L, C)`` to ``(B, N, C)``."""
        context = to_autocast(context)
        q = self._split_heads(self.query(tokens))  # (B, heads, N, C / heads)
        k = self._split_heads(self.key(context))  # (B, heads, L, C / heads)
        v = self._split_heads(self.value(context))  # (B, heads, L, C / heads)
        attended = F.scaled_dot_product_attention(q, k, v)  # (B, heads, N, C / heads)
        return self.out(attended.transpose(1, 2).flatten(2))  # (B, N, C)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class MLP(nn.Sequential):
    """Linear, GELU, linear; as MLP_i, it maps queries ``(B, N, C_i)`` to ``(B, N, C_{i+1})``."""

    def __init__(self, channels: int, hidden: int, out_channels: int):
        super().__init__(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, out_channels))


class TransformerBlock(nn.Module):
    """Pre-norm transformer block, Trans in equation 6: attention, then an MLP."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.norm_queries = nn.LayerNorm(channels)
        self.norm_context = nn.LayerNorm(channels)
        self.attention = Attention(channels, heads)
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = MLP(channels, 4 * channels, channels)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Map queries ``(B, N, C)`` and a context ``(B, L, C)`` to ``(B, N, C)``."""
        queries = queries + self.attention(self.norm_queries(queries), self.norm_context(context))
        return queries + self.mlp(self.norm_mlp(queries))


class MFAM(nn.Module):
    """Multi-domain Feature Aggregation Module (equations 5-6).

    The queries attend to R_i, then to N_i, then to each other. Every level has eight heads: as many
    as in the backbone would mean a single one at level 1, but section 3.3 has multi-head attention.
    """

    def __init__(self, channels: int, heads: int = 8):
        super().__init__()
        self.from_rgb = TransformerBlock(channels, heads)
        self.from_noise = TransformerBlock(channels, heads)
        self.among_queries = TransformerBlock(channels, heads)

    def forward(self, queries: Tensor, rgb: Tensor, noise: Tensor) -> Tensor:
        """Map Q_init ``(B, N, C)`` and R and N ``(B, C, h, w)`` to Q ``(B, N, C)``."""
        queries = self.from_rgb(queries, rgb.flatten(2).transpose(1, 2))
        queries = self.from_noise(queries, noise.flatten(2).transpose(1, 2))
        return self.among_queries(queries, queries)


class NoQueries(nn.Module):
    """Stand-in for the queries, MFAM and MLP in the ablation without queries, and the last MLP."""

    def forward(self, *_: object) -> None:
        """Return None."""
