"""Tests how connections are made, and how long the client waits for a busy server."""

import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from avsnn.errors import UserError
from avsnn.pipeline.transfer.http import Address, HttpClient, ServerUnavailableError
from tests.pipeline.transfer.server import (
    SECRET,
    Handler,
    Server,
    fetch_file,
    fetch_of,
    redirect,
    status,
)

BODY = b"sound" * 1000


@pytest.mark.parametrize(
    ("retry_after", "wait"),
    [("7", 7.0), ("99999", 60.0), ("Wed, 01 Jan 2098 00:00:00 GMT", 60.0)],
)
def test_the_client_waits_as_long_as_the_server_says_up_to_a_minute(
    tmp_path: Path, server: Server, retry_after: str, wait: float
) -> None:
    file = server.add_file("a.wav", BODY)
    server.plan_answers("/files/a.wav", status(429, Retry_After=retry_after))
    waits: list[float] = []
    assert fetch_file(fetch_of(tmp_path, [file], {"url": server.url()}, waits=waits), file) == BODY
    assert waits == [wait]


@pytest.mark.parametrize("retry_after", ["", "0", "-5", "soon", "Wed, 01 Jan 2020 00:00:00 GMT"])
def test_without_a_usable_time_from_the_server_each_wait_is_longer_than_the_last(
    tmp_path: Path, server: Server, retry_after: str
) -> None:
    file = server.add_file("a.wav", BODY)
    answers = [status(code, Retry_After=retry_after) for code in (500, 503, 429)]
    server.plan_answers("/files/a.wav", *answers)
    waits: list[float] = []
    assert fetch_file(fetch_of(tmp_path, [file], {"url": server.url()}, waits=waits), file) == BODY
    first, second, third = waits
    assert 0.5 <= first <= 1 <= second <= 2 <= third <= 4


def test_the_end_of_a_run_ends_a_wait(server: Server) -> None:
    server.plan_answers("/files/a.wav", status(503, Retry_After="60"))
    ended: list[Exception] = []

    def wait() -> None:
        try:
            http.retry(attempt, lambda: 0)
        except Exception as error:
            ended.append(error)

    def attempt() -> None:
        refused.set()
        raise ServerUnavailableError("busy", wait_s=60)

    refused = threading.Event()
    with HttpClient() as http:
        thread = threading.Thread(target=wait)
        thread.start()
        refused.wait()
    thread.join(timeout=30)
    assert [str(error) for error in ended] == ["the run ended before this was done"]


def test_a_server_without_a_trusted_certificate_is_refused(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    file = server.add_file("a.wav", BODY)
    assert "CERTIFICATE_VERIFY_FAILED" in fetch_file(
        fetch_of(tmp_path, [file], {"url": server.url()}), file
    )
    assert server.received == []


def test_a_redirect_to_another_host_gets_no_secrets_of_the_first_host(
    server: Server,
) -> None:
    server.add_file("a.wav", BODY)
    server.plan_answers("/b", redirect("/c"))
    server.plan_answers("/c", redirect(server.url("/files/a.wav", host="127.0.0.1")))
    address = Address(server.url("/b", user=f"me:{SECRET}@"), {"X-Token": SECRET})
    with HttpClient() as http, http.open(address, {"Accept": "*/*"}) as response:
        assert response.read() == BODY
    first, second, third = server.received
    for request in (first, second):
        assert "Authorization" in request.headers
        assert request.headers["X-Token"] == SECRET
    assert third.headers["Accept"] == "*/*"
    assert "Authorization" not in third.headers
    assert "X-Token" not in third.headers


def test_a_redirect_from_https_to_http_is_refused(
    tmp_path: Path, server: Server, plain_server: Server
) -> None:
    file = server.add_file("a.wav", BODY)
    plain_server.add_file("a.wav", BODY)
    for insecure in (False, True):
        server.plan_answers("/files/a.wav", redirect(plain_server.url("/files/a.wav")))
        source = {"url": server.url(), "insecure": insecure}
        reason = fetch_file(fetch_of(tmp_path, [file], source), file)
        assert reason == "cannot be downloaded: localhost: leads to http:// instead of https://"
    assert plain_server.received == []


def test_redirects_in_a_circle_end_with_an_error(tmp_path: Path, server: Server) -> None:
    file = server.add_file("a.wav", BODY)
    server.always["/files/a.wav"] = redirect("/files/a.wav")
    reason = fetch_file(fetch_of(tmp_path, [file], {"url": server.url()}), file)
    assert reason == "cannot be downloaded: localhost: redirects more than 5 times"
    assert len(server.received) == 6


def test_plain_http_works_where_the_manifest_allows_it(
    tmp_path: Path, plain_server: Server
) -> None:
    file = plain_server.add_file("a.wav", BODY)
    source = {"url": plain_server.url(), "insecure": True}
    assert fetch_file(fetch_of(tmp_path, [file], source), file) == BODY


class Proxy(socketserver.StreamRequestHandler):
    """Records the lines of a request, and refuses the request."""

    def handle(self) -> None:
        lines = iter(self.rfile.readline, b"\r\n")
        self.server.lines = [line.decode().strip() for line in lines]  # type: ignore[attr-defined]
        self.wfile.write(b"HTTP/1.1 407 Not you\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def proxy() -> Iterator[socketserver.TCPServer]:
    with socketserver.ThreadingTCPServer(("localhost", 0), Proxy) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=[0.05])
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()


def test_the_proxy_of_the_environment_is_used_and_its_password_is_not_printed(
    tmp_path: Path,
    server: Server,
    proxy: socketserver.TCPServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = proxy.server_address[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{SECRET}@localhost:{port}")
    file = server.add_file("a.wav", BODY)
    reason = fetch_file(fetch_of(tmp_path, [file], {"url": server.url()}), file)
    assert "cannot be downloaded: localhost: ProxyError: 407 Not you (4 attempts)" in reason
    first, *headers = proxy.lines  # type: ignore[attr-defined]
    assert first == f"CONNECT localhost:{server.server_port} HTTP/1.1"
    assert any(line.startswith("Proxy-Authorization: Basic") for line in headers)
    assert server.received == []


def test_connections_are_reused_and_never_more_than_the_limit(
    tmp_path: Path, server: Server
) -> None:
    """Eight requests wait for each other, so eight connections must be open at the same time."""
    barrier = threading.Barrier(8, timeout=30)

    def together(handler: Handler) -> None:
        barrier.wait()
        status(200, BODY)(handler)

    server.always["/a"] = together

    def request_once() -> None:
        with http.open(Address(server.url("/a")), {}) as response:
            assert response.read() == BODY
            done.append(1)

    done: list[int] = []
    with HttpClient() as http:
        threads = [threading.Thread(target=request_once) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(done) == 32
    assert server.most_open == server.connections == 8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("NO_PROXY", "fe80::/10"), ("ALL_PROXY", f"foo://user:{SECRET}@host")),
        ("SSL_CERT_FILE", "/nowhere.pem"),
    ],
)
def test_variables_that_allow_no_connection_are_named_and_are_no_failure_of_a_file(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    sentence = r"NO_PROXY.*SSL_CERT_FILE"
    with (
        HttpClient() as http,
        pytest.raises(UserError, match=sentence) as error,
        http.open(Address("https://localhost:1/"), {}),
    ):
        pass
    assert SECRET not in str(error.value)
