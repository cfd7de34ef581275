"""Speed of ``qma-net data synth``: images per second with one worker and with two.

    python -m benchmarks.synth_speed --photos DIR [--labels DIR] [--count N] [--image-size N]

The time is measured from the first finished images to the last one, so it includes reading,
decoding, generating, encoding and writing, but not imports, the start of the workers and the search
for photos. The files are written to a temporary folder.
"""

import argparse
import tempfile
from pathlib import Path

from qma_net.synth.recipe import SynthesisError
from qma_net.synth.synthesise import synthesise


def main() -> None:
    """Measure the speed for each number of workers and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", required=True, help="folder of authentic photos")
    parser.add_argument("--labels", help="folder of label maps")
    parser.add_argument("--count", type=int, default=600, help="number of training images")
    parser.add_argument("--image-size", type=int, default=384, help="longest side in pixels")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    try:
        speeds = {workers: measure_speed(args, workers) for workers in args.workers}
    except SynthesisError as error:
        parser.exit(1, f"synth_speed: {error}\n")
    print("| longest side (pixels) | images | workers | images/s |\n|---|---|---|---|")
    for workers, (images, per_second) in speeds.items():
        print(f"| {args.image_size} | {images} | {workers} | {per_second:.0f} |")


def measure_speed(args: argparse.Namespace, workers: int) -> tuple[int, float]:
    """Return the number of images, including test images, and images per second."""
    with tempfile.TemporaryDirectory() as folder:
        out = synthesise(
            args.photos,
            Path(folder) / "set",
            count=args.count,
            image_size=args.image_size,
            labels=args.labels,
            workers=workers,
        )
        written = sorted(p.stat().st_mtime for p in out.glob("*/[TA][pu]/*.jpg"))
    return len(written), (len(written) - 1) / (written[-1] - written[0])


if __name__ == "__main__":
    main()
