"""The web server: Gradio's page, the images of results, and the security headers."""

import logging
import re
import secrets
import socket
from pathlib import Path
from typing import Annotated, Any

import gradio as gr
import uvicorn
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..core.html import CONTENT_POLICY
from .examination_service import ExaminationService
from .examples import Example
from .limits import Limits
from .page import build_page, theme
from .sessions import Result

HERE = Path(__file__).parent
STYLE = HERE / "style.css"
VIEWER = {"viewer.js": "text/javascript", "viewer.css": "text/css"}

# The browser may load from this server only. Gradio's page compiles functions from text
# ('unsafe-eval') and uses inline styles.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval' 'nonce-{nonce}'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
REPORT_POLICY = f"{CONTENT_POLICY}; frame-ancestors 'self'"

# The parts of Gradio's page that refer to other servers: social previews, fonts and scripts.
EXTERNAL = re.compile(
    r'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>'
    r'|<(?:link|script)\b[^>]*(?:href|src)="(?:https?:)?//[^>]*>(?:\s*</script>)?'
    r'|<link rel="manifest"[^>]*>'
)

IMAGES = ("photograph", "mask", "overlay", "unreadable")

Threshold = Annotated[float | None, Query(ge=0, le=1)]


def build_app(
    service: ExaminationService, examples: list[Example], *, limits: Limits, hosts: set[str]
) -> FastAPI:
    """Build the web application.

    Args:
        service: Examines the photos.
        examples: The photos to try.
        limits: The limits of an upload.
        hosts: The host names that a request may use for this machine; empty for any.
    """
    undocumented: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    app = FastAPI(**undocumented)

    @app.get("/page/{file}")
    def viewer(file: str) -> Response:
        if file not in VIEWER:
            return Response(status_code=404)
        return FileResponse(HERE / file, media_type=VIEWER[file])

    @app.get("/results/{token}/{file}")
    def result(token: str, file: str, threshold: Threshold = None) -> Response:
        shown = service.sessions.result(token)
        return _file(shown, file, threshold) if shown else Response(status_code=404)

    gr.mount_gradio_app(
        app,
        build_page(service, examples),
        path="/",
        footer_links=[],
        run_history=False,
        app_kwargs=undocumented,
        max_file_size=limits.bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css=STYLE.read_text(encoding="utf-8"),
    )
    app.add_middleware(Guard, hosts=hosts)
    return app


def _file(result: Result, file: str, threshold: float | None) -> Response:
    name, _, kind = file.rpartition(".")
    if kind == "png" and name in IMAGES:
        content = result.image(name, threshold)
        return Response(content, media_type="image/png") if content else Response(status_code=404)
    policy = {"content-security-policy": REPORT_POLICY}
    if file in ("report.html", "panels.html"):
        text = result.report(threshold, images=file == "report.html")
        return Response(text, media_type="text/html", headers=policy)
    if file == "report.json":
        return Response(result.report_json(threshold), media_type="application/json")
    return Response(status_code=404)


class Server(uvicorn.Server):
    """A server that stops running examinations and open streams before it shuts down.

    Args:
        app: The result of :func:`build_app`.
        service: Examines the photos.
    """

    def __init__(self, app: FastAPI, service: ExaminationService):
        super().__init__(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
        self._service = service
        mounted = (getattr(route, "app", None) for route in app.routes)
        self._streams = [part.stop_event for part in mounted if isinstance(part, gr.routes.App)]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down without messages about interrupted requests."""
        self._service.stop()
        for stream in self._streams:
            stream.set()
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)


class Guard:
    """ASGI middleware that checks the host name and adds security headers to each response.

    The check prevents DNS rebinding: another web site that the visitor has open can resolve its
    own name to this machine, and its requests carry that name.

    Args:
        app: The application.
        hosts: The host names that a request may use for this machine; empty for any.
    """

    def __init__(self, app: ASGIApp, hosts: set[str]):
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if self._hosts and request.url.hostname not in self._hosts:
            await Response("unknown host name", 421)(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("content-security-policy", PAGE_POLICY.format(nonce=nonce))
                headers["x-content-type-options"] = "nosniff"
                headers["referrer-policy"] = "no-referrer"
                if not scope["path"].startswith(("/assets/", "/static/")):
                    headers["cache-control"] = "no-store"
            await send(message)

        if scope["path"] == "/" and scope["method"] == "GET":
            await self._page(scope, receive, guarded, nonce)
        else:
            await self._app(scope, receive, guarded)

    async def _page(self, scope: Scope, receive: Receive, send: Send, nonce: str) -> None:
        """Send Gradio's page without external references, with our script and a nonce."""
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
        start: dict[str, Any] = {}
        body = b""

        async def gather(message: Message) -> None:
            nonlocal body
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                body += message.get("body", b"")

        await self._app(scope, receive, gather)
        text = EXTERNAL.sub("", body.decode())
        text = text.replace("<head>", '<head><script src="/page/viewer.js"></script>', 1)
        body = text.replace("<script", f'<script nonce="{nonce}"').encode()
        MutableHeaders(scope=start)["content-length"] = str(len(body))
        await send(start)
        await send({"type": "http.response.body", "body": body})
