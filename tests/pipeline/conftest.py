"""Fixtures that run file servers on this machine, and helpers that open the prepared demo."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from avsnn.pipeline.formats.prepared_json import Prepared, load_prepared
from tests.pipeline.transfer.server import FakeLfsServer, Server


def prepared_demo(root: Path) -> Prepared:
    """Return what the prepare of the demo left."""
    prepared = load_prepared(root, "demo")
    assert prepared is not None
    return prepared


def cache_paths(root: Path) -> tuple[Path, Path]:
    """Return the paths of the frame cache and of the audio cache of the demo."""
    prepared = prepared_demo(root)
    return root / "demo" / prepared.frames, root / "demo" / prepared.audio


@contextmanager
def running(context: ssl.SSLContext | None) -> Iterator[Server]:
    """Run a server in a thread, with TLS if there is a context."""
    server = Server(context)
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An https server whose certificate the environment trusts."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with running(context) as server:
        yield server


@pytest.fixture
def plain_server() -> Iterator[Server]:
    """A server without TLS."""
    with running(None) as server:
        yield server


@pytest.fixture
def lfs(server: Server) -> FakeLfsServer:
    """A Git LFS endpoint on the https server."""
    lfs = FakeLfsServer(server)
    server.always[lfs.path] = lfs
    return lfs
