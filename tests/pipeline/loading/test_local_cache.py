"""Copies of files of a store, which all processes of a machine share."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from avsnn.errors import UserError
from avsnn.pipeline.engine.stores import open_url
from avsnn.pipeline.loading.cache_source import CacheSource
from avsnn.pipeline.loading.local_cache import LocalCache, open_local_cache
from tests.conftest import PROJECT
from tests.event_data import write_cache
from tests.s3_server import S3Server

SIZE = 1000


@pytest.fixture
def store(tmp_path: Path) -> UPath:
    """A store that other processes can read too, with ten files."""
    folder = tmp_path / "store"
    folder.mkdir()
    for number in range(10):
        (folder / str(number)).write_bytes(bytes([number]) * SIZE)
    return UPath(f"file://{folder}")


def copied(folder: Path) -> list[Path]:
    """Return all copies, whole or not."""
    return list(folder.glob(f"{'[0-9a-f]' * 16}/*"))


def test_several_readers_copy_a_file_once(s3: S3Server, tmp_path: Path) -> None:
    place = open_url("s3://bucket/copied-once")
    for name in "abc":
        place.fs.pipe_file(f"{place.path}/{name}", name.encode() * SIZE)
    s3.requests.clear()
    start = threading.Barrier(6)

    def read(_: int) -> bytes:
        # Each reader has objects of its own, as each process has, and waits for a lock of files.
        copies = LocalCache(tmp_path, limit=10 * SIZE).copies_of(place)
        start.wait()
        copies.fetch("abc")
        return b"".join(copies.path(name).read_bytes()[:1] for name in "abc")

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(read, range(6))) == {b"abc"}
    assert s3.requests == {"HEAD": 3, "GET": 3}


def test_copies_that_were_used_longest_ago_make_room(store: UPath, tmp_path: Path) -> None:
    cache = LocalCache(tmp_path / "copies", limit=4 * SIZE)
    copies = cache.copies_of(store)
    with copies.path("0").open("rb") as file:
        mapped = mmap(file.fileno(), 0, access=ACCESS_READ)
    for number in range(1, 10):
        assert copies.path(str(number)).read_bytes() == bytes([number]) * SIZE
        assert sum(path.stat().st_size for path in copied(cache.folder)) <= 4 * SIZE
        # The copy of this file is used again and again, and stays.
        os.utime(copies.path("1"))
    names = {path.name for path in copied(cache.folder)}
    assert {"1", "9"} <= names
    assert "2" not in names
    assert bytes(mapped) == b"\0" * SIZE


def test_readers_with_less_room_than_they_need_get_every_row(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), np.uint8)
    keys = [f"clip-{number:02d}" for number in range(40)]
    (tmp_path / "store").mkdir()
    write_cache(tmp_path / "store" / "frames", "frames", rows, keys, np.zeros(40, int), 4)
    sounds = np.zeros((40, 1, 4, 4), np.float32)
    write_cache(tmp_path / "store" / "audio", "audio", sounds, keys, np.zeros(40, int), 4)
    shards = list((tmp_path / "store" / "frames" / "frames" / "c").rglob("0"))
    limit = 3 * max(path.stat().st_size for path in shards if path.is_file())
    url = f"file://{tmp_path / 'store'}"

    def read(seed: int) -> None:
        copies = LocalCache(tmp_path / "copies", limit)
        source = CacheSource(
            frames=UPath(f"{url}/frames"), audio=UPath(f"{url}/audio"), copies=copies
        )
        for wanted in np.random.default_rng(seed).permutation(40).reshape(10, 4):
            frames = source.read(wanted, np.zeros(4)).frames
            assert np.array_equal(frames, rows[wanted])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))
    assert sum(path.stat().st_size for path in copied(tmp_path / "copies")) <= limit


def test_files_of_the_user_in_the_folder_stay(store: UPath, tmp_path: Path) -> None:
    copies = LocalCache(tmp_path, limit=2 * SIZE).copies_of(store)
    for number in range(5):
        copies.fetch([str(number)])
    assert len(list((tmp_path / "store").iterdir())) == 10


def test_a_file_that_is_larger_than_the_limit_is_told_in_one_sentence(
    store: UPath, tmp_path: Path
) -> None:
    copies = LocalCache(tmp_path, limit=SIZE - 1).copies_of(store)
    with pytest.raises(UserError, match=r"may take 0.0 MB, but .*/0 alone .*--cache-limit\.$"):
        copies.fetch(["0"])


def test_a_full_disk_is_told_in_one_sentence(store: UPath, tiny_disk: Path) -> None:
    UPath(store / "0").write_bytes(b"0" * 2**21)
    copies = LocalCache(tiny_disk, limit=2**30).copies_of(store)
    with pytest.raises(UserError, match=r"no room .*; free some space, or .*--cache-dir\.$"):
        copies.fetch(["0"])


def test_a_file_that_is_not_in_the_store_is_missing(store: UPath, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"store/none is missing; run 'avsnn repair'"):
        LocalCache(tmp_path, limit=SIZE).copies_of(store).fetch(["none"])


def test_another_content_under_the_same_url_is_copied_again(store: UPath, tmp_path: Path) -> None:
    old, new = (LocalCache(tmp_path, 10 * SIZE, version).copies_of(store) for version in "ab")
    old.fetch(["0"])
    UPath(store / "0").write_bytes(b"new")
    assert new.path("0").read_bytes() == b"new"


KILLED = """
import os, signal, sys
from pathlib import Path
from fsspec.implementations.local import LocalFileSystem
from upath import UPath
from avsnn.pipeline.loading.cache_source import CacheSource
from avsnn.pipeline.loading.local_cache import LocalCache

def get_file(self, source, target, **_):
    Path(target).write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

LocalFileSystem.get_file = get_file
LocalCache(Path(sys.argv[1]), int(sys.argv[2])).copies_of(UPath(sys.argv[3])).fetch(["0"])
"""


def test_a_process_that_is_killed_leaves_neither_a_cut_copy_nor_a_lock(
    store: UPath, tmp_path: Path
) -> None:
    cache = LocalCache(tmp_path / "copies", limit=3 * SIZE)
    words = [sys.executable, "-c", KILLED, str(cache.folder), str(cache.limit), str(store)]
    assert subprocess.run(words, cwd=PROJECT, check=False).returncode == -9
    assert [path.read_bytes() for path in copied(cache.folder)] == [b"half"]
    copies = cache.copies_of(store)
    assert copies.path("0").read_bytes() == b"\0" * SIZE
    for number in range(1, 4):
        copies.fetch([str(number)])
    # The file of the killed process made room for whole copies.
    assert not [path for path in copied(cache.folder) if path.name.startswith(".")]


@pytest.mark.parametrize("limit", ["many", "50 parsecs"])
def test_a_limit_that_is_no_size_is_refused(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVSNN_CACHE_LIMIT", limit)
    with pytest.raises(UserError, match=f"--cache-limit {limit} is no size; give a number"):
        open_local_cache()


def test_a_limit_has_a_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVSNN_CACHE_LIMIT", "1.5TB")
    assert open_local_cache().limit == 1_500_000_000_000
