"""Damaged media: recorded by name and reason, and the rest goes on."""

import json
import shutil
from pathlib import Path

import pytest

from avsnn.datasets_manifest import load
from avsnn.pipeline.index import select
from tests.conftest import ALONE, Command

# Four of their 400 files may fail: 1 % is accepted without a word.
CLIPS = 200


@pytest.fixture
def source(shared_data: Path, tmp_path: Path) -> Path:
    """The files of so many real clips."""
    folder = tmp_path / "source"
    for clip in select(load("av-digits"), CLIPS):
        for file in clip.files:
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(shared_data / "av-digits" / file.path, folder / file.path)
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    text = (folder / "data" / "av-digits" / "failures.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def damage(source: Path) -> dict[str, tuple[str, str]]:
    """Breaks four files; returns their clips with the file and the reason to be recorded."""
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


def test_damaged_files_are_recorded_and_taken_in_by_retry_failed_when_they_are_mended(
    avsnn: Command, source: Path, shared_data: Path, tmp_path: Path
) -> None:
    expected = damage(source)
    words = ["prepare", "av-digits", "--source", source, "--limit", str(CLIPS), *ALONE]
    done = avsnn(*words)
    assert done.returncode == 0, done.stderr
    assert f"{CLIPS - 4} clips are ready" in done.stdout
    found = rows(tmp_path)
    assert {row["key"] for row in found} == set(expected)
    for row in found:
        path, reason = expected[row["key"]]
        assert (row["stage"], row["path"]) == ("fetch", path)
        assert reason in row["reason"]
    assert "nothing to do" in avsnn(*words).stdout
    for path, _ in expected.values():
        shutil.copyfile(shared_data / "av-digits" / path, source / path)
    mended = avsnn(*words, "--retry-failed")
    assert f"{CLIPS} clips are ready" in mended.stdout
    assert rows(tmp_path) == []


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


def test_clips_that_no_decoder_can_use_are_failures_of_extract(
    avsnn: Command, tmp_path: Path
) -> None:
    """The demo has no published checksums, so that its files reach the decoders as they are."""
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


def test_a_known_bad_clip_that_fails_says_so(avsnn: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = avsnn("prepare", "crema-d", "--source", "empty", "--limit", "200")
    assert done.returncode == 1
    text = (tmp_path / "data" / "crema-d" / "failures.jsonl").read_text()
    told = {row["key"] for row in map(json.loads, text.splitlines()) if "known" in row["reason"]}
    assert told == {"1064_IEO_DIS_MD"}
    assert text.count("(known to be bad: the video lasts a minute and shows all emotions)") == 2
