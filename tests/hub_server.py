"""The Hub's end of what huggingface_hub asks for, on the loopback, with faults that a test switches on.

It takes uploads too: small files inside the commit, large ones by LFS at another host.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_UPLOAD = re.compile(r"/api/models/([^/]+/[^/]+)/(preupload|commit|branch)/([^/?]+)")
_ABOUT = re.compile(r"/api/models/([^/]+/[^/?]+)")
_BATCH = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch")
_LARGE = (".safetensors", ".bin")
_PAGE = b"<html><title>Welcome to the airport</title>Please log in</html>"


@dataclass
class Repository:
    """Commits with their files, and the branches and tags that name them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    readers: set[str] | None = None  # tokens that may read; None: everyone
    gated: bool = False
    private: bool = False
    messages: list[str] = field(default_factory=list)  # of the commits that were uploaded


@dataclass
class Request:
    """One that came in: at the Hub itself, or at the other host, where large files lie."""

    method: str
    host: str
    path: str
    headers: Message

    @property
    def file(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def token(self) -> str | None:
        return self.headers.get("Authorization")


class Hub:
    """A context in which the server runs; `url` is its endpoint.

    Small files come from the Hub itself, tagged with git's hash; weights from another host, tagged with their SHA-256.
    With `hashes = False` the tags say nothing about the content.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.hashes = True
        self.writers: dict[str, str] = {}  # tokens that may write, and the user of each
        self.stopped = threading.Event()
        self._large: dict[str, bytes] = {}  # by the path at the other host
        self._faults: dict[tuple[str, str], list[Any]] = {}  # kind, and how often it still strikes
        self._servers = [_Server(self, "hub"), _Server(self, "elsewhere")]
        self.url, self.elsewhere = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    def __enter__(self) -> Hub:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Answer no more."""
        self.stopped.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._servers = []

    def publish(self, name: str, files: Mapping[str, bytes], *refs: str) -> str:
        """Add a commit, and move these branches and tags to it (`main` when none is given); returns its hash."""
        repository = self.repositories.setdefault(name, Repository())
        content = repr(sorted((key, _sha256(value)) for key, value in files.items()))
        commit = hashlib.sha1(content.encode()).hexdigest()
        repository.commits[commit] = dict(files)
        repository.refs.update(dict.fromkeys(refs or ("main",), commit))
        return commit

    def fault(self, file: str, kind: Any, method: str = "GET", times: float = math.inf) -> None:
        """Let the next answers for a file be a status, or go wrong as `_Handler` knows; or call something first."""
        self._faults[method, file] = [kind, times]

    def heal(self) -> None:
        """No faults any more."""
        self._faults.clear()

    def bodies(self, file: str | None = None) -> list[Request]:
        """The requests for the content of a file, or of any."""
        asked = [r for r in self.requests if r.method == "GET" and (r.host != "hub" or _RESOLVE.fullmatch(r.path))]
        return [r for r in asked if file in (None, r.file)]

    def _struck(self, method: str, file: str) -> Any:
        fault = self._faults.get((method, file), [None, 0])
        fault[1] -= 1
        return fault[0] if fault[1] >= 0 else None


class _Server(ThreadingHTTPServer):
    def __init__(self, hub: Hub, host: str) -> None:
        self.hub, self.host = hub, host
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_: object) -> None:
        pass  # the client went away


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.respond()

    def do_GET(self) -> None:
        self.respond()

    def do_POST(self) -> None:
        self.receive()

    def do_PUT(self) -> None:
        self.receive()

    def receive(self) -> None:
        """What an upload sends: a repository's or a branch's creation, questions, large files, a commit."""
        hub = self.server.hub
        body = self.body()
        request = Request(self.command, self.server.host, self.path, self.headers)
        hub.requests.append(request)
        fault = hub._struck(self.command, request.file)
        if fault == "silent":
            self.close_connection = True
        elif isinstance(fault, int):
            self.answer(fault, {}, b"")
        elif self.server.host == "elsewhere":
            good = self.path == f"/{_sha256(body)}"
            hub._large[self.path] = body
            self.answer(200 if good else 400, {}, b"")
        elif (user := hub.writers.get((request.token or "").removeprefix("Bearer "))) is None:
            self.refuse(401, "", {"X-Error-Message": "Invalid username or password."})
        elif self.path == "/api/validate-yaml":
            self.send({"errors": [], "warnings": []})
        elif self.path == "/api/repos/create":
            self.create(user, json.loads(body))
        elif _BATCH.fullmatch(self.path):
            self.batch(json.loads(body)["objects"])
        elif found := _UPLOAD.match(self.path):
            name, what, revision = map(unquote, found.groups())
            if name not in hub.repositories:
                self.refuse(404, "RepoNotFound")
            elif name.partition("/")[0] != user:
                self.refuse(403, "", {"X-Error-Message": "You don't have the rights to write there"})
            else:
                getattr(self, what)(name, revision, body)
        else:
            self.answer(404, {}, b"")

    def body(self) -> bytes:
        """What a request holds, of a stated length or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def create(self, user: str, asked: Mapping[str, Any]) -> None:
        hub, owner = self.server.hub, asked.get("organization") or user
        name = f"{owner}/{asked['name']}"
        if owner != user:
            return self.refuse(403, "", {"X-Error-Message": "You don't have the rights to create there"})
        if name in hub.repositories:
            body = json.dumps({"error": "You already created this model repo", "url": f"{hub.url}/{name}"}).encode()
            return self.answer(409, {"Content-Type": "application/json"}, body)
        private = asked.get("visibility") == "private" or asked.get("private") is True  # older clients say the latter
        hub.repositories[name] = Repository(private=private)
        hub.publish(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
        if private:
            hub.repositories[name].readers = {token for token, writer in hub.writers.items() if writer == user}
        return self.send({"url": f"{hub.url}/{name}"})

    def branch(self, name: str, branch: str, body: bytes) -> None:
        refs = self.server.hub.repositories[name].refs
        if branch in refs:
            return self.answer(409, {}, b"{}")
        refs[branch] = refs["main"]
        return self.send({})

    def preupload(self, name: str, revision: str, body: bytes) -> None:
        files = [file["path"] for file in json.loads(body)["files"]]
        modes = [{"path": path, "uploadMode": "lfs" if path.endswith(_LARGE) else "regular"} for path in files]
        self.send({"files": [{**mode, "shouldIgnore": False} for mode in modes]})

    def batch(self, objects: list[Mapping[str, Any]]) -> None:
        place = self.server.hub.elsewhere
        actions = [{**one, "actions": {"upload": {"href": f"{place}/{one['oid']}"}}} for one in objects]
        self.send({"transfer": "basic", "objects": actions})

    def commit(self, name: str, revision: str, body: bytes) -> None:
        hub = self.server.hub
        repository = hub.repositories[name]
        if revision not in repository.refs:
            return self.refuse(404, "RevisionNotFound")
        files = dict(repository.commits[repository.refs[revision]])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                repository.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile", line
                files[value["path"]] = hub._large[f"/{value['oid']}"]
        commit = hub.publish(name, files, revision)
        return self.send({"success": True, "commitOid": commit, "commitUrl": f"{hub.url}/{name}/commit/{commit}"})

    def send(self, data: Mapping[str, Any]) -> None:
        self.answer(200, {"Content-Type": "application/json"}, json.dumps(data).encode())

    def respond(self) -> None:
        hub = self.server.hub
        request = Request(self.command, self.server.host, self.path, self.headers)
        hub.requests.append(request)
        found = _RESOLVE.fullmatch(self.path)
        fault = hub._struck(self.command, request.file)
        if callable(fault):
            fault = fault()
        if isinstance(fault, int):
            self.answer(fault, {}, b"")
        elif fault == "page":  # of a network that wants a login: nothing of the Hub's in it
            self.answer(200, {"Content-Type": "text/html"}, _PAGE)
        elif fault == "silent":
            self.close_connection = True
        elif self.server.host == "elsewhere":
            self.content(hub._large[self.path], {"ETag": '"of-this-host"'}, fault)
        elif (about := _ABOUT.fullmatch(self.path)) and about.group(1) in hub.repositories:
            self.send({"id": about.group(1), "private": hub.repositories[about.group(1)].private})
        elif found is None:
            self.answer(404, {}, b"")
        else:
            self.resolve(*map(unquote, found.groups()), fault)

    def resolve(self, name: str, revision: str, file: str, fault: str | None) -> None:
        hub = self.server.hub
        repository = hub.repositories.get(name)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token == "hf_expired":
            return self.answer(401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b"")
        if repository is None:
            return self.refuse(404 if token else 401, "RepoNotFound")
        if repository.readers is not None and token not in repository.readers:
            return self.refuse(403 if token else 401, "GatedRepo" if repository.gated else "RepoNotFound")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self.refuse(404, "RevisionNotFound")
        content = repository.commits[commit].get(file)
        headers = {"X-Repo-Commit": commit}
        if content is None:
            return self.refuse(404, "EntryNotFound", headers)
        if file.endswith(_LARGE):
            path = f"/{_sha256(content)}/{file}"
            hub._large[path] = content
            tag = _sha256(content) if hub.hashes else f"tag-{file}"
            linked = {"X-Linked-ETag": f'"{tag}"', "X-Linked-Size": str(len(content))}
            return self.answer(302, {**headers, **linked, "Location": hub.elsewhere + path}, b"")
        tag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() if hub.hashes else f"tag-{file}"
        return self.content(content, {**headers, "ETag": f'"{tag}"'}, fault)

    def content(self, content: bytes, headers: Mapping[str, str], fault: str | None) -> None:
        """All of a content, or the rest that is asked for, with what a fault makes of it."""
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(wanted.group(1)) if wanted else 0
        if start >= len(content) > 0:
            self.answer(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            return
        if start:
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        content = content[start:]
        half = len(content) // 2
        if fault == "wrong":
            content = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        elif fault == "short":  # cut by a proxy, with a length to match
            content = content[:half]
        elif fault in ("cut", "reset", "stall"):
            headers = {**headers, "Content-Length": str(len(content))}
            content = content[:half]
            self.close_connection = True
        self.answer(206 if start else 200, headers, content)
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        elif fault == "stall":
            self.server.hub.stopped.wait(5)

    def refuse(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        self.answer(status, {"X-Error-Code": code, **(headers or {})}, json.dumps({"error": code}).encode())

    def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
