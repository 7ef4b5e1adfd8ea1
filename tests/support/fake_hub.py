"""A hub on the loopback that has one model, and a cache of one's own for it."""

from __future__ import annotations

import hashlib
import http.server
import json
import socket
import threading
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


class FakeHub:
    """The address of a hub, and what it was asked for."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.asked: list[str] = []


@contextmanager
def fake_hub(name: str, folder: Path):
    """Serve the files of a folder as the model of a name."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self._answer(body=True)

        def do_HEAD(self):
            self._answer(body=False)

        def log_message(self, *_):
            pass

        def _answer(self, *, body):
            hub.asked.append(f"{self.command} {self.path}")
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            if self.path.startswith(f"/api/models/{name}"):
                siblings = [{"rfilename": file} for file in sorted(files)]
                data = json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode()
                self._send(data, body=body)
            elif self.path.rpartition("/")[2] in files and f"/{name}/resolve/" in self.path:
                self._send(files[self.path.rpartition("/")[2]], body=body)
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def _send(self, data, *, body):
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub = FakeHub(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def silent_hub():
    """An address that accepts whoever comes, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield FakeHub(f"http://127.0.0.1:{listener.getsockname()[1]}")


def use_hub(monkeypatch, root: str, cache: Path) -> None:
    """Let the hub's library ask an address, and keep its files in a folder."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", root)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", root + "/{repo_id}/resolve/{revision}/{filename}"
    )


def as_downloaded(name: str, folder: Path, cache: Path) -> Path:
    """A cache with the files of a folder as `hf download` leaves them; the snapshot."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        (snapshot / path.name).write_bytes(path.read_bytes())
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot
