"""Speed and accuracy of NoisePrint++ on a GPU in various precisions.

    python -m benchmarks.noiseprint_cuda noiseprint++.th reference.npz [--size 512] [--batch 8]

Prints the milliseconds per image (median over rounds in which the variants take turns), and the
error and correlation relative to the same network in float64 for the reference image.
``reference.npz`` contains an ``image``, uint8 ``(H, W, 3)``.

"TF32 in two parts" is a float32 convolution on matrix units: every number is the sum of two TF32
numbers, and one convolution of the channels [high, high, low] with the kernels [high, low, high]
sums three of the four products in float32.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qma_net.modeling.noise import NoisePrint
from qma_net.weights.sources import noiseprint_state

CHANNELS_LAST = torch.channels_last
MULTIPLY_ADDS = 9 * (3 * 64 + 15 * 64 * 64 + 64)  # Per pixel.


def main() -> None:
    """Print the table of precisions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("noiseprint")
    parser.add_argument("reference")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = args.device
    exact_network = NoisePrint().double()
    exact_network.load_state_dict(noiseprint_state(args.noiseprint))
    image = torch.from_numpy(np.load(args.reference)["image"]).permute(2, 0, 1)[None].double() / 256
    exact_network, image = exact_network.to(device), image.to(device)
    batch = torch.rand(args.batch, 3, args.size, args.size, device=device)
    with torch.no_grad():
        exact = chain(exact_network.convs, image)
        runs = {name: prepare(exact_network) for name, prepare in VARIANTS.items()}
        results = {name: run(image) for name, run in runs.items()}
        seconds = {name: [] for name in runs}
        for number in range(-2, args.rounds):
            for name, run in runs.items():
                elapsed = timed(run, batch)
                if number >= 0:
                    seconds[name].append(elapsed)
    name_of_device = torch.cuda.get_device_name() if device == "cuda" else device
    print(
        f"{name_of_device}, torch {torch.__version__}, "
        f"batches of {args.batch} of {args.size}x{args.size}\n"
    )
    print(
        "| precision | ms per image | TFLOP/s | RMS error / signal std | correlation with float64 |"
    )
    print("|---|---|---|---|---|")
    for name, result in results.items():
        ms = 1000 * float(np.median(seconds[name])) / args.batch
        rate = 2 * MULTIPLY_ADDS * args.size**2 / ms / 1e9
        error = float((result.double() - exact).square().mean().sqrt() / exact.std())
        pair = torch.stack([result.double().flatten(), exact.flatten()])
        correlation = torch.corrcoef(pair)[0, 1]
        print(f"| {name} | {ms:.2f} | {rate:.1f} | {error:.4%} | {correlation:.8f} |", flush=True)


def timed(run: Callable, batch: Tensor) -> float:
    """Measure one call in seconds, including the work on the device."""
    wait = torch.cuda.synchronize if batch.is_cuda else lambda: None
    wait()
    start = time.perf_counter()
    run(batch)
    wait()
    return time.perf_counter() - start


def chain(convs: nn.ModuleList, x: Tensor) -> Tensor:
    """Apply the convolutions in the precision of the weights and the input."""
    for conv in convs[:-1]:
        x = F.relu(conv(x), inplace=True)
    return convs[-1](x)


# Each variant takes the network in float64 and returns a function of images (B, 3, H, W) in 0..1.


def plain(dtype: torch.dtype, *, tf32: bool = False, cudnn: bool = True, layout=CHANNELS_LAST):
    """Return the variant that applies the layers one after the other."""

    def prepare(network: NoisePrint) -> Callable:
        convs = NoisePrint().convs.to(network.convs[0].weight)
        convs.load_state_dict(network.convs.state_dict())
        convs = convs.to(dtype).to(memory_format=layout)

        def run(images: Tensor) -> Tensor:
            with backend_settings(tf32=tf32, cudnn=cudnn):
                return chain(convs, images.to(dtype).contiguous(memory_format=layout))

        return run

    return prepare


def in_two_parts(network: NoisePrint, split: Callable | None = None) -> Callable:
    """Compute three TF32 products in one convolution with three times the channels."""
    layers = []
    for conv in network.convs:
        high, low = two_parts(conv.weight.float())
        weight = torch.cat([high, low, high], dim=1).contiguous(memory_format=CHANNELS_LAST)
        layers.append((weight, conv.bias.float()))
    split = split or split_input

    def run(images: Tensor) -> Tensor:
        x = images.float().contiguous(memory_format=CHANNELS_LAST)
        with backend_settings(tf32=True, cudnn=True):
            for number, (weight, bias) in enumerate(layers):
                x = split(x, number > 0)
                x = F.conv2d(x, weight, bias, padding=1)
        return x

    return run


def split_input(x: Tensor, is_hidden: bool) -> Tensor:
    """Prepare the input of a convolution: apply ReLU to hidden maps and split the numbers."""
    high, low = two_parts(F.relu(x) if is_hidden else x)
    return torch.cat([high, high, low], dim=1)


def compiled(network: NoisePrint) -> Callable:
    """Compile the operations between two convolutions to one kernel."""
    return in_two_parts(network, torch.compile(split_input))


def two_parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split into two TF32 numbers (10-bit fraction) whose sum agrees with float32 to 21 bits."""
    high = (x.view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32)  # Rounded to the nearest.
    return high, x - high


@contextmanager
def backend_settings(*, tf32: bool, cudnn: bool):
    """Switch TF32 and cuDNN on or off; cuDNN searches for the fastest algorithm."""
    backend = torch.backends.cudnn
    before = backend.conv.fp32_precision, backend.enabled, backend.benchmark
    backend.conv.fp32_precision = "tf32" if tf32 else "ieee"
    backend.enabled, backend.benchmark = cudnn, True
    try:
        yield
    finally:
        backend.conv.fp32_precision, backend.enabled, backend.benchmark = before


VARIANTS = {
    "float32, as in the model (NCHW)": plain(torch.float32, layout=torch.contiguous_format),
    "float32 without cuDNN (BenCo's default)": plain(
        torch.float32, cudnn=False, layout=torch.contiguous_format
    ),
    "float32, channels last": plain(torch.float32),
    "TF32": plain(torch.float32, tf32=True),
    "TF32 in two parts": in_two_parts,
    "TF32 in two parts, compiled": compiled,
    "float16": plain(torch.float16),
    "bfloat16": plain(torch.bfloat16),
}


if __name__ == "__main__":
    main()
