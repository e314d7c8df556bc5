"""A file server for the tests, over real TLS, that can be told to misbehave."""

import hashlib
import json
import re
import ssl
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from avsnn.datasets_manifest import Clip, MediaFile, load
from avsnn.datasets_manifest.schema import Manifest
from avsnn.pipeline.engine.executor import open_worker_pools
from avsnn.pipeline.engine.journal import StageSummary
from avsnn.pipeline.engine.lock import lock_folder
from avsnn.pipeline.engine.run_stage import run_stage
from avsnn.pipeline.prepare.stages.fetch import Fetch
from avsnn.pipeline.transfer.http import HttpClient
from tests.conftest import NoProgress

SECRET = "hunter2token"  # noqa: S105
LFS_JSON = "application/vnd.git-lfs+json"


@dataclass
class Asked:
    """A request as it arrived, and how many bytes of body it was answered with."""

    path: str
    headers: dict[str, str]
    body: bytes
    sent: int = 0


class Handler(BaseHTTPRequestHandler):
    """Answers with the next thing it was told for a path; then, with the file of that name."""

    server: "Server"
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1
            self.server.open += 1
            self.server.most_open = max(self.server.most_open, self.server.open)

    def finish(self) -> None:
        with self.server.lock:
            self.server.open -= 1
        super().finish()

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.asked = Asked(self.path, dict(self.headers), self.rfile.read(length))
        with self.server.lock:
            self.server.asked.append(self.asked)
            told = self.server.told[self.path]
            answer = told.popleft() if told else self.server.always.get(self.path, serve)
        answer(self)

    def start(self, code: int, length: int, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def send(self, body: bytes) -> None:
        self.wfile.write(body)
        self.asked.sent += len(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class Server(ThreadingHTTPServer):
    """Counts requests, bytes and connections; what it serves is set by the test."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__(("localhost", 0), Handler)
        self.scheme = "https" if context else "http"
        if context:
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.told: dict[str, deque[Answer]] = defaultdict(deque)
        self.always: dict[str, Answer] = {}
        self.asked: list[Asked] = []
        self.lock = threading.Lock()
        self.connections = self.open = self.most_open = 0

    def url(self, path: str = "/files/", host: str = "localhost", user: str = "") -> str:
        return f"{self.scheme}://{user}{host}:{self.server_port}{path}"

    def holds(self, name: str, body: bytes, etag: str = '"1"') -> MediaFile:
        """Serves a file; returns what a manifest would say of it."""
        self.files[f"/files/{name}"] = body
        self.etags[f"/files/{name}"] = etag
        return described(name, body)

    def tell(self, path: str, *answers: "Answer") -> None:
        """What it is to answer to the next requests for a path."""
        self.told[path].extend(answers)

    def requests(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what the tests are about."""


Answer = Callable[[Handler], None]


def serve(handler: Handler, *, cut: int | None = None, ranges: bool = True) -> None:
    """The file, or the range asked for; cut after that many bytes."""
    server, headers = handler.server, handler.headers
    body = server.files.get(handler.path)
    if body is None:
        handler.start(404, 0)
        return
    etag = server.etags[handler.path]
    marks = {"ETag": etag} if etag else {}
    code, first = 200, 0
    asked = re.fullmatch(r"bytes=(\d+)-", headers.get("Range", ""))
    if ranges and asked and headers.get("If-Range") == etag:
        code, first = 206, int(asked[1])
        marks["Content_Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
    handler.start(code, len(body) - first, **marks)
    if cut is None:
        handler.send(body[first:])
    else:
        handler.send(body[first : first + cut])
        handler.close_connection = True


def cut(after: int) -> Answer:
    """The file, but the connection ends after that many bytes of body."""
    return lambda handler: serve(handler, cut=after)


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Only that."""

    def answer(handler: Handler) -> None:
        handler.start(code, len(body), **headers)
        handler.send(body)

    return answer


def redirect(url: str) -> Answer:
    """To another place."""
    return status(302, Location=url)


@dataclass
class FakeLfsServer:
    """Git LFS on such a server: batch endpoint, and objects to be had with a token."""

    server: Server
    errors: dict[str, int] = field(default_factory=dict)
    life: dict[str, object] = field(default_factory=lambda: {"expires_in": 3600})
    batches: list[dict[str, Any]] = field(default_factory=list)
    path: str = "/repo.git/info/lfs/objects/batch"

    def holds(self, name: str, body: bytes) -> MediaFile:
        file = described(name, body)
        self.server.files[f"/objects/{file.sha256}?token={SECRET}"] = body
        self.server.etags[f"/objects/{file.sha256}?token={SECRET}"] = '"lfs"'
        return file

    def __call__(self, handler: Handler) -> None:
        question = json.loads(handler.asked.body)
        assert handler.headers["Accept"] == handler.headers["Content-Type"] == LFS_JSON
        assert (question["operation"], question["transfers"]) == ("download", ["basic"])
        self.batches.append(question)
        objects = [self._object(item) for item in question["objects"]]
        text = json.dumps({"transfer": "basic", "objects": objects}).encode()
        handler.start(200, len(text), Content_Type=LFS_JSON)
        handler.send(text)

    def _object(self, item: dict[str, Any]) -> dict[str, Any]:
        if code := self.errors.get(item["oid"]):
            return {**item, "error": {"code": code, "message": f"no, says {SECRET}"}}
        href = self.server.url(f"/objects/{item['oid']}?token={SECRET}")
        action = {"href": href, "header": {"X-Token": SECRET}, **self.life}
        return {**item, "actions": {"download": action}}


def described(name: str, body: bytes) -> MediaFile:
    """What a manifest says of a file."""
    return MediaFile(name, hashlib.sha256(body).hexdigest(), len(body))


def fetch_of(
    folder: Path,
    files: list[MediaFile],
    *sources: dict[str, Any],
    waits: list[float] | None = None,
) -> Fetch:
    """The stage for some files (two make a clip), which notes its waits instead of waiting."""
    facts = load("av-digits").model_dump()
    facts["sources"] = [{"prefix": "", **source} for source in sources]
    clips = tuple(
        Clip(f"clip{place}", 0, "", {}, files[place], files[min(place + 1, len(files) - 1)])
        for place in range(0, len(files), 2)
    )
    web = HttpClient(pause=([] if waits is None else waits).append)
    manifest = Manifest.model_validate(facts)
    return Fetch(folder / "raw", folder / "state", manifest, clips, None, web)


def bring(stage: Fetch, file: MediaFile) -> bytes | str:
    """The file as the stage brings it, or the reason why it does not."""
    unit = next(unit for unit in stage.units() if unit.name == file.path)
    with TemporaryDirectory(dir=stage.folder.parent) as scratch:
        outcome = stage.run(unit, Path(scratch))
        if outcome.written:
            return (Path(scratch) / file.path).read_bytes()
    (failure,) = outcome.failures
    assert (failure.stage, failure.path) == ("fetch", file.path)
    return failure.reason


def run_all(stage: Fetch) -> StageSummary:
    """The stage as ``prepare`` runs it."""
    with lock_folder(stage.folder.parent), open_worker_pools(0) as pools, stage.http:
        return run_stage(stage, executor=pools.threads, progress=NoProgress())
