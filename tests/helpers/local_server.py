"""A web server on this machine that serves files well, or breaks off, lies and refuses as a test says."""

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit


class Site:
    """What the server has, how it misbehaves, and what it was asked for.

    Attributes:
        files: bytes by path.
        faults: by path: ``"missing"`` (404), ``"corrupt"`` (one bit of the last byte wrong), ``"dies"``
            (every connection closes after 1000 bytes), ``"breaks"`` (the first connection does).
        redirects: path to path.
        asked: the path of every GET.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, str] = {}
        self.redirects: dict[str, str] = {}
        self.asked: list[str] = []
        self.url = ""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: "_Server"

    def do_HEAD(self) -> None:
        """What the hub's client asks first: which commit, which checksum, how long, and where."""
        site, path = self.server.site, urlsplit(self.path).path
        content = site.files.get(site.redirects.get(path, path))
        if content is None:
            self.send_error(404)
            return
        self.send_response(302 if path in site.redirects else 200)
        if path in site.redirects:
            self.send_header("Location", site.url + site.redirects[path])
            self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Repo-Commit", path.split("/resolve/")[-1].split("/")[0])
        self.send_header("ETag", hashlib.sha256(content).hexdigest())
        self.end_headers()

    def do_GET(self) -> None:
        site, path = self.server.site, urlsplit(self.path).path
        site.asked.append(path)
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
        body = site.files[path]
        if fault == "corrupt":
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "dies" or (fault == "breaks" and site.asked.count(path) == 1):
            body = body[:1000]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    site: Site


@contextlib.contextmanager
def serve() -> Iterator[Site]:
    """Run the server while the block runs."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.site = Site()
        server.site.url = f"http://127.0.0.1:{server.server_port}"
        often = 0.02  # seconds between two looks whether to end
        threading.Thread(target=server.serve_forever, args=(often,), daemon=True).start()
        yield server.site
        server.shutdown()
