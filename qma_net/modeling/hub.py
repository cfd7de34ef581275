"""``save_pretrained``, ``from_pretrained``, ``push_to_hub``: a directory that rebuilds the model.

``config.json`` holds the :class:`~qma_net.modeling.config.QMANetConfig` and the version of the
architecture, ``preprocessor_config.json`` how photographs reached the model in training (where that
is known), ``calibration.json`` what untouched photographs score (where that was measured),
``model.safetensors`` the weights (NoisePrint++ included), ``README.md`` a model card.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .. import __version__
from ..core.files import atomic_write, write_text
from .calibration import Calibration
from .config import ARCHITECTURE, ConfigError, Preprocessing, QMANetConfig
from .state import WeightsError, load_strictly, require_this_architecture

CONFIG_NAME = "config.json"
PREPROCESSOR_NAME = "preprocessor_config.json"
CALIBRATION_NAME = "calibration.json"
WEIGHTS_FILE = "model.safetensors"

MODEL_CARD = """\
---
{{ card_data }}
---

# QMA-Net

Finds the manipulated pixels of a photograph: two SegFormer encoders, on RGB and on a noise view,
and learnable queries (*A Novel Query-Driven Multi-Stage Alternating Feature Extraction and
Interaction Network for Image Manipulation Localization*). `config.json` says which variant.

```python
from qma_net import QMANetPredictor

predictor = QMANetPredictor.from_pretrained("this directory or hub id")
prediction = predictor.predict("photo.jpg")
prediction.mask  # float32 (H, W), the probability that a pixel was manipulated
```

- **Trained on**: [say which datasets, how long, and the numbers of `qma-net evaluate`]
- **Not for**: proof. A mask is a hint where to look; untouched photographs can be marked.
- **Terms**: the code is Apache-2.0. The weights contain what they were started from: MiT (NVIDIA
  Source Code License for SegFormer, non-commercial) and, with the noiseprint view, NoisePrint++
  (GRIP-UNINA, nonprofit research, credit the authors).
"""


class HubMixin(
    ModelHubMixin,
    library_name="qma-net",
    license="other",
    pipeline_tag="image-segmentation",
    tags=["image-forensics", "image-manipulation-localization"],
    model_card_template=MODEL_CARD,
):
    """huggingface_hub's mixin for a model that has a ``QMANetConfig`` as ``config``."""

    def _save_pretrained(self, save_directory: Path) -> None:
        state = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        try:
            with atomic_write(save_directory / WEIGHTS_FILE) as beside:
                save_file(state, beside, metadata={"format": "pt"})
        except SafetensorError as error:  # what a disk says that refuses
            raise WeightsError(
                f"got {save_directory}, expected a folder with room for the weights: {error}"
            ) from None
        made = {"architecture": ARCHITECTURE, "qma_net": __version__, **asdict(self.config)}
        made |= {"about": self.about} if self.about else {}
        write_text(save_directory / CONFIG_NAME, json.dumps(made, indent=2) + "\n")
        if self.preprocessing:
            shown = json.dumps(asdict(self.preprocessing), indent=2) + "\n"
            write_text(save_directory / PREPROCESSOR_NAME, shown)
        if self.calibration:
            write_calibration(save_directory, self.calibration)
        else:  # one of other weights must not stay beside these
            (save_directory / CALIBRATION_NAME).unlink(missing_ok=True)

    @classmethod
    def _from_pretrained(cls, *, model_id, config=None, map_location="cpu", **download):
        """Called by ``from_pretrained`` with the content of ``config.json``.

        Raises:
            WeightsError: without ``config.json``, with another model's, or with weights that are
                missing or do not fit.
        """
        if config is None:
            raise WeightsError(
                f"got {model_id} without config.json, expected what save_pretrained writes: "
                "qma-net convert makes it from a checkpoint of BenCo's trainer"
            )
        what = f"{model_id}/{CONFIG_NAME}"
        if not isinstance(config, dict) or not set(QMANetConfig.field_names()) <= set(config):
            raise WeightsError(
                f"got {what}, expected the configuration of a QMA-Net: "
                f"{', '.join(QMANetConfig.field_names())}"
            )
        require_this_architecture(config, what)
        try:
            model = cls.from_config(
                QMANetConfig(**{name: config[name] for name in QMANetConfig.field_names()})
            )
        except ConfigError as error:
            raise WeightsError(
                f"got {what}, expected the configuration of a QMA-Net: {error}"
            ) from None
        model.about = str(config.get("about", ""))
        model.preprocessing = _preprocessing(model_id, download)
        model.calibration = _calibration(model_id, download)
        file = _file(model_id, WEIGHTS_FILE, download)
        try:
            state = load_file(file, device=map_location)
        except (OSError, SafetensorError) as error:
            raise WeightsError(
                f"got {file}, expected the weights that belong to its config.json: {error}"
            ) from None
        load_strictly(model, state, str(file))
        model.weights_file = file
        return model


def write_calibration(directory: Path, calibration: Calibration) -> None:
    """Puts what untouched photographs score beside the weights in a directory."""
    write_text(directory / CALIBRATION_NAME, json.dumps(calibration.as_dict()) + "\n")


def _file(model_id: str, name: str, download: dict) -> Path:
    """A file of a directory, or of a repository of the hub."""
    if Path(model_id).is_dir():
        return Path(model_id) / name
    kept = ("revision", "cache_dir", "force_download", "local_files_only", "token")
    options = {key: download[key] for key in kept if key in download}
    return Path(hf_hub_download(model_id, name, **options))


def _beside(
    model_id: str, name: str, download: dict, build: Callable[[dict], Any], expected: str
) -> Any:
    """What a JSON file beside the weights says, as ``build`` makes it; None without the file."""
    try:
        return build(json.loads(_file(model_id, name, download).read_text()))
    except (FileNotFoundError, EntryNotFoundError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"got {model_id}/{name}, expected {expected}: {error}") from None


def _preprocessing(model_id: str, download: dict) -> Preprocessing | None:
    def build(content: dict) -> Preprocessing:
        return Preprocessing(image_size=content["image_size"], fit=content["fit"])

    expected = "image_size and fit as save_pretrained writes them"
    return _beside(model_id, PREPROCESSOR_NAME, download, build, expected)


def _calibration(model_id: str, download: dict) -> Calibration | None:
    expected = "quantiles, image_size, fit and native as qma-net calibrate writes them"
    return _beside(model_id, CALIBRATION_NAME, download, Calibration.from_dict, expected)
