"""Reading the body of a request, and the photo in it, within limits."""

import asyncio
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path, PurePosixPath

from fastapi.concurrency import run_in_threadpool
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from ..core.images import HEADER_SIZE, IMAGE_CONTENTS, describe_content
from ..examine.texts import printable
from .limits import Limits, ServeError

FIELD = "photograph"
MAX_NAME = 200  # characters
OVERHEAD = 2**13  # Bytes of a request in addition to those of the photo.


async def limited_body(
    request: Request, size: int, limits: Limits, *, hint: str = ""
) -> AsyncGenerator[bytes, None]:
    """Yield the body of a request in parts.

    If it has more than ``size`` bytes, the message of the error ends with ``hint``.

    Raises:
        ServeError: If the body is too large or too slow, or if the connection is closed.
    """
    length = request.headers.get("content-length", "0")
    is_too_large = not length.isdecimal() or int(length[:20]) > size
    clock, parts = asyncio.get_running_loop().time, request.stream()
    end = clock() + limits.upload_seconds
    while not is_too_large:
        try:
            async with asyncio.timeout_at(min(end, clock() + limits.idle_seconds)):
                part = await anext(parts, None)
        except TimeoutError:
            raise ServeError("the upload was too slow and was aborted", 408) from None
        except ClientDisconnect:
            raise ServeError("the connection was closed", 400) from None
        if part is None:
            return
        size -= len(part)
        is_too_large = size < 0
        if not is_too_large:
            yield part
    raise ServeError(f"the request is too large{hint}", 413)


async def receive_photo(request: Request, path: Path, limits: Limits) -> str:
    """Write the photo in a multipart request to a new file.

    Returns:
        The name that the photo has on the visitor's device, for display only.

    Raises:
        ServeError: If the request is too large or too slow, or does not contain exactly one photo.
        OSError: If the file cannot be written.
    """
    kind, _ = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise ServeError(f"expected multipart/form-data with a file in the field {FIELD}", 415)
    hint = f"; the page accepts at most {limits.megabytes:g} MB. Use qma-net examine for more."
    body = limited_body(request, limits.bytes + OVERHEAD, limits, hint=hint)
    try:
        form = await MultiPartParser(request.headers, body, max_files=1, max_fields=0).parse()
    except MultiPartException as error:
        raise ServeError(f"expected one file in the field {FIELD}: {error.message}") from None
    photo = form.get(FIELD)
    if not isinstance(photo, UploadFile) or not photo.size:
        raise ServeError(f"expected a photo in the field {FIELD}; it is empty or missing")
    name = PurePosixPath((photo.filename or "").replace("\\", "/")).name
    name = printable(name)[:MAX_NAME] or "photo"
    with photo.file as source, path.open("xb") as target:
        content = describe_content(source.read(HEADER_SIZE))
        if content not in IMAGE_CONTENTS:
            raise ServeError(f"{name} is not a photo: it is {content}", 415)
        source.seek(0)
        await run_in_threadpool(shutil.copyfileobj, source, target)
    return name
