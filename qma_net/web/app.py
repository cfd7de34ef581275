"""The web application: the page, the API under ``/api/``, and the checks of every request."""

import asyncio
import hmac
import json
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, parse_qs

import uvicorn
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, StreamingResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import __version__
from ..core.html import CONTENT_POLICY, render
from ..examine.page import render_page
from .examinations import DONE, FINAL_STATES, Examination, Examinations, storing
from .examples import Example
from .limits import ServeError
from .uploads import receive_photo
from .worker import IMAGES, UPLOAD, load_examination, png

STATIC = Path(__file__).parent / "static"
STATIC_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

# The browser loads everything from this server and runs no script that is part of a page.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
REPORT_POLICY = f"{CONTENT_POLICY}; frame-ancestors 'self'; sandbox"
PANELS_POLICY = f"{REPORT_POLICY} allow-same-origin"  # The viewer measures its height.

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # With no-referrer, forms have no Origin.
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
EVENT_INTERVAL = 0.3  # seconds
MAX_LOGIN = 4096  # Bytes of a login request.

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
        examples: The photos to try.
        about: What the worker tells about its model.
        hosts: The values of the header Host to accept; empty for any.
        public: The address at which a proxy publishes the page; its parts may be empty.
        token: The password; empty for none.
    """
    root_path = public.path.rstrip("/")
    app = FastAPI(
        title="QMA-Net",
        version=__version__,
        docs_url=None,  # The documentation pages would load scripts from another server.
        redoc_url=None,
        servers=[{"url": root_path or "/"}],
    )
    rendering = threading.Lock()  # Rendering a large photo takes much memory.

    def finished(name: str) -> Examination:
        examination = examinations.get(name)
        if examination.state != DONE:
            raise ServeError(f"the examination has no result: it is {examination.state}", 409)
        return examination

    @app.exception_handler(ServeError)
    def refuse(_: Request, error: ServeError) -> JSONResponse:
        headers = {"retry-after": "10"} if error.status == 429 else None
        return JSONResponse({"detail": str(error)}, error.status, headers)

    @app.get("/healthz")
    def health() -> dict[str, str]:
        """Tell that the server responds."""
        return {"status": "ok"}

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        limits = examinations.limits
        text = render(__package__, "page.html.j2", about=about, examples=examples, limits=limits)
        return Response(text, media_type="text/html")

    @app.get("/static/{file}", include_in_schema=False)
    def static(file: str) -> Response:
        if file not in {path.name for path in STATIC.iterdir()}:
            raise ServeError("there is no such file", 404)
        return FileResponse(STATIC / file, media_type=STATIC_TYPES[Path(file).suffix])

    @app.get("/examples/{number}.{kind}", include_in_schema=False)
    def example(number: int, kind: str) -> Response:
        if not 0 <= number < len(examples) or kind not in ("jpg", "png"):
            raise ServeError("there is no such example", 404)
        chosen = examples[number]
        return FileResponse(chosen.photograph if kind == "jpg" else chosen.thumbnail)

    @app.post(
        "/api/examinations",
        status_code=202,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "multipart/form-data": {
                        "schema": {
                            "type": "object",
                            "required": ["photograph"],
                            "properties": {"photograph": {"type": "string", "format": "binary"}},
                        }
                    }
                },
            }
        },
    )
    async def create(request: Request, native: bool = False) -> dict[str, str]:
        """Upload a photo and start its examination."""
        if native and not about["supports_native"]:
            raise ServeError("the model cannot process photos at their original size", 422)
        with examinations.upload(native) as examination, storing():
            path = examination.folder / UPLOAD
            examination.name = await receive_photo(request, path, examinations.limits)
            examination.bytes = path.stat().st_size
            examinations.enqueue(examination)
        return {"id": examination.id}

    @app.get("/api/examinations/{name}")
    def state(name: str) -> dict[str, Any]:
        """Return the state and the progress of an examination."""
        return examinations.describe(examinations.get(name))

    @app.get("/api/examinations/{name}/events")
    async def events(name: str) -> StreamingResponse:
        """Stream the state of an examination as server-sent events until it has ended."""
        examination = examinations.get(name)

        async def stream() -> AsyncIterator[str]:
            sent, pause = None, 0.0
            while not examinations.is_closed:
                state = examinations.describe(examination)
                if state != sent or pause > 10:
                    yield f"data: {json.dumps(state)}\n\n"
                    sent, pause = state, 0
                if state["state"] in FINAL_STATES:
                    return
                examination.requested = time.monotonic()
                await asyncio.sleep(EVENT_INTERVAL)
                pause += EVENT_INTERVAL

        return StreamingResponse(stream(), media_type="text/event-stream")

    @app.delete("/api/examinations/{name}", status_code=204)
    def remove(name: str) -> None:
        """Stop an examination and remove all its files."""
        examinations.remove(examinations.get(name))

    @app.get("/api/examinations/{name}/report.json")
    def report_json(name: str, threshold: Threshold = None) -> Response:
        """Return the results as JSON."""
        report = load_examination(finished(name).folder, threshold).report()
        return Response(json.dumps(report, indent=1) + "\n", media_type="application/json")

    @app.get("/api/examinations/{name}/{file}.html")
    def report(name: str, file: str, threshold: Threshold = None) -> Response:
        """Return the report as HTML: ``report.html``, or ``panels.html`` without large images."""
        if file not in ("report", "panels"):
            raise ServeError("there is no such file", 404)
        is_report = file == "report"
        with rendering:
            examination = load_examination(finished(name).folder, threshold)
            text = render_page(examination, images=is_report)
        policy = {"content-security-policy": REPORT_POLICY if is_report else PANELS_POLICY}
        return Response(text, media_type="text/html", headers=policy)

    @app.get("/api/examinations/{name}/{file}.png")
    def image(name: str, file: str, threshold: Threshold = None) -> Response:
        """Return ``mask.png``, ``overlay.png``, ``photograph.png`` or ``unreadable.png``."""
        folder, file = finished(name).folder, f"{file}.png"
        if file == "overlay.png":
            with rendering:
                examination = load_examination(folder, threshold)
                if examination.prediction:
                    return Response(png(examination.overlay()), media_type="image/png")
        elif file in IMAGES and (folder / file).is_file():
            return FileResponse(folder / file)
        raise ServeError("there is no such file; without a model there is no mask", 404)

    return Guard(app, hosts=hosts, public=public, token=token)


class Guard:
    """ASGI middleware that checks each request and adds security headers to each response.

    The header Host prevents DNS rebinding: another web site can resolve its own name to this
    machine, and its requests carry that name. Origin and Sec-Fetch-Site prevent requests that
    another site, which includes another port of this machine, makes in the visitor's name.

    Args:
        app: The application.
        hosts: The values of the header Host to accept; empty for any.
        public: The address at which a proxy publishes the page; its parts may be empty.
        token: The password; empty for none.
    """

    def __init__(self, app: ASGIApp, *, hosts: set[str], public: SplitResult, token: str):
        self._app, self._hosts, self._token = app, hosts, token
        self._root, self._public = public.path.rstrip("/"), public.netloc.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("content-security-policy", PAGE_POLICY)
                headers.update(HEADERS)
            await send(message)

        path: str = scope["path"]
        is_without_slash = bool(self._root) and path == self._root
        if self._root and (path == self._root or path.startswith(f"{self._root}/")):
            path = path[len(self._root) :] or "/"
            scope = {**scope, "path": path, "raw_path": path.encode("utf-8", "replace")}
        response = self._refusal(scope) or await self._login(scope, receive)
        if is_without_slash and (response is None or response.status_code == 401):
            response = RedirectResponse(f"{self._root}/")  # The page's addresses are relative.
        await (response or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return a response to a request that another site made."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or (self._hosts and hosts[0].lower() not in self._hosts):
            return _detail("unknown host name", 421)
        origins = headers.getlist("origin")
        names = hosts[0].lower(), self._public
        own = {f"{scheme}://{name}" for scheme in ("http", "https") for name in names if name}
        if any(origin.lower() not in own for origin in origins):
            return _detail("requests from other sites are refused", 403)
        site = headers.get("sec-fetch-site", "none")
        if site not in ("same-origin", "none"):
            # A link on another site may lead to the page, which contains no data.
            is_link = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"
            if not (is_link and scope["path"] == "/" and not scope["query_string"]):
                return _detail("requests from other sites are refused", 403)
        return None

    async def _login(self, scope: Scope, receive: Receive) -> Response | None:
        """Return a response to a login, or to a request without the token."""
        path, request = scope["path"], Request(scope, receive)
        if not self._token or path == "/healthz" or path.startswith("/static/"):
            return None
        if path == "/login" and scope["method"] == "POST":
            body = b""
            try:
                async with asyncio.timeout(10):
                    async for chunk in request.stream():
                        body += chunk
                        if len(body) > MAX_LOGIN:
                            return _detail("the request is too large", 413)
            except TimeoutError:
                return _detail("the request was too slow", 408)
            given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
        elif path == "/" and "token" in request.query_params:
            given = request.query_params["token"]
        else:
            scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
            given = bearer.strip() if scheme.lower() == "bearer" else ""
            if self._is_token(given or request.cookies.get(self._cookie(scope), "")):
                return None
            if path != "/":
                return _detail("expected a token; see `qma-net serve --token`", 401)
            return Response(_login_page(""), 401, media_type="text/html")
        if not self._is_token(given):
            await asyncio.sleep(0.5)
            text = _login_page("This token is not correct.")
            return Response(text, 401, media_type="text/html")
        response = RedirectResponse(f"{self._root}/", 303)
        response.set_cookie(
            self._cookie(scope),
            self._token,
            path=f"{self._root}/",
            httponly=True,
            samesite="strict",
            secure=scope["scheme"] == "https",
        )
        return response

    def _cookie(self, scope: Scope) -> str:
        """Return the name of the cookie; the cookies of all ports of a machine are shared."""
        return f"qma_net_{(scope.get('server') or ('', 0))[1]}"

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())


class Server(uvicorn.Server):
    """A server that ends examinations before it shuts down, and connections that are too slow.

    Args:
        app: The result of :func:`build_app`.
        examinations: All examinations.
    """

    def __init__(self, app: ASGIApp, examinations: Examinations):
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                log_level="warning",
                server_header=False,
                timeout_graceful_shutdown=3,
                timeout_keep_alive=5,
            )
        )
        self._examinations = examinations
        self._idle_since: dict[Any, float] = {}

    async def on_tick(self, counter: int) -> bool:
        """Close connections without a complete request; called ten times per second."""
        if counter % 10 == 0:
            now, limits = time.monotonic(), self._examinations.limits
            idle = {}
            for connection in list(self.server_state.connections):
                cycle = getattr(connection, "cycle", None)
                if cycle is None or cycle.response_complete:
                    idle[connection] = self._idle_since.get(connection, now)
            excess = len(self.server_state.connections) - limits.connections
            for number, (connection, since) in enumerate(sorted(idle.items(), key=_since)):
                if now - since > limits.idle_seconds or number < excess:
                    connection.transport.abort()
            self._idle_since = idle
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down without messages about interrupted requests."""
        await asyncio.to_thread(self._examinations.close)
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)


def _since(item: tuple[Any, float]) -> float:
    return item[1]


def _detail(text: str, status: int) -> JSONResponse:
    return JSONResponse({"detail": text}, status)


def _login_page(message: str) -> str:
    return render(__package__, "login.html.j2", message=message)
