"""A Hugging Face Hub on loopback, held in memory, to test uploads and downloads without a network.

    with HubServer(tokens={"token-of-alice": "alice"}) as server:
        subprocess.run([sys.executable, "push.py"], env=server.environment(tmp_path, "token-of-alice"), check=True)
        assert server.repos["model", "alice/x"].private

Model, dataset and space repositories; no pull requests, organisations, deletion of repositories or Xet storage. Each
token belongs to one user, who alone may write to the repositories under that name and see the private ones.

A client process needs these variables; `HubServer.environment` makes them. The libraries read them when they are
imported, so clients run in processes of their own.

- HF_ENDPOINT: the server's `endpoint`.
- HF_HUB_DISABLE_XET=1: otherwise uploads go to a Xet storage, whatever the endpoint.
- HF_HOME: a fresh folder. It holds the caches and a stored token.
- HF_TOKEN: the user's token; absent for an anonymous client.
- No HF_HUB_OFFLINE, HF_DATASETS_OFFLINE, HF_EVALUATE_OFFLINE or TRANSFORMERS_OFFLINE, and no cache folder set apart
  from HF_HOME.
- NO_PROXY=127.0.0.1 where a proxy is set.
- HF_HUB_DISABLE_TELEMETRY=1 and HF_UPDATE_DOWNLOAD_COUNTS=0: otherwise datasets and evaluate also call hosts other than
  the endpoint to count a download.

huggingface_hub repeats uploads and listings by itself: after a dropped connection and after 408, 429, 500, 502, 503 and
504, up to 5 times within 23 seconds. To make a client fail at once let `fail_next` answer with another status. Creating
a repository, committing, and the HEAD of a download are not repeated.

By hand: `python tests/hub_server.py --port 8765 --token token-of-alice=alice`
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

URL_PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}
LFS_SUFFIXES = (".arrow", ".bin", ".gz", ".npy", ".npz", ".parquet", ".pkl", ".png", ".pt", ".safetensors", ".zip")
REGULAR_FILE_LIMIT = 10 * 2**20
SPACE_README = "---\ntitle: {name}\nsdk: {sdk}\n---\n"
FOREIGN_VARIABLES = re.compile(r"(HF|HUGGING_?FACE|TRANSFORMERS|PYTORCH_TRANSFORMERS)_")


class HubError(Exception):
    """A request that is refused: HTTP status, the Hub's code of the error (X-Error-Code) and a message."""

    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True)
class HubFile:
    """A file's content; `lfs` tells if it was uploaded as an LFS object."""

    content: bytes
    lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """What git holds in place of an LFS object."""
        size = len(self.content)
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {size}\n".encode()

    @cached_property
    def oid(self) -> str:
        """The git id of the blob: of the pointer, for an LFS object."""
        blob = self.pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()

    def describe(self, path: str) -> dict:
        """The file as the tree and paths-info endpoints show it."""
        entry = {"type": "file", "path": path, "oid": self.oid, "size": len(self.content)}
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": len(self.pointer)}
        return entry


@dataclass(frozen=True)
class HubCommit:
    """A state of all files of a repository."""

    sha: str
    parent: str | None
    title: str
    description: str
    author: str
    date: datetime
    files: Mapping[str, HubFile]

    def entries(self, folder: str = "", recursive: bool = True) -> list[dict]:
        """The files and folders inside a folder.

        Raises:
            HubError: 404, the commit has no such folder.
        """
        prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        found = {}
        for path, file in sorted(self.files.items()):
            if not path.startswith(prefix):
                continue
            steps = path[len(prefix) :].split("/")
            for depth in range(1, len(steps)):
                inner = prefix + "/".join(steps[:depth])
                tree_oid = hashlib.sha1(f"{self.sha} {inner}".encode()).hexdigest()
                found.setdefault(inner, {"type": "directory", "path": inner, "oid": tree_oid, "size": 0})
            found[path] = file.describe(path)
        if prefix and not found:
            raise HubError(404, f"{folder} does not exist on revision {self.sha}", "EntryNotFound")
        return [entry for path, entry in found.items() if recursive or "/" not in path[len(prefix) :]]


@dataclass
class HubRepo:
    """A repository. `commits` runs from the oldest to the newest, over all branches.

    Like the Hub's, a new one has a first commit with a .gitattributes file, and a space a README.md.
    """

    repo_type: str
    repo_id: str
    private: bool
    commits: list[HubCommit] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """Uploaded LFS objects by their sha256, committed or not."""

    @property
    def owner(self) -> str:
        return self.repo_id.split("/")[0]

    def commit(self, revision: str = "main") -> HubCommit:
        """The commit of a branch, a tag or a sha.

        Raises:
            HubError: 404, there is no such revision.
        """
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        for commit in self.commits:
            if commit.sha == sha:
                return commit
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """The content of each file at a revision."""
        return {path: file.content for path, file in self.commit(revision).files.items()}

    def add_commit(
        self, branch: str, files: Mapping[str, HubFile], title: str, description: str = "", author: str | None = None
    ) -> HubCommit:
        """Put a new state of all files on top of a branch."""
        parent = self.branches.get(branch)
        content = [self.repo_type, self.repo_id, parent, title, {path: files[path].oid for path in sorted(files)}]
        commit = HubCommit(
            sha=hashlib.sha1(f"{len(self.commits)} {content}".encode()).hexdigest(),
            parent=parent,
            title=title,
            description=description,
            author=author or self.owner,
            date=datetime.now(UTC),
            files=dict(files),
        )
        self.commits.append(commit)
        self.branches[branch] = commit.sha
        return commit

    def describe(self, revision: str = "main") -> dict:
        """The repository as the info endpoints show it."""
        commit = self.commit(revision)
        card = card_data(commit.files.get("README.md", HubFile(b"")).content) or {}
        siblings = []
        for path, file in sorted(commit.files.items()):
            sibling = {"rfilename": path, "size": len(file.content), "blobId": file.oid}
            if file.lfs:
                lfs = {"sha256": file.sha256, "size": len(file.content), "pointerSize": len(file.pointer)}
                sibling["lfs"] = lfs
            siblings.append(sibling)
        tags = card.get("tags")
        info = {
            "_id": hashlib.md5(self.repo_id.encode()).hexdigest()[:24],
            "id": self.repo_id,
            "author": self.owner,
            "sha": commit.sha,
            "lastModified": date_text(commit.date),
            "createdAt": date_text(self.commits[0].date),
            "private": self.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": tags if isinstance(tags, list) else [],
            "cardData": card,
            "siblings": siblings,
        }
        names = {"model": ("pipeline_tag", "library_name", "model-index"), "dataset": (), "space": ("sdk",)}
        return info | {name: card[name] for name in names[self.repo_type] if name in card}


def card_data(readme: bytes) -> dict | None:
    """The metadata at the head of a README.md; None where there is none.

    Raises:
        HubError: 400, it is no YAML mapping.
    """
    match = re.match(r"\s*---[ \t]*\r?\n(.*?)^---[ \t\r]*$", readme.decode(errors="replace"), re.DOTALL | re.MULTILINE)
    if match is None:
        return None
    try:
        metadata = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        raise HubError(400, f"Invalid YAML in README.md: {error}") from error
    if metadata is not None and not isinstance(metadata, dict):
        raise HubError(400, f"The metadata of README.md must be a YAML mapping, got {metadata!r}")
    return metadata


def date_text(date: datetime) -> str:
    return date.strftime("%Y-%m-%dT%H:%M:%S.000Z")


@dataclass
class Fault:
    """Requests that are to fail, see `HubServer.fail_next`."""

    count: int
    path_contains: str
    method: str | None
    status: int | None
    skip: int


@dataclass(frozen=True)
class Request:
    """A request: the parts of its path, the first value of each query field, the user that its token belongs to."""

    method: str
    parts: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    user: str | None

    @cached_property
    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def revision(self) -> str:
        return self.parts.get("revision") or "main"


@dataclass(frozen=True)
class Answer:
    """An answer; content that is not bytes is sent as JSON."""

    content: bytes | dict | list
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class HubServer:
    """A Hub that runs in a thread between `start` and `stop`, or inside a `with` block.

    Args:
        tokens: user of each token.
        port: of 127.0.0.1; 0 takes a free one.
        verbose: print each request to stderr.

    Attributes:
        repos: repositories by (repo_type, repo_id).
        requests: (method, path) of every request so far, the path without its query and unquoted.
        unknown_requests: those of them that this server has no answer to, whatever they ask about.
    """

    def __init__(self, tokens: Mapping[str, str] | None = None, *, port: int = 0, verbose: bool = False):
        self.tokens = dict(tokens or {})
        self.repos: dict[tuple[str, str], HubRepo] = {}
        self.requests: list[tuple[str, str]] = []
        self.unknown_requests: list[tuple[str, str]] = []
        self._verbose = verbose
        self._faults: list[Fault] = []
        self._uploads: dict[str, tuple[HubRepo, str]] = {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.hub = self

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> HubServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def variables(self, hf_home: Path | str, token: str | None = None) -> dict[str, str]:
        """The environment variables that make a process a client of this server."""
        variables = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(hf_home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        return variables | ({"HF_TOKEN": token} if token else {})

    def environment(self, hf_home: Path | str, token: str | None = None) -> dict[str, str]:
        """The whole environment of a client: this process's without its Hugging Face variables, plus `variables`."""
        kept = {name: value for name, value in os.environ.items() if not FOREIGN_VARIABLES.match(name)}
        return kept | self.variables(hf_home, token)

    def fail_next(
        self,
        count: int = 1,
        *,
        path_contains: str = "",
        method: str | None = None,
        status: int | None = 403,
        skip: int = 0,
    ) -> None:
        """Let the next requests of a kind fail.

        The paths of LFS uploads end in the object's sha256: `/lfs-upload/{ticket}/{sha256}`.

        Args:
            count: how many.
            path_contains: those with this text in their path, compared with the path as `requests` shows it.
            method: those of this HTTP method.
            status: of the answer; None drops the connection instead. See the module about statuses that make clients
                try again.
            skip: let so many of them pass first.
        """
        with self._lock:
            self._faults.append(Fault(count, path_contains, method, status, skip))

    def heal(self) -> None:
        """Forget all failures that are still to come."""
        with self._lock:
            self._faults.clear()

    def _fault(self, method: str, path: str) -> Fault | None:
        for fault in self._faults:
            if fault.count > 0 and fault.method in (None, method) and fault.path_contains in path:
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.count -= 1
                return fault
        return None

    def receive(self, method: str, path: str) -> Fault | None:
        """Note a request that has arrived; returns the fault that it is to meet."""
        with self._lock:
            self.requests.append((method, unquote(path)))
            return self._fault(method, unquote(path))

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer a request.

        Raises:
            HubError: it is refused.
        """
        url = urlsplit(target)
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme and token not in self.tokens:
            raise HubError(401, "Invalid credentials in Authorization header")
        for methods, pattern, function in ROUTES:
            match = pattern.fullmatch(url.path) if method in methods else None
            if match:
                parts = {name: unquote(part) for name, part in match.groupdict(default="").items()}
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                request = Request(method, parts, query, headers, body, self.tokens.get(token))
                with self._lock:
                    return function(self, request)
        with self._lock:
            self.unknown_requests.append((method, unquote(url.path)))
        raise HubError(404, f"This test server has no endpoint {method} {url.path}")

    def _repo(self, request: Request, write: bool = False) -> HubRepo:
        repo_type = (request.parts["kind"] or "models").removesuffix("s")
        repo = self.repos.get((repo_type, request.parts["repo_id"]))
        if repo is None or (repo.private and request.user != repo.owner):
            raise HubError(404, "Repository not found", "RepoNotFound")
        if write and request.user is None:
            raise HubError(401, "Invalid username or password.")
        if write and request.user != repo.owner:
            raise HubError(403, f"{request.user} may not write to {repo.repo_id}")
        return repo

    def _whoami(self, request: Request) -> Answer:
        if request.user is None:
            raise HubError(401, "Invalid username or password.")
        access = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
        return Answer({"type": "user", "name": request.user, "fullname": request.user, "orgs": [], "auth": access})

    def _validate_yaml(self, request: Request) -> Answer:
        try:
            metadata = card_data(request.json["content"].encode())
        except HubError as error:
            return Answer({"errors": [{"message": error.message}], "warnings": []}, status=400)
        warnings = [] if metadata else [{"message": "empty or missing yaml metadata in repo card"}]
        return Answer({"errors": [], "warnings": warnings})

    def _create(self, request: Request) -> Answer:
        if request.user is None:
            raise HubError(401, "Invalid username or password.")
        wanted = request.json
        repo_type = wanted.get("type") or "model"
        owner = wanted.get("organization") or request.user
        repo_id = f"{owner}/{wanted['name']}"
        if owner != request.user:
            raise HubError(403, f"You don't have the rights to create a {repo_type} under the namespace {owner!r}.")
        answer = {"url": f"{self.endpoint}/{URL_PREFIXES[repo_type]}{repo_id}", "name": repo_id}
        if (repo_type, repo_id) in self.repos:
            return Answer(answer | {"error": f"You already created this {repo_type} repo"}, status=409)
        private = wanted.get("visibility") == "private" or wanted.get("private") is True
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
        files = {".gitattributes": HubFile(attributes.encode())}
        if repo_type == "space":
            files["README.md"] = HubFile(SPACE_README.format(name=wanted["name"], sdk=wanted["sdk"]).encode())
        repo = HubRepo(repo_type, repo_id, private)
        repo.add_commit("main", files, "initial commit")
        self.repos[repo_type, repo_id] = repo
        return Answer(answer)

    def _info(self, request: Request) -> Answer:
        return Answer(self._repo(request).describe(request.revision))

    def _tree(self, request: Request) -> Answer:
        commit = self._repo(request).commit(request.revision)
        entries = commit.entries(request.parts["path"], recursive=request.query.get("recursive", "").lower() == "true")
        return Answer(self._expand(request.query, commit, entries))

    def _paths_info(self, request: Request) -> Answer:
        commit = self._repo(request).commit(request.revision)
        form = parse_qs(request.body.decode())
        wanted = {path.strip("/") for path in form.get("paths", [])}
        entries = [entry for entry in commit.entries() if entry["path"] in wanted]
        return Answer(self._expand({name: values[0] for name, values in form.items()}, commit, entries))

    @staticmethod
    def _expand(options: Mapping[str, str], commit: HubCommit, entries: list[dict]) -> list[dict]:
        if options.get("expand", "").lower() != "true":
            return entries
        last = {"id": commit.sha, "title": commit.title, "date": date_text(commit.date)}
        return [entry | {"lastCommit": last} for entry in entries]

    def _refs(self, request: Request) -> Answer:
        repo = self._repo(request)
        found = {"converts": [], "pullRequests": []}
        for key, kind, refs in (("branches", "heads", repo.branches), ("tags", "tags", repo.tags)):
            found[key] = [{"name": k, "ref": f"refs/{kind}/{k}", "targetCommit": sha} for k, sha in refs.items()]
        return Answer(found)

    def _commits(self, request: Request) -> Answer:
        repo = self._repo(request)
        history = [repo.commit(request.revision)]
        while history[-1].parent:
            history.append(repo.commit(history[-1].parent))
        return Answer(
            [
                {
                    "id": commit.sha,
                    "title": commit.title,
                    "message": commit.description,
                    "authors": [{"user": commit.author}],
                    "date": date_text(commit.date),
                }
                for commit in history
            ]
        )

    def _branch(self, request: Request) -> Answer:
        repo = self._repo(request, write=True)
        if request.revision in repo.branches:
            raise HubError(409, f"Reference already exists: {request.revision}")
        start = request.json.get("startingPoint") if request.body else None
        repo.branches[request.revision] = repo.commit(start or "main").sha
        return Answer({"success": True})

    def _tag(self, request: Request) -> Answer:
        repo = self._repo(request, write=True)
        name = request.json["tag"]
        if name in repo.tags:
            raise HubError(409, f"Reference already exists: {name}")
        repo.tags[name] = repo.commit(request.revision).sha
        return Answer({"success": True})

    def _discussions(self, request: Request) -> Answer:
        self._repo(request)
        return Answer({"discussions": [], "count": 0, "start": 0})

    def _preupload(self, request: Request) -> Answer:
        files = self._repo(request, write=True).commit(request.revision).files
        modes = []
        for wanted in request.json["files"]:
            path = wanted["path"]
            lfs = path.lower().endswith(LFS_SUFFIXES) or wanted["size"] > REGULAR_FILE_LIMIT
            old = files.get(path)
            oid = None if old is None else old.sha256 if old.lfs else old.oid
            modes.append({"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, "oid": oid})
        return Answer({"files": modes})

    def _lfs_batch(self, request: Request) -> Answer:
        repo = self._repo(request, write=True)
        objects = []
        for wanted in request.json["objects"]:
            found = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in repo.objects:
                ticket = secrets.token_hex(8)
                self._uploads[ticket] = (repo, wanted["oid"])
                found["actions"] = {"upload": {"href": f"{self.endpoint}/lfs-upload/{ticket}/{wanted['oid']}"}}
            objects.append(found)
        return Answer({"transfer": "basic", "objects": objects})

    def _lfs_upload(self, request: Request) -> Answer:
        repo, oid = self._uploads.get(request.parts["ticket"], (None, None))
        if repo is None or oid != request.parts["oid"]:
            raise HubError(403, "Nobody asked to upload this object")
        if hashlib.sha256(request.body).hexdigest() != oid:
            raise HubError(400, "The content has another sha256")
        repo.objects[oid] = request.body
        return Answer(b"", headers={"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})

    def _commit(self, request: Request) -> Answer:
        repo = self._repo(request, write=True)
        if "create_pr" in request.query:
            raise HubError(400, "This test server has no pull requests")
        if request.revision not in repo.branches:
            raise HubError(404, f"Invalid rev id: {request.revision}", "RevisionNotFound")
        head = repo.commit(request.revision)
        files = dict(head.files)
        header: dict = {}
        for line in request.body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                header = value
            elif key == "file":
                files[value["path"]] = HubFile(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                if value["oid"] not in repo.objects:
                    raise HubError(400, f"The LFS object of {value['path']} was not uploaded")
                files[value["path"]] = HubFile(repo.objects[value["oid"]], lfs=True)
            elif key in ("deletedFile", "deletedFolder"):
                path = value["path"].rstrip("/")
                gone = [name for name in files if name == path or name.startswith(f"{path}/")]
                if not gone:
                    raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
                files = {name: file for name, file in files.items() if name not in gone}
            else:
                raise HubError(400, f"Unknown operation {key}")
        if not head.sha.startswith(header.get("parentCommit") or head.sha):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        if "README.md" in files:
            card_data(files["README.md"].content)
        title, description = header["summary"], header.get("description", "")
        commit = repo.add_commit(request.revision, files, title, description, request.user)
        url = f"{self.endpoint}/{URL_PREFIXES[repo.repo_type]}{repo.repo_id}/commit/{commit.sha}"
        return Answer({"success": True, "commitUrl": url, "commitOid": commit.sha, "hookOutput": ""})

    def _resolve(self, request: Request) -> Answer:
        commit = self._repo(request).commit(request.revision)
        file = commit.files.get(request.parts["path"])
        headers = {"X-Repo-Commit": commit.sha}
        if file is None:
            raise HubError(404, "Entry not found", "EntryNotFound")
        size = len(file.content)
        headers |= {"ETag": f'"{file.sha256 if file.lfs else file.oid}"', "Accept-Ranges": "bytes"}
        if file.lfs:
            headers |= {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(size)}
        span = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
        if span is None or span[0] == "bytes=-":
            return Answer(file.content, headers=headers)
        start = int(span[1]) if span[1] else max(size - int(span[2]), 0)
        end = min(int(span[2]) + 1, size) if span[1] and span[2] else size
        if start >= end:
            return Answer(b"", status=416, headers=headers | {"Content-Range": f"bytes */{size}"})
        headers |= {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
        return Answer(file.content[start:end], status=206, headers=headers)

    def _nothing(self, request: Request) -> Answer:
        return Answer({"standardEnvVars": [], "harnesses": {}})


def _routes() -> list[tuple[tuple[str, ...], re.Pattern[str], Callable[[HubServer, Request], Answer]]]:
    api = r"/api/(?P<kind>models|datasets|spaces)/(?P<repo_id>[^/]+(?:/[^/]+)?)"
    web = r"/(?:(?P<kind>datasets|spaces)/)?(?P<repo_id>[^/]+(?:/[^/]+)?)"
    revision = r"(?P<revision>[^/]+)"
    routes = [
        ("GET", "/api/whoami-v2", HubServer._whoami),
        ("POST", "/api/validate-yaml", HubServer._validate_yaml),
        ("POST", "/api/repos/create", HubServer._create),
        ("GET HEAD", r"/api/(agent-harnesses|telemetry/.*)", HubServer._nothing),
        ("GET", f"{api}/tree/{revision}(?:/(?P<path>.*))?", HubServer._tree),
        ("POST", f"{api}/paths-info/{revision}", HubServer._paths_info),
        ("GET", f"{api}/refs", HubServer._refs),
        ("GET", f"{api}/commits/{revision}", HubServer._commits),
        ("POST", f"{api}/branch/{revision}", HubServer._branch),
        ("POST", f"{api}/tag/{revision}", HubServer._tag),
        ("GET", f"{api}/discussions", HubServer._discussions),
        ("POST", f"{api}/preupload/{revision}", HubServer._preupload),
        ("POST", f"{api}/commit/{revision}", HubServer._commit),
        ("GET", f"{api}(?:/revision/{revision})?", HubServer._info),
        ("POST", rf"{web}\.git/info/lfs/objects/batch", HubServer._lfs_batch),
        ("PUT", r"/lfs-upload/(?P<ticket>\w+)/(?P<oid>\w+)", HubServer._lfs_upload),
        ("GET HEAD", f"{web}/(?:resolve|raw)/{revision}/(?P<path>.+)", HubServer._resolve),
    ]
    return [(tuple(methods.split()), re.compile(pattern), function) for methods, pattern, function in routes]


ROUTES = _routes()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    hub: HubServer

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def handle_request(self) -> None:
        hub = self.server.hub
        fault = hub.receive(self.command, urlsplit(self.path).path)
        if fault is not None and fault.status is None:
            self.close_connection = True
            return
        body = self._body()
        try:
            if fault is not None:
                raise HubError(fault.status, "A failure that the test asked for")
            answer = hub.answer(self.command, self.path, self.headers, body)
        except HubError as error:
            headers = {"X-Error-Message": " ".join(error.message.split())}
            headers |= {"X-Error-Code": error.code} if error.code else {}
            answer = Answer({"error": error.message}, error.status, headers)
        self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            size = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(size)
            if len(body) < size:
                raise ConnectionAbortedError("The client stopped within the body of its request")
            return body
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _send(self, answer: Answer) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        content = answer.content
        if not isinstance(content, bytes):
            headers = {"Content-Type": "application/json; charset=utf-8"}
            content = json.dumps(content, default=str).encode()
        self.send_response(answer.status)
        for name, value in (headers | {"Content-Length": str(len(content))} | dict(answer.headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        if self.server.hub._verbose:
            super().log_message(format, *args)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a Hugging Face Hub on loopback until interrupted.")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--token", action="append", default=[], metavar="TOKEN=USER", help="may be repeated")
    arguments = parser.parse_args()
    tokens = dict(pair.split("=", 1) for pair in arguments.token or ["token-of-alice=alice"])
    # A shell that starts this in the background leaves the interrupt signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with HubServer(tokens, port=arguments.port, verbose=True) as server:
        print(f"# {server.endpoint}; users: {', '.join(tokens.values())}")
        for name, value in server.variables("$(mktemp -d)", next(iter(tokens))).items():
            print(f'export {name}="{value}"')
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    main()
