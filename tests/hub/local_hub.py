"""A Hub of one machine: the routes that huggingface_hub uses to create, upload, list and download, over plain HTTP.

Repositories live in memory. `Fault`s make it fail in chosen ways. `python tests/hub/local_hub.py` serves until it is
interrupted and prints the variables for the clients, for trying commands by hand.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_" + "localtesttoken" * 2
READ_TOKEN = "hf_" + "readonlytoken" * 2
USERS = {TOKEN: ("ada", True), READ_TOKEN: ("ada", False)}
LFS_SUFFIXES = (".safetensors", ".png")


@dataclass
class Repo:
    """branch -> commit, commit -> {path: content}; private as asked for when it was made."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        text = f"{self.branches.get(branch)}{message}{sorted((p, git_oid(c)) for p, c in files.items())}"
        name = hashlib.sha1(text.encode()).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        self.messages.append(message)
        return name

    def resolve(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches[revision]]


@dataclass
class Fault:
    """Answers requests of a method whose path matches with a status, or cuts the connection (status None)."""

    method: str
    path: str
    status: int | None
    times: int = 10**9
    headers: dict[str, str] = field(default_factory=dict)

    def hits(self, method: str, path: str) -> bool:
        if self.times > 0 and method == self.method and re.search(self.path, path):
            self.times -= 1
            return True
        return False


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def object_id(path: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if path.endswith(LFS_SUFFIXES) else git_oid(content)


def hub_environment(url: str, home: str) -> dict[str, str]:
    """Variables that send the real clients to a local Hub; they are read when huggingface_hub is imported."""
    return {
        "HF_ENDPOINT": url,
        "HF_HOME": home,
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
    }


class LocalHub:
    """The server and its contents; use as a context manager."""

    def __init__(self, port: int = 0) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.closed = False
        self.server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> LocalHub:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        # Connections that clients keep open are served by threads that would go on.
        self.closed = True
        self.server.shutdown()
        self.server.server_close()

    def add(self, name: str, files: dict[str, bytes], kind: str = "models") -> Repo:
        repo = self.repos[(kind, name)] = Repo(private=False)
        repo.commit("main", files, "made by hand")
        return repo


class Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET

    # ---- plumbing --------------------------------------------------------------------------------------------------

    def answer(self) -> None:
        parts = urlsplit(self.path)
        self.route, self.query = parts.path, parse_qs(parts.query)
        self.hub.requests.append((self.command, self.route))
        if self.hub.closed:
            self.hub.faults.insert(0, Fault(self.command, "", None))
        fault = next((fault for fault in self.hub.faults if fault.hits(self.command, self.route)), None)
        if fault is not None and fault.status is None:
            self.rfile.read(min(1000, int(self.headers.get("Content-Length", 0))))
            self.close_connection = True
            self.connection.close()
            return
        self.body = self.read_body()
        if fault is not None:
            self.reply(fault.status, {"error": "made to fail", "url": self.hub.url}, fault.headers)
            return
        for method, pattern, act in ROUTES:
            match = re.fullmatch(pattern, self.route)
            if match and self.command in method:
                act(self, *map(unquote, match.groups()))
                return
        self.reply(404, {"error": f"no route {self.route}"})

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def reply(self, status: int | None, content: Any = b"", headers: dict[str, str] | None = None) -> None:
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status or 200)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    def user(self) -> tuple[str, bool] | None:
        return USERS.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def may_write(self, name: str) -> bool:
        """Whether the caller may write to a repository; answers for itself where not."""
        user = self.user()
        if user is None:
            self.reply(401, {"error": "bad token"}, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif not user[1] or user[0] != name.partition("/")[0]:
            self.reply(403, {"error": "forbidden"}, {"X-Error-Message": "no write access"})
        return user is not None and user[1] and user[0] == name.partition("/")[0]

    def find(self, kind: str, name: str, revision: str = "main") -> tuple[Repo, str] | None:
        """The repository and the commit; answers for itself where there is none, or the caller may not see it."""
        repo = self.hub.repos.get((kind, name))
        if repo is None or (repo.private and self.user() is None):
            self.reply(404 if self.user() else 401, {"error": "no repository"}, {"X-Error-Code": "RepoNotFound"})
            return None
        commit = repo.resolve(revision)
        if commit is None:
            self.reply(404, {"error": "no revision"}, {"X-Error-Code": "RevisionNotFound"})
            return None
        return repo, commit

    # ---- routes ----------------------------------------------------------------------------------------------------

    def create(self) -> None:
        asked = json.loads(self.body)
        user = self.user()
        owner = asked.get("organization") or (user[0] if user else "")
        name = f"{owner}/{asked['name']}"
        kind = f"{asked.get('type') or 'model'}s"
        if user is not None and any(taken == name for _, taken in self.hub.repos):
            self.reply(409, {"error": "You already created this", "url": f"{self.hub.url}/{name}"})
        elif self.may_write(name):
            repo = self.hub.repos[(kind, name)] = Repo(
                asked.get("visibility") == "private" or asked.get("private", False)
            )
            repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
            self.reply(200, {"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def validate_yaml(self) -> None:
        text = json.loads(self.body)["content"]
        match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
        content = yaml.safe_load(match.group(1)) if match else None
        if not isinstance(content, dict):
            self.reply(400, {"errors": [{"message": "no metadata"}], "warnings": []})
        else:
            self.reply(200, {"errors": [], "warnings": []})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        is_request = "create_pr" in self.query
        if (found := self.find(kind, name, revision)) and (is_request or self.may_write(name)):
            repo, commit = found
            rows = []
            for asked in json.loads(self.body)["files"]:
                path, old = asked["path"], repo.commits[commit].get(asked["path"])
                mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
                oid = None if old is None else object_id(path, old)
                rows.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
            self.reply(200, {"files": rows})

    def lfs_batch(self, name: str) -> None:
        rows = []
        for asked in json.loads(self.body)["objects"]:
            oid = asked["oid"]
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{oid}"}}
            rows.append(asked if oid in self.hub.objects else {**asked, "actions": upload})
        self.reply(200, {"transfer": "basic", "objects": rows})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            self.reply(400, {"error": "content does not have this hash"})
        else:
            self.hub.objects[oid] = self.body
            self.reply(200)

    def commit(self, kind: str, name: str, revision: str) -> None:
        is_request = "create_pr" in self.query
        if not (found := self.find(kind, name, revision)) or not (is_request or self.may_write(name)):
            return
        repo, commit = found
        files, message = dict(repo.commits[commit]), ""
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        branch = f"refs/pr/{sum(b.startswith('refs/pr/') for b in repo.branches) + 1}" if is_request else revision
        oid = repo.commit(branch, files, message)
        answer = {"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid}
        if is_request:
            answer["pullRequestUrl"] = f"{self.hub.url}/{name}/discussions/{branch.rpartition('/')[2]}"
        self.reply(200, answer)

    def info(self, kind: str, name: str, revision: str = "main") -> None:
        if found := self.find(kind, name, revision):
            repo, commit = found
            siblings = [{"rfilename": path} for path in sorted(repo.commits[commit])]
            self.reply(200, {"id": name, "sha": commit, "private": repo.private, "siblings": siblings, "tags": []})

    def tree(self, kind: str, name: str, revision: str) -> None:
        if found := self.find(kind, name, revision):
            repo, commit = found
            rows = []
            for path, content in sorted(repo.commits[commit].items()):
                row: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
                if path.endswith(LFS_SUFFIXES):
                    row["lfs"] = {"oid": object_id(path, content), "size": len(content), "pointerSize": 130}
                rows.append(row)
            self.reply(200, rows)

    def resolve(self, name: str, revision: str, path: str) -> None:
        if not (found := self.find("models", name, revision)):
            return
        repo, commit = found
        content = repo.commits[commit].get(path)
        if content is None:
            self.reply(404, {"error": "no file"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        else:
            headers = {"X-Repo-Commit": commit, "ETag": f'"{object_id(path, content)}"'}
            self.reply(200, content, headers | {"Content-Type": "application/octet-stream"})


NAME = r"([^/]+/[^/]+)"
API = rf"/api/(models|datasets|spaces)/{NAME}"
ROUTES = [
    (("POST",), "/api/repos/create", Handler.create),
    (("POST",), "/api/validate-yaml", Handler.validate_yaml),
    (("POST",), rf"{API}/preupload/([^/]+)", Handler.preupload),
    (("POST",), rf"/{NAME}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    (("PUT",), r"/lfs/(\w+)", Handler.lfs_put),
    (("POST",), rf"{API}/commit/([^/]+)", Handler.commit),
    (("GET",), rf"{API}/revision/([^/]+)", Handler.info),
    (("GET",), rf"{API}/tree/([^/]+)", Handler.tree),
    (("GET",), API, Handler.info),
    (("GET", "HEAD"), rf"/{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
]

if __name__ == "__main__":
    hub = LocalHub()
    print(
        *(f"export {name}={value}" for name, value in hub_environment(hub.url, "local_hub").items()),
        sep="\n",
        flush=True,
    )
    hub.server.serve_forever()
