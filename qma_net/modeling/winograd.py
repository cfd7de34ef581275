"""How NoisePrint++ runs on a CPU: row by row, and with Winograd's transform.

A frozen chain of 3x3 convolutions at full resolution is 63 % of the model's arithmetic. Two
things make it faster on a processor without changing what it computes:

- **Rows stream through all layers.** Every convolution is fed a few rows at a time and keeps
  the two that its next rows need, so a strip stays in the cache from the first layer to the
  last. Nothing is computed twice, and no layer's full map is ever in memory.
- **Winograd's F(4, 3) along the columns** (Lavin & Gray 2016): six 1x3 convolutions give four
  rows, in place of twelve. The transforms are products of 6x6 and 4x6 matrices with whole rows.

In float32 the result is nearer to float64's than the plain convolution's, which sums three times
as many terms one after the other (``python -m benchmarks.noise_precision``).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# F(4, 3) at the points 0, 1, -1, 2, -2 and infinity: rows = OUT @ ((KERNEL @ w) * (IN @ rows)).
IN = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)

KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)

OUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)

GROUP = len(OUT)  # rows that one transform gives
TAPS = len(IN)  # rows that it takes
NARROWEST = 16  # channels from which the transform pays
STRIP_PIXELS = 16384  # fed at a time: 4 MiB of 64 channels in float32, for the cache


@torch.compiler.disable
@torch.no_grad()
def streamed(convs: Sequence[nn.Conv2d], image: Tensor) -> Tensor:
    """A chain of 3x3 convolutions with zero padding and a ReLU between each two.

    Shapes: ``(B, C_in, H, W)`` to ``(B, C_out, H, W)``, of any H and W, without gradients.
    """
    batch, _, height, width = image.shape
    strip = GROUP * max(1, round(STRIP_PIXELS / width / GROUP))
    # a strip, a group that each layer before held back until the last, its own, and zeros below
    capacities = [min(strip, height) + GROUP * (i + 3) for i in range(len(convs))]
    widest = max(max(conv.in_channels, conv.out_channels) for conv in convs)
    workspace = image.new_empty(2, TAPS, capacities[-1] // GROUP + 1, width, widest)
    layers = [
        (_Winograd if min(conv.in_channels, conv.out_channels) >= NARROWEST else _Plain)(
            conv, capacity, workspace
        )
        for conv, capacity in zip(convs, capacities, strict=True)
    ]
    result = image.new_empty(batch, height + GROUP, width, convs[-1].out_channels)
    for rows, out in zip(image.permute(0, 2, 3, 1), result, strict=True):
        for layer in layers:
            layer.start()
        finished = 0
        for top in range(0, height, strip):
            last = top + strip >= height
            layers[0].take(rows[top : top + strip])
            for layer, following in pairwise(layers):
                done = layer.give(following.room(), last)
                following.room()[:done].relu_()
                following.held += done
            finished += layers[-1].give(out[finished:], last)
    return result[:, :height].permute(0, 3, 1, 2)


class _Layer:
    """One 3x3 convolution while the rows of an image pass through it, top to bottom.

    ``rows[:held]`` are the rows ``(held, W, C_in)`` that were taken and are still needed.
    """

    def __init__(self, conv: nn.Conv2d, capacity: int, workspace: Tensor):
        self.conv, self.workspace = conv, workspace
        self.rows = conv.weight.new_empty(capacity, workspace.shape[3], conv.in_channels)

    def start(self) -> None:
        self.rows[:1] = 0  # above the image
        self.held = 1

    def take(self, rows: Tensor) -> None:
        self.room()[: len(rows)] = rows
        self.held += len(rows)

    def room(self) -> Tensor:
        """Where the next rows are to be written."""
        return self.rows[self.held :]

    def give(self, out: Tensor, last: bool) -> int:
        """Writes what the rows complete to ``out``, ``(r, W, C_out)``; returns how many rows."""
        if last:
            self.room()[: GROUP + 1] = 0  # below the image, and what the last group lacks
            self.held += 1
        done = self.compute(out, max(0, self.held - 2), last)
        waiting = self.rows[done : self.held].clone()
        self.rows[: len(waiting)] = waiting
        self.held = len(waiting)
        return done


class _Plain(_Layer):
    def compute(self, out: Tensor, ready: int, last: bool) -> int:
        if ready:
            rows = self.rows[: ready + 2]
            out[:ready] = _convolved(rows, self.conv.weight, self.conv.bias)
        return ready


class _Winograd(_Layer):
    """By whole groups of four rows; the image's last group may hold fewer."""

    def __init__(self, conv: nn.Conv2d, capacity: int, workspace: Tensor):
        super().__init__(conv, capacity, workspace)
        weight = conv.weight
        kernels = torch.einsum("ti,ocij->tocj", weight.new_tensor(KERNEL).double(), weight.double())
        self.kernels = [  # each (C_out, C_in, 1, 3)
            kernel.to(weight.dtype).unsqueeze(2).contiguous(memory_format=torch.channels_last)
            for kernel in kernels
        ]
        self.into, self.out_of = weight.new_tensor(IN), weight.new_tensor(OUT)

    def compute(self, out: Tensor, ready: int, last: bool) -> int:
        groups = -(-ready // GROUP) if last else ready // GROUP
        if not groups:
            return 0
        line = self.rows[0].numel()
        taken = self.rows.as_strided((groups, TAPS, line), (GROUP * line, line, 1))
        spread = self._space(0, groups, self.conv.in_channels)
        products = self._space(1, groups, self.conv.out_channels)
        torch.bmm(self.into.expand(groups, -1, -1), taken, out=spread.flatten(2).transpose(0, 1))
        for i in range(TAPS):
            bias = self.conv.bias if i == 1 else None  # at the point 1, all of OUT is 1
            products[i] = _convolved(spread[i], self.kernels[i], bias)
        torch.bmm(
            self.out_of.expand(groups, -1, -1),
            products.flatten(2).transpose(0, 1),
            out=out[: GROUP * groups].view(groups, GROUP, -1),
        )
        return ready if last else GROUP * groups

    def _space(self, which: int, groups: int, channels: int) -> Tensor:
        """``(TAPS, groups, W, channels)`` of what all layers write to in turn: it stays cached."""
        shape = (TAPS, groups, self.rows.shape[1], channels)
        return self.workspace[which].flatten()[: math.prod(shape)].view(shape)


def _convolved(rows: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """``(r, W, C)`` with a kernel of k rows to ``(r - k + 1, W, C_out)``; zeros left and right."""
    result = F.conv2d(rows[None].permute(0, 3, 1, 2), kernel, bias, padding=(0, 1))
    return result.permute(0, 2, 3, 1)[0]
