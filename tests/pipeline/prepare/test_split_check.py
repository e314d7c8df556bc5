import shutil
from pathlib import Path

import pytest

from avsnn.datasets_manifest import load
from avsnn.pipeline.formats.clip_index import SizedRow, open_index, write_index
from avsnn.pipeline.prepare.split_check import check_split
from tests.conftest import Command


def test_the_published_split_of_crema_d_has_every_actor_in_all_parts_and_128_twins(
    tmp_path: Path,
) -> None:
    found = check_split("crema-d", None, root=tmp_path)
    assert found.split == "published"
    assert found.groups == {"train": 91, "val": 91, "test": 91}
    val, test = found.shared
    assert (val.seen, test.seen) == (("train",), ("train", "val"))
    assert (val.groups, test.groups) == (91, 91)
    assert (val.group_clips, test.group_clips) == (670, 744)
    assert (test.twins, test.identical) == (128, 1)
    assert {placed.part for placed, _ in found.known_bad} == {"train"}
    assert len(found.known_bad) == 4
    identical = {tuple(clip.key for clip in clips): kind for kind, clips in found.identical}
    assert identical == {
        ("1006_TIE_HAP_XX", "1006_TIE_NEU_XX"): "audio",
        ("1013_WSI_DIS_XX", "1013_WSI_SAD_XX"): "audio",
        ("1017_IWW_ANG_XX", "1017_IWW_FEA_XX"): "audio",
    }
    assert (found.prepared, found.unchecked) == (None, 0)


@pytest.mark.parametrize("dataset", ["crema-d", "av-digits"])
def test_the_speaker_split_shares_no_speaker_and_no_file(tmp_path: Path, dataset: str) -> None:
    found = check_split(dataset, "speaker", root=tmp_path)
    for row in found.shared:
        assert (row.groups, row.group_clips, row.identical) == (0, 0, 0)
        assert not row.twins
    assert found.groups is not None
    assert sum(found.groups.values()) == {"crema-d": 91, "av-digits": 6}[dataset]
    assert sum(sum(part.values()) for part in found.clips.values()) in (7442, 3000)


def test_checksums_of_generated_files_are_taken_from_the_prepared_files(
    tmp_path: Path, small_demo: Path
) -> None:
    assert check_split("demo", None, root=tmp_path).unchecked == 1080
    found = check_split("demo", None, root=small_demo)
    assert found.unchecked == 1080 - 2 * 72
    assert found.prepared is not None
    assert sum(found.prepared.values()) == 72
    assert found.disagreeing == 0


def test_clips_prepared_under_another_part_are_counted(tmp_path: Path, small_demo: Path) -> None:
    (lines,) = (small_demo / "demo").glob("index/*/clips.jsonl")
    folder = tmp_path / "demo" / lines.parent.relative_to(small_demo / "demo")
    folder.mkdir(parents=True)
    for name in ("prepared.json", "failures.jsonl"):
        shutil.copyfile(small_demo / "demo" / name, tmp_path / "demo" / name)
    rows = [SizedRow(row, 0) for row in open_index(lines.parent).rows()]
    for row, _ in rows:
        if row.splits == {"published": "val"}:
            row.splits = {"published": "test"}
    write_index(folder, rows, classes=load("demo").classes, splits=["published"])
    assert check_split("demo", None, root=tmp_path).disagreeing == 6


@pytest.mark.parametrize("content", [None, b'{"key": "a', b"\xff\n[]\nnull\n"])
def test_a_missing_or_damaged_list_of_failures_is_no_reason_to_fail(
    avsnn: Command, tmp_path: Path, small_demo: Path, content: bytes | None
) -> None:
    root = Path(shutil.copytree(small_demo, tmp_path / "data"))
    (root / "demo" / "failures.jsonl").unlink()
    if content is not None:
        (root / "demo" / "failures.jsonl").write_bytes(content)
    done = avsnn("datasets", "check", "demo", "--root", root)
    assert done.returncode == 0, done.stderr
    assert "prepared here" in done.stdout
