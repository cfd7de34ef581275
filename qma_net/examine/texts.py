"""Decoding the texts of a file, and making them safe to show."""

import codecs
import re
import unicodedata
import zlib
from pathlib import Path

MAX_CHARACTERS = 20_000  # Of XMP and other texts.
MAX_VALUE_CHARACTERS = 400  # Of one EXIF or IPTC value.
MAX_LISTED = 60  # Parts of the file, and texts.

# The character codes of a UserComment (EXIF 3.0, section 4.6.6.3), by their eight-byte names.
COMMENT_CODES = {b"ASCII\0\0\0": "utf-8", b"JIS\0\0\0\0\0": "iso2022_jp_2", bytes(8): "utf-8"}
UNICODE = b"UNICODE\0"
MIN_ASCII = 16  # This many bytes of printable ASCII are hardly ever two-byte characters.

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


def entries(count: int) -> str:
    """State the number of entries."""
    return "1 entry" if count == 1 else f"{count} entries"


def without_folder(text: str, path: str) -> str:
    """Remove a file's folder from a message, since a path can reveal who examined the file."""
    name = Path(path).name
    return text.replace(path, name) if name else text


def decode_undeclared(content: bytes) -> str:
    """Decode a text whose encoding is not declared: UTF-8, or else Latin-1.

    Non-ASCII bytes that occur in pairs, or that are control characters in Latin-1, suggest a
    different encoding; all bytes that are not UTF-8 are then escaped.
    """
    try:
        return content.decode()
    except UnicodeDecodeError:
        is_latin = not re.search(rb"[\x80-\x9f]|[\xa0-\xff]{2}", content)
        return content.decode("latin-1") if is_latin else content.decode(errors="backslashreplace")


def decode_xmp(packet: bytes) -> str:
    """Decode an XMP packet, which is in UTF-8, UTF-16 or UTF-32 (ISO 16684-1, section 7.1)."""
    packet = packet.lstrip(b" \t\r\n")
    encodings = (name for start, name in XML_ENCODINGS if packet.startswith(start))
    text = packet.decode(next(encodings, "utf-8"), "backslashreplace")
    return text.strip("\ufeff\0 \t\r\n")


def decode_png_text(name: bytes, content: bytes, limit: int) -> tuple[str, bytes | None]:
    """Decode a ``tEXt``, ``zTXt`` or ``iTXt`` chunk (PNG specification, section 11.3.3).

    Returns:
        The keyword, and at most ``limit`` bytes of the text in UTF-8, or None if it cannot be
        decompressed.
    """
    key, _, text = content.partition(b"\0")
    keyword = printable(key.decode("latin-1"))
    is_compressed, encoding = name == b"zTXt", "latin-1"
    if name == b"iTXt":
        is_compressed, encoding = text[:1] == b"\1", "utf-8"
        text = text[1:2] + text[2:].partition(b"\0")[2].partition(b"\0")[2]
    if is_compressed:
        try:
            text = zlib.decompressobj().decompress(text[1:], limit)
        except zlib.error:
            return keyword, None
    elif encoding == "utf-8":
        text = text[1:]
    if encoding == "latin-1":
        text = text[:limit].decode(encoding).encode()
    return keyword, text[:limit]


def decode_comment(content: bytes, order: str) -> str:
    """Decode an EXIF comment, whose first eight bytes name the character code.

    Comments may be long: AI generators store their parameters there, after the prompt.

    Args:
        content: The bytes of the entry.
        order: ``little`` or ``big``, the byte order of the EXIF data.
    """
    code, text = content[:8], content[8:]
    if code == UNICODE:
        return _decode_unicode(text, order)
    if code not in COMMENT_CODES:  # Some programs omit the code.
        return printable(decode_undeclared(content.strip(b"\0 ")), MAX_CHARACTERS)
    text = text.strip(b"\0 ")
    try:
        return printable(text.decode(COMMENT_CODES[code]), MAX_CHARACTERS)
    except UnicodeDecodeError:
        return printable(decode_undeclared(text), MAX_CHARACTERS)


def _decode_unicode(text: bytes, order: str) -> str:
    """Decode UTF-16 in the byte order that gives the more plausible text.

    The standard prescribes the byte order of the EXIF data, but many programs write a different
    one, and some write UTF-8.
    """
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return printable(text.decode("utf-16", "backslashreplace").strip("\0 "), MAX_CHARACTERS)
    unpadded = text.rstrip(b"\0 ")
    if len(unpadded) >= MIN_ASCII and re.fullmatch(rb"[\t\n\r -~]+", unpadded):
        return printable(unpadded, MAX_CHARACTERS)
    orders = ("le", "be") if order == "little" else ("be", "le")
    candidates = [text.decode(f"utf-16-{name}", "backslashreplace").strip("\0 ") for name in orders]
    return printable(max(candidates, key=_plausibility), MAX_CHARACTERS)


def _plausibility(text: str) -> tuple[int, int]:
    """Rate a text: more ASCII, fewer invalid characters and fewer alphabets are more plausible."""
    text = text[:MAX_VALUE_CHARACTERS]
    wrong = sum(
        unicodedata.category(c) in ("Cc", "Cn", "Co", "Cs") for c in text if c not in "\t\n\r"
    )
    return sum(c < "\x7f" for c in text) - 4 * wrong, -len({ord(c) >> 8 for c in text})
