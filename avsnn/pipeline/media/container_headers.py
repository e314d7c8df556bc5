"""The headers of media files: what a header promises, and what the file holds."""

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from avsnn.pipeline.media.checksums import OGG_PAGE, require_whole_ogg
from avsnn.pipeline.media.errors import MediaError, require_content
from avsnn.pipeline.media.flv import read_flv_tags
from avsnn.pipeline.media.matroska import EBML_SIGNATURE, require_whole_matroska
from avsnn.pipeline.media.mpeg_frames import require_last_frame

# A program that writes to a pipe does not know the size, and writes about 2 GiB or 4 GiB instead
# (sox 0x7FFFF000, arecord 0x7FFFFF00, ffmpeg 0xFFFFFFFF), or 0.
UNKNOWN_SIZE = 0x7FFF_0000

# Bytes of the facts about the samples of a WAV file; the last fact is the number of bits.
WAV_FORMAT_BYTES = 16

# Length of the identifiers of the chunks of a W64 file, which are GUIDs.
GUID_BYTES = 16


# What stands at the start of an MP4 or QuickTime file, and the boxes whose end must be in the file.
FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp")
NEEDED_BOXES = (b"mdat", b"moov", b"moof")

# Length of the packets of an MPEG transport stream in bytes; each packet starts with the byte 0x47.
TS_PACKET, TS_SYNC = 188, b"G"

# In an ASF file (WMA, WMV), the identifier of the object that tells the size of the file, and how
# many bytes behind the identifier the size and the flag of a live recording stand.
ASF_SIGNATURE = bytes.fromhex("3026b2758e66cf11")
ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_SIZE, ASF_FLAGS = 40, 88


def require_whole(path: Path) -> None:
    """Refuse a media file that is shorter than its header says, or has damaged elements.

    libsndfile and FFmpeg read what is left of a cut file without an error. The function reads the
    headers of WAV (also RF64 and RIFX), W64, AIFF, AU, CAF, AVI, MP4, FLV and ASF files, the
    packets of transport streams, the frames of MP3 and ADTS files, and all pages and elements of
    Ogg, Matroska and WebM files, with their checksums.

    Raises:
        MediaError: the file is empty, a Git LFS pointer, truncated, or a damaged Ogg or
            Matroska file.
    """
    start = require_content(path)
    if start.startswith(EBML_SIGNATURE):
        require_whole_matroska(path)
    elif start.startswith(OGG_PAGE):
        require_whole_ogg(path)
    elif start.startswith(b"FLV"):
        if not read_flv_tags(path).is_whole:
            raise MediaError("is truncated: it breaks off within a tag")
    else:
        size = path.stat().st_size
        with path.open("rb") as file:
            promised = _promised_size(file, start)
        if promised is not None and size < promised:
            raise MediaError(f"is truncated: {size} of the {promised} bytes its header promises")
        require_last_frame(path, start)


def _promised_size(file: BinaryIO, start: bytes) -> int | None:
    """Return how long the file should be; None where the header does not tell the length."""
    kind = start[:4]
    if kind == b"RIFF" and start[8:12] == b"AVI ":
        return _promised_by_avi(file)
    if kind in (b"RIFF", b"RIFX", b"RF64"):
        return _promised_by_wav(file, ">" if kind == b"RIFX" else "<")
    if start[4:8] in FIRST_BOXES:
        return _promised_by_mp4(file)
    if start.startswith(ASF_SIGNATURE):
        return _promised_by_asf(_read_at(file, 0, 65536))
    if all(_read_at(file, i * TS_PACKET, 1) == TS_SYNC for i in range(3)):
        size = os.fstat(file.fileno()).st_size
        return size + -size % TS_PACKET
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
        if name == b"fmt " and size < WAV_FORMAT_BYTES:
            # FFmpeg takes the samples of such a file for bytes.
            raise MediaError("does not say how many bits a sample has")
        if name == b"ds64":
            long_size = struct.unpack("<q", _read_at(file, start + 8, 8).ljust(8, b"\xff"))[0]
        if name == b"data":
            size = long_size if long_size is not None and size == 0xFFFF_FFFF else size
            return _end_of(b"data", [(name, start, size)])
    return None


def _promised_by_avi(file: BinaryIO) -> int | None:
    """Return the end of the last list of pictures and sounds of an AVI file.

    A long AVI file has further lists, each in a chunk of its own.
    """
    end = None
    for riff, start, _ in _chunks(file, 0, "<4sI"):
        if riff != b"RIFF":
            break
        for name, at, size in _chunks(file, start + 4, "<4sI"):
            if name == b"LIST" and _read_at(file, at, 4) == b"movi":
                end = _end_of(b"LIST", [(name, at, size)]) or end
                break
    return end


def _promised_by_mp4(file: BinaryIO) -> int | None:
    """Return the largest end of a box of an MP4 file that holds media or facts."""
    at, end = 0, None
    while len(head := _read_at(file, at, 16)) >= 8:
        size, name = struct.unpack(">I4s", head[:8])
        if size == 1 and len(head) == 16:
            # A size that needs more than four bytes stands behind the name.
            size = int.from_bytes(head[8:])
        if size < 8:
            # The last box may have the size 0, and ends with the file.
            return end
        at += size
        end = at if name in NEEDED_BOXES else end
    return end


def _promised_by_asf(head: bytes) -> int | None:
    """Return the size by the header of an ASF file; None where the file was recorded live."""
    facts = head[head.find(ASF_FILE) :] if ASF_FILE in head else b""
    if len(facts) < ASF_FLAGS + 4 or facts[ASF_FLAGS] & 1:
        return None
    return int.from_bytes(facts[ASF_SIZE : ASF_SIZE + 8], "little") or None


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


def _read_at(file: BinaryIO, start: int, count: int) -> bytes:
    """Read bytes at a place; a place behind the end of the file holds no bytes."""
    # No file system knows a place that is as far away as a false size may say.
    if start >= os.fstat(file.fileno()).st_size:
        return b""
    file.seek(start)
    return file.read(count)
