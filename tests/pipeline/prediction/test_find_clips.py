"""Which files are one clip."""

import os
from pathlib import Path

import pytest

from avsnn.errors import UserError
from avsnn.pipeline.prediction.find_clips import find_clips


def names(tmp_path: Path, *paths: str, has_events: bool = False) -> list[tuple[str, ...]]:
    """Return the files of each clip that is found, below ``tmp_path``."""
    found = find_clips([tmp_path / path for path in paths], has_events=has_events)
    return [
        tuple(str(Path(file.name).relative_to(tmp_path)) for file in clip if file is not None)
        for clip in found.clips
    ]


def touch(tmp_path: Path, *paths: str) -> None:
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x")


PAIRED = {
    "in one folder": (("x.jpg", "x.wav"), [("x.jpg", "x.wav")]),
    "sound first": (("a.flac", "a.mp4", "b.mp4"), [("a.mp4", "a.flac"), ("b.mp4",)]),
    "in folders of the modalities": (("s/k/x.wav", "v/k/x.mp4"), [("v/k/x.mp4", "s/k/x.wav")]),
    "one stem in several classes": (
        ("s/cat/1.wav", "s/dog/1.wav", "v/cat/1.jpg", "v/dog/1.jpg"),
        [("v/cat/1.jpg", "s/cat/1.wav"), ("v/dog/1.jpg", "s/dog/1.wav")],
    ),
    "the only ones of a stem": (("s/a/x.wav", "v/b/c/x.jpg"), [("v/b/c/x.jpg", "s/a/x.wav")]),
    "several pictures": (("x.jpg", "x.png", "x.wav"), [("x.jpg",), ("x.png",), ("x.wav",)]),
    "suffix in capitals": (("x.JPG", "x.WAV"), [("x.JPG", "x.WAV")]),
}


@pytest.mark.parametrize("case", PAIRED)
def test_files_in_a_folder_are_paired_by_their_names(tmp_path: Path, case: str) -> None:
    files, clips = PAIRED[case]
    touch(tmp_path, *files)
    assert names(tmp_path, ".") == clips


def test_files_that_are_named_are_paired_by_stem_in_the_order_of_the_first(tmp_path: Path) -> None:
    touch(tmp_path, "p/x.jpg", "q/x.wav", "z.bin", "q/y.wav")
    found = names(tmp_path, "z.bin", "q/x.wav", "q/y.wav", "p/x.jpg", "z.bin")
    assert found == [("z.bin",), ("p/x.jpg", "q/x.wav"), ("q/y.wav",)]


BESIDE = {
    "video": (("a.mp4", "a.wav"), ("a.mp4",), [("a.mp4", "a.wav")]),
    "sound": (("a.mp4", "a.wav"), ("a.wav",), [("a.mp4", "a.wav")]),
    "notes beside": (("a.jpg", "a.wav", "a.txt"), ("a.jpg",), [("a.jpg", "a.wav")]),
    "several pictures": (("a.jpg", "a.png", "a.wav"), ("a.jpg",), [("a.jpg",)]),
    "another named sound": (
        ("p/a.mp4", "p/a.wav", "q/a.wav"),
        ("p/a.mp4", "q/a.wav"),
        [("p/a.mp4", "q/a.wav")],
    ),
    "both named": (
        ("a.jpg", "a.png", "a.wav"),
        ("a.jpg", "a.wav"),
        [("a.jpg", "a.wav")],
    ),
    "folder of the same name": (("a.mp4", "a.wav/x.txt"), ("a.mp4",), [("a.mp4",)]),
    "only in the folder that is searched": (("p/a.mp4", "a.wav"), ("p",), [("p/a.mp4",)]),
}


@pytest.mark.parametrize("case", BESIDE)
def test_a_named_file_is_paired_with_the_file_beside_it(tmp_path: Path, case: str) -> None:
    files, named, clips = BESIDE[case]
    touch(tmp_path, *files)
    assert names(tmp_path, *named) == clips


def test_a_named_recording_is_paired_with_the_recording_beside_it(tmp_path: Path) -> None:
    touch(tmp_path, "k.aedat", "k.hdf5")
    assert names(tmp_path, "k.aedat", has_events=True) == [("k.aedat", "k.hdf5")]


def test_a_recording_in_a_file_of_many_is_paired_by_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "all.hdf5", "k.aedat", "j.aedat")
    found = names(tmp_path, "j.aedat", "all.hdf5/train/k", "k.aedat", has_events=True)
    assert found == [("j.aedat",), ("k.aedat", "all.hdf5/train/k")]


def test_other_files_of_a_folder_are_counted_but_a_named_file_is_a_clip(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "README.md", ".DS_Store", "labels.csv", "noise.bin")
    found = find_clips([tmp_path], has_events=False)
    assert [clip.visual.path.name for clip in found.clips if clip.visual] == ["a.mp4", "noise.bin"]
    assert found.passed_over == 3
    assert names(tmp_path, "README.md") == [("README.md",)]


def test_a_name_that_is_no_utf_8_is_a_clip(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.mp4"
    Path(os.fsdecode(path)).write_bytes(b"x")
    (clip,) = find_clips([tmp_path], has_events=False).clips
    assert clip.visual
    assert os.fsencode(clip.visual.name) == path


@pytest.mark.parametrize("name", ["gone.mp4", "a" * 300, "all.hdf5/k"])
def test_a_path_that_does_not_exist_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="does not exist; give files or folders"):
        find_clips([tmp_path / name], has_events=True)


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(UserError, match="holds no file that could be a clip"):
        find_clips([tmp_path], has_events=False)
