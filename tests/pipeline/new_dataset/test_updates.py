"""A second `datasets new` of the same folder: what is new, gone and changed, and what stays."""

import csv
from pathlib import Path

import pytest
import yaml

from avsnn.datasets_manifest import load
from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import write_if_changed
from avsnn.pipeline.new_dataset import new_dataset
from tests.own_clips import clip_names, put
from tests.pipeline.new_dataset.conftest import New
from tests.pipeline.new_dataset.test_layouts import labels, odd, written


@pytest.fixture
def made(clips: Path, new: New) -> Path:
    """The folder of 16 clips of 4 speakers, which are a data set already."""
    put(clips, *clip_names("cat", "dog", takes=2))
    new(clips)
    return clips


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The YAML and the table."""
    return tmp_path / "sets" / "my-clips.yaml", tmp_path / "sets" / "my-clips.csv"


def test_nothing_is_touched_where_nothing_has_changed(
    made: Path, new: New, files: tuple[Path, Path]
) -> None:
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    found = new(made)
    assert (found.is_update, found.is_written) == (True, False)
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in files] == before


def test_new_clips_join_with_their_speaker_and_gone_clips_leave(made: Path, new: New) -> None:
    keys = {path: clip.key for path, clip in written(new(made)).items()}
    (made / "cat" / "anna-1.mp4").unlink()
    put(made, "cat/anna-3.mp4", "dog/eve-1.mp4")
    found = new(made)
    assert (found.new, found.gone, found.changed) == (2, 1, 0)
    clips = written(found)
    assert (clips["cat/anna-3.mp4"].group, clips["dog/eve-1.mp4"].group) == ("anna", "eve")
    assert all(clips[path].key == key for path, key in keys.items() if path in clips)


def test_a_new_folder_is_a_new_class_after_the_others(
    made: Path, new: New, files: tuple[Path, Path]
) -> None:
    before = files[0].read_text()
    put(made, *clip_names("bird", takes=2))
    found = new(made)
    assert load("my-clips").classes == ("cat", "dog", "bird")
    assert found.notes == ["New classes: bird."]
    text = files[0].read_text()
    assert text == before.replace("[cat, dog]", "[cat, dog, bird]")
    assert {label for path, label in labels(found).items() if "bird" in path} == {"bird"}


def test_a_folder_with_another_name_is_another_class(
    made: Path, new: New, files: tuple[Path, Path]
) -> None:
    (made / "cat").rename(made / "kitten")
    found = new(made)
    assert load("my-clips").classes == ("dog", "kitten")
    assert found.notes == [
        "New classes: kitten.",
        "Classes that have no clips any more and are removed: cat.",
    ]
    # The number of a class must not change where a person wrote numbers.
    text = files[1].read_text()
    files[1].write_text(text.replace(",dog,", ",0,").replace(",kitten,", ",1,"))
    (made / "dog").rename(made / "hound")
    new(made)
    assert load("my-clips").classes == ("dog", "kitten", "hound")


def test_a_kill_between_the_two_files_is_mended_by_the_same_command(
    made: Path, new: New, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [path.read_bytes() for path in files]
    files[0].unlink()
    new(made)
    assert [path.read_bytes() for path in files] == whole
    (made / "cat").rename(made / "kitten")
    left = 0

    def write(path: Path, content: bytes) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        write_if_changed(path, content)

    monkeypatch.setattr(new_dataset, "write_if_changed", write)
    for writes in range(3):
        left = writes
        with pytest.raises(KeyboardInterrupt):
            new(made)
        assert len(load("my-clips").clips) == 16
    left = 3
    assert set(labels(new(made)).values()) == {"dog", "kitten"}


def test_what_a_person_corrected_stays(made: Path, new: New, files: tuple[Path, Path]) -> None:
    """A renamed class, another class, group and title of a clip, and a column of one's own."""
    text = (
        files[0]
        .read_text()
        .replace("[cat, dog]", "\n- feline\n- dog\n")
        .replace("title: My clips", "title: M")
    )
    files[0].write_text(text)
    with files[1].open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["label"] = row["label"].replace("cat", "feline")
        row["note"] = "seen"
    rows[0] |= {"label": "dog", "group": "ben"}
    with files[1].open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    put(made, "cat/eve-1.mp4", "bird/eve-1.mp4")
    found = new(made)
    assert (found.new, found.gone, found.changed) == (2, 0, 0)
    assert load("my-clips").title == "M"
    assert load("my-clips").classes == ("feline", "dog", "bird")
    assert labels(found)["cat/eve-1.mp4"] == "feline"
    assert labels(found)[rows[0]["visual_path"]] == "dog"
    assert written(found)[rows[0]["visual_path"]].group == "ben"
    assert files[1].read_text().count("seen") == 16


def test_groups_are_changed_only_where_the_user_says_so(
    made: Path, new: New, files: tuple[Path, Path]
) -> None:
    found = new(made, group="none")
    assert (found.changed, found.groups) == (16, 0)
    assert load("my-clips").group == "none"
    put(made, "dog/eve-1.mp4")
    assert new(made).groups == 0
    found = new(made, group=r"^(\w+)-")
    assert (found.groups, load("my-clips").group) == (5, "speaker")
    assert "group: speaker  # found by --group '^(\\w+)-'\n" in files[0].read_text()
    assert not new(made, group=r"^(\w+)-").is_written


def test_new_clips_that_no_pattern_explains_are_groups_of_their_own(clips: Path, new: New) -> None:
    put(clips, *clip_names("cat", "dog", takes=2))
    new(clips, group="^(.)")
    put(clips, "dog/eve-1.mp4")
    found = new(clips)
    assert odd(found) == [
        "dog/eve-1.mp4 is new, and a group of its own; give --group again to group new clips too"
    ]
    assert written(found)["dog/eve-1.mp4"].group == "dog-eve-1"


def test_a_table_of_the_user_stays_the_source_of_classes(clips: Path, new: New) -> None:
    put(clips, *(f"{i}.mp4" for i in range(6)))
    rows = [f"{i}.mp4,{'ab'[i % 2]},{'test' if i > 3 else 'train'}\n" for i in range(6)]
    (clips / "labels.csv").write_text("file,class,part\n" + "".join(rows))
    assert labels(new(clips))["0.mp4"] == "a"
    (clips / "labels.csv").write_text("file,class,part\n0.mp4,b,test\n" + "".join(rows[1:]))
    found = new(clips)
    assert (found.changed, labels(found)["0.mp4"]) == (1, "b")
    assert written(found)["0.mp4"].columns == {"part": "test"}


def test_a_clip_leaves_with_its_row_in_the_table_of_the_user(clips: Path, new: New) -> None:
    put(clips, *(f"all/{i}.mp4" for i in range(5)))
    rows = ["file,class", "0,a", "1,b", "2,a", "3,b", "4,a"]
    (clips / "own.csv").write_text("\n".join(rows))
    new(clips)
    (clips / "own.csv").write_text("\n".join([*rows[:4], "3,"]))
    found = new(clips)
    assert found.gone == 2
    assert labels(found) == {"all/0.mp4": "a", "all/1.mp4": "b", "all/2.mp4": "a"}


def test_the_two_files_may_lie_beside_the_clips(
    clips: Path, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVSNN_DATASETS", str(clips))
    put(clips, *clip_names("cat", "dog", takes=2))
    new(clips)
    put(clips, "bird/anna-1.mp4")
    found = new(clips)
    assert (found.new, load("my-clips").classes) == (1, ("cat", "dog", "bird"))
    assert not new(clips).is_written


def test_take_can_be_changed(made: Path, new: New, files: tuple[Path, Path]) -> None:
    assert new(made, take="copy").is_written
    assert load("my-clips").take == "copy"
    assert not new(made).is_written


def test_the_name_of_another_data_set_is_not_taken(
    made: Path, new: New, files: tuple[Path, Path]
) -> None:
    other = made.parent / "other"
    put(other, "cat/1.mp4", "dog/1.mp4")
    with pytest.raises(UserError, match=r"of the folder .* is called 'my-clips' already; choose"):
        new(other, name="my-clips")
    with pytest.raises(UserError, match="a data set is called 'demo' already; choose another name"):
        new(other, name="demo")
    files[1].with_name("other.csv").write_text("mine")
    with pytest.raises(UserError, match=r"other.csv exists already and belongs to no data set"):
        new(other)
    made.rename(made.with_name("moved"))
    with pytest.raises(UserError, match=r"write 'folder: .*/moved' into my-clips.yaml, or else"):
        new(made.with_name("moved"), name="my-clips")
    for wrong, right in {"My Name": "my-name", "-x": "x", "y" * 300: "y" * 64}.items():
        with pytest.raises(UserError, match=f"such as {right}\\."):
            new(other, name=wrong)


def test_a_yaml_that_cannot_be_edited_is_refused_with_the_line_to_write(
    made: Path, new: New, files: tuple[Path, Path]
) -> None:
    facts = yaml.safe_load(files[0].read_text())
    files[0].write_text(yaml.safe_dump(facts, default_flow_style=True))
    put(made, "bird/anna-1.mp4")
    with pytest.raises(UserError, match=r"write into the file: classes: \[cat, dog, bird\]"):
        new(made)
