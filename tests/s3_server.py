"""A real S3 server on this machine: moto behind a layer that counts requests and makes faults."""

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

KEY = "testing"
BUCKET = "bucket"


class S3Server:
    """The server. Its address and keys are given to commands by `environment`.

    Attributes:
        requests: number of requests so far, by method.
        fault: called with the number of each request from 1 and its method; the answer ``500``
            fails the request, ``cut`` cuts the connection in the middle of the answer, and ``slow``
            answers late. None of them answers the request.
    """

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.fault: Callable[[int, str], str] = lambda number, method: ""
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server: Any = None
        self.start(port=0)
        with self.environment():
            self.store().mkdir(BUCKET)

    def start(self, port: int | None = None) -> None:
        """Listen, on the same port as before."""
        self._server = make_server(
            "127.0.0.1",
            self.port if port is None else port,
            self._answer,
            threaded=True,
            request_handler=_Handler,
        )
        self.port = self._server.port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Refuse all connections until `start`; keep the objects."""
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def environment(self, key: str = KEY) -> Iterator[None]:
        """Put address and keys into the environment, as users do."""
        before = dict(os.environ)
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def store(self) -> Any:
        """A new client of the server; needs `environment`."""
        import s3fs

        return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)

    def objects(self, folder: str) -> dict[str, bytes]:
        """Return the bytes of every object in a folder and below, by the path in the folder."""
        with self.environment():
            store = self.store()
            names = store.find(folder)
            found = store.cat(names) if names else {}
        return {path.removeprefix(f"{folder}/"): data for path, data in found.items()}

    def _answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        self.requests[method] += 1
        fault = self.fault(self.requests.total(), method)
        key = re.search(r"Credential=([^/]*)/", environ.get("HTTP_AUTHORIZATION", ""))
        if key is None or key[1] != KEY:
            return _refuse(start_response, method, "403 Forbidden", "InvalidAccessKeyId")
        if fault == "500":
            return _refuse(start_response, method, "500 Internal Server Error", "InternalError")
        if fault == "slow":
            time.sleep(0.2)
        answer = self._moto(environ, start_response)
        return _cut(answer) if fault == "cut" else answer


class _Handler(MotoRequestHandler):
    """Says nothing, and cuts connections without a traceback."""

    protocol_version = "HTTP/1.1"

    def log(self, *_: object) -> None:
        """Say nothing."""

    def run_wsgi(self) -> None:
        try:
            super().run_wsgi()
        except _CutError:
            self.close_connection = True


class _CutError(ConnectionError):
    """Cuts a connection."""


def _cut(answer: Iterable[bytes]) -> Iterator[bytes]:
    data = b"".join(answer)
    yield data[: len(data) // 2]
    raise _CutError


def _refuse(start_response: StartResponse, method: str, status: str, code: str) -> list[bytes]:
    body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    body = b"" if method == "HEAD" else body
    start_response(status, [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
    return [body]
