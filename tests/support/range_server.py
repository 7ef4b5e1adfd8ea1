"""A range server on the loopback that stumbles on purpose: `/<fault>/<file>` in a folder.

A process of its own: GDAL opens rasters while it holds Python's lock, so that a server in a thread
of the same process could never answer.

    with range_server(folder) as server:
        open_scene(server.url("ok", "ortho.tif"))
"""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

STALL_S = 60
HEALTHY_BYTES = 1 << 14
"""Of a file whose fault is `dead`, `stall` or `short`, what is served without one: its header."""

HEADER_REQUESTS = 12
"""Requests that an address allows before it `expires`."""


class RangeServer:
    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"

    def url(self, fault: str, name: str) -> str:
        return f"{self.root}/{fault}/{name}"

    def requests(self) -> list[list[str]]:
        """Method, path and range of each request since the last call."""
        with urllib.request.urlopen(f"{self.root}/log") as answer:
            return json.load(answer)


@contextmanager
def range_server(folder: Path):
    """Serve the files of a folder for the block."""
    with subprocess.Popen(
        [sys.executable, __file__, str(folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield RangeServer(int(process.stdout.readline()))
        finally:
            process.kill()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder = Path()
    log: ClassVar[list[tuple[str, str, str]]] = []
    seen: ClassVar[Counter[str]] = Counter()

    def do_GET(self):
        if self.path == "/log":
            body = json.dumps(self.log).encode()
            self.log.clear()
            self._answer(200, body)
            return
        asked = self.headers.get("Range", "")
        self.log.append((self.command, self.path, asked))
        _, _, rest = self.path.partition("/")
        fault, _, name = rest.partition("/")
        path = self.folder / name.partition("?")[0]
        if not path.is_file() or name.endswith("/"):
            self._answer(404, b"")
            return
        getattr(self, f"_{fault}")(path.read_bytes(), asked)

    do_HEAD = do_GET  # noqa: N815 (the library's name)

    def _ok(self, content: bytes, asked: str) -> None:
        first, last = _bounds(content, asked)
        self._answer(206 if asked else 200, content[first : last + 1], of=(first, last, content))

    def _secret(self, content: bytes, asked: str) -> None:
        """Only whoever knows the signature is let in."""
        if "sig=s3cr3t" in self.path:
            self._ok(content, asked)
        else:
            self._answer(403, b"")

    def _expires(self, content: bytes, asked: str) -> None:
        """Lets in whoever has the new signature; the old one serves the header, a few times."""
        first, _ = _bounds(content, asked)
        self.seen[self.path] += 1
        is_old = first < HEALTHY_BYTES and self.seen[self.path] <= HEADER_REQUESTS
        if "sig=new" in self.path or is_old:
            self._ok(content, asked)
        else:
            self._answer(403, b"<Error><Code>AuthenticationFailed</Code></Error>")

    def _whole(self, content: bytes, asked: str) -> None:
        """As a server that knows no ranges."""
        self._answer(200, content)

    def _flaky(self, content: bytes, asked: str) -> None:
        """Fails each range once or twice before it answers, in one of five ways."""
        key = f"{self.command} {self.path} {asked}"
        self.seen[key] += 1
        ways = (self._refuse, self._hang_up, self._overload, self._cut, self._reset)
        way = len(self.seen) % len(ways)
        if self.seen[key] == 1:
            ways[way](content, asked)
        else:
            self._ok(content, asked)

    def _refuse(self, content: bytes, asked: str) -> None:
        self._answer(500, b"out of order")

    def _overload(self, content: bytes, asked: str) -> None:
        self._answer(429, b"slow down")

    def _hang_up(self, content: bytes, asked: str) -> None:
        self.close_connection = True

    def _reset(self, content: bytes, asked: str) -> None:
        self.wfile.write(b"HTTP/1.1 206 Partial Content\r\nContent-Le")
        self.close_connection = True

    def _cut(self, content: bytes, asked: str) -> None:
        """Promises all, sends half, hangs up."""
        first, last = _bounds(content, asked)
        body = content[first : last + 1]
        self._head(206 if asked else 200, len(body), (first, last, content))
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2])
        self.close_connection = True

    def _dead(self, content: bytes, asked: str) -> None:
        """The header is served, then every request fails."""
        self._beyond_header(content, asked, self._refuse)

    def _gone(self, content: bytes, asked: str) -> None:
        self._beyond_header(content, asked, self._hang_up)

    def _halves(self, content: bytes, asked: str) -> None:
        self._beyond_header(content, asked, self._cut)

    def _stall(self, content: bytes, asked: str) -> None:
        self._beyond_header(content, asked, self._stay_silent)

    def _tires(self, content: bytes, asked: str) -> None:
        """Of what lies beyond the header each range is refused once, then never comes."""
        key = f"{self.path} {asked}"
        self.seen[key] += 1
        fail = self._refuse if self.seen[key] == 1 else self._stay_silent
        self._beyond_header(content, asked, fail)

    def _short(self, content: bytes, asked: str) -> None:
        """Says that it sends less than was asked for, and does."""
        self._beyond_header(content, asked, self._send_less)

    def _zeros(self, content: bytes, asked: str) -> None:
        """Right lengths, and nothing in them."""
        self._beyond_header(content, asked, lambda c, a: self._ok(bytes(len(c)), a))

    def _beyond_header(self, content: bytes, asked: str, fail) -> None:
        first, _ = _bounds(content, asked)
        if first < HEALTHY_BYTES or self.command == "HEAD":
            self._ok(content, asked)
        else:
            fail(content, asked)

    def _stay_silent(self, content: bytes, asked: str) -> None:
        first, last = _bounds(content, asked)
        self._head(206, last + 1 - first, (first, last, content))
        self.wfile.write(content[first : first + 100])
        self.wfile.flush()
        time.sleep(STALL_S)
        self.close_connection = True

    def _send_less(self, content: bytes, asked: str) -> None:
        first, last = _bounds(content, asked)
        last = first + (last - first) // 2
        self._answer(206, content[first : last + 1], of=(first, last, content))

    def _answer(self, status: int, body: bytes, of=None) -> None:
        self._head(status, len(body), of)
        if self.command == "GET":
            self.wfile.write(body)

    def _head(self, status: int, length: int, of=None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if of is not None:
            first, last, content = of
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()

    def log_message(self, *args):
        pass


def _bounds(content: bytes, asked: str) -> tuple[int, int]:
    if not asked:
        return 0, len(content) - 1
    first, _, last = asked.removeprefix("bytes=").partition("-")
    return int(first), min(int(last or len(content)), len(content) - 1)


if __name__ == "__main__":
    _Handler.folder = Path(sys.argv[1])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
