"""Decoding the texts of a file, and making them safe to show."""

import codecs
import unicodedata

MAX_CHARACTERS = 20_000  # Of XMP and other texts.
MAX_VALUE_CHARACTERS = 400  # Of one EXIF or IPTC value.
MAX_LISTED = 60  # Parts of the file, and texts.

# The beginnings of XML in each encoding, longest first (XML 1.0, appendix F).
XML_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (b"<\0\0\0", "utf-32-le"),
    (b"\0\0\0<", "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)


def printable(value: str | bytes, limit: int = MAX_VALUE_CHARACTERS) -> str:
    """Make text safe to show: escape control and direction characters, and limit the length."""
    text = value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
    shown = "".join(map(_printable_character, text[:limit]))
    return shown if len(text) <= limit else f"{shown} ... ({len(text)} characters)"


def _printable_character(character: str) -> str:
    if character == "\n" or character.isprintable():
        return character
    if unicodedata.category(character) == "Zs":  # Such as a no-break space.
        return " "
    return " " if character in "\t\r" else f"\\x{ord(character):02x}"


def decode_xmp(packet: bytes) -> str:
    """Decode an XMP packet, which is in UTF-8, UTF-16 or UTF-32 (ISO 16684-1, section 7.1)."""
    packet = packet.lstrip(b" \t\r\n")
    encodings = (name for start, name in XML_ENCODINGS if packet.startswith(start))
    text = packet.decode(next(encodings, "utf-8"), "backslashreplace")
    return text.strip("\ufeff\0 \t\r\n")
