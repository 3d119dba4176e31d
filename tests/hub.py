"""A Hub that is as small as it can be: it answers the library's own requests, and nothing of the library is replaced.

One token may write to one owner, another may only read; what was committed can be read back and downloaded.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

OWNER, WRITER, READER = "me", "token-that-writes", "token-that-reads"


@dataclass
class Repository:
    """What one repository holds."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b""})
    commits: list[str] = field(default_factory=list)
    """Messages, the first one's first."""

    @property
    def sha(self) -> str:
        """Name of the last commit."""
        return hashlib.sha1(str(len(self.commits)).encode()).hexdigest()


class Hub(ThreadingHTTPServer):
    """The server; `repositories` by name, `asked` a line for each request, `refuse` a status that every write gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories: dict[str, Repository] = {}
        self.taken: set[str] = set()
        self.asked: list[str] = []
        self.refuse: int | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        words = unquote(self.path.partition("?")[0]).strip("/").split("/")
        api = words[:2] == ["api", "models"]
        name = "/".join(words[2:4] if api else words[:2])
        found = self.server.repositories.get(name)
        if found is None or (found.private and self._token() != WRITER):
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif api and "tree" in words:
            self._answer(200, [_entry(path, held) for path, held in found.files.items()])
        elif api:
            siblings = [{"rfilename": path} for path in found.files]
            self._answer(
                200, {"id": name, "sha": found.sha, "private": found.private, "tags": [], "siblings": siblings}
            )
        elif words[-1] in found.files:
            held = found.files[words[-1]]
            self._bytes(200, held, {"ETag": f'"{_oid(held)}"', "X-Repo-Commit": found.sha})
        else:
            self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})

    def do_POST(self) -> None:
        self.server.asked.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        words = self.path.strip("/").split("/")
        if words[-1] == "validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        owner = json.loads(body)["organization"] if words[-1] == "create" else words[2]
        if self.server.refuse or self._token() != WRITER or owner != OWNER:
            status = self.server.refuse or (403 if self._token() in (WRITER, READER) else 401)
            return self._answer(status, {"error": "refused"})
        if words[-1] == "create":
            return self._create(json.loads(body))
        if "preupload" in words:
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for path in paths]
            return self._answer(200, {"files": modes})
        return self._commit("/".join(words[2:4]), [json.loads(line) for line in body.splitlines()])

    def _create(self, asked: dict) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.taken:
            return self._answer(409, {"error": "You already created this repo"})
        self.server.repositories[name] = Repository(private=asked.get("visibility") == "private")
        return self._answer(200, {"url": f"{self.server.url}/{name}"})

    def _commit(self, name: str, lines: list[dict]) -> None:
        found = self.server.repositories[name]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, found.sha):
            return self._answer(412, {"error": "changed"})
        for line in lines[1:]:
            if line["key"] == "file":
                found.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            else:
                del found.files[line["value"]["path"]]
        found.commits.append(header["summary"])
        page = f"{self.server.url}/{name}/commit/{found.sha}"
        return self._answer(200, {"commitUrl": page, "commitOid": found.sha, "success": True})

    def _token(self) -> str:
        return (self.headers["Authorization"] or "").removeprefix("Bearer ")

    def _answer(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        self._bytes(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _bytes(self, status: int, held: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(held))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(held)


def _oid(held: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()


def _entry(path: str, held: bytes) -> dict:
    return {"type": "file", "path": path, "size": len(held), "oid": _oid(held)}


@contextmanager
def running(patch, cache):
    """Yield a Hub that huggingface_hub asks instead of its own, with an empty cache; the token may write."""
    from huggingface_hub import constants

    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setenv("HF_TOKEN", WRITER)
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
