"""Cleans a data set that was prepared in several ways; what the last prepare needs must stay."""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from upath import UPath

from avsnn.pipeline.engine.lock import hold_for_reading
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.formats.prepare_settings import AudioSettings, PrepareSettings
from avsnn.pipeline.prepare.build_stages import build_as_requested, build_stages
from avsnn.pipeline.prepare.clean import clean, plan_clean
from avsnn.pipeline.prepare.prepare import prepare
from avsnn.pipeline.prepare.request import PrepareRequest
from avsnn.pipeline.prepare.verify import verify
from tests.conftest import ALONE, PROJECT, SMALL_SHARDS, Command, hashes
from tests.own_dataset import OwnDataset
from tests.warm import Warm


@pytest.fixture(scope="module")
def cluttered(warm: Warm, small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small demo after prepares with another limit and another size. Tests must only read."""
    root = Path(shutil.copytree(small_demo, tmp_path_factory.mktemp("cluttered") / "data"))
    words = ["prepare", "demo", "--root", str(root), *SMALL_SHARDS, *ALONE, "--limit"]
    for more in (["24"], ["72", "--set", "audio.size=64"], ["72"]):
        done = warm.run([*words, *more], root.parent)
        assert done.returncode == 0, done.stderr
    downloads = root / "demo" / "state" / "downloads"
    downloads.mkdir()
    (downloads / f"{'a' * 64}.part").write_bytes(b"half of a file that nobody wants")
    return root


@pytest.fixture
def root(cluttered: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cluttered, tmp_path / "data"))


def folders(root: Path) -> set[str]:
    """Return the folders of clips, shards and caches."""
    found = (root / "demo").glob("*/*-*-*")
    return {path.relative_to(root / "demo").as_posix() for path in found if path.is_dir()}


def size(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def journals(root: Path) -> set[str]:
    return {path.name for path in (root / "demo" / "state").glob("*.jsonl")}


def is_undamaged(root: Path, dataset: str = "demo") -> bool:
    return not verify(build_as_requested(dataset, root=root), progress=NoProgress()).damages


def test_clean_leaves_exactly_what_a_single_prepare_leaves(
    avsnn: Command, root: Path, small_demo: Path
) -> None:
    before = size(root)
    done = avsnn("clean", "demo", "--root", root, "--yes")
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    for reason in ("--limit 24", "of other settings", "partial downloads"):
        assert reason in shown
    assert hashes(root / "demo") == hashes(small_demo / "demo")
    assert journals(root) == journals(small_demo)
    said = re.findall(r"the disk has ([\d.]+) MB more", shown)
    assert float(said[0]) == pytest.approx((before - size(root)) / 1e6, rel=0.02)
    assert "nothing to remove" in avsnn("clean", "demo", "--root", root).stdout
    again = avsnn("prepare", "demo", "--root", root, "--limit", "72", *SMALL_SHARDS, *ALONE)
    assert "nothing to do" in again.stdout


def test_a_script_that_does_not_say_yes_removes_nothing(avsnn: Command, root: Path) -> None:
    before = hashes(root)
    done = avsnn("clean", "demo", "--root", root)
    assert (done.returncode, "--yes" in done.stderr) == (2, True)
    assert "can be removed" in done.stdout
    assert hashes(root) == before


def answer(avsnn_path: str, words: list[str], text: str) -> int:
    """Run a command whose standard input is a terminal on which a person types a text."""
    primary, secondary = pty.openpty()
    os.write(primary, text.encode())
    done = subprocess.run(
        [avsnn_path, *words],
        stdin=secondary,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    os.close(primary)
    os.close(secondary)
    return done.returncode


def test_on_a_terminal_clean_asks_and_takes_an_empty_answer_for_no(
    avsnn_path: str, root: Path
) -> None:
    before = hashes(root)
    words = ["clean", "demo", "--root", str(root)]
    assert answer(avsnn_path, words, "\n") == 0
    assert hashes(root) == before
    assert answer(avsnn_path, words, "y\n") == 0
    assert len(folders(root)) == 4


def test_what_a_training_reads_stays(avsnn: Command, root: Path) -> None:
    (of_24,) = root.glob("demo/index/clips-24-*/clips.jsonl")
    (present,) = root.glob("demo/index/clips-72-*/clips.jsonl")
    before = folders(root)
    with hold_for_reading(present) or pytest.fail("no lock"):
        done = avsnn("clean", "demo", "--root", root, "--yes")
        assert "reads these clips now" in done.stdout
        # Nobody knows which of the caches of these clips the training reads.
        assert folders(root) == {name for name in before if "-72-" in name}
    assert not of_24.exists()
    assert avsnn("clean", "demo", "--root", root, "--yes").returncode == 0
    assert len(folders(root)) == 4


def test_files_and_links_that_avsnn_did_not_make_stay(
    avsnn: Command, root: Path, tmp_path: Path
) -> None:
    demo = root / "demo"
    (shards,) = demo.glob("shards/*-24-*")
    (shards / "notes.txt").write_text("mine")
    (frames,) = demo.glob("cache/frames-*-24-*")
    moved = frames.rename(tmp_path / "moved.zarr")
    frames.symlink_to(moved)
    (audio,) = demo.glob("cache/audio-*-24-*")
    (audio / "elsewhere").symlink_to(tmp_path)
    (demo / "shards" / "my-backup").mkdir()
    (demo / "shards" / "my-backup" / "train-000000.tar").write_text("mine")
    (demo / "index").rename(tmp_path / "index")
    (demo / "index").symlink_to(tmp_path / "index")
    before, journals_before = hashes(root), len(journals(root))
    done = avsnn("clean", "demo", "--root", root, "--yes")
    assert done.returncode == 0, done.stderr
    assert "index is a link, which clean does not follow" in done.stdout
    assert len([*(tmp_path / "index").iterdir()]) == 2
    assert {f"{path.name}.jsonl" for path in (shards, frames, audio)} < journals(root)
    # Only the audio cache of the other size went, and its journal.
    assert len(journals(root)) == journals_before - 1
    for name in ("notes.txt", "the link elsewhere"):
        assert f"avsnn did not write {name}" in done.stdout
    kept = (shards.name, frames.name, audio.name, "my-backup", "notes.txt")
    for path in before:
        assert (root / path).exists() or not any(name in path for name in kept), path
    assert len(hashes(moved)) > 1


def kill_at_removal(number: int, root: Path) -> None:
    """Clean in a child that is killed as it removes the file with this number."""
    child = os.fork()
    if not child:
        removals = 0

        def count(event: str, _: object) -> None:
            nonlocal removals
            if event == "os.remove":
                removals += 1
                if removals == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        with suppress(BaseException):
            sys.addaudithook(count)
            clean("demo", plan_clean("demo", root=root), root=root)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def test_a_killed_clean_leaves_the_prepared_data_whole_and_the_next_clean_finishes(
    avsnn: Command, root: Path, small_demo: Path
) -> None:
    for number in (1, 9, 30):
        kill_at_removal(number, root)
        assert is_undamaged(root)
    assert len(folders(root)) > 4
    assert avsnn("clean", "demo", "--root", root, "--yes").returncode == 0
    assert hashes(root / "demo") == hashes(small_demo / "demo")
    assert journals(root) == journals(small_demo)


def test_the_folders_of_a_prepare_that_was_interrupted_stay(
    avsnn: Command, warm: Warm, root: Path, tmp_path: Path
) -> None:
    assert avsnn("clean", "demo", "--root", root, "--yes").returncode == 0
    words = ["prepare", "demo", "--root", str(root), "--limit", "40", *SMALL_SHARDS, *ALONE]
    process = warm.start(words, tmp_path)
    for line in process.stderr:
        if line.startswith("extract: 3 of"):
            os.kill(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    before = folders(root)
    assert any("-40-" in name for name in before)
    assert avsnn("clean", "demo", "--root", root, "--yes").returncode == 0
    assert folders(root) == before


def test_clean_removes_from_a_store_what_this_folder_put_there(
    own: OwnDataset, tmp_path: Path
) -> None:
    own.write()
    root, store = tmp_path / "data", f"memory://{tmp_path}"
    for size in (64, 32):
        settings = PrepareSettings(audio=AudioSettings(size=size))
        request = PrepareRequest(settings=settings, store=store)
        stages = build_stages("own", request, root=root)
        prepare(stages, workers=0, progress=NoProgress())
    caches = UPath(f"{store}/own/cache")
    of_others = caches / f"audio-{'0' * 8}-all-{'0' * 8}.zarr" / "zarr.json"
    of_others.parent.mkdir()
    of_others.write_bytes(b"of another machine that uses this store")
    plan = plan_clean("own", root=root)
    (unneeded,) = plan.unneeded
    assert unneeded.name.startswith(str(caches))
    assert plan.bytes == unneeded.bytes > 0
    clean("own", plan, root=root)
    assert plan_clean("own", root=root).unneeded == []
    assert of_others.exists()
    assert is_undamaged(root, "own")
