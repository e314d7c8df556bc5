"""Shards and caches in a bucket of a real S3 server on this machine."""

import shlex
import shutil
import sys
from pathlib import Path

import pytest

from avsnn.errors import UserError
from avsnn.pipeline.engine.stores import open_store
from tests.conftest import ALONE, ONE_SMALL_EPOCH, SMALL_SHARDS, Command
from tests.docs.test_pages import code_blocks
from tests.s3_server import S3Server, no_fault

# The clips of `small_demo` are prepared with these settings.
FEW = ("--limit", "72", *SMALL_SHARDS, *ALONE)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVSNN_CACHE_DIR", str(tmp_path / "copies"))


def files(root: Path) -> dict[str, bytes]:
    """Return the bytes of the files in shards and caches, by the path in the data set's folder."""
    found = [path for kind in ("shards", "cache") for path in (root / "demo" / kind).rglob("*")]
    return {
        path.relative_to(root / "demo").as_posix(): path.read_bytes()
        for path in found
        if path.is_file()
    }


def raw_files(small_demo: Path, root: Path) -> Path:
    """Make a root that holds the fetched files alone."""
    shutil.copytree(small_demo / "demo" / "raw", root / "demo" / "raw")
    (root / "demo" / "state").mkdir()
    shutil.copy(small_demo / "demo" / "state" / "raw.jsonl", root / "demo" / "state")
    return root


def test_the_commands_of_the_page_on_stores_work_and_objects_equal_local_files(
    s3: S3Server, avsnn: Command, small_demo: Path, tmp_path: Path
) -> None:
    raw_files(small_demo, tmp_path / "data")
    block = next(block for block in code_blocks("docs/stores.md", "sh") if "prepare" in block)
    for line in block.splitlines():
        line = line.replace("/scratch/avsnn", str(tmp_path / "scratch"))
        words = shlex.split(line, comments=True)[1:]
        if words:
            words += FEW if words[0] == "prepare" else ()
            words += ONE_SMALL_EPOCH if words[0] == "train" else ()
            done = avsnn(*words)
            assert done.returncode == 0, (line, done.stderr)
    written = s3.objects("bucket/avsnn/demo")
    assert written == files(small_demo)
    # One request puts an object under its name: nothing is copied, renamed or removed.
    assert (s3.requests["PUT"], s3.requests["POST"], s3.requests["DELETE"]) == (len(written), 0, 0)
    before = s3.requests["PUT"]
    again = avsnn("prepare", "demo", *FEW)
    assert "nothing to do" in again.stdout
    assert "with shards and caches in s3://bucket/avsnn/demo" in " ".join(again.stdout.split())
    assert s3.requests["PUT"] == before
    here = avsnn("prepare", "demo", "--store", "none", *FEW)
    assert here.returncode == 0, here.stderr
    assert files(tmp_path / "data") == files(small_demo)


def test_faults_of_the_server_change_no_byte(
    s3: S3Server, avsnn: Command, small_demo: Path, small_run: Path, tmp_path: Path
) -> None:
    raw_files(small_demo, tmp_path / "data")
    s3.fault = lambda number, method: {5: "500", 11: "cut", 0: "slow"}.get(number % 16, "")
    words = ("prepare", "demo", "--store", "s3://bucket/faults", *FEW)
    done = avsnn(*words)
    assert done.returncode == 0, done.stderr
    assert s3.objects("bucket/faults/demo") == files(small_demo)
    done = avsnn("train", "demo", "--run", "run", *ONE_SMALL_EPOCH)
    assert done.returncode == 0, done.stderr
    weights = [run / "checkpoints" / "best.safetensors" for run in (tmp_path / "run", small_run)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_server_that_goes_away_costs_nothing_that_is_done(
    s3: S3Server, avsnn: Command, small_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw_files(small_demo, tmp_path / "data")
    # The library tries a request five times by default, with growing pauses.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    words = ("prepare", "demo", "--store", "s3://bucket/gone", "--limit", "9", *ALONE)
    s3.fault = lambda number, method: "gone" if s3.requests["PUT"] > 4 else ""
    done = avsnn(*words)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "cannot be reached" in last
    assert last.endswith("run the same command again (train: with --resume).")
    assert "Traceback" not in done.stderr
    s3.fault = no_fault
    kept = s3.objects("bucket/gone/demo")
    assert len(kept) == 4
    s3.requests.clear()
    assert avsnn(*words).returncode == 0
    # Two shards with their indexes were done, and are not done again.
    assert s3.requests["PUT"] == len(s3.objects("bucket/gone/demo")) - len(kept)
    assert "all as they were written" in avsnn("verify", "demo").stdout


def test_a_bucket_that_does_not_exist_is_not_created(s3: S3Server, avsnn: Command) -> None:
    done = avsnn("prepare", "demo", "--store", "s3://no-such-bucket/folder", *FEW)
    assert done.returncode == 2
    assert done.stderr == (
        "avsnn: s3://no-such-bucket does not exist, and avsnn creates no bucket; create it, or "
        "give another URL.\n"
    )
    assert s3.buckets() == ["bucket"]


def test_wrong_credentials_are_told_in_one_sentence(s3: S3Server, avsnn: Command) -> None:
    with s3.environment(key="wrong"):
        done = avsnn("prepare", "demo", "--store", "s3://bucket/folder", *FEW)
    assert done.returncode == 2
    assert "may not be used with these credentials (The AWS Access Key Id you" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r"run 'pip install s3fs'\.$"):
        open_store("s3://bucket/folder")
