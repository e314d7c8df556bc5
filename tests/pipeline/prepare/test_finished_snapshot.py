"""A rerun with an unchanged snapshot makes no plan.

So the snapshot must notice every change that a plan would notice.
"""

import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avsnn.errors import RunError
from avsnn.pipeline.engine.lock import lock_folder
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.prepare import finished_snapshot, noted_files
from avsnn.pipeline.prepare.build_stages import build_stages
from avsnn.pipeline.prepare.finished_snapshot import SNAPSHOT, finished_before
from avsnn.pipeline.prepare.prepare import prepare
from avsnn.pipeline.prepare.request import PrepareRequest, load_request
from avsnn.pipeline.prepare.stages.extract import Extract


@pytest.fixture
def root(small_demo: Path, tmp_path: Path) -> Path:
    """A copy of the prepared demo, with an unchanged snapshot."""
    copy = shutil.copytree(small_demo, tmp_path / "data")
    assert read_snapshot(copy) is not None
    return copy


def last_request(root: Path, **changes: Any) -> PrepareRequest:
    request = load_request(root, "demo")
    assert request is not None
    return request.model_copy(update=changes)


def read_snapshot(root: Path, **changes: Any) -> object:
    return finished_before("demo", last_request(root, **changes), root=root)


def append_a_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def change_time(path: Path) -> None:
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize("damage", [Path.unlink, append_a_byte, change_time])
@pytest.mark.parametrize(
    "pattern",
    [
        "raw/audio/*.wav",
        "index/*/clips.jsonl",
        "shards/*/*.tar",
        "cache/*/audio/c/0/0/0/0",
        "state/*.jsonl",
        "failures.jsonl",
        "prepared.json",
    ],
)
def test_a_changed_file_invalidates_the_snapshot(
    root: Path, pattern: str, damage: Callable[[Path], object]
) -> None:
    damage(min((root / "demo").glob(pattern)))
    assert read_snapshot(root) is None


def test_a_changed_request_or_code_version_invalidates_the_snapshot(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_snapshot(root, settings=PrepareSettings(limit=71)) is None
    assert read_snapshot(root, source=root) is None
    assert read_snapshot(root, max_failures=0.5) is None
    monkeypatch.setattr(Extract, "version", Extract.version + 1)
    assert read_snapshot(root) is None


def test_a_table_with_other_clips_invalidates_the_snapshot(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = finished_snapshot.load("demo")
    table = tmp_path / "other.csv"
    table.write_bytes(manifest.table_bytes.replace(b",train", b",test", 1))
    monkeypatch.setattr(finished_snapshot, "load", lambda _: manifest.with_table(table))
    assert read_snapshot(root) is None


def test_the_snapshot_is_not_read_while_another_run_writes(root: Path) -> None:
    with lock_folder(root / "demo"), pytest.raises(RunError, match="another avsnn run"):
        read_snapshot(root)


@pytest.mark.parametrize("kept", [0, 1, 2, -1])
def test_a_snapshot_that_was_cut_does_not_count(root: Path, kept: int) -> None:
    path = root / "demo" / SNAPSHOT
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:kept]))
    assert read_snapshot(root) is None


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"[1,2]", b"5", b"[" * 100_000, b'{"raw":[null,null,null]}'),
        b'{"raw":[["x"],[99999999999999999999],[5]]}',
        b'{"raw":[[99999999999999999999],[3],[5]]}',
    ],
)
@pytest.mark.parametrize("checksum", ["old", "right"])
def test_a_damaged_snapshot_does_not_count(root: Path, line: bytes, checksum: str) -> None:
    path = root / "demo" / SNAPSHOT
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = line + b"\n"
    if checksum == "right":
        lines[-1] = b"%d\n" % zlib.crc32(b"".join(lines[:-1]))
    path.write_bytes(b"".join(lines))
    assert read_snapshot(root) is None


@pytest.mark.parametrize("name", [str(SNAPSHOT), "raw/audio"])
def test_a_named_pipe_is_not_waited_for(root: Path, name: str) -> None:
    path = root / "demo" / name
    path.rename(root / "elsewhere")
    os.mkfifo(path)
    assert read_snapshot(root) is None


def test_a_rerun_that_restores_a_lost_file_writes_the_snapshot_again(root: Path) -> None:
    lost, *copied = sorted((root / "demo").glob("shards/*/*.tar"))
    lost.unlink()
    # A copy has another time, and its bytes are as they were.
    change_time(copied[0])
    of_an_earlier_version = root / "demo" / "state" / "seal.json"
    of_an_earlier_version.write_text("{}")
    stages = build_stages("demo", last_request(root), root=root)
    prepare(stages, workers=0, progress=NoProgress())
    assert read_snapshot(root) is not None
    assert not of_an_earlier_version.exists()


def test_a_few_processes_look_at_many_files_and_each_notices_a_change(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noted_files, "FILES_PER_LINE", 20)
    monkeypatch.setattr(finished_snapshot, "BYTES_PER_PROCESS", 1)
    monkeypatch.setattr(finished_snapshot, "usable_cores", lambda: 3)
    (root / "demo" / SNAPSHOT).unlink()
    prepare(build_stages("demo", last_request(root), root=root), workers=0, progress=NoProgress())
    lines = (root / "demo" / SNAPSHOT).read_bytes().splitlines()
    assert len(lines) > 6
    assert read_snapshot(root) is not None
    for path in sorted((root / "demo").glob("raw/*/*"))[::10]:
        before = path.stat()
        change_time(path)
        assert read_snapshot(root) is None
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read_snapshot(root) is not None
