"""The download of one file from one server; a download that was cut continues at that byte."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from avsnn.pipeline.engine.atomic_files import DISK_FULL_ERRNOS
from avsnn.pipeline.transfer.errors import ServerUnavailableError, TransferError
from avsnn.pipeline.transfer.lfs_pointer import POINTER_BYTES, is_lfs_pointer
from avsnn.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

    from avsnn.datasets_manifest import MediaFile
    from avsnn.pipeline.transfer.http import Address, HttpClient

# The headers of every request. The bytes of a compressed body are not the bytes of the file: they
# could neither be counted nor continued.
HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"avsnn/{VERSION}"}

# A size in bytes, as a header gives the size.
NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class PartialDownload:
    """The part of a file that has arrived, and the validator of the file.

    A server gives a validator (an ETag or a date) with each version of a file. When a download
    continues, avsnn sends the validator back, so that the server can tell whether the file has
    changed since.

    Attributes:
        data: path of the bytes that have arrived.
        validator: path of a text file that holds the validator.
    """

    data: Path
    validator: Path

    @classmethod
    def of(cls, path: str, folder: Path) -> PartialDownload:
        """Return the partial download of a file.

        Args:
            path: path of the file in its data set.
            folder: where partial downloads are kept.
        """
        name = hashlib.sha256(path.encode()).hexdigest()
        # The first version called the validator a mark; the name stays, so that downloads of that
        # version go on.
        return cls(folder / f"{name}.part", folder / f"{name}.mark")

    @property
    def size(self) -> int:
        """Number of bytes that have arrived."""
        return self.data.stat().st_size if self.data.exists() else 0

    def digest(self) -> hashlib._Hash:
        """Return the SHA-256 of the bytes that have arrived, to which more bytes can be added."""
        if not self.data.exists():
            return hashlib.sha256()
        with self.data.open("rb") as data:
            return hashlib.file_digest(data, "sha256")

    def read_validator(self) -> str:
        """Return the validator; empty where the server gave none."""
        return self.validator.read_text(encoding="utf-8") if self.validator.exists() else ""

    def restart(self, validator: str) -> None:
        """Remove what has arrived, and expect the version of the file with this validator.

        A kill during this method leaves no data under a wrong validator.
        """
        self.discard()
        self.data.parent.mkdir(parents=True, exist_ok=True)
        self.validator.write_text(validator, encoding="utf-8")

    def discard(self) -> None:
        """Remove the data, then the validator: data must never stand under a wrong validator."""
        self.data.unlink(missing_ok=True)
        self.validator.unlink(missing_ok=True)

    def move(self, target: Path) -> None:
        """Move the data, which are the whole file now, to ``target``."""
        self.data.replace(target)
        self.validator.unlink(missing_ok=True)


def download(
    http: HttpClient,
    locate: Callable[[MediaFile], Address],
    file: MediaFile,
    partial: PartialDownload,
) -> None:
    """Complete a partial download, and check the file against the manifest.

    Args:
        http: the connections.
        locate: returns the address of the file; called before every attempt, because addresses may
            expire.
        file: the file as the manifest describes the file.
        partial: where the download grows. When the server is unavailable, the partial download
            stays, and the next run continues the download.

    Raises:
        ServerUnavailableError: this server does not give the file now.
        TransferError: the server gave something else than the file.
    """
    try:
        http.retry(
            lambda: _attempt(http, locate(file), file, partial), bytes_so_far=lambda: partial.size
        )
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            partial.discard()
        raise


def verify(file: MediaFile, path: Path, digest: str) -> None:
    """Compare a file with the manifest.

    Args:
        file: the file as the manifest describes the file.
        path: where the file is.
        digest: SHA-256 of the file's bytes, in hexadecimal.

    Raises:
        TransferError: the file is a Git LFS pointer, or has another size or other bytes.
    """
    size = path.stat().st_size
    if size < POINTER_BYTES and is_lfs_pointer(path):
        raise TransferError(f"is a Git LFS pointer, {size} bytes; 'git lfs pull' brings the file")
    if file.size is not None and size > file.size:
        raise TransferError(f"has more than the {file.size} bytes of the manifest")
    if file.size is not None and size < file.size:
        raise TransferError(f"has {size} bytes where the manifest says {file.size}")
    if file.sha256 is not None and digest != file.sha256:
        raise TransferError(f"does not match the SHA-256 of the manifest (found {digest[:12]}…)")
    if file.md5 is not None and (found := _md5(path)) != file.md5:
        raise TransferError(f"does not match the MD5 of the manifest (found {found[:12]}…)")


def _md5(path: Path) -> str:
    """Return the MD5 of a file, which notices damage; it is no protection from forgery."""
    with path.open("rb") as data:
        return hashlib.file_digest(data, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _attempt(http: HttpClient, address: Address, file: MediaFile, partial: PartialDownload) -> None:
    """Send one request for the missing bytes of a file, and check the file at the end."""
    arrived, validator, digest = partial.size, partial.read_validator(), partial.digest()
    if arrived and (
        digest.hexdigest() == file.sha256 or (file.md5 and _md5(partial.data) == file.md5)
    ):
        return
    headers = HEADERS
    continues = bool(validator) and 0 < arrived < (file.size or math.inf)
    if continues:
        headers = {**HEADERS, "Range": f"bytes={arrived}-", "If-Range": validator}
    accepted = (200, 206, 416) if continues else (200,)
    with http.open(address, headers, accepted=accepted) as response:
        continues = continues and _is_continuation(response, arrived, validator)
        if not continues:
            if response.status_code != 200:
                partial.discard()
                raise ServerUnavailableError("does not go on where it was cut")
            partial.restart(_validator_of(response.headers))
            digest = hashlib.sha256()
        with partial.data.open("ab") as data:
            for block in http.iter_body(response):
                data.write(block)
                digest.update(block)
                if file.size is not None and data.tell() > file.size:
                    break
        if partial.size < _whole_size(response.headers):
            raise ServerUnavailableError("ended before the end of the file")
    try:
        verify(file, partial.data, digest.hexdigest())
    except TransferError as error:
        partial.discard()
        if continues:
            # The bytes of an earlier attempt may be wrong, after a power cut for instance. The next
            # attempt starts with no bytes.
            raise ServerUnavailableError(str(error)) from None
        raise


def _is_continuation(response: httpx.Response, arrived: int, validator: str) -> bool:
    """Return whether a response holds the missing bytes of the same version of the file."""
    starts_there = response.headers.get("Content-Range", "").startswith(f"bytes {arrived}-")
    same_version = _validator_of(response.headers) in ("", validator)
    return response.status_code == 206 and starts_there and same_version


def _whole_size(headers: httpx.Headers) -> int:
    """Return the size of the whole file in bytes, as the answer with a part says; 0 if unknown.

    A server may send a shorter part than the client asked for.
    """
    _, _, size = headers.get("Content-Range", "").rpartition("/")
    return int(size) if NUMBER.fullmatch(size) else 0


def _validator_of(headers: httpx.Headers) -> str:
    """Return a validator that ``If-Range`` accepts, empty where there is none.

    ``If-Range`` accepts a strong ETag, or the date where the server gives no ETag.
    """
    validator: str = headers.get("ETag") or headers.get("Last-Modified", "")
    return "" if validator.startswith("W/") or not validator.isascii() else validator
