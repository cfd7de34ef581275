"""The small model as the package's own, ``qma-net-small``, and whether it has earned it.

    python -m benchmarks.evidence.ship --photos DIR [--labels DIR] [--real DIR ...]
        [--out runs/evidence/small] [--place qma_net/weights/qma-net-small]

Of a training by ``python -m benchmarks.evidence small``:

1. The threshold is picked on the images made of photographs that it never saw: the highest mean F1
   over all stages with at most 2 % of untouched pixels marked. The bias of the last convolution
   takes it in, so that the model's threshold is 0.5 whoever asks.
2. The weights are written in half precision, with how photographs are shown.
3. What was written is read again and looks at the photographs kept for testing, untouched and at
   their own size: their scores become its calibration.
4. It looks at ``--real`` too, and ships where its mean F1 on all of these is twice that of marking
   everything, and at most 5 % of the pixels of untouched photographs are marked.
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from qma_net.core.files import atomic_write, config_path, read_yaml
from qma_net.data.listing import read_listings
from qma_net.examine.calibrate import keep
from qma_net.inference.predictor import QMANetPredictor
from qma_net.launch.saving import checkpoint_path
from qma_net.modeling.calibration import Calibration
from qma_net.modeling.hub import WEIGHTS_FILE
from qma_net.synth.curriculum import stage, stages
from qma_net.synth.photographs import find_usable, split_photos
from qma_net.synth.recipe import UNTOUCHED

from .work import read_truth

BINS = 1000  # of a probability
MOST_MARKED = 0.02  # of untouched pixels, where the threshold is picked
ABOUT = "qma-net-small learnt from made forgeries alone: it misses many real ones"
SHIPS = 2.0, 0.05  # F1 over that of marking everything; untouched pixels marked


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", required=True)
    parser.add_argument("--labels")
    parser.add_argument("--real", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/evidence/small"))
    parser.add_argument("--place", type=Path, default=Path("qma_net/weights/qma-net-small"))
    args = parser.parse_args()
    plan = read_yaml(config_path("evidence.yaml"), "the small protocol")["small"]
    last = plan["steps"][-1]
    checkpoint = checkpoint_path(args.out / last["name"], last["epochs"] - 1)
    predictor = QMANetPredictor.from_pretrained(checkpoint)
    sets = {
        path.stem: [(pair.image, pair.mask) for pair in read_listings(path)[0].pairs]
        for path in sorted((args.out / "data").glob("*.json"))
        if path.stem in {*stages(), UNTOUCHED}
    }
    threshold = pick(
        {name: [counted(predictor, *pair) for pair in pairs] for name, pairs in sets.items()}
    )
    write(predictor, threshold, args.place)
    predictor = QMANetPredictor.from_pretrained(args.place)
    untouched = kept_photographs(args, plan["image_size"])
    found = [predictor.predict(path, native=True) for path in tqdm(untouched, desc="untouched")]
    scored = [prediction.score for prediction in found]
    keep(
        Calibration.from_scores(scored, predictor.preprocessing, native=True), predictor, args.place
    )
    judge(predictor, args.real, [float((one.mask > 0.5).mean()) for one in found])


def counted(predictor: QMANetPredictor, image: Path, truth: Path | None) -> np.ndarray:
    """``(2, BINS)``: how many pixels that are untouched, and manipulated, have each probability."""
    mask = predictor.predict(image, native=True).mask
    bins = np.minimum((mask * BINS).astype(int), BINS - 1)
    wrong = read_truth(truth, mask.shape)
    return np.stack([np.bincount(bins[wrong == side], minlength=BINS) for side in (False, True)])


def scores(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An image's F1, and its share that is marked, at thresholds ``i / BINS``: ``(BINS,)`` each."""
    false, true = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    f1 = 2 * true / np.maximum(true + false + counts[1].sum(), 1)
    return f1, (true + false) / counts.sum()


def pick(found: dict[str, list[np.ndarray]]) -> float:
    """The threshold, and a table of what each gives."""
    untouched = np.mean([scores(one)[1] for one in found.pop(UNTOUCHED)], axis=0)
    curves = {name: np.mean([scores(o)[0] for o in some], axis=0) for name, some in found.items()}
    mean = np.mean(list(curves.values()), axis=0)
    allowed = np.where(untouched <= MOST_MARKED, mean, -1)
    best = int(allowed[1:-1].argmax()) + 1
    print(f"| threshold | {' | '.join(curves)} | mean | untouched, marked |")
    print("|---" * (len(curves) + 3) + "|")
    for place in sorted({best, *(round(BINS * share) for share in (0.1, 0.2, 0.3, 0.4, 0.5))}):
        values = " | ".join(f"{one[place]:.3f}" for one in [*curves.values(), mean])
        print(f"| {place / BINS:.3f} | {values} | {untouched[place]:.1%} |")
    print(f"\nthreshold {best / BINS:.3f}", flush=True)
    return best / BINS


def write(predictor: QMANetPredictor, threshold: float, place: Path) -> None:
    """The model with its threshold at 0.5, in half precision."""
    model = predictor.model
    model.about = ABOUT
    with torch.no_grad():
        model.decoder.predict.bias -= math.log(threshold / (1 - threshold))
    model.save_pretrained(place)
    state = load_file(place / WEIGHTS_FILE)
    with atomic_write(place / WEIGHTS_FILE) as beside:
        save_file({name: one.half() for name, one in state.items()}, beside)


def kept_photographs(args: argparse.Namespace, image_size: int) -> list[str]:
    """The photographs that no image to learn from was made of."""
    recipe = replace(stage(), image_size=image_size)
    names, _ = find_usable(Path(args.photos), args.labels, recipe)
    return [f"{args.photos}/{name}" for name in split_photos(names, recipe.test_share, 0)["test"]]


def judge(predictor: QMANetPredictor, real: list[str], marked: list[float]) -> None:
    """Prints F1 beside that of marking everything, and whether that is enough.

    Args:
        marked: the share of each untouched photograph.
    """
    print("\n| | images | F1 | marking everything | marked |\n|---|---|---|---|---|")
    everyone = []
    for listing in (one for path in real for one in read_listings(path)):
        pairs = [(pair.image, pair.mask) for pair in listing.pairs]
        f1, everything, share = [], [], []
        for image, truth in tqdm(pairs, desc=listing.name):
            found, marks = scores(counted(predictor, image, truth))
            f1.append(found[BINS // 2])
            everything.append(found[0])
            share.append(marks[BINS // 2])
        everyone += zip(f1, everything, share, strict=True)
        print(_row(listing.name, np.transpose([f1, everything, share])))
    print(f"| untouched photographs | {len(marked)} | - | - | {np.mean(marked):.1%} |")
    if not everyone:
        return
    real_ones = np.array(everyone)
    print(_row("all real ones", real_ones))
    least, most = SHIPS
    f1, everything, _ = real_ones.mean(axis=0)
    earned = f1 >= least * everything and np.mean(marked) <= most
    print(f"\nships: {'yes' if earned else 'no'}")


def _row(name: str, values: np.ndarray) -> str:
    """Of (F1, F1 of marking everything, share marked) of every image."""
    f1, everything, share = values.mean(axis=0)
    return (
        f"| {name} | {len(values)} | {f1:.3f} | {everything:.3f} ({f1 / everything:.2f} times) "
        f"| {share:.1%} |"
    )


if __name__ == "__main__":
    main()
