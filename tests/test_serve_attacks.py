"""Attacks on ``qma-net serve`` from other sites, from the network and by files."""

import itertools
import os
import resource
import select
import signal
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from forks import HANG_TIMEOUT
from qma_net.core.runs import FolderLock
from qma_net.web.limits import Limits
from qma_net.web.serve import FOLDER_PREFIX, remove_abandoned_folders
from serving import (
    PART,
    PHOTO,
    SMALL,
    STRICT,
    TOKEN,
    Server,
    connect,
    encoded,
    eventually,
    examine,
    head,
    multipart,
    open_client,
    post,
    raw,
)

OTHER_SITES = [
    {"Host": "evil.example"},
    {"Host": "127.0.0.1:1"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
]


@pytest.mark.parametrize("headers", OTHER_SITES)
def test_requests_from_other_sites_are_refused(client, server, headers):
    state = examine(client, SMALL)
    base = f"/api/examinations/{state['id']}"
    before = server.visitor_files()
    for path in ("", "/report.html", "/report.json", "/mask.png", "/events"):
        assert client.get(base + path, headers=headers).status_code in (403, 421)
    assert client.delete(base, headers=headers).status_code in (403, 421)
    assert post(client, headers=headers).status_code in (403, 421)
    assert server.visitor_files() == before
    assert client.delete(base).status_code == 204


def test_link_on_another_site_leads_to_the_page_only(client):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=headers).status_code == 200
    assert client.get("/openapi.json", headers=headers).status_code == 403


def test_requests_of_gradio_read_no_file(client, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret words")
    given = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    query = {"data": [given, False], "fn_index": 0, "session_hash": "a"}
    for response in (
        client.post("/gradio_api/queue/join", json=query),
        client.get("/gradio_api/deep_link?session_hash=a"),
        client.get("/config?deep_link=a"),
        client.get(f"/gradio_api/file={secret}"),
        client.post("/gradio_api/upload", files={"files": ("a.jpg", PHOTO)}),
        client.post("/api/examinations", json=given),
        client.post("/api/examinations", data={"photograph": str(secret)}),
        client.post("/api/examinations", data={"photograph": "/dev/zero"}),
        client.post("/api/examinations", data={"photograph": "http://127.0.0.1/"}),
    ):
        assert 400 <= response.status_code < 500
        assert "secret words" not in response.text


TRAVERSALS = (
    "/static/../app.py",
    "/static/..%2fapp.py",
    "/static/%2e%2e%2fapp.py",
    "/static//etc/passwd",
    "/static/%00",
    "/examples/../../upload",
    "/examples/-1.jpg",
    "/examples/0.jpg%00.png",
    "/api/examinations/../../../etc/passwd",
    "/api/examinations/%2e%2e",
    "/api/examinations/%2e%2e/report.html",
    "/api/examinations/%2e%2e%2fexamples/mask.png",
    "/api/examinations//etc/mask.png",
)


@pytest.mark.parametrize("path", TRAVERSALS)
def test_paths_do_not_lead_out_of_a_folder(server, path):
    host = f"127.0.0.1:{server.port}"
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    status = int(raw(server.port, request.encode()).split()[1])
    assert status in (400, 404, 405, 422)


@pytest.mark.parametrize("file", ["upload", "examination.pickle", "0.bin", "upload.png", "x.html"])
def test_internal_files_are_not_served(client, file):
    state = examine(client, SMALL)
    base = f"/api/examinations/{state['id']}"
    assert client.get(f"{base}/{file}").status_code == 404
    client.delete(base)


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "2", "", "x", "1e999", "\x00", "0.5;"])
def test_invalid_thresholds_are_refused(client, value):
    state = examine(client, SMALL)
    base = f"/api/examinations/{state['id']}"
    for file in ("report.html", "report.json", "overlay.png"):
        assert client.get(f"{base}/{file}", params={"threshold": value}).status_code == 422
    client.delete(base)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({}, 415),
        ({"content": b"", "headers": {"content-type": "multipart/form-data"}}, 400),
        (
            {"content": b"words", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            400,
        ),
        ({"content": b"", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400),
        (multipart(), 400),
        (multipart(PART), 400),
        (multipart(PART + b"words"), 415),
        (multipart(PART + PHOTO, PART + PHOTO), 400),
        (multipart(b"\r\n" + PHOTO), 400),
        (multipart(PART.replace(b"photograph", b"files") + PHOTO), 400),
        (multipart(PART.replace(b'; filename="a.jpg"', b"") + PHOTO), 400),
        (multipart(b"A: " + b"b" * 9000 + b"\r\n" + PART + PHOTO), 400),
        (multipart(*[b"A: b\r\n" * 20 + PART + PHOTO]), 400),
        ({**multipart(PART + PHOTO), "params": {"native": "7"}}, 422),
        ({**multipart(PART + PHOTO), "params": {"native": ""}}, 422),
    ],
)
def test_malformed_uploads_are_refused_and_leave_no_file(client, server, request_, status):
    before = server.visitor_files()
    response = client.post("/api/examinations", **request_)
    assert response.status_code == status, response.text
    assert response.json()["detail"]
    assert server.visitor_files() == before


@pytest.mark.parametrize(
    "name", ["a" * 5000, "\x1b[31m.jpg", "=1+1.jpg", "/", "<img>.jpg", "\ud800"]
)
def test_unusual_file_names_are_only_displayed(client, name):
    part = PART.replace(b"a.jpg", name.encode("utf-8", "surrogatepass"))
    response = client.post("/api/examinations", **multipart(part + SMALL))
    assert response.status_code == (400 if len(name) > 4000 else 202)
    if response.status_code == 202:
        state = client.get(f"/api/examinations/{response.json()['id']}").json()
        assert len(state["name"]) <= 300
        assert state["name"].isprintable()
        client.delete(f"/api/examinations/{state['id']}")


def test_server_requires_its_token(servers):
    with open_client(servers[1].address()) as visitor:
        assert visitor.get("/healthz").status_code == 200
        assert post(visitor).status_code == 401
        for value in ("", "Bearer", "Bearer x", "Basic " + TOKEN, f"Bearer {TOKEN}x", "Bearer é"):
            headers = {"Authorization": value.encode()}
            assert visitor.get("/openapi.json", headers=headers).status_code == 401
        assert "Access token" in visitor.get("/").text
        assert visitor.post("/login", data={"token": "wrong"}).status_code == 401
        assert visitor.post("/login", content=bytes(10_000)).status_code == 413
        assert visitor.get("/?token=wrong").status_code == 401
        answer = visitor.post("/login", data={"token": TOKEN})
        assert (answer.status_code, answer.headers["location"]) == (303, "/forensics/")
        cookie = answer.headers["set-cookie"].lower()
        assert all(part in cookie for part in ("httponly", "samesite=strict", "path=/forensics/"))
        assert visitor.get("/forensics/openapi.json").status_code == 200
        assert visitor.get("/forensics/").text.startswith("<!DOCTYPE html>")
    assert httpx.get(f"{servers[1].address()}/?token={TOKEN}").status_code == 303


def test_large_uploads_are_refused(strict):
    content = b"\xff\xd8\xff" + bytes(2**18 + 2**13)  # The multipart request may have 2**13 more.
    assert post(strict, content).status_code == 413
    chunks = (multipart(PART + content)["content"][i : i + 9999] for i in range(0, 2**19, 9999))
    kind = {"content-type": "multipart/form-data; boundary=x"}
    response = strict.post("/api/examinations", content=chunks, headers=kind)  # without a length
    assert response.status_code == 413
    state = examine(strict, encoded(np.zeros((1200, 1000, 3), np.uint8)), "wide.jpg")
    assert "wide.jpg has 1000x1200 pixels; the page accepts at most 1 million" in state["error"]
    strict.delete(f"/api/examinations/{state['id']}")


# Seconds in which every slow client is ended, also on a busy machine.
SLOWEST_END = 40 * STRICT.idle_seconds


def send_without_a_pause(port: int) -> bytes:
    """Send an upload byte by byte, until there is an answer."""
    answer = b""
    with connect(port) as slow:
        slow.sendall(head(port))
        deadline = time.monotonic() + HANG_TIMEOUT
        while not answer and time.monotonic() < deadline:
            slow.sendall(b"x")
            if select.select([slow], [], [], 0.2)[0]:
                answer = slow.recv(100)
    return answer


def test_slow_and_incomplete_requests_are_ended(servers):
    port, started = servers[1].port, time.monotonic()
    with ThreadPoolExecutor() as pool:
        incomplete = head(port), b"", b"GET / HTTP/1.1\r\nHost: "
        paused, silent, half = (pool.submit(raw, port, request) for request in incomplete)
        slow = pool.submit(send_without_a_pause, port)
        assert paused.result().startswith(b"HTTP/1.1 408 ")
        assert (silent.result(), half.result()) == (b"", b"")
        assert slow.result().startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - started < SLOWEST_END
    with connect(port) as cut:
        cut.sendall(head(port))
        assert eventually(servers[1].examinations)
    assert eventually(lambda: not servers[1].examinations())


def test_open_uploads_and_connections_are_limited(servers, strict):
    port = servers[1].port
    opened = [connect(port) for _ in range(STRICT.uploads)]
    for connection in opened:
        connection.sendall(head(port))
    assert eventually(lambda: len(servers[1].examinations()) == STRICT.uploads)
    response = post(strict, SMALL)
    assert (response.status_code, response.headers["retry-after"]) == (429, "10")
    for connection in opened:
        connection.close()
    silent = [connect(port) for _ in range(300)]
    assert strict.get("/healthz").status_code == 200
    for connection in silent:
        connection.close()
    assert eventually(lambda: not servers[1].examinations())


def test_only_folders_of_killed_servers_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = f"{FOLDER_PREFIX}1", f"{FOLDER_PREFIX}2", "other"
    abandoned, active, other = (tmp_path / name for name in names)
    for folder in (abandoned, active, other):
        folder.mkdir()
        (folder / "photo.png").touch()
    (tmp_path / f"{FOLDER_PREFIX}3").symlink_to(other)
    with FolderLock(active):
        remove_abandoned_folders()
    assert not abandoned.exists()
    assert (active / "photo.png").exists()
    assert (other / "photo.png").exists()


HOSTS = {
    "127.0.0.1:PORT": 200,
    "localhost:PORT": 200,
    "LocalHost:PORT": 200,
    "[::1]:PORT": 200,
    "evil.example": 421,
    "evil.example:PORT": 421,  # DNS rebinding
    "127.0.0.1": 421,
    "127.0.0.1:0PORT": 421,
    "127.0.0.1:PORT.": 421,
    "127.0.0.1.:PORT": 421,
    "localhost.:PORT": 421,
    "localhost.evil.example:PORT": 421,
    "127.0.0.1.nip.io:PORT": 421,
    "127.1:PORT": 421,
    "0:PORT": 421,
    "0.0.0.0:PORT": 421,
    "2130706433:PORT": 421,
    "0x7f000001:PORT": 421,
    "::1:PORT": 421,
    "[::]:PORT": 421,
    "[::ffff:127.0.0.1]:PORT": 421,
    "[::1%lo]:PORT": 421,
    "user@127.0.0.1:PORT": 421,
    "127.0.0.1:PORT@evil.example": 421,
    "127.0.0.1:PORT, evil.example": 421,
    "127.0.0.1:PORT/": 421,
    "": 421,
}


@pytest.mark.parametrize("host", HOSTS)
def test_only_names_of_this_machine_are_accepted(server, host):
    name = host.replace("PORT", str(server.port))
    request = f"GET /openapi.json HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
    assert int(raw(server.port, request.encode()).split()[1]) == HOSTS[host]


FORM_TYPES = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x")


@pytest.mark.parametrize("kind", FORM_TYPES)
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_forms_from_other_sites_are_refused(client, server, kind, site):
    """A form needs no permission of CORS; browsers send Origin, Sec-Fetch-Site or both."""
    content, before = multipart(PART + SMALL)["content"], server.examinations()
    origins = {"Origin": "http://127.0.0.1:1"}, {"Sec-Fetch-Site": site}
    for origin in (*origins, origins[0] | origins[1]):
        headers = {"Content-Type": kind, "Sec-Fetch-Mode": "navigate", **origin}
        for path in ("/api/examinations", "/login", "/"):
            assert client.post(path, content=content, headers=headers).status_code == 403
    assert server.examinations() == before


HOST = b"Host: 127.0.0.1:PORT\r\n"
CLOSE = b"Connection: close\r\n\r\n"
GET, POST = b"GET /healthz HTTP/1.1\r\n" + HOST, b"POST /api/examinations HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
MULTIPART = b"Content-Type: multipart/form-data; boundary=x\r\n"
MALFORMED = {
    "chunked with a length": (CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + GET + CLOSE, 400),
    "length before chunked": (
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET + CLOSE,
        400,
    ),
    "two lengths": (POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400),
    "list of lengths": (POST + b"Content-Length: 4, 5\r\n\r\nabcde", 400),
    "negative length": (POST + b"Content-Length: -1\r\n" + CLOSE, 400),
    "signed length": (POST + b"Content-Length: +1\r\n" + CLOSE, 400),
    "hexadecimal length": (POST + b"Content-Length: 0x5\r\n" + CLOSE, 400),
    "length of 30 digits": (
        POST + MULTIPART + b"Content-Length: " + b"9" * 30 + b"\r\n" + CLOSE,
        400,
    ),
    "unknown encoding": (POST + b"Transfer-Encoding: xchunked\r\n" + CLOSE, 400),
    "two encodings": (POST + b"Transfer-Encoding: gzip, chunked\r\n" + CLOSE, 400),
    "encoding with a control character": (
        POST + b"Transfer-Encoding: chunked\x0b\r\n" + CLOSE,
        400,
    ),
    "space before a colon": (GET + b"Content-Length : 4\r\n" + CLOSE, 400),
    "NUL in a header": (GET + b"A: \0\r\n" + CLOSE, 400),
    "lone CR": (GET.replace(b"\r\n", b"\r") + CLOSE, 400),
    "chunk size that is no number": (CHUNKED + MULTIPART + CLOSE + b"zz\r\n", 400),
    "chunk without its end": (CHUNKED + MULTIPART + CLOSE + b"1\r\nab", 400),
    "two hosts": (GET + HOST + CLOSE, 400),
    "no host": (b"GET / HTTP/1.1\r\n" + CLOSE, 400),
    "HTTP/1.0 without a host": (b"GET / HTTP/1.0\r\n\r\n", 421),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 421),
    "TLS": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n", 400),
    "200 KB header": (GET + b"A: " + b"b" * 200_000 + b"\r\n" + CLOSE, 400),
    "20,000 headers": (GET + b"A: b\r\n" * 20_000 + CLOSE, 200),
    "200 KB path": (b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n" + HOST + CLOSE, 400),
    "address of another server": (
        b"GET http://evil.example/healthz HTTP/1.1\r\n" + HOST + CLOSE,
        404,
    ),
    "path of another server": (b"GET //evil.example/ HTTP/1.1\r\n" + HOST + CLOSE, 404),
    "CONNECT": (b"CONNECT evil.example:80 HTTP/1.1\r\n" + HOST + CLOSE, 404),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\n" + HOST + CLOSE, 404),
    "unknown method": (b"FOO / HTTP/1.1\r\n" + HOST + CLOSE, 405),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_request_gets_one_answer(server, name):
    """A second answer would mean that a hidden request was executed (request smuggling)."""
    request, status = MALFORMED[name]
    answer = raw(server.port, request.replace(b"PORT", str(server.port).encode()))
    assert int(answer.split()[1]) == status
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("upgrade", ["websocket", "h2c", "TLS/1.0"])
def test_upgrades_are_ignored(client, upgrade):
    headers = {"Connection": "Upgrade", "Upgrade": upgrade, "Sec-WebSocket-Version": "13"}
    for path, status in (("/", 200), ("/api/examinations/x/events", 404)):
        assert client.get(path, headers=headers).status_code == status


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "PATCH", "TRACE"])
def test_other_methods_are_refused(client, method):
    headers = {"Origin": str(client.base_url).rstrip("/")}
    headers |= {"Access-Control-Request-Method": "DELETE", "X-HTTP-Method-Override": "DELETE"}
    for path in ("/", "/api/examinations", "/api/examinations/x", "/healthz", "/login"):
        response = client.request(method, path, headers=headers)
        assert response.status_code == 405
        assert not any(name.startswith("access-control") for name in response.headers)


def test_wrong_length_of_a_body_is_refused(servers):
    port, body = servers[1].port, multipart(PART + SMALL)["content"]
    start = head(port, len(body) + 1).partition(b"--x")[0]
    assert raw(port, start + body).startswith(b"HTTP/1.1 408 ")  # One byte never arrives.
    start = head(port, len(body) // 2).partition(b"--x")[0]
    assert raw(port, start + body).startswith(b"HTTP/1.1 400 ")  # The photo is cut.
    assert eventually(lambda: not servers[1].visitor_files())


PARTS = {
    "1,000 parts": [PART + SMALL] * 1000,
    "100,000 empty parts": [b"\r\n"] * 100_000,
    "field and file": [b'Content-Disposition: form-data; name="a"\r\n\r\nb', PART + SMALL],
    "nested multipart": [
        PART.replace(b"\r\n\r\n", b"\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n")
        + b"--y\r\n\r\n"
        + SMALL
        + b"\r\n--y--"
    ],
    "base64": [
        PART.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n")
        + b"iVBORw0KGgo="
    ],
    "100 KB part header": [b"A: " + b"b" * 100_000 + b"\r\n" + PART + SMALL],
    "100 KB header name": [b"A" * 100_000 + b": b\r\n" + PART + SMALL],
    "1,000 part headers": [b"A: b\r\n" * 1000 + PART + SMALL],
    "100 KB file name": [PART.replace(b"a.jpg", b"a" * 100_000) + SMALL],
    "10,000 parameters": [PART.replace(b"\r\n\r\n", b"; a=b" * 10_000 + b"\r\n\r\n") + SMALL],
    "colon is missing": [PART.replace(b":", b"") + SMALL],
    "no disposition": [b"Content-Type: image/png\r\n\r\n" + SMALL],
}


def cpu_seconds(server: Server) -> float:
    """Return the CPU time of the server's process, which other work on the machine leaves alone."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("name", PARTS)
def test_malformed_multipart_body_is_refused_quickly(client, server, name):
    before, seconds = server.examinations(), cpu_seconds(server)
    response = client.post("/api/examinations", **multipart(*PARTS[name]))
    assert response.status_code in (400, 415)
    assert cpu_seconds(server) - seconds < 10
    assert server.examinations() == before


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data; boundary=" + "x" * 300,
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=y",
        "multipart/form-data; charset=nonsense",
        "multipart/form-data; boundary=\xe9",
        "multipart/form-data" + ";" * 5000,
        "multipart/mixed; boundary=x",
        "text/plain; boundary=x",
        "",
    ],
)
def test_invalid_content_type_is_refused(client, kind):
    content = multipart(PART + SMALL)["content"]
    headers = {"Content-Type": kind.encode("latin-1")}
    response = client.post("/api/examinations", content=content, headers=headers)
    assert response.status_code in (400, 415)


def test_compressed_body_is_not_expanded(client, server):
    request = multipart(PART + SMALL)
    for coding in ("gzip", "deflate", "br", "gzip, gzip"):
        bomb = {**request, "content": b"\x1f\x8b\x08\0" + bytes(5000)}
        bomb["headers"] = request["headers"] | {"Content-Encoding": coding}
        assert client.post("/api/examinations", **bomb).status_code == 400


RESPONSES = [
    ("GET", "/", 200, {}),
    ("GET", "/static/page.js", 200, {}),
    ("GET", "/openapi.json", 200, {}),
    ("GET", "/missing", 404, {}),
    ("GET", "/static/missing", 404, {}),
    ("PUT", "/", 405, {}),
    ("GET", "/examples/<script>.jpg", 422, {}),
    ("GET", "/examples/0.jpg", 200, {}),
    ("POST", "/api/examinations", 415, {}),
    ("GET", "/", 421, {"Host": "evil.example"}),
    ("GET", "/", 403, {"Origin": "https://evil.example"}),
    ("GET", "ID", 200, {}),
    ("GET", "ID/events", 200, {}),
    ("GET", "ID/report.html", 200, {}),
    ("GET", "ID/panels.html", 200, {}),
    ("GET", "ID/report.json", 200, {}),
    ("GET", "ID/photograph.png", 200, {}),
    ("GET", "ID/overlay.png?threshold=0.2", 200, {}),
    ("GET", "ID/mask.png?threshold=<script>", 422, {}),
    ("DELETE", "ID", 204, {}),
    ("GET", "ID", 404, {}),
]


def test_every_response_is_private_and_forbids_foreign_content(client):
    name = examine(client, SMALL)["id"]
    for method, path, status, headers in RESPONSES:
        path = path.replace("ID", f"/api/examinations/{name}")
        response = client.request(method, path, headers=headers)
        assert response.status_code == status, path
        kept = response.headers
        policy = kept["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors" in policy
        assert (kept["cache-control"], kept["x-content-type-options"]) == ("no-store", "nosniff")
        assert kept["cross-origin-resource-policy"] == "same-origin"
        assert kept["cross-origin-opener-policy"] == "same-origin"
        assert kept["referrer-policy"] == "same-origin"
        assert "server" not in kept
        if status >= 400:
            assert kept["content-type"] == "application/json"
            assert "Traceback" not in response.text


GUESSES = (
    *("{0}x", "{1}", "{2}", "{0}/", "{0}%00", "{0}%20", "%00{0}", "{0}/../{0}", "..%2f{0}"),
    *("*", "%2a", "undefined", "{0}?threshold=1&name={0}", "%EF%BC%8E%EF%BC%8E"),
    *("{0};", "{0}.", "{0}%2fmask.png"),
)


@pytest.mark.parametrize("guess", GUESSES)
def test_only_the_exact_id_deletes(client, guess):
    name = examine(client, SMALL)["id"]
    path = f"/api/examinations/{guess.format(name, name.swapcase(), name[:-1])}"
    request = f"DELETE {path} HTTP/1.1\r\nHost: {client.base_url.netloc.decode()}\r\n"
    status = int(raw(client.base_url.port, request.encode() + CLOSE).split()[1])
    if status == 204:
        assert guess.startswith("{0}?")  # A query does not change the id.
    else:
        assert status in (404, 405)
        assert client.delete(f"/api/examinations/{name}").status_code == 204


CREDENTIALS = [
    {"params": {"token": TOKEN}},
    {"headers": {"Cookie": f"token={TOKEN}"}},
    {"headers": {"Cookie": f"qma_net_1={TOKEN}"}},
    {"headers": {"Cookie": f"qma_net_PORT={TOKEN[:-1]}"}},
    {"headers": {"Cookie": f"qma_net_PORT={TOKEN}x"}},
    {"headers": {"Cookie": f"qma_net_PORT={TOKEN}", "Authorization": "Bearer wrong"}},
    {"headers": {"Authorization": TOKEN}},
    {"headers": {"Authorization": f"Bearer  {TOKEN}"}},
    {"headers": {"Authorization": "Bearer " + TOKEN.swapcase()}},
    {"headers": {"Authorization": b"Bearer \xff\xfe"}},
    {"headers": {"X-Token": TOKEN, "Referer": f"/?token={TOKEN}"}},
    {"auth": ("", TOKEN)},
]


@pytest.mark.parametrize("number", range(len(CREDENTIALS)))
def test_other_credentials_are_refused(servers, number):
    given = CREDENTIALS[number]
    text = str(servers[1].port)
    if cookie := given.get("headers", {}).get("Cookie"):
        given = {"headers": given["headers"] | {"Cookie": cookie.replace("PORT", text)}}
    with open_client(servers[1].address()) as visitor:
        for path in ("/openapi.json", "/examples/0.jpg", "/api/examinations/x"):
            assert visitor.get(path, **given).status_code == 401
        assert visitor.post("/api/examinations", **given).status_code == 401
        assert visitor.get("/static/page.js").status_code == 200  # It contains no data.


CONFUSIONS = (
    *("/forensics/forensics/openapi.json", "/forensics//openapi.json"),
    *("/forensics%2fopenapi.json", "/FORENSICS/openapi.json", "/forensicsopenapi.json"),
    *("/forensics/../openapi.json", "//openapi.json", "/static/../openapi.json"),
    *("/static/..%2fopenapi.json", "/healthz/../openapi.json"),
    *("/forensics/static/%2e%2e/openapi.json", "/openapi.json/", "/openapi.json%00"),
    "/OPENAPI.json",
)


@pytest.mark.parametrize("path", CONFUSIONS)
def test_malformed_paths_do_not_bypass_the_token(servers, path):
    port = servers[1].port
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode() + CLOSE
    answer = raw(port, request)
    assert int(answer.split()[1]) in (401, 404)
    assert b"/api/examinations" not in answer


HTML = b"<script>alert(1)</script>"
POLYGLOTS = {
    "JPEG with HTML after it": (PHOTO + HTML, 202),
    "JPEG with a comment of HTML": (PHOTO[:2] + b"\xff\xfe\0\x1b" + HTML + PHOTO[2:], 202),
    "PNG with HTML after it": (SMALL + b"<!DOCTYPE html>" + HTML, 202),
    "PNG with a ZIP archive after it": (SMALL + b"PK\x03\x04" + HTML, 202),
    "GIF that is a script": (b"GIF89a/*" + HTML + b"*/=1;alert(1)", 202),
    "HTML with a JPEG in it": (HTML + PHOTO, 415),
    "SVG with a script": (b"<svg xmlns='http://www.w3.org/2000/svg'>" + HTML + b"</svg>", 415),
    "PDF with a JPEG in it": (b"%PDF-1.4\n" + HTML + PHOTO, 415),
    "PostScript": (b"%!PS\n(/etc/passwd) run " + HTML, 415),
    "ZIP archive": (b"PK\x03\x04" + HTML, 415),
}


@pytest.mark.parametrize("name", POLYGLOTS)
def test_content_of_an_upload_is_never_sent_back(client, name):
    content, status = POLYGLOTS[name]
    response = post(client, content)
    assert response.status_code == status
    assert HTML not in response.content
    if status == 202:
        base = f"/api/examinations/{response.json()['id']}"
        assert eventually(lambda: client.get(base).json()["state"] in ("done", "failed"))
        for path in ("", "/report.html", "/report.json", "/photograph.png", "/overlay.png"):
            answer = client.get(base + path)
            is_page = answer.headers["content-type"].startswith("text/html")
            assert HTML not in answer.content or not is_page
        client.delete(base)


@pytest.fixture
def waiting(servers, strict):
    """An examination that does not advance."""
    os.kill(process := servers[1].worker(), signal.SIGSTOP)
    name = post(strict, SMALL).json()["id"]
    yield f"/api/examinations/{name}"
    os.kill(process, signal.SIGCONT)
    strict.delete(f"/api/examinations/{name}")


def test_event_streams_are_limited(servers, strict, waiting):
    port, opened = servers[1].port, []
    request = f"GET {waiting}/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    request += f"Authorization: Bearer {TOKEN}\r\n\r\n"
    for _ in range(STRICT.streams):
        opened.append(connect(port))
        opened[-1].sendall(request.encode())
        assert opened[-1].recv(2000).startswith(b"HTTP/1.1 200 ")  # Nobody reads more than this.
    assert strict.get(f"{waiting}/events").status_code == 429
    time.sleep(2 * STRICT.idle_seconds)
    assert strict.get("/healthz").status_code == 200
    for connection in opened:
        connection.close()

    def is_free() -> bool:
        with strict.stream("GET", f"{waiting}/events") as response:
            return response.status_code == 200

    assert eventually(is_free)


def test_slow_readers_are_ended(servers, strict):
    """One client reads a little again and again, and two read nothing."""
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    base = f"/api/examinations/{examine(strict, encoded(noise, quality=8))['id']}"
    assert len(strict.get(f"{base}/photograph.png").content) > 10**6
    strict.get("/healthz", headers={"Connection": "close"})
    descriptors = Path(f"/proc/{servers[1].process.pid}/fd")
    before, started = len(list(descriptors.iterdir())), time.monotonic()
    opened = []
    for file in ("photograph.png", "photograph.png", "report.html"):
        request = f"GET {base}/{file} HTTP/1.1\r\nHost: 127.0.0.1:{servers[1].port}\r\n"
        request += f"Authorization: Bearer {TOKEN}\r\n\r\n"
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", servers[1].port))
        connection.sendall(40 * request.encode())  # More than the buffers of the system.
        opened.append(connection)
    assert eventually(lambda: len(list(descriptors.iterdir())) > before)

    def are_ended() -> bool:
        with suppress(ConnectionError):
            opened[0].recv(512)
        return len(list(descriptors.iterdir())) <= before

    assert eventually(are_ended)
    assert time.monotonic() - started < SLOWEST_END
    for connection in opened:
        connection.settimeout(HANG_TIMEOUT)
        with suppress(ConnectionError):
            while connection.recv(65536):  # Up to the end, or a TimeoutError.
                pass
        connection.close()
    strict.delete(base)


def test_server_recovers_from_a_lack_of_file_descriptors(tmp_path):
    server = Server(tmp_path / "server", "--checkpoint", "none")
    address, process = server.address(), server.process.pid
    used = len(os.listdir(f"/proc/{process}/fd"))
    resource.prlimit(process, resource.RLIMIT_NOFILE, (used + 20, used + 20))
    opened = [connect(server.port) for _ in range(60)]
    time.sleep(2)
    for connection in opened:
        connection.close()
    with open_client(address) as client:
        state = examine(client, SMALL)
        assert state["state"] == "done"
    server.end()
    assert list(server.temporary.iterdir()) == []


def test_stopping_while_finishing_gives_one_result(client, server):
    for number in range(14):  # All pairs of a delay, and of waiting for the result or not.
        name = post(client, SMALL).json()["id"]
        base = f"/api/examinations/{name}"
        statuses = []

        def read(base=base, statuses=statuses) -> None:
            with open_client(client.base_url) as other:
                for file in itertools.cycle(("", "/report.html", "/mask.png", "/overlay.png")):
                    statuses.append(other.get(base + file).status_code)
                    time.sleep(0.01)  # Leave time for the examination.
                    if file == "" and statuses[-1] == 404:
                        return

        reader = threading.Thread(target=read)
        reader.start()
        if number % 2:
            assert eventually(lambda base=base: client.get(base).json()["state"] == "done")
        time.sleep(0.03 * (number % 7))
        assert client.delete(base).status_code == 204
        reader.join()
        assert set(statuses) <= {200, 404, 409}
    assert eventually(lambda: not server.examinations())
    assert examine(client, SMALL)["state"] == "done"


def test_killed_server_leaves_no_process_and_the_next_one_removes_its_files(tmp_path):
    server = Server(tmp_path, "--checkpoint", "none")
    with open_client(server.address()) as client:
        examine(client, SMALL)
    process, files = server.worker(), server.visitor_files()
    assert files
    planted = files[0].parents[2] / "planted"
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    planted.symlink_to(tmp_path, target_is_directory=True)
    server.process.kill()
    server.process.wait()
    assert eventually(lambda: not os.path.exists(f"/proc/{process}"))
    second = Server(tmp_path, "--checkpoint", "none")
    second.address()
    assert not any(path.exists() for path in files)
    assert precious.read_bytes() == b"precious"
    second.end()
    assert list(second.temporary.iterdir()) == []


def test_results_survive_jumps_of_the_clock(tmp_path):
    code = (
        "import itertools, time; real, jumps = time.time, itertools.cycle([0, 4e8, -4e8]); "
        "time.time = lambda: real() + next(jumps)"
    )
    limits = Limits(kept_minutes=0.5, claim_minutes=0.5, minutes=0.5)
    server = Server(tmp_path / "server", "--checkpoint", "none", limits=limits, code=code)
    with open_client(server.address()) as client:
        state = examine(client, SMALL)
        assert state["state"] == "done"
        time.sleep(6)  # Old examinations are removed every five seconds.
        assert client.get(f"/api/examinations/{state['id']}/report.html").status_code == 200
    server.end()


def test_result_that_does_not_fit_on_the_disk_is_reported(servers, strict):
    process = servers[1].worker()
    soft, hard = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (1000, hard))
    state = examine(strict, SMALL)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (soft, hard))
    assert (state["state"], state["error"]) == ("failed", "cannot store the result: File too large")
    assert not servers[1].visitor_files()
