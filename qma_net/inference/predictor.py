"""Prediction of tampered regions in a photo."""

import importlib
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import cached_property
from io import IOBase
from typing import Any, Literal, Self, TypeAlias, TypeVar, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from .. import __version__
from ..core.files import sha256
from ..modeling.calibration import Calibration
from ..modeling.config import DEFAULT_THRESHOLD, ConfigError, Preprocessing, QMANetConfig
from ..modeling.noise import NoisePrint, normalized
from ..modeling.qma_net import SMALLEST_SIDE, STRIDE, QMANetModel, image_score
from ..weights.locate import load_model
from ..weights.names import RANDOM
from .photograph import Photograph, PhotographError, PhotoSource, read_photograph
from .prediction import Prediction, require_finite
from .preprocessing import fit_to_model
from .tiles import NoiseRows, ProgressCallback, Region, TileProgress, blend_tiles, tile_spans

logger = logging.getLogger(__name__)

FLIPS = ((), (1,), (0,), (0, 1))  # Axes of (H, W): none, left-right, top-bottom, both.

RANDOM_WEIGHTS_NOTE = "RANDOM WEIGHTS: this mask is meaningless"


Photo = TypeVar("Photo", bound=PhotoSource)
OnError: TypeAlias = Literal["raise", "skip"] | Callable[[Any, PhotographError], object]


class QMANetPredictor:
    """Predicts tampered regions with a model; masks have the size of the photo.

    On a CPU, the same photo gives the same mask, bit for bit, in every call, as long as the
    machine, the versions of the packages, the number of threads and the options stay the same.
    Several threads may share such a predictor; they get the same masks as well.

    Args:
        model: A model from :func:`qma_net.build_qma_net` or :func:`qma_net.load_checkpoint`.
        device: The device to compute on; by default the model's.
        image_size: Side in pixels to which photos are resized. By default photos are resized or
            padded as in training if the model knows how (``model.preprocessing``), and resized to
            512 otherwise. A note is added to every prediction if this differs from training. This
            argument has no effect on native prediction.
        tile: Largest side in pixels of the tiles for native prediction, a multiple of 32.
        overlap: Smallest overlap of neighboring tiles in pixels, a multiple of 32.
        mixed: Compute in bfloat16, except for the noise view: faster on processors with bfloat16
            arithmetic, many times slower on others.
        compile: Compile the encoders. This takes about half a minute per image size and makes
            each later image about 10% faster; on a CPU it needs a C++ compiler.

    Attributes:
        preprocessing: How photos are fed to the model.
        notes: Caveats about the model; added to every prediction.

    Raises:
        ConfigError: If tile and overlap are not multiples of 32 with the overlap below the tile, or
            if the image size is invalid.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        device: str | torch.device | None = None,
        image_size: int | None = None,
        tile: int = 1024,
        overlap: int = 256,
        mixed: bool = False,
        compile: bool = False,
    ):
        if not STRIDE <= overlap < tile or tile % STRIDE or overlap % STRIDE:
            raise ConfigError(
                f"got tile={tile}, overlap={overlap}, expected multiples of {STRIDE}, with the "
                "overlap below the tile"
            )
        trained: Preprocessing | None = getattr(model, "preprocessing", None)
        self.preprocessing = trained or Preprocessing()
        about: str = getattr(model, "about", "")
        self.notes: tuple[str, ...] = (about,) if about else ()
        if image_size is not None:
            self.preprocessing = Preprocessing(image_size, fit="resize")
        # The last note does not apply to native prediction.
        self._size_note = ""
        if trained and self.preprocessing != trained:
            self._size_note = f"{self.preprocessing}; in training {trained}"
            self.notes += (self._size_note,)
        self.model: Any = (model if device is None else model.to(device)).eval()
        self.tile, self.overlap, self.mixed = tile, overlap, mixed
        if compile:
            cast(Any, self.model).compile_for_inference()

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        device: str | torch.device | None = None,
        **options: Any,
    ) -> Self:
        """Load a model, by default onto CUDA if it is available.

        Args:
            path: A checkpoint written by BenCo's trainer, a folder of checkpoints, a folder written
                by ``save_pretrained``, ``owner/name`` on the Hugging Face Hub, or
                ``"qma-net-small"``.
            device: The device to compute on.
            options: Further arguments of the constructor.

        Raises:
            WeightsError: If there is no such source, or if its content is invalid.
            ConfigError: If the device is not available.
        """
        return cls(load_model(path), usable_device(device), **options)

    @property
    def device(self) -> torch.device:
        """The device on which the model computes."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def calibration(self) -> Calibration | None:
        """The scores of authentic photos that were saved with the model, if any."""
        return getattr(self.model, "calibration", None)

    @property
    def noiseprint(self) -> NoisePrint | None:
        """The model's NoisePrint++, if it has one."""
        return getattr(getattr(self.model, "noise_view", None), "noiseprint", None)

    @cached_property
    def _checkpoint(self) -> tuple[str, str]:
        """The file of the weights and its SHA-256; empty if there is none."""
        file = getattr(self.model, "weights_file", None)
        return (str(file), sha256(file)) if file else ("", "")

    def describe(self) -> dict[str, Any]:
        """Return the settings that results record: model, weights and preprocessing."""
        config: QMANetConfig | None = getattr(self.model, "config", None)
        checkpoint, checkpoint_sha256 = self._checkpoint
        settings = {
            "qma_net": __version__,
            "model": asdict(config) if config else {},
            "about": getattr(self.model, "about", ""),
            "checkpoint": checkpoint,
            "checkpoint_sha256": checkpoint_sha256,
            "image_size": self.preprocessing.image_size,
            "fit": self.preprocessing.fit,
            "tile": self.tile,
            "overlap": self.overlap,
        }
        # Earlier versions did not record it, and their runs in float32 can still be resumed.
        return settings | ({"mixed": True} if self.mixed else {})

    @overload
    def predict(
        self,
        image: PhotoSource,
        threshold: float = DEFAULT_THRESHOLD,
        native: bool = False,
        tta: bool = False,
        progress: ProgressCallback | None = None,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        image: list[PhotoSource] | tuple[PhotoSource, ...],
        threshold: float = DEFAULT_THRESHOLD,
        native: bool = False,
        tta: bool = False,
        progress: ProgressCallback | None = None,
    ) -> list[Prediction]: ...

    def predict(
        self,
        image: PhotoSource | list[PhotoSource] | tuple[PhotoSource, ...],
        threshold: float = DEFAULT_THRESHOLD,
        native: bool = False,
        tta: bool = False,
        progress: ProgressCallback | None = None,
    ) -> Prediction | list[Prediction]:
        """Predict the tampered regions of a photo, or of a list of photos.

        All predictions for a list are held in memory at once; use :meth:`predict_iter` for many
        photos.

        Args:
            image: A path, bytes, an open file, a PIL image or an array (see
                :func:`qma_net.inference.photograph.read_photograph`), or a list of these.
            threshold: In 0..1. Pixels with a higher mask value count as tampered.
            native: Process the photo at original resolution, in tiles if it is large, instead of
                resizing it as in training.
            tta: Average over the photo and its three flips.
            progress: Called with (finished, total) tiles: first with (0, total), then after every
                tile, and in between with unchanged numbers, such as (0, total) again, at least
                every few seconds. An exception that it raises ends the prediction. A photo that is
                not divided counts as one tile.

        Raises:
            PhotographError: If the source is not a photo, is so truncated that no row is reliable,
                or is too small for native prediction.
            NonFiniteError: If the model outputs NaN or infinity.
            ConfigError: If the threshold is outside 0..1.
        """
        require_probability(threshold)
        if isinstance(image, list | tuple):
            return [
                self.predict(item, threshold=threshold, native=native, tta=tta, progress=progress)
                for item in image
            ]
        photograph = read_photograph(image)
        pixels = photograph.present_pixels
        if not pixels.size:
            raise PhotographError(f"cannot judge {photograph.name}: {photograph.truncation}")
        model_input = fit_to_model(pixels, self.preprocessing, native=native)
        notes = tuple(note for note in self.notes if not (native and note == self._size_note))
        side = self.preprocessing.image_size
        if model_input.is_native:
            height, width = model_input.size
            if min(height, width) < SMALLEST_SIDE:
                advice = f"the photo is {photograph.too_small.partition(':')[0]}"
                if native and not fit_to_model(pixels, self.preprocessing).is_native:
                    advice = "omit native"
                raise PhotographError(
                    f"got {photograph.name} of {width}x{height} pixels, expected at least "
                    f"{SMALLEST_SIDE}x{SMALLEST_SIDE} for prediction at original resolution; "
                    f"{advice}"
                )
            if self.preprocessing.fit == "pad" and not native:
                notes += (f"larger than the {side}x{side} of training, so not resized",)
        tile = self.tile if model_input.is_native else side
        values = self._mask_values(model_input.pixels, tile, tta, progress)
        score = float(image_score(torch.from_numpy(model_input.crop_padding(values))[None, None]))
        checkpoint = getattr(self.model, "weights_file", None)
        require_finite(values, score, checkpoint=checkpoint, photo=photograph.name)
        too_small = (photograph.too_small,) if photograph.too_small else ()
        notes = (*photograph.notes, *too_small, *notes)
        mask = photograph.complete_mask(model_input.restore(values))
        return Prediction(mask, score, threshold, photograph, notes)

    def predict_iter(
        self,
        photos: Iterable[Photo],
        *,
        on_error: OnError = "raise",
        keep_pixels: bool = False,
        threshold: float = DEFAULT_THRESHOLD,
        native: bool = False,
        tta: bool = False,
    ) -> Iterator[tuple[Photo, Prediction]]:
        """Predict photos one after the other, in constant memory however many there are.

        A photo is read when its prediction is requested, so ``photos`` may be a generator.

        Args:
            photos: What :meth:`predict` accepts: paths, bytes, open files, PIL images or arrays.
            on_error: What happens if a photo cannot be read or judged: ``"raise"`` the
                :class:`~qma_net.inference.photograph.PhotographError`; ``"skip"`` the photo and log
                a warning; or a function that is called with the photo and the error, before the
                next photo is read. An exception that it raises ends the iteration.
            keep_pixels: Keep the pixels of the photo with the prediction, which its overlay needs.
            threshold: In 0..1. Pixels with a higher mask value count as tampered.
            native: See :meth:`predict`.
            tta: See :meth:`predict`.

        Returns:
            An iterator of pairs: the element of ``photos`` and its prediction.

        Raises:
            ConfigError: If the threshold is outside 0..1, ``on_error`` is none of the above, or
                ``photos`` is a single photo.
            NonFiniteError: If the model outputs NaN or infinity; ``on_error`` does not apply.
        """
        require_probability(threshold)
        kinds = (str, bytes, os.PathLike, IOBase, Image.Image, Photograph)
        if isinstance(photos, kinds) or _is_pixels(photos):
            raise ConfigError(
                f"got one photo of type {type(photos).__name__}, expected several, such as a list; "
                "use predict for one photo"
            )
        if on_error not in ("raise", "skip") and not callable(on_error):
            raise ConfigError(f"got on_error={on_error!r}, expected raise, skip or a function")
        return self._predictions(
            photos, on_error, keep_pixels, threshold=threshold, native=native, tta=tta
        )

    def _predictions(
        self, photos: Iterable[Photo], on_error: OnError, keep_pixels: bool, **options: Any
    ) -> Iterator[tuple[Photo, Prediction]]:
        for photo in photos:
            try:
                prediction: Prediction = self.predict(photo, **options)
            except PhotographError as error:
                if on_error == "raise":
                    raise
                if on_error == "skip":
                    logger.warning("skipped: %s", error)
                else:
                    on_error(photo, error)
                continue
            yield photo, prediction if keep_pixels else prediction.without_pixels()

    def examine(self, image: PhotoSource, *args: Any, **kwargs: Any) -> Any:
        """Examine a photo. Deprecated: use :func:`qma_net.examine.examine_photo`."""
        warnings.warn(
            "QMANetPredictor.examine is deprecated; use qma_net.examine.examine_photo(predictor, "
            "photo)",
            DeprecationWarning,
            stacklevel=2,
        )
        # The examination builds on this package, so this alias must not import it at the top.
        examine_photo = importlib.import_module("qma_net.examine").examine_photo
        names = ("threshold", "native", "noiseprint", "out", "progress")
        return examine_photo(self, image, **dict(zip(names, args, strict=False)), **kwargs)

    @torch.inference_mode()
    def _mask_values(
        self, pixels: NDArray[np.uint8], tile: int, tta: bool, report: ProgressCallback | None
    ) -> NDArray[np.float32]:
        """Map uint8 ``(H, W, 3)`` to mask values, float32 ``(H, W)``."""
        flips = FLIPS if tta else FLIPS[:1]
        rows, columns = (tile_spans(length, tile, self.overlap) for length in pixels.shape[:2])
        progress = TileProgress(len(flips) * len(rows) * len(columns), report)
        masks = []
        for flip in flips:
            flipped = np.flip(pixels, flip).copy() if flip else pixels
            masks.append(np.flip(self._blended(flipped, rows, columns, progress), flip))
        return masks[0] if len(masks) == 1 else np.asarray(np.mean(masks, axis=0))

    def _blended(
        self,
        pixels: NDArray[np.uint8],
        rows: list[slice],
        columns: list[slice],
        progress: TileProgress,
    ) -> NDArray[np.float32]:
        view, device = getattr(self.model, "noise_view", None), self.device
        noise_rows = NoiseRows(view, pixels, device, progress.ping) if view else None

        def predict_tile(region: Region) -> NDArray[np.float32]:
            image = normalized(pixels[region], device)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.mixed):
                noise = noise_rows.crop(region) if noise_rows else None
                logits = self.model(image, edges=False, noise=noise).mask_logits
            progress.step()
            values: NDArray[np.float32] = logits[0, 0].float().sigmoid().cpu().numpy()
            return values

        return blend_tiles(rows, columns, predict_tile)


def load_predictor(
    checkpoint: str, device: str = "", **options: Any
) -> tuple[QMANetPredictor, str]:
    """Load the predictor for a command; see :meth:`QMANetPredictor.from_pretrained`.

    The checkpoint ``"random"`` builds a small model with random weights for a test run.

    Returns:
        The predictor, and a note for its results, which is empty unless the weights are random.
    """
    if checkpoint == RANDOM:
        logger.warning("%s; use it only for a test run", RANDOM_WEIGHTS_NOTE)
        model = QMANetModel.from_config(QMANetConfig(size="b0", views="srm,bayar"))
        return QMANetPredictor(model, usable_device(device), **options), RANDOM_WEIGHTS_NOTE
    return QMANetPredictor.from_pretrained(checkpoint, device, **options), ""


def usable_device(name: str | torch.device | None = None) -> torch.device:
    """Return the device of this name, by default CUDA if it is available.

    Raises:
        ConfigError: If the name is not a device, or CUDA is not available.
    """
    if not name:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"got device {name!r}, expected cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"got device {name!r}, but CUDA is not available; omit --device to choose automatically"
        )
    return device


def _is_pixels(photos: object) -> bool:
    """Return whether an array is one photo; others hold paths or several photos."""
    if not isinstance(photos, np.ndarray):
        return False
    return photos.ndim == 2 or (photos.ndim == 3 and photos.shape[2] in (3, 4))


def require_probability(threshold: float) -> None:
    """Raise :class:`ConfigError` if a threshold is outside 0..1."""
    if not 0 <= threshold <= 1:
        raise ConfigError(
            f"got threshold {threshold}, expected a number from 0 to 1, such as {DEFAULT_THRESHOLD}"
        )
