"""Any model in BenCo's registry, applied to a single photo in the same way as in BenCo."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..core.files import write_json, write_png
from ..data.listing import NEGATIVE, read_listings
from ..inference.photograph import PhotoSource, read_photograph
from ..inference.prediction import NonFiniteError, Prediction
from ..inference.preprocessing import fit_to_model
from ..inference.tiles import ProgressCallback
from ..modeling.config import DEFAULT_THRESHOLD, Preprocessing
from .evaluate import measure_batch
from .evaluated_model import EvaluatedModel
from .images import BenCoImages
from .settings import AS_TRAINED, Settings


class RegisteredModel:
    """A model from BenCo's registry with the predictor interface that examinations need.

    Args:
        evaluated: The model.
        folder: A folder for the temporary file from which BenCo's dataset reads a photo.
    """

    supports_native = False  # Most of these models work at one size only.
    calibration = None
    noiseprint = None

    def __init__(self, evaluated: EvaluatedModel, folder: Path):
        self._evaluated, self._folder = evaluated, folder
        self._settings: Settings = AS_TRAINED.completed(evaluated.preprocessing)
        about = evaluated.identity.get("about", "")
        self.notes: tuple[str, ...] = (about,) if about else ()
        if evaluated.preprocessing is None:
            self.notes += (
                "the checkpoint does not record how images were preprocessed in training",
            )

    @classmethod
    def load(
        cls, name: str, flags: Sequence[str], checkpoint: str, *, device: str, folder: Path
    ) -> "RegisteredModel":
        """Build a registered model from its flags and load a checkpoint.

        Raises:
            ConfigError: If no model of this name is registered.
            WeightsError: If the checkpoint does not belong to the model.
            ModuleNotFoundError: If imdlbenco is not installed.
        """
        return cls(EvaluatedModel.load(name, flags, Path(checkpoint), device), folder)

    @property
    def name(self) -> str:
        """The model's name in BenCo's registry."""
        return self._evaluated.identity["model"]

    @property
    def preprocessing(self) -> Preprocessing:
        """How photos are fed to the model."""
        return Preprocessing(self._settings.image_size, self._settings.fit)

    def describe(self) -> dict[str, Any]:
        """Return the settings that results record; see :meth:`.QMANetPredictor.describe`."""
        identity = self._evaluated.identity
        return {
            "qma_net": __version__,
            "name": self.name,
            "model": identity["model_flags"],
            "about": identity.get("about", ""),
            "checkpoint": identity["checkpoint"],
            "checkpoint_sha256": identity["checkpoint_sha256"],
            "image_size": self._settings.image_size,
            "fit": self._settings.fit,
        }

    def predict(
        self,
        image: PhotoSource,
        threshold: float = DEFAULT_THRESHOLD,
        native: bool = False,
        *,
        progress: ProgressCallback | None = None,
    ) -> Prediction:
        """Apply the model to a photo; see :meth:`.QMANetPredictor.predict`."""
        photograph = read_photograph(image)
        if progress:
            progress(0, 1)
        # BenCo's dataset would crop a photo that is larger than the padded square.
        pixels = photograph.present_pixels
        model_input = fit_to_model(pixels, self.preprocessing, oversize="shrink")
        notes = (*photograph.notes, *self.notes)
        height, width = model_input.content
        if self._settings.fit == "pad" and model_input.size != model_input.content:
            notes += (f"downscaled to {width}x{height}, the size used in training",)
        try:
            mask, score = self._evaluate(model_input.crop_padding(model_input.pixels))
        except NonFiniteError as error:  # It names our temporary file.
            raise NonFiniteError(error.checkpoint, photograph.name) from None
        mask = photograph.complete_mask(model_input.restore(mask))
        return Prediction(mask, score, threshold, photograph, notes)

    def _evaluate(self, pixels: np.ndarray) -> tuple[np.ndarray, float]:
        """Preprocess an image with BenCo's own dataset class, and run the model on it.

        Args:
            pixels: uint8 ``(H, W, 3)``.

        Returns:
            The mask, float32 ``(h, w)``, and the score.
        """
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            photograph, listing = Path(folder) / "photograph.png", Path(folder) / "list.json"
            write_png(photograph, pixels)
            write_json(listing, [[str(photograph), NEGATIVE]])
            images = BenCoImages(
                read_listings(listing)[0],
                self._settings,
                self._evaluated.post_function,
                with_edges=self._evaluated.needs_edges,
            )
            batch = torch.utils.data.default_collate([images[0]])
            settings = replace(self._settings, batch_size=1)
            [(row, mask)] = measure_batch(self._evaluated, images, batch, settings)
        return mask, row["score"]
