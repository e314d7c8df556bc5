"""Folders as people have them: numbers that restart in every class, links, names of any bytes."""

import csv
import hashlib
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from tests.conftest import ALONE, Command

MANIFEST = """\
name: mine
title: Mine
description: Sounds and pictures in folders
licence: none
visual: image
group: none
classes: [a, b]
layout:
  audio: sound
  audio_suffix: .wav
  visual: sight
  visual_suffix: .png
  stem: (?P<group>\\d+)
kaggle: nobody/nothing
default_split: published
splits:
  published: {first_train: 0.5}
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Clips 001 to 003 of the classes a and b, and a manifest of their layout."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.yaml").write_text(MANIFEST)
    monkeypatch.setenv("AVSNN_DATASETS", str(tmp_path / "own"))
    folder = tmp_path / "source"
    for name in ("a", "b"):
        for number in (1, 2, 3):
            write_clip(folder, name, f"{number:03d}")
    return folder


def write_clip(folder: Path, name: str, stem: str) -> None:
    rng = np.random.default_rng([ord(name), *stem.encode()])
    for kind in ("sound", "sight"):
        (folder / kind / name).mkdir(parents=True, exist_ok=True)
    samples = rng.uniform(-0.5, 0.5, 4000)
    soundfile.write(folder / "sound" / name / f"{stem}.wav", samples, 8000, subtype="PCM_16")
    pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
    cv2.imwrite(str(folder / "sight" / name / f"{stem}.png"), pixels)


PREPARE = ("prepare", "mine", "--source", "source", "--max-failures", "0.5", *ALONE)


def pairs(folder: Path) -> dict[str, tuple[str, str]]:
    """Return the paths of every clip in the table, by the key of the clip."""
    with (folder / "data" / "mine" / "table" / "clips.csv").open() as table:
        return {
            row["key"]: (row["audio_path"], row["visual_path"]) for row in csv.DictReader(table)
        }


def failures(folder: Path) -> dict[str, str]:
    text = (folder / "data" / "mine" / "failures.jsonl").read_text()
    return {row["path"]: row["reason"] for row in map(json.loads, text.splitlines())}


def pair(name: str, stem: str) -> tuple[str, str]:
    return f"sound/{name}/{stem}.wav", f"sight/{name}/{stem}.png"


def test_numbers_that_restart_in_every_class_pair_within_their_class(
    avsnn: Command, source: Path, tmp_path: Path
) -> None:
    (source / "sound" / "a" / "003.wav").unlink()
    done = avsnn(*PREPARE)
    assert done.returncode == 0, done.stderr
    expected = {f"{name}-{stem}": pair(name, stem) for name in "ab" for stem in ("001", "002")}
    assert pairs(tmp_path) == expected | {"003": pair("b", "003")}
    assert failures(tmp_path) == {"sight/a/003.png": "has no sound"}
    (index,) = tmp_path.glob("data/mine/index/*/clips.jsonl")
    rows = map(json.loads, index.read_text().splitlines())
    assert all(row["audio"].split("/")[1] == row["label_name"] for row in rows)
    assert avsnn("verify", "mine").returncode == 0

    write_clip(source, "a", "003")
    done = avsnn(*PREPARE)
    assert done.returncode == 0, done.stderr
    # A key that the table has already stays.
    assert pairs(tmp_path) == expected | {"003": pair("b", "003"), "a-003": pair("a", "003")}
    assert "nothing to do" in avsnn(*PREPARE).stdout


def test_a_key_that_another_clip_has_is_a_failure(
    avsnn: Command, source: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "own" / "mine.yaml"
    text = manifest.read_text().replace(r"(?P<group>\d+)", r"(?P<group>[\w-]+)")
    manifest.write_text(text.replace("[a, b]", '["a!", "a?"]'))
    for kind in ("sound", "sight"):
        for old, new in (("a", "a!"), ("b", "a?")):
            (source / kind / old).rename(source / kind / new)
    done = avsnn(*PREPARE)
    assert done.returncode == 0, done.stderr
    assert set(pairs(tmp_path)) == {f"a_-{stem}" for stem in ("001", "002", "003")}
    assert set(failures(tmp_path).values()) == {
        "has the name of another clip, sound/a!/001.wav"
    } | {f"has the name of another clip, sound/a!/{stem}.wav" for stem in ("002", "003")}


def test_links_to_a_parent_do_not_loop(avsnn: Command, source: Path, tmp_path: Path) -> None:
    for name in "ab":
        for link in ("all", "every"):
            (source / "sound" / name / link).symlink_to("..")
    (source / "sight" / "0").symlink_to(source / "sight" / "a")
    (source / "sight" / "loop").symlink_to("loop")
    done = avsnn(*PREPARE)
    assert done.returncode == 0, done.stderr
    assert len(pairs(tmp_path)) == 6
    assert failures(tmp_path) == {"sight/loop": "is not in the folder of a class"}


def test_folders_that_are_links_are_followed(avsnn: Command, source: Path, tmp_path: Path) -> None:
    (source / "sound" / "b").rename(tmp_path / "elsewhere")
    (source / "sound" / "b").symlink_to(tmp_path / "elsewhere")
    done = avsnn(*PREPARE)
    assert done.returncode == 0, done.stderr
    assert len(pairs(tmp_path)) == 6


def test_a_name_of_any_bytes_is_a_failure_or_hidden(
    avsnn: Command, source: Path, tmp_path: Path
) -> None:
    folder = os.fsencode(source / "sound" / "a")
    for name in (b"caf\xe9.wav", b"._caf\xe9.wav", b"a\nb.wav", b".a\nb.wav", b"\x1b[31m.wav"):
        (Path(os.fsdecode(folder)) / os.fsdecode(name)).write_bytes(b"x")
    done = avsnn(*PREPARE)
    assert done.returncode == 0, done.stderr
    names = {r"sound/a/caf\udce9.wav", r"sound/a/a\nb.wav", r"sound/a/\x1b[31m.wav"}
    assert failures(tmp_path).keys() == names
    assert "another form" in failures(tmp_path)[r"sound/a/caf\udce9.wav"]
    ignored = (tmp_path / "data" / "mine" / "table" / "ignored.txt").read_text().splitlines()
    assert ignored == [r"sound/a/._caf\udce9.wav", r"sound/a/.a\nb.wav"]
    assert "nothing to do" in avsnn(*PREPARE).stdout
    assert avsnn("verify", "mine").returncode == 0


def test_a_pipe_among_the_files_is_a_failure(avsnn: Command, source: Path, tmp_path: Path) -> None:
    (source / "sound" / "a" / "001.wav").unlink()
    os.mkfifo(source / "sound" / "a" / "001.wav")
    done = avsnn(*PREPARE)
    assert done.returncode == 0, done.stderr
    assert "is no regular file" in failures(tmp_path)["sound/a/001.wav"]


def test_a_damaged_list_of_hidden_files_is_written_again(
    avsnn: Command, source: Path, tmp_path: Path
) -> None:
    (source / "sound" / ".hidden").touch()
    assert avsnn(*PREPARE).returncode == 0
    ignored = tmp_path / "data" / "mine" / "table" / "ignored.txt"
    ignored.write_bytes(b"caf\xe9\nelsewhere/a.wav\n\n/etc/passwd\n")
    done = avsnn(*PREPARE)
    assert done.returncode == 0, done.stderr
    assert ignored.read_text() == "sound/.hidden\n"


def test_folders_without_a_file_are_said_to_have_no_clips(
    avsnn: Command, source: Path, tmp_path: Path
) -> None:
    shutil.rmtree(source)
    for kind in ("sound", "sight"):
        (source / kind / "a").mkdir(parents=True)
    done = avsnn(*PREPARE)
    assert done.returncode == 2
    assert "avsnn: mine has no clips" in done.stderr.splitlines()[-1]
    assert avsnn("datasets").returncode == 0


def test_a_disk_that_fails_for_a_moment_is_no_failure_of_the_clip(
    avsnn: Command, source: Path, tmp_path: Path
) -> None:
    sound = source / "sound" / "a" / "001.wav"
    sound.rename(tmp_path / "001.wav")
    # The first byte of this file gives EIO, as a failing disk does.
    sound.symlink_to("/proc/self/mem")
    done = avsnn(*PREPARE)
    assert done.returncode == 1, done.stderr
    sentence = done.stderr.splitlines()[-1]
    assert "sound/a/001.wav" in sentence
    assert "run the same command again" in sentence
    assert failures(tmp_path) == {}
    sound.unlink()
    (tmp_path / "001.wav").rename(sound)
    assert avsnn(*PREPARE).returncode == 0
    assert len(pairs(tmp_path)) == 6


def test_classes_of_the_yaml_are_shown_against_the_folders(
    avsnn: Command, source: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "own" / "mine.yaml"
    manifest.write_text(manifest.read_text().replace("[a, b]", "[siren, car horn]"))
    for kind in ("sound", "sight"):
        (source / kind / "a").rename(source / kind / "sirens")
        (source / kind / "b").rename(source / kind / "car_horn")
    refused = avsnn(*PREPARE)
    assert refused.returncode == 1
    assert "12 of 12 inputs failed" in refused.stderr
    assert "siren (sirens), car horn (car_horn)" in refused.stderr
    assert "--max-failures" not in refused.stderr


def test_a_folder_of_the_yaml_is_searched_and_both_spellings_of_a_name_are_one(
    avsnn: Command, source: Path, tmp_path: Path
) -> None:
    nfc, nfd = "\u00e9", "e\u0301"
    manifest = tmp_path / "own" / "mine.yaml"
    text = manifest.read_text().replace("kaggle: nobody/nothing", "folder: ../source")
    text = text.replace(r"(?P<group>\d+)", r"(?P<group>\w+)")
    manifest.write_text(text.replace("[a, b]", f"[{nfc}, b]"))
    (source / "sound" / "a").rename(source / "sound" / nfd)
    (source / "sight" / "a").rename(source / "sight" / nfc)
    # The sound of one clip and its picture have different spellings.
    (source / "sound" / nfd / "001.wav").rename(source / "sound" / nfd / f"{nfd}.wav")
    (source / "sight" / nfc / "001.png").rename(source / "sight" / nfc / f"{nfc}.png")
    prepare = ("prepare", "mine", *ALONE)
    done = avsnn(*prepare)
    assert done.returncode == 0, done.stderr
    assert pairs(tmp_path)[nfc] == (f"sound/{nfd}/{nfd}.wav", f"sight/{nfc}/{nfc}.png")
    assert len(pairs(tmp_path)) == 6
    picture = source / "sight" / "b" / "002.png"
    assert (tmp_path / "data" / "mine" / "raw" / "sight" / "b" / "002.png").readlink() == picture

    (source / "sight" / nfc / f"{nfd}.png").write_bytes(picture.read_bytes())
    # A link has the time of its file, so the time alone does not tell of another sound.
    sound = source / "sound" / "b" / "002.wav"
    shutil.copyfile(sound.with_name("003.wav"), sound)
    done = avsnn(*prepare, "--max-failures", "0.1")
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256(sound.read_bytes()).hexdigest()
    assert (tmp_path / "data" / "mine" / "table" / "clips.csv").read_text().count(digest) == 2
    spelled = {path: reason for path, reason in failures(tmp_path).items() if "spelling" in reason}
    assert len(spelled) == 1
    assert len(pairs(tmp_path)) == 6
