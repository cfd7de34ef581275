"""Reading the photo of a multipart request into a file, within limits."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from ..core.images import HEADER_SIZE, IMAGE_CONTENTS, describe_content
from ..examine.metadata import printable
from .limits import Limits, ServeError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "photograph"
MAX_NAME = 200  # characters
MAX_HEADER = 4096  # Bytes of the headers of a part.
OVERHEAD = 2 * MAX_HEADER  # Bytes of a request in addition to those of the file.


async def receive_photo(request: Request, path: Path, limits: Limits) -> str:
    """Write the photo of a multipart request to a file.

    Returns:
        The name that the photo has on the visitor's device, for display only.

    Raises:
        ServeError: If the request is not what was expected, too large or too slow.
        ClientDisconnect: If the connection was closed.
        OSError: If the file cannot be written.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary or len(boundary) > 70:
        raise ServeError(f"expected multipart/form-data with a file in the field {FIELD}", 415)
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > limits.bytes + OVERHEAD:
        raise _too_large(limits)
    with path.open("xb") as file:
        part = _PhotoPart(file, limits)
        parser = MultipartParser(boundary, part.callbacks())
        chunks = request.stream()
        try:
            async with asyncio.timeout(limits.upload_seconds):
                while True:
                    async with asyncio.timeout(limits.idle_seconds):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        break
                    part.count(len(chunk))
                    parser.write(chunk)
        except TimeoutError:
            raise ServeError("the upload was too slow and has been ended", 408) from None
        except FormParserError:
            raise ServeError("the multipart request is malformed", 400) from None
        except ClientDisconnect:
            raise ServeError("the connection was closed", 400) from None
    if not part.is_complete:
        raise ServeError("the multipart request is incomplete", 400)
    if part.size == 0:
        raise ServeError(f"expected a photo in the field {FIELD}; it is empty or missing", 400)
    content = describe_content(part.head)
    if content not in IMAGE_CONTENTS:
        raise ServeError(f"{part.name} is not a photo: it is {content}", 415)
    return part.name


class _PhotoPart:
    """The callbacks of the multipart parser; accepts one part, the photo."""

    def __init__(self, file: BinaryIO, limits: Limits):
        self._file, self._limits = file, limits
        self._header, self._value, self._total = b"", b"", 0
        self._headers: dict[bytes, bytes] = {}
        self.name, self.head, self.size, self.parts = "", b"", 0, 0
        self.is_complete = False

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def count(self, size: int) -> None:
        self._total += size
        if self._total > self._limits.bytes + OVERHEAD:
            raise _too_large(self._limits)

    def _begin(self) -> None:
        self.parts += 1
        if self.parts > 1:
            raise ServeError(f"expected exactly one part, the file in the field {FIELD}", 400)

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header = self._bounded(self._header + data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value = self._bounded(self._value + data[start:end])

    def _bounded(self, header: bytes) -> bytes:
        if len(header) > MAX_HEADER or len(self._headers) > 8:
            raise ServeError("the headers of the part are too large", 400)
        return header

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if options.get(b"name") != FIELD.encode() or b"filename" not in options:
            raise ServeError(f"expected one file in the field {FIELD}", 400)
        name = options[b"filename"].decode("utf-8", "replace").replace("\\", "/").split("/")[-1]
        self.name = printable(name)[:MAX_NAME] or "photo"

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.size += end - start
        if self.size > self._limits.bytes:
            raise _too_large(self._limits)
        self.head = (self.head + data[start : min(end, start + HEADER_SIZE)])[:HEADER_SIZE]
        self._file.write(data[start:end])

    def _end(self) -> None:
        self.is_complete = True


def _too_large(limits: Limits) -> ServeError:
    return ServeError(
        f"the file is too large; the page accepts at most {limits.megabytes:g} MB. "
        "Use qma-net examine for larger files.",
        413,
    )
