"""A Hub on this machine: a small HTTP server that speaks the Hub's protocol, and misbehaves where it is told to.

It serves folders as repositories of one commit: /api/models/… with sizes, HEAD and GET of /…/resolve/…, ranges,
etags, X-Repo-Commit, X-Error-Code, and a redirect to another address for weights.
"""

import hashlib
import json
import re
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HANG = 30.0
"""Seconds of silence: longer than any test waits."""
_INFO = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_STORE = re.compile(r"/store/([^/]+/[^/]+)/(.+)")


@dataclass
class Hub:
    """The server's repositories, how it misbehaves, and what it was asked.

    `faults` maps a part of a path to "hang", "gated", "private", "cut" (half of what it promised), "nonsense" (no
    JSON), "all" (the range is ignored), "drip" (byte by byte) or an HTTP status. `sent` are bytes of bodies, `tokens`
    what was shown, by path.
    """

    url: str = ""
    repositories: dict[str, Path] = field(default_factory=dict)
    commit: str = COMMIT
    faults: dict[str, str | int] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    def fault(self, path: str) -> str | int | None:
        """What goes wrong on that path."""
        return next((fault for part, fault in self.faults.items() if part in path), None)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        self.path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, self.path))
        self.hub.tokens[self.path] = self.headers.get("Authorization", "")
        match self.hub.fault(self.path):
            case "hang":
                time.sleep(HANG)
                self.close_connection = True
            case "gated":
                self._refuse(403, "GatedRepo")
            case "private":
                self._refuse(401, "RepoNotFound")
            case int(status):
                self._refuse(status, "")
            case _:
                self._route()

    def _route(self) -> None:
        if info := _INFO.fullmatch(self.path):
            self._with(info[1], info[2] or "main", lambda folder: self._body(_info(self.hub, info[1], folder)))
        elif file := _FILE.fullmatch(self.path):
            self._with(file[1], file[2], lambda folder: self._file(folder, file[1], file[3]))
        elif stored := _STORE.fullmatch(self.path):
            self._body((self.hub.repositories[stored[1]] / stored[2]).read_bytes())
        else:
            self._refuse(404, "")

    def _with(self, hub_id: str, revision: str, then: Any) -> None:
        if hub_id not in self.hub.repositories:
            self._refuse(404, "RepoNotFound")
        elif revision not in ("main", self.hub.commit):
            self._refuse(404, "RevisionNotFound")
        else:
            then(self.hub.repositories[hub_id])

    def _file(self, folder: Path, hub_id: str, name: str) -> None:
        if not (folder / name).is_file():
            self._refuse(404, "EntryNotFound")
        elif name.endswith(".safetensors"):
            self.send_response(302)
            self._headers(0, {"Location": f"{self.hub.url}/store/{hub_id}/{name}"})
        else:
            data = (folder / name).read_bytes()
            self._body(data, {"X-Repo-Commit": self.hub.commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})

    def _body(self, data: bytes, headers: dict[str, str] | None = None) -> None:
        fault = self.hub.fault(self.path)
        data = b"<html>" if fault == "nonsense" else data
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span and fault != "all":
            total, first = len(data), int(span[1])
            data = data[first : int(span[2] or total) + 1]
            self.send_response(206)
            headers = {**(headers or {}), "Content-Range": f"bytes {first}-{first + len(data) - 1}/{total}"}
        else:
            self.send_response(200)
        self._headers(len(data), headers or {})
        if self.command == "GET":
            self._write(data[: len(data) // 2] if fault == "cut" else data, fault == "drip")
            self.close_connection = fault == "cut"

    def _write(self, data: bytes, slowly: bool) -> None:
        piece = 1 if slowly else 1 << 16
        try:
            for start in range(0, len(data), piece):
                self.wfile.write(data[start : start + piece])
                self.hub.sent[self.path] = self.hub.sent.get(self.path, 0) + piece
                time.sleep(0.3 if slowly else 0.0)
        except OSError:  # the reader has gone
            self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self._headers(0, {"X-Error-Code": code} if code else {})

    def _headers(self, length: int, more: dict[str, str]) -> None:
        for name, value in {"Content-Length": str(length), "Accept-Ranges": "bytes", **more}.items():
            self.send_header(name, value)
        self.end_headers()


def _info(hub: Hub, hub_id: str, folder: Path) -> bytes:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    siblings = [{"rfilename": p.relative_to(folder).as_posix(), "size": p.stat().st_size} for p in files]
    return json.dumps({"id": hub_id, "sha": hub.commit, "siblings": siblings}).encode()


@contextmanager
def serving(**repositories: Path) -> Generator[Hub]:
    """A Hub for the length of the context, with each folder as the repository someone/<its name>."""
    hub = Hub(repositories={f"someone/{name}": folder for name, folder in repositories.items()})
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
