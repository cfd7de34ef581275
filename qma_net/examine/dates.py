"""The dates that a file states, and contradictions that no choice of time zones can explain."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product

from .texts import printable

TAKEN, DIGITIZED, MODIFIED, LOCATED = "taken", "digitized", "modified", "GPS position"
# IPTC defines the date of the content as the date of the original work. For a photographed print or
# a scan, it is earlier than the date on which the picture was taken, so the two are not compared.
CONTENT, RESOURCE = "content created", "file created"
# The meaning of a date, its field, and the field that adds a time or an offset from UTC.
DATES = (
    (TAKEN, "EXIF DateTimeOriginal", "EXIF OffsetTimeOriginal"),
    (TAKEN, "XMP exif:DateTimeOriginal", ""),
    (CONTENT, "XMP photoshop:DateCreated", ""),
    (CONTENT, "IPTC DateCreated", "IPTC TimeCreated"),
    (DIGITIZED, "EXIF DateTimeDigitized", "EXIF OffsetTimeDigitized"),
    (DIGITIZED, "XMP exif:DateTimeDigitized", ""),
    (DIGITIZED, "IPTC DigitizationDate", "IPTC DigitizationTime"),
    (RESOURCE, "XMP xmp:CreateDate", ""),
    (MODIFIED, "EXIF DateTime", "EXIF OffsetTime"),
    (MODIFIED, "XMP xmp:ModifyDate", ""),
    (LOCATED, "GPS GPSDateStamp", "GPS GPSTimeStamp"),
)
ORIGINS = {TAKEN: "the photo was taken", CONTENT: "the content was created"}
DATE = re.compile(
    r"(\d{4})(?:[-:]?(\d\d)(?:[-:]?(\d\d)(?:[T ](\d\d):?(\d\d)(?::?(\d\d)(?:\.\d{1,9})?)?"
    r" ?(Z|[+-]\d\d:?\d\d)?)?)?)?"
)
SMALLEST_OFFSET, LARGEST_OFFSET = timedelta(hours=-12), timedelta(hours=14)  # From UTC.
CLOCK_TOLERANCE = timedelta(minutes=2)
GPS_TOLERANCE = timedelta(hours=12)  # The position may be the last known one.


@dataclass(frozen=True)
class StatedDate:
    """A date in the metadata, and the range of instants (UTC) that it may refer to."""

    meaning: str
    where: str
    text: str
    earliest: datetime
    latest: datetime


def read_dates(fields: Mapping[str, str]) -> Iterator[StatedDate]:
    """Yield the dates in metadata fields, whose names are of the form ``EXIF DateTime``."""
    for meaning, where, completion in DATES:
        if not fields.get(where):
            continue
        text = fields[where].strip()
        addition = fields.get(completion, "").strip()
        if meaning == LOCATED:
            addition = _gps_time(addition)
        if addition and DATE.fullmatch(joined := _join(text, addition)):
            text = joined
        if interval := _interval(text):
            yield StatedDate(meaning, where, printable(text), *interval)


def find_contradictions(dates: tuple[StatedDate, ...]) -> Iterator[str]:
    """Yield a sentence about each pair of dates that no choice of time zones can reconcile."""
    for a, b in product(dates, dates):
        if a.meaning in (MODIFIED, DIGITIZED) and b.meaning == TAKEN:
            if a.latest + CLOCK_TOLERANCE < b.earliest:
                stated = f"{a.meaning} ({_quote(a)}) before it was taken ({_quote(b)})"
                yield f"According to the file, the photo was {stated}."
        elif (a.meaning, b.meaning) == (LOCATED, TAKEN):
            if a.latest + GPS_TOLERANCE < b.earliest or b.latest + GPS_TOLERANCE < a.earliest:
                yield (
                    f"According to the file, the photo was taken ({_quote(b)}) at a different time "
                    f"than its GPS position was determined ({_quote(a)})."
                )
        elif (
            a.meaning == b.meaning
            and a.meaning in ORIGINS
            and a.latest + CLOCK_TOLERANCE < b.earliest
        ):
            event = ORIGINS[a.meaning]
            yield f"The file states two dates on which {event} ({_quote(a)}; {_quote(b)})."


def _join(date: str, addition: str) -> str:
    is_offset = re.fullmatch(r"Z|[+-]\d\d:?\d\d", addition)
    return f"{date}{addition}" if is_offset else f"{date}T{addition}"


def _gps_time(text: str) -> str:
    """Convert hours, minutes and seconds such as ``12/1 30/1 5/1`` to ``12:30:05Z``."""
    numbers = re.findall(r"(\d{1,9})(?:/(\d{1,9})|\.\d*)?", text)
    try:
        hours, minutes, seconds = (int(a) // int(b or 1) for a, b in numbers)
    except (ValueError, ZeroDivisionError):
        return ""
    return f"{hours:02}:{minutes:02}:{seconds:02}Z"


def _interval(text: str) -> tuple[datetime, datetime] | None:
    """Return the first and last instant that a date can mean; None if it is not a date."""
    match = DATE.fullmatch(text)
    if not match:
        return None
    numbers = [int(number) for number in match.groups()[:6] if number]
    try:
        first = datetime(*(numbers + [1, 1])[: max(3, len(numbers))], tzinfo=UTC)  # type: ignore[arg-type, misc]
        days = {1: 366, 2: 31, 3: 1}.get(len(numbers), 0)
        last = first + timedelta(days=days)
        zone = match[7]
        if zone:
            sign = -1 if zone.startswith("-") else 1
            digits = re.sub(r"\D", "", zone) or "0000"
            offset = sign * timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
            return first - offset, last - offset
        return first - LARGEST_OFFSET, last - SMALLEST_OFFSET
    except (ValueError, OverflowError):  # Such as 0000:00:00, which stands for unknown.
        return None


def _quote(date: StatedDate) -> str:
    return f"{date.where}: {date.text}"
