"""The Zarr group of a cache: everything but the rows, read from a folder or from a store."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from upath import UPath
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore, MemoryStore

from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine.atomic_files import Folder
from avsnn.pipeline.engine.stores import read_files, require_store
from avsnn.pipeline.formats.cache_layout import CODECS, small_array_files
from avsnn.pipeline.formats.damaged import damaged_error, unreadable_error
from avsnn.pipeline.loading.mapped_array import has_right_crc

# The small arrays of a cache, with their numbers of dimensions.
SMALL_ARRAYS = {"key": 1, "label": 1, "rows": 2}


class CacheGroup:
    """The Zarr group of a cache. The files of a group in a store are read in one call.

    Args:
        folder: the folder of the group.
        array: name of the large array.

    Raises:
        UserError: the folder holds no cache.
    """

    def __init__(self, folder: Folder, array: str) -> None:
        self._folder = folder
        # The files of a store, by their paths below the folder.
        self._files: dict[str, bytes] | None = None
        self._store: LocalStore | MemoryStore
        if isinstance(folder, UPath):
            require_store(folder)
            names = ["zarr.json", f"{array}/zarr.json"]
            for name, dimensions in SMALL_ARRAYS.items():
                names += small_array_files(name, dimensions)
            found = read_files(folder, [f"{folder.path}/{name}" for name in names])
            self._files = {path.removeprefix(f"{folder.path}/"): found[path] for path in found}
            buffer = default_buffer_prototype().buffer
            self._store = MemoryStore(
                {name: buffer.from_bytes(data) for name, data in self._files.items()}
            )
        else:
            self._store = LocalStore(folder, read_only=True)
        if not self._has("zarr.json"):
            raise UserError(f"{folder} is not a cache; run 'avsnn prepare' again.")

    def open(self, name: str) -> "zarr.Array[Any]":
        """Open an array without reading its rows.

        Raises:
            UserError: the array is damaged.
        """
        path = self._folder / name
        with _damage_is_one_sentence(path / "zarr.json"):
            # Version 2 of the format knows filters that execute what they read.
            group = zarr.open_group(self._store, mode="r", zarr_format=3, use_consolidated=False)
            array = group[name]
            facts = array.metadata.to_dict()
            encoding = {"name": "default", "configuration": {"separator": "/"}}
            if not isinstance(array, zarr.Array) or facts["chunk_key_encoding"] != encoding:
                raise damaged_error(path / "zarr.json")
            if foreign := _codec_names(facts["codecs"]) - CODECS:
                raise damaged_error(path / "zarr.json", f"it names the codec {min(foreign)!r}")
        return array

    def read_small(self, name: str, dtype: Any = None) -> NDArray[Any]:
        """Read a small array, which is a single chunk.

        Raises:
            UserError: the array is damaged, or has another type or other dimensions.
        """
        dimensions = SMALL_ARRAYS[name]
        array, chunk = self.open(name), small_array_files(name, dimensions)[1]
        # Zarr reads a chunk without a file as zeros.
        if not self._has(chunk):
            raise unreadable_error(self._folder / chunk, FileNotFoundError())
        is_single = array.ndim == dimensions and array.chunks == array.shape
        if not is_single or (dtype and array.dtype != dtype):
            raise damaged_error(self._folder / name / "zarr.json")
        with _damage_is_one_sentence(self._folder / chunk):
            return np.asarray(array[:])

    def key_bytes(self) -> bytes:
        """Return the bytes of the keys; the same keys have the same bytes.

        Raises:
            UserError: the bytes are not the bytes that were written.
        """
        name = small_array_files("key", 1)[1]
        chunk = self._folder / name
        try:
            data = chunk.read_bytes() if self._files is None else self._files[name]
        except KeyError:
            raise unreadable_error(chunk, FileNotFoundError()) from None
        except OSError as error:
            raise unreadable_error(chunk, error) from None
        if not has_right_crc(data):
            raise damaged_error(chunk)
        return data

    def _has(self, name: str) -> bool:
        return (self._folder / name).exists() if self._files is None else name in self._files


@contextmanager
def _damage_is_one_sentence(path: Folder) -> Iterator[None]:
    """Turn every error that Zarr raises on damaged files into one sentence.

    Zarr checks neither the JSON that it reads nor the values in the JSON, so a damaged file raises
    almost any exception.

    Raises:
        UserError: Zarr could not read the array.
    """
    try:
        yield
    except (UserError, RunError, MemoryError):
        raise
    except OSError as error:
        if error.errno is None:
            raise damaged_error(path) from None
        raise unreadable_error(path, error) from None
    except Exception:
        raise damaged_error(path) from None


def _codec_names(codecs: Any) -> set[str]:
    """Return the names of all codecs, also of the codecs inside a sharding codec."""
    names = set()
    for codec in codecs:
        names.add(codec["name"])
        configuration = codec.get("configuration") or {}
        for inner in ("codecs", "index_codecs"):
            names |= _codec_names(configuration.get(inner, ()))
    return names
