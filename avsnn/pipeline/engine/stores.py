"""Stores: places behind a URL that fsspec opens, such as a bucket of S3.

Every request goes over a network, so this module asks for many things in one call, and says in one
sentence why a store does not answer. The libraries of the stores try a failed request again by
themselves, several times and with growing pauses.
"""

import errno
import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fsspec.utils import merge_offset_ranges
from upath import UPath

from avsnn.errors import RunError, UserError

# How the library of each object store is opened. A listing that the library remembers would hide
# what other processes have written since. The other values are the library's own names.
_S3 = {"use_listings_cache": False, "config_kwargs": {"max_pool_connections": 64}}
_OTHER = {"use_listings_cache": False}

#: Kinds of URLs of object stores, each with the options of its library. An object appears under its
#: name when its upload has ended, whole, and an upload that is cut leaves nothing under the name.
#: Object stores have no folders to make, and no cheap renames.
OBJECT_STORES: dict[str, dict[str, Any]] = {
    "s3": _S3,
    "s3a": _S3,
    "gs": _OTHER,
    "gcs": _OTHER,
    "az": _OTHER,
    "abfs": _OTHER,
    "abfss": _OTHER,
}

_S3_KINDS = ("s3", "s3a")

# An upload to S3 holds this number of pieces of this size in memory; a smaller file is one request.
_S3_UPLOAD = {"chunksize": 16 * 2**20, "max_concurrency": 4}

# By default, the library of S3 asks for the size of a file before it reads the file.
_S3_READ = {"max_concurrency": 1}

# Two ranges of a file with a smaller gap are read in one request, which gives the gap too: an
# answer of a store begins after 10 to 100 ms, in which a store sends some 100 kB.
MOST_GAP = 2**16

# A request reads this much at most, so that several requests share the work.
MOST_READ = 8 * 2**20

# The libraries of the object stores, by the kind of URL.
_LIBRARIES = dict.fromkeys(("s3", "s3a"), "s3fs")
_LIBRARIES |= dict.fromkeys(("gs", "gcs"), "gcsfs")
_LIBRARIES |= dict.fromkeys(("az", "abfs", "abfss"), "adlfs")

# Names of errors that say that no credentials were found. The library of the store may not be
# installed, so the classes cannot be imported.
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"}


class StoreError(RunError):
    """A store does not answer, or answers with errors, also after several tries."""


def open_url(url: str) -> UPath:
    """Return a place in a store; no request is sent."""
    kind, _, _ = url.partition("://")
    place: UPath = UPath(url, **OBJECT_STORES.get(kind, {}))
    return place


def open_store(url: str) -> UPath:
    """Open the store that a person named.

    Raises:
        UserError: the URL is none, no installed library knows its kind, the bucket does not exist,
            or the credentials are missing or wrong.
        StoreError: the store does not answer.
    """
    try:
        store = open_url(url)
        require_library(store)
        store / "folder"
    except UserError:
        raise
    # The errors come from the libraries of all kinds of URLs and have no common base class.
    except Exception as error:
        reason = str(error).rstrip(".") or type(error).__name__
        raise UserError(f"--store {url} cannot be used: {reason}.") from None
    if "://" not in url:
        raise UserError(f"--store {url} is no URL, such as s3://bucket/folder; --root takes paths.")
    require_store(store)
    return store


def require_library(place: UPath) -> None:
    """Check that the library for a store is installed.

    Raises:
        UserError: the library is missing.
    """
    try:
        place.fs  # noqa: B018 - the access loads the library
    except ImportError as error:
        library = _LIBRARIES.get(place.protocol)
        how = f"run 'pip install {library}'" if library else str(error).rstrip(".")
        raise UserError(
            f"{place} cannot be opened, because the library for {place.protocol}:// is not "
            f"installed; {how}."
        ) from None


def require_store(place: UPath) -> None:
    """Check that a store answers, and that the bucket of an object store exists.

    Raises:
        UserError: the bucket does not exist, or the credentials are missing or wrong.
        StoreError: the store does not answer.
    """
    require_library(place)
    with store_errors(place):
        try:
            place.fs.ls(place.path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            bucket = place.path.strip("/").partition("/")[0]
            if is_object_store(place) and not place.fs.exists(bucket):
                raise UserError(
                    f"{place.protocol}://{bucket} does not exist, and avsnn creates no bucket; "
                    "create it, or give another URL."
                ) from None


def is_object_store(place: UPath) -> bool:
    """Return whether a place is in an object store, as `OBJECT_STORES` describes them."""
    return place.protocol in OBJECT_STORES


@contextmanager
def store_errors(place: UPath) -> Iterator[None]:
    """Turn every error of a store's library into one sentence, except a missing file.

    Raises:
        UserError: the credentials are missing or wrong.
        StoreError: the store does not answer, or answers with errors.
    """
    try:
        yield
    except (UserError, RunError, FileNotFoundError, MemoryError):
        raise
    except OSError as error:
        # A full disk of this machine, not the store.
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _error_of(place, error) from error
    except Exception as error:
        raise _error_of(place, error) from error


def _error_of(place: UPath, error: Exception) -> UserError | StoreError:
    reason = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
    if isinstance(error, PermissionError) or type(error).__name__ in _NO_CREDENTIALS:
        return UserError(
            f"{place} may not be used with these credentials ({reason}); give the right "
            "credentials in the environment or in the profile of the store's library."
        )
    return StoreError(
        f"{place} cannot be reached ({reason}); run the same command again (train: with --resume)."
    )


def upload(source: Path, target: UPath) -> None:
    """Copy a whole file to a place in a store, where the file appears whole or not at all.

    Raises:
        UserError: the credentials are missing or wrong.
        StoreError: the store does not answer, or answers with errors.
    """
    with store_errors(target):
        if is_object_store(target):
            options = _S3_UPLOAD if target.protocol in _S3_KINDS else {}
            target.fs.put_file(str(source), target.path, **options)
            return
        # A file on a server may be seen while it grows, so the file gets its name by a rename.
        partial = f"{target.path}.partial"
        target.fs.makedirs(target.parent.path, exist_ok=True)
        target.fs.put_file(str(source), partial)
        if target.fs.size(partial) != source.stat().st_size:
            raise OSError("the store kept another size than was sent")
        target.fs.mv(partial, target.path)


def copy_inside(source: UPath, target: UPath) -> None:
    """Copy a file of a store to another name in the same store, whole or not at all.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the credentials are missing or wrong.
        StoreError: the store does not answer, or answers with errors.
    """
    with store_errors(target):
        if is_object_store(target):
            target.fs.cp_file(source.path, target.path)
            return
        partial = f"{target.path}.partial"
        target.fs.makedirs(target.parent.path, exist_ok=True)
        target.fs.cp_file(source.path, partial)
        target.fs.mv(partial, target.path)


def read_ranges(
    store: UPath, paths: Sequence[str], starts: Sequence[int], ends: Sequence[int]
) -> list[bytes]:
    """Read ranges of files in a store, all in one call; neighbours share a request.

    Args:
        store: a place in the store.
        paths: the file of each range, as the store names the file.
        starts: first byte of each range.
        ends: byte after the last byte of each range.

    Returns:
        the bytes of each range; fewer bytes where a file ends before the range does.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the credentials are missing or wrong.
        StoreError: the store does not answer, or answers with errors.
    """
    wanted = list(zip(paths, starts, ends, strict=True))
    each = sorted(set(wanted))
    if not each:
        return []
    columns = [list(column) for column in zip(*each, strict=True)]
    blocks = merge_offset_ranges(*columns, max_gap=MOST_GAP, max_block=MOST_READ)
    with store_errors(store):
        found = store.fs.cat_ranges(*blocks, on_error="raise")
        for data in found:
            # Some versions of fsspec return an error in the place of the bytes.
            if isinstance(data, BaseException):
                raise data
    begins = list(zip(blocks[0], blocks[1], strict=True))

    def cut(path: str, start: int, end: int) -> bytes:
        number = bisect_right(begins, (path, start)) - 1
        offset = begins[number][1]
        return bytes(memoryview(found[number])[start - offset : end - offset])

    return [cut(*one) for one in wanted]


def read_files(store: UPath, paths: Sequence[str]) -> dict[str, bytes]:
    """Read whole files of a store, all in one call.

    Returns:
        the bytes of each file by its path; a file that does not exist is left out.

    Raises:
        UserError: the credentials are missing or wrong.
        StoreError: the store does not answer, or answers with errors.
    """
    options = _S3_READ if store.protocol in _S3_KINDS else {}
    with store_errors(store):
        found = store.fs.cat(list(paths), on_error="return", **options) if paths else {}
        for data in found.values():
            if isinstance(data, BaseException) and not isinstance(data, FileNotFoundError):
                raise data
    return {path: data for path, data in found.items() if isinstance(data, bytes)}


class Listed(NamedTuple):
    """A file in the listing of a folder.

    Attributes:
        path: the file, as the store names the file.
        size: size in bytes.
        version: a text that changes when the file is written again, as far as the store tells.
    """

    path: str
    size: int
    version: str


def list_files(folder: UPath) -> list[Listed]:
    """Return all files in a folder and below, sorted; a listing is one request for 1,000 files.

    Raises:
        UserError: the credentials are missing or wrong.
        StoreError: the store does not answer, or answers with errors.
    """
    with store_errors(folder):
        found = folder.fs.find(folder.path, detail=True)
    return [
        Listed(path, int(facts["size"]), "".join(str(facts.get(key, "")) for key in _VERSIONS))
        for path, facts in sorted(found.items())
    ]


# What the libraries of the stores call the version or the time of a file.
_VERSIONS = ("ETag", "etag", "LastModified", "last_modified", "mtime", "created")

# Sizes of the files below folders that are listed at this moment, by the URL of the folder.
_LISTED: dict[str, dict[str, int]] = {}


@contextmanager
def listed(folder: Path | UPath) -> Iterator[None]:
    """Let `size_of` answer from one listing of a folder while the context is open.

    Nobody may write to the folder meanwhile.
    """
    if not isinstance(folder, UPath):
        yield
        return
    _LISTED[str(folder)] = {file.path: file.size for file in list_files(folder)}
    try:
        yield
    finally:
        del _LISTED[str(folder)]


def size_of(file: UPath) -> int:
    """Return the size of a file in bytes.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the credentials are missing or wrong.
        StoreError: the store does not answer, or answers with errors.
    """
    for folder, sizes in _LISTED.items():
        if str(file).startswith(f"{folder}/"):
            if file.path not in sizes:
                raise FileNotFoundError(file.path)
            return sizes[file.path]
    with store_errors(file):
        return int(file.fs.size(file.path))


def sha256_of(file: UPath, size: int) -> str:
    """Return the SHA-256 of the first `size` bytes of a file, in hexadecimal; raise as `size_of`.

    The size is known, so the library need not ask for the size.
    """
    digest = hashlib.sha256()
    with store_errors(file):
        for start in range(0, size, MOST_READ):
            end = min(size, start + MOST_READ)
            digest.update(file.fs.cat_file(file.path, start=start, end=end))
    return digest.hexdigest()
