"""A real S3 server on this machine: moto behind a layer that counts requests and makes faults."""

import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

KEY, BUCKET = "testing", "bucket"

# The words of S3 for each code of an error.
MESSAGES = {
    "InvalidAccessKeyId": "The AWS Access Key Id you provided does not exist in our records.",
    "InternalError": "We encountered an internal error. Please try again.",
}


def no_fault(number: int, method: str) -> str:
    """Answer every request rightly."""
    return ""


class S3Server:
    """The server; `environment` gives its address and keys to commands.

    Attributes:
        requests: number of requests so far, by method.
        fault: called with the number of each request, from 1, and its method. The answer ``500``
            refuses the request, ``cut`` cuts the connection in the middle of the answer, ``gone``
            cuts the connection before the answer, and ``slow`` makes the server wait.
    """

    def __init__(self) -> None:
        # Only the tests of stores need moto, and the import takes a second.
        from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
        from werkzeug.serving import make_server

        class Handler(MotoRequestHandler):  # type: ignore[misc]
            protocol_version = "HTTP/1.1"

            def log(self, *_: object) -> None:
                """Say nothing."""

            def connection_dropped(self, *_: object) -> None:
                """Close the connection; otherwise the client would wait for more."""
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        self.requests: Counter[str] = Counter()
        self.fault: Callable[[int, str], str] = no_fault
        self._moto = DomainDispatcherApplication(create_backend_app)
        server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Handler)
        self._address = f"http://127.0.0.1:{server.port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with self.environment():
            self._store().mkdir(BUCKET)

    @contextmanager
    def environment(self, key: str = KEY) -> Iterator[None]:
        """Put address and keys into the environment, as users do."""
        before = dict(os.environ)
        os.environ |= {
            "AWS_ENDPOINT_URL": self._address,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def objects(self, folder: str) -> dict[str, bytes]:
        """Return the bytes of every object in a folder and below, by the path in the folder."""
        with self.environment():
            store = self._store()
            names = store.find(folder)
            found = store.cat(names) if names else {}
        return {path.removeprefix(f"{folder}/"): data for path, data in found.items()}

    def buckets(self) -> list[str]:
        """Return the names of all buckets."""
        with self.environment():
            return [str(name) for name in self._store().ls("")]

    def _store(self) -> Any:
        from s3fs import S3FileSystem

        return S3FileSystem(skip_instance_cache=True, use_listings_cache=False)

    def _answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        self.requests[method] += 1
        fault = self.fault(self.requests.total(), method)
        key = re.search(r"Credential=([^/]*)/", environ.get("HTTP_AUTHORIZATION", ""))
        if key is None or key[1] != KEY:
            return _refuse(start_response, method, "403 Forbidden", "InvalidAccessKeyId")
        if fault == "500":
            return _refuse(start_response, method, "500 Internal Server Error", "InternalError")
        if fault == "gone":
            raise _CutError
        if fault == "slow":
            time.sleep(0.3)
        answer = self._moto(environ, start_response)
        return _cut(answer) if fault == "cut" else answer


class _CutError(ConnectionError):
    """Cuts a connection."""


def _cut(answer: Iterable[bytes]) -> Iterator[bytes]:
    data = b"".join(answer)
    yield data[: len(data) // 2]
    raise _CutError


def _refuse(start_response: StartResponse, method: str, status: str, code: str) -> list[bytes]:
    error = f"<Error><Code>{code}</Code><Message>{MESSAGES[code]}</Message></Error>"
    body = b"" if method == "HEAD" else error.encode()
    start_response(status, [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
    return [body]
