"""A data set whose YAML names a folder of videos: linked or copied, and noticed when it changes."""

import csv
import json
import os
import shutil
import tarfile
import unicodedata
from io import BytesIO
from pathlib import Path

import pytest
import soundfile
import yaml

from avsnn.errors import UserError
from avsnn.pipeline.experiments.presets import load_presets
from tests.conftest import ALONE, Command
from tests.own_dataset import current_files
from tests.own_videos import CLASSES, write_class_folders, write_video

FACTS = {
    "name": "mine",
    "title": "Mine",
    "description": "Six clips",
    "licence": "none",
    "visual": "video",
    "group": "none",
    "classes": list(CLASSES),
    "table": "mine.csv",
    "folder": "../clips",
    "default_split": "random",
    "splits": {"random": {"test_share": 0.3, "val_share": 0.3}},
}


class Mine:
    """A folder of videos, and a YAML and a table that tell about the folder.

    Attributes:
        folder: the folder of the videos.
        paths: path of every video below the folder.
        root: the root of the prepared data.
    """

    def __init__(self, tmp_path: Path, clips: Path, avsnn: Command) -> None:
        self.folder, self.root, self._avsnn = tmp_path / "clips", tmp_path / "data", avsnn
        shutil.copytree(clips, self.folder)
        self.paths = sorted(path.relative_to(self.folder) for path in self.folder.rglob("*.mp4"))
        self.datasets = tmp_path / "datasets"
        self.datasets.mkdir()
        self.write()

    def write(self, **changes: object) -> None:
        """Write the YAML with some changes, and the table of the paths."""
        (self.datasets / "mine.yaml").write_text(yaml.safe_dump({**FACTS, **changes}))
        with (self.datasets / "mine.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["key", "label", "audio_path", "visual_path"])
            for path in self.paths:
                # A name that is no key: the key is what stands before the first dot or space.
                rows.writerow([path.stem.split(" ")[0], path.parent.name, path, path])

    def run(self, command: str, *words: str, code: int = 0) -> str:
        """Run a command on the data set; return what the command printed."""
        workers = ALONE if command in ("prepare", "repair") else ()
        done = self._avsnn(
            *(
                *command.split(),
                "mine",
                "--datasets",
                "datasets",
                "--root",
                self.root,
                *workers,
                *words,
            )
        )
        assert done.returncode == code, done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())

    def failures(self) -> list[tuple[str, str]]:
        lines = (self.root / "mine" / "failures.jsonl").read_text().splitlines()
        return [(row["key"], row["reason"]) for row in map(json.loads, lines)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_class_folders(folder, clips=9, seconds=0.5)
    return folder


@pytest.fixture
def mine(tmp_path: Path, clips: Path, avsnn: Command) -> Mine:
    return Mine(tmp_path, clips, avsnn)


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_files_of_a_folder_are_linked_and_stay_as_they_are(mine: Mine) -> None:
    before = state_of(mine.folder)
    assert "9 clips are ready" in mine.run("prepare")
    raw = mine.root / "mine" / "raw"
    assert all((raw / path).readlink() == mine.folder / path for path in mine.paths)
    assert "all as they were written" in mine.run("verify")
    assert "nothing to do" in mine.run("prepare")
    assert state_of(mine.folder) == before


def test_the_sound_of_a_clip_is_the_sound_track_of_its_video(mine: Mine) -> None:
    write_video(mine.folder / mine.paths[0], "bird", seconds=0.5, sound=False)
    mine.run("prepare", "--max-failures", "0.2")
    key = mine.paths[0].stem
    assert mine.failures() == [(key, f"audio {mine.paths[0]} has no sound track")]
    members = {}
    for shard in (mine.root / "mine" / "shards").glob("*/*.tar"):
        with tarfile.open(shard) as tar:
            members |= {name: tar.extractfile(name).read() for name in tar.getnames()}
    sounds = [data for name, data in members.items() if name.endswith(".flac")]
    assert len(sounds) == 8
    samples, rate = soundfile.read(BytesIO(sounds[0]))
    assert (len(samples), rate) == (8000, 16000)


@pytest.mark.parametrize("take", ["link", "copy"])
def test_a_changed_file_is_noticed_and_gives_what_a_fresh_prepare_gives(
    mine: Mine, take: str, tmp_path: Path
) -> None:
    mine.write(take=take)
    mine.run("prepare")
    changed = mine.folder / mine.paths[0]
    shutil.copyfile(mine.folder / mine.paths[1], changed)
    if take == "link":
        assert f"{changed}, which has changed since prepare" in mine.run("verify", code=1)
    else:
        assert "all as they were written" in mine.run("verify")
    assert "has changed" in mine.run("prepare", "--explain")
    mine.run("prepare")
    before = current_files(mine.root / "mine")
    mine.root = tmp_path / "fresh"
    mine.run("prepare")
    assert current_files(mine.root / "mine") == before


def test_a_file_that_goes_is_a_failure_and_a_file_that_comes_back_is_used(mine: Mine) -> None:
    mine.run("prepare")
    gone = mine.folder / mine.paths[0]
    content = gone.read_bytes()
    gone.unlink()
    assert "which is gone" in mine.run("verify", code=1)
    refused = mine.run("prepare", code=1)
    assert f"1 file is missing in {mine.folder}" in refused
    done = mine.run("prepare", "--max-failures", "0.2")
    assert "8 clips are ready" in done
    assert "1 input failed; reasons" in done
    assert mine.failures() == [(gone.stem, "is missing from the source folder")]
    assert "8 clips are ready" in mine.run("prepare")
    gone.write_bytes(content)
    assert "9 clips are ready" in mine.run("prepare")


def test_one_bad_clip_of_ten_stops_nothing(mine: Mine) -> None:
    write_video(mine.folder / "dog" / "tenth.mp4", "dog", seconds=0.5, sound=False)
    mine.paths.append(Path("dog/tenth.mp4"))
    mine.write()
    assert "9 clips are ready" in mine.run("prepare")
    assert mine.failures() == [("tenth", "audio dog/tenth.mp4 has no sound track")]
    # The tenth is a tenth of ten and more than a tenth of nine.
    (mine.folder / mine.paths[0]).unlink()
    mine.root = mine.root.with_name("other")
    assert "--max-failures 0.12" in mine.run("prepare", code=1)


def test_links_become_copies_that_stay_when_the_folder_goes(mine: Mine) -> None:
    mine.run("prepare")
    mine.write(take="copy")
    before = state_of(mine.folder)
    mine.run("prepare")
    assert state_of(mine.folder) == before
    raw = mine.root / "mine" / "raw"
    assert not any((raw / path).is_symlink() for path in mine.paths)
    mine.folder.rename(mine.folder.with_name("elsewhere"))
    assert "all as they were written" in mine.run("verify")
    assert json.loads(mine.run("datasets check", "--json"))["prepared"]
    assert "mine.yaml: folder: " in mine.run("prepare", "--retry-failed", code=2)


def test_links_follow_a_folder_that_moves(mine: Mine) -> None:
    mine.run("prepare")
    moved = mine.folder.with_name("moved")
    mine.folder.rename(moved)
    mine.write(folder=str(moved))
    assert "9 clips are ready" in mine.run("prepare")
    assert (mine.root / "mine" / "raw" / mine.paths[0]).readlink() == moved / mine.paths[0]
    assert "all as they were written" in mine.run("verify")


def test_names_with_accents_spaces_and_brackets_are_found_in_either_spelling(mine: Mine) -> None:
    old = mine.paths.pop(0)
    on_disk = unicodedata.normalize("NFD", "bird/été (1) [a].mp4")
    (mine.folder / old).rename(mine.folder / on_disk)
    mine.paths.append(Path(unicodedata.normalize("NFC", on_disk)))
    mine.write()
    assert "9 clips are ready" in mine.run("prepare")
    assert "all as they were written" in mine.run("verify")


def test_where_everything_failed_nobody_is_told_to_accept_it(mine: Mine) -> None:
    mine.write(folder="..")
    refused = mine.run("prepare", code=1)
    assert "9 of 9 inputs failed" in refused
    assert f"9 files are missing in {mine.folder.parent}" in refused
    assert "mine.csv" in refused
    assert "--max-failures" not in refused
    mine.write()
    for path in mine.paths[1:]:
        write_video(mine.folder / path, path.parent.name, seconds=0.5, sound=False)
    refused = mine.run("prepare", code=1)
    assert "8 of 9 inputs failed, all for one reason" in refused
    assert "has no sound track" in refused
    assert "--max-failures" not in refused
    for path in mine.paths:
        os.truncate(mine.folder / path, 100)
    assert "--max-failures" not in mine.run("prepare", code=1)


def test_the_preset_of_the_yaml_is_laid_over_the_defaults(
    mine: Mine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVSNN_DATASETS", str(mine.datasets))
    assert load_presets("mine", []) == []
    mine.write(preset="small")
    assert load_presets("mine", ["add"]) == load_presets("demo", ["small", "add"])[1:]
    mine.write(preset="smal")
    with pytest.raises(UserError, match=r"did you mean small\?"):
        load_presets("mine", [])


@pytest.mark.parametrize("folder", ["raw", "link to raw", "raw is a link", "part of raw is a link"])
def test_a_file_is_never_replaced_by_a_link_to_itself(mine: Mine, folder: str) -> None:
    raw = mine.root / "mine" / "raw"
    raw.parent.mkdir(parents=True)
    words: tuple[str, ...] = ()
    if folder == "raw is a link":
        raw.symlink_to(mine.folder)
    elif folder == "part of raw is a link":
        raw.mkdir()
        (raw / mine.paths[0].parent.name).symlink_to(mine.folder / mine.paths[0].parent.name)
    else:
        mine.folder.rename(raw)
        mine.folder.symlink_to(raw)
        words = ("--source", str(raw)) if folder == "raw" else ()
    before = state_of(mine.folder.resolve())
    said = mine.run("prepare", *words, code=2 if folder != "part of raw is a link" else 1)
    assert "cannot be source and target" in said or "leads out of" in said
    assert state_of(mine.folder.resolve()) == before


def test_a_file_that_comes_back_in_the_other_spelling_of_unicode_is_used(mine: Mine) -> None:
    path = mine.paths[0].with_name(unicodedata.normalize("NFC", "caf\u00e9.mp4"))
    place = mine.folder / path
    (mine.folder / mine.paths[0]).rename(place)
    mine.paths[0] = path
    mine.write()
    content = place.read_bytes()
    place.unlink()
    assert "8 clips are ready" in mine.run("prepare", "--max-failures", "0.2")
    assert "nothing to do" in mine.run("prepare")
    place.with_name(unicodedata.normalize("NFD", place.name)).write_bytes(content)
    assert "9 clips are ready" in mine.run("prepare")


@pytest.mark.parametrize("damage", ["a link to itself", "a folder is a file"])
def test_a_source_that_the_system_does_not_show_is_a_failure_and_is_noticed_when_it_is_back(
    mine: Mine, damage: str
) -> None:
    mine.run("prepare")
    place = mine.folder / mine.paths[0]
    if damage == "a folder is a file":
        place = place.parent
    kept = place.rename(mine.folder / "kept")
    if damage == "a link to itself":
        place.symlink_to(place.name)
    else:
        place.write_text("")
    mine.run("prepare", "--max-failures", "0.9")
    assert mine.failures()
    assert "nothing to do" in mine.run("prepare")
    place.unlink()
    kept.rename(place)
    assert "9 clips are ready" in mine.run("prepare")
    assert not mine.failures()


def test_a_file_that_many_clips_share_is_told_in_one_short_line(mine: Mine) -> None:
    for path in mine.paths[1:]:
        shutil.copyfile(mine.folder / mine.paths[0], mine.folder / path)
    mine.run("prepare")
    said = mine.run("datasets check")
    assert said.count(" = ") == 2 * 8
    assert said.count("= 1 more") == 2
