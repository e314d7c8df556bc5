"""Downloads, from a real TLS server on this machine."""

import hashlib
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from avsnn.datasets_manifest import Clip, MediaFile, load
from avsnn.datasets_manifest.schema import Manifest
from avsnn.pipeline.fetch import Fetch
from avsnn.pipeline.stage import Outcome

BODY = b"sound" * 1000
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


class Server(ThreadingHTTPServer):
    """Answers by path: /ok.wav, /busy.wav (503 twice), /cut.wav (too short once), /pointer.wav."""

    asked: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.removeprefix("/files/")
        before = self.server.asked.count(name)
        self.server.asked.append(name)
        if name == "busy.wav" and before < 2:
            self.send_error(503)
        elif name == "cut.wav" and before < 1:
            self._answer(BODY[:100], promised=len(BODY))
        elif name == "pointer.wav":
            self._answer(POINTER, promised=len(POINTER))
        elif name == "gone.wav":
            self.send_error(404)
        else:
            self._answer(BODY, promised=len(BODY))

    def _answer(self, body: bytes, *, promised: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(promised))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    server = Server(("localhost", 0), Handler)
    server.asked = []
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetch_one(folder: Path, server: Server, name: str, sha256: str | None = None) -> Outcome:
    facts = load("av-digits").model_dump()
    facts["sources"] = [{"prefix": "", "url": f"https://localhost:{server.server_port}/files/"}]
    digest = sha256 or hashlib.sha256(BODY).hexdigest()
    file = MediaFile(name, digest, None)
    clip = Clip("clip", 0, "", {}, file, file)
    manifest = Manifest.model_validate(facts)
    stage = Fetch(folder, folder / "state", manifest, (clip,), None, patience_s=0.001)
    scratch = folder / "scratch"
    outcome = stage.run(stage.units()[0], scratch)
    if outcome.written:
        assert (scratch / name).read_bytes() == BODY
    return outcome


@pytest.mark.parametrize(("name", "requests"), [("ok.wav", 1), ("busy.wav", 3), ("cut.wav", 2)])
def test_a_file_arrives_whole_over_a_server_that_is_busy_or_cuts_the_line(
    tmp_path: Path, server: Server, name: str, requests: int
) -> None:
    assert fetch_one(tmp_path, server, name).written == 1
    assert server.asked == [name] * requests


@pytest.mark.parametrize(
    ("name", "reason"), [("gone.wav", "answered 404"), ("pointer.wav", "Git LFS pointer")]
)
def test_a_file_that_is_not_to_be_had_is_a_failure_with_its_reason(
    tmp_path: Path, server: Server, name: str, reason: str
) -> None:
    (failure,) = fetch_one(tmp_path, server, name).failures
    assert reason in failure.reason
    assert (failure.key, failure.path) == ("clip", name)
    assert len(server.asked) == 1


def test_a_file_with_other_content_than_published_is_refused(
    tmp_path: Path, server: Server
) -> None:
    (failure,) = fetch_one(tmp_path, server, "ok.wav", sha256="0" * 64).failures
    assert "does not match the SHA-256" in failure.reason


def test_a_server_nobody_vouches_for_is_refused(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    (failure,) = fetch_one(tmp_path, server, "ok.wav").failures
    assert "CERTIFICATE_VERIFY_FAILED" in failure.reason
    assert server.asked == []
