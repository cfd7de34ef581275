"""How fast the dataset maker is: images per second with one worker and with two.

    python -m benchmarks.synth_speed --photos DIR [--labels DIR] [--count N] [--image-size N]

Counted from the first finished images to the last, so without imports, the start of the workers
and the look through the folder of photographs; with reading, decoding, making, encoding and
writing. The files go to a temporary folder.
"""

import argparse
import tempfile
from pathlib import Path

from qma_net.synth.recipe import SynthesisError
from qma_net.synth.synthesise import synthesise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--labels")
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--image-size", type=int, default=384)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    try:
        speeds = {workers: speed(args, workers) for workers in args.workers}
    except SynthesisError as error:
        parser.exit(1, f"synth_speed: {error}\n")
    print("| longest side (pixels) | images | workers | images/s |\n|---|---|---|---|")
    for workers, (images, per_second) in speeds.items():
        print(f"| {args.image_size} | {images} | {workers} | {per_second:.0f} |")


def speed(args: argparse.Namespace, workers: int) -> tuple[int, float]:
    """Images, those for testing among them, and images per second by when they were written."""
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
