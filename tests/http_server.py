"""A real HTTP server on this machine, serving bytes from memory, well or badly."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """What is served under one path, and how.

    `failures` are statuses answered first, one per request; `cut` are numbers of bytes after which the connection is
    closed, one per request; `announced` replaces the length the server speaks of; `stall` answers nothing more after
    these bytes, once.
    """

    content: bytes = b""
    status: int = 200
    failures: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    ranges: bool = True
    tag: str | None = '"v1"'
    announced: int | None = None
    length: bool = True
    kind: str = "application/octet-stream"
    redirect: str | None = None
    stall: int | None = None


@dataclass
class Server:
    """The pages by path and the requests that came."""

    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""
    release: threading.Event = field(default_factory=threading.Event)

    def serve(self, path: str, content: bytes = b"", **how: object) -> str:
        """Add a page; returns its address."""
        self.pages[path] = Page(content, **how)  # type: ignore[arg-type]
        return self.url + path


@contextlib.contextmanager
def running() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            page = server.pages.get(self.path, Page(status=404))
            asked = self.headers.get("Range")
            server.requests.append((self.path, asked))
            status = page.failures.pop(0) if page.failures else page.status
            if page.redirect:
                self.send_response(302)
                self.send_header("Location", page.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body, start = page.content if status == 200 else b"", 0
            known = self.headers.get("If-Range") in (None, page.tag)
            if status == 200 and asked and page.ranges and known:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                status = 206 if start < len(body) else 416
                body = body[start:] if status == 206 else b""
            self.send_response(status)
            self.send_header("Content-Type", page.kind)
            if page.tag:
                self.send_header("ETag", page.tag)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(page.content) - 1}/{len(page.content)}")
            cut = page.cut.pop(0) if page.cut and status in (200, 206) else None
            if page.length:
                self.send_header("Content-Length", str(page.announced if page.announced is not None else len(body)))
            if not page.length or cut is not None:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                if page.stall is not None:
                    stop, page.stall = page.stall, None
                    self.wfile.write(body[:stop])
                    self.wfile.flush()
                    server.release.wait(20)
                    self.close_connection = True
                    return
                self.wfile.write(body if cut is None else body[:cut])

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    try:
        yield server
    finally:
        server.release.set()
        httpd.shutdown()
        httpd.server_close()
        thread.join()
