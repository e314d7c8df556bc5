"""The headers of sound files: what a header promises, and what the file holds."""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from avsnn.pipeline.media.errors import MediaError, require_content

# A program that writes to a pipe does not know the size, and writes about 2 GiB or 4 GiB instead
# (sox 0x7FFFF000, arecord 0x7FFFFF00, ffmpeg 0xFFFFFFFF), or 0.
UNKNOWN_SIZE = 0x7FFF_0000

# Length of the identifiers of the chunks of a W64 file, which are GUIDs.
GUID_BYTES = 16

# Bytes of the largest page of an Ogg file, and the flag of a stream's last page.
LARGEST_OGG_PAGE = 65_307
END_OF_STREAM = 4


def require_whole(path: Path) -> None:
    """Refuse a sound file that is shorter than its header says.

    libsndfile and FFmpeg read what is left of a cut file without an error. The function reads the
    headers of WAV (also RF64 and RIFX), W64, AIFF, AU and CAF files, and the last page of Ogg.

    Raises:
        MediaError: the file is empty, a Git LFS pointer, or truncated.
    """
    start = require_content(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        if start.startswith(b"OggS"):
            _require_last_page(file, size)
            return
        promised = _promised_size(file, start[:4])
    if promised is not None and size < promised:
        raise MediaError(f"is truncated: {size} of the {promised} bytes its header promises")


def is_mp3_without_count(path: Path) -> bool:
    """Return whether the file is an MP3 whose first frame does not tell the number of frames.

    libsndfile guesses the number of such a file from the bit rate of the first frame.
    """
    with path.open("rb") as file:
        start = file.read(10)
        if start.startswith(b"ID3"):
            # The size of the tag is four bytes of seven bits each.
            first, second, third, fourth = start[6:].ljust(4, b"\0")
            file.seek(10 + (first << 21 | second << 14 | third << 7 | fourth))
        else:
            file.seek(0)
        frame = file.read(1024)
    is_mp3 = start.startswith(b"ID3") or (frame[:1] == b"\xff" and frame[1:2] >= b"\xe0")
    return is_mp3 and not any(word in frame for word in (b"Xing", b"Info", b"VBRI"))


def _promised_size(file: BinaryIO, kind: bytes) -> int | None:
    """Return how long the file should be; None where the header does not tell the length."""
    if kind in (b"RIFF", b"RIFX", b"RF64"):
        return _promised_by_wav(file, ">" if kind == b"RIFX" else "<")
    if kind == b"FORM":
        return _end_of(b"SSND", _chunks(file, 12, ">4sI"))
    if kind == b"caff":
        return _end_of(b"data", _chunks(file, 8, ">4sq", padding=1))
    if kind == b"riff":
        # The size of a chunk of a W64 file covers the 24 bytes of the chunk's own header.
        chunks = _chunks(file, 40, "<16sq", header_in_size=True, padding=8)
        return _end_of(b"data", ((name[:4], start, size) for name, start, size in chunks))
    if kind == b".snd":
        _, data, size = struct.unpack(">4sII", _read_at(file, 0, 12).ljust(12, b"\xff"))
        return data + size if size < UNKNOWN_SIZE else None
    return None


def _promised_by_wav(file: BinaryIO, order: str) -> int | None:
    """Return the end of the data chunk of a WAV file.

    The size in front of the chunks is wrong in many whole files, so only the data chunk counts.
    """
    long_size = None
    for name, start, size in _chunks(file, 12, f"{order}4sI"):
        if name == b"ds64":
            long_size = struct.unpack("<q", _read_at(file, start + 8, 8).ljust(8, b"\xff"))[0]
        if name == b"data":
            size = long_size if long_size is not None and size == 0xFFFF_FFFF else size
            return _end_of(b"data", [(name, start, size)])
    return None


def _end_of(wanted: bytes, chunks: Iterable[tuple[bytes, int, int]]) -> int | None:
    """Return where a chunk ends; None where there is no such chunk, or its size is unknown."""
    for name, start, size in chunks:
        if name == wanted:
            is_known = size > 0 and not UNKNOWN_SIZE <= size <= 0xFFFF_FFFF
            return start + size if is_known else None
    return None


def _chunks(
    file: BinaryIO, start: int, header: str, *, header_in_size: bool = False, padding: int = 2
) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start of the content, and size of the content of every chunk.

    Args:
        file: the file.
        start: where the first chunk starts, in bytes.
        header: layout of a chunk's header: name and size.
        header_in_size: whether the size covers the header.
        padding: chunks start at multiples of this number of bytes.
    """
    length = struct.calcsize(header)
    while len(head := _read_at(file, start, length)) == length:
        name, size = struct.unpack(header, head)
        size -= length * header_in_size
        yield name, start + length, size
        if size < 0:
            return
        start += length + size + (-size) % padding


def _require_last_page(file: BinaryIO, size: int) -> None:
    """Refuse an Ogg file whose last page is cut, or is not marked as the end of its stream."""
    first = max(0, size - LARGEST_OGG_PAGE)
    tail = _read_at(file, first, LARGEST_OGG_PAGE)
    page = tail.rfind(b"OggS")
    header = tail[page : page + 27]
    segments = tail[page + 27 : page + 27 + header[26]] if len(header) == 27 else b""
    end = page + 27 + len(segments) + sum(segments)
    is_whole = len(header) == 27 and len(segments) == header[26] and end <= len(tail)
    if not is_whole or not header[5] & END_OF_STREAM:
        raise MediaError("is truncated: its last page is not the end of its stream")


def _read_at(file: BinaryIO, start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)
