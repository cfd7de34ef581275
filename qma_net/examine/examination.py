"""One photograph, taken seriously: everything that can be said of it, and what cannot."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import PIL
import torch

from .. import __version__
from ..inference.photograph import Photograph, read_photograph
from ..inference.prediction import Prediction
from ..modeling.calibration import Calibration
from ..modeling.noise import NoisePrint
from .leads import Lead, leads
from .metadata import FileFacts, read_facts
from .readability import Readability, hatched, readability


@dataclass(frozen=True)
class Evidence:
    """A photograph, and the bytes of its file where it came as one.

    Attributes:
        photograph: its pixels as displayed.
        facts: what the file says beside them; None for pixels that came without a file.
    """

    photograph: Photograph
    facts: FileFacts | None

    @property
    def is_too_small(self) -> bool:
        """Whether a side is shorter than the smallest that the network takes."""
        return bool(self.photograph.too_small)


@dataclass(frozen=True)
class Examination:
    """Everything that was found out about one photograph.

    Attributes:
        evidence: the photograph and its file.
        readability: where nothing can be read.
        leads: noise views for a person to look at; none of a photograph that is too small.
        prediction: what the model says; None without a model, or of what is too small.
        calibration: what untouched photographs score, shown in the same way; None without.
        settings: model, weights and all that was chosen.
        date: when, UTC, as ISO 8601 has it.
        notes: how it was read, what could not be read, what is to be known of the model.
    """

    evidence: Evidence
    readability: Readability
    leads: tuple[Lead, ...]
    prediction: Prediction | None
    calibration: Calibration | None
    settings: Mapping
    date: str
    notes: tuple[str, ...]

    @property
    def marked(self) -> float | None:
        """Of all pixels, those above the threshold."""
        return float(self.prediction.binary.mean()) if self.prediction else None

    @property
    def marked_unreadable(self) -> float | None:
        """Of the pixels above the threshold, those where nothing can be read."""
        if not self.prediction or not self.prediction.binary.any():
            return None
        return float(self.readability.unreadable[self.prediction.binary].mean())

    @property
    def as_high(self) -> int | None:
        """How many of the calibration's photographs score at least as high."""
        if not (self.prediction and self.calibration):
            return None
        return self.calibration.count_at_least(self.prediction.score)

    def overlay(self) -> np.ndarray:
        """The photograph, what is marked tinted, what cannot be read hatched: ``(H, W, 3)``."""
        return hatched(self.prediction.overlay(), self.readability.unreadable)

    def report(self) -> dict:
        """What ``report.json`` holds."""
        photograph, facts, settings = self.evidence.photograph, self.evidence.facts, self.settings
        height, width = photograph.pixels.shape[:2]
        exif = facts.exif if facts else None
        return {
            "file": photograph.name,
            "sha256": facts.sha256 if facts else None,
            "format": facts.format if facts else None,
            "bytes": facts.size if facts else None,
            "width": width,
            "height": height,
            "jpeg": _jpeg(facts),
            "exif": exif.directories if exif else {},
            "gps": list(exif.position) if exif and exif.position else None,
            "xmp": facts.xmp if facts else "",
            "texts": facts.texts if facts else {},
            "thumbnail": bool(facts and facts.thumbnail is not None),
            "c2pa": bool(facts and facts.c2pa),
            "parts": facts.parts if facts else [],
            "trailing_bytes": facts.trailing if facts else None,
            "unreadable_share": round(self.readability.share, 6),
            "unreadable": {k: round(v, 6) for k, v in self.readability.shares.items()},
            "model": settings["model"] or None,
            "about": settings["about"],
            "checkpoint": settings["checkpoint"],
            "checkpoint_sha256": settings["checkpoint_sha256"],
            "versions": versions(),
            "settings": dict(settings),
            "score": round(self.prediction.score, 6) if self.prediction else None,
            "as_high": self.as_high,
            "calibrated_on": self.calibration.count if self.calibration else None,
            "marked": round(self.marked, 6) if self.prediction else None,
            "marked_unreadable": self.marked_unreadable,
            "date": self.date,
            "notes": list(self.notes),
        }


def read_evidence(source, name: str = "") -> Evidence:
    """Reads a photograph, and its file where there is one.

    Args:
        source: see :func:`qma_net.inference.photograph.read_photograph`.
        name: for messages and the report, where the source has none.

    Raises:
        PhotographError: naming the source, for what is no photograph.
    """
    if isinstance(source, str | os.PathLike):
        name = str(source)
        try:
            source = Path(source).read_bytes()
        except (OSError, ValueError):
            return Evidence(read_photograph(source), None)  # which says what it is instead
    elif hasattr(source, "read"):
        name, source = str(getattr(source, "name", "file")), source.read()
    photograph = read_photograph(source, name)
    is_file = isinstance(source, bytes | bytearray)
    return Evidence(photograph, read_facts(bytes(source)) if is_file else None)


def examine(
    evidence: Evidence,
    settings: Mapping,
    *,
    prediction: Prediction | None = None,
    calibration: Calibration | None = None,
    noiseprint: NoisePrint | None = None,
    notes: Sequence[str] = (),
) -> Examination:
    """Everything but the mask, which ``prediction`` brings.

    Args:
        evidence: of :func:`read_evidence`.
        settings: of :func:`without_model`, or of a predictor.
        prediction: of the same photograph.
        calibration: of the same model; one that was made in another way is noted and left.
        noiseprint: with its weights, for a view of its own.
        notes: what else a reader must know.
    """
    photograph, facts = evidence.photograph, evidence.facts
    found = list(prediction.notes if prediction else photograph.notes)
    if evidence.is_too_small:
        found.append(f"{photograph.too_small}; no mask and no noise views were made")
    if prediction and calibration and calibration.input_description != settings["shown"]:
        found.append(
            "the checkpoint's calibration is not used: it looked at its photographs "
            f"{calibration.input_description}, this examination {settings['shown']}"
        )
        calibration = None
    found += facts.notes if facts else ["no file: its pixels were given, so nothing else is known"]
    return Examination(
        evidence=evidence,
        readability=readability(
            photograph.pixels,
            is_jpeg=bool(facts and facts.format == "JPEG"),
            orientation=facts.exif.orientation if facts else 1,
        ),
        leads=() if evidence.is_too_small else leads(photograph.pixels, noiseprint),
        prediction=prediction,
        calibration=calibration if prediction else None,
        settings=settings,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=tuple(dict.fromkeys([*found, *notes])),
    )


def without_model() -> dict:
    """The settings of an examination that asks no model."""
    named = dict.fromkeys(("about", "checkpoint", "checkpoint_sha256"), "")
    return {"qma_net": __version__, "model": {}, **named}


def versions() -> dict[str, str]:
    """What computed it."""
    return {
        "qma-net": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
    }


def _jpeg(facts: FileFacts | None) -> dict | None:
    if not facts or not facts.jpeg:
        return None
    said = asdict(facts.jpeg)
    return said | {"tables": {str(k): list(v) for k, v in sorted(said["tables"].items())}}
