"""Finds the clips of a data set that was published without a table, in folders of this machine."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from avsnn.datasets_manifest import load
from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import sha256
from avsnn.pipeline.engine.journal import StageSummary
from avsnn.pipeline.engine.plan import plan
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.engine.run_stage import run_stage
from avsnn.pipeline.prepare.folder_layout import find_layout_folder
from avsnn.pipeline.prepare.stages.discover import IGNORED, Discover
from avsnn.pipeline.prepare.stages.fetch import Fetch
from tests.conftest import write_city_sounds

SOUNDS, IMAGES = "Dataset_v3_sound", "Dataset_v3_vision"

RunDiscover = Callable[..., tuple[Discover, StageSummary]]


@pytest.fixture
def source_folder(tmp_path: Path) -> Path:
    return write_city_sounds(tmp_path / "source", recordings=2, slices=1)


@pytest.fixture
def run_discover(tmp_path: Path) -> RunDiscover:
    """A function that runs the stage on a source folder, always into the same folder."""

    def run(source: Path | None) -> tuple[Discover, StageSummary]:
        folder = tmp_path / "data"
        stage = Discover(folder / "table", folder / "state", load("urbansound8k-av"), source)
        with ThreadPoolExecutor(1) as pool:
            return stage, run_stage(stage, executor=lambda: pool, progress=NoProgress())

    return run


def test_a_clip_is_a_pair_of_files_with_class_recording_size_and_checksum(
    source_folder: Path, run_discover: RunDiscover
) -> None:
    stage, summary = run_discover(source_folder)
    clips = stage.with_clips().clips
    assert (len(clips), summary.written, summary.skipped, summary.failed) == (20, 40, 0, 0)
    for clip in clips:
        name = stage.manifest.classes[clip.label]
        assert clip.audio.path == f"{SOUNDS}/{name}/{clip.key}.wav"
        assert clip.visual.path == f"{IMAGES}/{name}/{clip.key}.jpg"
        assert clip.key.startswith(f"{clip.group}-{clip.label}-")
        for file in clip.files:
            assert file.sha256 == sha256(source_folder / file.path)
            assert file.size == (source_folder / file.path).stat().st_size


def test_every_file_that_belongs_to_no_clip_is_named_with_its_reason(
    source_folder: Path, run_discover: RunDiscover
) -> None:
    def write_file(path: str) -> str:
        (source_folder / path).parent.mkdir(parents=True, exist_ok=True)
        (source_folder / path).write_bytes(b"something")
        return path

    (source_folder / SOUNDS / "siren" / "1800-8-0-0.wav").unlink()
    expected = {
        f"{IMAGES}/siren/1800-8-0-0.jpg": "has no sound",
        write_file(f"{SOUNDS}/siren/7-8-0-0.wav"): "has no image",
        write_file(f"{SOUNDS}/siren/7-3-0-0.wav"): "its name has another class",
        write_file(f"{SOUNDS}/siren/7-8-0-1.mp3"): "is not a .wav file",
        write_file(f"{SOUNDS}/siren/copy of 7-8-0-0.wav"): "has a name of another form",
        write_file(f"{SOUNDS}/7-8-0-0.wav"): "is not in the folder of a class",
        write_file(f"{IMAGES}/sirens/7-8-0-0.jpg"): "is not in the folder of a class",
        write_file(f"{IMAGES}/siren/deeper/7-8-0-0.jpg"): "is not in the folder of a class",
    }
    hidden = [write_file(f"{IMAGES}/.DS_Store"), write_file(f"{IMAGES}/siren/.DS_Store")]
    stage, summary = run_discover(source_folder)
    found = {failure.path: failure.reason for failure in summary.failures}
    assert found.keys() == expected.keys()
    assert all(reason in found[path] for path, reason in expected.items())
    assert (stage.folder / IGNORED).read_text().splitlines() == hidden
    files = sum(path.is_file() for path in source_folder.rglob("*"))
    assert (summary.written, summary.skipped, summary.inputs) == (38, 2, files)


def test_a_file_that_cannot_be_read_removes_its_clip_and_no_other(
    source_folder: Path, run_discover: RunDiscover
) -> None:
    broken = source_folder / SOUNDS / "siren" / "1800-8-0-0.wav"
    broken.unlink()
    broken.symlink_to(source_folder / "gone.wav")
    stage, summary = run_discover(source_folder)
    reasons = {failure.path: failure.reason for failure in summary.failures}
    assert "cannot be read" in reasons[f"{SOUNDS}/siren/1800-8-0-0.wav"]
    assert "half a clip" in reasons[f"{IMAGES}/siren/1800-8-0-0.jpg"]
    assert len(stage.with_clips().clips) == 19


def test_discovered_clips_stay_known_without_the_source_folder(
    source_folder: Path, run_discover: RunDiscover
) -> None:
    (source_folder / SOUNDS / ".DS_Store").touch()
    (source_folder / SOUNDS / "siren" / "7-8-0-0.wav").touch()
    _, first = run_discover(source_folder)
    _, second = run_discover(source_folder)
    shutil.rmtree(source_folder)
    stage, without_source = run_discover(None)
    assert (second.units_done_now, without_source.units_done_now) == (0, 0)
    assert without_source.failures == second.failures == first.failures
    assert len(stage.with_clips().clips) == 20


def test_new_and_corrected_files_change_their_own_rows_alone(
    source_folder: Path, run_discover: RunDiscover
) -> None:
    orphan = source_folder / SOUNDS / "siren" / "7-8-0-0.wav"
    shutil.copyfile(source_folder / SOUNDS / "siren" / "1800-8-0-0.wav", orphan)
    stage, _ = run_discover(source_folder)
    before = {clip.key: clip for clip in stage.with_clips().clips}
    partner = source_folder / IMAGES / "siren" / "7-8-0-0.jpg"
    shutil.copyfile(source_folder / IMAGES / "siren" / "1800-8-0-0.jpg", partner)
    corrected = source_folder / SOUNDS / "siren" / "1800-8-0-0.wav"
    corrected.write_bytes(b"corrected")
    (source_folder / SOUNDS / "siren" / "1801-8-0-0.wav").unlink()
    stage, summary = run_discover(source_folder)
    after = {clip.key: clip for clip in stage.with_clips().clips}
    assert after.keys() - before.keys() == {"7-8-0-0"}
    assert after["1800-8-0-0"].audio.sha256 == sha256(corrected)
    assert all(after[key] == clip for key, clip in before.items() if key != "1800-8-0-0")
    assert (summary.units_done_now, summary.failed) == (1, 0)
    assert run_discover(source_folder)[1].units_done_now == 0


def test_a_file_that_changed_after_discovery_is_a_failure_until_it_is_mended(
    source_folder: Path, run_discover: RunDiscover, tmp_path: Path
) -> None:
    stage, _ = run_discover(source_folder)
    path = f"{SOUNDS}/siren/1800-8-0-0.wav"
    found = (source_folder / path).read_bytes()
    (source_folder / path).write_bytes(found[:-2] + b"xx")
    manifest = stage.with_clips()
    fetch = Fetch(tmp_path / "raw", stage.state, manifest, manifest.clips, source_folder)
    with ThreadPoolExecutor(1) as pool:
        changed = run_stage(fetch, executor=lambda: pool, progress=NoProgress())
        (source_folder / path).write_bytes(found)
        mended = run_stage(fetch, executor=lambda: pool, progress=NoProgress(), retry_failed=True)
    (failure,) = changed.failures
    assert (failure.key, failure.path) == ("1800-8-0-0", path)
    assert "does not match the SHA-256" in failure.reason
    assert (mended.failed, mended.units_done_now, mended.written) == (0, 1, 40)


def test_a_table_that_was_changed_by_hand_is_written_again(
    source_folder: Path, run_discover: RunDiscover
) -> None:
    stage, _ = run_discover(source_folder)
    table = stage.folder / "clips.csv"
    written = table.read_text()
    table.write_text(written.replace("siren", "sirens"))
    assert not stage.with_clips().clips
    assert plan(stage).todo_count
    run_discover(source_folder)
    assert table.read_text() == written


def test_the_folders_may_lie_one_folder_deeper(source_folder: Path) -> None:
    layout = load("urbansound8k-av").layout
    assert layout is not None
    assert (
        find_layout_folder(layout, source_folder)
        == find_layout_folder(layout, source_folder.parent)
        == source_folder
    )
    with pytest.raises(UserError, match="Dataset_v3_sound and Dataset_v3_vision"):
        find_layout_folder(layout, source_folder / SOUNDS)
