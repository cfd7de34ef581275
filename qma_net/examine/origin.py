"""What a file says about its origin: Content Credentials, signs of AI or editing, credits, dates.

Everything here can be removed or forged. Statements quote the file and say where the quote is from.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..core.files import read_yaml
from .content_credentials import Credentials, describe_source_type, read_credentials
from .dates import LOCATED, MODIFIED, TAKEN, StatedDate, find_contradictions, read_dates
from .location import without_location
from .metadata import FileFacts
from .texts import entries, printable
from .xmp import Xmp, XmpError, read_xmp

RULES = Path(__file__).with_name("origin_marks.yaml")
MAX_QUOTE = 600  # Characters.
MAX_SEARCHED = 20_000  # Characters of a value that are searched for marks.
MAX_HISTORY = 100

FILE_NAME = "file name"
SOURCE_TYPE = "XMP Iptc4xmpExt:DigitalSourceType"
# For XMP that is not well-formed.
SOURCE_TYPE_TEXT = re.compile(
    r"DigitalSourceType(?:=[\"']|>|[^<>]{0,80}resource=[\"'])([^\"'<]{1,200})"
)

# The names of the credits, and the fields that contain each of them: IPTC, XMP, EXIF.
CREDITS: Mapping[str, tuple[str, ...]] = {
    "By-line": ("IPTC Byline", "XMP dc:creator", "EXIF Artist", "EXIF Photographer"),
    "Title": ("IPTC Title", "XMP dc:title", "EXIF ImageTitle"),
    "Headline": ("IPTC Headline", "XMP photoshop:Headline"),
    "Caption": ("IPTC Caption", "XMP dc:description", "EXIF ImageDescription"),
    "Credit line": ("IPTC Credit", "XMP photoshop:Credit"),
    "Source": ("IPTC Source", "XMP photoshop:Source"),
    "Copyright": ("IPTC Copyright", "XMP dc:rights", "EXIF Copyright"),
    "Usage terms": ("XMP xmpRights:UsageTerms",),
    "Rights statement": ("XMP xmpRights:WebStatement",),
    "Instructions": ("IPTC Instructions", "XMP photoshop:Instructions"),
    "Caption writer": ("IPTC CaptionWriter", "XMP photoshop:CaptionWriter"),
    "Edited by": ("EXIF ImageEditor",),
}


@dataclass(frozen=True)
class Mark:
    """A trace of a generator, an editor or a platform.

    Attributes:
        name: What was found.
        category: For example ``AI-generated``, ``edited``, ``platform`` or ``software``.
        quote: The value of the field, printable and limited in length.
        where: The field that contains it.
        meaning: What it means in plain words.
    """

    name: str
    category: str
    quote: str
    where: str
    meaning: str


@dataclass(frozen=True)
class Credit:
    """A credit such as the by-line, with its values by field."""

    name: str
    values: dict[str, str]
    disagrees: bool


@dataclass(frozen=True)
class Origin:
    """What a file says about its origin.

    Attributes:
        credentials: The C2PA manifests; None if the file contains none.
        remote_manifest: The address of a C2PA manifest on a server, which was not fetched.
        marks: Traces of generators, editors and platforms; those of AI come first.
        history: The editing history that programs recorded in the XMP, in order.
        credits: By-line, caption, copyright and similar fields.
        dates: The dates on which the photo was taken, digitized, modified and so on.
        contradictions: Dates that contradict each other, one sentence for each pair.
        notes: What could not be read.
        camera: Make and model of the camera according to the metadata; empty if not stated.
        software: The programs that wrote the file according to the metadata.
    """

    credentials: Credentials | None
    remote_manifest: str
    marks: tuple[Mark, ...]
    history: tuple[dict[str, str], ...]
    credits: tuple[Credit, ...]
    dates: tuple[StatedDate, ...]
    contradictions: tuple[str, ...]
    notes: tuple[str, ...] = ()
    camera: str = ""
    software: tuple[str, ...] = ()

    @property
    def statements(self) -> dict[str, str]:
        """Camera, dates and software according to the file, by name."""
        taken, modified = (
            ", ".join(dict.fromkeys(date.text for date in self.dates if date.meaning == meaning))
            for meaning in (TAKEN, MODIFIED)
        )
        statements = {
            "camera": self.camera,
            "taken": taken,
            "last modified": modified,
            "saved by": ", ".join(self.software),
        }
        return {name: text for name, text in statements.items() if text}

    @property
    def ai_statements(self) -> tuple[str, ...]:
        """Where and how the file says that AI was used."""
        found = [
            f"{mark.category}: {mark.name} ({mark.where})"
            for mark in self.marks
            if mark.category.startswith("AI")
        ]
        credentials = self.credentials or Credentials()
        for number, manifest in enumerate(credentials.manifests):
            place = "C2PA" if credentials.validity.get(manifest.label) else "C2PA, not valid"
            if number:
                title = credentials.ingredient(manifest.label).title or "without a title"
                place += f", ingredient {title}"
            found += [
                f"{action.category}: {action.source} ({place})"
                for action in manifest.actions
                if action.category.startswith("AI")
            ]
        return tuple(dict.fromkeys(found))

    def without_location(self) -> "Origin":
        """Return this origin without texts that can reveal a location.

        If there are none, this is the same object. Marks are kept, but their revealing texts are
        replaced. Dates of GPS positions are left out.
        """
        kept: Origin = without_location(self)
        dates = tuple(date for date in self.dates if date.meaning != LOCATED)
        if kept is self and dates == self.dates:
            return self
        return replace(
            kept,
            history=tuple(filter(None, kept.history)),
            credits=tuple(credit for credit in kept.credits if credit.values),
            dates=dates,
            contradictions=tuple(find_contradictions(dates)),
        )

    def report(self) -> dict[str, Any]:
        """Return the content for ``report.json``."""
        dates = [{"meaning": d.meaning, "where": d.where, "text": d.text} for d in self.dates]
        return {
            "c2pa": self.credentials.report() if self.credentials else None,
            "remote_manifest": self.remote_manifest or None,
            "statements": self.statements,
            "ai_statements": list(self.ai_statements),
            "marks": [asdict(mark) for mark in self.marks],
            "history": list(self.history),
            "credits": [asdict(credit) for credit in self.credits],
            "dates": dates,
            "contradictions": list(self.contradictions),
            "notes": list(self.notes),
        }


def read_origin(data: bytes, facts: FileFacts, name: str = "", *, trust_list: str = "") -> Origin:
    """Collect what a file says about its origin; damage is noted, never raised.

    Args:
        data: The file.
        facts: Its metadata.
        name: Its name; messaging apps name files in recognizable ways.
        trust_list: See :func:`.content_credentials.read_credentials`.
    """
    notes = []
    packet = facts.xmp_packet
    source_types = []
    try:
        xmp = read_xmp(packet)
        source_types = [v for v in xmp.values.get(SOURCE_TYPE[4:], ()) if isinstance(v, str)]
    except XmpError as error:
        notes.append(f"the XMP was searched for DigitalSourceType only: it {error}")
        xmp = Xmp()
        source_types = [v for v in SOURCE_TYPE_TEXT.findall(packet) if v.strip()][:1]
    fields = {where: text for where, text in _fields(facts, xmp, name) if text.strip()}
    credits = tuple(_credits(fields))
    dates = tuple(read_dates(fields))
    marks = [_source_mark(value) for value in source_types]
    marks += _rule_marks(fields)
    marks.sort(key=lambda mark: not mark.category.startswith("AI"))
    return Origin(
        credentials=read_credentials(data, facts.format, trust_list=trust_list)
        if facts.c2pa
        else None,
        remote_manifest=_remote_manifest(xmp),
        marks=tuple(marks) + tuple(_software(fields)),
        history=tuple(_history(xmp)),
        credits=credits,
        dates=dates,
        contradictions=tuple(find_contradictions(dates)),
        notes=tuple(notes),
        camera=_camera(fields),
        software=tuple(
            dict.fromkeys(
                printable(value)
                for where, value in fields.items()
                if _rules()["software_fields"].get(where)
            )
        ),
    )


def _remote_manifest(xmp: Xmp) -> str:
    """Return the address of a manifest; provenance in words, such as a bequest, is not one."""
    values = (v for v in xmp.values.get("dcterms:provenance", ()) if isinstance(v, str))
    return next((printable(v) for v in values if re.fullmatch(r"(?i:https?)://\S+", v)), "")


def _camera(fields: Mapping[str, str]) -> str:
    """Join make and model, without repeating a make with which the model begins."""
    make, model = (
        (fields.get(f"EXIF {name}") or fields.get(f"XMP tiff:{name}", "")).strip()
        for name in ("Make", "Model")
    )
    if model.lower().startswith(make.lower()):
        make = ""
    return printable(f"{make} {model}".strip())


def _fields(facts: FileFacts, xmp: Xmp, name: str) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each field; see origin_marks.yaml for the form of the names."""
    for directory in ("Exif", "IFD0"):
        for tag, text in facts.exif.get(directory, {}).items():
            yield f"EXIF {tag}", text
    for tag, text in facts.exif.get("GPS", {}).items():
        yield f"GPS {tag}", text
    for key, text in facts.iptc.items():
        yield f"IPTC {key}", text
    for key, values in xmp.values.items():
        yield f"XMP {key}", xmp.text(key) or entries(len(values))
    for keyword, text in facts.texts.items():
        yield f"text {keyword}", text
    if name:
        yield FILE_NAME, re.split(r"[/\\]", name)[-1]


@cache
def _rules() -> Any:
    return read_yaml(RULES, "the rules for marks of origin")


def _source_mark(value: str) -> Mark:
    category, meaning = describe_source_type(value)
    meaning = f"{meaning[0].upper()}{meaning[1:]}."
    return Mark("Digital source type", category, printable(value), SOURCE_TYPE, meaning)


def _rule_marks(fields: Mapping[str, str]) -> Iterator[Mark]:
    for rule in _rules()["marks"]:
        for where in rule["fields"]:
            value = fields.get(where, "")[:MAX_SEARCHED]
            also = rule.get("also", {})
            other = fields.get(also["field"], "") if "field" in also else value
            if re.search(rule["pattern"], value) and re.search(also.get("pattern", ""), other):
                quote = printable(fields[where], MAX_QUOTE)
                yield Mark(rule["name"], rule["category"], quote, _place(where), rule["meaning"])


def _software(fields: Mapping[str, str]) -> Iterator[Mark]:
    """Yield the programs and devices that the file names, with duplicates merged."""
    places: dict[str, list[str]] = {}
    for where in _rules()["software_fields"]:
        if fields.get(where):
            places.setdefault(fields[where], []).append(where)
    for value, where in places.items():
        meanings = (r["meaning"] for r in _rules()["software"] if re.search(r["pattern"], value))
        meaning = next(meanings, "The program, device or firmware that wrote this.")
        yield Mark("Software", "software", printable(value), ", ".join(map(_place, where)), meaning)


def _place(where: str) -> str:
    kind, _, keyword = where.partition(" ")
    return f'text "{keyword}"' if kind == "text" else where


def _history(xmp: Xmp) -> Iterator[dict[str, str]]:
    for event in xmp.structures("xmpMM:History")[:MAX_HISTORY]:
        names = ("action", "when", "softwareAgent", "changed", "parameters")
        values = {name: printable(event.get(f"stEvt:{name}", "")) for name in names}
        yield {name: value for name, value in values.items() if value}


def _credits(fields: Mapping[str, str]) -> Iterator[Credit]:
    for name, places in CREDITS.items():
        values = {where: printable(fields[where]) for where in places if fields.get(where)}
        if values:
            compared = [value for where, value in values.items() if not where.startswith("EXIF")]
            yield Credit(name, values, disagrees=not _agree(compared))


def _agree(values: list[str]) -> bool:
    """Return whether texts are equal, apart from case, spaces, punctuation and truncation.

    IPTC limits the length of its texts; a by-line, for example, has at most 32 bytes.
    """
    if any("\\x" in value or "\ufffd" in value for value in values):
        return True  # Characters in an unknown encoding cannot be compared.
    texts = [_items(value) for value in values]
    longest = max(texts, key=lambda items: len(" ".join(items)), default=[])
    return all(_is_truncated(items, longest) for items in texts)


def _items(value: str) -> list[str]:
    """Return the words of each item of a field, such as the names of several authors."""
    text = re.sub(r" \.\.\. \(\d+ characters\)$", "", unicodedata.normalize("NFKC", value))
    return [" ".join(re.findall(r"\w+", item)) for item in text.casefold().split(";")]


def _is_truncated(items: list[str], complete: list[str]) -> bool:
    """Return whether a text, or each of its items, is the beginning of another one, or equal."""
    if " ".join(complete).startswith(" ".join(items)):
        return True
    is_same_number = len(items) == len(complete)
    return is_same_number and all(map(str.startswith, complete, items))
