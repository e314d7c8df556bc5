"""HTTPS for many threads: one pool of connections, patience as servers ask, no secret told."""

from __future__ import annotations

import logging
import random
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from avsnn.errors import RunError
from avsnn.pipeline.engine.executor import CONNECTIONS
from avsnn.pipeline.transfer.errors import ServerUnavailableError, TransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import httpx

ATTEMPTS = 4


FIRST_WAIT_S = 1.0


LONGEST_WAIT_S = 60.0


TIMEOUT_S = 30.0


REDIRECTS = 5


BUSY = (429, 500, 502, 503, 504)


# What GitHub says to one who has used up a quota, and what Git LFS says of bandwidth.
NO_QUOTA = (403, 509)


@dataclass(frozen=True)
class Address:
    """Where to ask, and what to say there.

    Attributes:
        url: may hold a secret, as may ``headers``: neither belongs in a message.
        headers: sent to this host only, not to one it redirects to.
        insecure: plain http will do.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    insecure: bool = False


class HttpClient:
    """Opens addresses, for any number of threads. Proxies are those of the environment.

    As a context manager it ends on exit what its threads still wait for.

    Args:
        pause: waits that many s; by default so that leaving the context ends the wait.
    """

    def __init__(self, pause: Callable[[float], object] | None = None) -> None:
        self._stopped = threading.Event()
        self._pause = pause or self._stopped.wait
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None

    def __enter__(self) -> HttpClient:
        self._stopped.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def retry(self, attempt: Callable[[], None], reached: Callable[[], int]) -> None:
        """Tries until it succeeds, ever later, while the server is merely away.

        Args:
            attempt: what to try.
            reached: how far it is, in bytes; only attempts that bring nothing new are counted.

        Raises:
            ServerUnavailableError: the server stayed away.
            TransferError: whatever else ``attempt`` raises.
            RunError: the context was left.
        """
        furthest, failed = reached(), 0
        while True:
            try:
                return attempt()
            except ServerUnavailableError as away:
                self._go_on()
                if reached() > furthest:
                    furthest, failed = reached(), 0
                failed += 1
                if not away.again:
                    raise
                if failed == ATTEMPTS:
                    raise ServerUnavailableError(
                        f"{away} ({ATTEMPTS} attempts)", again=False
                    ) from None
                # Threads that were refused together do not come back together.
                spread = random.uniform(0.5, 1.0)  # noqa: S311
                self._pause(max(away.wait_s, FIRST_WAIT_S * 2 ** (failed - 1) * spread))
                self._go_on()

    @contextmanager
    def open(
        self,
        address: Address,
        headers: Mapping[str, str],
        *,
        content: bytes | None = None,
        accepted: tuple[int, ...] = (200,),
    ) -> Iterator[httpx.Response]:
        """The answer to a GET, or to a POST of ``content``; its body is still to be read.

        Raises:
            ServerUnavailableError: there is no connection, the connection was cut, or the server
                asks to come back later.
            TransferError: any other status than those accepted, or a redirect that is not followed.
        """
        import httpx

        try:
            response = self._follow(address, headers, content)
            try:
                if response.status_code not in accepted:
                    told = response.headers.get("Retry-After", "")
                    raise refusal(response.status_code, told)
                yield response
            finally:
                response.close()
        except (httpx.ConnectError, httpx.ProxyError) as error:
            raise ServerUnavailableError(f"{type(error).__name__}: {error}") from None
        except httpx.RequestError as error:
            # Others may quote what was sent or where to.
            raise ServerUnavailableError(type(error).__name__) from None
        except httpx.InvalidURL:
            raise TransferError("gave an address that cannot be read") from None

    def iter_body(self, response: httpx.Response) -> Iterator[bytes]:
        """The body as it arrives.

        Raises:
            TransferError: it is compressed, so that its bytes are not those of the file.
            RunError: the context was left.
        """
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise TransferError("sends it compressed, though not asked to")
        for block in response.iter_raw():
            self._go_on()
            yield block

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise RunError("the run ended before this was done")

    def _follow(
        self, address: Address, headers: Mapping[str, str], content: bytes | None
    ) -> httpx.Response:
        client = self._connect()
        method = "GET" if content is None else "POST"
        request = client.build_request(
            method, address.url, headers={**address.headers, **headers}, content=content
        )
        allowed = ("https", "http") if address.insecure else ("https",)
        for _ in range(REDIRECTS + 1):
            if request.url.scheme not in allowed:
                raise TransferError(f"leads to {request.url.scheme or 'no'}:// instead of https://")
            response = client.send(request, stream=True)
            following = response.next_request
            if following is None:
                return response
            response.close()
            if request.url.scheme == "https":
                allowed = ("https",)
            if _origin(following) != _origin(request):
                for name in address.headers:
                    following.headers.pop(name, None)
            request = following
        raise TransferError(f"redirects more than {REDIRECTS} times")

    def _connect(self) -> httpx.Client:
        import httpx

        with self._lock:
            self._go_on()
            if self._client is None:
                # They log addresses and headers, secrets included.
                for name in ("httpx", "httpcore"):
                    logging.getLogger(name).setLevel(logging.WARNING)
                self._client = httpx.Client(
                    limits=httpx.Limits(
                        max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS
                    ),
                    timeout=httpx.Timeout(TIMEOUT_S, pool=None),
                )
            return self._client


def _origin(request: httpx.Request) -> tuple[str, str, int | None]:
    return request.url.scheme, request.url.host, request.url.port


def refusal(code: int, retry_after: str = "") -> TransferError:
    """What a status other than the expected means, with its ``Retry-After``."""
    reason = f"answered {code}"
    if code in BUSY:
        return ServerUnavailableError(reason, wait_s=_asked_wait(retry_after))
    if code in NO_QUOTA:
        return ServerUnavailableError(reason, again=False)
    return TransferError(reason)


def _asked_wait(retry_after: str) -> float:
    """Seconds or a date, as s from now; never more than the longest wait."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), LONGEST_WAIT_S)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return min((until - datetime.now(UTC)).total_seconds(), LONGEST_WAIT_S)
