"""Damages a prepared data set in many ways; verify must find and repair must mend the damage."""

import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from avsnn.pipeline.engine.journal import StageSummary
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.prepare.build_stages import DatasetStages, build_as_requested
from avsnn.pipeline.prepare.repair import repair
from avsnn.pipeline.prepare.verify import Verification, verify
from avsnn.pipeline.transfer.lfs_pointer import LFS_POINTER
from tests.conftest import Command, flip_a_bit, hashes


def cut_at_a_member(path: Path) -> None:
    with tarfile.open(path) as archive:
        middle = archive.getmembers()[6]
    os.truncate(path, middle.offset)


def replace_by_pointer(path: Path) -> None:
    path.write_bytes(LFS_POINTER + b".github.com/spec/v1\noid sha256:00\nsize 1\n")


def change_a_setting(path: Path) -> None:
    request = json.loads(path.read_text())
    request["settings"]["audio"]["hop"] = 256
    path.write_text(json.dumps(request))


def first(pattern: str) -> Callable[[Path], Path]:
    return lambda folder: min(folder.glob(pattern))


SHARD = first("shards/*/train-008192.tar")
CHUNK = first("cache/frames-*.zarr/frames/c/0/0/0/0")
RAW = first("raw/video/*.mp4")

# The damaged file, the damage, the stage that must mend the file, and part of the reason.
FAULTS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object], str, str]] = {
    "bit flipped in a shard": (SHARD, flip_a_bit, "extract", "other bytes"),
    "bit flipped in a shard's index": (
        first("shards/*/train-008192.npz"),
        flip_a_bit,
        "extract",
        "other bytes",
    ),
    "bit flipped in a Zarr chunk": (CHUNK, flip_a_bit, "frames", "other bytes"),
    "bit flipped in a raw file": (RAW, flip_a_bit, "fetch", "other bytes"),
    "bit flipped in the index": (first("index/*/clips.jsonl"), flip_a_bit, "index", "other bytes"),
    "tar cut at a member boundary": (SHARD, cut_at_a_member, "extract", "were written"),
    "missing shard": (SHARD, Path.unlink, "extract", "is missing"),
    "missing chunk": (CHUNK, Path.unlink, "frames", "is missing"),
    "missing raw file": (RAW, Path.unlink, "fetch", "is missing"),
    "pointer in place of a file": (RAW, replace_by_pointer, "fetch", "Git LFS pointer"),
    "settings that no longer match": (
        lambda folder: folder / "state" / "request.json",
        change_a_setting,
        "audio",
        "not done yet",
    ),
    "leftover of a killed run": (
        lambda folder: folder / "state" / "partial" / "tmp1" / "half.tar",
        lambda path: (path.parent.mkdir(parents=True), path.write_bytes(b"half")),
        "",
        "left over",
    ),
    "unknown file in a cache": (
        lambda folder: CHUNK(folder).with_name("1"),
        lambda path: path.write_bytes(b"half"),
        "",
        "not written by avsnn",
    ),
    "changed failures.jsonl": (
        lambda folder: folder / "failures.jsonl",
        lambda path: path.write_text("{}\n"),
        "prepare",
        "not what the stages left",
    ),
}


@pytest.fixture
def root(small_demo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_demo, tmp_path / "data"))


def run_verify(root: Path) -> tuple[DatasetStages, Verification]:
    stages = build_as_requested("demo", root=root)
    return stages, verify(stages, progress=NoProgress())


def run_repair(stages: DatasetStages, verification: Verification) -> list[StageSummary]:
    done: list[StageSummary] = []
    repair(
        stages,
        verification,
        delete_unknown=True,
        workers=0,
        progress=NoProgress(),
        on_stage=done.append,
    )
    return done


def test_verify_finds_nothing_in_an_undamaged_data_set_and_writes_nothing(root: Path) -> None:
    before = hashes(root)
    _, verification = run_verify(root)
    assert verification.damages == []
    assert verification.files > 72 * 2
    assert hashes(root) == before


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_and_repaired_to_the_same_bytes(
    root: Path, small_demo: Path, fault: str
) -> None:
    target, damage, stage, part_of_reason = FAULTS[fault]
    damage(target(root / "demo"))
    stages, verification = run_verify(root)
    assert verification.damages
    assert {found.stage for found in verification.damages} == {stage}
    assert all(part_of_reason in found.reason for found in verification.damages)
    done = run_repair(stages, verification)
    redone = {found.unit for found in verification.damages if found.unit}
    assert sum(summary.units_done_now for summary in done) == len(redone)
    assert run_verify(root)[1].damages == []
    if stage != "audio":
        assert hashes(root / "demo") == hashes(small_demo / "demo")


def test_several_faults_are_repaired_together(root: Path, small_demo: Path) -> None:
    for target, damage in ((RAW, flip_a_bit), (SHARD, Path.unlink), (CHUNK, flip_a_bit)):
        damage(target(root / "demo"))
    stages, verification = run_verify(root)
    assert [damage.stage for damage in verification.damages] == ["fetch", "extract", "frames"]
    assert [s.units_done_now for s in run_repair(stages, verification)] == [1, 0, 1, 1, 0]
    assert hashes(root / "demo") == hashes(small_demo / "demo")


def test_a_file_that_cannot_be_fetched_again_is_a_failure_and_its_clip_is_removed(
    root: Path, tmp_path: Path
) -> None:
    damaged = RAW(root / "demo")
    flip_a_bit(damaged)
    (tmp_path / "empty").mkdir()
    stages = build_as_requested("demo", root=root, source=tmp_path / "empty")
    verification = verify(stages, progress=NoProgress())
    assert [d.path for d in verification.damages] == [str(damaged.relative_to(root / "demo"))]
    done = run_repair(stages, verification)
    assert done[0].failures[0].reason == "is missing from the source folder"
    assert done[-1].written == 71
    assert damaged.stem in (root / "demo" / "failures.jsonl").read_text()


def test_the_commands_verify_and_repair_say_what_is_wrong_in_one_sentence(
    avsnn: Command, root: Path, small_demo: Path
) -> None:
    clean = avsnn("verify", "demo", "--root", root)
    assert (clean.returncode, "all as they were written" in clean.stdout) == (0, True)
    SHARD(root / "demo").unlink()
    found = avsnn("verify", "demo", "--root", root, "--json")
    assert found.returncode == 1
    said = json.loads(found.stdout)
    (damage,) = said["damages"]
    assert (damage["kind"], damage["stage"], damage["unit"]) == (
        *("missing", "extract", "train-008192"),
    )
    assert damage["path"].endswith("train-008192.tar")
    assert "avsnn repair demo" in damage["what_to_do"]
    assert {kind for kind, count in said["kinds"].items() if count} == {"missing"}
    assert said["files"] > 72 * 2
    assert found.stderr.splitlines()[-1].startswith("avsnn: demo: 1 thing is not as it was written")
    mended = avsnn("repair", "demo", "--root", root, "--workers", "0")
    assert mended.returncode == 0, mended.stderr
    assert hashes(root / "demo") == hashes(small_demo / "demo")
    assert avsnn("verify", "av-digits", "--root", root).returncode == 2


def test_repair_keeps_files_that_avsnn_did_not_write_unless_a_person_says_yes(
    avsnn: Command, root: Path, small_demo: Path
) -> None:
    SHARD(root / "demo").unlink()
    notes = SHARD(small_demo / "demo").relative_to(small_demo).with_name("notes.txt")
    (root / notes).write_text("mine")
    (root / "demo" / "state" / "partial").mkdir(exist_ok=True)
    (root / "demo" / "state" / "partial" / "half.tar").write_text("half")
    found = json.loads(avsnn("verify", "demo", "--root", root, "--json").stdout)
    assert [d["kind"] for d in found["damages"]] == ["missing", "unknown", "left-over"]
    assert "move it elsewhere" in found["damages"][1]["what_to_do"]
    assert found["damages"][1]["bytes"] == 4
    words = ("repair", "demo", "--root", root, "--workers", "0")
    careful = avsnn(*words)
    assert careful.returncode == 0, careful.stderr
    assert re.search(r"notes.txt \(4 B\)[^~]* stay; --yes deletes", careful.stdout)
    assert (root / notes).read_text() == "mine"
    (root / notes).unlink()
    assert hashes(root / "demo") == hashes(small_demo / "demo")
    (root / notes).write_text("mine")
    assert avsnn(*words, "--yes").returncode == 0
    assert not (root / notes).exists()


def test_explain_names_the_changed_setting_and_the_units_to_do(avsnn: Command, root: Path) -> None:
    words = ["prepare", "demo", "--limit", "72", "--set", "extract.clips_per_shard=8"]
    settled = avsnn(*words, "--root", root, "--explain")
    assert "nothing to do" in settled.stdout
    changed = avsnn(*words, "--root", root, "--explain", "--set", "audio.hop=256").stdout
    assert "changed since the last prepare: audio.hop was 353, is 256" in changed
    assert "audio: layout, audio-000000.0: not done yet" in changed
    SHARD(root / "demo").unlink()
    damaged = avsnn(*words, "--root", root, "--explain").stdout
    assert "extract: train-008192: train-008192.tar is missing" in damaged
