"""Git LFS: which address a file has, asked of the batch API for many files at once."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - pydantic reads it
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from avsnn.pipeline.transfer.download import HEADERS
from avsnn.pipeline.transfer.errors import TransferError
from avsnn.pipeline.transfer.http import Address, HttpClient, refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avsnn.datasets_manifest import MediaFile

OBJECTS_PER_CALL = 100


JSON = "application/vnd.git-lfs+json"


# An address is not used in the last moments of its life.
MARGIN_S = 60.0


class _Action(BaseModel):
    href: str
    header: dict[str, str] = {}
    expires_in: float | None = None
    expires_at: datetime | None = None


class _Problem(BaseModel):
    code: int


class _Object(BaseModel):
    oid: str
    actions: dict[str, _Action] = {}
    error: _Problem | None = None


class _Answer(BaseModel):
    transfer: str = "basic"
    objects: list[_Object]


@dataclass(frozen=True)
class _Known:
    """What the server said of one file; ``until`` is in s since 1970."""

    found: Address | TransferError
    until: float

    @property
    def lasts(self) -> bool:
        return time.time() + MARGIN_S < self.until


class LfsServer:
    """The addresses that one Git LFS server gives.

    The thread that misses one asks for the whole block of a hundred files that it is in, so that
    a data set takes a call per hundred files, in whatever order its threads get on.

    Args:
        batch: the server's endpoint for them.
        http: the connections.
        files: all that may be asked for, in the order in which they are fetched.
    """

    def __init__(self, batch: Address, http: HttpClient, files: Sequence[MediaFile]) -> None:
        self._batch = batch
        self._http = http
        self._files = files
        self._places = {file.path: place for place, file in enumerate(files)}
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def locate(self, file: MediaFile) -> Address:
        """Where the file is to be had now.

        Raises:
            ServerUnavailableError: the server does not say at present.
            TransferError: it does not have the file.
        """
        if file.sha256 is None or file.size is None:
            raise TransferError("can only be asked for files whose SHA-256 and size are known")
        with self._lock:
            if not self._is_known(file.sha256):
                self._ask(self._block(file))
            found = self._known[file.sha256].found
            if isinstance(found, TransferError):
                del self._known[file.sha256]
                raise found
            return found

    def _is_known(self, digest: str) -> bool:
        return digest in self._known and self._known[digest].lasts

    def _block(self, file: MediaFile) -> dict[str, int]:
        """Size of the file and of those around it that are not known, by SHA-256."""
        first = self._places[file.path] // OBJECTS_PER_CALL * OBJECTS_PER_CALL
        return {
            near.sha256: near.size
            for near in self._files[first : first + OBJECTS_PER_CALL]
            if near.sha256 is not None and near.size is not None
            if not self._is_known(near.sha256)
        }

    def _ask(self, wanted: dict[str, int]) -> None:
        question = {
            "operation": "download",
            "transfers": ["basic"],
            "objects": [{"oid": digest, "size": size} for digest, size in wanted.items()],
        }
        headers = {**HEADERS, "Accept": JSON, "Content-Type": JSON}
        content = json.dumps(question).encode()
        with self._http.open(self._batch, headers, content=content) as response:
            text = response.read()
        try:
            answer = _Answer.model_validate_json(text)
        except ValidationError:
            raise TransferError("gave an answer that is not one of Git LFS") from None
        if answer.transfer != "basic":
            raise TransferError("offers no basic transfer")
        said = {item.oid: self._learn(item) for item in answer.objects}
        nothing = _Known(TransferError("says nothing of the file"), float("inf"))
        self._known |= {digest: said.get(digest, nothing) for digest in wanted}

    def _learn(self, item: _Object) -> _Known:
        if item.error is not None:
            return _Known(refusal(item.error.code), float("inf"))
        action = item.actions.get("download")
        if action is None or not "".join([*action.header, *action.header.values()]).isascii():
            return _Known(TransferError("gave no address that can be used"), float("inf"))
        found = Address(action.href, action.header, self._batch.insecure)
        return _Known(found, _end(action))


def _end(action: _Action) -> float:
    if action.expires_in:
        return time.time() + action.expires_in
    # The year 1 stands for none.
    if action.expires_at is not None and action.expires_at.year > 1:
        return action.expires_at.timestamp()
    return float("inf")
