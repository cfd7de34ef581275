"""Package the model of the plan ``small`` and compare it with the current one.

    python -m benchmarks.evidence.ship --photos DIR [--labels DIR] [--real DIR ...] [--epochs N]
        [--out runs/evidence/small] [--target OUT/qma-net-small] [--previous qma-net-small]
        [--start FILE] [--half validation]

The input is the output folder of ``python -m benchmarks.evidence small``.

1. The weights of the last step are averaged with those of an earlier one, which makes a model more
   robust to images unlike those of the last step (Wortsman et al., CVPR 2022). The threshold is
   chosen: the highest mean F1 over the synthetic test sets of the last step and the validation
   halves of ``--real``, with at most 1% of the pixels marked in authentic photos of the folders
   that were held out from training. It is mapped to 0.5 by adjusting the bias of the last
   convolution.
2. The weights are written in half precision, with the preprocessing.
3. The written model is loaded again and applied to the authentic test photos at native size. Their
   scores become its calibration.
4. It is compared with ``--previous`` on one half of ``--real`` and on authentic photos whose marked
   share did not count in step 1; see :mod:`.real`. While choices are still being made, this is
   ``validation``; ``--half test`` is for the end.

``OUT/threshold.md`` and ``OUT/comparison-HALF/tables.md`` contain the tables. The model card of
``--target`` is that of the packaged model. With ``--half test``, its text between
``<!-- real -->`` and ``<!-- end -->`` is replaced by the tables; the rest must be edited by hand.
A better model is then published by copying the folder to ``qma_net/weights``.

The threshold and the calibration are computed as in ``qma-net predict``, which divides large photos
into tiles, whereas the comparison processes them as a whole.
"""

import argparse
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from qma_net.core.errors import QMANetError
from qma_net.core.files import atomic_write, sha256, write_text
from qma_net.data.listing import read_listings
from qma_net.examine.calibrate import calibrate, save_calibration
from qma_net.inference.predictor import QMANetPredictor
from qma_net.launch.checkpoints import checkpoint_path
from qma_net.modeling.hub import WEIGHTS_FILE
from qma_net.synth.curriculum import stage, with_changes
from qma_net.synth.photographs import find_usable_photos, split_by
from qma_net.weights.locate import load_model
from qma_net.weights.names import SMALL

from .real import HALVES, SPLIT, compare, half_of, in_order_of_hash, read_split
from .runner import ROOT, finished_checkpoint, read_mask, replace_block
from .small import small_steps

WEIGHTS = ROOT / "qma_net/weights"
BINS = 1000  # Histogram bins of the probability.
# Share of pixels in held-out authentic photos when the threshold is chosen. The goal is 2% on any
# camera originals: an independent evaluation of version 1 found 2.1%, where CAMERA has 0.9%.
MAX_MARKED = 0.01
MAX_PHOTOS = 50
ABOUT = "qma-net-small was trained on synthetic manipulations only and misses many real ones"
Pair = tuple[str | Path, str | Path | None]  # Image and ground truth.


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--labels")
    parser.add_argument("--real", type=Path, nargs="*", default=[])
    parser.add_argument("--epochs", type=int, help="of the last step (default: as in the plan)")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence/small"))
    parser.add_argument("--target", type=Path, help="default: OUT/qma-net-small")
    parser.add_argument("--previous", default=SMALL, help="model to compare with")
    start = "model to average with (default: the last checkpoint of the step that the plan names)"
    parser.add_argument("--start", help=start)
    half = "half of --real for the comparison (default: validation)"
    parser.add_argument("--half", choices=HALVES, default=HALVES[0], help=half)
    args = parser.parse_args()
    try:
        ship(args)
    except QMANetError as error:
        parser.exit(1, f"ship: {error}\n")


def ship(args: argparse.Namespace) -> None:
    """Run all steps, if the training is finished."""
    steps = small_steps("small")
    step = steps[-1]
    checkpoint = finished_checkpoint(args.out / step["name"], args.epochs or step["epochs"])
    if not checkpoint:
        print(f"The step {step['name']} is not finished; run benchmarks.evidence again to resume.")
        return
    photos = ReservedPhotos.find(args.photos, args.labels, step)
    sets = tampered_sets(args.out / step["data"], step["test_stages"], args.real)
    predictor = QMANetPredictor.from_pretrained(checkpoint)
    ((name, share),) = step["average"].items()
    epochs = {earlier["name"]: earlier["epochs"] for earlier in steps}[name]
    start = args.start or checkpoint_path(args.out / name, epochs - 1)
    average_weights(predictor.model, load_model(start), share)
    authentic = {name: [(path, None) for path in group] for name, group in photos.choosing.items()}
    threshold, table = choose_threshold(
        histograms(predictor, sets), histograms(predictor, authentic), step["recipe"]["held_out"]
    )
    write_text(args.out / "threshold.md", table)
    print(table, flush=True)
    target = (args.target or args.out / SMALL).resolve()
    write(predictor, threshold, target)
    card = target / "README.md"
    write_text(card, (WEIGHTS / SMALL / "README.md").read_text(encoding="utf-8"))
    predictor = QMANetPredictor.from_pretrained(target)
    calibration, errors = calibrate(predictor, photos.test, native=True)
    for error in errors:
        print(error)
    save_calibration(calibration, predictor, target)
    if args.real:
        digest = sha256(target / WEIGHTS_FILE)[:8]
        out = args.out / f"comparison-{args.half}-{digest}"
        models = {"previous": args.previous, "new": str(target)}
        text = compare(args.real, photos.comparing, args.half, models, out)
        if args.half == HALVES[1]:
            replace_block(card, "real", text + "\n")
        print(text)


@dataclass
class ReservedPhotos:
    """Authentic photos that no training image was generated from.

    Attributes:
        choosing: Photos for choosing the threshold, by folder: half of the photos in held-out
            folders, and validation photos in the others, which are only listed.
        test: All test photos, which include the held-out ones.
        comparing: Test photos that are not in ``choosing``, by folder.

    At most :data:`MAX_PHOTOS` of a folder are used for choosing and comparing.
    """

    choosing: dict[str, list[Path]]
    test: list[Path]
    comparing: dict[str, list[Path]]

    @classmethod
    def find(cls, photos: Path, labels: str | None, step: dict) -> "ReservedPhotos":
        """Find the photos that a training step reserves, in the folders that it calls authentic.

        Raises:
            QMANetError: If a folder has too few of them.
        """
        source = step["sources"][0]
        recipe = with_changes(stage(source["stage"]), source["recipe"], step["name"])
        usable, _ = find_usable_photos(photos, labels, recipe)
        split = split_by(photos, list(usable), recipe, 0)
        choosing: dict[str, list[Path]] = {}
        comparing: dict[str, list[Path]] = {}
        test: list[Path] = []
        for folder in step["authentic"]:
            members = {
                side: [photos / name for name in names if name.startswith(f"{folder}/")]
                for side, names in split.items()
            }
            validation, reserved = map(in_order_of_hash, (members["validation"], members["test"]))
            test += reserved
            if folder in recipe.held_out:
                middle = len(reserved) // 2
                validation, reserved = reserved[:middle], reserved[middle:]
            if not (validation and reserved):
                raise QMANetError(f"{photos / folder} has too few usable photos; add some")
            choosing[folder], comparing[folder] = validation[:MAX_PHOTOS], reserved[:MAX_PHOTOS]
        return cls(choosing, test, comparing)


def tampered_sets(data: Path, stages: Iterable[str], real: Iterable[Path]) -> dict[str, list[Pair]]:
    """List the tampered images for choosing the threshold, by test set."""
    sets: dict[str, list[Pair]] = {
        name: [(pair.image, pair.mask) for pair in read_listings(data / f"{name}.json")[0].pairs]
        for name in stages
    }
    assigned = read_split(SPLIT)
    return sets | {
        folder.name: [(image, mask) for image, mask in half_of(folder, HALVES[0], assigned)]
        for folder in real
    }


def histograms(
    predictor: QMANetPredictor, sets: Mapping[str, Iterable[Pair]]
) -> dict[str, list[np.ndarray]]:
    """Compute the :func:`histogram` of every image, by test set."""
    return {
        name: [histogram(predictor, *pair) for pair in tqdm(pairs, desc=name)]
        for name, pairs in sets.items()
    }


def histogram(
    predictor: QMANetPredictor, image: str | Path, truth: str | Path | None
) -> np.ndarray:
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


def choose_threshold(
    tampered: Mapping[str, list[np.ndarray]],
    authentic: Mapping[str, list[np.ndarray]],
    held_out: Iterable[str],
) -> tuple[float, str]:
    """Choose the threshold from the images' histograms by test set.

    Returns:
        The threshold with the highest mean F1 of those at which at most :data:`MAX_MARKED` of the
        pixels are marked in the authentic photos of every folder that was held out, and a table in
        Markdown.

    Raises:
        QMANetError: If there is no such threshold.
    """
    marked = {
        name: np.mean([scores(image)[1] for image in images], axis=0)
        for name, images in authentic.items()
    }
    curves = {
        name: np.mean([scores(image)[0] for image in images], axis=0)
        for name, images in tampered.items()
    }
    mean = np.mean(list(curves.values()), axis=0)
    limited = np.max([marked[name] for name in held_out], axis=0)
    allowed = np.where(limited <= MAX_MARKED, mean, -1)[1:-1]
    if allowed.max() < 0:
        raise QMANetError(
            f"the model marks more than {MAX_MARKED:.0%} of authentic pixels at every threshold; "
            "train it further"
        )
    best = int(allowed.argmax()) + 1
    titles = [*(f"F1, {name}" for name in curves), "mean", *(f"{name}, marked" for name in marked)]
    lines = [f"| threshold | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for index in sorted({best, *(round(BINS * tenth / 10) for tenth in range(1, 10))}):
        cells = [f"{curve[index]:.3f}" for curve in [*curves.values(), mean]]
        cells += [f"{curve[index]:.2%}" for curve in marked.values()]
        level = f"**{index / BINS:.3f}**" if index == best else f"{index / BINS:.3f}"
        lines.append(f"| {level} | {' | '.join(cells)} |")
    return best / BINS, "\n".join(lines) + "\n"


def average_weights(model: torch.nn.Module, start: torch.nn.Module, share: float) -> None:
    """Average the weights of a model and those of ``start``, which get the given share."""
    first = start.state_dict()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.lerp_(first[name].to(tensor), share)


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


if __name__ == "__main__":
    main()
