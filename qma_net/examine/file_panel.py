"""The part of an examination's page that is about the file: what it says beside its pixels."""

from html import escape

import numpy as np

from .examination import Evidence
from .exif import printable
from .metadata import FileFacts
from .page_parts import bullets, figure, folded, png_data, reduced, table

LARGEST_THUMBNAIL = 320  # pixels of a longer side on the page

C2PA = {
    True: "A C2PA manifest (Content Credentials) is present. It was not verified here: a verifier "
    "says who signed it and what it claims.",
    False: "No C2PA manifest was found. Absent is not inauthentic: few cameras write one, and most "
    "web sites and messengers remove it.",
}


def file_panel(evidence: Evidence) -> str:
    """HTML of everything that the file says; all of it escaped.

    GPS is named and folded: a page is passed on more lightly than a photograph's home.
    """
    facts = evidence.facts
    if facts is None:
        return "<h2>The file</h2><p>The pixels came without a file.</p>"
    height, width = evidence.photograph.pixels.shape[:2]
    rows = {
        "Name": printable(evidence.photograph.name),
        "SHA-256": facts.sha256,
        "Format": facts.format,
        "Size": f"{facts.size:,} bytes",
        "Dimensions": f"{width} x {height} pixels, as displayed",
    }
    if facts.trailing:
        rows["After the picture"] = f"{facts.trailing:,} bytes that do not belong to it"
    if facts.jpeg:
        rows |= _jpeg_rows(facts)
    parts = [f"<h2>The file</h2>{table(rows)}", f"<p>{C2PA[facts.c2pa]}</p>"]
    parts.append(_thumbnail(facts, evidence.photograph.pixels))
    if not (facts.exif.directories or facts.xmp or facts.texts):
        parts.append(
            "<p>The file carries no EXIF, no XMP and no text. That is usual for pictures from web "
            "sites and messengers, which remove it.</p>"
        )
    for directory, entries in facts.exif.directories.items():
        if directory != "GPS":
            parts.append(folded(f"EXIF, {directory} ({len(entries)} entries)", table(entries)))
    if gps := facts.exif.directories.get("GPS"):
        where = facts.exif.position
        position = {"Position": f"{where[0]:.6f}, {where[1]:.6f}"} if where else {}
        parts.append(
            folded("GPS is present (it may tell where somebody lives)", table(position | gps))
        )
    if facts.xmp:
        parts.append(folded("XMP", f"<pre>{escape(facts.xmp)}</pre>"))
    for keyword, text in facts.texts.items():
        parts.append(folded(f"Text: {keyword}", f"<pre>{escape(text)}</pre>"))
    if facts.jpeg and facts.jpeg.tables:
        tables = "".join(map(_quantisation, facts.jpeg.tables.items()))
        parts.append(folded("JPEG quantisation tables", f'<div class="scroll">{tables}</div>'))
    if facts.parts:
        parts.append(
            folded(f"Parts of the file ({len(facts.parts)})", bullets(map(escape, facts.parts)))
        )
    parts.append(
        "<p>All of this can be written by anybody with a text editor. It is worth most where it "
        "contradicts what is said of the picture, and little where it agrees.</p>"
    )
    return "\n".join(parts)


def _jpeg_rows(facts: FileFacts) -> dict[str, str]:
    said = facts.jpeg
    if said.quality is None:
        quality = "unknown: there are no quantisation tables"
    elif said.is_ijg:
        quality = f"{said.quality} (the tables are exactly those of the IJG's library)"
    else:
        quality = (
            f"about {said.quality} (the tables are not the IJG's: many cameras and programs have "
            "their own)"
        )
    return {
        "JPEG quality": f"{quality}, of the last time that it was saved",
        "Chroma subsampling": f"{said.subsampling} (factors {said.sampling})",
        "Coding": said.coding,
    }


def _thumbnail(facts: FileFacts, pixels: np.ndarray) -> str:
    """The embedded small picture beside the photograph in its size."""
    if facts.thumbnail is None:
        return ""
    small = reduced(facts.thumbnail, LARGEST_THUMBNAIL)
    beside = reduced(pixels, max(small.shape[:2]))
    figures = figure(png_data(small), "The embedded thumbnail", "<b>Embedded thumbnail</b>")
    figures += figure(png_data(beside), "The photograph, small", "<b>The photograph</b>, reduced")
    return (
        "<h3>Embedded thumbnail</h3><p>Cameras store a small copy. Where a program changed the "
        "picture and left the copy, the two differ. Innocent: black bars that fill another shape, "
        "another turn, other colours of a camera's own processing.</p>"
        f'<div class="thumbnails">{figures}</div>'
    )


def _quantisation(numbered: tuple[int, tuple[int, ...]]) -> str:
    number, values = numbered
    rows = (values[start : start + 8] for start in range(0, 64, 8))
    cells = "".join("<tr>" + "".join(f"<td>{v}</td>" for v in row) + "</tr>" for row in rows)
    return f'<table class="quantisation"><caption>Table {number}</caption>{cells}</table>'
