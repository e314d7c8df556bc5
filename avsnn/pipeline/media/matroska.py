"""The elements of a Matroska or WebM file: finds a cut and damaged bytes without decoding.

FFmpeg skips a damaged element without an error, and ignores the checksums of the elements. Decoders
of VP8, VP9 and H.265 make a picture of almost any bytes, so only a checksum shows the damage.
"""

import zlib
from collections.abc import Iterator
from mmap import mmap
from pathlib import Path
from typing import NamedTuple

from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.mapped_file import map_file

# The first bytes of a Matroska file.
EBML_SIGNATURE = b"\x1a\x45\xdf\xa3"

# Identifiers of elements (RFC 9559). A file has a header and a segment; a segment holds facts, then
# clusters; a cluster holds blocks, and a block holds a picture or some sound.
SEGMENT, CLUSTER, VOID, CHECKSUM = 0x18538067, 0x1F43B675, 0xEC, 0xBF
IN_SEGMENT = (
    *(CLUSTER, VOID, CHECKSUM, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B),
    *(0x1941A469, 0x1043A770, 0x1254C367),
)
IN_CLUSTER = (0xA3, 0xA0, 0xAF, 0xE7, 0xA7, 0xAB, 0x5854, VOID, CHECKSUM)

# Header of an element that holds a checksum of four bytes.
CHECKSUM_HEADER = b"\xbf\x84"


class _Element(NamedTuple):
    """An element.

    Attributes:
        identifier: the kind of the element.
        at: where the element starts in the file.
        start: where the content of the element starts.
        end: where the content ends; None where the file was written live, without the size.
    """

    identifier: int
    at: int
    start: int
    end: int | None


def require_whole_matroska(path: Path) -> None:
    """Refuse a Matroska file that is cut, or whose elements are damaged.

    Raises:
        MediaError: an element ends behind the end of the file, some bytes are no element, or a
            checksum is wrong.
    """
    with map_file(path) as data:
        at, segment = 0, None
        while segment is None:
            element = _read_element(data, at)
            if element.identifier == SEGMENT:
                segment = element
            at = _require_end(data, element)
        for element in _children(data, segment, IN_SEGMENT):
            if element.identifier == CLUSTER:
                for _ in _children(data, element, IN_CLUSTER):
                    pass
            if element.end is not None:
                _require_checksum(data, element.start, element.end)


def _children(data: mmap, parent: _Element, known: tuple[int, ...]) -> Iterator[_Element]:
    """Yield the elements inside an element.

    An element without a size ends where an element follows that stands outside.

    Raises:
        MediaError: the content of the parent is cut or damaged.
    """
    at, end = parent.start, len(data) if parent.end is None else parent.end
    while at < end:
        element = _read_element(data, at)
        if element.identifier not in known:
            if parent.end is None and element.identifier in IN_SEGMENT:
                return
            raise _damage_at(at)
        yield element
        at = _require_end(data, element)
        if at > end:
            raise _damage_at(element.at)


def _read_element(data: mmap, at: int) -> _Element:
    """Read the header of an element: an identifier of 1 to 4 bytes, and a size of 1 to 8 bytes."""
    length = 9 - data[at].bit_length() if at < len(data) else 0
    if length > 4:
        raise _damage_at(at)
    identifier = int.from_bytes(data[at : at + length])
    first = at + length
    length = 9 - data[first].bit_length() if first < len(data) else 0
    start = first + length
    if not length or start > len(data):
        raise MediaError(f"is truncated: it breaks off at byte {len(data)}, within an element")
    if length > 8:
        raise _damage_at(at)
    unknown = (1 << 7 * length) - 1
    size = int.from_bytes(data[first:start]) & unknown
    return _Element(identifier, at, start, None if size == unknown else start + size)


def _require_end(data: mmap, element: _Element) -> int:
    """Return where the next element starts."""
    if element.end is None:
        return _end_of_live(data, element)
    if element.end > len(data):
        raise MediaError(
            f"is truncated: {len(data)} of the {element.end} bytes its header promises"
        )
    return element.end


def _end_of_live(data: mmap, element: _Element) -> int:
    """Return where an element ends that was written without its size."""
    if element.identifier == SEGMENT:
        return len(data)
    if element.identifier != CLUSTER:
        raise _damage_at(element.at)
    end = element.start
    for child in _children(data, element, IN_CLUSTER):
        end = _require_end(data, child)
    return end


def _require_checksum(data: mmap, start: int, end: int) -> None:
    """Refuse content that starts with a checksum and does not have the checksum."""
    if data[start : start + 2] != CHECKSUM_HEADER or end - start < 6:
        return
    with memoryview(data) as view, view[start + 6 : end] as content:
        checksum = zlib.crc32(content)
    if checksum != int.from_bytes(data[start + 2 : start + 6], "little"):
        raise MediaError(f"is corrupt: the checksum of its bytes from {start} to {end} is wrong")


def _damage_at(at: int) -> MediaError:
    return MediaError(f"is corrupt: its bytes are damaged at byte {at}")
