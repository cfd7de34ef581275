"""IPTC metadata (Information Interchange Model 4.2) and Photoshop's resources, which contain it."""

import codecs
from collections.abc import Callable, Iterator

from .texts import MAX_LISTED, printable

MAX_DATASETS = 2000  # A press photo has about thirty.
MAX_RESOURCES = 1000
IPTC_RESOURCE = 0x0404  # Of Photoshop's resources.
ENVELOPE_VERSION, CODED_CHARACTER_SET = (1, 0), (1, 90)
TEXT_LIMITS = (32, 64, 128, 256, 2000)  # Bytes to which texts such as by-lines are truncated.
UTF8_MARKS = (b"\x1b%G", b"\x1b%/G", b"\x1b%/H", b"\x1b%/I")  # ISO 2022 escape sequences.

# The data sets of record 2.
NAMES = {
    0: "RecordVersion",
    3: "ObjectType",
    4: "ObjectAttribute",
    5: "Title",
    7: "EditStatus",
    8: "EditorialUpdate",
    10: "Urgency",
    12: "Subject",
    15: "Category",
    20: "SupplementalCategories",
    22: "FixtureIdentifier",
    25: "Keywords",
    26: "LocationCode",
    27: "LocationName",
    30: "ReleaseDate",
    35: "ReleaseTime",
    37: "ExpirationDate",
    38: "ExpirationTime",
    40: "Instructions",
    42: "ActionAdvised",
    45: "ReferenceService",
    47: "ReferenceDate",
    50: "ReferenceNumber",
    55: "DateCreated",
    60: "TimeCreated",
    62: "DigitizationDate",
    63: "DigitizationTime",
    65: "OriginatingProgram",
    70: "ProgramVersion",
    75: "ObjectCycle",
    80: "Byline",
    85: "BylineTitle",
    90: "City",
    92: "Sublocation",
    95: "ProvinceState",
    100: "CountryCode",
    101: "Country",
    103: "TransmissionReference",
    105: "Headline",
    110: "Credit",
    115: "Source",
    116: "Copyright",
    118: "Contact",
    120: "Caption",
    122: "CaptionWriter",
    130: "ImageType",
    131: "ImageOrientation",
    135: "Language",
    184: "JobID",
    185: "MasterDocumentID",
    186: "ShortDocumentID",
    187: "UniqueDocumentID",
    188: "OwnerID",
    221: "Prefs",
    225: "ClassifyState",
    228: "SimilarityIndex",
    230: "DocumentNotes",
    231: "DocumentHistory",
    232: "ExifCameraInfo",
}


def read_iptc(data: bytes, note: Callable[[str], None]) -> dict[str, str]:
    """Return the texts of IPTC data by name, or by record and number if the name is unknown."""
    datasets = list(_datasets(data, note))
    marked = [content for key, content in datasets if key == CODED_CHARACTER_SET]
    is_utf8 = any(mark.startswith(UTF8_MARKS) for mark in marked)
    values: dict[str, list[str]] = {}
    for (record, number), content in datasets:
        if record != 2:  # Such as the envelope or a description of the pixels.
            continue
        name = NAMES.get(number, f"data set 2:{number}")
        values.setdefault(name, []).append(_text(number, content, is_utf8=is_utf8))
    if any(len(texts) > MAX_LISTED for texts in values.values()):
        note(f"IPTC: only {MAX_LISTED} values of each entry are shown")
    return {name: "; ".join(texts[:MAX_LISTED]) for name, texts in values.items()}


def is_empty_iptc(data: bytes) -> bool:
    """Return whether intact IPTC data contains no metadata, only its version and character set."""
    about_itself = {ENVELOPE_VERSION, CODED_CHARACTER_SET}
    return all(key in about_itself for key, _ in _datasets(data, lambda fault: None))


def iptc_of_photoshop(resources: bytes) -> tuple[bytes, bool]:
    """Return the IPTC data among Photoshop's image resources, and whether there is more.

    A truncated resource counts as more.
    """
    found, has_more, position = [], False, 0
    for _ in range(MAX_RESOURCES):
        if resources[position : position + 4] not in (b"8BIM", b"MeSa", b"PHUT", b"AgHg", b"DCSR"):
            break
        code = int.from_bytes(resources[position + 4 : position + 6], "big")
        name_length = resources[position + 6] if position + 6 < len(resources) else 0
        position += 7 + name_length + (name_length + 1) % 2  # Padded to an even length.
        size = int.from_bytes(resources[position : position + 4], "big")
        position += 4
        if code == IPTC_RESOURCE:
            found.append(resources[position : position + size])
        has_more |= code != IPTC_RESOURCE or position + size > len(resources)
        position += size + size % 2
    return b"".join(found), has_more or any(resources[position:])


def _datasets(data: bytes, note: Callable[[str], None]) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Yield the record, number and content of each data set."""
    position = 0
    for _ in range(MAX_DATASETS):
        while data[position : position + 1] == b"\0":  # Padding.
            position += 1
        if position >= len(data):
            return
        if data[position] != 0x1C or position + 5 > len(data):
            note("the IPTC data is damaged; the rest of it is not shown")
            return
        key = data[position + 1], data[position + 2]
        size = int.from_bytes(data[position + 3 : position + 5], "big")
        position += 5
        if size & 0x8000:  # The length follows, in this many bytes.
            width = size & 0x7FFF
            size = int.from_bytes(data[position : position + min(width, 8)], "big")
            position += width
        content = data[position : position + size]
        if len(content) < size:
            note("the IPTC data is truncated")
        yield key, content
        position += size
    note(f"IPTC: more than {MAX_DATASETS} entries; the rest is not shown")


def _text(number: int, content: bytes, *, is_utf8: bool) -> str:
    if number == 0:
        return str(int.from_bytes(content[:8], "big"))
    if is_utf8:
        return printable(content)
    # Many programs write UTF-8 without the mark; Latin-1 text is hardly ever valid UTF-8, unless
    # its only character beyond ASCII is the last one, which looks like a truncated one of UTF-8.
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(content)
    except UnicodeDecodeError:
        return printable(content.decode("latin-1"))
    is_truncated = not text.isascii() or len(content) in TEXT_LIMITS
    return printable(text if is_truncated else content.decode("latin-1"))
