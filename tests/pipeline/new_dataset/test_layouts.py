"""Folders as people have them: which clips, classes, sounds and parts are found."""

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from avsnn.datasets_manifest import Clip, load
from avsnn.errors import UserError
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.new_dataset.new_dataset import NewDataset
from avsnn.pipeline.new_dataset.probe import probe_files
from tests.own_clips import clip_names, png_bytes, put, video_bytes, wav_bytes
from tests.pipeline.new_dataset.conftest import New


def written(found: NewDataset) -> dict[str, Clip]:
    """Return the clips that other commands read, by visual path."""
    return {clip.visual.path: clip for clip in load(found.name).clips}


def labels(found: NewDataset) -> dict[str, str]:
    names = load(found.name).classes
    return {path: names[clip.label] for path, clip in written(found).items()}


def sounds(found: NewDataset) -> dict[str, str]:
    return {path: clip.audio.path for path, clip in written(found).items()}


def odd(found: NewDataset) -> list[str]:
    return [str(one) for one in found.odd]


def test_videos_in_class_folders_are_clips_with_their_own_sound(clips: Path, new: New) -> None:
    names = clip_names("cat", "dog")
    put(clips, *names)
    found = new(clips)
    assert labels(found) == {name: name.split("/")[0] for name in names}
    assert sounds(found) == {name: name for name in names}
    assert {clip.group for clip in written(found).values()} == {"anna", "ben", "carla", "dan"}
    assert (found.name, load("my-clips").title) == ("my-clips", "My clips")
    assert load("my-clips").preset == "tiny"
    assert found.facts.seconds == pytest.approx((0.6, 0.6, 0.6), abs=0.1)
    assert (found.facts.fps, found.facts.sizes) == ({"10": 24}, {"48x48": 24})
    assert found.facts.rates == {"8,000": 24}
    assert odd(found) == []
    # Every part has clips of every class, and no speaker is in two parts.
    assert all(all(counts.values()) for counts in found.parts.values())


@pytest.mark.parametrize("inside", ["{}.mp4", "s1/{}.mp4", "raw/s1/{}.mp4"])
def test_clips_may_lie_deeper(clips: Path, new: New, inside: str) -> None:
    names = [f"data/{label}/{inside.format(i)}" for label in ("cat", "dog") for i in range(3)]
    put(clips, *names)
    assert labels(new(clips)) == {name: name.split("/")[1] for name in names}


@pytest.mark.parametrize("layout", ["{part}/{label}/{i}", "data/{label}/{part}/{i}"])
def test_folders_of_parts_become_the_split(clips: Path, new: New, layout: str) -> None:
    parts = {"Training": "train", "valid": "val", "test": "test"}
    names = {
        layout.format(part=folder, label=label, i=i) + ".mp4": part
        for folder, part in parts.items()
        for label in ("cat", "dog")
        for i in range(2)
    }
    put(clips, *names)
    found = new(clips)
    assert found.split == "given"
    assert {path: clip.columns["part"] for path, clip in written(found).items()} == names
    assert set(labels(found).values()) == {"cat", "dog"}


def test_of_small_classes_a_larger_share_becomes_val(clips: Path, new: New) -> None:
    names = ("10", "2", "no", "yes")
    put(clips, *(f"{p}/{c}/{i}.mp4" for p in ("train", "test") for c in names for i in range(4)))
    found = new(clips)
    assert found.parts["val"] == dict.fromkeys(names, 1)
    assert found.notes == ["There is no val part, so 15% of the train part becomes the val part."]
    assert [*found.classes] == ["2", "10", "no", "yes"]


def test_speakers_in_several_given_parts_are_said(clips: Path, new: New) -> None:
    put(clips, *(f"train/{name}" for name in clip_names("cat", "dog")))
    put(clips, *(f"test/{name}" for name in clip_names("cat", "dog", speakers=3)))
    assert new(clips).notes[-1] == (
        "3 of 4 speakers are in more than one part; 'avsnn datasets check my-clips' counts their "
        "clips."
    )


def test_prepared_data_and_runs_beside_the_clips_are_no_clips(clips: Path, new: New) -> None:
    put(clips, "cat/1.mp4", "dog/1.mp4", "data/x/raw/cat/1.mp4", "runs/x/report/1.png")
    for mark in ("data/x/state/request.json", "runs/x/metrics.jsonl"):
        (clips / mark).parent.mkdir(exist_ok=True)
        (clips / mark).write_text("{}")
    found = new(clips)
    assert {*labels(found)} == {"cat/1.mp4", "dog/1.mp4"}
    assert all("data" not in line and "runs" not in line for line in odd(found))


def test_where_val_is_missing_a_share_of_train_becomes_val(clips: Path, new: New) -> None:
    names = [
        f"{p}/{c}/{i}.mp4" for p in ("train", "test") for c in ("cat", "dog") for i in range(9)
    ]
    put(clips, *names)
    found = new(clips)
    assert {part: sum(counts.values()) for part, counts in found.parts.items()} == {
        "train": 16,
        "val": 2,
        "test": 18,
    }


def test_images_and_sounds_of_the_same_name_are_clips(clips: Path, new: New) -> None:
    stems = [f"{label}/{i}" for label in ("cat", "dog") for i in range(3)]
    put(clips, *(f"{stem}.png" for stem in stems), *(f"{stem}.WAV" for stem in stems))
    put(clips, "cat/alone.png", "dog/lonely.wav")
    found = new(clips)
    assert sounds(found) == {f"{stem}.png": f"{stem}.WAV" for stem in stems}
    assert load("my-clips").visual == "image"
    assert odd(found) == [
        "cat/alone.png has no sound of the same name",
        "dog/lonely.wav is a sound without a video or an image of the same name",
    ]


@pytest.mark.parametrize(
    ("visual", "audio"),
    [
        ("pictures/{label}/{i}.png", "noises/{label}/{i}.wav"),
        ("video/{label}/{i}.mp4", "audio/{label}/{i}.wav"),
        ("set/{label}/video/{i}.mp4", "set/{label}/audio/{i}.wav"),
        ("{part}/video/{label}/{i}.mp4", "{part}/audio/{label}/{i}.wav"),
        ("video/{part}/{label}/{i}.mp4", "audio/{part}/{label}/{i}.wav"),
    ],
)
def test_folders_of_both_kinds_are_paired_by_content(
    clips: Path, new: New, visual: str, audio: str
) -> None:
    pairs = {
        visual.format(**place): audio.format(**place)
        for label in ("cat", "dog")
        for part in ("train", "test")
        for i in (0, 1)
        for place in [
            {"label": label, "part": part, "i": i if "{part}" in visual else f"{part}{i}"}
        ]
    }
    put(clips, *pairs, *pairs.values())
    found = new(clips)
    assert sounds(found) == pairs
    assert {path: "cat" if "cat/" in path else "dog" for path in pairs} == labels(found)
    assert ("part" in next(iter(written(found).values())).columns) == ("{part}" in visual)


def test_a_video_without_a_sound_file_beside_others_gives_its_own_sound(
    clips: Path, new: New
) -> None:
    put(clips, "cat/1.mp4", "cat/1.wav", "dog/1.mp4", "dog/1.wav", "dog/2.mp4")
    found = new(clips)
    assert sounds(found)["dog/2.mp4"] == "dog/2.mp4"
    assert odd(found)[0] == "dog/2.mp4 has no sound file; the sound is taken out of the video"


def test_folders_of_speakers_above_the_classes_are_groups(clips: Path, new: New) -> None:
    names = [f"Actor_{n:02}/{c}/{i}.mp4" for n in (1, 2, 3) for c in ("cat", "dog") for i in (1, 2)]
    put(clips, *names)
    found = new(clips)
    assert labels(found) == {name: name.split("/")[1] for name in names}
    assert {clip.group for clip in written(found).values()} == {"Actor_01", "Actor_02", "Actor_03"}
    assert found.group_word == "actor"


def test_names_of_any_characters_are_taken(clips: Path, new: New) -> None:
    """NFC and NFD spellings are one class and one name; hidden and system files are nothing."""
    nfd = unicodedata.normalize("NFD", "café")
    names = [
        "café/-dash [1].mp4",
        f"{nfd}/ü 'x' (2).mp4",
        "sea & sun/a,b;c.mp4",
        'sea & sun/"q".mp4',
    ]
    put(clips, *names)
    put(clips, f"{nfd}/._-dash [1].mp4", ".hidden/x/1.mp4", "__MACOSX/café/1.mp4")
    (clips / "café" / "Thumbs.db").write_bytes(b"x")
    found = new(clips)
    assert [*found.classes] == ["café", "sea & sun"]
    assert {*labels(found)} == {*names}
    assert odd(found) == []


def test_files_that_cannot_be_used_are_left_out_and_listed(clips: Path, new: New) -> None:
    put(clips, *(f"{label}/{i}.mp4" for label in ("cat", "dog") for i in range(3)))
    (clips / "cat" / "empty.mp4").touch()
    (clips / "cat" / "garbage.mp4").write_bytes(b"no video" * 99)
    (clips / "cat" / "mute.mp4").write_bytes(video_bytes(7, has_sound=False))
    (clips / "cat" / "long.mp4").write_bytes(video_bytes(7, 4.0))
    (clips / "dog" / "picture.gif").write_bytes(b"GIF89a")
    (clips / "dog" / "notes.txt").write_text("x")
    (clips / "dog" / "a\nb.mp4").write_bytes(video_bytes(7))
    (clips / "bird").mkdir()
    (clips / "bird" / "1.mp4").write_bytes(b"no video")
    os.mkfifo(clips / "dog" / "endless.mp4")
    found = new(clips)
    assert {*labels(found)} == {
        "cat/0.mp4", "cat/1.mp4", "cat/2.mp4", "cat/long.mp4",
        "dog/0.mp4", "dog/1.mp4", "dog/2.mp4",
    }  # fmt: skip
    assert sorted(odd(found)) == [
        "bird has no clip that can be used",
        "bird/1.mp4 is not a video that can be decoded (and 1 more file)",
        "cat/empty.mp4 is empty",
        "cat/long.mp4 is longer than four times the median, 0.63 s",
        "cat/mute.mp4 has no sound",
        "dog/a\nb.mp4 has a name with a character that a table cannot hold; rename the file",
        "dog/endless.mp4 is a pipe or a device",
        "dog/notes.txt is no video, image, sound or table by its suffix",
        "dog/picture.gif is an image of a kind that avsnn does not read; make a JPEG or PNG file",
    ]


def test_a_file_that_is_cut_is_left_out_with_its_partner(clips: Path, new: New) -> None:
    stems = [f"{label}/{i}" for label in ("cat", "dog") for i in range(3)]
    put(clips, *(f"{stem}.png" for stem in stems), *(f"{stem}.wav" for stem in stems))
    (clips / "cat" / "0.wav").write_bytes(wav_bytes(5)[:-999])
    found = new(clips)
    assert len(written(found)) == 5
    assert odd(found) == [
        "cat/0.wav is truncated: 7045 of the 8044 bytes its header promises",
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no video, image or sound; put the clips of each class into a folder"),
        (["1.mp4", "2.mp4"], "holds clips, but no folders of classes"),
        (["cat/1.mp4", "cat/2.mp4"], "holds clips of one class only, 'cat'"),
        (["cat/1.wav", "dog/1.wav"], "holds no clips: 2 sounds; put a video or an image"),
        (["cat/1.png", "dog/1.png"], "holds no clips: 2 images; put a sound of the same name"),
        (["cat/1.png", "dog/2.wav"], "give an image and its sound the same name"),
    ],
)
def test_a_folder_without_clips_gets_advice(
    clips: Path, new: New, names: list[str], message: str
) -> None:
    put(clips, *names)
    with pytest.raises(UserError, match=message):
        new(clips)
    with pytest.raises(UserError, match="no data set is called"):
        load("my-clips")


def test_a_link_and_a_folder_above_have_the_names_that_the_person_sees(
    clips: Path, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(clips, "cat/1.mp4", "dog/1.mp4")
    clips.with_name("link").symlink_to(clips)
    monkeypatch.chdir(clips / "cat")
    for folder, name in {"../../link": "link", "..": "my-clips"}.items():
        found = new(Path(folder))
        assert found.name == name
        assert ".." not in found.folder.parts
    with pytest.raises(UserError, match="does not exist"):
        new(Path("x" * 300))


def test_where_too_few_clips_are_left_the_files_that_are_left_out_are_named(
    clips: Path, new: New
) -> None:
    put(clips, "cat/1.mp4", "dog/2.wav")
    (clips / "dog" / "1.webp").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"only, 'cat' .* Left out: .*1\.webp is an image"):
        new(clips)


def test_a_table_that_names_no_file_is_blamed_where_folders_are_no_classes(
    clips: Path, new: New
) -> None:
    # Excel wrote 1 in place of 001.
    put(clips, "all/001.mp4", "all/002.mp4")
    (clips / "labels.csv").write_text("file,class\n1,cat\n2,dog\n")
    with pytest.raises(UserError, match=r"labels\.csv has no column that names videos"):
        new(clips)


def test_other_tables_and_classes_that_are_nearly_the_same_are_said(clips: Path, new: New) -> None:
    put(clips, "all/1.mp4", "all/2.mp4")
    (clips / "a.csv").write_text("file,class\n1.mp4,cat\n2.mp4,Cat\n")
    (clips / "b.csv").write_text("file,class\n1.mp4,x\n2.mp4,y\n")
    found = [str(one) for one in new(clips).odd]
    assert "b.csv is another table; to use it, give this file in place of the folder" in found
    assert "Cat differs from another class in capital letters only (and 1 more class)" in found


def test_a_table_names_the_classes_of_files_in_one_folder(clips: Path, new: New) -> None:
    put(clips, *(f"videos/{i:02}.mp4" for i in range(6)))
    table = clips / "Etiketten.csv"
    rows = "".join(f"{i:02}.mp4;{'läuft' if i % 2 else 'ruht'};s{i // 2}\r\n" for i in range(6))
    table.write_bytes(("Datei;class;Sprecher\r\n" + rows).encode("utf-16"))
    by_folder = new(clips)
    assert labels(by_folder) == {
        f"videos/{i:02}.mp4": "läuft" if i % 2 else "ruht" for i in range(6)
    }
    # The table itself may be named, too.
    assert not new(table).is_written


def test_tables_of_the_parts_become_the_split(clips: Path, new: New) -> None:
    put(clips, *(f"{label}/{i}.mp4" for label in ("a", "b") for i in range(3)))
    for number, part in enumerate(("train", "val", "test")):
        rows = "".join(f"{label}/{number}.mp4,{label}\n" for label in ("a", "b"))
        (clips / f"{part}.csv").write_text(f"path,label\n{rows}")
    found = new(clips)
    assert {path: clip.columns["part"] for path, clip in written(found).items()} == {
        f"{label}/{number}.mp4": part
        for number, part in enumerate(("train", "val", "test"))
        for label in ("a", "b")
    }


def test_a_table_without_classes_leaves_the_classes_to_the_folders(clips: Path, new: New) -> None:
    put(clips, *(f"{label}/{i}.mp4" for label in ("a", "b") for i in range(3)))
    (clips / "info.csv").write_text("file,seconds\na/0.mp4,1.5\n")
    assert set(labels(new(clips)).values()) == {"a", "b"}


def test_different_sizes_and_rates_are_odd(clips: Path, new: New) -> None:
    for stem in ("a/1", "a/2", "b/1", "b/2"):
        put(clips, f"{stem}.png", f"{stem}.wav")
    (clips / "a" / "3.png").write_bytes(png_bytes(5, side=20))
    (clips / "a" / "3.wav").write_bytes(wav_bytes(5, rate=16000))
    found = new(clips)
    assert found.facts.sizes == {"48x48": 4, "20x20": 1}
    assert found.facts.rates == {"8,000": 4, "16,000": 1}
    assert odd(found) == [
        "a/3.wav has another sample rate than 8,000 Hz",
        "a/3.png has another size than 48x48",
    ]


def test_of_very_many_files_a_stated_number_of_headers_is_read(
    clips: Path, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avsnn.pipeline.new_dataset.clip_facts.MOST_FILES", 4)
    put(clips, *clip_names("cat", "dog", takes=1))
    found = new(clips)
    assert (found.facts.files_read, found.facts.files) == (4, 8)
    assert len(written(found)) == 8


class CrashesTheChild:
    """Stands for a file on which a decoder crashes."""

    def open(self, _: str) -> None:
        os._exit(7)


def test_a_file_that_crashes_a_decoder_is_blamed_alone(clips: Path) -> None:
    put(clips, "1.mp4")
    files: list[Any] = [clips / "1.mp4", CrashesTheChild()]
    facts = probe_files(files, "video", NoProgress())
    assert [one.fault for one in facts] == ["", "crashed its decoder (exit code 7)"]
