"""The HTML page of an examination, and the files of a report."""

import io
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..core.files import atomic_write, write_json, write_png, write_text
from ..core.html import data_uri, environment, render
from ..inference.photo_files import REPORT_FILES
from ..inference.prediction import as_gray
from ..modeling.calibration import FEW_PHOTOS
from ..modeling.hub import WEIGHTS_FILE
from .comparison import describe_photos
from .examination import Examination, software_versions
from .readability import CLIPPED, COMPRESSED, FLAT, MISSING, NAMES, REASONS, SMOOTH, hatched
from .texts import entries, printable, without_folder

REPORT, PAGE, MASK, OVERLAY, THUMBNAIL = REPORT_FILES

MAX_IMAGE_SIDE = 1280  # Pixels of the longer side of an image on the page.
MAX_THUMBNAIL_SIDE = 320  # Of an embedded thumbnail on the page.
MAX_INDEX_SIDE = 160  # Of thumbnail.jpg; the index shows up to 128 pixels.

# Colors of the reasons for unreadable regions; color-blind readers can tell them apart, too.
COLORS = {
    CLIPPED: (230, 120, 20),
    FLAT: (60, 110, 220),
    COMPRESSED: (150, 70, 190),
    SMOOTH: (20, 150, 140),
    MISSING: (200, 40, 60),
}


def write_report(examination: Examination, folder: str | os.PathLike[str]) -> None:
    """Write the report, ``thumbnail.jpg`` and, with a model, ``mask.png`` and ``overlay.png``.

    The report consists of ``report.html`` and ``report.json``. The thumbnail is for the index; it
    is not written if the photo cannot be decoded.

    Every file is written atomically, and ``report.json`` last: if it exists, so do the others.
    """
    folder = Path(folder)
    if examination.prediction:
        write_png(folder / MASK, as_gray(examination.prediction.mask))
        profile = examination.prediction.photograph.icc_profile
        write_png(folder / OVERLAY, examination.overlay(), icc_profile=profile)
    if examination.evidence.photograph:
        photograph = examination.evidence.photograph
        small = Image.fromarray(shrink(photograph.pixels, MAX_INDEX_SIDE))
        with atomic_write(folder / THUMBNAIL) as temporary:
            small.save(temporary, "JPEG", icc_profile=photograph.icc_profile or None)
    write_text(folder / PAGE, render_page(examination))
    write_json(folder / REPORT, examination.report())


def render_page(examination: Examination, *, images: bool = True) -> str:
    """Render the page of an examination as HTML.

    Files are named without their folders; ``report.json`` contains the paths.

    If ``images`` is false, the photo, overlay and mask are omitted, for pages that already show
    them.
    """
    evidence, prediction = examination.evidence, examination.prediction
    photograph, readability = evidence.photograph, examination.readability
    name = Path(evidence.name).name

    context: dict[str, Any] = {
        "examination": examination,
        "photograph": photograph,
        "facts": evidence.facts,
        "name": name,
        "fault": without_folder(evidence.fault, evidence.name),
        "too_small": photograph.too_small.partition(":")[0] if photograph else "",
        "few_photos": FEW_PHOTOS,
        "leads": [
            (lead, None if lead.picture is None else shrink(lead.picture))
            for lead in examination.leads
        ],
        "methods": {
            key: without_folder(text, evidence.name) for key, text in _methods(examination).items()
        },
        # The model's caveat is already in the summary.
        "notes": [
            without_folder(note, evidence.name)
            for note in examination.notes
            if note != examination.settings["about"]
        ],
        "show_images": images and photograph is not None,
    }
    facts, thumbnail = evidence.facts, None
    if facts and facts.thumbnail is not None:
        context["thumbnail"] = thumbnail = shrink(facts.thumbnail, MAX_THUMBNAIL_SIDE)
    if photograph is None or readability is None:
        return render_template("report.html.j2", **context)
    shares = readability.shares
    context["readability_map"] = shrink(_draw_reasons(photograph.pixels, readability.reasons))
    context["reasons"] = [
        {"color": COLORS[reason], "share": shares[NAMES[reason]], "text": text}
        for reason, text in REASONS.items()
        if reason != MISSING or shares[NAMES[MISSING]]
    ]
    if images:
        context["photo"] = shrink(photograph.pixels)
        if prediction:
            unreadable = shrink(readability.unreadable.astype(np.uint8) * 255) > 127
            context["overlay"] = hatched(shrink(prediction.overlay()), unreadable)
            context["mask"] = hatched(shrink(as_gray(prediction.mask)), unreadable)
    if thumbnail is not None:
        context["small_photo"] = shrink(photograph.pixels, max(thumbnail.shape[:2]))
    return render_template("report.html.j2", **context)


def render_template(template: str, **context: object) -> str:
    """Render a template of this package, with its filters."""
    _register_filters()
    return render(__package__, template, **context)


@cache
def _register_filters() -> None:
    environment(__package__).filters.update(
        describe_photos=describe_photos,
        printable=printable,
        percent=percent,
        entries=entries,
        image_uri=image_uri,
        file_name=lambda path: Path(path).name,
        sentence=lambda text: text[:1].upper() + text[1:],
    )


def shrink(image: np.ndarray, limit: int = MAX_IMAGE_SIDE) -> np.ndarray:
    """Downscale an image, by averaging, if its longer side exceeds ``limit`` pixels."""
    height, width = image.shape[:2]
    scale = limit / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def percent(share: float) -> str:
    """Format a fraction in 0..1 as a percentage; small ones are not rounded to zero."""
    return "less than 0.1%" if 0 < share < 0.001 else f"{100 * share:.1f}%"


def image_uri(image: np.ndarray, kind: str = "png", icc_profile: bytes = b"") -> str:
    """Encode an image, uint8 ``(H, W)`` or ``(H, W, 3)`` RGB, as a data URI."""
    if icc_profile:
        file = io.BytesIO()
        Image.fromarray(image).save(file, kind, quality=95, icc_profile=icc_profile)
        return data_uri(file.getvalue(), f"image/{kind}")
    stored = image[..., ::-1] if image.ndim == 3 else image  # OpenCV expects BGR.
    success, content = cv2.imencode(f".{kind}", np.ascontiguousarray(stored))
    if not success:
        raise RuntimeError(f"OpenCV cannot encode an image of shape {image.shape} as {kind}")
    return data_uri(content.tobytes(), f"image/{kind}")


def checkpoint_name(checkpoint: str) -> str:
    """Return the file name of a checkpoint, or the folder's name if it is ``model.safetensors``."""
    path = Path(checkpoint)
    return path.parent.name if path.name == WEIGHTS_FILE else path.name


def _draw_reasons(pixels: np.ndarray, reasons: np.ndarray) -> np.ndarray:
    """Color the unreadable regions on a pale gray version of the photo."""
    grey = pixels.mean(axis=2, dtype=np.float32)
    drawn = np.repeat((0.6 * grey + 70).astype(np.uint8)[..., None], 3, axis=2)
    for value, color in COLORS.items():
        drawn[reasons == value] = color
    return drawn


def _methods(examination: Examination) -> dict[str, str]:
    """Describe how the examination was made: plain text by label."""
    settings = examination.settings
    rows = {"Date": examination.date, "Versions": _pairs(software_versions())}
    if settings["model"]:
        rows["Model"] = printable(settings.get("name", "QMA-Net"))
        checkpoint = printable(checkpoint_name(settings["checkpoint"]))
        rows["Checkpoint"] = checkpoint or "none: the weights are random"
        rows["Checkpoint SHA-256"] = settings["checkpoint_sha256"]
    else:
        rows["Model"] = "none"
    if "threshold" in settings:
        rows["Threshold"] = f"{settings['threshold']:g}"
    if "noiseprint_sha256" in settings:
        rows["NoisePrint++"] = f"weights with SHA-256 {settings['noiseprint_sha256']}"
    photograph = examination.evidence.photograph
    if photograph and photograph.notes:
        rows["Decoding"] = "; ".join(map(printable, photograph.notes))
    elif photograph:
        rows["Decoding"] = "the pixels were used as stored, without rotation or conversion"
    else:
        rows["Decoding"] = printable(examination.evidence.fault)
    if examination.prediction:
        rows["Model input"] = f"photo {settings['shown']}"
    return rows


def _pairs(values: Mapping[str, Any]) -> str:
    return printable(", ".join(f"{name} {value}" for name, value in values.items()))
