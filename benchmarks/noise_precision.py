"""Effect of low precision on NoisePrint++, the reason why the noise view runs in float32.

    python -m benchmarks.noise_precision noiseprint++.th reference.npz

The inputs and weights of every convolution are rounded to a format, the products are summed in
float64, and the result is compared with a computation entirely in float64. A split format
represents every number as the sum of two and computes three of the four products, as on matrix
units. The last two rows are not emulated: they use the float32 convolutions of this machine, layer
by layer and streamed as in the model. ``reference.npz`` contains an ``image``, uint8
``(H, W, 3)``.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from qma_net.modeling.noise import NoisePrint
from qma_net.modeling.winograd import streamed
from qma_net.weights.sources import noiseprint_state


def main() -> None:
    """Print the table of formats."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("noiseprint")
    parser.add_argument("reference")
    args = parser.parse_args()
    noiseprint = NoisePrint().double()
    noiseprint.load_state_dict(noiseprint_state(args.noiseprint))
    image = torch.from_numpy(np.load(args.reference)["image"]).permute(2, 0, 1)[None].double() / 256
    exact = forward(noiseprint, image, rounded(lambda x: x))
    print("| format | RMS error / signal std | correlation with float64 |\n|---|---|---|")
    for name, products in (
        ("float32", rounded(lambda x: x.float().double())),
        ("TF32", rounded(to_tf32)),
        ("float16", rounded(lambda x: x.half().double())),
        ("bfloat16", rounded(lambda x: x.bfloat16().double())),
        ("TF32, split in two", split(to_tf32)),
        ("bfloat16, split in two", split(lambda x: x.bfloat16().double())),
    ):
        report(name, forward(noiseprint, image, products), exact)
    noiseprint, image = noiseprint.float(), image.float()
    plain = forward(noiseprint, image, rounded(lambda x: x))
    report("float32 on this CPU, layer by layer", plain, exact)
    report("float32 on this CPU, streamed", streamed(noiseprint.convs, image), exact)


def report(name: str, result: Tensor, exact: Tensor) -> None:
    """Print the error of a result relative to the signal, and its correlation with float64."""
    error = (result - exact).square().mean().sqrt() / exact.std()
    correlation = torch.corrcoef(torch.stack([result.double().flatten(), exact.flatten()]))[0, 1]
    print(f"| {name} | {error:.3%} | {correlation:.8f} |", flush=True)


@torch.no_grad()
def forward(noiseprint: NoisePrint, x: Tensor, products: Callable) -> Tensor:
    """Run the network with another implementation of its convolutions."""
    for i, conv in enumerate(noiseprint.convs):
        x = products(x, conv.weight) + conv.bias[:, None, None]
        x = F.relu(x) if i < noiseprint.depth - 1 else x
    return x


def rounded(rounding: Callable) -> Callable:
    """Return a 3x3 convolution of rounded numbers."""
    return lambda x, weight: F.conv2d(rounding(x), rounding(weight), padding=1)


def split(rounding: Callable) -> Callable:
    """Return a 3x3 convolution of numbers in two rounded parts.

    The product of the two small parts is omitted.
    """

    def products(x: Tensor, weight: Tensor) -> Tensor:
        large, kernel = rounding(x), rounding(weight)
        small, rest = rounding(x - large), rounding(weight - kernel)
        together = F.conv2d(torch.cat([large, small], 1), torch.cat([kernel, kernel], 1), padding=1)
        return together + F.conv2d(large, rest, padding=1)

    return products


def to_tf32(x: Tensor) -> Tensor:
    """Round to a mantissa of 10 bits, with ties away from zero, as matrix units do."""
    bits = x.float().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).double()


if __name__ == "__main__":
    main()
