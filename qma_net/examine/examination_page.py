"""An examination as one HTML page that holds everything and needs nothing, and as files."""

import json
import os
from html import escape
from pathlib import Path

import numpy as np

from ..core.files import write_png, write_text
from ..inference.photograph import TOO_SMALL
from ..inference.prediction import as_grey
from ..modeling.calibration import FEW_PHOTOS
from .examination import Examination, versions
from .exif import printable
from .file_panel import file_panel
from .page_parts import (
    bullets,
    document,
    figure,
    jpeg_data,
    pairs,
    percent,
    png_data,
    reduced,
    table,
)
from .readability import CLIPPED, COMPRESSED, FLAT, NAMES, REASONS, SMOOTH, hatched

REPORT, PAGE, MASK, OVERLAY = "report.json", "report.html", "mask.png", "overlay.png"

# Why nothing can be read, in colours that also differ for who does not tell red from green.
COLOURS = {
    CLIPPED: (230, 120, 20),
    FLAT: (60, 110, 220),
    COMPRESSED: (150, 70, 190),
    SMOOTH: (20, 150, 140),
}

CAUTION = (
    "This page helps you look. It proves nothing. A marked region is where a model met traces "
    "unlike those around it: untouched photographs get marks, and forgeries can go without. Ask "
    "first where the picture comes from and who published it before; then look at the pixels."
)
NO_MODEL = (
    "No model was asked, so there is no mask. Everything else is below. With "
    "<code>--checkpoint</code> the mask, the overlay and a score are added."
)
NO_CALIBRATION = (
    "The model's score is not shown: it is no probability, and this checkpoint does not say what "
    "untouched photographs score. <code>qma-net calibrate</code> measures that."
)
LEADS = (
    "Leads, not findings. Each view shows differences that have many innocent causes. One that "
    "stands out is a reason to ask further; none of them alone is a reason to doubt."
)


def write_examination(examination: Examination, folder: str | os.PathLike) -> None:
    """Writes ``report.html``, with a model ``mask.png`` and ``overlay.png``, last ``report.json``.

    Every file appears whole; where ``report.json`` is, the others are.
    """
    folder = Path(folder)
    if examination.prediction:
        write_png(folder / MASK, as_grey(examination.prediction.mask))
        write_png(folder / OVERLAY, examination.overlay())
    write_text(folder / PAGE, page(examination))
    write_text(folder / REPORT, json.dumps(examination.report(), indent=1) + "\n")


def page(examination: Examination, *, pictures: bool = True) -> str:
    """The whole page as HTML, in ASCII, so that no setting of a machine can garble it.

    Args:
        examination: what it is about.
        pictures: with the photograph, the overlay and the mask, where nothing else shows them.
    """
    name = printable(Path(examination.evidence.photograph.name).name)
    body = [
        f'<p class="caution">{CAUTION}</p>',
        _summary(examination),
        *([_pictures(examination)] if pictures else []),
        _reading(examination),
        file_panel(examination.evidence),
        _leads(examination),
        _used(examination),
        _notes(examination),
    ]
    return document(f"Examination of {name}", body)


def score_in_words(examination: Examination) -> str:
    """The score beside untouched photographs, or why it is not shown; HTML."""
    calibration, high = examination.calibration, examination.as_high
    if calibration is None:
        return NO_CALIBRATION
    count = calibration.count
    said = (
        f"<b>{high} of {count} untouched photographs ({percent(high / count)})</b> score as high "
        "as this one."
    )
    if high == 0:  # the rule of three: a true share above 3 / n shows itself 95 % of the time
        said += f" With so many looked at, it may still be {percent(min(1, 3 / count))} of all."
    if count < FEW_PHOTOS:
        said += " So few photographs say little."
    return (
        f"{said} They are those of the checkpoint's calibration; what they have to do with this "
        "photograph (camera, compression, way to you) is for you to judge."
    )


def _summary(examination: Examination) -> str:
    lines = []
    if examination.prediction is None:
        lines.append(
            f"This photograph is {TOO_SMALL}." if examination.evidence.is_too_small else NO_MODEL
        )
    else:
        threshold = examination.prediction.threshold
        lines.append(
            f"<b>{percent(examination.marked)}</b> of the picture is marked: the model gives more "
            f"than {threshold:g} there."
        )
        if share := examination.marked_unreadable:
            lines.append(
                f"{percent(share)} of what is marked lies where nothing can be read; a mark there "
                "is not to be relied on."
            )
        lines.append(score_in_words(examination))
    lines.append(
        f"In <b>{percent(examination.readability.share)}</b> of the picture nothing can be read: "
        "whether something was changed there cannot be seen."
    )
    if about := examination.settings["about"]:
        lines.append(f"About this model: <b>{escape(printable(about))}</b>.")
    return "<h2>In short</h2>" + bullets(lines)


def _pictures(examination: Examination) -> str:
    original = reduced(examination.evidence.photograph.pixels)
    figures = [figure(jpeg_data(original), "The photograph as displayed", "<b>The photograph</b>")]
    if examination.prediction:
        region = _shown_region(examination)
        hatch = '<span class="swatch hatch"></span> nothing can be read here'
        overlay = hatched(reduced(examination.prediction.overlay()), region)
        figures.append(
            figure(
                jpeg_data(overlay),
                "The photograph with marked regions in red",
                '<b>Overlay</b>: <span class="swatch tint"></span> above the threshold &ensp; '
                + hatch,
            )
        )
        mask = hatched(reduced(as_grey(examination.prediction.mask)), region)
        figures.append(
            figure(
                png_data(mask),
                "The mask: bright where the model suspects a manipulation",
                '<b>Mask</b>: what the model gives each pixel, <span class="swatch dark"></span> 0 '
                f'to <span class="swatch"></span> 1 &ensp; {hatch}',
            )
        )
    return f'<h2>The picture</h2><div class="pictures large">{"".join(figures)}</div>'


def _reading(examination: Examination) -> str:
    """The readability map, and which share each reason has."""
    reasons = examination.readability.reasons
    picture = examination.evidence.photograph.pixels.mean(axis=2, dtype=np.float32)
    drawn = np.repeat((0.6 * picture + 70).astype(np.uint8)[..., None], 3, axis=2)
    for value, colour in COLOURS.items():
        drawn[reasons == value] = colour
    legend = "".join(
        f'<li><span class="swatch" style="background: rgb{COLOURS[value]}"></span> '
        f"{percent(examination.readability.shares[NAMES[value]])} {escape(words)}</li>"
        for value, words in REASONS.items()
    )
    map_of_reasons = figure(png_data(reduced(drawn)), "Coloured where nothing can be read", "")
    return (
        "<h2>Where nothing can be read</h2><p>Found in the pixels, by fixed rules, in blocks of "
        "8x8. A mask says nothing in a coloured block, whatever it shows; an unmarked sky is not "
        f'an untouched one.</p><div class="pictures">{map_of_reasons}<ul>{legend}</ul></div>'
    )


def _leads(examination: Examination) -> str:
    if not examination.leads:
        return ""
    figures = [
        figure(
            png_data(reduced(lead.picture)),
            lead.name,
            f"<b>{escape(lead.name)}</b>{f', {escape(lead.window)}' if lead.window else ''}. "
            f"{escape(lead.meaning)} <b>Innocent:</b> {escape(lead.innocent)}",
        )
        for lead in examination.leads
    ]
    return f'<h2>Leads</h2><p>{LEADS}</p><div class="pictures">{"".join(figures)}</div>'


def _used(examination: Examination) -> str:
    settings = examination.settings
    rows = {"Date": examination.date, "Versions": pairs(versions())}
    if settings["model"]:
        rows["Model"] = f"{settings.get('name', 'QMA-Net')}: " + pairs(settings["model"])
        rows["Checkpoint"] = printable(settings["checkpoint"]) or "none: the weights are random"
        rows["Its SHA-256"] = settings["checkpoint_sha256"]
    else:
        rows["Model"] = "none"
    if "threshold" in settings:
        rows["Threshold"] = f"{settings['threshold']:g}"
    if "noiseprint_sha256" in settings:
        rows["NoisePrint++"] = f"weights of SHA-256 {settings['noiseprint_sha256']}"
    read = examination.evidence.photograph.notes or ("as it is stored", "nothing left away")
    rows["How it was read"] = "; ".join(map(printable, read))
    if examination.prediction:
        rows["How the model saw it"] = settings["shown"]
    return "<h2>What was used</h2>" + table(rows)


def _notes(examination: Examination) -> str:
    if not examination.notes:
        return ""
    return "<h2>Notes</h2>" + bullets(escape(printable(note)) for note in examination.notes)


def _shown_region(examination: Examination) -> np.ndarray:
    return reduced(examination.readability.unreadable.astype(np.uint8) * 255) > 127
