"""A web server on this machine that serves files well, or breaks off, lies and refuses as a test says."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit


class Site:
    """What the server has, how it misbehaves, and what it was asked for.

    Attributes:
        files: bytes by path.
        faults: by path: ``"missing"`` (404), ``"corrupt"`` (one bit of the last byte wrong), ``"dies"``
            (every connection closes after ``chunk`` bytes), ``"breaks"`` (the first connection does).
        redirects: path to path.
        chunk: bytes before a connection closes.
        asked: (path, Range header or None, Authorization header or None) of every request.
    """

    def __init__(self, chunk: int = 1000) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, str] = {}
        self.redirects: dict[str, str] = {}
        self.chunk = chunk
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.url = ""

    def paths(self) -> list[str]:
        return [path for path, *_ in self.asked]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: "_Server"

    def do_GET(self) -> None:
        site, path = self.server.site, urlsplit(self.path).path
        wanted = self.headers.get("Range")
        site.asked.append((path, wanted, self.headers.get("Authorization")))
        fault = site.faults.get(path)
        if path in site.redirects:
            self.send_response(302)
            self.send_header("Location", site.url + site.redirects[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "missing" or path not in site.files:
            self.send_error(404)
            return
        content = site.files[path]
        if fault == "corrupt":
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if wanted and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if fault == "dies" or (fault == "breaks" and site.paths().count(path) == 1):
            body = body[: site.chunk]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    site: Site


@contextlib.contextmanager
def serve(chunk: int = 1000) -> Iterator[Site]:
    """Run the server while the block runs."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.site = Site(chunk)
        server.site.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.site
        server.shutdown()
