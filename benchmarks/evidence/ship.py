"""Package the small model as ``qma-net-small`` and check whether it meets the criterion.

    python -m benchmarks.evidence.ship --photos DIR [--labels DIR] [--real DIR ...]
        [--out runs/evidence/small] [--target qma_net/weights/qma-net-small]

The input is the output folder of ``python -m benchmarks.evidence small``.

1. The threshold is chosen on synthetic images of the test photos: the highest mean F1 over all
   stages with at most 2% of authentic pixels marked. It is mapped to 0.5 by adjusting the
   bias of the last convolution.
2. The weights are written in half precision, with the preprocessing.
3. The written model is loaded again and applied to the authentic test photos at native size. Their
   scores become its calibration.
4. It is tested on ``--real``. The criterion: mean F1 at least twice that of marking every pixel,
   and at most 5% of the pixels of authentic photos marked.
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from qma_net.core.files import atomic_write
from qma_net.data.listing import read_listings
from qma_net.examine.calibrate import calibrate, save_calibration
from qma_net.inference.predictor import QMANetPredictor
from qma_net.launch.checkpoints import checkpoint_path
from qma_net.modeling.hub import WEIGHTS_FILE
from qma_net.synth.curriculum import stage, stages
from qma_net.synth.photographs import find_usable_photos, split_photos
from qma_net.synth.recipe import AUTHENTIC

from .plan import read_plans
from .runner import read_mask

BINS = 1000  # Histogram bins of the probability.
MAX_MARKED = 0.02  # Share of authentic pixels when the threshold is chosen.
ABOUT = "qma-net-small was trained on synthetic manipulations only and misses many real ones"
CRITERION = 2.0, 0.05  # F1 relative to marking every pixel; authentic pixels marked.


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", required=True)
    parser.add_argument("--labels")
    parser.add_argument("--real", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/evidence/small"))
    parser.add_argument(
        "--target", "--place", type=Path, default=Path("qma_net/weights/qma-net-small")
    )
    args = parser.parse_args()
    plan = read_plans()["small"]
    last = plan["steps"][-1]
    checkpoint = checkpoint_path(args.out / last["name"], last["epochs"] - 1)
    predictor = QMANetPredictor.from_pretrained(checkpoint)
    sets = {
        path.stem: [(pair.image, pair.mask) for pair in read_listings(path)[0].pairs]
        for path in sorted((args.out / "data").glob("*.json"))
        if path.stem in {*stages(), AUTHENTIC}
    }
    threshold = choose_threshold(
        {name: [histogram(predictor, *pair) for pair in pairs] for name, pairs in sets.items()}
    )
    write(predictor, threshold, args.target)
    predictor = QMANetPredictor.from_pretrained(args.target)
    authentic = test_photos(args, plan["image_size"])
    marked: list[float] = []
    calibration, errors = calibrate(
        predictor,
        authentic,
        native=True,
        inspect=lambda prediction: marked.append(float(prediction.binary.mean())),
    )
    for error in errors:
        print(error)
    save_calibration(calibration, predictor, args.target)
    report(predictor, args.real, marked)


def histogram(predictor: QMANetPredictor, image: Path, truth: Path | None) -> np.ndarray:
    """Count the authentic and the tampered pixels by probability, ``(2, BINS)``."""
    mask = predictor.predict(image, native=True).mask
    bins = np.minimum((mask * BINS).astype(int), BINS - 1)
    tampered = read_mask(truth, mask.shape)
    return np.stack([np.bincount(bins[tampered == label], minlength=BINS) for label in (0, 1)])


def scores(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return F1 and the share of marked pixels at the thresholds ``i / BINS``, ``(BINS,)`` each."""
    false, true = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    f1 = 2 * true / np.maximum(true + false + counts[1].sum(), 1)
    return f1, (true + false) / counts.sum()


def choose_threshold(histograms: dict[str, list[np.ndarray]]) -> float:
    """Choose the threshold from the images' histograms by test set; print a table."""
    authentic = np.mean([scores(image)[1] for image in histograms.pop(AUTHENTIC)], axis=0)
    curves = {
        name: np.mean([scores(image)[0] for image in images], axis=0)
        for name, images in histograms.items()
    }
    mean = np.mean(list(curves.values()), axis=0)
    allowed = np.where(authentic <= MAX_MARKED, mean, -1)
    best = int(allowed[1:-1].argmax()) + 1
    print(f"| threshold | {' | '.join(curves)} | mean | authentic pixels marked |")
    print("|---" * (len(curves) + 3) + "|")
    for index in sorted({best, *(round(BINS * share) for share in (0.1, 0.2, 0.3, 0.4, 0.5))}):
        values = " | ".join(f"{curve[index]:.3f}" for curve in [*curves.values(), mean])
        print(f"| {index / BINS:.3f} | {values} | {authentic[index]:.1%} |")
    print(f"\nthreshold {best / BINS:.3f}", flush=True)
    return best / BINS


def write(predictor: QMANetPredictor, threshold: float, folder: Path) -> None:
    """Write the model in half precision, with ``threshold`` mapped to 0.5."""
    model = predictor.model
    model.about = ABOUT
    with torch.no_grad():
        model.decoder.predict.bias -= math.log(threshold / (1 - threshold))
    model.save_pretrained(folder)
    state = load_file(folder / WEIGHTS_FILE)
    with atomic_write(folder / WEIGHTS_FILE) as temporary:
        save_file({name: tensor.half() for name, tensor in state.items()}, temporary)


def test_photos(args: argparse.Namespace, image_size: int) -> list[str]:
    """List the photos from which no training image was generated."""
    recipe = replace(stage(), image_size=image_size)
    usable, _ = find_usable_photos(Path(args.photos), args.labels, recipe)
    return [
        f"{args.photos}/{name}" for name in split_photos(list(usable), recipe.test_share, 0)["test"]
    ]


def report(predictor: QMANetPredictor, real: list[str], marked: list[float]) -> None:
    """Print F1 on real forgeries and whether the criterion is met.

    Args:
        predictor: The model.
        real: Test sets of real forgeries.
        marked: The share of marked pixels of each authentic photo.
    """
    print("\n| | images | F1 | every pixel marked | pixels marked |\n|---|---|---|---|---|")
    all_images: list[tuple[float, float, float]] = []
    for listing in (listing for path in real for listing in read_listings(path)):
        pairs = [(pair.image, pair.mask) for pair in listing.pairs]
        f1, everything, share = [], [], []
        for image, truth in tqdm(pairs, desc=listing.name):
            curve, shares = scores(histogram(predictor, image, truth))
            f1.append(curve[BINS // 2])
            everything.append(curve[0])
            share.append(shares[BINS // 2])
        all_images += zip(f1, everything, share, strict=True)
        print(_row(listing.name, np.transpose([f1, everything, share])))
    print(f"| authentic photos | {len(marked)} | - | - | {np.mean(marked):.1%} |")
    if not all_images:
        return
    values = np.array(all_images)
    print(_row("all", values))
    least, most = CRITERION
    f1, everything, _ = values.mean(axis=0)
    passed = f1 >= least * everything and np.mean(marked) <= most
    print(f"\ncriterion met: {'yes' if passed else 'no'}")


def _row(name: str, values: np.ndarray) -> str:
    """Format a row from F1, F1 of marking every pixel and the marked share of every image."""
    f1, everything, share = values.mean(axis=0)
    return (
        f"| {name} | {len(values)} | {f1:.3f} | {everything:.3f} (factor {f1 / everything:.2f}) "
        f"| {share:.1%} |"
    )


if __name__ == "__main__":
    main()
