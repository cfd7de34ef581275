"""Saving and loading a model as a directory or a Hugging Face repository.

The folder contains ``model.safetensors`` (the weights, including NoisePrint++), ``config.json``
(the :class:`~qma_net.modeling.config.QMANetConfig`, the version of the architecture and the flags
of the loss), ``README.md`` (a model card) and, if they are known, ``preprocessor_config.json`` (how
images were fed to the model in training) and ``calibration.json`` (its scores for authentic
photos).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, TypeVar

from huggingface_hub import ModelHubMixin, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from .. import __version__
from ..core.files import (
    MAX_JSON_BYTES,
    atomic_write,
    read_bytes,
    read_json_object,
    to_json,
    write_text,
)
from ..core.untrusted import MAX_ABOUT, one_line
from .calibration import Calibration
from .config import ARCHITECTURE, Preprocessing, QMANetConfig
from .state import WeightsError, config_from_saved, load_strictly, loss_from_saved

CONFIG_NAME = "config.json"
PREPROCESSOR_NAME = "preprocessor_config.json"
CALIBRATION_NAME = "calibration.json"
WEIGHTS_FILE = "model.safetensors"

MODEL_CARD = """\
---
{{ card_data }}
---

# QMA-Net

Localizes tampered pixels in images with two SegFormer encoders, one on RGB and one on a noise
view, and learnable queries (*A Novel Query-Driven Multi-Stage Alternating Feature Extraction and
Interaction Network for Image Manipulation Localization*). `config.json` states the variant.

```python
from qma_net import QMANetPredictor

predictor = QMANetPredictor.from_pretrained("this folder or Hub ID")
prediction = predictor.predict("photo.jpg")
prediction.mask  # float32 (H, W), model output in 0..1 (not a calibrated probability)
```

- **Training data and results**: [datasets, duration, and the numbers of `qma-net evaluate`]
- **Limitations**: a mask shows where to look and is not proof. Authentic photos can be marked.
- **Terms**: the code is Apache-2.0. The weights contain the weights that training started from: MiT
  (NVIDIA Source Code License for SegFormer, non-commercial) and, with the noiseprint view,
  NoisePrint++ (GRIP-UNINA, nonprofit research, credit the authors).
"""

T = TypeVar("T")


class HubModule(
    nn.Module,
    ModelHubMixin,
    library_name="qma-net",
    license="other",
    pipeline_tag="image-segmentation",
    tags=["image-forensics", "image-manipulation-localization"],
    model_card_template=MODEL_CARD,
):
    """Base class with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``.

    Attributes:
        config: Configuration that the model was built from.
        preprocessing: How images were fed to it in training; None if unknown.
        loss: Flags of the loss in training (:data:`.config.LOSS_FLAGS`); None if unknown.
        about: Notice that is shown with every result, e.g. that these are weights of the demo.
        weights_file: File that the weights were read from; None for new models.
        calibration: Scores of authentic photos with these weights; None if not measured.
    """

    config: QMANetConfig
    preprocessing: Preprocessing | None = None
    loss: Mapping[str, float] | None = None
    about: str = ""
    weights_file: Path | None = None
    calibration: Calibration | None = None

    @classmethod
    def from_config(cls, config: QMANetConfig) -> Self:
        """Build a model with random weights."""
        raise NotImplementedError

    def _save_pretrained(self, save_directory: Path) -> None:
        state = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        try:
            with atomic_write(save_directory / WEIGHTS_FILE) as temporary:
                save_file(state, temporary, metadata={"format": "pt"})
        except SafetensorError as error:  # raised instead of OSError, e.g. when the disk is full
            raise WeightsError(
                f"cannot write the weights to {save_directory}: {error}; free some space or choose "
                "a different folder"
            ) from None
        config = {"architecture": ARCHITECTURE, "qma_net": __version__, **asdict(self.config)}
        if self.loss:
            config["loss"] = dict(self.loss)
        if self.about:
            config["about"] = self.about
        write_text(save_directory / CONFIG_NAME, to_json(config, indent=2) + "\n")
        if self.preprocessing:
            text = to_json(asdict(self.preprocessing), indent=2) + "\n"
            write_text(save_directory / PREPROCESSOR_NAME, text)
        else:  # The preprocessing of earlier weights would be wrong for these.
            (save_directory / PREPROCESSOR_NAME).unlink(missing_ok=True)
        if self.calibration:
            write_calibration(save_directory, self.calibration)
        else:  # The same applies to their calibration.
            (save_directory / CALIBRATION_NAME).unlink(missing_ok=True)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        config: Mapping[str, Any] | None = None,
        map_location: str = "cpu",
        **download: Any,
    ) -> Self:
        """Load the model; ``from_pretrained`` calls this with the content of ``config.json``."""
        config = _require_config(config, model_id)
        model = cls.from_config(config_from_saved(config, f"{model_id}/{CONFIG_NAME}"))
        model.about = one_line(config.get("about", ""), MAX_ABOUT)
        model.loss = loss_from_saved(config.get("loss"))
        model.preprocessing = read_preprocessing(model_id, **download)
        model.calibration = _read_optional(
            model_id,
            CALIBRATION_NAME,
            download,
            build=Calibration.from_dict,
            expected="quantiles, image_size, fit and native as `qma-net calibrate` writes them",
        )
        file = _locate(model_id, WEIGHTS_FILE, download)
        try:
            state = load_file(file, device=map_location)
        except (OSError, SafetensorError) as error:
            raise WeightsError(
                f"cannot read the weights {file}: {error}; download or copy them again"
            ) from None
        load_strictly(model, state, str(file))
        model.weights_file = file
        return model


def read_config(model_id: str, **download: Any) -> QMANetConfig:
    """Read the configuration of a saved model, and download nothing else.

    Raises:
        WeightsError: If it is not the configuration of a QMA-Net.
    """
    file = _locate(model_id, CONFIG_NAME, download)
    is_found = file.is_file()
    config = read_json_object(file, "the configuration of a QMA-Net") if is_found else None
    config = _require_config(config, model_id)
    return config_from_saved(config, f"{model_id}/{CONFIG_NAME}")


def read_preprocessing(model_id: str, **download: Any) -> Preprocessing | None:
    """Read the preprocessing of a saved model, if it has one, and download nothing else.

    Raises:
        WeightsError: If the file is invalid.
    """
    return _read_optional(
        model_id,
        PREPROCESSOR_NAME,
        download,
        build=Preprocessing.from_dict,
        expected="image_size and fit as save_pretrained writes them",
    )


def _require_config(config: object, model_id: str) -> dict[str, Any]:
    if config is None:
        raise WeightsError(
            f"{model_id} has no config.json; pass a directory written by save_pretrained, or "
            "convert a checkpoint with `qma-net convert`"
        )
    names = QMANetConfig.required_names()
    if not isinstance(config, dict) or not set(names) <= set(config):
        raise WeightsError(
            f"{model_id}/{CONFIG_NAME} is not the configuration of a QMA-Net; expected the fields "
            f"{', '.join(names)}"
        )
    return config


def write_calibration(directory: Path, calibration: Calibration) -> None:
    """Write ``calibration.json`` to a ``save_pretrained`` directory."""
    write_text(directory / CALIBRATION_NAME, to_json(calibration.as_dict()) + "\n")


def _locate(model_id: str, name: str, download: Mapping[str, Any]) -> Path:
    """Return the path of a file in a directory, or download it from a Hub repository."""
    if Path(model_id).is_dir():
        return Path(model_id) / name
    supported = ("revision", "cache_dir", "force_download", "local_files_only", "token")
    options = {key: download[key] for key in supported if key in download}
    return Path(hf_hub_download(model_id, name, **options))


def _read_optional(
    model_id: str,
    name: str,
    download: Mapping[str, Any],
    *,
    build: Callable[[Mapping[str, Any]], T],
    expected: str,
) -> T | None:
    """Read a JSON file next to the weights; return None if there is no such file."""
    try:
        return build(
            json.loads(read_bytes(_locate(model_id, name, download), limit=MAX_JSON_BYTES))
        )
    except (FileNotFoundError, EntryNotFoundError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{model_id}/{name} is invalid: {error}; expected {expected}") from None
