"""The evidence of an examination: the photo's pixels and the file's metadata."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..inference.photograph import (
    Photograph,
    PhotoSource,
    decode_photograph,
    read_bytes,
    read_photograph,
)
from .metadata import FileFacts, read_facts
from .origin import Origin, read_origin


@dataclass(frozen=True)
class Evidence:
    """A photo and the facts about its file.

    Attributes:
        photograph: The pixels as displayed.
        facts: The file's metadata; None if only pixels were given.
        origin: What the file says about its origin; None if only pixels were given.
    """

    photograph: Photograph
    facts: FileFacts | None
    origin: Origin | None = None


def read_evidence(source: PhotoSource, name: str = "") -> Evidence:
    """Read a photo and, if it comes from a file, the facts about the file.

    The file is read once: pixels, metadata and hash come from the same bytes.

    Args:
        source: See :func:`qma_net.inference.photograph.read_photograph`.
        name: The name for messages and the report, if the source has none.

    Raises:
        PhotographError: If the source is not a photo; the message names the source.
    """
    if isinstance(source, Photograph | Image.Image | np.ndarray):
        return Evidence(read_photograph(source, name), facts=None)
    data, name = read_bytes(source, name)
    photograph, image = decode_photograph(data, name)
    facts = read_facts(data, image)
    return Evidence(photograph, facts, read_origin(data, facts, name))
