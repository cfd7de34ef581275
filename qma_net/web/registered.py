"""Any model of BenCo's registry, asked about one photograph as BenCo would ask it."""

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
from ..evaluation.evaluate import judge
from ..evaluation.images import BenCoImages
from ..evaluation.settings import AS_TRAINED, Settings
from ..evaluation.subject import Subject
from ..examine.examination import Evidence, Examination, examine
from ..inference.photograph import Photograph
from ..inference.prediction import Prediction
from ..modeling.config import Preprocessing


class RegisteredModel:
    """What the page needs of a predictor, around a model of BenCo's registry.

    Args:
        subject: the model.
        folder: for the file that BenCo's dataset reads a photograph from.
    """

    takes_native = False  # most of them answer at one size only

    def __init__(self, subject: Subject, folder: Path):
        self._subject, self._folder = subject, folder
        self._settings: Settings = AS_TRAINED.completed(subject.preprocessing)
        about = subject.identity.get("about", "")
        self.notes = (about,) if about else ()
        if subject.preprocessing is None:
            self.notes += ("the checkpoint does not say how images reached it in training",)

    @classmethod
    def load(
        cls, name: str, flags: Sequence[str], checkpoint: str, *, device: str, folder: Path
    ) -> "RegisteredModel":
        """Builds the model of a name from its own flags, with a checkpoint's weights.

        Raises:
            EvaluationError: for a name that is not registered.
            WeightsError: for weights that are not the model's.
            ModuleNotFoundError: without imdlbenco.
        """
        return cls(Subject.load(name, flags, Path(checkpoint), device), folder)

    @property
    def name(self) -> str:
        """Its name in BenCo's registry."""
        return self._subject.identity["model"]

    def examination_settings(self, *, threshold: float, native: bool) -> dict:
        """See :meth:`qma_net.inference.predictor.QMANetPredictor.examination_settings`."""
        identity, settings = self._subject.identity, self._settings
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
        """See :meth:`qma_net.inference.predictor.QMANetPredictor.examined`."""
        prediction = None
        if not evidence.is_too_small:
            progress(0, 1)
            prediction = self._predict(evidence.photograph, settings["threshold"])
        return examine(evidence, settings, prediction=prediction, notes=notes)

    def _predict(self, photograph: Photograph, threshold: float) -> Prediction:
        height, width = photograph.pixels.shape[:2]
        pixels, notes = photograph.pixels, (*photograph.notes, *self.notes)
        side = self._settings.image_size
        if self._settings.fit == "pad" and max(height, width) > side:  # which BenCo would crop
            scale = side / max(height, width)
            size = max(1, int(width * scale)), max(1, int(height * scale))
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
            notes += (f"shrunk to {size[0]}x{size[1]}, to fit into the square of training",)
        mask, score = self._asked(pixels)
        full = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        return Prediction(full, score, threshold, photograph, notes)

    def _asked(self, pixels: np.ndarray) -> tuple[np.ndarray, float]:
        """uint8 ``(H, W, 3)`` to a mask float32 ``(h, w)`` and a score, by BenCo's own dataset."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            photograph, listing = Path(folder) / "photograph.png", Path(folder) / "list.json"
            write_png(photograph, pixels)
            listing.write_text(json.dumps([[str(photograph), NEGATIVE]]))
            images = BenCoImages(
                read_listings(listing)[0],
                self._settings,
                self._subject.post_function,
                with_edges=self._subject.needs_edges,
            )
            batch = torch.utils.data.default_collate([images[0]])
            settings = replace(self._settings, batch_size=1)
            [(row, mask)] = judge(self._subject, images, batch, settings)
        return mask, row["score"]
