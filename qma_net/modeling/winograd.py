"""Fast NoisePrint++ on CPUs: rows streamed through all layers, with Winograd convolutions.

NoisePrint++, a frozen chain of 3x3 convolutions at full resolution, accounts for 63% of the model's
arithmetic. Two measures make it faster on a CPU without changing its result:

- **Streaming.** Every convolution receives a few rows at a time and keeps the last two, which the
  following rows need. A strip of rows therefore stays in the cache from the first layer to the
  last, nothing is computed twice, and no layer's complete map is ever in memory.
- **Winograd's F(4, 3) along the columns** (Lavin & Gray 2016). Four rows take six 1x3
  convolutions instead of twelve. The transforms multiply 6x6 and 4x6 matrices by whole rows.

In float32 the result is about as close to float64 as that of plain convolutions; which of the two
is closer depends on the CPU (``python -m benchmarks.noise_precision``).
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

GROUP = len(OUT)  # output rows of one transform
TAPS = len(IN)  # input rows of one transform
MIN_CHANNELS = 16  # with fewer channels the transform is slower than a plain convolution

# Pixels per strip: 4 MiB in float32 with 64 channels, which fits into the cache.
STRIP_PIXELS = 16384


@torch.compiler.disable  # type: ignore[untyped-decorator]
@torch.no_grad()
def streamed(convs: Sequence[nn.Conv2d], image: Tensor) -> Tensor:
    """Apply 3x3 convolutions with bias and zero padding, and a ReLU after each but the last.

    Map ``(B, C_in, H, W)`` of any height and width to ``(B, C_out, H, W)`` without gradients.
    """
    batch, _, height, width = image.shape
    strip = GROUP * max(1, round(STRIP_PIXELS / width / GROUP))
    # A layer must hold a strip, one group for each earlier layer (which withholds it until the last
    # strip), its own unfinished group, and the zeros below the image.
    capacities = [min(strip, height) + GROUP * (i + 3) for i in range(len(convs))]
    widest = max(max(conv.in_channels, conv.out_channels) for conv in convs)
    workspace = image.new_empty(2, TAPS, capacities[-1] // GROUP + 1, width, widest)
    layers = [
        (_WinogradLayer if min(conv.in_channels, conv.out_channels) >= MIN_CHANNELS else _Layer)(
            conv, capacity, workspace
        )
        for conv, capacity in zip(convs, capacities, strict=True)
    ]
    result = image.new_empty(batch, height + GROUP, width, convs[-1].out_channels)
    for rows, out in zip(image.permute(0, 2, 3, 1), result, strict=True):
        for layer in layers:
            layer.reset()
        finished = 0
        for top in range(0, height, strip):
            is_last = top + strip >= height
            layers[0].append(rows[top : top + strip])
            for layer, following in pairwise(layers):
                count = layer.compute(following.free, is_last)
                following.free[:count].relu_()
                following.count += count
            finished += layers[-1].compute(out[finished:], is_last)
    return result[:, :height].permute(0, 3, 1, 2)


class _Layer:
    """One 3x3 convolution, which receives the rows of an image from top to bottom.

    ``rows[:count]`` are the received rows, ``(count, W, C_in)``, that are still needed.
    """

    def __init__(self, conv: nn.Conv2d, capacity: int, workspace: Tensor):
        self.conv, self.workspace = conv, workspace
        self.rows = conv.weight.new_empty(capacity, workspace.shape[3], conv.in_channels)
        self.count = 0

    def reset(self) -> None:
        self.rows[:1] = 0  # the padding above the image
        self.count = 1

    @property
    def free(self) -> Tensor:
        """Buffer for the next rows."""
        return self.rows[self.count :]

    def append(self, rows: Tensor) -> None:
        self.free[: len(rows)] = rows
        self.count += len(rows)

    def compute(self, out: Tensor, is_last: bool) -> int:
        """Write the finished rows ``(r, W, C_out)`` to ``out`` and return r."""
        if is_last:
            self.free[: GROUP + 1] = 0  # padding below the image, and the rest of the last group
            self.count += 1
        finished = self._convolve(out, max(0, self.count - 2), is_last)
        remaining = self.rows[finished : self.count].clone()
        self.rows[: len(remaining)] = remaining
        self.count = len(remaining)
        return finished

    def _convolve(self, out: Tensor, ready: int, is_last: bool) -> int:
        if ready:
            out[:ready] = _conv_rows(self.rows[: ready + 2], self.conv.weight, self.conv.bias)
        return ready


class _WinogradLayer(_Layer):
    """Computes rows in groups of four; only the last group of an image may be incomplete."""

    def __init__(self, conv: nn.Conv2d, capacity: int, workspace: Tensor):
        super().__init__(conv, capacity, workspace)
        weight = conv.weight
        kernels = torch.einsum("ti,ocij->tocj", weight.new_tensor(KERNEL).double(), weight.double())
        self.kernels = [  # each (C_out, C_in, 1, 3)
            kernel.to(weight.dtype).unsqueeze(2).contiguous(memory_format=torch.channels_last)
            for kernel in kernels
        ]
        self.transform_in, self.transform_out = weight.new_tensor(IN), weight.new_tensor(OUT)

    def _convolve(self, out: Tensor, ready: int, is_last: bool) -> int:
        groups = -(-ready // GROUP) if is_last else ready // GROUP
        if not groups:
            return 0
        row = self.rows[0].numel()
        windows = self.rows.as_strided((groups, TAPS, row), (GROUP * row, row, 1))
        spread = self._buffer(0, groups, self.conv.in_channels)
        products = self._buffer(1, groups, self.conv.out_channels)
        torch.bmm(
            self.transform_in.expand(groups, -1, -1),
            windows,
            out=spread.flatten(2).transpose(0, 1),
        )
        for i in range(TAPS):
            # The second column of OUT, for the point 1, is all ones, so a bias added to this
            # product reaches every output row exactly once.
            bias = self.conv.bias if i == 1 else None
            products[i] = _conv_rows(spread[i], self.kernels[i], bias)
        torch.bmm(
            self.transform_out.expand(groups, -1, -1),
            products.flatten(2).transpose(0, 1),
            out=out[: GROUP * groups].view(groups, GROUP, -1),
        )
        return ready if is_last else GROUP * groups

    def _buffer(self, index: int, groups: int, channels: int) -> Tensor:
        """Return ``(TAPS, groups, W, channels)``, shared by all layers so that it stays cached."""
        shape = (TAPS, groups, self.rows.shape[1], channels)
        return self.workspace[index].flatten()[: math.prod(shape)].view(shape)


def _conv_rows(rows: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve rows ``(r, W, C)`` with a kernel of k rows into ``(r - k + 1, W, C_out)``."""
    result = F.conv2d(rows[None].permute(0, 3, 1, 2), kernel, bias, padding=(0, 1))
    return result.permute(0, 2, 3, 1)[0]
