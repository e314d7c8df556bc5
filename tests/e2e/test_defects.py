"""Damaged media files are recorded with a reason, and all other clips are prepared."""

import json
import shutil
from pathlib import Path

import pytest

from avsnn.datasets_manifest import load
from avsnn.pipeline.prepare.splits import select
from tests.conftest import ALONE, Command

# The clips have 400 files, so four damaged files are 1 %, which prepare accepts by default.
CLIPS = 200


@pytest.fixture
def source(shared_data: Path, tmp_path: Path) -> Path:
    """A source folder with the files of ``CLIPS`` real clips."""
    folder = tmp_path / "source"
    for clip in select(load("av-digits"), CLIPS):
        for file in clip.files:
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(shared_data / "av-digits" / file.path, folder / file.path)
    return folder


def recorded_failures(folder: Path) -> list[dict[str, str]]:
    text = (folder / "data" / "av-digits" / "failures.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def damage(source: Path) -> dict[str, tuple[str, str]]:
    """Damage four files; return by clip key the file and the reason that must be recorded."""
    cut, empty, garbage, missing = select(load("av-digits"), CLIPS)[10:14]
    (source / cut.audio.path).write_bytes((source / cut.audio.path).read_bytes()[:-100])
    (source / empty.audio.path).write_bytes(b"")
    png = source / garbage.visual.path
    png.write_bytes(b"x" * png.stat().st_size)
    (source / missing.visual.path).unlink()
    return {
        cut.key: (cut.audio.path, f"where the manifest says {cut.audio.size}"),
        empty.key: (empty.audio.path, "has 0 bytes"),
        garbage.key: (garbage.visual.path, "does not match the SHA-256"),
        missing.key: (missing.visual.path, "is missing from the source folder"),
    }


def test_damaged_files_are_recorded_and_retry_failed_prepares_the_mended_files(
    avsnn: Command, source: Path, shared_data: Path, tmp_path: Path
) -> None:
    expected = damage(source)
    words = ["prepare", "av-digits", "--source", source, "--limit", str(CLIPS), *ALONE]
    done = avsnn(*words)
    assert done.returncode == 0, done.stderr
    assert f"{CLIPS - 4} clips are ready" in done.stdout
    failures = recorded_failures(tmp_path)
    assert {row["key"] for row in failures} == set(expected)
    for row in failures:
        path, reason = expected[row["key"]]
        assert (row["stage"], row["path"]) == ("fetch", path)
        assert reason in row["reason"]
    assert "nothing to do" in avsnn(*words).stdout
    for path, _ in expected.values():
        shutil.copyfile(shared_data / "av-digits" / path, source / path)
    mended = avsnn(*words, "--retry-failed")
    assert f"{CLIPS} clips are ready" in mended.stdout
    assert recorded_failures(tmp_path) == []


def test_too_many_failures_end_with_exit_code_1_and_the_first_reason(
    avsnn: Command, source: Path
) -> None:
    damage(source)
    done = avsnn("prepare", "av-digits", "--source", source, "--limit", "100", *ALONE)
    assert done.returncode == 1
    assert "inputs failed (first: " in done.stderr
    assert "Traceback" not in done.stderr
    accepted = avsnn(
        "prepare",
        "av-digits",
        "--source",
        source,
        "--limit",
        "100",
        "--max-failures",
        "0.1",
        *ALONE,
    )
    assert accepted.returncode == 0, accepted.stderr


def test_clips_that_no_decoder_can_read_are_failures_of_extract(
    avsnn: Command, tmp_path: Path
) -> None:
    """The demo has no published checksums, so its damaged files reach the decoders."""
    source = tmp_path / "source"
    assert avsnn("prepare", "demo", "--limit", "30", "--root", "first", *ALONE).returncode == 0
    shutil.copytree(tmp_path / "first" / "demo" / "raw", source)
    silent, cut, pointer = select(load("demo"), 30)[:3]
    wav = source / silent.audio.path
    header = wav.read_bytes()[:40]
    wav.write_bytes(header[:4] + (36).to_bytes(4, "little") + header[8:] + bytes(4))
    video = source / cut.visual.path
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    (source / pointer.visual.path).write_bytes(b"\x00" * 999)
    words = ["prepare", "demo", "--limit", "30", "--source", source, *ALONE]
    done = avsnn(*words, "--max-failures", "0.1")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "data" / "demo" / "failures.jsonl").read_text()
    reasons = {row["key"]: row["reason"] for row in map(json.loads, text.splitlines())}
    assert set(reasons) == {silent.key, cut.key, pointer.key}
    assert "holds no audio sample" in reasons[silent.key]
    assert cut.visual.path in reasons[cut.key]
    assert pointer.visual.path in reasons[pointer.key]
    assert "27 clips are ready" in done.stdout


def test_the_failure_of_a_known_bad_clip_says_that_the_clip_is_known(
    avsnn: Command, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done = avsnn("prepare", "crema-d", "--source", "empty", "--limit", "200")
    assert done.returncode == 1
    text = (tmp_path / "data" / "crema-d" / "failures.jsonl").read_text()
    known = {row["key"] for row in map(json.loads, text.splitlines()) if "known" in row["reason"]}
    assert known == {"1064_IEO_DIS_MD"}
    assert text.count("(known to be bad: the video lasts a minute and shows all emotions)") == 2
