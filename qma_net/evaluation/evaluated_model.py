"""The model that is evaluated: built from BenCo's registry, with the weights of a checkpoint."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core.files import read_json_object, sha256
from ..launch.checkpoints import BEST_NOTE
from ..modeling.config import Preprocessing
from ..modeling.state import load_strictly
from ..weights.checkpoint import preprocessing_from_args
from ..weights.locate import load_model
from ..weights.reading import read_checkpoint, unwrap_state

PICKED_ON = "training's test sets"  # Recorded for checkpoints selected on these.


@dataclass(frozen=True)
class EvaluatedModel:
    """A model from BenCo's registry with the weights of a checkpoint.

    Attributes:
        model: The module, in evaluation mode.
        identity: Description for result files. ``picked_on`` is present if the checkpoint was
            selected on test sets, ``about`` if the checkpoint contains a notice.
        post_function: The model's function in BenCo's ``POSTFUNCS``, or None.
        device: The device of the model.
        preprocessing: How images were fed to it in training; None if that is not recorded.
        needs_edges: Whether its forward pass requires BenCo's edge mask, for its loss.
    """

    model: torch.nn.Module
    identity: dict[str, Any]
    post_function: Callable | None
    device: str
    preprocessing: Preprocessing | None
    needs_edges: bool

    @classmethod
    def load(
        cls, name: str, flags: Sequence[str], checkpoint: Path, device: str
    ) -> "EvaluatedModel":
        """Build a registered model from its flags and load the checkpoint strictly.

        QMANet's flags are read from the checkpoint, which may be anything that
        :func:`.load_model` accepts; flags passed explicitly must match it.

        Raises:
            ConfigError: If no model of this name is registered.
            WeightsError: If the checkpoint does not belong to the model.
        """
        from IMDLBenCo.registry import POSTFUNCS
        from IMDLBenCo.training_scripts.utils.misc import create_argparser

        from ..benco.registry import registered_model

        build = registered_model(name)
        network = load_model(checkpoint) if name == "QMANet" else None
        content: dict = {}
        if network:
            checkpoint, preprocessing = network.weights_file or checkpoint, network.preprocessing
            loss_flags = [f"--{key}={value}" for key, value in (network.loss or {}).items()]
            flags = [*network.config.as_flags(), *loss_flags, *flags]
        else:
            content = read_checkpoint(checkpoint)
            preprocessing = preprocessing_from_args(content.get("args"))
        parser = create_argparser(build)
        parser.prog = f"... --model {name}"
        arguments = vars(parser.parse_args([str(flag) for flag in flags]))
        # The parser has additional flags; the model, a class or a function, accepts only these.
        arguments = {key: arguments[key] for key in sorted(inspect.signature(build).parameters)}
        if network:
            model = build(**{**arguments, "init_from": network})
            del arguments["init_from"]
        else:
            # BenCo's scripts pass their device to models that take it as an argument.
            model = build(**arguments | ({"device": device} if "device" in arguments else {}))
            arguments.pop("device", None)
            load_strictly(model, unwrap_state(content), f"{checkpoint} (checkpoint of {name})")
        identity = {
            "model": name,
            "model_flags": arguments,
            "checkpoint": str(checkpoint),
            "checkpoint_sha256": sha256(checkpoint),
        }
        if is_best_on_test_sets(checkpoint):
            identity["picked_on"] = PICKED_ON
        if network and network.about:
            identity["about"] = network.about
        post_name = f"{name.lower()}_post_func"
        edges = inspect.signature(model.forward).parameters.get("edge_mask")
        return cls(
            model=model.to(device).eval(),
            identity=identity,
            post_function=POSTFUNCS.get_lower(post_name) if POSTFUNCS.has(post_name) else None,
            device=device,
            preprocessing=preprocessing,
            needs_edges=edges is not None and edges.default is edges.empty,
        )

    @torch.no_grad()
    def __call__(self, batch: dict) -> tuple[np.ndarray, np.ndarray | None]:
        """Predict a batch from BenCo's data loader.

        Returns:
            Masks, float32 ``(B, H, W)``, and scores, ``(B,)``; None if the model has no scores.
        """
        batch = {
            key: value.to(self.device) if isinstance(value, torch.Tensor) else value
            for key, value in batch.items()
        }
        # Some of BenCo's models move tensors to the current CUDA device.
        is_cuda = self.device.startswith("cuda")
        with torch.cuda.device(self.device) if is_cuda else nullcontext():
            output = self.model(**batch)
        masks = output["pred_mask"].float().cpu().numpy()[:, 0]
        scores = output.get("pred_label")
        return masks, None if scores is None else scores.float().cpu().numpy().reshape(-1)


def is_best_on_test_sets(checkpoint: Path) -> bool:
    """Check whether the launcher selected this checkpoint on the test sets during training."""
    note = checkpoint.parent / BEST_NOTE
    if not note.is_file():
        return False
    expected = "the record of the best epoch; delete this file if the selection no longer matters"
    best = read_json_object(note, expected)
    return checkpoint.name == f"checkpoint-{best.get('epoch')}.pth"
