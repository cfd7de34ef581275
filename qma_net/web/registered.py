"""Any model of BenCo's registry, applied to one photo as BenCo applies it."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from .. import __version__
from ..core.files import write_png
from ..data.listing import NEGATIVE, read_listings
from ..evaluation.evaluate import measure_batch
from ..evaluation.images import BenCoImages
from ..evaluation.settings import AS_TRAINED, Settings
from ..evaluation.evaluated_model import EvaluatedModel
from ..examine.examination import Evidence, Examination, examine
from ..inference.photograph import Photograph
from ..inference.prediction import Prediction
from ..modeling.config import Preprocessing


class RegisteredModel:
    """A model of BenCo's registry with the predictor interface that the page needs.

    Args:
        evaluated: The model.
        folder: A folder for the file from which BenCo's dataset reads a photo.
    """

    supports_native = False  # Most of these models work at one size only.

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
            EvaluationError: If no model of this name is registered.
            WeightsError: If the checkpoint does not belong to the model.
            ModuleNotFoundError: Without imdlbenco.
        """
        return cls(EvaluatedModel.load(name, flags, Path(checkpoint), device), folder)

    @property
    def name(self) -> str:
        """The model's name in BenCo's registry."""
        return self._evaluated.identity["model"]

    def examination_settings(self, *, threshold: float, native: bool) -> dict:
        """Return the settings; see :meth:`.QMANetPredictor.examination_settings`."""
        identity, settings = self._evaluated.identity, self._settings
        return {
            "qma_net": __version__,
            "name": self.name,
            "model": identity["model_flags"],
            "about": identity.get("about", ""),
            "checkpoint": identity["checkpoint"],
            "checkpoint_sha256": identity["checkpoint_sha256"],
            "image_size": settings.image_size,
            "fit": settings.fit,
            "threshold": threshold,
            "native": native,
            "shown": Preprocessing(settings.image_size, settings.fit).describe(native=native),
        }

    def examined(
        self,
        evidence: Evidence,
        settings: dict,
        *,
        notes: Sequence[str] = (),
        progress: Callable[[int, int], None],
    ) -> Examination:
        """Examine a photo; see :meth:`.QMANetPredictor.examined`."""
        prediction = None
        if not evidence.is_too_small:
            progress(0, 1)
            prediction = self._predict(evidence.photograph, settings["threshold"])
        return examine(evidence, settings, prediction=prediction, notes=notes)

    def _predict(self, photograph: Photograph, threshold: float) -> Prediction:
        height, width = photograph.pixels.shape[:2]
        pixels, notes = photograph.pixels, (*photograph.notes, *self.notes)
        side = self._settings.image_size
        if self._settings.fit == "pad" and max(height, width) > side:  # BenCo would crop it.
            scale = side / max(height, width)
            size = max(1, int(width * scale)), max(1, int(height * scale))
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
            notes += (f"reduced to {size[0]}x{size[1]}, the size used in training",)
        mask, score = self._evaluate(pixels)
        full = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        return Prediction(full, score, threshold, photograph, notes)

    def _evaluate(self, pixels: np.ndarray) -> tuple[np.ndarray, float]:
        """Apply the model through BenCo's own dataset.

        Args:
            pixels: uint8 ``(H, W, 3)``.

        Returns:
            The mask, float32 ``(h, w)``, and the score.
        """
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            photograph, listing = Path(folder) / "photograph.png", Path(folder) / "list.json"
            write_png(photograph, pixels)
            listing.write_text(json.dumps([[str(photograph), NEGATIVE]]), encoding="utf-8")
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
