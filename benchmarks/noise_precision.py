"""What low precision does to NoisePrint++: why the noise view stays in float32.

    python -m benchmarks.noise_precision noiseprint++.th reference.npz

The inputs and weights of every convolution are rounded to the format, products are summed in
float64; the result is compared with float64 throughout. ``reference.npz`` holds an ``image``,
uint8 ``(H, W, 3)``.
"""

import argparse

import numpy as np
import torch
from torch.nn import functional as F

from qma_net.modeling.noise import NoisePrint
from qma_net.weights import noiseprint_state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("noiseprint")
    parser.add_argument("reference")
    args = parser.parse_args()
    noiseprint = NoisePrint().double()
    noiseprint.load_state_dict(noiseprint_state(args.noiseprint))
    image = torch.from_numpy(np.load(args.reference)["image"]).permute(2, 0, 1)[None].double() / 256
    exact = rounded_forward(noiseprint, image, lambda x: x)
    print("| format | error, rms / signal, std | correlation with float64 |\n|---|---|---|")
    for name, rounding in (
        ("float32", lambda x: x.float().double()),
        ("TF32", to_tf32),
        ("float16", lambda x: x.half().double()),
        ("bfloat16", lambda x: x.bfloat16().double()),
    ):
        got = rounded_forward(noiseprint, image, rounding)
        error = (got - exact).square().mean().sqrt() / exact.std()
        correlation = torch.corrcoef(torch.stack([got.flatten(), exact.flatten()]))[0, 1]
        print(f"| {name} | {error:.2%} | {correlation:.6f} |")


@torch.no_grad()
def rounded_forward(noiseprint: NoisePrint, x: torch.Tensor, rounding) -> torch.Tensor:
    for i, conv in enumerate(noiseprint.convs):
        x = F.conv2d(rounding(x), rounding(conv.weight), conv.bias, padding=1)
        x = F.relu(x) if i < noiseprint.depth - 1 else x
    return x


def to_tf32(x: torch.Tensor) -> torch.Tensor:
    """Round to 10 bits of mantissa, ties away from zero, as the matrix units do."""
    bits = x.float().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).double()


if __name__ == "__main__":
    main()
