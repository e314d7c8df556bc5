"""The index beside a shard: columns of the clips of the shard and of the members of its tar.

An index is an .npz file of eight arrays, for N clips with M members in S splits:

- ``clips`` `CLIP` ``[N]``, in the order of the tar, which is the order of `hash_order`;
- ``digests`` `DIGESTS` ``[N]``: digests of the files of each clip, and of the content of the clip;
- ``key`` ``[N]``: the key of each clip, in UTF-8;
- ``parts`` uint8 ``[N, S]``: the part of each clip in each split, as an index of `PART_OF_CODE`;
- ``splits`` ``[S]``: the names of the splits;
- ``sensors`` int64 ``[N, 8]`` where the clips are events, otherwise ``[0, 8]``: polarities, height
  and width of the event camera, the same of the cochlea, and the number of events of each;
- ``members`` `MEMBER` ``[M]``: the members of the first clip, of the second clip, and so on;
- ``names``: the names of members, without the key of the clip.
"""

from __future__ import annotations

import hashlib
import tarfile
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c
import numpy as np

from avsnn.datasets_manifest.clips import PART_OF_CODE
from avsnn.pipeline.formats.membership import key_hashes
from avsnn.pipeline.formats.npz import npz_bytes, read_npz
from avsnn.pipeline.formats.shards import METADATA_MEMBER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from avsnn.pipeline.formats.shards import Sample

INDEX_SUFFIX = ".npz"

# A clip: its attributes as in `Sample`, the hash of its key, and the number of its members.
CLIP = np.dtype(
    [
        ("hash", "<u8", (2,)),
        ("label", "<i4"),
        ("frames", "<i4"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("audio_seconds", "<f8"),
        ("audio_rate", "<i8"),
        ("members", "<i4"),
    ]
)
# The 32 bytes of `IndexRow.source`, and the SHA-256 of all members but the metadata.
DIGESTS = np.dtype([("source", "u1", (32,)), ("sha256", "u1", (32,))])
# A member of a tar as in `Member`, and the index of its name.
MEMBER = np.dtype([("name", "<i4"), ("offset", "<i8"), ("size", "<i8"), ("crc32c", "<u4")])

_RECORDS = {"clips": CLIP, "digests": DIGESTS, "members": MEMBER}


class IndexArrays(NamedTuple):
    """The arrays of an index, as the head of this module describes the arrays."""

    clips: NDArray[Any]
    digests: NDArray[Any]
    key: NDArray[Any]
    parts: NDArray[np.uint8]
    splits: NDArray[Any]
    sensors: NDArray[np.int64]
    members: NDArray[Any]
    names: NDArray[Any]


class ShardWriter:
    """Writes a tar of clips one clip after the other, and at its end the index beside the tar.

    Owner and time of all members are fixed, so the same clips give the same bytes. Memory grows
    with the index alone.

    Args:
        tar: the shard.

    Attributes:
        digests: the SHA-256 of the tar and of the index, by the name of the file, once both are
            written.
    """

    def __init__(self, tar: Path) -> None:
        self.digests: dict[str, str] = {}
        self._path = tar
        self._tar = tar.open("wb")
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._splits: list[str] = []
        self._keys: list[str] = []
        self._clips: list[tuple[Any, ...]] = []
        self._parts = bytearray()
        self._digests = bytearray()
        self._sensors: list[tuple[int, ...]] = []
        self._members: list[tuple[int, ...]] = []
        self._names: dict[str, int] = {}

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        with self._tar:
            if error is not None:
                return
            # The end of a tar: two empty blocks, filled up to a record.
            self._write(bytes(2 * tarfile.BLOCKSIZE))
            self._write(bytes(-self._size % tarfile.RECORDSIZE))
        index, data = self._path.with_suffix(INDEX_SUFFIX), npz_bytes(self._arrays()._asdict())
        index.write_bytes(data)
        self.digests[self._path.name] = self._sha256.hexdigest()
        self.digests[index.name] = hashlib.sha256(data).hexdigest()

    def add(self, sample: Sample, source: str, members: Mapping[str, bytes]) -> None:
        """Write the members of a clip.

        Args:
            sample: the clip, whose ``members`` are not read.
            source: `IndexRow.source` of the clip.
            members: the bytes of each member, by the name of the member without the key.
        """
        content = hashlib.sha256()
        # WebDataset writes the members of a clip in this order.
        for name, data in sorted(members.items()):
            offset = self._write_member(f"{sample.key}.{name}", data)
            number = self._names.setdefault(name, len(self._names))
            self._members.append((number, offset, len(data), google_crc32c.value(data)))
            if name != METADATA_MEMBER:
                content.update(f"{name} {len(data)}\n".encode())
                content.update(data)
        self._splits = self._splits or [*sample.splits]
        self._keys.append(sample.key)
        self._parts += bytes(PART_OF_CODE.index(sample.splits[name]) for name in self._splits)
        self._digests += bytes.fromhex(source) + content.digest()
        if (events := sample.events) is not None:
            counts = (events.visual_events, events.audio_events)
            self._sensors.append((*events.visual, *events.audio, *counts))
        self._clips.append(
            (
                *((0, 0), sample.label, sample.frames, sample.height, sample.width),
                *(sample.audio_seconds, sample.audio_rate, len(members)),
            )
        )

    def _write_member(self, name: str, data: bytes) -> int:
        """Write a member of the tar, and return where its bytes begin."""
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.uname, info.gname = len(data), 0o444, "avsnn", "avsnn"
        # The PAX format writes an extra header for a name that does not fit, and for no other.
        self._write(info.tobuf(tarfile.PAX_FORMAT))
        offset = self._size
        self._write(data)
        self._write(bytes(-len(data) % tarfile.BLOCKSIZE))
        return offset

    def _write(self, data: bytes) -> None:
        self._tar.write(data)
        self._sha256.update(data)
        self._size += len(data)

    def _arrays(self) -> IndexArrays:
        clips = np.array(self._clips, CLIP)
        clips["hash"] = key_hashes(self._keys)
        return IndexArrays(
            clips=clips,
            digests=np.frombuffer(self._digests, DIGESTS),
            key=_bytes_of(self._keys),
            parts=np.frombuffer(self._parts, np.uint8).reshape(len(clips), len(self._splits)),
            splits=_bytes_of(self._splits),
            sensors=np.array(self._sensors, "<i8").reshape(-1, 8),
            members=np.array(self._members, MEMBER),
            names=_bytes_of(self._names),
        )


def _bytes_of(texts: Iterable[str]) -> NDArray[Any]:
    # An array of no texts would be an array of floats.
    return np.array([text.encode() for text in texts], "S")


def read_index_arrays(data: bytes) -> IndexArrays:
    """Return the arrays of an index.

    Args:
        data: the bytes of the index.

    Raises:
        ValueError: the index is damaged; the message is a phrase about the file.
    """
    arrays = IndexArrays(**read_npz(data, IndexArrays._fields, _RECORDS))
    clips, members, sensors = arrays.clips, arrays.members, arrays.sensors
    count = len(clips)
    texts = (arrays.key, arrays.splits, arrays.names)
    if (
        any(array.ndim != 1 for array in (clips, arrays.digests, members, *texts))
        or any(array.dtype.kind != "S" for array in texts)
        or len(arrays.digests) != count
        or len(arrays.key) != count
        or arrays.parts.dtype != np.uint8
        or arrays.parts.shape != (count, len(arrays.splits))
        or sensors.dtype != np.int64
        or sensors.shape not in ((count, 8), (0, 8))
    ):
        raise ValueError("has arrays of other types or sizes than were written")
    if (
        _is_outside(arrays.parts, 0, len(PART_OF_CODE))
        or any(_is_outside(clips[name], 0) for name in ("label", "frames", "audio_rate"))
        or any(_is_outside(clips[name], 1) for name in ("height", "width"))
        or not np.isfinite(clips["audio_seconds"]).all()
        or _is_outside(sensors, 0)
        or _is_outside(sensors[:, [0, 3]], 1, 3)
        or _is_outside(sensors[:, [1, 2, 4, 5]], 1)
    ):
        raise ValueError("describes clips that there are not")
    if (
        _is_outside(clips["members"], 0)
        or clips["members"].sum(dtype=np.int64) != len(members)
        or _is_outside(members["name"], 0, len(arrays.names))
        or _is_outside(members["offset"], 0)
        or _is_outside(members["size"], 0)
    ):
        raise ValueError("describes members that there are not")
    for array in texts:
        # A byte of zero follows every text here, so a text that ends inside a character is found.
        # The error is a ValueError.
        array.astype(f"S{array.itemsize + 1}").tobytes().decode()
    return arrays


def _is_outside(values: NDArray[Any], least: int, end: int | None = None) -> bool:
    """Return whether a value is less than ``least``, or not less than ``end``."""
    if not values.size:
        return False
    return bool(values.min() < least or (end is not None and values.max() >= end))
