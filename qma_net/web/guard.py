"""Checks on each request and each connection."""

import asyncio
import logging
import socket
import time
from typing import Any
from urllib.parse import SplitResult

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .examinations import Examinations
from .limits import Limits

# The browser loads everything from this server and runs no inline scripts.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # With no-referrer, forms send Origin: null.
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware that checks each request and adds security headers to each response.

    Checking Host prevents DNS rebinding: another web site can resolve its own name to this machine,
    but its requests carry that name. Checking Origin and Sec-Fetch-Site prevents requests that
    another site, or a page on another port of this machine, makes on the visitor's behalf.

    Args:
        app: The application.
        hosts: The accepted values of the Host header; empty for any.
        public: The address at which a proxy publishes the page; its parts may be empty.
    """

    def __init__(self, app: ASGIApp, *, hosts: set[str], public: SplitResult):
        self._app, self._hosts = app, hosts
        self._root, self._public = public.path.rstrip("/"), public.netloc.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("content-security-policy", PAGE_POLICY)
                headers.update(HEADERS)
            await send(message)

        is_root = scope["path"] == self._root
        if self._root and not is_root and not scope["path"].startswith(f"{self._root}/"):
            scope = {**scope, "path": self._root + scope["path"]}  # A proxy has removed the root.
        response = self._refusal(scope)
        if response is None and is_root:
            response = RedirectResponse(f"{self._root}/")  # The page's addresses are relative.
        await (response or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the response that refuses a foreign or ambiguous request; None if allowed."""
        headers = Headers(scope=scope)
        if "transfer-encoding" in headers and "content-length" in headers:
            # A proxy may see the end of such a request elsewhere (request smuggling).
            return _detail("got both Transfer-Encoding and Content-Length", 400)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or (self._hosts and hosts[0].lower() not in self._hosts):
            return _detail("unknown host name", 421)
        names = hosts[0].lower(), self._public
        own = {f"{scheme}://{name}" for scheme in ("http", "https") for name in names if name}
        if any(origin.lower() not in own for origin in headers.getlist("origin")):
            return _detail("requests from other sites are refused", 403)
        if any(site not in ("same-origin", "none") for site in headers.getlist("sec-fetch-site")):
            # A link on another site may lead to the page, which contains no data.
            is_link = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"
            is_page = scope["path"] == f"{self._root}/" and not scope["query_string"]
            if not (is_link and is_page):
                return _detail("requests from other sites are refused", 403)
        return None


class Server(uvicorn.Server):
    """A server that closes stalled connections, and stops examinations before it shuts down.

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
                log_level="error",
                server_header=False,
                timeout_graceful_shutdown=3,
                timeout_keep_alive=5,
            )
        )
        self._examinations = examinations
        self._seen: dict[Any, tuple[Any, float, float]] = {}

    async def on_tick(self, counter: int) -> bool:
        """Clean up; called ten times per second."""
        if counter % 10 == 0:
            self._end_stalled_connections(self._examinations.limits)
        if counter % 50 == 0:
            await asyncio.to_thread(self._examinations.remove_old)
        return await super().on_tick(counter)

    def _end_stalled_connections(self, limits: Limits) -> None:
        """Close connections that are stalled or too slow and, if there are too many, idle ones."""
        now, seen, waiting = time.monotonic(), {}, []
        for connection in list(self.server_state.connections):
            cycle: Any = getattr(connection, "cycle", None)
            unsent = connection.transport.get_write_buffer_size()
            is_waiting = cycle is None or cycle.response_complete
            state = cycle, is_waiting, unsent
            before, since, sending = self._seen.get(connection, (state, now, now))
            since = since if before == state else now
            sending = sending if unsent else now
            seen[connection] = state, since, sending
            is_stalled = (is_waiting or unsent) and now - since > limits.idle_seconds
            if is_stalled or now - sending > limits.response_seconds:
                connection.transport.abort()
            elif is_waiting:
                waiting.append((since, connection))
        excess = max(0, len(seen) - limits.connections)
        for _, connection in sorted(waiting, key=lambda pair: pair[0])[:excess]:
            connection.transport.abort()
        self._seen = seen

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop all examinations and shut down, without messages about interrupted requests."""
        await asyncio.to_thread(self._examinations.close)
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)


def _detail(text: str, status: int) -> JSONResponse:
    return JSONResponse({"detail": text}, status, {"connection": "close"})
