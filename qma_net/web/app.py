"""The web application: the page, the login, and the API under ``/api/``."""

import asyncio
import hmac
import mimetypes
import os
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib.parse import SplitResult, parse_qs

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from .. import __version__
from ..core.files import to_json
from ..core.html import CONTENT_POLICY, render
from ..examine.page import render_page
from .examinations import DONE, FINAL_STATES, Examinations, storing
from .examples import Example
from .guard import Guard
from .limits import ServeError
from .uploads import FIELD, limited_body, receive_photo
from .worker import IMAGES, UPLOAD, load_examination, png

REPORT_POLICY = f"{CONTENT_POLICY}; frame-ancestors 'self'; sandbox"
PANELS_POLICY = f"{REPORT_POLICY} allow-same-origin"  # The viewer measures the height of the page.

EVENT_INTERVAL = 0.3  # seconds
MAX_LOGIN = 4096  # Bytes of a login request.
MAX_SENT = 16  # Files that are sent at the same time.
CHUNK = 2**18  # Bytes that are sent at once.

# FastAPI cannot derive the schema of the upload, since its body is read in parts.
UPLOAD_SCHEMA = {
    "type": "object",
    "required": [FIELD],
    "properties": {FIELD: {"type": "string", "format": "binary"}},
}
UPLOAD_BODY = {"required": True, "content": {"multipart/form-data": {"schema": UPLOAD_SCHEMA}}}

mimetypes.add_type("text/javascript", ".js")  # Windows can have a different entry.

Threshold = Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)]


def build_app(
    examinations: Examinations,
    examples: list[Example],
    *,
    about: dict[str, Any],
    hosts: set[str],
    public: SplitResult,
    token: str = "",
) -> ASGIApp:
    """Build the web application.

    Args:
        examinations: All examinations.
        examples: The example photos.
        about: The worker's description of its model.
        hosts: The accepted values of the Host header; empty for any.
        public: The address at which a proxy publishes the page; its parts may be empty.
        token: The access token; empty for none.
    """
    root, limits = public.path.rstrip("/"), examinations.limits
    app = FastAPI(
        title="QMA-Net",
        version=__version__,
        docs_url=None,  # The documentation pages would load scripts from another server.
        redoc_url=None,
        openapi_url=None,  # Served below, to visitors with the token only.
        redirect_slashes=False,
        root_path=root,
        servers=[{"url": root or "/"}],
    )
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))

    @app.exception_handler(ServeError)
    def refuse(_: Request, error: ServeError) -> JSONResponse:
        headers = {"retry-after": "10"} if error.status == 429 else None
        return JSONResponse({"detail": str(error)}, error.status, headers)

    @app.exception_handler(FileNotFoundError)
    def report_removed(_: Request, __: FileNotFoundError) -> JSONResponse:
        return JSONResponse({"detail": "the examination has been removed"}, 404)

    def has_token(request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = request.cookies.get(_cookie(request), "")
        return _equal(given, token)

    async def require_token(request: Request) -> None:
        if not has_token(request):
            raise ServeError("expected an access token; see `qma-net serve --token`", 401)

    async def log_in(request: Request, given: str) -> Response:
        if not _equal(given, token):
            await asyncio.sleep(0.5)
            return _login_page("Incorrect token.")
        response = RedirectResponse(f"{root}/", 303)
        response.set_cookie(
            _cookie(request),
            token,
            path=f"{root}/",
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    @app.get("/healthz")
    def health() -> dict[str, str]:
        """Report that the server responds."""
        return {"status": "ok"}

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        if token and "token" in request.query_params:
            return await log_in(request, request.query_params["token"])
        if not has_token(request):
            return _login_page("")
        content = {"about": about, "examples": examples, "limits": limits}
        return HTMLResponse(render(__package__, "page.html.j2", **content))

    @app.post("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        body = b"".join([part async for part in limited_body(request, MAX_LOGIN, limits)])
        return await log_in(request, parse_qs(body.decode("latin-1")).get("token", [""])[0])

    private = APIRouter(dependencies=[Depends(require_token)])

    @private.get("/openapi.json", include_in_schema=False)
    def schema() -> dict[str, Any]:
        return app.openapi()

    @private.get("/examples/{number}.{kind}", include_in_schema=False)
    def example(number: int, kind: str) -> Response:
        if not 0 <= number < len(examples) or kind not in ("jpg", "png"):
            raise ServeError("there is no such example", 404)
        chosen = examples[number]
        path = chosen.photograph if kind == "jpg" else chosen.thumbnail
        return Content(lambda: path.open("rb"), "image/jpeg" if kind == "jpg" else "image/png")

    @private.post("/api/examinations", status_code=202, openapi_extra={"requestBody": UPLOAD_BODY})
    async def create(request: Request, native: bool = False) -> dict[str, str]:
        """Upload a photo and start its examination."""
        if native and not about["supports_native"]:
            raise ServeError("the model cannot process photos at original resolution", 422)
        with examinations.upload(native) as examination, storing():
            path = examination.folder / UPLOAD
            examination.name = await receive_photo(request, path, limits)
            examination.bytes = path.stat().st_size
            examinations.enqueue(examination)
        return {"id": examination.id}

    results = APIRouter(prefix="/api/examinations/{name}")

    @results.get("")
    def state(name: str) -> dict[str, Any]:
        """Return the state and the progress of an examination."""
        return examinations.describe(examinations.get(name))

    @results.get("/events")
    async def events(name: str) -> StreamingResponse:
        """Stream the state of an examination as server-sent events until it has ended."""
        examination = examinations.get(name)
        if examination.streams >= limits.streams:
            raise ServeError("this examination has too many event streams", 429)

        async def stream() -> AsyncIterator[str]:
            examination.streams += 1
            try:
                sent, pause = None, 0.0
                while not examinations.is_closed:
                    state = examinations.describe(examination)
                    if state != sent or pause > 10:
                        yield f"data: {to_json(state)}\n\n"
                        sent, pause = state, 0
                    if state["state"] in FINAL_STATES:
                        return
                    examination.requested = time.monotonic()
                    await asyncio.sleep(EVENT_INTERVAL)
                    pause += EVENT_INTERVAL
            finally:
                examination.streams -= 1

        return StreamingResponse(stream(), media_type="text/event-stream")

    @results.delete("", status_code=204)
    def remove(name: str) -> None:
        """Stop an examination and remove all its files."""
        examinations.remove(examinations.get(name))

    def finished(name: str) -> Path:
        examination = examinations.get(name)
        if examination.state != DONE:
            raise ServeError(f"the examination has no result: it is {examination.state}", 409)
        return examination.folder

    @results.get("/report.json")
    async def report_json(
        name: str, threshold: Threshold = None, omit_location: bool = False
    ) -> Response:
        """Return the results as JSON."""
        folder = finished(name)

        def load() -> BinaryIO:
            examination = load_examination(folder, threshold, omit_location=omit_location)
            report = examination.report()
            return BytesIO((to_json(report, indent=1) + "\n").encode())

        return Content(load, "application/json")

    @results.get("/{file}.html")
    async def report(
        name: str, file: str, threshold: Threshold = None, omit_location: bool = False
    ) -> Response:
        """Return the report as HTML: ``report.html``, or ``panels.html`` without large images."""
        if file not in ("report", "panels"):
            raise ServeError("there is no such file", 404)
        folder, is_report = finished(name), file == "report"

        def load() -> BinaryIO:
            examination = load_examination(folder, threshold, omit_location=omit_location)
            return BytesIO(render_page(examination, images=is_report).encode())

        policy = {"content-security-policy": REPORT_POLICY if is_report else PANELS_POLICY}
        return Content(load, "text/html; charset=utf-8", policy)

    @results.get("/{file}.png")
    async def image(name: str, file: str, threshold: Threshold = None) -> Response:
        """Return ``mask.png``, ``overlay.png``, ``photograph.png`` or ``unreadable.png``."""
        folder = finished(name)
        path = folder / f"{file}.png"

        def overlay() -> BinaryIO:
            examination = load_examination(folder, threshold)
            photograph = examination.evidence.photograph
            profile = photograph.icc_profile if photograph else b""
            return BytesIO(png(examination.overlay(), profile))

        if file == "overlay" and (folder / "mask.png").is_file():
            return Content(overlay, "image/png")
        if path.name not in IMAGES or not path.is_file():
            raise ServeError("there is no such file; without a model there is no mask", 404)
        return Content(lambda: path.open("rb"), "image/png")

    private.include_router(results)
    app.include_router(private)
    return Guard(app, hosts=hosts, public=public)


class Content(Response):
    """A response with the content of a file, which is opened or rendered only when it is sent.

    Rendered files can be large and are held in memory, so only a few are sent at the same time, and
    only one is rendered at a time.

    Args:
        load: Opens the file; called in a thread.
        media_type: The content type.
        headers: Further headers.
    """

    loading, sending = asyncio.Semaphore(1), asyncio.Semaphore(MAX_SENT)

    def __init__(
        self, load: Callable[[], BinaryIO], media_type: str, headers: dict[str, str] | None = None
    ):
        super().__init__(media_type=media_type, headers=headers)
        self._load = load

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Load and send the content."""
        async with self.sending:
            async with self.loading:
                file = await run_in_threadpool(self._load)
            with file:
                size = file.seek(0, os.SEEK_END)
                file.seek(0)
                headers = {**self.headers, "content-length": str(size)}
                parts = iter(partial(file.read, CHUNK), b"")
                await StreamingResponse(parts, headers=headers)(scope, receive, send)


def _cookie(request: Request) -> str:
    """Return the name of the cookie, with the port, since all ports of a host share cookies."""
    return f"qma_net_{(request.scope.get('server') or ('', 0))[1]}"


def _equal(given: str, token: str) -> bool:
    """Compare tokens in constant time; if none is required, any is accepted."""
    return not token or hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _login_page(message: str) -> Response:
    return HTMLResponse(render(__package__, "login.html.j2", message=message), 401)
