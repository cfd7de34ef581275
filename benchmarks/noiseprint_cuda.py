"""NoisePrint++ alone on a GPU: how fast in which precision, and what is left of it.

    python -m benchmarks.noiseprint_cuda noiseprint++.th reference.npz [--size 512] [--batch 8]

Milliseconds an image, the median of rounds in which all take turns; correlation with, and error
against, the same network in float64, on the reference's image. ``reference.npz`` holds an
``image``, uint8 ``(H, W, 3)``.

"TF32 in two parts" is float32 on matrix units: every number is the sum of two of TF32's, and one
convolution over the channels [high, high, low] with the kernels [high, low, high] sums three of the
four products in float32.
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
MULTIPLY_ADDS = 9 * (3 * 64 + 15 * 64 * 64 + 64)  # of a pixel


def main() -> None:
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
        runs = {name: way(exact_network) for name, way in WAYS.items()}
        correlations = {name: run(image) for name, run in runs.items()}
        seconds = {name: [] for name in runs}
        for number in range(-2, args.rounds):
            for name, run in runs.items():
                elapsed = timed(run, batch)
                if number >= 0:
                    seconds[name].append(elapsed)
    where = torch.cuda.get_device_name() if device == "cuda" else device
    print(
        f"{where}, torch {torch.__version__}, batches of {args.batch} of {args.size}x{args.size}\n"
    )
    print("| precision | ms an image | TFLOP/s | error, rms / std | correlation with float64 |")
    print("|---|---|---|---|---|")
    for name, got in correlations.items():
        ms = 1000 * float(np.median(seconds[name])) / args.batch
        rate = 2 * MULTIPLY_ADDS * args.size**2 / ms / 1e9
        error = float((got.double() - exact).square().mean().sqrt() / exact.std())
        alike = torch.corrcoef(torch.stack([got.double().flatten(), exact.flatten()]))[0, 1]
        print(f"| {name} | {ms:.2f} | {rate:.1f} | {error:.4%} | {alike:.8f} |", flush=True)


def timed(run: Callable, batch: Tensor) -> float:
    """Seconds of one call, until the device is done with it."""
    wait = torch.cuda.synchronize if batch.is_cuda else lambda: None
    wait()
    start = time.perf_counter()
    run(batch)
    wait()
    return time.perf_counter() - start


def chain(convs: nn.ModuleList, x: Tensor) -> Tensor:
    """The network, in the precision of its weights and input."""
    for conv in convs[:-1]:
        x = F.relu(conv(x), inplace=True)
    return convs[-1](x)


# Ways to run it: from the network in float64 to a function of images (B, 3, H, W) in 0..1.


def plain(dtype: torch.dtype, *, tf32: bool = False, cudnn: bool = True, layout=CHANNELS_LAST):
    """The layers as they are."""

    def way(network: NoisePrint) -> Callable:
        convs = NoisePrint().convs.to(network.convs[0].weight)
        convs.load_state_dict(network.convs.state_dict())
        convs = convs.to(dtype).to(memory_format=layout)

        def run(images: Tensor) -> Tensor:
            with switched(tf32=tf32, cudnn=cudnn):
                return chain(convs, images.to(dtype).contiguous(memory_format=layout))

        return run

    return way


def in_two_parts(network: NoisePrint, joined: Callable | None = None) -> Callable:
    """Three products of TF32 in one convolution of three times the channels."""
    layers = []
    for conv in network.convs:
        high, low = parts(conv.weight.float())
        weight = torch.cat([high, low, high], dim=1).contiguous(memory_format=CHANNELS_LAST)
        layers.append((weight, conv.bias.float()))
    joined = joined or three

    def run(images: Tensor) -> Tensor:
        x = images.float().contiguous(memory_format=CHANNELS_LAST)
        with switched(tf32=True, cudnn=True):
            for number, (weight, bias) in enumerate(layers):
                x = joined(x, number > 0)
                x = F.conv2d(x, weight, bias, padding=1)
        return x

    return run


def three(x: Tensor, is_hidden: bool) -> Tensor:
    """What a convolution takes of the one before it."""
    high, low = parts(F.relu(x) if is_hidden else x)
    return torch.cat([high, high, low], dim=1)


def compiled(network: NoisePrint) -> Callable:
    """In two parts, where what stands between two convolutions is one kernel."""
    return in_two_parts(network, torch.compile(three))


def parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """Two numbers of TF32 (10 bits of fraction) whose sum is float32's to 21 bits."""
    high = (x.view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32)  # the nearest
    return high, x - high


@contextmanager
def switched(*, tf32: bool, cudnn: bool):
    """TF32 and cuDNN on or off; cuDNN looks for the fastest algorithm."""
    backend = torch.backends.cudnn
    before = backend.conv.fp32_precision, backend.enabled, backend.benchmark
    backend.conv.fp32_precision = "tf32" if tf32 else "ieee"
    backend.enabled, backend.benchmark = cudnn, True
    try:
        yield
    finally:
        backend.conv.fp32_precision, backend.enabled, backend.benchmark = before


WAYS = {
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
