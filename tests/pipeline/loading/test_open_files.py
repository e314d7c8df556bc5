"""Data sets of more shards than a process may open files, and a process that may open no file."""

import itertools
import multiprocessing
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zarr

from avsnn.errors import UserError
from avsnn.pipeline.formats.damaged import damaged_error
from avsnn.pipeline.loading.mapped_array import MappedArray
from avsnn.pipeline.loading.open_files import FEWEST_KEPT, OpenFiles
from tests.pipeline.loading.conftest import open_source

SHARDS = 100
FEW_FILES = 48


def many_shards(folder: Path) -> "zarr.Array[np.uint8]":
    """Write an array of 100 shards, each of which holds its number."""
    array = zarr.open_group(str(folder), mode="w").create_array(
        "x",
        shape=(SHARDS, 2),
        dtype="uint8",
        chunks=(1, 2),
        shards=(1, 2),
        compressors=[zarr.codecs.Crc32cCodec()],
        config={"write_empty_chunks": True},
    )
    array[:] = np.arange(SHARDS, dtype=np.uint8)[:, None]
    return array


@contextmanager
def open_files_at_most(limit: int) -> Iterator[None]:
    """Let the process open only so many files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def limit_that_leaves(count: int) -> int:
    """Return the limit of open files with which this process can open so many files more."""
    free = (number for number in itertools.count() if not is_open(number))
    return next(itertools.islice(free, count, None))


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_two_caches_of_more_shards_than_a_process_may_open_files_are_read(tmp_path: Path) -> None:
    # Not this process, which may have many open files of other tests.
    process = multiprocessing.get_context("spawn").Process(target=read_two_caches, args=[tmp_path])
    process.start()
    process.join()
    assert process.exitcode == 0


def read_two_caches(folder: Path) -> None:
    arrays = [MappedArray(folder / name / "x", many_shards(folder / name)) for name in ("a", "b")]
    rows = np.arange(SHARDS)
    with open_files_at_most(limit_that_leaves(FEWEST_KEPT + 2)):
        for array in [*arrays, *arrays]:
            assert np.array_equal(array.take(rows)[:, 0], rows)


def test_the_files_read_last_stay_open_and_a_reader_that_is_gone_keeps_none() -> None:
    files, opened = OpenFiles(), []

    def read(reader: int, name: int) -> None:
        files.get(reader, name, lambda: opened.append((reader, name)) or name)

    with open_files_at_most(FEW_FILES):
        for name in range(FEWEST_KEPT):
            read(1, name)
        read(1, 0)
        read(2, 0)
        assert len(opened) == FEWEST_KEPT + 1
        read(1, 0)
        assert len(opened) == FEWEST_KEPT + 1, "the file that was read last was closed"
        read(1, 1)
        assert opened[-1] == (1, 1)
        files.drop(1)
        read(2, 0)
        read(1, 0)
        assert opened[-1] == (1, 0)


def test_worker_processes_leave_fewer_files_for_shards() -> None:
    files = OpenFiles()
    with open_files_at_most(1024):
        alone = files.most()
        files.workers = 4
        assert files.most() < alone < 1024


def test_a_cache_whose_shards_lie_elsewhere_is_read_there(tmp_path: Path) -> None:
    array = many_shards(tmp_path / "a")
    (tmp_path / "a" / "x" / "c" / "7" / "0").rename(tmp_path / "seven")
    mapped = MappedArray(tmp_path / "gone", array, lambda number: tmp_path / "seven")
    assert mapped.take(np.array([7])).tolist() == [[7, 7]]


@pytest.mark.parametrize("kind", ["cache", "shards"])
def test_a_process_that_may_open_no_file_is_told_so_and_not_of_damage(
    small_demo: Path, kind: str
) -> None:
    source = open_source(small_demo, kind)
    too_many = pytest.raises(UserError, match="too many files are open; allow more with 'ulimit")
    with too_many, open_files_at_most(limit_that_leaves(0)):
        source.read(np.arange(72), np.zeros(72))


def test_a_library_that_can_open_no_file_is_no_damage(tmp_path: Path) -> None:
    with open_files_at_most(limit_that_leaves(0)):
        error = damaged_error(tmp_path / "x.tar", "clip a cannot be decoded: no module")
    assert "too many files are open" in str(error)
    assert "repair" not in str(error)
    assert "repair" in str(damaged_error(tmp_path / "x.tar"))
