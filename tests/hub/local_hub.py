"""A small Hub on loopback, for the real client of huggingface_hub: repositories with commits, LFS, tokens, and faults on demand."""

import base64
import hashlib
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OWNER, TOKEN = "me", "hf_writer_of_me"
_LFS = (".safetensors", ".bin", ".parquet", ".pt", ".png")


@dataclass
class Repository:
    """Its commits, the last of which is `main`: {sha: {path: content}}."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {}})

    def files(self, revision: str = "main") -> tuple[str, dict[str, bytes]]:
        sha = list(self.commits)[-1] if revision == "main" else revision
        return sha, self.commits[sha]

    def commit(self, changes: dict[str, bytes | None]) -> str:
        files = self.files()[1] | {path: content for path, content in changes.items() if content is not None}
        files = {path: content for path, content in files.items() if changes.get(path, b"") is not None}
        sha = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[sha] = files
        return sha


class LocalHub:
    """The Hub's state, and its server; use it as a context.

    Attributes:
        repositories: {name: repository}, models and datasets alike.
        interrupted_uploads: How many of the next uploads of large files break off.
        requests: Method, path and whether a token came along.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.interrupted_uploads = 0
        self.requests: list[tuple[str, str, str]] = []
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "LocalHub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Any, token: str | None = TOKEN) -> dict[str, str]:
        """What a process needs to take this for the Hub."""
        values = {
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(home),
        }
        return values | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": token or ""}

    def publish(self, name: str, files: dict[str, bytes]) -> str:
        """Make a commit without a client; the repository is made where there is none."""
        return self.repositories.setdefault(name, Repository()).commit(dict(files))

    def writes(self) -> list[str]:
        """What changed something, in order."""
        return [
            f"{method} {path}" for method, path, _ in self.requests if "/commit/" in path or "create" in path
        ]


class _Answer(Exception):  # noqa: N818, no error
    def __init__(self, content: Any, status: int = 200, **headers: str) -> None:
        self.content, self.status, self.headers = content, status, headers


def _error(status: int, code: str, message: str) -> _Answer:
    return _Answer({"error": message}, status, **{"X-Error-Code": code, "X-Error-Message": message})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LocalHub

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        path, _, query = urllib.parse.unquote(self.path).partition("?")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.hub.requests.append((self.command, path, token))
        body = self._body()
        try:
            if self.command == "PUT" and self.hub.interrupted_uploads > 0:
                self.hub.interrupted_uploads -= 1
                self.close_connection = True
                self.connection.close()
                return
            for method, pattern, name in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method:
                    getattr(self, name)(body, token, **match.groupdict())
            raise _error(404, "EntryNotFound", f"no route {path}?{query}")
        except _Answer as answer:
            self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815, the names that http.server calls

    def _body(self) -> bytes:
        if (length := self.headers.get("Content-Length")) is not None:
            return self.rfile.read(int(length))
        body = b""
        while "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            size = int(self.rfile.readline().split(b";")[0], 16)
            body += self.rfile.read(size)
            self.rfile.readline()
            if not size:
                break
        return body

    def _send(self, answer: _Answer) -> None:
        data = answer.content if isinstance(answer.content, bytes) else json.dumps(answer.content).encode()
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(data)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    # Who may do what

    def _repository(self, name: str, token: str) -> Repository:
        if token and token != TOKEN:
            raise _error(401, "", "Invalid credentials in Authorization header")
        if name not in self.hub.repositories:
            raise _error(404, "RepoNotFound", "Repository not found")
        return self.hub.repositories[name]

    def _check_writer(self, name: str, token: str) -> None:
        if token != TOKEN:
            raise _error(401, "", "Invalid credentials in Authorization header")
        if name.split("/")[0] != OWNER:
            raise _error(403, "", f"Forbidden: you have no write access to {name}")

    # Routes

    def whoami(self, body: bytes, token: str) -> None:
        if token != TOKEN:
            raise _error(401, "", "Invalid credentials in Authorization header")
        role = {"type": "access_token", "accessToken": {"role": "write", "displayName": "test"}}
        raise _Answer({"type": "user", "name": OWNER, "orgs": [], "auth": role})

    def validate_yaml(self, body: bytes, token: str) -> None:
        """Of a card; the real one knows licences and tags."""
        import yaml

        head = json.loads(body)["content"].split("---")[1]
        wrong = [] if isinstance(yaml.safe_load(head), dict) else [{"message": "no metadata"}]
        raise _Answer({"errors": wrong, "warnings": []}, 400 if wrong else 200)

    def create(self, body: bytes, token: str) -> None:
        asked = json.loads(body)
        name = f"{asked.get('organization') or OWNER}/{asked['name']}"
        self._check_writer(name, token)
        exists = name in self.hub.repositories
        self.hub.repositories.setdefault(name, Repository())
        raise _Answer({"url": f"{self.hub.url}/{name}", "name": name, "id": name}, 409 if exists else 200)

    def preupload(self, body: bytes, token: str, name: str, revision: str) -> None:
        self._check_writer(name, token)
        self._repository(name, token)
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(_LFS) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        raise _Answer({"files": files})

    def lfs_batch(self, body: bytes, token: str, name: str) -> None:
        self._check_writer(name, token)
        objects = []
        for asked in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/_lfs/{asked['oid']}", "header": {}}}
            known = asked["oid"] in self.hub.large_files
            objects.append({**asked, **({} if known else {"actions": upload})})
        raise _Answer({"transfer": "basic", "objects": objects})

    def lfs_upload(self, body: bytes, token: str, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _error(400, "", "another digest")
        self.hub.large_files[oid] = body
        raise _Answer({})

    def commit(self, body: bytes, token: str, name: str, revision: str) -> None:
        self._check_writer(name, token)
        repository = self._repository(name, token)
        changes: dict[str, bytes | None] = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                changes[value["path"]] = self.hub.large_files[value["oid"]]
            elif line["key"] == "deletedFile":
                changes[value["path"]] = None
        sha = repository.commit(changes)
        url = f"{self.hub.url}/{name}/commit/{sha}"
        raise _Answer({"commitOid": sha, "commitUrl": url, "hookOutput": "", "pullRequestUrl": None})

    def tag(self, body: bytes, token: str, name: str) -> None:
        self._check_writer(name, token)
        self._repository(name, token)
        raise _Answer({})

    def info(self, body: bytes, token: str, name: str, revision: str | None = None) -> None:
        sha, files = self._repository(name, token).files(revision or "main")
        siblings = [{"rfilename": path} for path in files]
        answer = {"id": name, "modelId": name, "sha": sha, "private": False, "tags": [], "siblings": siblings}
        raise _Answer(answer)

    def tree(self, body: bytes, token: str, name: str, revision: str, folder: str) -> None:
        _, files = self._repository(name, token).files(revision)
        entries = []
        for path, content in files.items():
            entry = {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": hashlib.sha1(content).hexdigest(),
            }
            if path.endswith(_LFS):
                entry["lfs"] = {
                    "oid": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "pointerSize": 130,
                }
            if path.startswith(folder):
                entries.append(entry)
        raise _Answer(entries)

    def resolve(self, body: bytes, token: str, name: str, revision: str, path: str) -> None:
        sha, files = self._repository(name, token).files(revision)
        if path not in files:
            raise _Answer(
                {"error": "Entry not found"}, 404, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha}
            )
        etag = f'"{hashlib.sha256(files[path]).hexdigest()}"'
        headers = {"X-Repo-Commit": sha, "ETag": etag}
        if path.endswith(_LFS):
            headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(len(files[path]))}
        raise _Answer(files[path], **headers)


_NAME = r"(?P<name>[^/]+/[^/]+?)"
_API = rf"/api/(?:models|datasets)/{_NAME}"
_ROUTES = (
    (("GET",), "/api/whoami-v2", "whoami"),
    (("POST",), "/api/validate-yaml", "validate_yaml"),
    (("POST",), "/api/repos/create", "create"),
    (("POST",), rf"{_API}/preupload/(?P<revision>[^/]+)", "preupload"),
    (("POST",), rf"/{_NAME}\.git/info/lfs/objects/batch", "lfs_batch"),
    (("PUT",), "/_lfs/(?P<oid>[0-9a-f]+)", "lfs_upload"),
    (("POST",), rf"{_API}/commit/(?P<revision>[^/]+)", "commit"),
    (("POST",), rf"{_API}/tag/.+", "tag"),
    (("GET",), rf"{_API}/tree/(?P<revision>[^/]+)/?(?P<folder>.*)", "tree"),
    (("GET",), rf"{_API}(?:/revision/(?P<revision>[^/]+))?", "info"),
    (("GET", "HEAD"), rf"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
)
