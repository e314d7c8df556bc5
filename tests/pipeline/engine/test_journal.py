"""Lines of a journal that no run of this version wrote count as never written."""

import json
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsnn.pipeline.engine.atomic_files import Output
from avsnn.pipeline.engine.journal import Record, append_records
from avsnn.pipeline.engine.records import read_journal
from tests.conftest import ALONE, SMALL_SHARDS, Command

VICTIM = "victim.txt"


@pytest.fixture
def root(small_demo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_demo, tmp_path / "data"))


def read(journal: Path) -> dict[str, Any]:
    stat = journal.stat()
    return read_journal(journal, stat.st_mtime_ns, stat.st_size)


OUTPUT: dict[str, Any] = {"path": "a.tar", "size": 1, "sha256": "00", "mtime_ns": 1}
RECORD = {
    "unit": "a",
    "fingerprint": "f",
    "version": 1,
    "settings": {},
    "inputs": {},
    "outputs": [OUTPUT],
    "written": 1,
    "skipped": 0,
    "failures": [],
    "seconds": 0.1,
}


def changed(**values: Any) -> bytes:
    return json.dumps(RECORD | values).encode()


def with_path(path: Any) -> bytes:
    return changed(outputs=[OUTPUT | {"path": path}])


@pytest.mark.parametrize(
    "line",
    [
        b'{"unit": "caf\xe9"}',
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"17",
        b'"text"',
        b"{}",
        b"[" * 100_000,
        b'{"unit": ' + b"9" * 5000 + b"}",
        changed(unit=["a"]),
        changed(unit=1),
        changed(fingerprint=None),
        changed(version="1"),
        changed(settings=[]),
        changed(inputs=None),
        changed(written="1"),
        changed(skipped=None),
        changed(seconds="long"),
        changed(failures=[{"stage": "extract", "key": 1, "reason": "r", "path": ""}]),
        changed(failures=[{"stage": "extract"}]),
        changed(failures="none"),
        changed(outputs="a.tar"),
        changed(outputs=[OUTPUT | {"size": "1"}]),
        changed(outputs=[OUTPUT | {"mtime_ns": None}]),
        changed(outputs=[OUTPUT | {"sha256": 0}]),
        changed(a_key_of_another_version=1),
        changed(outputs=[OUTPUT | {"a_key_of_another_version": 1}]),
        *map(with_path, ("../a", "a/../../b", "/etc/passwd", "..", "", ".", "a\0b", None, 1)),
    ],
)
def test_a_line_that_is_no_record_counts_as_never_written(tmp_path: Path, line: bytes) -> None:
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(line + b"\n" + changed(unit="good") + b"\n" + line)
    assert list(read(journal)) == ["good"]


LINES = st.tuples(st.sampled_from(["a", "b", 'c "q"\n', "é"]), st.integers(0, 9), st.booleans())


@given(lines=st.lists(LINES, max_size=12), as_before=st.booleans())
def test_the_last_whole_line_of_a_unit_counts(
    lines: list[tuple[str, int, bool]], as_before: bool
) -> None:
    expected = {}
    with TemporaryDirectory() as folder:
        journal = Path(folder) / "journal.jsonl"
        with journal.open("wb") as file:
            for unit, written, is_whole in lines:
                record = Record(unit, "f", 1, 0.1, written=written, outputs=(Output(**OUTPUT),))
                line = changed(unit=unit, written=written) if as_before else record.as_json()
                if is_whole:
                    expected[unit] = record
                else:
                    line = line.replace(b'"version"', b'"verSion"')
                file.write(line + b"\n")
        found = read(journal)
        assert dict(found.items()) == {unit: found[unit] for unit in found} == expected
        assert {record.unit: record for record in found.values()} == expected
        assert [unit in found for unit in ("a", "b", "z")] == [u in expected for u in "abz"]
        assert {r.unit for r in found.of_other_units(["a"])} == expected.keys() - {"a"}


def test_a_record_that_a_disk_has_changed_does_not_count(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with append_records(journal) as append:
        append(Record("a", "f", 1, 0.1, written=1))
        append(Record("a", "f", 1, 0.1, written=2))
    journal.write_bytes(journal.read_bytes().replace(b'"written": 2', b'"written": 3'))
    assert read(journal)["a"].written == 1


def test_empty_fields_take_no_room_in_a_journal() -> None:
    line = Record("a", "f", 1, 0.1, written=1).as_json()
    assert not re.search(rb"settings|inputs|outputs|skipped|failures|tallies", line)


@pytest.mark.parametrize("path", ["../../../victim.txt", "{}/victim.txt"])
def test_a_record_never_makes_prepare_delete_a_file_outside_its_folder(
    avsnn: Command, root: Path, tmp_path: Path, path: str
) -> None:
    victim = tmp_path / VICTIM
    victim.write_text("kept")
    state = root / "demo" / "state"
    for journal in state.glob("*.jsonl"):
        record = json.loads(journal.read_text().splitlines()[0])
        outside = {**OUTPUT, "path": path.format(tmp_path)}
        for depth in ("", "../"):
            output = {**outside, "path": outside["path"].replace("../", depth, 1)}
            line = {**record, "unit": f"of another plan {depth}", "outputs": [output]}
            with journal.open("a") as file:
                file.write(json.dumps(line) + "\n")
    done = avsnn("prepare", "demo", "--limit", "72", "--root", root, *SMALL_SHARDS, *ALONE)
    assert done.returncode == 0, done.stderr
    assert victim.read_text() == "kept"


def test_a_journal_full_of_rubbish_is_a_journal_of_no_records(avsnn: Command, root: Path) -> None:
    for journal in (root / "demo" / "state").glob("*.jsonl"):
        journal.write_bytes(b"\xff\xfe[]\n\x80")
    done = avsnn("prepare", "demo", "--limit", "72", "--root", root, *SMALL_SHARDS, *ALONE)
    assert done.returncode == 0, done.stderr
    assert avsnn("verify", "demo", "--root", root).returncode == 0
