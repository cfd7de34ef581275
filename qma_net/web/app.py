"""The server: Gradio's page, the results' pictures, and what no response may do."""

import logging
import re
import secrets
from pathlib import Path
from typing import Annotated

import gradio as gr
import uvicorn
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.datastructures import MutableHeaders

from ..examine.page_parts import POLICY
from .desk import Desk
from .examples import Example
from .limits import Limits
from .page import build_page, theme
from .sessions import Result

HERE = Path(__file__).parent
STYLE = HERE / "style.css"
VIEWER = {"viewer.js": "text/javascript", "viewer.css": "text/css"}

# What the page's browser may do: load from here, and nothing from anywhere else. Gradio's page
# makes its functions from text ('unsafe-eval') and styles its elements one by one.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval' 'nonce-{nonce}'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
REPORT_POLICY = f"{POLICY}; frame-ancestors 'self'"

# What in Gradio's page names other servers: previews for social networks, fonts, scripts.
FOREIGN = re.compile(
    r'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>'
    r'|<(?:link|script)\b[^>]*(?:href|src)="(?:https?:)?//[^>]*>(?:\s*</script>)?'
    r'|<link rel="manifest"[^>]*>'
)

PICTURES = ("photograph", "mask", "overlay", "unreadable")

Threshold = Annotated[float | None, Query(ge=0, le=1)]


def build_app(desk: Desk, examples: list[Example], *, limits: Limits, hosts: set[str]) -> FastAPI:
    """The whole server.

    Args:
        desk: what examines.
        examples: photographs to try.
        limits: of an upload.
        hosts: names that a request may call this machine by; empty for any.
    """
    undocumented = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    app = FastAPI(**undocumented)

    @app.get("/page/{file}")
    def viewer(file: str) -> Response:
        if file not in VIEWER:
            return Response(status_code=404)
        return FileResponse(HERE / file, media_type=VIEWER[file])

    @app.get("/results/{token}/{file}")
    def result(token: str, file: str, threshold: Threshold = None) -> Response:
        found = desk.sessions.result(token)
        return _file(found, file, threshold) if found else Response(status_code=404)

    gr.mount_gradio_app(
        app,
        build_page(desk, examples),
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
        css=STYLE.read_text(),
    )
    app.add_middleware(Guard, hosts=hosts)
    return app


def _file(result: Result, file: str, threshold: float | None) -> Response:
    name, _, kind = file.rpartition(".")
    if kind == "png" and name in PICTURES:
        content = result.picture(name, threshold)
        return Response(content, media_type="image/png") if content else Response(status_code=404)
    policy = {"content-security-policy": REPORT_POLICY}
    if file in ("report.html", "panels.html"):
        text = result.report(threshold, pictures=file == "report.html")
        return Response(text, media_type="text/html", headers=policy)
    if file == "report.json":
        return Response(result.report_json(threshold), media_type="application/json")
    return Response(status_code=404)


class Server(uvicorn.Server):
    """Ends what runs and what streams before it ends itself, so that it ends in silence.

    Args:
        app: of :func:`build_app`.
        desk: what examines.
    """

    def __init__(self, app: FastAPI, desk: Desk):
        super().__init__(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
        self._desk = desk
        self._streams = [
            route.app.stop_event
            for route in app.routes
            if isinstance(getattr(route, "app", None), gr.routes.App)
        ]

    async def shutdown(self, sockets: list | None = None) -> None:
        """See uvicorn's."""
        self._desk.stop()
        for stream in self._streams:
            stream.set()
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # of what is cut off
        await super().shutdown(sockets)


class Guard:
    """Refuses other names for this machine, and holds every response to the page's promises.

    Another web site that a visitor has open can point a name of its own at this machine; its
    requests carry that name.

    Args:
        app: the server.
        hosts: names that a request may call this machine by; empty for any.
    """

    def __init__(self, app, hosts: set[str]):
        self._app, self._hosts = app, hosts

    async def __call__(self, scope, receive, send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if self._hosts and request.url.hostname not in self._hosts:
            await Response("not the name of this page", 421)(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)

        async def guarded(message) -> None:
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

    async def _page(self, scope, receive, send, nonce: str) -> None:
        """Gradio's page without what is foreign, its scripts known by a nonce, ours before them."""
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
        start, body = {}, b""

        async def gather(message) -> None:
            nonlocal body
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                body += message.get("body", b"")

        await self._app(scope, receive, gather)
        text = FOREIGN.sub("", body.decode())
        text = text.replace("<head>", '<head><script src="/page/viewer.js"></script>', 1)
        body = text.replace("<script", f'<script nonce="{nonce}"').encode()
        MutableHeaders(scope=start)["content-length"] = str(len(body))
        await send(start)
        await send({"type": "http.response.body", "body": body})
