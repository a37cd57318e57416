"""A local stand-in for the Hub: the endpoints that `huggingface_hub` needs to push a model and to load it.

Create, preupload, Git LFS upload, commit, revision, tree and resolve. Everything is kept in memory. The client is the
unmodified `huggingface_hub` in another process, with HF_ENDPOINT set to this server and HF_HUB_DISABLE_XET=1.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from huggingface_hub.utils.sha import git_hash


@dataclass
class Fault:
    """What goes wrong with the requests that a pattern matches, as `POST .*/commit/`.

    Args:
        what: a status, or a method of `Handler` below `faulty answers`; or one that changes the content of an answer:
            `flip`, `truncate`, `append`.
        times: how often; None = always.
    """

    request: str
    what: int | str
    times: int | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def applies(self, request: str) -> bool:
        """Whether it happens to this request; counts down."""
        if self.times == 0 or not re.match(self.request, request):
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Hub(ThreadingHTTPServer):
    """Repositories as lists of commits, a commit as `{path: bytes}`; `log` holds every request in order."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.tags: dict[str, int] = {}  # revision -> number of the commit
        self.private: dict[str, bool] = {}
        self.objects: dict[str, bytes] = {}
        self.log: list[str] = []
        self.faults: list[Fault] = []
        self.ended = threading.Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, repo: str, revision: str = "main") -> tuple[str, dict[str, bytes]] | None:
        """Commit id and files of a revision; None if there is none of that name."""
        commits = self.commits[repo]
        number = {"main": -1, **self.tags}.get(revision)
        if number is not None:
            return commits[number]
        return next((commit for commit in commits if commit[0] == revision), None)

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Add a commit with these files; returns its id."""
        digest = hashlib.sha1(str(len(self.commits[repo])).encode() + repo.encode()).hexdigest()
        self.commits[repo].append((digest, files))
        return digest


def sha256(content: bytes) -> str:
    """The name of a file of Git LFS."""
    return hashlib.sha256(content).hexdigest()


CHANGES = {
    "flip": lambda content: content[:-1] + bytes([content[-1] ^ 64]),
    "truncate": lambda content: content[: len(content) // 2],
    "append": lambda content: content + b"\nprint('not what was pushed')\n",
}


class Handler(BaseHTTPRequestHandler):
    """Answers requests by the table `ROUTES`."""

    server: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the client

    ROUTES = (
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/lfs/(?P<oid>\w+)", "upload"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)", "commit"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)", "info"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(?P<folder>.*)", "tree"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)", "info"),
        ("HEAD", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
        ("GET", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def route(self):
        """Call the method for the path of the request, with the groups of its pattern."""
        path = unquote(urlsplit(self.path).path)
        self.server.log.append(f"{self.command} {path}")
        # A repository of a data set or a Space is kept like one of a model.
        path = re.sub("^/api/(datasets|spaces)/", "/api/models/", path)
        path = path.removeprefix("/datasets").removeprefix("/spaces")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.change = None
        fault = next((fault for fault in self.server.faults if fault.applies(f"{self.command} {path}")), None)
        if fault is not None and isinstance(fault.what, int):
            return self.answer({"error": "as the test asks for"}, fault.what, fault.headers)
        if fault is not None and fault.what in CHANGES:
            self.change = CHANGES[fault.what]
        elif fault is not None:
            return getattr(self, fault.what)()
        for method, pattern, name in self.ROUTES:
            match = re.fullmatch(pattern, path)
            if method == self.command and match:
                return getattr(self, name)(**match.groupdict())
        return self.missing("EntryNotFound")

    do_GET = do_POST = do_PUT = do_HEAD = route

    # --- writing ---

    def create(self):
        wanted = json.loads(self.body)
        repo = f"{wanted['organization']}/{wanted['name']}"
        if repo in self.server.commits:
            url = f"{self.server.endpoint}/{repo}"
            return self.answer({"error": "You already created this model repo", "url": url}, 409)
        self.server.commits[repo] = []
        self.server.private[repo] = wanted.get("private", wanted.get("visibility") == "private")
        self.server.commit(repo, {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        return self.answer({"url": f"{self.server.endpoint}/{repo}", "id": repo})

    def validate(self):
        return self.answer({"errors": [], "warnings": []})

    def preupload(self, repo: str, revision: str):
        modes = {True: "lfs", False: "regular"}
        files, present = json.loads(self.body)["files"], self.server.files(repo)[1]
        uploads = []
        for file in files:
            mode, oid = modes[file["path"].endswith((".safetensors", ".png"))], None
            if file["path"] in present:  # the client leaves out what is there already
                digest = {"lfs": sha256, "regular": git_hash}[mode]
                oid = digest(present[file["path"]])
            uploads.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return self.answer({"files": uploads})

    def batch(self, repo: str):
        wanted = json.loads(self.body)["objects"]
        objects = []
        for entry in wanted:
            upload = {"href": f"{self.server.endpoint}/lfs/{entry['oid']}", "header": {}}
            if entry["oid"] not in self.server.objects:
                entry["actions"] = {"upload": upload}
            objects.append(entry)
        return self.answer({"transfer": "basic", "objects": objects})

    def upload(self, oid: str):
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.server.objects[oid] = self.body
        return self.answer({})

    def commit(self, repo: str, revision: str):
        _, before = self.server.files(repo)
        files = dict(before)
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        oid = self.server.commit(repo, files)
        return self.answer({"commitUrl": f"{self.server.endpoint}/{repo}/commit/{oid}", "commitOid": oid})

    # --- reading ---

    def info(self, repo: str, revision: str = "main"):
        if repo not in self.server.commits:
            return self.missing("RepoNotFound")
        if self.server.files(repo, revision) is None:
            return self.missing("RevisionNotFound")
        oid, files = self.server.files(repo, revision)
        return self.answer({"id": repo, "sha": oid, "siblings": [{"rfilename": path} for path in files]})

    def tree(self, repo: str, revision: str, folder: str = ""):
        """The entries of a folder; of all folders below it with `recursive=true`."""
        oid, files = self.server.files(repo, revision)
        folder = f"{folder}/".lstrip("/")
        inside = {path: content for path, content in files.items() if path.startswith(folder)}
        if not inside:
            return self.missing("EntryNotFound", oid)
        folders = set()
        if "recursive=true" not in urlsplit(self.path).query.lower():
            folders = {
                folder + path.removeprefix(folder).split("/")[0] for path in inside if "/" in path[len(folder) :]
            }
        entries = [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in inside.items()
            if not any(path.startswith(f"{name}/") for name in folders)
        ]
        return self.answer(entries + [{"type": "directory", "path": name, "oid": oid} for name in sorted(folders)])

    def resolve(self, repo: str, revision: str, path: str):
        if repo not in self.server.commits:
            return self.missing("RepoNotFound")
        if self.server.files(repo, revision) is None:
            return self.missing("RevisionNotFound")
        oid, files = self.server.files(repo, revision)
        if path not in files:
            return self.missing("EntryNotFound", oid)
        content = files[path]
        if self.change is not None and self.command == "GET":
            content = self.change(content)
        etag = hashlib.sha256(files[path]).hexdigest()
        headers, status = {"ETag": f'"{etag}"', "X-Repo-Commit": oid}, 200
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part:
            first, last = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
            headers["Content-Range"], status = f"bytes {first}-{last}/{len(content)}", 206
            content = content[first : last + 1]
        return self.answer(content, status, headers)

    # --- answering ---

    def answer(self, content, status: int = 200, headers: dict[str, str] | None = None):
        payload = content
        if not isinstance(content, bytes):
            payload = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(payload)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    # --- faulty answers ---

    def drop(self):
        """Close the connection in place of an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def stall(self):
        """Never answer."""
        self.close_connection = True
        self.server.ended.wait()

    def trickle(self):
        """Promise much, and send a byte now and then."""
        self.close_connection = True
        self.answer(b"", headers={"Content-Length": "1000000"})
        while not self.server.ended.wait(0.02):
            try:
                self.wfile.write(b" ")
            except OSError:  # the client has gone
                return

    def answer_text(self):
        """A page in place of JSON, as a proxy sends it."""
        self.answer(b"<html>maintenance</html>")

    def answer_list(self):
        """JSON, but not what the client expects."""
        self.answer([])

    def answer_null(self):
        self.answer(None)

    def answer_nothing(self):
        self.answer(b"")

    def not_http(self):
        self.close_connection = True
        self.connection.sendall(b"220 mail.example ESMTP\r\n")

    def drop_midway(self):
        """Promise more than is sent."""
        self.answer(b"{", headers={"Content-Length": "1000"})
        self.drop()

    def redirect_to_itself(self):
        self.answer(b"", 307, {"Location": self.path})

    def redirect_to_nowhere(self):
        self.answer(b"", 307, {"Location": "http://127.0.0.1:9/"})

    def conflict(self):
        """As the Hub refuses to create two repositories at once; the client asks again, without an end."""
        self.answer({"error": "Cannot create repo: another conflicting operation is in progress"}, 409)

    def do_then_drop(self):
        """Do what is asked, and close the connection in place of the answer."""
        self.answer = lambda *args, **kwargs: self.drop()
        for method, pattern, name in self.ROUTES:
            match = re.fullmatch(pattern, unquote(urlsplit(self.path).path))
            if method == self.command and match:
                getattr(self, name)(**match.groupdict())

    def missing(self, code: str, commit: str = ""):
        self.answer({"error": code}, 404, {"X-Error-Code": code, "X-Repo-Commit": commit})

    def log_message(self, *args):
        """Print nothing; requests are in `server.log`."""


@contextmanager
def hub_of_this_process(monkeypatch):
    """A running server as the Hub of the client in this process."""
    with running_hub() as hub:
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        # It keeps the address of the first Hub that it saw.
        monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)
        yield hub


@contextmanager
def impatient_hub(monkeypatch):
    """A Hub of this process whose client neither sleeps, but notes its `pauses`, nor waits long for an answer."""
    with hub_of_this_process(monkeypatch) as hub:
        hub.pauses = []
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", hub.pauses.append)
        monkeypatch.setattr("merhan.hub.hub_calls.SECONDS_PER_ANSWER", 0.2)
        yield hub


@contextmanager
def running_hub():
    """Run the server until the block ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.ended.set()
        hub.shutdown()
        hub.server_close()
