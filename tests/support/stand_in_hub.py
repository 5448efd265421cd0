"""A stand-in for the Hugging Face hub over HTTP: datasets of files at one revision, and faults by a dataset's name."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import orjson

REVISION = "0123456789abcdef0123456789abcdef01234567"

_API = re.compile(r"/api/datasets/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.+))?)?")
_FILE = re.compile(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_STATUS = re.compile(r"[^/]+/status-(\d{3})")


class StandInHub:
    """Serves on a thread of its own. A dataset called `owner/status-503` is answered with that status alone."""

    def __init__(self, datasets: Mapping[str, Mapping[str, bytes]]) -> None:
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                path = unquote(urlsplit(self.path).path)
                hub.asked.append(f"{self.command} {path}")
                status, headers, content = _answer(datasets, path, body)
                wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or "")
                if status == 200 and wanted and content:
                    first, last = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
                    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
                    status, content = 206, content[first : last + 1]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_HEAD = do_POST = do_GET  # noqa: N815 - as the base class calls them

            def log_message(self, *_: Any) -> None:
                """Tests read `asked`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _answer(datasets: Mapping[str, Mapping[str, bytes]], path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
    match = _FILE.fullmatch(path) or _API.fullmatch(path)
    repository = match[1] if match else ""
    if status := _STATUS.fullmatch(repository):
        code = int(status[1])
        reason = {401: "GatedRepo", 403: "GatedRepo", 404: "RepoNotFound"}.get(code)
        headers = {"X-Error-Code": reason, "X-Error-Message": "no"} if reason else {}
        return code, headers | ({"Retry-After": "7"} if code == 429 else {}), b'{"error":"no"}'
    if match is None or repository not in datasets:
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
    files = datasets[repository]
    if _FILE.fullmatch(path):
        if match[3] not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": REVISION}, b""
        content = files[match[3]]
        return 200, {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}, content
    if match[2] in (None, "revision"):
        facts: dict[str, object] = {
            "id": repository,
            "sha": REVISION,
            "private": False,
            "gated": False,
            "disabled": False,
            "tags": [],
        }
        return _json(facts | {"siblings": [{"rfilename": name} for name in files]})
    entries = _entries(files)
    if match[2] == "paths-info":
        wanted = orjson.loads(body)["paths"] if body.startswith(b"{") else []
        return _json([entries[name] for name in wanted if name in entries])
    folder = f"{match[4]}/" if match[4] else ""
    inside = [entry for name, entry in entries.items() if name.startswith(folder) and name != folder[:-1]]
    return _json(inside) if inside or not folder else (404, {"X-Error-Code": "EntryNotFound"}, b"{}")


def _entries(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for name, content in files.items():
        for end in (at for at, letter in enumerate(name) if letter == "/"):
            entries[name[:end]] = {"type": "directory", "path": name[:end], "oid": _digest(name.encode()), "size": 0}
        entries[name] = {"type": "file", "path": name, "oid": _digest(content), "size": len(content)}
    return entries


def _digest(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def _json(document: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, orjson.dumps(document)
