"""Arrays of numbers, short texts and records in one .npz file, which plain `numpy.load` reads.

The arrays are not compressed. So the bytes depend neither on the version of zlib nor on the machine
nor on the day, and a file can be read without trust in a size that the file declares.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

# The start of an .npy file of version 1.0, the text of its header for an array of one axis or of
# two axes, and the text of a type of plain numbers or bytes.
_NPY_MAGIC = b"\x93NUMPY\x01\x00"
_NPY_HEADER = re.compile(
    r"\{'descr': (.+), 'fortran_order': False, "
    r"'shape': \((\d{1,18}),(?: (\d{1,18}))?\), \} *\n"
)
_PLAIN_TYPE = re.compile(r"'([<|][iuf][1248]|\|S\d{1,6})'")

# More than the header of an .npy file of version 1.0 takes.
_MOST_HEADER_BYTES = 1 << 17


def write_npz(file: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz file.

    Args:
        file: where the bytes go.
        arrays: arrays of one or two axes, of little-endian numbers, bytes or records, by name. The
            same arrays in the same order give the same bytes.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, values in arrays.items():
            # `ZipInfo` without a date has the date 1980-01-01, so the bytes do not depend on the
            # day. The system is set, because Windows would have another number.
            info = zipfile.ZipInfo(f"{name}.npy")
            info.create_system = 3
            info.file_size = values.nbytes + _MOST_HEADER_BYTES
            with archive.open(info, "w") as member:
                row_by_row = np.ascontiguousarray(values)
                np.lib.format.write_array(member, row_by_row, version=(1, 0), allow_pickle=False)


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the bytes that :func:`write_npz` writes."""
    file = io.BytesIO()
    write_npz(file, arrays)
    return file.getvalue()


def read_npz(
    data: bytes, names: Collection[str], records: Mapping[str, np.dtype[Any]] | None = None
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file that :func:`npz_bytes` wrote, by name; the arrays are read-only.

    Nothing is allocated from a size that the file declares: every array is a view of bytes that the
    file holds. The caller checks types, shapes and values.

    Args:
        data: the bytes of the file.
        names: the names of the arrays that the file must hold.
        records: the types of the arrays of records, by name.

    Raises:
        ValueError: the file is damaged, or holds other arrays; the message is the end of a sentence
            about the file, such as "has compressed arrays".
    """
    with _open_members(io.BytesIO(data)) as (found, read):
        if sorted(found) != sorted(names):
            shown = ", ".join(found[:8]) or "none"
            raise _OtherContentError(f"has the arrays {shown!a}, and needs {', '.join(names)}")
        contents = {name: read(name) for name in found}
    return {
        name: _read_npy(name, content, (records or {}).get(name))
        for name, content in contents.items()
    }


def read_array(path: Path, name: str) -> NDArray[Any]:
    """Return one array of a file of plain numbers; the array is read-only.

    Args:
        path: the file, which :func:`write_npz` wrote.
        name: name of the array.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged, or does not hold the array.
    """
    with path.open("rb") as file, _open_members(file) as (found, read):
        if name not in found:
            raise _OtherContentError(f"has no array {name}")
        content = read(name)
    return _read_npy(name, content, None)


@contextmanager
def _open_members(file: IO[bytes]) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """Yield the names of the arrays of a file, and a function that reads an array's member."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                # The size of a compressed member is a promise, which a false file does not keep.
                raise _OtherContentError("has compressed arrays, and must have none")
            names = [member.filename.removesuffix(".npy") for member in members]
            yield names, lambda name: archive.read(members[names.index(name)])
    except (_OtherContentError, OSError):
        raise
    except Exception as error:
        # `zipfile` raises errors of many types for damaged bytes, such as BadZipFile, EOFError,
        # NotImplementedError, RuntimeError and struct.error.
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise _OtherContentError(f"is no whole .npz file: {words}") from error


class _OtherContentError(ValueError):
    """A file does not hold what was asked for."""


def _read_npy(name: str, content: bytes, record: np.dtype[Any] | None) -> NDArray[Any]:
    """Return the array in an .npy file as a read-only view of its bytes."""
    start = len(_NPY_MAGIC) + 2
    length = int.from_bytes(content[start - 2 : start], "little")
    header = _NPY_HEADER.fullmatch(content[start : start + length].decode("latin-1"))
    if not content.startswith(_NPY_MAGIC) or header is None:
        raise _OtherContentError(f"has an array {name} that is not one row of plain numbers")
    dtype = record or _plain_type(name, header[1])
    if record and header[1] != repr(np.lib.format.dtype_to_descr(record)):
        raise _OtherContentError(f"has an array {name} of other records than were written")
    shape = tuple(int(size) for size in header.groups()[1:] if size is not None)
    declared, held = math.prod(shape) * dtype.itemsize, len(content) - start - length
    # An array of no bytes may declare any length along its other axis.
    if declared != held or not dtype.itemsize or max(shape) > len(content):
        raise _OtherContentError(f"declares {declared:,} bytes of {name}, and holds {held:,}")
    return np.frombuffer(content, dtype, offset=start + length).reshape(shape)


def _plain_type(name: str, text: str) -> np.dtype[Any]:
    if (plain := _PLAIN_TYPE.fullmatch(text)) is None:
        raise _OtherContentError(f"has an array {name} that is not one row of plain numbers")
    try:
        return np.dtype(plain[1])
    except TypeError:  # A float of one byte.
        raise _OtherContentError(
            f"has an array {name} of the type {plain[1]}, which no array has"
        ) from None
