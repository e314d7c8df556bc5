"""Git LFS: asks the batch API of a server for the addresses of many files at once."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - pydantic needs the class at run time
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from avsnn.pipeline.transfer.download import HEADERS
from avsnn.pipeline.transfer.errors import TransferError
from avsnn.pipeline.transfer.http import Address, HttpClient, error_of_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avsnn.datasets_manifest import MediaFile

# Number of files in one request to the batch API.
FILES_PER_REQUEST = 100

# Number of addresses that are kept: those of the blocks from which threads fetch at present.
MAX_ANSWERS = 20 * FILES_PER_REQUEST

# Media type of the requests and responses of the batch API.
LFS_JSON = "application/vnd.git-lfs+json"

# An address that expires within this time, in s, is not used: the address could expire before the
# download begins.
EXPIRY_MARGIN_S = 60.0


class LfsServer:
    """The addresses that one Git LFS server gives.

    The thread that misses the address of one file asks for all missing addresses of the files near
    that file, so that a data set takes one request per hundred files, in whatever order the threads
    fetch the files.

    Args:
        batch: address of the server's batch API.
        http: the connections.
    """

    def __init__(self, batch: Address, http: HttpClient) -> None:
        self._batch = batch
        self._http = http
        self._answers: dict[str, _Answer] = {}
        self._lock = threading.Lock()

    def locate(self, file: MediaFile, near: Sequence[MediaFile]) -> Address:
        """Return the address from which a file can be downloaded now.

        Args:
            file: the file.
            near: the block of at most a hundred files to which the file belongs; the same block
                for each file of the block.

        Raises:
            ServerUnavailableError: the server does not answer at present.
            TransferError: the server does not have the file.
        """
        if file.sha256 is None or file.size is None:
            raise TransferError("can only be asked for files whose SHA-256 and size are known")
        with self._lock:
            if not self._has_answer(file.sha256):
                self._request_addresses(self._missing_of((file, *near)))
            found = self._answers[file.sha256].address_or_error
            if isinstance(found, TransferError):
                # The next attempt asks the server again.
                del self._answers[file.sha256]
                raise found
            return found

    def _has_answer(self, digest: str) -> bool:
        return digest in self._answers and self._answers[digest].is_valid

    def _missing_of(self, files: Sequence[MediaFile]) -> dict[str, int]:
        """Return the size of each file that has no answer, by SHA-256."""
        return {
            file.sha256: file.size
            for file in files
            if file.sha256 is not None and file.size is not None
            if not self._has_answer(file.sha256)
        }

    def _request_addresses(self, sizes: dict[str, int]) -> None:
        """Ask the server for files, given by SHA-256 and size, and keep the answers."""
        request = {
            "operation": "download",
            "transfers": ["basic"],
            "objects": [{"oid": digest, "size": size} for digest, size in sizes.items()],
        }
        headers = {**HEADERS, "Accept": LFS_JSON, "Content-Type": LFS_JSON}
        content = json.dumps(request).encode()
        with self._http.open(self._batch, headers, content=content) as response:
            text = response.read()
        try:
            batch = _BatchResponse.model_validate_json(text)
        except ValidationError:
            raise TransferError("gave an answer that is not one of Git LFS") from None
        if batch.transfer != "basic":
            raise TransferError("offers no basic transfer")
        answers = {item.oid: self._answer_of(item) for item in batch.objects}
        no_answer = _Answer(TransferError("says nothing of the file"), float("inf"))
        for digest in sizes:
            # The place of an answer tells its age.
            self._answers.pop(digest, None)
            self._answers[digest] = answers.get(digest, no_answer)
        # The files come in order, so the oldest answers are those of files that are here by now.
        for digest in list(self._answers)[:-MAX_ANSWERS]:
            del self._answers[digest]

    def _answer_of(self, item: _Object) -> _Answer:
        if item.error is not None:
            return _Answer(error_of_status(item.error.code), float("inf"))
        action = item.actions.get("download")
        if action is None or not "".join([*action.header, *action.header.values()]).isascii():
            return _Answer(TransferError("gave no address that can be used"), float("inf"))
        address = Address(action.href, action.header, self._batch.insecure)
        return _Answer(address, _expiry(action))


@dataclass(frozen=True)
class _Answer:
    """The server's answer for one file.

    Attributes:
        address_or_error: the address of the file, or why the server gives none.
        expires: when the address expires, in s since 1970.
    """

    address_or_error: Address | TransferError
    expires: float

    @property
    def is_valid(self) -> bool:
        return time.time() + EXPIRY_MARGIN_S < self.expires


class _BatchResponse(BaseModel):
    """A response of the batch API, as Git LFS defines the response."""

    transfer: str = "basic"
    objects: list[_Object]


class _Object(BaseModel):
    """A file in a response of the batch API; ``oid`` is the SHA-256 of the file."""

    oid: str
    actions: dict[str, _Action] = {}
    error: _ObjectError | None = None


class _Action(BaseModel):
    """How to download a file: URL, headers, and the end of the URL's life in s or as a date."""

    href: str
    header: dict[str, str] = {}
    expires_in: float | None = None
    expires_at: datetime | None = None


class _ObjectError(BaseModel):
    """Why the server does not give a file; ``code`` is an HTTP status."""

    code: int


def _expiry(action: _Action) -> float:
    """Return when an address expires, in s since 1970."""
    if action.expires_in:
        return time.time() + action.expires_in
    # Servers write a date in the year 1 for an address that does not expire.
    if action.expires_at is not None and action.expires_at.year > 1:
        return action.expires_at.timestamp()
    return float("inf")
