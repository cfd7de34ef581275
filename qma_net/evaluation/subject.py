"""The model that is evaluated: built from BenCo's registry, with a checkpoint's weights."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..core.files import read_json_object
from ..launch.saving import BEST_NOTE
from ..modeling.config import Preprocessing
from ..modeling.state import load_strictly
from ..weights.checkpoint import preprocessing_in
from ..weights.locate import load_model
from ..weights.reading import read_checkpoint, sha256, state_in
from .settings import EvaluationError

PICKED_ON = "training's test sets"  # what a checkpoint of ``best/`` was picked on


@dataclass(frozen=True)
class Subject:
    """A model of BenCo's registry with a checkpoint's weights.

    Args:
        identity: what a result file says of it; ``picked_on`` only where test sets picked the
            checkpoint among a training's epochs, ``about`` only where the checkpoint says
            something of itself.
        post_function: its hook among BenCo's ``POSTFUNCS``, or None.
        preprocessing: how images reached it in training; None where the checkpoint does not say.
        needs_edges: whether its forward pass insists on BenCo's edge mask, for its loss.
    """

    model: torch.nn.Module
    identity: dict
    post_function: object
    device: str
    preprocessing: Preprocessing | None
    needs_edges: bool

    @classmethod
    def load(cls, name: str, flags: Sequence[str], checkpoint: Path, device: str) -> "Subject":
        """Builds a registered model from its flags and loads the checkpoint strictly.

        For QMANet the flags come from the checkpoint, whatever :func:`.load_model` takes; given
        ones must agree with it.
        """
        import IMDLBenCo.model_zoo  # noqa: F401  (registers BenCo's models)
        from IMDLBenCo.registry import MODELS, POSTFUNCS
        from IMDLBenCo.training_scripts.utils.misc import create_argparser

        from .. import benco  # noqa: F401  (registers QMANet)

        if not MODELS.has(name):
            known = ", ".join(sorted(MODELS.module_dict))
            raise EvaluationError(f"got --model {name}, expected one of BenCo's registry: {known}")
        build = MODELS.get(name)
        network = load_model(checkpoint) if name == "QMANet" else None
        if network:
            checkpoint, preprocessing = network.weights_file, network.preprocessing
            flags = [*network.config.as_flags(), *flags]
        else:
            content = read_checkpoint(checkpoint)
            preprocessing = preprocessing_in(content.get("args"))
        parser = create_argparser(build)
        parser.prog = f"... --model {name}"
        arguments = vars(parser.parse_args([str(flag) for flag in flags]))
        # BenCo's models may be functions; both take exactly what the parser was made of
        accepted = inspect.signature(build).parameters
        arguments = {key: arguments[key] for key in sorted(accepted)}
        if network:
            model = build(**{**arguments, "init_from": network})
            del arguments["init_from"]
        else:
            # BenCo's scripts hand their own device on too, to models that want to know it
            where = {"device": device} if "device" in arguments else {}
            model = build(**{**arguments, **where})
            arguments = {key: arguments[key] for key in arguments if key not in where}
            load_strictly(model, state_in(content), f"{checkpoint} (checkpoint of {name})")
        hook = f"{name.lower()}_post_func"
        identity = {
            "model": name,
            "model_flags": arguments,
            "checkpoint": str(checkpoint),
            "checkpoint_sha256": sha256(checkpoint),
            **({"picked_on": PICKED_ON} if is_picked(checkpoint) else {}),
            **({"about": network.about} if network and network.about else {}),
        }
        post_function = POSTFUNCS.get_lower(hook) if POSTFUNCS.has(hook) else None
        edges = inspect.signature(model.forward).parameters.get("edge_mask")
        needs_edges = edges is not None and edges.default is edges.empty
        return cls(
            model=model.to(device).eval(),
            identity=identity,
            post_function=post_function,
            device=device,
            preprocessing=preprocessing,
            needs_edges=needs_edges,
        )

    @torch.no_grad()
    def __call__(self, batch: dict) -> tuple[np.ndarray, np.ndarray, str]:
        """Masks ``(B, H, W)`` float32, scores ``(B,)``, and where the scores come from."""
        batch = {
            key: value.to(self.device) if isinstance(value, torch.Tensor) else value
            for key, value in batch.items()
        }
        output = self.model(**batch)
        masks = output["pred_mask"].float().cpu().numpy()[:, 0]
        scores = output.get("pred_label")
        if scores is None:
            return masks, masks.reshape(len(masks), -1).max(axis=1), "largest probability"
        return masks, scores.float().cpu().numpy().reshape(-1), "pred_label"


def is_picked(checkpoint: Path) -> bool:
    """Whether the note beside a checkpoint says that it is its training's best on its test sets."""
    note = checkpoint.parent / BEST_NOTE
    if not note.is_file():
        return False
    best = read_json_object(note, "the note that the launcher writes: delete it")
    return checkpoint.name == f"checkpoint-{best.get('epoch')}.pth"
