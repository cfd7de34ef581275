"""The model that is evaluated: built from BenCo's registry, with a checkpoint's weights."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..modeling.state import load_strictly
from ..weights.checkpoint import Checkpoint
from ..weights.reading import read_state, sha256
from .settings import EvaluationError


@dataclass(frozen=True)
class Subject:
    """A model of BenCo's registry with a checkpoint's weights, and what identifies it."""

    model: torch.nn.Module
    identity: dict
    post_function: object
    device: str

    @classmethod
    def load(cls, name: str, flags: Sequence[str], checkpoint: Path, device: str) -> "Subject":
        """Builds a registered model from its flags and loads the checkpoint strictly.

        For QMANet the flags come from the checkpoint; given ones must agree with it.
        """
        import IMDLBenCo.model_zoo  # noqa: F401  (registers BenCo's models)
        from IMDLBenCo.registry import MODELS, POSTFUNCS
        from IMDLBenCo.training_scripts.utils.misc import create_argparser

        from .. import benco  # noqa: F401  (registers QMANet)

        if not MODELS.has(name):
            known = ", ".join(sorted(MODELS.module_dict))
            raise EvaluationError(f"got --model {name}, expected one of BenCo's registry: {known}")
        build = MODELS.get(name)
        if name == "QMANet":
            content = Checkpoint.read(checkpoint)
            flags = [*content.config.as_flags(), *flags]
        else:
            content = read_state(checkpoint)
        parser = create_argparser(build)
        parser.prog = f"qma-net evaluate --model {name}"
        arguments = vars(parser.parse_args([str(flag) for flag in flags]))
        # BenCo's models may be functions; both take exactly what the parser was made of
        accepted = inspect.signature(build).parameters
        arguments = {key: arguments[key] for key in sorted(accepted)}
        if name == "QMANet":
            model = build(**{**arguments, "init_from": content})
            del arguments["init_from"]
        else:
            model = build(**arguments)
            load_strictly(model, content, f"{checkpoint} (checkpoint of {name})")
        hook = f"{name.lower()}_post_func"
        identity = {
            "model": name,
            "model_flags": arguments,
            "checkpoint": str(checkpoint),
            "checkpoint_sha256": sha256(checkpoint),
        }
        post_function = POSTFUNCS.get_lower(hook) if POSTFUNCS.has(hook) else None
        return cls(model.to(device).eval(), identity, post_function, device)

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
