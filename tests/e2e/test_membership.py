"""A changed table costs the units that hold the changed clips, and nothing else is made again."""

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from upath import UPath

from avsnn.pipeline.engine.lock import hold_for_reading
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.formats.npz import npz_bytes
from avsnn.pipeline.formats.prepare_settings import ExtractSettings, PrepareSettings
from avsnn.pipeline.formats.shard_index import read_index_arrays
from avsnn.pipeline.prepare.build_stages import build_as_requested, build_stages
from avsnn.pipeline.prepare.prepare import prepare as prepare_in_this_process
from avsnn.pipeline.prepare.request import PrepareRequest
from avsnn.pipeline.prepare.verify import verify
from tests.conftest import ALONE, Command, flip_a_bit
from tests.own_dataset import Edit, OwnDataset, current_files, regroup, relabel, repart
from tests.warm import Warm

SHARDS_OF_EIGHT = ["--set", "extract.clips_per_shard=8"]


def prepare(avsnn: Command, *words: str) -> str:
    done = avsnn("prepare", "own", *SHARDS_OF_EIGHT, *ALONE, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def inodes(root: Path, *kinds: str) -> dict[str, int]:
    """Return the inode of every tar and every chunk that ``prepared.json`` names."""
    prepared = json.loads((root / "prepared.json").read_text())
    return {
        f"{kind}/{path.relative_to(root / prepared[kind])}": path.stat().st_ino
        for kind in kinds
        for path in (root / prepared[kind]).rglob("*")
        if path.suffix == ".tar" or path.parts[-2] == "0"
    }


def changed(before: dict[str, int], after: dict[str, int]) -> set[str]:
    return {name for name, inode in after.items() if before.get(name) != inode}


def make_decoding_impossible(root: Path) -> None:
    """Empty every raw file, but keep its time and size, so that only decoding notices."""
    for path in (root / "raw").rglob("*.*"):
        stat = path.stat()
        path.write_bytes(bytes(stat.st_size))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(("edit", "shards"), [(relabel, 1), (regroup, 1), (repart, 2)])
def test_labels_groups_and_parts_alone_decode_nothing(
    avsnn: Command, own: OwnDataset, tmp_path: Path, edit: Edit, shards: int
) -> None:
    prepare(avsnn)
    root = tmp_path / "data" / "own"
    tars, rows = inodes(root, "shards"), inodes(root, "frames", "audio")
    make_decoding_impossible(root)
    edit(own)
    own.write()
    assert "30 clips are ready" in prepare(avsnn)
    assert len(changed(tars, inodes(root, "shards"))) == shards
    assert not any("/c/0/0/0/0" in name for name in changed(rows, inodes(root, "frames", "audio")))


def test_appended_clips_alone_are_decoded_and_other_shards_stay_the_same_files(
    avsnn: Command, own: OwnDataset, tmp_path: Path
) -> None:
    prepare(avsnn)
    root = tmp_path / "data" / "own"
    before = inodes(root, "shards")
    make_decoding_impossible(root)
    own.rows += own.reserve[:1]
    own.write()
    assert "31 clips are ready" in prepare(avsnn)
    after = inodes(root, "shards")
    assert len(changed(before, after)) <= 2
    assert len(after) - len(changed(before, after)) >= 3
    make_decoding_impossible(root)
    own.rows.pop(3)
    own.write()
    assert "30 clips are ready" in prepare(avsnn)
    assert len(changed(after, inodes(root, "shards"))) == 1


def generations(root: Path) -> set[str]:
    return {path.name for kind in ("index", "shards", "cache") for path in (root / kind).iterdir()}


def test_a_whole_generation_replaces_the_earlier_ones_but_not_other_settings_or_limits(
    avsnn: Command, warm: Warm, own: OwnDataset, tmp_path: Path
) -> None:
    root = tmp_path / "data" / "own"
    prepare(avsnn, "--limit", "24")
    prepare(avsnn, "--set", "audio.size=64")
    others = generations(root)
    prepare(avsnn)
    (audio,) = generations(root) - others
    assert audio.startswith("audio-")
    relabel(own)
    own.write()
    process = warm.start(["prepare", "own", *SHARDS_OF_EIGHT, *ALONE], tmp_path)
    for line in process.stderr:
        if line.startswith("extract: 1 of"):
            os.kill(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    assert generations(root) > others | {audio}
    repart(own)
    own.write()
    prepare(avsnn)
    left = generations(root)
    prepared = json.loads((root / "prepared.json").read_text())
    current = {Path(prepared[kind]).name for kind in ("index", "shards", "frames", "audio")}
    assert current < left
    # What is left besides: the folders of --limit 24, and the audio cache of the other size.
    assert {name for name in left - current if "-24-" not in name} == {
        name for name in others if name.startswith("audio-") and "-all-" in name
    }


def test_a_generation_that_a_training_reads_is_removed_by_the_next_prepare(
    avsnn: Command, own: OwnDataset, tmp_path: Path
) -> None:
    root = tmp_path / "data" / "own"
    prepare(avsnn)
    first = generations(root)
    prepared = json.loads((root / "prepared.json").read_text())
    with hold_for_reading(root / prepared["index"] / "clips.jsonl") or pytest.fail("no lock"):
        relabel(own)
        own.write()
        prepare(avsnn)
        assert first < generations(root)
    regroup(own)
    own.write()
    prepare(avsnn)
    assert len(generations(root)) == 4


def test_a_corrected_file_in_the_source_folder_is_taken(
    avsnn: Command, own: OwnDataset, tmp_path: Path
) -> None:
    prepare(avsnn)
    root, source = tmp_path / "data" / "own", tmp_path / "source"
    shutil.copytree(root / "raw", source)
    words = ["--source", str(source)]
    prepare(avsnn, *words)
    assert "nothing to do" in prepare(avsnn, *words)
    sounds = [source / row["audio_path"] for row in own.rows]
    shutil.copyfile(sounds[1], sounds[0])
    prepare(avsnn, *words)
    assert (root / "raw" / own.rows[0]["audio_path"]).read_bytes() == sounds[1].read_bytes()
    prepare(avsnn, "--root", "fresh", *words)
    assert current_files(root) == current_files(tmp_path / "fresh" / "own")
    assert "nothing to do" in prepare(avsnn, *words)
    assert "nothing to do" in prepare(avsnn)


def test_the_plan_says_how_many_clips_a_corrected_table_decodes(
    avsnn: Command, own: OwnDataset
) -> None:
    prepare(avsnn)
    relabel(own)
    own.write()
    plan = " ".join(prepare(avsnn, "--dry-run").split())
    assert "0 clips to decode" in plan
    assert " 0 B of disk space needed" not in plan


def test_in_a_store_too_only_the_changed_units_are_made_and_earlier_folders_go(
    own: OwnDataset, tmp_path: Path
) -> None:
    settings = PrepareSettings(extract=ExtractSettings(clips_per_shard=8))
    store = f"memory://{tmp_path}"
    request = PrepareRequest(settings=settings, store=store)
    done_now: dict[str, int] = {}
    for change in (lambda _: None, relabel):
        change(own)
        own.write()
        stages = build_stages("own", request, root=tmp_path / "data")
        prepare_in_this_process(
            stages,
            workers=0,
            progress=NoProgress(),
            on_stage=lambda summary: done_now.update({summary.stage: summary.units_done_now}),
        )
    assert done_now == {"fetch": 0, "index": 1, "extract": 1, "frames": 1, "audio": 1}
    assert len(list(UPath(f"{store}/own").glob("*/*"))) == 3
    stages = build_as_requested("own", root=tmp_path / "data")
    assert verify(stages, progress=NoProgress()).damages == []


def test_a_file_that_cannot_be_linked_is_copied_only_if_it_is_as_it_was_written(
    own: OwnDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without hard links, a copy of a damaged file must not get a record of its own."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    request = PrepareRequest(settings=PrepareSettings(extract=ExtractSettings(clips_per_shard=8)))
    for damage in (lambda _: None, flip_a_bit_of_a_tar):
        stages = build_stages("own", request, root=tmp_path / "data")
        prepare_in_this_process(stages, workers=0, progress=NoProgress())
        stages = build_as_requested("own", root=tmp_path / "data")
        damage(stages.extract.folder)
        relabel(own)
        own.write()
    stages = build_stages("own", request, root=tmp_path / "data")
    prepare_in_this_process(stages, workers=0, progress=NoProgress())
    same_files = request.model_copy(update={"source": tmp_path / "data" / "own" / "raw"})
    fresh = build_stages("own", same_files, root=tmp_path / "fresh")
    prepare_in_this_process(fresh, workers=0, progress=NoProgress())
    assert current_files(tmp_path / "data" / "own") == current_files(tmp_path / "fresh" / "own")


def flip_a_bit_of_a_tar(shards: Path) -> None:
    flip_a_bit(max(shards.glob("*.tar")))


def test_a_damaged_index_of_an_earlier_shard_is_made_again_and_not_taken_over(
    avsnn: Command, own: OwnDataset, tmp_path: Path
) -> None:
    prepare(avsnn)
    root = tmp_path / "data" / "own"
    for index in root.glob("shards/*/*.npz"):
        stat, arrays = index.stat(), read_index_arrays(index.read_bytes())
        clips = arrays.clips.copy()
        clips["height"] = 92
        index.write_bytes(npz_bytes(arrays._replace(clips=clips)._asdict()))
        assert index.stat().st_size == stat.st_size
        os.utime(index, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    relabel(own)
    own.write()
    prepare(avsnn)
    prepare(avsnn, "--root", "fresh", "--source", str(root / "raw"))
    assert current_files(root) == current_files(tmp_path / "fresh" / "own")


def test_a_corrected_kind_of_the_visual_files_reaches_the_shards(
    avsnn: Command, own: OwnDataset
) -> None:
    own.facts["visual"] = "image"
    own.write()
    failed = avsnn("prepare", "own", *ALONE)
    assert failed.returncode == 1
    own.facts["visual"] = "video"
    own.write()
    assert "30 clips are ready" in prepare(avsnn)
