"""Images for figures, chosen by rule instead of cherry-picked, and their predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch

from ...core.files import sha256
from ...core.images import decode, open_image, read_rgb
from ...data.facts import mask_as_benco
from ...data.listing import ListingError, read_listings
from ...evaluation.results import mask_path
from ...inference.preprocessing import ModelInput, fit_to_model
from ...modeling.config import Preprocessing
from ...modeling.qma_net import QMANetModel
from ...weights.locate import load_model
from ..collect import ModelResults, ResultFile
from ..paper_tables import in_paper_order
from . import FigureError
from .image_grid import Panel, mask_image

THUMBNAIL_SIDE = 220  # Longer side of an image in a figure, in pixels.
EVALUATE = "qma-net evaluate --checkpoint FILE --test-sets SETS --out DIR --save-masks"


@dataclass(frozen=True)
class Example:
    """An image of a test set and its ground truth, which is None for an authentic image.

    ``path`` is the path of the image exactly as the results record it, such as ``./Tp/1.png``.
    """

    test_set: str
    path: str
    ground_truth: Path | None

    @property
    def image(self) -> Path:
        """The file of the image."""
        return Path(self.path)

    @property
    def pixels(self) -> np.ndarray:
        """The image as BenCo reads it (EXIF orientation not applied), uint8 ``(H, W, 3)``."""
        return read_rgb(self.image)

    @property
    def thumbnail(self) -> np.ndarray:
        """The image with a longer side of ``THUMBNAIL_SIDE`` pixels, uint8 ``(h, w, 3)``."""
        pixels = self.pixels
        scale = THUMBNAIL_SIDE / max(pixels.shape[:2])
        size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)

    @property
    def panels(self) -> list[Panel]:
        """The thumbnail, and the ground truth with tampered pixels in white."""
        thumbnail = self.thumbnail
        if self.ground_truth is None:
            return [Panel(thumbnail), Panel(np.zeros_like(thumbnail), "authentic")]
        mask = mask_as_benco(self.ground_truth)
        return [Panel(thumbnail), Panel(mask_image(mask, thumbnail.shape))]

    def f1_of(self, model: ModelResults) -> float | None:
        """Return the pixel F1 that was evaluated for a model, or None."""
        result = model.clean.get(self.test_set)
        return result.per_image("pixel_f1").get(self.path) if result else None


def select_examples(model: ModelResults, total: int, notes: list[str]) -> list[Example]:
    """Select about ``total`` images of a model's test sets, evenly spaced in a ranking by F1.

    A note is added for every test set that is omitted.

    Raises:
        FigureError: If no image can be selected from any of the test sets.
    """
    examples: list[Example] = []
    omitted: dict[str, str] = {}
    names = in_paper_order(model.clean)
    for name in names:
        try:
            if len(examples) == total:
                raise FigureError(f"the maximum number of images ({total}) is reached")
            examples += _select_from(model.clean[name], max(1, total // len(names)))
        except (FigureError, ListingError) as error:
            omitted[name] = str(error)
    if not examples:
        raise FigureError(next(iter(omitted.values())))
    for name, reason in omitted.items():
        note = f"{name} is missing from the figures with images: {reason}"
        notes += [note] if note not in notes else []
    return examples


def _select_from(result: ResultFile, count: int) -> list[Example]:
    """Select ``count`` images of one test set, or all if it has fewer."""
    f1 = result.per_image("pixel_f1")
    ranked = sorted(f1, key=lambda path: (f1[path], path))
    if not ranked:
        table = result.path.with_suffix(".csv")
        raise FigureError(f"{table} contains no tampered image; run {EVALUATE}")
    count = min(count, len(ranked))
    positions = [int((i + 0.5) / count * len(ranked)) for i in range(count)]
    return find_examples(result, [ranked[position] for position in positions])


def find_examples(
    result: ResultFile, images: Sequence[str], *, authentic: bool = False
) -> list[Example]:
    """Find images of an evaluated test set and, unless they are authentic, their ground truth.

    Raises:
        FigureError: If an image or its ground truth no longer exists.
        ListingError: If the test set cannot be read.
    """
    listings = read_listings(result.header["path"])
    masks = {pair.image: pair.mask for listing in listings for pair in listing.pairs}
    examples = []
    for path in images:
        image = Path(path)
        mask = masks.get(image)
        if not image.is_file():
            raise FigureError(f"{image} no longer exists")
        if not authentic and (mask is None or not mask.is_file()):
            raise FigureError(f"{mask or f'the ground truth of {image}'} no longer exists")
        examples.append(Example(result.test_set, path, None if authentic else mask))
    return examples


def load_network(model: ModelResults) -> QMANetModel:
    """Load the checkpoint that was evaluated, on CUDA if it is available.

    Raises:
        FigureError: If the model is not a QMA-Net, or its checkpoint is missing or has changed.
    """
    if not model.is_ours:
        raise FigureError(f"{model.name} has no saved masks; run {EVALUATE}")
    return _load_checkpoint(model.header["checkpoint"], model.header["checkpoint_sha256"])


@lru_cache(maxsize=2)  # Figure 1 needs two; more might not fit in memory.
def _load_checkpoint(name: str, checksum: str) -> QMANetModel:
    path = Path(name)
    if not path.is_file():
        raise FigureError(f"checkpoint {path} no longer exists; run {EVALUATE}")
    if sha256(path) != checksum:
        raise FigureError(f"checkpoint {path} has changed since its evaluation; run {EVALUATE}")
    return load_model(path).eval().to("cuda" if torch.cuda.is_available() else "cpu")


def model_input(pixels: np.ndarray, model: ModelResults) -> ModelInput:
    """Prepare an image, uint8 ``(H, W, 3)``, as it was prepared in the evaluation."""
    preprocessing = Preprocessing(model.header["image_size"], model.header["fit"])
    return fit_to_model(pixels, preprocessing, oversize="crop")


def predict_mask(model: ModelResults, example: Example) -> np.ndarray:
    """Return the predicted mask of an image, float ``(h, w)``, reading it if it was saved.

    Raises:
        FigureError: If no mask was saved and the checkpoint cannot be loaded.
    """
    saved = _saved_mask(model.clean[example.test_set], example)
    if saved is not None:
        return saved
    network, prepared = load_network(model), model_input(example.pixels, model)
    with torch.inference_mode():
        logits = network(prepared.tensor(next(network.parameters()).device)).mask_logits
    return prepared.crop_padding(logits[0, 0].float().sigmoid().cpu().numpy())


def _saved_mask(result: ResultFile, example: Example) -> np.ndarray | None:
    """Read the mask that ``evaluate --save-masks`` saved."""
    index = [row["path"] for row in result.rows].index(example.path)
    array, png = (
        mask_path(result.path.parent, result.path.stem, index, example.path, file_format)
        for file_format in ("npy", "png")
    )
    if array.is_file():
        return np.load(array)
    if png.is_file():
        with open_image(png) as opened:
            decode(opened, str(png))
            return np.asarray(opened) / np.float32(255)
    return None
