"""The evidence of an examination: the photo's pixels and the file's metadata."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..core.images import HEADER_SIZE, IMAGE_CONTENTS, describe_content
from ..inference.photograph import (
    Photograph,
    PhotographError,
    PhotoSource,
    decode_photograph,
    read_bytes,
    read_photograph,
)
from ..modeling.calibration import PhotoProperties
from .metadata import FileFacts, read_facts
from .origin import Origin, read_origin


@dataclass(frozen=True)
class Evidence:
    """A photo and the facts about its file.

    Attributes:
        photograph: The pixels as displayed; None if they cannot be decoded.
        facts: The file's metadata; None if only pixels were given.
        origin: What the file says about its origin; None if only pixels were given.
        name: The path, or a different name for messages and the report.
        fault: Why the pixels cannot be decoded, as an error message; empty if they can.
    """

    photograph: Photograph | None
    facts: FileFacts | None
    origin: Origin | None = None
    name: str = ""
    fault: str = ""

    def without_location(self) -> "Evidence":
        """Return this evidence without metadata that can reveal a location.

        If there is none, this is the same object. The pixels and the file name are not changed.
        """
        if not (self.facts and self.origin):
            return self
        facts, origin = self.facts.without_location(), self.origin.without_location()
        if facts is self.facts and origin is self.origin:
            return self
        return replace(self, facts=replace(facts, omits_location=True), origin=origin)


def read_evidence(source: PhotoSource, name: str = "", *, trust_list: str = "") -> Evidence:
    """Read a photo and, if it comes from a file, the facts about the file.

    The file is read once: pixels, metadata and hash come from the same bytes. The facts about a
    damaged image are read even if its pixels cannot be decoded.

    Args:
        source: See :func:`qma_net.inference.photograph.read_photograph`.
        name: The name for messages and the report, if the source has none.
        trust_list: See :func:`.content_credentials.read_credentials`.

    Raises:
        PhotographError: If the source is not an image; the message names the source.
    """
    if isinstance(source, Photograph | Image.Image | np.ndarray):
        photograph = read_photograph(source, name)
        return Evidence(photograph, facts=None, name=photograph.name)
    data, name = read_bytes(source, name)
    decoded, fault = None, ""
    try:
        decoded = decode_photograph(data, name)
    except PhotographError as error:
        if describe_content(data[:HEADER_SIZE]) not in IMAGE_CONTENTS:
            raise
        fault = str(error)
    facts = read_facts(data)
    origin = read_origin(data, facts, name, trust_list=trust_list)
    return Evidence(decoded, facts, origin, name, fault)


def photo_properties(photograph: Photograph, facts: FileFacts | None) -> PhotoProperties:
    """Return the properties used to compare a photo with the photos of a calibration."""
    height, width = photograph.pixels.shape[:2]
    if facts is None:
        return PhotoProperties(width, height)
    quality = facts.jpeg.quality if facts.jpeg else None
    return PhotoProperties(width, height, facts.format, quality)
