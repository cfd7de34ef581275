"""XMP metadata as simple properties (ISO 16684-1), parsed with bounded work."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

MAX_CHARACTERS = 1 << 20
MAX_DEPTH = 30  # Nested elements; a Photoshop history has about ten levels.
MAX_ELEMENTS = 20_000
MAX_ATTRIBUTES = 20_000

# The usual prefix of each namespace, whatever prefix the packet itself declares.
PREFIXES: Mapping[str, str] = {
    "http://purl.org/dc/elements/1.1": "dc",
    "http://purl.org/dc/terms": "dcterms",
    "http://ns.adobe.com/xap/1.0": "xmp",
    "http://ns.adobe.com/xap/1.0/mm": "xmpMM",
    "http://ns.adobe.com/xap/1.0/rights": "xmpRights",
    "http://ns.adobe.com/xap/1.0/sType/ResourceEvent": "stEvt",
    "http://ns.adobe.com/xap/1.0/sType/ResourceRef": "stRef",
    "http://ns.adobe.com/photoshop/1.0": "photoshop",
    "http://ns.adobe.com/camera-raw-settings/1.0": "crs",
    "http://ns.adobe.com/exif/1.0": "exif",
    "http://ns.adobe.com/tiff/1.0": "tiff",
    "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns": "Iptc4xmpCore",
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29": "Iptc4xmpExt",
    "http://ns.useplus.org/ldf/xmp/1.0": "plus",
    "http://www.tc260.org.cn/ns/AIGC/1.0": "TC260",
}
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
LISTS = {f"{{{RDF}}}{name}" for name in ("Bag", "Seq", "Alt")}

Value: TypeAlias = "str | dict[str, str]"


class XmpError(ValueError):
    """XMP that is not well-formed or is too complex; the message completes "it ..."."""


@dataclass(frozen=True)
class Xmp:
    """The properties of known namespaces, by names such as ``dc:creator``.

    Attributes:
        values: The items of each property. A structure is a dictionary of texts.
    """

    values: Mapping[str, list[Value]] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Return the texts of a property, separated by semicolons; empty if there are none."""
        return "; ".join(value for value in self.values.get(name, ()) if isinstance(value, str))

    def structures(self, name: str) -> list[dict[str, str]]:
        """Return the structures of a property."""
        return [value for value in self.values.get(name, ()) if isinstance(value, dict)]


def read_xmp(packet: str) -> Xmp:
    """Read the properties of an XMP packet.

    Raises:
        XmpError: If the packet is not well-formed XML, declares a document type (which is refused
            so that no entity is ever expanded) or exceeds the limits of this module.
    """
    packet = packet.strip("\ufeff\0 \t\r\n")
    if not packet:
        return Xmp()
    if len(packet) > MAX_CHARACTERS:
        raise XmpError(f"has more than {MAX_CHARACTERS:,} characters")
    values: dict[str, list[Value]] = {}
    for rdf in _parse(packet).iter(f"{{{RDF}}}RDF"):
        for description in rdf:
            for name, value in _properties(description):
                values.setdefault(name, []).append(value)
    return Xmp(values)


def _parse(packet: str) -> Element:
    builder = TreeBuilder()
    depth = elements = attributes = 0

    def start(tag: str, attribs: dict[str, str]) -> None:
        nonlocal depth, elements, attributes
        depth, elements, attributes = depth + 1, elements + 1, attributes + len(attribs)
        if depth > MAX_DEPTH or elements > MAX_ELEMENTS or attributes > MAX_ATTRIBUTES:
            raise XmpError("has an implausible number of elements")
        builder.start(_braced(tag), {_braced(name): value for name, value in attribs.items()})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_braced(tag))

    def reject(*_: object) -> None:
        raise XmpError("declares a document type, which XMP does not allow")

    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = reject
    try:
        parser.Parse(packet, True)
    except (expat.ExpatError, UnicodeError) as error:
        raise XmpError(f"is not well-formed XML ({error})") from None
    return builder.close()


def _braced(name: str) -> str:
    return "{" + name if "}" in name else name


def _short(tag: str) -> str:
    """Return a name such as ``dc:creator``; empty for an unknown namespace."""
    namespace, _, name = tag.removeprefix("{").partition("}")
    prefix = PREFIXES.get(namespace.rstrip("/#"), "")
    return f"{prefix}:{name}" if prefix and name else ""


def _properties(element: Element) -> list[tuple[str, Value]]:
    """Return the properties of a description or structure, both attributes and elements.

    Those without a value are left out.
    """
    found: list[tuple[str, Value]] = [
        (name, text)
        for tag, value in element.items()
        if (name := _short(tag)) and (text := value.strip())
    ]
    for child in element:
        if name := _short(child.tag):
            found += [(name, value) for value in _values(child)]
    return found


def _values(element: Element) -> list[Value]:
    """Return the items of a property: its list, its structure or its text."""
    for child in element:
        if child.tag in LISTS:
            return [value for item in child for value in _values(item)]
    structured = [child for child in element if child.tag == f"{{{RDF}}}Description"]
    if structured or len(element) or any(_short(tag) for tag in element.keys()):  # noqa: SIM118
        structure = _structure(structured[0] if structured else element)
        return [structure] if structure else []
    text = element.get(f"{{{RDF}}}resource") or "".join(element.itertext())
    return [text.strip()] if text.strip() else []


def _structure(element: Element) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in _properties(element):
        if isinstance(value, str):
            fields[name] = f"{fields[name]}; {value}" if name in fields else value
    return fields
