"""Zips of clips from a server or a folder to shards: RAVDESS, made up, and a person's own zips."""

import io
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import yaml
import zarr

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from avsnn.pipeline.prepare.clip_members import file_of
from tests.conftest import ALONE, Command, hashes
from tests.fake_ravdess import ACTORS, published_zips, write_manifest, zip_name
from tests.pipeline.transfer.server import Server, cut

PREPARE = ("prepare", "ravdess", "--limit", "24", *ALONE)
ELSEWHERE = "https://localhost:1/"


@pytest.fixture(scope="module")
def zips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return published_zips(tmp_path_factory.mktemp("videos"))


@pytest.fixture(autouse=True)
def own_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(USER_FOLDER_VARIABLE, str(tmp_path))


@pytest.fixture
def source(zips: dict[str, bytes], tmp_path: Path) -> Path:
    """A folder with the zips, as a person downloads them with a browser."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name, content in zips.items():
        (folder / name).write_bytes(content)
    return folder


def test_a_limit_fetches_one_zip_of_each_part_and_a_cut_download_goes_on(
    zips: dict[str, bytes], server: Server, avsnn: Command, tmp_path: Path
) -> None:
    for name, content in zips.items():
        server.add_file(name, content)
    name = zip_name(ACTORS["val"])
    server.plan_answers(f"/files/{name}", cut(after=len(zips[name]) // 2))
    write_manifest(tmp_path, zips, server.url())
    prepared = avsnn(*PREPARE)
    assert prepared.returncode == 0, prepared.stderr
    assert "24 clips are ready" in prepared.stdout
    asked = {request.path for request in server.received}
    assert asked == {f"/files/{name}" for name in zips}
    cut_off, rest = server.requests(f"/files/{name}")
    assert rest.headers["Range"] == f"bytes={cut_off.sent}-"

    folder = tmp_path / "data" / "ravdess"
    assert {path.name for path in (folder / "raw").iterdir()} == set(zips)
    assert not [*folder.rglob("*.mp4")]
    found = json.loads((folder / "prepared.json").read_text())
    group = zarr.open_group(folder / found["frames"], mode="r")
    # Modality 02 has no sound, and is no clip.
    assert {(key[:5], int(key[-2:])) for key in group["key"][:]} == {
        ("01-01", actor) for actor in ACTORS.values()
    }
    count = len(server.received)
    assert "nothing to do" in avsnn(*PREPARE).stdout
    assert len(server.received) == count
    assert "all as they were written" in avsnn("verify", "ravdess").stdout


def test_shards_are_the_same_from_a_server_and_from_links_to_a_folder(
    zips: dict[str, bytes], server: Server, source: Path, avsnn: Command, tmp_path: Path
) -> None:
    for name, content in zips.items():
        server.add_file(name, content)
    write_manifest(tmp_path, zips, server.url())
    words = ("prepare", "ravdess", "--limit", "6", *ALONE)
    assert avsnn(*words).returncode == 0
    linked = avsnn(*words, "--source", source, "--link", "--root", "linked")
    assert linked.returncode == 0, linked.stderr
    here, there = (tmp_path / root / "ravdess" / "shards" for root in ("data", "linked"))
    assert hashes(here) == hashes(there) != {}


def test_a_zip_with_another_byte_than_published_is_told_and_downloaded_again(
    zips: dict[str, bytes], server: Server, avsnn: Command, tmp_path: Path
) -> None:
    for name, content in zips.items():
        server.add_file(name, content)
    name = zip_name(ACTORS["test"])
    server.add_file(name, zips[name][:-1] + b"?")
    write_manifest(tmp_path, zips, server.url())
    done = avsnn(*PREPARE)
    assert done.returncode == 1
    assert f"{name} cannot be downloaded" in done.stderr
    assert "does not match the MD5 of the manifest" in done.stderr
    server.add_file(name, zips[name], etag='"2"')
    again = avsnn(*PREPARE, "--retry-failed")
    assert again.returncode == 0, again.stderr
    assert "24 clips are ready" in again.stdout


def test_a_cut_zip_in_a_folder_is_told(
    zips: dict[str, bytes], source: Path, avsnn: Command, tmp_path: Path
) -> None:
    write_manifest(tmp_path, zips, ELSEWHERE)
    name = zip_name(ACTORS["train"])
    (source / name).write_bytes(zips[name][:-1000])
    done = avsnn(*PREPARE, "--source", source)
    assert done.returncode == 1
    size = len(zips[name])
    assert f"{name} has {size - 1000} bytes where the manifest says {size}" in done.stderr


def test_a_damaged_clip_of_a_zip_without_checksums_fails_alone(
    zips: dict[str, bytes], source: Path, avsnn: Command, tmp_path: Path
) -> None:
    write_manifest(tmp_path, zips, ELSEWHERE, checksums=False)
    name = zip_name(ACTORS["train"])
    done = avsnn(*PREPARE, "--source", source)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "data" / "ravdess" / "prepared.json").read_text())
    group = zarr.open_group(tmp_path / "data" / "ravdess" / found["frames"], mode="r")
    key = min(key for key in group["key"][:] if key.endswith("01"))
    content = bytearray(zips[name])
    with zipfile.ZipFile(io.BytesIO(zips[name])) as archive:
        info = archive.getinfo(f"Actor_01/{key}.mp4")
    for place in range(200, 300):
        content[info.header_offset + 30 + len(info.filename) + place] ^= 255
    (source / name).write_bytes(content)
    done = avsnn(*PREPARE, "--source", source, "--max-failures", "0.1")
    assert done.returncode == 0, done.stderr
    assert "23 clips are ready" in done.stdout
    (line,) = (tmp_path / "data" / "ravdess" / "failures.jsonl").read_text().splitlines()
    failure = json.loads(line)
    assert failure["key"] == key
    assert f"{name}/Actor_01/{key}.mp4 cannot be read from {name}" in failure["reason"]
    # Nothing that was unpacked is left.
    assert not [*tmp_path.rglob("*.mp4")]


def test_a_clip_that_its_zip_lacks_is_told(
    zips: dict[str, bytes], source: Path, avsnn: Command, tmp_path: Path
) -> None:
    write_manifest(tmp_path, zips, ELSEWHERE, checksums=False)
    name = zip_name(ACTORS["val"])
    with zipfile.ZipFile(source / name, "w") as archive:
        archive.writestr("other.mp4", b"")
    done = avsnn(*PREPARE, "--source", source)
    assert done.returncode == 1
    assert f"is not in {name}" in done.stderr


def test_pictures_and_sounds_of_a_person_lie_in_two_zips(avsnn: Command, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["key,label,audio_path,visual_path"]
    (tmp_path / "mine").mkdir()
    with (
        zipfile.ZipFile(tmp_path / "mine" / "sounds.zip", "w") as sounds,
        zipfile.ZipFile(tmp_path / "mine" / "pictures.zip", "w") as pictures,
    ):
        for number in range(20):
            sound = io.BytesIO()
            soundfile.write(sound, rng.normal(0, 0.1, 8000), 8000, format="WAV")
            sounds.writestr(f"{number}.wav", sound.getvalue())
            picture = rng.integers(0, 255, (32, 32, 3), np.uint8)
            pictures.writestr(f"a/{number}.png", cv2.imencode(".png", picture)[1].tobytes())
            paths = f"sounds.zip/{number}.wav,pictures.zip/a/{number}.png"
            rows.append(f"k{number},{number % 2},{paths}")
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    facts = {
        "name": "mine",
        "title": "Mine",
        "description": "Mine.",
        "licence": "private",
        "visual": "image",
        "group": "none",
        "classes": ["cat", "dog"],
        "table": "mine.csv",
        "folder": "mine",
        "archives": [{"path": "sounds.zip"}, {"path": "pictures.zip"}],
        "default_split": "random",
        "splits": {"random": {"test_share": 0.2, "val_share": 0.2}},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(facts))
    done = avsnn("prepare", "mine", *ALONE)
    assert done.returncode == 0, done.stderr
    assert "20 clips are ready" in done.stdout
    assert "nothing to do" in avsnn("prepare", "mine", *ALONE).stdout
    # A zip that a person corrects is noticed.
    with zipfile.ZipFile(tmp_path / "mine" / "sounds.zip", "w") as sounds:
        for number in range(1, 20):
            sound = io.BytesIO()
            soundfile.write(sound, rng.normal(0, 0.1, 4000), 8000, format="WAV")
            sounds.writestr(f"{number}.wav", sound.getvalue())
    again = avsnn("prepare", "mine", *ALONE)
    assert again.returncode == 0, again.stderr
    assert "19 clips are ready" in again.stdout
    failures = (tmp_path / "data" / "mine" / "failures.jsonl").read_text()
    assert "sounds.zip/0.wav is not in sounds.zip" in failures


def test_a_folder_may_be_called_like_an_archive(tmp_path: Path) -> None:
    (tmp_path / "raw" / "a.zip").mkdir(parents=True)
    assert file_of(tmp_path / "raw", "a.zip/b.mp4", tmp_path) == tmp_path / "raw/a.zip/b.mp4"
