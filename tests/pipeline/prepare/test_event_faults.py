"""Damaged, corrected and strange files of event data; the data sets are those of event_pairs."""

import gzip
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.prepare.build_stages import build_stages
from avsnn.pipeline.prepare.estimate import estimate
from avsnn.pipeline.prepare.request import PrepareRequest
from tests.conftest import ALONE, Command, flip_a_bit, hashes
from tests.event_pairs import published_files, write_manifest

PREPARE = ("prepare", "nmnist-shd", "--set", "events.steps=2", *ALONE)
SOURCES = [{"prefix": "", "url": "http://localhost:1/", "insecure": True}]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return published_files()


@pytest.fixture
def source(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source folder with the published files; the YAML is the user's."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_manifest(tmp_path, files, SOURCES)
    monkeypatch.setenv(USER_FOLDER_VARIABLE, str(tmp_path))
    return folder


def change_facts(tmp_path: Path, place: str, value: Any) -> None:
    """Change a fact in the YAML; None removes the fact."""
    path = tmp_path / "nmnist-shd.yaml"
    facts = yaml.safe_load(path.read_text())
    *folders, last = (int(name) if name.isdigit() else name for name in place.split("."))
    inside = facts
    for name in folders:
        inside = inside[name]
    inside[last] = value
    if value is None:
        del inside[last]
    path.write_text(yaml.safe_dump(facts))


def test_a_damaged_table_of_clips_is_made_again(
    source: Path, avsnn: Command, tmp_path: Path
) -> None:
    words = (*PREPARE, "--source", source, "--limit", "40")
    assert avsnn(*words).returncode == 0
    folder = tmp_path / "data" / "nmnist-shd"
    before = hashes(folder)
    flip_a_bit(folder / "table" / "clips.csv")
    checked = avsnn("datasets", "check", "nmnist-shd")
    assert checked.returncode == 2
    assert "clips.csv is damaged; run 'avsnn repair'" in checked.stderr
    verified = avsnn("verify", "nmnist-shd")
    assert "1 thing is not as it was written" in verified.stderr
    again = avsnn(*words, "--retry-failed")
    assert again.returncode == 0, again.stderr
    assert hashes(folder) == before


def test_a_corrected_yaml_is_not_held_up_by_the_table_of_the_wrong_one(
    source: Path, avsnn: Command, tmp_path: Path
) -> None:
    words = (*PREPARE, "--source", source, "--limit", "40")
    right = (tmp_path / "nmnist-shd.yaml").read_text()
    # The number of the recording is no part.
    change_facts(
        tmp_path,
        "pairs.audio.path",
        r"shd_(?:train|test)\.h5/0*(?P<part>\d+)-(?P<group>\d+)-(?P<label>\d+)",
    )
    wrong = avsnn(*words)
    assert wrong.returncode == 1
    failures = (tmp_path / "data" / "nmnist-shd" / "failures.jsonl").read_text()
    assert "is in the part '17', and a part is train or test" in failures
    (tmp_path / "nmnist-shd.yaml").write_text(right)
    mended = avsnn(*words)
    assert mended.returncode == 0, mended.stderr
    change_facts(tmp_path, "classes", ["0", "1"])
    for modality in ("audio", "visual"):
        change_facts(tmp_path, f"pairs.{modality}.labels", {"0": 0, "1": 1})
    fewer = avsnn(*words)
    assert fewer.returncode == 0, fewer.stderr
    assert "20 clips are ready" in fewer.stdout


def test_files_without_a_checksum_that_were_corrected_in_the_source_are_read_again(
    source: Path, avsnn: Command, tmp_path: Path, files: dict[str, bytes]
) -> None:
    # The archive of the training part has no MD5; the other archive is unpacked already.
    change_facts(tmp_path, "pairs.audio.files.0.md5", None)
    unpacked = {name: _unpacked(published_files(seed)) for seed, name in enumerate(("old", "new"))}
    (source / "shd_test.h5.gz").unlink()
    (source / "shd_test.h5").write_bytes(unpacked["old"])
    words = (*PREPARE, "--source", source, "--limit", "40")
    assert avsnn(*words).returncode == 0
    assert "nothing to do" in avsnn(*words).stdout
    table = tmp_path / "data" / "nmnist-shd" / "table" / "clips.csv"
    raw = tmp_path / "data" / "nmnist-shd" / "raw"
    before = table.read_bytes()
    (source / "shd_train.h5.zip").write_bytes(published_files(1)["shd_train.h5.zip"])
    assert avsnn(*words).returncode == 0
    assert (between := table.read_bytes()) != before
    (source / "shd_test.h5").write_bytes(unpacked["new"])
    assert avsnn(*words).returncode == 0
    assert table.read_bytes() != between
    assert (raw / "shd_test.h5").read_bytes() == unpacked["new"]
    assert "nothing to do" in avsnn(*words).stdout


def _unpacked(files: dict[str, bytes]) -> bytes:
    return gzip.decompress(files["shd_test.h5.gz"])


def test_a_failure_of_fetch_is_said_though_a_later_stage_cannot_be_planned(
    source: Path, avsnn: Command, tmp_path: Path
) -> None:
    assert avsnn(*PREPARE, "--source", source, "--limit", "40").returncode == 0
    folder = tmp_path / "data" / "nmnist-shd"
    flip_a_bit(next(folder.glob("shards/*/train-*.npz")))
    flip_a_bit(folder / "raw" / "Train.zip")
    (source / "Train.zip").unlink()
    repaired = avsnn("repair", "nmnist-shd")
    assert repaired.returncode == 1
    assert "Train.zip is missing from the source folder" in repaired.stderr


def test_recordings_of_one_name_in_several_folders_are_clips(
    source: Path, avsnn: Command, tmp_path: Path
) -> None:
    # The pictures of all digits are called 00000.bin, 00001.bin, ...
    change_facts(tmp_path, "pairs.each", "visual")
    prepared = avsnn(*PREPARE, "--source", source)
    assert prepared.returncode == 0, prepared.stderr
    assert "200 clips are ready" in prepared.stdout
    keys = (tmp_path / "data" / "nmnist-shd" / "table" / "clips.csv").read_text()
    assert "\ntest-Test_zip_Test_3_00000,3," in keys


def test_damaged_recordings_are_failures_and_the_rest_is_prepared(
    source: Path, avsnn: Command, tmp_path: Path, files: dict[str, bytes]
) -> None:
    """A wrong CRC, times that fall, and a pixel that fires 300 times in a bin."""
    change_facts(tmp_path, "pairs.visual.files.0.md5", None)
    old = zipfile.ZipFile(io.BytesIO(files["Train.zip"]))
    with zipfile.ZipFile(source / "Train.zip", "w") as archive:
        for name in old.namelist():
            content = old.read(name)
            if name == "Train/1/00000.bin":
                content = content[300:600] + content[:300]
            if name == "Train/2/00000.bin":
                content = bytes([7, 7, 0, 0, 1]) * 300 + bytes([9, 9, 0, 0, 9])
            archive.writestr(name, content)
        place = archive.getinfo("Train/0/00000.bin").header_offset + 100
    flip_a_bit(source / "Train.zip", at=place)
    words = (*PREPARE, "--source", source)
    refused = avsnn(*words, "--max-failures", "0")
    assert refused.returncode == 1
    assert "add --retry-failed, or accept them with --max-failures 0.01" in refused.stderr
    prepared = avsnn(*words, "--max-failures", "0.01")
    assert prepared.returncode == 0, prepared.stderr
    assert "198 clips are ready" in prepared.stdout
    assert "45 of 59,401 events are not counted" in prepared.stdout
    lines = (tmp_path / "data" / "nmnist-shd" / "failures.jsonl").read_text().splitlines()
    reasons = sorted(json.loads(line)["reason"] for line in lines)
    assert "Train/0/00000.bin cannot be read from Train.zip: Bad CRC-32" in reasons[0]
    assert "Train/1/00000.bin has times that fall" in reasons[1]
    for stage in ("frames", "audio"):
        (journal,) = (tmp_path / "data" / "nmnist-shd" / "state").glob(f"*{stage}*.jsonl")
        records = [json.loads(line) for line in journal.read_text().splitlines()]
        total = {
            name: sum(record.get("tallies", {}).get(name, 0) for record in records)
            for name in ("events", "outside", "saturated")
        }
        assert total["events"] == (197 * 300 + 301 if stage == "frames" else 198 * 400)
        assert total["saturated"] == (45 if stage == "frames" else 0)
    (source / "Train.zip").write_bytes(files["Train.zip"])
    mended = avsnn(*words)
    assert "200 clips are ready" in mended.stdout
    os.utime(source / "Train.zip")
    assert "200 clips are ready" in avsnn(*words).stdout


def test_a_file_of_recordings_that_cannot_be_read_is_one_of_four_files_and_not_of_200_recordings(
    source: Path, avsnn: Command, tmp_path: Path
) -> None:
    change_facts(tmp_path, "pairs.audio.files.0.md5", None)
    with zipfile.ZipFile(source / "shd_train.h5.zip", "w") as archive:
        archive.writestr("shd_train.h5", "<html>Moved</html>")
    words = (*PREPARE, "--source", source)
    refused = avsnn(*words)
    assert refused.returncode == 1
    assert "pair: 1 of 4 files failed (first: shd_train.h5 cannot be read as HDF5" in refused.stderr
    assert "--max-failures 0.25" in refused.stderr
    assert avsnn(*words).returncode == 1
    accepted = avsnn(*words, "--max-failures", "0.25")
    assert "40 clips are ready" in accepted.stdout


def test_the_estimate_of_whole_event_frames_knows_the_sensors(
    source: Path, avsnn: Command, tmp_path: Path
) -> None:
    """No prepare is refused because the disk lacks room that only a larger sensor needs."""
    assert avsnn(*PREPARE, "--source", source).returncode == 0
    settings = PrepareSettings.model_validate({"events": {"steps": 2, "crop": None}})
    request = PrepareRequest(settings=settings, source=source)
    stages = build_stages("nmnist-shd", request, root=tmp_path / "data")
    cost = estimate(stages, workers=0)
    assert not cost.disk_is_guessed
    # The other cache is here already.
    assert cost.disk_bytes == 200 * 2 * 2 * 34 * 34
