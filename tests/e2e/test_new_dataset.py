"""`avsnn datasets new`: folders and tables of a person become prepared clips."""

import gzip
import json
import os
import pty
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from avsnn.datasets_manifest import load
from avsnn.pipeline.formats.clip_index import IndexRow, open_index
from avsnn.pipeline.media.demo_events_synthesis import write_recording, write_sound
from tests.conftest import ALONE, Command
from tests.event_pairs import published_files
from tests.own_clips import clip_names, put, video_bytes


@pytest.fixture(autouse=True)
def _sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the commands of the test a home of their own, with the user folder below."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def prepared(avsnn: Command, folder: Path, name: str) -> dict[str, IndexRow]:
    """Prepare a data set; return the clips that training will read, by the visual path."""
    done = avsnn("prepare", name, *ALONE)
    assert done.returncode == 0, done.stderr
    facts = json.loads((folder / "data" / name / "prepared.json").read_text())
    assert facts["failed"] == 0
    return {row.visual: row for row in open_index(folder / "data" / name / facts["index"]).rows()}


def test_videos_in_class_folders_become_a_data_set(avsnn: Command, tmp_path: Path) -> None:
    names = clip_names("café (é)", "sea & sun", takes=2)
    put(tmp_path / "My clips", *names, "café (é)/._x.mp4", "lonely.wav")
    done = avsnn("datasets", "new", "My clips")
    assert done.returncode == 0, done.stderr
    for words in (
        "16 in 2 classes",
        "48x48 px",
        "8,000 Hz",
        "4 speakers, guessed from the file name: 'anna' in café (é)/anna-1",
        "the guess is --group '^([^-]+)-'",
        "split default: no speaker is in two parts",
        "lonely.wav is a sound without a video or an image of the same name",
        "Data set my-clips is ready",
        "\n  avsnn prepare my-clips\n  avsnn train my-clips --run runs/my-clips\n",
        "  avsnn evaluate runs/my-clips\n",
    ):
        assert words in done.stdout
    rows = prepared(avsnn, tmp_path, "my-clips")
    assert {path: row.label_name for path, row in rows.items()} == {
        name: name.split("/")[0] for name in names
    }
    # The files stay where they are, and every speaker is in one part.
    assert all((tmp_path / "data" / "my-clips" / "raw" / name).is_symlink() for name in names)
    parts = {(row.group, row.part) for row in rows.values()}
    assert len(parts) == 4
    assert {part for _, part in parts} == {"train", "val", "test"}
    checked = json.loads(avsnn("datasets", "check", "my-clips", "--json").stdout)
    assert [part["groups"] for part in checked["shared"]] == [0, 0]


def test_folders_of_images_and_sounds_in_given_parts(avsnn: Command, tmp_path: Path) -> None:
    stems = [f"{part}/{c}/{i}" for part in ("train", "test") for c in ("a", "b") for i in range(4)]
    put(tmp_path / "pics", *(f"images/{stem}.png" for stem in stems))
    put(tmp_path / "pics", *(f"sound/{stem}.wav" for stem in stems))
    done = avsnn("datasets", "new", "pics", "--take", "copy", "--name", "own-pics", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["classes"] == {"a": 8, "b": 8}
    assert found["notes"] == [
        "There is no val part, so 15% of the train part becomes the val part."
    ]
    shutil.move(tmp_path / "pics" / "sound" / "train" / "a" / "0.wav", tmp_path)
    again = avsnn("datasets", "new", "pics", "--name", "own-pics")
    assert "Data set own-pics is updated (1 gone)" in again.stdout
    rows = prepared(avsnn, tmp_path, "own-pics")
    given = {"train": "train", "val": "train", "test": "test"}
    assert {row.visual: (row.audio, given[row.part]) for row in rows.values()} == {
        f"images/{stem}.png": (f"sound/{stem}.wav", stem.split("/")[0]) for stem in stems[1:]
    }


def test_a_table_of_excel_with_words_and_parts(avsnn: Command, tmp_path: Path) -> None:
    put(tmp_path / "in", *(f"all/{i}.mp4" for i in range(6)))
    parts = ("Training", "Training", "Validation", "Validation", "Test", "Test")
    lines = [f"{i}.mp4;{'läuft' if i % 2 else 'ruht'};{part}" for i, part in enumerate(parts)]
    text = "\r\n".join(["Datei;Emotion;Split", *lines])
    (tmp_path / "in" / "labels.csv").write_bytes(text.encode("utf-16"))
    done = avsnn("datasets", "new", "in/labels.csv")
    assert "Columns of labels.csv: file = Datei, class = Emotion, part = Split." in done.stdout
    rows = prepared(avsnn, tmp_path, "in")
    assert sorted((row.visual, row.label_name, row.part) for row in rows.values()) == [
        (f"all/{i}.mp4", "läuft" if i % 2 else "ruht", part)
        for i, part in enumerate(["train", "train", "val", "val", "test", "test"])
    ]


def test_recordings_of_event_sensors_of_the_same_name(avsnn: Command, tmp_path: Path) -> None:
    names = [f"{shape}/{who}-{take}" for shape in SHAPES for who in "abc" for take in (1, 2)]
    for name in names:
        for kind in ("eye", "ear"):
            (tmp_path / "events" / kind / name).parent.mkdir(parents=True, exist_ok=True)
        file = tmp_path / "events" / "eye" / f"{name}.aedat"
        write_recording(file, key=name, shape=name.split("/")[0])
        file = tmp_path / "events" / "ear" / f"{name}.h5"
        write_sound(file, key=name.replace("/", "-"), contour="rising", part="train")
    done = avsnn("datasets", "new", "events", "--group", "^(.)")
    assert done.returncode == 0, done.stderr
    rows = prepared(avsnn, tmp_path, "events")
    assert {row.visual: (row.audio, row.label_name, row.group) for row in rows.values()} == {
        f"eye/{name}.aedat": (
            f"ear/{name}.h5/train/{name.replace('/', '-')}",
            name.split("/")[0],
            name.split("/")[1][0],
        )
        for name in names
    }


SHAPES = ("ring", "cross")


def test_recordings_in_zips_are_paired_with_spoken_digits_class_by_class(
    avsnn: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "digits"
    folder.mkdir()
    for name, content in published_files().items():
        (folder / name).write_bytes(content)
    with zipfile.ZipFile(folder / "shd_train.h5.zip") as archive:
        archive.extractall(folder)
    (folder / "shd_test.h5").write_bytes(gzip.decompress((folder / "shd_test.h5.gz").read_bytes()))
    (folder / "shd_train.h5.zip").unlink()
    done = avsnn("datasets", "new", "digits", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["classes"] == {str(digit): 10 for digit in range(10)}
    assert sum(found["parts"]["test"].values()) == 20
    manifest = load("digits")
    for clip in manifest.clips:
        part = clip.columns["part"]
        assert clip.visual.path == f"{part.title()}.zip"
        assert clip.audio.path == f"shd_{part}.h5"
        assert clip.visual.member.split("/")[1] == manifest.classes[clip.label]
        assert clip.audio.member.split("-")[2] == manifest.classes[clip.label]
        assert clip.group == clip.audio.member.split("-")[1]
    assert len({clip.audio.recording for clip in manifest.clips}) == 100


def test_recordings_of_a_camera_alone_are_no_clips(avsnn: Command, tmp_path: Path) -> None:
    (tmp_path / "seen" / "a").mkdir(parents=True)
    write_recording(tmp_path / "seen" / "a" / "1.aedat", key="1", shape="ring")
    done = avsnn("datasets", "new", "seen")
    assert done.returncode == 2
    assert "none of a cochlea (.h5 or .hdf5 of SHD or N-TIDIGITS)" in done.stderr
    assert "docs/events.md shows the YAML" in done.stderr


def test_a_bad_word_is_one_sentence(avsnn: Command, tmp_path: Path) -> None:
    put(tmp_path / "clips", "cat/1.mp4", "dog/1.mp4")
    for words, sentence in {
        ("nowhere",): "nowhere does not exist; give the folder that holds your clips",
        ("clips", "--group", "("): "--group (: is no regular expression",
        ("clips", "--name", "A b"): "--name A b: a name has small letters, digits and hyphens",
        ("clips", "--json", "--prepare"): "--json and --prepare do not go together",
    }.items():
        done = avsnn("datasets", "new", *words)
        assert done.returncode == 2
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1
    assert not [*(tmp_path / "config").rglob("*.csv")]


def test_datasets_names_the_folder_and_the_next_commands_know_it(
    avsnn: Command, tmp_path: Path
) -> None:
    put(tmp_path / "clips", *clip_names("cat", "dog", speakers=2, takes=1))
    (tmp_path / "clips" / "cat" / "mute.mp4").write_bytes(video_bytes(1, has_sound=False))
    done = avsnn("datasets", "new", "clips", "--datasets", "my sets")
    assert "avsnn prepare clips --datasets 'my sets'\n" in done.stdout
    assert (tmp_path / "my sets" / "clips.yaml").exists()
    assert "cat/mute.mp4 has no sound" in done.stdout
    listed = json.loads(avsnn("datasets", "--datasets", "my sets", "--json").stdout)
    assert [row["clips"] for row in listed if row["name"] == "clips"] == [4]


def test_on_a_terminal_the_guess_of_groups_is_a_question(avsnn_path: str, tmp_path: Path) -> None:
    put(tmp_path / "clips", *clip_names("cat", "dog", takes=2))
    process, terminal = pty.fork()
    if not process:
        os.chdir(tmp_path)
        os.execl(avsnn_path, "avsnn", "datasets", "new", "clips")  # noqa: S606
    shown, answers = b"", [b"(\n", b"^(.)\n"]
    with suppress(OSError):
        while block := os.read(terminal, 4096):
            shown += block
            if block.endswith(b"[Y/n/REGEX] "):
                os.write(terminal, answers.pop(0))
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert b"is no regular expression" in shown
    assert {clip.group for clip in load("clips").clips} == {"a", "b", "c", "d"}
    written = tmp_path / "config" / "avsnn" / "datasets" / "clips.yaml"
    assert "group: speaker  # found by --group '^(.)'\n" in written.read_text()
