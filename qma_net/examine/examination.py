"""The examination of one photo: all results together."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import cv2
import numpy as np
import PIL
import torch

from .. import __version__
from ..inference.prediction import Prediction
from ..modeling.calibration import SCORE, Calibration
from .comparison import differences
from .evidence import Evidence, photo_properties
from .leads import Lead
from .location import reveals_location
from .metadata import FileFacts
from .readability import Readability, hatched
from .resaved import resaved_note


@dataclass(frozen=True)
class Examination:
    """The results for one photo.

    Attributes:
        evidence: The photo and the facts about its file.
        readability: Where the model cannot judge the photo; None if the photo cannot be decoded.
        leads: See :mod:`.leads`; empty if the photo is too small or cannot be decoded.
        prediction: The result of the model; None without a model, or if the photo is too small or
            cannot be decoded.
        calibration: The scores of authentic photos that were fed to the model in the same way; None
            if there are none.
        settings: Model, weights and options.
        date: Time of the examination, UTC, ISO 8601.
        notes: How the photo was read, what could not be read, and caveats about the model.
    """

    evidence: Evidence
    readability: Readability | None
    leads: tuple[Lead, ...]
    prediction: Prediction | None
    calibration: Calibration | None
    settings: Mapping[str, Any]
    date: str
    notes: tuple[str, ...]

    @property
    def resaved(self) -> str:
        """Why the file may be a screenshot or a copy; empty if nothing indicates it."""
        photograph, origin = self.evidence.photograph, self.evidence.origin
        if not (self.evidence.facts and origin):
            return ""
        height, width = photograph.pixels.shape[:2] if photograph else (0, 0)
        size = (width, height) if photograph else None
        return resaved_note(self.evidence.facts, origin, size)

    @property
    def marked(self) -> float | None:
        """Fraction of the pixels above the threshold; pixels missing from the file do not count."""
        return self.prediction.marked if self.prediction else None

    @property
    def marked_unreadable(self) -> float | None:
        """Fraction of the pixels above the threshold that lie where the model cannot judge."""
        if not self.prediction or not self.readability or not self.prediction.binary.any():
            return None
        return float(self.readability.unreadable[self.prediction.binary].mean())

    @property
    def as_high(self) -> int | None:
        """Number of authentic photos of the calibration that score at least as high."""
        if not (self.prediction and self.calibration):
            return None
        return self.calibration.count_at_least(self.prediction.score)

    @property
    def differences(self) -> list[str]:
        """Why the photo cannot be compared with the calibration's; see :mod:`.comparison`.

        Empty if it can be, or if no properties of the calibration's photos are known.
        """
        photograph = self.evidence.photograph
        if not (photograph and self.calibration and self.calibration.photos):
            return []
        properties = photo_properties(photograph, self.evidence.facts)
        return differences(properties, self.calibration.photos)

    def overlay(self) -> np.ndarray:
        """Return the photo ``(H, W, 3)``: marked regions tinted, those it cannot judge hatched."""
        if self.prediction is None or self.readability is None:
            raise ValueError("an examination without a prediction has no overlay")
        return hatched(self.prediction.overlay(), self.readability.unreadable)

    def without_location(self) -> "Examination":
        """Return the examination without metadata that can reveal where the photo was taken.

        If there is none, this is the same object.
        """
        evidence = self.evidence.without_location()
        if evidence is self.evidence:
            return self
        notes = tuple(note for note in self.notes if not reveals_location(note))
        return replace(self, evidence=evidence, notes=notes)

    def report(self) -> dict[str, Any]:
        """Return the content of ``report.json``."""
        photograph, facts, settings = self.evidence.photograph, self.evidence.facts, self.settings
        origin = self.evidence.origin
        readability = self.readability
        ranges = self.calibration.photos if self.calibration else None
        height, width = photograph.pixels.shape[:2] if photograph else (None, None)
        return {
            "file": self.evidence.name,
            "error": self.evidence.fault or None,
            "sha256": facts.sha256 if facts else None,
            "format": facts.format if facts else None,
            "bytes": facts.size if facts else None,
            "width": width,
            "height": height,
            "jpeg": _jpeg(facts),
            "exif": facts.exif if facts else {},
            "omits_location": bool(facts and facts.omits_location),
            "gps": list(facts.position) if facts and facts.position else None,
            "xmp": facts.xmp if facts else "",
            "iptc": facts.iptc if facts else {},
            "texts": facts.texts if facts else {},
            "color_profile": str(facts.profile) if facts and facts.profile else None,
            "thumbnail": bool(facts and facts.thumbnail is not None),
            "c2pa": bool(facts and facts.c2pa),
            "origin": origin.report() if origin else None,
            "parts": facts.parts if facts else [],
            "unread_parts": facts.unread if facts else [],
            "embedded": facts.embedded if facts else [],
            "trailing_bytes": facts.trailing if facts else None,
            "unreadable_share": round(readability.share, 6) if readability else None,
            "unreadable": (
                {k: round(v, 6) for k, v in readability.shares.items()} if readability else None
            ),
            "model": settings["model"] or None,
            "about": settings["about"],
            "checkpoint": settings["checkpoint"],
            "checkpoint_sha256": settings["checkpoint_sha256"],
            "versions": software_versions(),
            "settings": dict(settings),
            "score": round(self.prediction.score, 6) if self.prediction else None,
            "as_high": self.as_high,
            "calibrated_on": self.calibration.count if self.calibration else None,
            "calibration_photos": asdict(ranges) if ranges else None,
            "not_comparable": self.differences,
            "marked": None if self.marked is None else round(self.marked, 6),
            "marked_unreadable": self.marked_unreadable,
            "leads": [lead.report() for lead in self.leads],
            "date": self.date,
            "resaved": self.resaved or None,
            "notes": list(self.notes),
        }


def assemble(
    evidence: Evidence,
    prediction: Prediction | None,
    readability: Readability | None,
    leads: Sequence[Lead],
    *,
    settings: Mapping[str, Any],
    calibration: Calibration | None = None,
    notes: Sequence[str] = (),
) -> Examination:
    """Put the results for one photo together; see :class:`Examination`.

    A calibration is ignored, with a note, if its photos were fed to the model differently or if its
    scores have a different definition.
    """
    photograph, facts = evidence.photograph, evidence.facts
    all_notes = list(prediction.notes if prediction else photograph.notes if photograph else ())
    if photograph and photograph.too_small:
        all_notes.append(f"{photograph.too_small}; no mask and no leads were computed")
    if prediction and calibration and (reason := _unusable(calibration, settings["shown"])):
        all_notes.append(f"the calibration of the checkpoint is not used: {reason}")
        calibration = None
    all_notes += (
        facts.notes if facts else ["only pixels were given, so nothing is known about a file"]
    )
    return Examination(
        evidence=evidence,
        readability=readability,
        leads=tuple(leads),
        prediction=prediction,
        calibration=calibration if prediction else None,
        settings=settings,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=tuple(dict.fromkeys([*all_notes, *notes])),
    )


def software_versions() -> dict[str, str]:
    """Return the versions of the software used for an examination."""
    return {
        "qma-net": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
    }


def _jpeg(facts: FileFacts | None) -> dict[str, Any] | None:
    if not facts or not facts.jpeg:
        return None
    content = asdict(facts.jpeg)
    return content | {"tables": {str(k): list(v) for k, v in sorted(content["tables"].items())}}


def _unusable(calibration: Calibration, shown: str) -> str:
    """Return why a calibration cannot be used for a photo that was processed as ``shown``."""
    if calibration.score != SCORE:
        return "its scores were computed with a different definition; repeat `qma-net calibrate`"
    if calibration.input_description != shown:
        return f"its photos were processed {calibration.input_description}, this one {shown}"
    return ""
