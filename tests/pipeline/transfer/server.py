"""A file server for the tests, over real TLS, that gives wrong answers on request."""

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

from avsnn.datasets_manifest import MediaFile, load
from avsnn.datasets_manifest.clip_table import ClipTable, FilesOfRecordings, PublishedFiles
from avsnn.datasets_manifest.schema import Manifest
from avsnn.errors import RunError
from avsnn.pipeline.engine.executor import open_worker_pools
from avsnn.pipeline.engine.journal import StageSummary
from avsnn.pipeline.engine.lock import lock_folder
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.engine.run_stage import run_stage
from avsnn.pipeline.prepare.stages.fetch import Fetch
from avsnn.pipeline.transfer.http import HttpClient

SECRET = "hunter2token"  # noqa: S105
LFS_JSON = "application/vnd.git-lfs+json"


@dataclass
class Request:
    """A request that arrived, with the number of bytes in the body of the answer."""

    path: str
    headers: dict[str, str]
    body: bytes
    sent: int = 0


class Handler(BaseHTTPRequestHandler):
    """Gives the next planned answer for a path; without a planned answer, sends the file."""

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
        self.recorded = Request(self.path, dict(self.headers), self.rfile.read(length))
        with self.server.lock:
            self.server.received.append(self.recorded)
            planned = self.server.planned[self.path]
            answer = planned.popleft() if planned else self.server.always.get(self.path, serve)
        answer(self)

    def start(self, code: int, length: int, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def send(self, body: bytes) -> None:
        self.wfile.write(body)
        self.recorded.sent += len(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class Server(ThreadingHTTPServer):
    """Serves files over http or https, and records all requests and connections.

    Attributes:
        files: bytes by path.
        etags: the ETag of each file, by path.
        planned: the answers to the next requests, by path.
        always: the answer to all further requests, by path.
        received: all requests in the order of their arrival.
        connections: number of connections so far.
        open: number of connections that are open now.
        most_open: largest number of connections that were open at once.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__(("localhost", 0), Handler)
        self.scheme = "https" if context else "http"
        if context:
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.planned: dict[str, deque[Answer]] = defaultdict(deque)
        self.always: dict[str, Answer] = {}
        self.received: list[Request] = []
        self.lock = threading.Lock()
        self.connections = self.open = self.most_open = 0

    def url(self, path: str = "/files/", host: str = "localhost", user: str = "") -> str:
        """Return the address of a path; ``user`` is a user name and password with ``@``."""
        return f"{self.scheme}://{user}{host}:{self.server_port}{path}"

    def add_file(self, name: str, body: bytes, etag: str = '"1"') -> MediaFile:
        """Serve a file; return the file as a manifest describes the file."""
        self.files[f"/files/{name}"] = body
        self.etags[f"/files/{name}"] = etag
        return described(name, body)

    def plan_answers(self, path: str, *answers: "Answer") -> None:
        """Plan the answers to the next requests for a path."""
        self.planned[path].extend(answers)

    def requests(self, path: str) -> list[Request]:
        """Return the requests for a path."""
        return [request for request in self.received if request.path == path]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: in many tests the client closes the connection on purpose."""


Answer = Callable[[Handler], None]


def serve(handler: Handler, *, cut: int | None = None, ranges: bool = True) -> None:
    """Send the file, or the requested range; with ``cut``, close after that many bytes."""
    server, headers = handler.server, handler.headers
    body = server.files.get(handler.path)
    if body is None:
        handler.start(404, 0)
        return
    etag = server.etags[handler.path]
    sent_headers = {"ETag": etag} if etag else {}
    code, first = 200, 0
    wanted = re.fullmatch(r"bytes=(\d+)-", headers.get("Range", ""))
    if ranges and wanted and headers.get("If-Range") == etag:
        code, first = 206, int(wanted[1])
        sent_headers["Content_Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
    handler.start(code, len(body) - first, **sent_headers)
    if cut is None:
        handler.send(body[first:])
    else:
        handler.send(body[first : first + cut])
        handler.close_connection = True


def cut(after: int) -> Answer:
    """Return the answer that closes the connection after that many bytes of the file."""
    return lambda handler: serve(handler, cut=after)


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Return the answer with this status, body and headers."""

    def answer(handler: Handler) -> None:
        handler.start(code, len(body), **headers)
        handler.send(body)

    return answer


def redirect(url: str) -> Answer:
    """Return the answer that redirects to another address."""
    return status(302, Location=url)


@dataclass
class FakeLfsServer:
    """A Git LFS endpoint on a server; objects are served to requests with a token.

    Attributes:
        server: the server.
        errors: status codes by the SHA-256 of an object, for objects that are refused.
        lifetime: how long an address is valid, as Git LFS says so in its answer.
        batches: all batch requests so far.
        path: the path of the batch endpoint.
    """

    server: Server
    errors: dict[str, int] = field(default_factory=dict)
    lifetime: dict[str, object] = field(default_factory=lambda: {"expires_in": 3600})
    batches: list[dict[str, Any]] = field(default_factory=list)
    path: str = "/repo.git/info/lfs/objects/batch"

    def add_file(self, name: str, body: bytes) -> MediaFile:
        """Serve an object; return its file as a manifest describes the file."""
        file = described(name, body)
        self.server.files[f"/objects/{file.sha256}?token={SECRET}"] = body
        self.server.etags[f"/objects/{file.sha256}?token={SECRET}"] = '"lfs"'
        return file

    def __call__(self, handler: Handler) -> None:
        batch = json.loads(handler.recorded.body)
        assert handler.headers["Accept"] == handler.headers["Content-Type"] == LFS_JSON
        assert (batch["operation"], batch["transfers"]) == ("download", ["basic"])
        self.batches.append(batch)
        objects = [self._object(item) for item in batch["objects"]]
        text = json.dumps({"transfer": "basic", "objects": objects}).encode()
        handler.start(200, len(text), Content_Type=LFS_JSON)
        handler.send(text)

    def _object(self, item: dict[str, Any]) -> dict[str, Any]:
        if code := self.errors.get(item["oid"]):
            return {**item, "error": {"code": code, "message": f"no, says {SECRET}"}}
        href = self.server.url(f"/objects/{item['oid']}?token={SECRET}")
        action = {"href": href, "header": {"X-Token": SECRET}, **self.lifetime}
        return {**item, "actions": {"download": action}}


def described(name: str, body: bytes) -> MediaFile:
    """Return a file as a manifest describes the file."""
    return MediaFile(name, hashlib.sha256(body).hexdigest(), len(body))


@dataclass(frozen=True)
class FetchGiven(Fetch):
    """The stage fetch for files that no table names.

    Attributes:
        given: the files.
    """

    given: tuple[MediaFile, ...] = ()

    @property
    def files(self) -> PublishedFiles:
        return FilesOfRecordings(self.given)


def fetch_of(
    folder: Path,
    files: list[MediaFile],
    *sources: dict[str, Any],
    waits: list[float] | None = None,
) -> Fetch:
    """Return the stage fetch for some files.

    The stage does not wait for busy servers, but appends the seconds of each wait to ``waits``.
    """
    facts = load("av-digits").model_dump()
    facts["sources"] = [{"prefix": "", **source} for source in sources]
    http = HttpClient(pause=([] if waits is None else waits).append)
    manifest = Manifest.model_validate(facts)
    return FetchGiven(
        folder / "raw",
        folder / "state",
        manifest,
        ClipTable.empty(),
        None,
        http,
        given=tuple(files),
    )


def fetch_file(stage: Fetch, file: MediaFile) -> bytes | str:
    """Return the bytes of a file that the stage fetched, or the reason why there are none."""
    unit = next(unit for unit in stage.units() if unit.name == file.path)
    with TemporaryDirectory(dir=stage.folder.parent) as scratch:
        try:
            outcome = stage.run(unit, Path(scratch))
        except RunError as error:
            return str(error)
        if outcome.written:
            return (Path(scratch) / file.path).read_bytes()
    (failure,) = outcome.failures
    assert (failure.stage, failure.path) == ("fetch", file.path)
    return failure.reason


def run_all(stage: Fetch) -> StageSummary:
    """Run the stage as ``prepare`` runs the stage."""
    with lock_folder(stage.folder.parent), open_worker_pools(0) as pools, stage.http:
        return run_stage(stage, executor=pools.threads, progress=NoProgress())
