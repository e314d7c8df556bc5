"""One file from one server, continued where it was cut, in this run or in an earlier one."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from avsnn import __version__
from avsnn.pipeline.engine.files import DISK_FULL_ERRNOS
from avsnn.pipeline.transfer.errors import ServerUnavailableError, TransferError
from avsnn.pipeline.transfer.lfs_pointer import is_lfs_pointer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

    from avsnn.datasets_manifest import MediaFile
    from avsnn.pipeline.transfer.http import Address, HttpClient

# Compressed bytes could neither be counted nor continued.
HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"avsnn/{__version__}"}


@dataclass(frozen=True)
class PartialDownload:
    """What has arrived of a file, and the mark by which its server knows that version again."""

    data: Path
    validator: Path

    @classmethod
    def of(cls, path: str, folder: Path) -> PartialDownload:
        """That of the file with this path in its data set."""
        name = hashlib.sha256(path.encode()).hexdigest()
        return cls(folder / f"{name}.part", folder / f"{name}.mark")

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.data.stat().st_size if self.data.exists() else 0

    def digest(self) -> hashlib._Hash:
        """SHA-256 of what has arrived, to be continued."""
        if not self.data.exists():
            return hashlib.sha256()
        with self.data.open("rb") as data:
            return hashlib.file_digest(data, "sha256")

    def read_validator(self) -> str:
        """The mark; empty where the server gave none."""
        return self.validator.read_text(encoding="utf-8") if self.validator.exists() else ""

    def restart(self, validator: str) -> None:
        """Empties it for a version with that mark; killed in between, it only looks unmarked."""
        self.discard()
        self.data.parent.mkdir(parents=True, exist_ok=True)
        self.validator.write_text(validator, encoding="utf-8")

    def discard(self) -> None:
        """Removes it; the data first, since they are worth nothing under another mark."""
        self.data.unlink(missing_ok=True)
        self.validator.unlink(missing_ok=True)

    def move(self, target: Path) -> None:
        """Hands the data over, now that they are whole."""
        self.data.replace(target)
        self.validator.unlink(missing_ok=True)


def download(
    http: HttpClient,
    locate: Callable[[MediaFile], Address],
    file: MediaFile,
    partial: PartialDownload,
) -> None:
    """Brings ``partial`` to the whole file, checked against the manifest.

    Args:
        http: the connections.
        locate: asked before every attempt, since addresses may expire.
        file: what is expected.
        partial: where it grows; kept when the server is away, so that the next run goes on.

    Raises:
        ServerUnavailableError: this server does not give it now.
        TransferError: what it gives is not the file.
    """
    try:
        http.retry(lambda: _attempt(http, locate(file), file, partial), lambda: partial.size)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            partial.discard()
        raise


def verify(file: MediaFile, found: Path, digest: str) -> None:
    """Compares what was found with what the manifest says.

    Args:
        file: what is expected.
        found: where it lies.
        digest: SHA-256 of its bytes, in hexadecimal.

    Raises:
        TransferError: it is a Git LFS pointer, or of another size or content.
    """
    size = found.stat().st_size
    if is_lfs_pointer(found):
        raise TransferError(f"is a Git LFS pointer, {size} bytes; 'git lfs pull' brings the file")
    if file.size is not None and size > file.size:
        raise TransferError(f"has more than the {file.size} bytes of the manifest")
    if file.size is not None and size < file.size:
        raise TransferError(f"has {size} bytes where the manifest says {file.size}")
    if file.sha256 is not None and digest != file.sha256:
        raise TransferError(f"does not match the SHA-256 of the manifest (found {digest[:12]}…)")


def _attempt(http: HttpClient, address: Address, file: MediaFile, partial: PartialDownload) -> None:
    kept, validator, digest = partial.size, partial.read_validator(), partial.digest()
    if kept and digest.hexdigest() == file.sha256:
        return
    headers = HEADERS
    resumes = bool(validator) and 0 < kept < (file.size or math.inf)
    if resumes:
        headers = {**HEADERS, "Range": f"bytes={kept}-", "If-Range": validator}
    with http.open(address, headers, accepted=(200, 206, 416) if resumes else (200,)) as response:
        resumes = resumes and _continues(response, kept, validator)
        if not resumes:
            if response.status_code != 200:
                partial.discard()
                raise ServerUnavailableError("does not go on where it was cut")
            partial.restart(_validator(response.headers))
            digest = hashlib.sha256()
        with partial.data.open("ab") as data:
            for block in http.iter_body(response):
                data.write(block)
                digest.update(block)
                if file.size is not None and data.tell() > file.size:
                    break
    try:
        verify(file, partial.data, digest.hexdigest())
    except TransferError as error:
        partial.discard()
        if resumes:
            # The part that was here may be what is wrong, after a power cut for instance.
            raise ServerUnavailableError(str(error)) from None
        raise


def _continues(response: httpx.Response, kept: int, validator: str) -> bool:
    starts = response.headers.get("Content-Range", "").startswith(f"bytes {kept}-")
    return (
        response.status_code == 206 and starts and _validator(response.headers) in ("", validator)
    )


def _validator(headers: httpx.Headers) -> str:
    """What ``If-Range`` may be given: a strong ETag, else the date where there is no ETag."""
    validator: str = headers.get("ETag") or headers.get("Last-Modified", "")
    return "" if validator.startswith("W/") or not validator.isascii() else validator
