"""How connections are made, and how long a server is waited for."""

import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from avsnn.pipeline.transfer.http import Address, HttpClient, ServerUnavailableError
from tests.pipeline.transfer.server import (
    SECRET,
    Handler,
    Server,
    bring,
    fetch_of,
    redirect,
    status,
)

BODY = b"sound" * 1000


@pytest.mark.parametrize(
    ("retry_after", "wait"),
    [("7", 7.0), ("99999", 60.0), ("Wed, 01 Jan 2098 00:00:00 GMT", 60.0)],
)
def test_a_server_says_how_long_to_wait_up_to_a_minute(
    tmp_path: Path, server: Server, retry_after: str, wait: float
) -> None:
    file = server.holds("a.wav", BODY)
    server.tell("/files/a.wav", status(429, Retry_After=retry_after))
    waits: list[float] = []
    assert bring(fetch_of(tmp_path, [file], {"url": server.url()}, waits=waits), file) == BODY
    assert waits == [wait]


@pytest.mark.parametrize("retry_after", ["", "0", "-5", "soon", "Wed, 01 Jan 2020 00:00:00 GMT"])
def test_a_server_that_does_not_say_is_waited_for_ever_longer(
    tmp_path: Path, server: Server, retry_after: str
) -> None:
    file = server.holds("a.wav", BODY)
    answers = [status(code, Retry_After=retry_after) for code in (500, 503, 429)]
    server.tell("/files/a.wav", *answers)
    waits: list[float] = []
    assert bring(fetch_of(tmp_path, [file], {"url": server.url()}, waits=waits), file) == BODY
    first, second, third = waits
    assert 0.5 <= first <= 1 <= second <= 2 <= third <= 4


def test_leaving_the_run_ends_a_wait(server: Server) -> None:
    server.tell("/files/a.wav", status(503, Retry_After="60"))
    ended: list[Exception] = []

    def wait() -> None:
        try:
            web.retry(attempt, lambda: 0)
        except Exception as error:
            ended.append(error)

    def attempt() -> None:
        refused.set()
        raise ServerUnavailableError("busy", wait_s=60)

    refused = threading.Event()
    with HttpClient() as web:
        thread = threading.Thread(target=wait)
        thread.start()
        refused.wait()
    thread.join(timeout=30)
    assert [str(error) for error in ended] == ["the run ended before this was done"]


def test_a_server_nobody_vouches_for_is_refused(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    file = server.holds("a.wav", BODY)
    assert "CERTIFICATE_VERIFY_FAILED" in bring(
        fetch_of(tmp_path, [file], {"url": server.url()}), file
    )
    assert server.asked == []


def test_redirects_are_followed_without_what_was_meant_for_the_first_host(
    server: Server,
) -> None:
    server.holds("a.wav", BODY)
    server.tell("/b", redirect("/c"))
    server.tell("/c", redirect(server.url("/files/a.wav", host="127.0.0.1")))
    address = Address(server.url("/b", user=f"me:{SECRET}@"), {"X-Token": SECRET})
    with HttpClient() as web, web.open(address, {"Accept": "*/*"}) as response:
        assert response.read() == BODY
    first, second, third = server.asked
    for asked in (first, second):
        assert "Authorization" in asked.headers
        assert asked.headers["X-Token"] == SECRET
    assert third.headers["Accept"] == "*/*"
    assert "Authorization" not in third.headers
    assert "X-Token" not in third.headers


def test_a_redirect_from_https_to_http_is_refused(
    tmp_path: Path, server: Server, plain_server: Server
) -> None:
    file = server.holds("a.wav", BODY)
    plain_server.holds("a.wav", BODY)
    for insecure in (False, True):
        server.tell("/files/a.wav", redirect(plain_server.url("/files/a.wav")))
        source = {"url": server.url(), "insecure": insecure}
        told = bring(fetch_of(tmp_path, [file], source), file)
        assert told == "cannot be downloaded: localhost: leads to http:// instead of https://"
    assert plain_server.asked == []


def test_redirects_in_a_circle_end(tmp_path: Path, server: Server) -> None:
    file = server.holds("a.wav", BODY)
    server.always["/files/a.wav"] = redirect("/files/a.wav")
    told = bring(fetch_of(tmp_path, [file], {"url": server.url()}), file)
    assert told == "cannot be downloaded: localhost: redirects more than 5 times"
    assert len(server.asked) == 6


def test_plain_http_works_where_the_manifest_allows_it(
    tmp_path: Path, plain_server: Server
) -> None:
    file = plain_server.holds("a.wav", BODY)
    source = {"url": plain_server.url(), "insecure": True}
    assert bring(fetch_of(tmp_path, [file], source), file) == BODY


class Proxy(socketserver.StreamRequestHandler):
    """Writes down what it is asked, and refuses it."""

    def handle(self) -> None:
        lines = iter(self.rfile.readline, b"\r\n")
        self.server.asked = [line.decode().strip() for line in lines]  # type: ignore[attr-defined]
        self.wfile.write(b"HTTP/1.1 407 Not you\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def proxy() -> Iterator[socketserver.TCPServer]:
    with socketserver.ThreadingTCPServer(("localhost", 0), Proxy) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=[0.05])
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()


def test_the_proxy_of_the_environment_is_used_and_its_password_not_told(
    tmp_path: Path,
    server: Server,
    proxy: socketserver.TCPServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = proxy.server_address[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{SECRET}@localhost:{port}")
    file = server.holds("a.wav", BODY)
    told = bring(fetch_of(tmp_path, [file], {"url": server.url()}), file)
    assert told == "cannot be downloaded: localhost: ProxyError: 407 Not you (4 attempts)"
    first, *headers = proxy.asked  # type: ignore[attr-defined]
    assert first == f"CONNECT localhost:{server.server_port} HTTP/1.1"
    assert any(line.startswith("Proxy-Authorization: Basic") for line in headers)
    assert server.asked == []


def test_connections_are_kept_and_are_never_more_than_the_limit(
    tmp_path: Path, server: Server
) -> None:
    """Eight requests wait for each other, which more than eight threads at once could not pass."""
    barrier = threading.Barrier(8, timeout=30)

    def together(handler: Handler) -> None:
        barrier.wait()
        status(200, BODY)(handler)

    server.always["/a"] = together

    def ask() -> None:
        with web.open(Address(server.url("/a")), {}) as response:
            assert response.read() == BODY
            done.append(1)

    done: list[int] = []
    with HttpClient() as web:
        threads = [threading.Thread(target=ask) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(done) == 32
    assert server.most_open == server.connections == 8
