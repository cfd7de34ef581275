"""From a photograph to a mask, at the photograph's own size."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict

import cv2
import numpy as np
import torch

from .. import __version__
from ..examine.examination import Evidence, Examination, examine, read_evidence
from ..examine.examination_page import write_examination
from ..modeling.config import ConfigError, Preprocessing
from ..modeling.noise import NoisePrint, normalised
from ..modeling.qma_net import SMALLEST_SIDE, STRIDE, image_score
from ..weights.locate import load_model
from ..weights.reading import sha256
from .photograph import PhotographError, read_photograph
from .prediction import Prediction
from .tiles import NoiseRows, Place, Progress, blended, spans

FLIPS = ((), (1,), (0,), (0, 1))  # axes of (H, W): none, left-right, top-bottom, both


class QMANetPredictor:
    """A model with everything that is needed around it.

    Args:
        model: what :func:`qma_net.build_qma_net` or :func:`qma_net.load_checkpoint` returns.
        device: where to compute; default: where the model is.
        image_size: side in pixels that photographs are resized to; default: as in training, where
            the model knows (``model.preprocessing``), else 512. Another side than in training
            is noted with every prediction.
        tile: ``native`` photographs with a longer side are cut into tiles of at most this side, a
            multiple of 32.
        overlap: pixels that neighbouring tiles share at least, where they are blended; a multiple
            of 32.
        mixed: compute in bfloat16 around the float32 noise view: faster where the processor has
            bfloat16 arithmetic, many times slower where it has not.
        compile: compile the backbones, half a minute for each size of image, to save a tenth of
            the time of every later one; needs a C++ compiler on a CPU.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        device: str | torch.device | None = None,
        image_size: int | None = None,
        tile: int = 768,
        overlap: int = 160,
        mixed: bool = False,
        compile: bool = False,
    ):
        if not STRIDE <= overlap < tile or tile % STRIDE or overlap % STRIDE:
            raise ConfigError(
                f"got tile={tile}, overlap={overlap}, expected multiples of {STRIDE}, the overlap "
                "below the tile"
            )
        trained = getattr(model, "preprocessing", None)
        self.preprocessing = trained or Preprocessing()
        self.notes = (model.about,) if getattr(model, "about", "") else ()
        if image_size is not None:
            self.preprocessing = Preprocessing(image_size, fit="resize")
        if trained and self.preprocessing != trained:
            self.notes += (f"{self.preprocessing}, where training had it {trained}",)
        self.model = model.eval() if device is None else model.to(device).eval()
        self.tile, self.overlap, self.mixed = tile, overlap, mixed
        if compile:
            self.model.compile_for_inference()

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike, device: str | torch.device | None = None, **options
    ) -> "QMANetPredictor":
        """Loads a checkpoint of BenCo's trainer, a directory of ``save_pretrained``, or a hub id.

        Args:
            path: a file, a directory, or ``owner/name`` on the Hugging Face hub.
            device: default CUDA where there is one.
            options: see the constructor.

        Raises:
            WeightsError: for anything that is none of the three, in one line.
        """
        return cls(load_model(path), usable_device(device), **options)

    def describe(self) -> dict:
        """What a result names to be repeated: the model, its weights, how it is shown images."""
        config, file = (
            getattr(self.model, "config", None),
            getattr(self.model, "weights_file", None),
        )
        return {
            "qma_net": __version__,
            "model": asdict(config) if config else {},
            "about": getattr(self.model, "about", ""),
            "checkpoint": str(file) if file else "",
            "checkpoint_sha256": sha256(file) if file else "",
            "image_size": self.preprocessing.image_size,
            "fit": self.preprocessing.fit,
            "tile": self.tile,
            "overlap": self.overlap,
        }

    def predict(
        self,
        image,
        threshold: float = 0.5,
        native: bool = False,
        tta: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Prediction | list[Prediction]:
        """The mask of a photograph, or a list of masks for a list of photographs.

        Args:
            image: a path, bytes, an open file, a PIL image, an array (see
                :func:`qma_net.inference.photograph.read_photograph`), or a list of these.
            threshold: in 0..1; above it a pixel is called manipulated.
            native: look at the photograph at its own size, in tiles where it is large, instead of
                resized as in training.
            tta: average over the photograph and its three mirror images.
            progress: called with (done, total) tiles: first with (0, total), after every tile, and
                meanwhile every few seconds with the numbers as they were. What it raises ends the
                work. A photograph that is looked at whole is one tile.

        Raises:
            PhotographError: naming what is no photograph, or too small for ``native``.
            ConfigError: for a threshold that is no probability.
        """
        require_probability(threshold)
        if isinstance(image, list | tuple):
            chosen = {"threshold": threshold, "native": native, "tta": tta, "progress": progress}
            return [self.predict(one, **chosen) for one in image]
        photograph = read_photograph(image)
        height, width = photograph.pixels.shape[:2]
        side, fit, notes = self.preprocessing.image_size, self.preprocessing.fit, self.notes
        if fit == "pad" and not native and max(height, width) > side:
            notes += (f"larger than the {side}x{side} of training, so looked at in tiles",)
        if native or fit == "native" or (fit == "pad" and max(height, width) > side):
            if min(height, width) < SMALLEST_SIDE:
                raise PhotographError(
                    f"got {photograph.name} of {width}x{height} pixels, expected at least "
                    f"{SMALLEST_SIDE}x{SMALLEST_SIDE} at its own size: leave native away"
                )
            seen = full = self._mask(photograph.pixels, self.tile, tta, progress)
        elif fit == "pad":
            padded = np.pad(photograph.pixels, ((0, side - height), (0, side - width), (0, 0)))
            seen = full = self._mask(padded, side, tta, progress)[:height, :width]
        else:
            resized = cv2.resize(photograph.pixels, (side, side), interpolation=cv2.INTER_LINEAR)
            seen = self._mask(resized, side, tta, progress)
            full = cv2.resize(seen, (width, height), interpolation=cv2.INTER_LINEAR)
        small = (photograph.too_small,) if photograph.too_small else ()
        notes = (*photograph.notes, *small, *notes)
        return Prediction(full, _score(seen), threshold, photograph, notes)

    def examine(
        self,
        image,
        threshold: float = 0.5,
        native: bool = False,
        noiseprint: NoisePrint | None = None,
        out: str | os.PathLike | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Examination:
        """Everything that can be said of one photograph, and what cannot; see ``qma-net examine``.

        Args:
            image: see :meth:`predict`; of an array or a PIL image there is no file to read.
            threshold: in 0..1; above it a pixel is called manipulated.
            native: look at the photograph at its own size.
            noiseprint: with its weights, for a view of its own; default: the model's, if it has it.
            out: a folder to write ``report.html``, ``report.json``, ``mask.png`` and
                ``overlay.png`` to; default: nothing is written.
            progress: of the mask, see :meth:`predict`.

        Raises:
            PhotographError: naming what is no photograph.
            ConfigError: for a threshold that is no probability.
        """
        settings = self.examination_settings(threshold=threshold, native=native)
        evidence = read_evidence(image)
        examination = self.examined(evidence, settings, noiseprint=noiseprint, progress=progress)
        if out is not None:
            write_examination(examination, out)
        return examination

    def examination_settings(self, *, threshold: float, native: bool) -> dict:
        """All that decides what an examination finds, but the photograph."""
        require_probability(threshold)
        chosen = {"threshold": threshold, "native": native}
        return self.describe() | chosen | {"shown": self.preprocessing.describe(native=native)}

    def examined(
        self,
        evidence: Evidence,
        settings: dict,
        *,
        noiseprint: NoisePrint | None = None,
        notes: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> Examination:
        """The examination of what was read, with settings of :meth:`examination_settings`.

        What is too small to judge gets no mask, and a note. ``progress``: of the mask, see
        :meth:`predict`.
        """
        prediction = None
        if not evidence.is_too_small:
            prediction = self.predict(
                evidence.photograph,
                threshold=settings["threshold"],
                native=settings["native"],
                progress=progress,
            )
        own = getattr(getattr(self.model, "noise_view", None), "noiseprint", None)
        return examine(
            evidence,
            settings,
            prediction=prediction,
            calibration=getattr(self.model, "calibration", None),
            noiseprint=own if noiseprint is None else noiseprint,
            notes=notes,
        )

    @torch.inference_mode()
    def _mask(
        self, pixels: np.ndarray, tile: int, tta: bool, report: Callable[[int, int], None] | None
    ) -> np.ndarray:
        """Probabilities of uint8 ``(H, W, 3)``, float32 ``(H, W)``; see :class:`Progress`."""
        flips = FLIPS if tta else FLIPS[:1]
        rows, columns = (spans(length, tile, self.overlap) for length in pixels.shape[:2])
        progress = Progress(len(flips) * len(rows) * len(columns), report)
        found = []
        for flip in flips:
            turned = np.flip(pixels, flip).copy() if flip else pixels
            look = self._look(turned, progress)
            found.append(np.flip(blended(rows, columns, look), flip))
        return found[0] if len(found) == 1 else np.mean(found, axis=0)

    def _look(self, pixels: np.ndarray, progress: Progress) -> Callable[[Place], np.ndarray]:
        """From the place of a tile of a photograph to its probabilities."""
        view = getattr(self.model, "noise_view", None)
        noise = NoiseRows(view, pixels, self.device, progress.beat) if view else None

        def look(place: Place) -> np.ndarray:
            image = normalised(pixels[place], self.device)
            with torch.autocast(image.device.type, torch.bfloat16, enabled=self.mixed):
                known = noise.of(place) if noise else None
                logits = self.model(image, edges=False, noise=known).mask_logits
            progress.step()
            return logits[0, 0].float().sigmoid().cpu().numpy()

        return look

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.model.parameters()).device


def usable_device(name: str | torch.device | None = None) -> torch.device:
    """The device of a name; CUDA where there is one without.

    Raises:
        ConfigError: for CUDA where there is none, and for what is no device.
    """
    if not name:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"got device {name!r}, expected cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"got device {name!r} where torch finds no CUDA, expected cpu: leave the device away "
            "to take what there is"
        )
    return device


def require_probability(threshold: float) -> None:
    """Raises :class:`ConfigError` for a threshold outside 0..1."""
    if not 0 <= threshold <= 1:
        raise ConfigError(
            f"got threshold {threshold}, expected a probability from 0 to 1, such as 0.5"
        )


def _score(mask: np.ndarray) -> float:
    return float(image_score(torch.from_numpy(mask)[None, None]))
