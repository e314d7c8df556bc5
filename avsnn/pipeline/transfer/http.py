"""HTTPS for many threads: shared connections, waits as servers ask, no secret in a message."""

from __future__ import annotations

import logging
import random
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine.executor import CONNECTIONS
from avsnn.pipeline.transfer.errors import ServerUnavailableError, TransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import httpx

# Number of failed attempts after which a server counts as unavailable; new bytes restart the count.
MAX_ATTEMPTS = 4

# Wait after the first failed attempt, in s; the wait doubles after each further failed attempt.
FIRST_WAIT_S = 1.0

# Longest wait that a server may ask for, in s.
LONGEST_WAIT_S = 60.0

# How long a server may take to connect, to answer, or to send the next bytes, in s.
TIMEOUT_S = 30.0

# Number of redirects that are followed; redirects in a circle must end.
MAX_REDIRECTS = 5

# Statuses of a server that is overloaded or broken for a moment.
BUSY_STATUSES = (429, 500, 502, 503, 504)

# Statuses of a quota that is used up: GitHub answers 403, Git LFS answers 509 for bandwidth.
QUOTA_STATUSES = (403, 509)


@dataclass(frozen=True)
class Address:
    """The URL of a request, and the headers that the host of the URL expects.

    Attributes:
        url: the URL. URL and headers may hold a secret, so neither belongs in a message.
        headers: headers for this host only; another host after a redirect does not get them.
        insecure: allow plain http.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    insecure: bool = False


class HttpClient:
    """Sends requests from any number of threads, through the proxies of the environment.

    The client is a context manager. Leaving the context ends the requests and waits of all threads.

    Args:
        pause: waits a number of s. The default waits too, and leaving the context ends the wait.
    """

    def __init__(self, pause: Callable[[float], object] | None = None) -> None:
        self._stopped = threading.Event()
        self._pause = pause or self._stopped.wait
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None

    def __reduce__(self) -> tuple[type[HttpClient], tuple[()]]:
        """Send no connections to another process, which makes its own."""
        return HttpClient, ()

    def __enter__(self) -> HttpClient:
        self._stopped.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def retry(self, attempt: Callable[[], None], bytes_so_far: Callable[[], int]) -> None:
        """Call ``attempt`` until it succeeds, with longer and longer waits, while a server is busy.

        Args:
            attempt: what to try.
            bytes_so_far: returns how many bytes have arrived. An attempt that brings new bytes
                starts the count of failed attempts again.

        Raises:
            ServerUnavailableError: the server stayed unavailable.
            TransferError: ``attempt`` raised the error.
            RunError: the context was left.
        """
        most_bytes, failed = bytes_so_far(), 0
        while True:
            try:
                return attempt()
            except ServerUnavailableError as error:
                self._raise_if_stopped()
                if bytes_so_far() > most_bytes:
                    most_bytes, failed = bytes_so_far(), 0
                failed += 1
                if not error.can_retry:
                    raise
                if failed == MAX_ATTEMPTS:
                    raise ServerUnavailableError(
                        f"{error} ({MAX_ATTEMPTS} attempts)",
                        can_retry=False,
                        is_reached=error.is_reached,
                    ) from None
                # Threads that a server refused at the same time must not come back together.
                spread = random.uniform(0.5, 1.0)  # noqa: S311
                self._pause(max(error.wait_s, FIRST_WAIT_S * 2 ** (failed - 1) * spread))
                self._raise_if_stopped()

    @contextmanager
    def open(
        self,
        address: Address,
        headers: Mapping[str, str],
        *,
        content: bytes | None = None,
        accepted: tuple[int, ...] = (200,),
    ) -> Iterator[httpx.Response]:
        """Send a request, and yield the response before its body is read.

        Args:
            address: where to send the request.
            headers: headers for every host, also for a host after a redirect.
            content: body of a POST; None sends a GET.
            accepted: statuses of a response that is yielded.

        Raises:
            ServerUnavailableError: there is no connection, the connection was cut, or the server
                asks to come back later.
            TransferError: the response has a status that is not accepted, or is a redirect that
                is not followed.
        """
        import httpx

        try:
            response = self._send(address, headers, content)
            try:
                if response.status_code not in accepted:
                    retry_after = response.headers.get("Retry-After", "")
                    raise error_of_status(response.status_code, retry_after)
                yield response
            finally:
                response.close()
        except (httpx.ConnectError, httpx.ProxyError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ServerUnavailableError(reason, is_reached=False) from None
        except httpx.RequestError as error:
            # The text of other errors may quote the URL or the headers, and so a secret.
            raise ServerUnavailableError(type(error).__name__, is_reached=False) from None
        except httpx.InvalidURL:
            raise TransferError("gave an address that cannot be read") from None

    def iter_body(self, response: httpx.Response) -> Iterator[bytes]:
        """Yield the body of a response block by block, as the blocks arrive.

        Raises:
            TransferError: the body is compressed, so its bytes are not the bytes of the file.
            RunError: the context was left.
        """
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise TransferError("sends it compressed, though not asked to")
        for block in response.iter_raw():
            self._raise_if_stopped()
            yield block

    def _raise_if_stopped(self) -> None:
        if self._stopped.is_set():
            raise RunError("the run ended before this was done")

    def _send(
        self, address: Address, headers: Mapping[str, str], content: bytes | None
    ) -> httpx.Response:
        """Send a request and follow redirects, but never from https to http."""
        client = self._connect()
        method = "GET" if content is None else "POST"
        request = client.build_request(
            method, address.url, headers={**address.headers, **headers}, content=content
        )
        allowed = ("https", "http") if address.insecure else ("https",)
        for _ in range(MAX_REDIRECTS + 1):
            if request.url.scheme not in allowed:
                raise TransferError(f"leads to {request.url.scheme or 'no'}:// instead of https://")
            response = client.send(request, stream=True)
            redirected = response.next_request
            if redirected is None:
                return response
            response.close()
            if request.url.scheme == "https":
                allowed = ("https",)
            if _origin(redirected) != _origin(request):
                for name in address.headers:
                    redirected.headers.pop(name, None)
            request = redirected
        raise TransferError(f"redirects more than {MAX_REDIRECTS} times")

    def _connect(self) -> httpx.Client:
        """Return the httpx client that all threads share; the first call makes the client.

        Raises:
            UserError: the environment names a proxy or certificates that cannot be used.
        """
        import httpx

        with self._lock:
            self._raise_if_stopped()
            if self._client is None:
                # Below this level both libraries log URLs and headers, secrets included.
                for name in ("httpx", "httpcore"):
                    logging.getLogger(name).setLevel(logging.WARNING)
                limits = httpx.Limits(
                    max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS
                )
                try:
                    self._client = httpx.Client(
                        limits=limits, timeout=httpx.Timeout(TIMEOUT_S, pool=None)
                    )
                except (httpx.InvalidURL, ImportError, OSError, ValueError) as error:
                    # The text of other errors may quote a proxy's address, and so a secret.
                    known = isinstance(error, ImportError | OSError)
                    reason = str(error) if known else type(error).__name__
                    raise UserError(
                        "the environment variables for connections (HTTPS_PROXY, ALL_PROXY, "
                        f"NO_PROXY, SSL_CERT_FILE) cannot be used: {reason}."
                    ) from None
            return self._client


def error_of_status(code: int, retry_after: str = "") -> TransferError:
    """Return the error for a status that is not accepted.

    Args:
        code: the status.
        retry_after: the ``Retry-After`` header of the response.
    """
    reason = f"answered {code}"
    if code in BUSY_STATUSES:
        return ServerUnavailableError(reason, wait_s=_requested_wait_s(retry_after))
    if code in QUOTA_STATUSES:
        return ServerUnavailableError(reason, can_retry=False)
    return TransferError(reason)


def _requested_wait_s(retry_after: str) -> float:
    """Return the wait in s that a server asks for in seconds or by a date, at most the longest."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), LONGEST_WAIT_S)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return min((until - datetime.now(UTC)).total_seconds(), LONGEST_WAIT_S)


def _origin(request: httpx.Request) -> tuple[str, str, int | None]:
    return request.url.scheme, request.url.host, request.url.port
