"""Package the model of the plan ``small`` and compare it with the current one.

    python -m benchmarks.evidence.ship --photos DIR [--labels DIR] [--real DIR ...]
        [--out runs/evidence/small] [--target OUT/qma-net-small] [--previous qma-net-small]
        [--half validation]

The input is the output folder of ``python -m benchmarks.evidence small``.

1. The threshold is chosen: the highest mean F1 over the synthetic test sets of the last step and
   the validation halves of ``--real``, with at most 2% of the pixels of authentic photos marked,
   both in the folders that were held out from training and in the others. It is mapped to 0.5 by
   adjusting the bias of the last convolution.
2. The weights are written in half precision, with the preprocessing.
3. The written model is loaded again and applied to the authentic test photos at native size. Their
   scores become its calibration.
4. It is compared with ``--previous`` on a half of ``--real`` and on authentic photos that were not
   used in step 1; see :mod:`.real`. Compare on ``--half validation`` as long as choices are made.

``OUT/threshold.md`` and ``OUT/comparison-HALF/tables.md`` contain the tables. The latter also
replaces the text between ``<!-- real -->`` and ``<!-- end -->`` in the model card ``README.md`` of
``--target``. A better model is published by copying the folder to ``qma_net/weights``.
"""

import argparse
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from qma_net.core.errors import QMANetError
from qma_net.core.files import atomic_write, write_text
from qma_net.data.listing import read_listings
from qma_net.examine.calibrate import calibrate, save_calibration
from qma_net.inference.predictor import QMANetPredictor
from qma_net.launch.checkpoints import checkpoint_path
from qma_net.modeling.hub import WEIGHTS_FILE
from qma_net.synth.curriculum import stage, with_changes
from qma_net.synth.photographs import find_usable_photos, split_by
from qma_net.synth.recipe import Recipe
from qma_net.weights.names import SMALL

from .real import HALVES, SPLIT, compare, half_of, in_order_of_hash, read_split
from .runner import read_mask, replace_block
from .small import small_steps

BINS = 1000  # Histogram bins of the probability.
MAX_MARKED = 0.02  # Share of authentic pixels when the threshold is chosen.
MAX_PHOTOS = 50  # Authentic photos per folder in step 4.
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
    parser.add_argument("--out", type=Path, default=Path("runs/evidence/small"))
    parser.add_argument("--target", "--place", type=Path, help="default: OUT/qma-net-small")
    parser.add_argument("--previous", default=SMALL, help="model to compare with")
    parser.add_argument("--half", choices=HALVES, default=HALVES[1], help="half of --real")
    args = parser.parse_args()
    try:
        ship(args)
    except QMANetError as error:
        parser.exit(1, f"ship: {error}\n")


def ship(args: argparse.Namespace) -> None:
    """Run all steps.

    Raises:
        QMANetError: If the training has not been finished.
    """
    step = small_steps("small")[-1]
    checkpoint = checkpoint_path(args.out / step["name"], step["epochs"] - 1)
    if not checkpoint.is_file():
        raise QMANetError(f"{checkpoint} is missing; finish python -m benchmarks.evidence small")
    predictor = QMANetPredictor.from_pretrained(checkpoint)
    source = step["sources"][0]
    recipe = with_changes(stage(source["stage"]), source.get("recipe", {}), step["name"])
    photos = ReservedPhotos.find(args.photos, args.labels, recipe)
    tampered = tampered_sets(args.out / step["data"], step["test_stages"], args.real)
    authentic = {name: [(path, None) for path in group] for name, group in photos.choosing.items()}
    threshold, table = choose_threshold(
        _histograms(predictor, tampered), _histograms(predictor, authentic)
    )
    write_text(args.out / "threshold.md", table)
    print(table, flush=True)
    target = args.target or args.out / SMALL
    write(predictor, threshold, target)
    predictor = QMANetPredictor.from_pretrained(target)
    calibration, errors = calibrate(predictor, photos.test, native=True)
    for error in errors:
        print(error)
    save_calibration(calibration, predictor, target)
    if args.real:
        models, out = [args.previous, str(target)], args.out / f"comparison-{args.half}"
        text = compare(args.real, photos.comparing, args.half, models, out)
        replace_block(target / "README.md", "real", text)
        print(text)


@dataclass
class ReservedPhotos:
    """Authentic photos that no training image was generated from.

    Attributes:
        choosing: Photos for choosing the threshold: half of those in held-out folders, and the
            validation photos of the others.
        test: All test photos, which include the held-out ones.
        comparing: Test photos that are not in ``choosing``, by folder.
    """

    choosing: dict[str, list[Path]]
    test: list[Path]
    comparing: dict[str, list[Path]]

    @classmethod
    def find(cls, folder: Path, labels: str | None, recipe: Recipe) -> "ReservedPhotos":
        """Find the photos that are reserved by a recipe that splits by hash."""
        usable, _ = find_usable_photos(folder, labels, recipe)
        split = split_by(folder, list(usable), recipe, 0)
        groups: dict[str, list[Path]] = {}
        for name in split["test"]:
            groups.setdefault(PurePath(name).parts[0], []).append(folder / name)
        comparing = {name: in_order_of_hash(photos) for name, photos in groups.items()}
        choosing = {"others": [folder / name for name in split["validation"]]}
        for name in recipe.held_out:
            photos = comparing[name]
            middle = len(photos) // 2
            comparing[name], choosing[name] = photos[:middle], photos[middle:]
        return cls(
            choosing={name: photos for name, photos in choosing.items() if photos},
            test=[folder / name for name in split["test"]],
            comparing={name: photos[:MAX_PHOTOS] for name, photos in comparing.items()},
        )


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


def _histograms(
    predictor: QMANetPredictor, sets: Mapping[str, Iterable[Pair]]
) -> dict[str, list[np.ndarray]]:
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
    tampered: Mapping[str, list[np.ndarray]], authentic: Mapping[str, list[np.ndarray]]
) -> tuple[float, str]:
    """Choose the threshold from the images' histograms by test set.

    Returns:
        The threshold with the highest mean F1 of those at which at most :data:`MAX_MARKED` of the
        pixels are marked in every group of authentic photos, and a table in Markdown.
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
    allowed = np.where(np.max(list(marked.values()), axis=0) <= MAX_MARKED, mean, -1)
    best = int(allowed[1:-1].argmax()) + 1
    titles = [*(f"F1, {name}" for name in curves), "mean", *(f"{name}, marked" for name in marked)]
    lines = [f"| threshold | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for index in sorted({best, *(round(BINS * tenth / 10) for tenth in range(1, 10))}):
        cells = [f"{curve[index]:.3f}" for curve in [*curves.values(), mean]]
        cells += [f"{curve[index]:.2%}" for curve in marked.values()]
        level = f"**{index / BINS:.3f}**" if index == best else f"{index / BINS:.3f}"
        lines.append(f"| {level} | {' | '.join(cells)} |")
    return best / BINS, "\n".join(lines) + "\n"


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
