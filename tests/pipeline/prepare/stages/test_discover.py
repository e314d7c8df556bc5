"""A data set without a published table, from folders on this machine."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from avsnn.datasets_manifest import load
from avsnn.errors import UserError
from avsnn.pipeline.engine.files import sha256
from avsnn.pipeline.engine.journal import StageSummary
from avsnn.pipeline.engine.plan import plan
from avsnn.pipeline.engine.run_stage import run_stage
from avsnn.pipeline.prepare.folder_layout import find_layout_folder
from avsnn.pipeline.prepare.stages.discover import IGNORED, Discover
from avsnn.pipeline.prepare.stages.fetch import Fetch
from tests.conftest import NoProgress, city_sounds

SOUND, SIGHT = "Dataset_v3_sound", "Dataset_v3_vision"

Find = Callable[..., tuple[Discover, StageSummary]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return city_sounds(tmp_path / "source", recordings=2, slices=1)


@pytest.fixture
def find(tmp_path: Path) -> Find:
    """Runs the stage into one folder, on some source."""

    def run(source: Path | None) -> tuple[Discover, StageSummary]:
        folder = tmp_path / "data"
        stage = Discover(folder / "table", folder / "state", load("urbansound8k-av"), source)
        with ThreadPoolExecutor(1) as pool:
            return stage, run_stage(stage, executor=lambda: pool, progress=NoProgress())

    return run


def test_a_clip_is_a_pair_of_files_with_class_recording_size_and_checksum(
    tree: Path, find: Find
) -> None:
    stage, summary = find(tree)
    clips = stage.with_discovered_clips().clips
    assert (len(clips), summary.written, summary.skipped, summary.failed) == (20, 40, 0, 0)
    for clip in clips:
        name = stage.manifest.classes[clip.label]
        assert clip.audio.path == f"{SOUND}/{name}/{clip.key}.wav"
        assert clip.visual.path == f"{SIGHT}/{name}/{clip.key}.jpg"
        assert clip.key.startswith(f"{clip.group}-{clip.label}-")
        for file in clip.files:
            assert file.sha256 == sha256(tree / file.path)
            assert file.size == (tree / file.path).stat().st_size


def test_every_file_that_is_no_clips_is_named_with_its_reason(tree: Path, find: Find) -> None:
    def put(path: str) -> str:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(b"something")
        return path

    (tree / SOUND / "siren" / "1800-8-0-0.wav").unlink()
    expected = {
        f"{SIGHT}/siren/1800-8-0-0.jpg": "has no sound",
        put(f"{SOUND}/siren/7-8-0-0.wav"): "has no image",
        put(f"{SOUND}/siren/7-3-0-0.wav"): "its name has another class",
        put(f"{SOUND}/siren/7-8-0-1.mp3"): "is not a .wav file",
        put(f"{SOUND}/siren/copy of 7-8-0-0.wav"): "has a name of another form",
        put(f"{SOUND}/7-8-0-0.wav"): "is not in the folder of a class",
        put(f"{SIGHT}/sirens/7-8-0-0.jpg"): "is not in the folder of a class",
        put(f"{SIGHT}/siren/deeper/7-8-0-0.jpg"): "is not in the folder of a class",
    }
    hidden = [put(f"{SIGHT}/.DS_Store"), put(f"{SIGHT}/siren/.DS_Store")]
    stage, summary = find(tree)
    found = {failure.path: failure.reason for failure in summary.failures}
    assert found.keys() == expected.keys()
    assert all(reason in found[path] for path, reason in expected.items())
    assert (stage.folder / IGNORED).read_text().splitlines() == hidden
    files = sum(path.is_file() for path in tree.rglob("*"))
    assert (summary.written, summary.skipped, summary.inputs) == (38, 2, files)


def test_a_file_that_cannot_be_read_takes_its_clip_along_and_no_other(
    tree: Path, find: Find
) -> None:
    broken = tree / SOUND / "siren" / "1800-8-0-0.wav"
    broken.unlink()
    broken.symlink_to(tree / "gone.wav")
    stage, summary = find(tree)
    reasons = {failure.path: failure.reason for failure in summary.failures}
    assert "cannot be read" in reasons[f"{SOUND}/siren/1800-8-0-0.wav"]
    assert "half a clip" in reasons[f"{SIGHT}/siren/1800-8-0-0.jpg"]
    assert len(stage.with_discovered_clips().clips) == 19


def test_what_was_found_once_needs_no_source_and_is_not_read_again(tree: Path, find: Find) -> None:
    (tree / SOUND / ".DS_Store").touch()
    (tree / SOUND / "siren" / "7-8-0-0.wav").touch()
    _, first = find(tree)
    _, same = find(tree)
    shutil.rmtree(tree)
    stage, without = find(None)
    assert (same.units_done_now, without.units_done_now) == (0, 0)
    assert without.failures == same.failures == first.failures
    assert len(stage.with_discovered_clips().clips) == 20


def test_a_table_grows_by_new_files_and_keeps_what_it_says_of_others(
    tree: Path, find: Find
) -> None:
    orphan = tree / SOUND / "siren" / "7-8-0-0.wav"
    shutil.copyfile(tree / SOUND / "siren" / "1800-8-0-0.wav", orphan)
    stage, _ = find(tree)
    before = {clip.key: clip for clip in stage.with_discovered_clips().clips}
    partner = tree / SIGHT / "siren" / "7-8-0-0.jpg"
    shutil.copyfile(tree / SIGHT / "siren" / "1800-8-0-0.jpg", partner)
    (tree / SOUND / "siren" / "1800-8-0-0.wav").write_bytes(b"changed")
    (tree / SOUND / "siren" / "1801-8-0-0.wav").unlink()
    stage, summary = find(tree)
    after = {clip.key: clip for clip in stage.with_discovered_clips().clips}
    assert after.keys() - before.keys() == {"7-8-0-0"}
    assert all(after[key] == clip for key, clip in before.items())
    assert (summary.units_done_now, summary.failed) == (1, 0)
    assert find(tree)[1].units_done_now == 0


def test_a_file_that_changed_since_it_was_found_is_a_failure_until_it_is_mended(
    tree: Path, find: Find, tmp_path: Path
) -> None:
    stage, _ = find(tree)
    path = f"{SOUND}/siren/1800-8-0-0.wav"
    found = (tree / path).read_bytes()
    (tree / path).write_bytes(found[:-2] + b"xx")
    manifest = stage.with_discovered_clips()
    fetch = Fetch(tmp_path / "raw", stage.state, manifest, manifest.clips, tree)
    with ThreadPoolExecutor(1) as pool:
        changed = run_stage(fetch, executor=lambda: pool, progress=NoProgress())
        (tree / path).write_bytes(found)
        mended = run_stage(fetch, executor=lambda: pool, progress=NoProgress(), retry_failed=True)
    (failure,) = changed.failures
    assert (failure.key, failure.path) == ("1800-8-0-0", path)
    assert "does not match the SHA-256" in failure.reason
    assert (mended.failed, mended.units_done_now, mended.written) == (0, 1, 40)


def test_a_table_that_was_tampered_with_is_not_believed(tree: Path, find: Find) -> None:
    stage, _ = find(tree)
    table = stage.folder / "clips.csv"
    written = table.read_text()
    table.write_text(written.replace("siren", "sirens"))
    assert stage.with_discovered_clips().clips == ()
    assert plan(stage).todo
    find(tree)
    assert table.read_text() == written


def test_the_folders_may_lie_in_another_folder(tree: Path) -> None:
    layout = load("urbansound8k-av").layout
    assert layout is not None
    assert find_layout_folder(layout, tree) == find_layout_folder(layout, tree.parent) == tree
    with pytest.raises(UserError, match="Dataset_v3_sound and Dataset_v3_vision"):
        find_layout_folder(layout, tree / SOUND)
