"""Answers for clips with the command: one row for each, and what is wrong in words."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avsnn.pipeline.runs.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from tests.conftest import Command


@pytest.fixture
def clips(small_demo: Path, shared_data: Path, tmp_path: Path) -> Path:
    """A folder of real clips, and beside them garbage, a silent clip, a picture and a sound."""
    folder = tmp_path / "clips"
    shutil.copytree(shared_data / "clips", folder)
    raw = small_demo / "demo" / "raw"
    # The video of the demo has no sound of its own.
    shutil.copyfile(next((raw / "video").iterdir()), folder / "silent.mp4")
    shutil.copyfile(next((raw / "audio").iterdir()), folder / "sound.wav")
    shutil.copyfile(next((shared_data / "av-digits").rglob("*.png")), folder / "picture.png")
    (folder / "garbage.bin").write_bytes(bytes(range(256)) * 20)
    return folder


def test_every_clip_has_one_row_with_an_answer_or_a_reason(
    avsnn: Command, small_run: Path, clips: Path
) -> None:
    done = avsnn("predict", small_run, clips, "--format", "jsonl")
    assert done.returncode == 1, done.stderr
    rows = {Path(row["clip"]).name: row for row in map(json.loads, done.stdout.splitlines())}
    assert sorted(rows) == sorted(path.name for path in clips.iterdir())
    unanswered = {name: row["reason"] for name, row in rows.items() if row["answer"] is None}
    assert unanswered == {
        "decord_corrupted.mp4": "the picture is corrupt: 28 of its 50 frames can be decoded",
        "garbage.bin": "the file is no picture, sound or video that can be decoded",
    }
    assert f"2 of {len(rows)} clips have no answer; see the reasons in their rows." in done.stderr
    missing = {name: row["missing"] for name, row in rows.items() if row["missing"]}
    assert missing == {"silent.mp4": ["audio"], "sound.wav": ["visual"], "picture.png": ["audio"]}
    for name in set(rows) - set(unanswered):
        row = rows[name]
        shares = [choice["confidence"] for choice in row["top"]]
        assert len(shares) == 3
        assert shares == sorted(shares, reverse=True)
        assert row["top"][0] == {"name": row["answer"], "confidence": row["confidence"]}
    again = avsnn("predict", small_run, clips, "--format", "jsonl", "--workers", "3")
    assert again.stdout == done.stdout


def test_the_forms_of_the_answers_say_the_same(
    avsnn: Command, small_run: Path, small_demo: Path, tmp_path: Path
) -> None:
    raw = small_demo / "demo" / "raw"
    video = next((raw / "video").iterdir())
    pair = (video, raw / "audio" / f"{video.stem}.wav")
    done = {
        form: avsnn("predict", small_run, *pair, "--format", form)
        for form in ("table", "jsonl", "csv")
    }
    assert [one.returncode for one in done.values()] == [0, 0, 0]
    row = json.loads(done["jsonl"].stdout)
    (cells,) = csv.DictReader(done["csv"].stdout.splitlines())
    assert (row["clip"], row["sound"]) == (str(video), str(pair[1]))
    assert (cells["clip"], cells["sound"]) == (str(video), str(pair[1]))
    assert cells["answer"] == row["answer"]
    assert float(cells["confidence"]) == row["confidence"]
    assert cells["third"] == row["top"][2]["name"]
    assert row["answer"] in done["table"].stdout
    for name in ("o.jsonl", "o.csv", "o.txt"):
        written = avsnn("predict", small_run, *pair, "--out", name)
        assert written.returncode == 0, written.stderr
        assert written.stdout == ""
        assert f"the answers are in {name}" in written.stderr
    assert (tmp_path / "o.jsonl").read_text() == done["jsonl"].stdout
    assert (tmp_path / "o.csv").read_text() == done["csv"].stdout
    assert row["answer"] in (tmp_path / "o.txt").read_text()


def test_names_of_files_can_harm_neither_terminals_nor_spreadsheets_nor_programs(
    avsnn: Command, small_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "=1+1"
    folder.mkdir()
    for name in (b"\x1b[31mred\n.mp4", b"\xff\xfe.wav", b"[bold].mp4"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"garbage")
    done = {
        form: avsnn("predict", small_run, "=1+1", "--format", form)
        for form in ("table", "jsonl", "csv")
    }
    assert [one.returncode for one in done.values()] == [1, 1, 1]
    for one in done.values():
        assert "\x1b" not in one.stdout + one.stderr
    names = [json.loads(line)["clip"] for line in done["jsonl"].stdout.splitlines()]
    assert sorted(names) == ["=1+1/\x1b[31mred\n.mp4", "=1+1/[bold].mp4", "=1+1/\\udcff\\udcfe.wav"]
    rows = list(csv.DictReader(done["csv"].stdout.splitlines()))
    assert {row["clip"] for row in rows} == {
        *("'=1+1/\\x1b[31mred\\n.mp4", "'=1+1/[bold].mp4", "'=1+1/\\udcff\\udcfe.wav")
    }
    assert "[bold].mp4" in done["table"].stdout.replace("│\n│", "")


def test_the_table_names_clips_below_the_folder_that_holds_them(
    avsnn: Command, small_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / ("deep" * 20)
    long = "long" * 30
    for name in ("a/x.mp4", "b/x.wav", "b/x.mp4", f"b/{long}.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"garbage")
    for given in ([folder], [folder / "a" / "x.mp4", folder / "b"]):
        lines = avsnn("predict", small_run, *given).stdout.splitlines()
        assert max(map(len, lines)) <= 100
        cells = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
        assert [cell for cell in cells if cell] == [
            *("a/x.mp4", "b/longlonglon...nglonglong.mp4", "b/x.mp4", "+ b/x.wav")
        ]
    (name,) = [
        line.split("│")[1].strip()
        for line in avsnn("predict", small_run, folder / "a" / "x.mp4").stdout.splitlines()
        if "x.mp4" in line
    ]
    assert name == "x.mp4"


BAD_INPUT = {
    "no such clip": (["gone.mp4"], "gone.mp4 does not exist; give files or folders with clips."),
    "empty folder": (["empty"], "empty holds no file that could be a clip"),
    "no clip at all": ([], "predict needs CLIP...: videos, pictures"),
    "unknown form": (
        ["c.mp4", "--format", "xml"],
        "--format cannot be 'xml'; there are: table, jsonl, csv",
    ),
    "name without a form": (["c.mp4", "--out", "o.foo"], "end the name with .jsonl, .csv or .txt"),
    "folder as the file": (["c.mp4", "--out", "empty"], "--out empty is a folder"),
    "clip as the file": (
        ["c.mp4", "--format=csv", "--out", "c.mp4"],
        "--out c.mp4 is one of the clips",
    ),
    "file in a file": (["c.mp4", "--out", "c.mp4/o.csv"], "--out c.mp4/o.csv cannot be written: "),
    "no folder": (
        ["c.mp4", "--out", "none/o.csv"],
        "--out none/o.csv: there is no folder none; make the folder first.",
    ),
    "no worker": (["c.mp4", "--workers", "0"], "--workers is wrong"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_sentence(
    avsnn: Command, small_run: Path, tmp_path: Path, case: str
) -> None:
    words, sentence = BAD_INPUT[case]
    (tmp_path / "empty").mkdir()
    (tmp_path / "c.mp4").write_bytes(b"garbage")
    done = avsnn("predict", small_run, *words)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "c.mp4").read_bytes() == b"garbage"
    assert not (tmp_path / "none").exists()


def test_the_words_about_one_clip_and_one_file_are_singular(
    avsnn: Command, small_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "c.mp4").write_bytes(b"garbage")
    (tmp_path / "f" / "c.txt").write_bytes(b"notes")
    done = avsnn("predict", small_run, "f")
    assert "predict passes over 1 file that is hidden or ends in .txt, .csv or the like" in (
        done.stderr
    )
    assert "1 of 1 clip has no answer; see the reason in its row." in done.stderr


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("predict", "predict [OPTIONS] {RUN} {CLIP...}..."),
        ("export", "export [OPTIONS] {RUN}"),
        ("convert-checkpoint", "convert-checkpoint [OPTIONS] {FILE} {OUT}"),
    ],
)
def test_the_arguments_have_names_of_one_form(avsnn: Command, command: str, usage: str) -> None:
    assert usage in avsnn(command, "--help").stdout


def test_the_help_of_convert_checkpoint_names_predict(avsnn: Command) -> None:
    words = " ".join(avsnn("convert-checkpoint", "--help").stdout.split())
    assert "a run folder for evaluate, predict and export" in words


def test_a_folder_that_is_no_run_is_one_sentence(avsnn: Command, tmp_path: Path) -> None:
    (tmp_path / "c.mp4").write_bytes(b"garbage")
    done = avsnn("predict", ".", "c.mp4")
    assert done.returncode == 2
    assert "is not a run folder" in done.stderr


def test_a_file_that_nobody_may_read_is_a_row(
    avsnn: Command, small_run: Path, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(9000) / 9) / 2, 8000)
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "gone.wav").symlink_to("nowhere")
    shutil.copyfile(tmp_path / "a.wav", folder / "a.wav")
    done = avsnn("predict", small_run, "f", "--format", "jsonl")
    assert done.returncode == 1, done.stderr
    good, bad = map(json.loads, done.stdout.splitlines())
    assert good["answer"]
    assert bad["reason"] == "the clip cannot be read: No such file or directory"


def test_the_answers_replace_no_clip_and_no_file_of_a_run(
    avsnn: Command, small_run: Path, clips: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    before = {path: path.read_bytes() for folder in (run, clips) for path in files_in(folder)}
    (tmp_path / "link.csv").symlink_to(clips / "sound.wav")
    for words, out in (
        ([clips / "sound.wav"], clips / "sound.wav"),
        ([clips], clips / "silent.mp4"),
        ([clips], tmp_path / "link.csv"),
        ([clips], run / "config.yaml"),
        ([clips], run / "checkpoints" / "best.safetensors"),
    ):
        done = avsnn("predict", run, *words, "--out", out, "--format", "csv")
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in before} == before


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_hidden_folders_are_passed_over_and_an_empty_word_is_refused(
    avsnn: Command, small_run: Path, clips: Path
) -> None:
    (clips / ".git" / "objects").mkdir(parents=True)
    shutil.copy(clips / "sound.wav", clips / ".git" / "objects" / "sound.wav")
    done = avsnn("predict", small_run, clips, "--format", "jsonl")
    assert ".git" not in done.stdout
    refused = avsnn("predict", small_run, "")
    assert refused.returncode == 2
    assert "the path of a clip is empty" in refused.stderr


def test_a_sound_whose_name_is_no_utf_8_has_an_answer(
    avsnn: Command, small_run: Path, clips: Path, tmp_path: Path
) -> None:
    (tmp_path / "sounds").mkdir()
    shutil.copy(clips / "sound.wav", tmp_path / "sounds" / os.fsdecode(b"caf\xe9.wav"))
    done = avsnn("predict", small_run, "sounds", "--format", "jsonl")
    assert done.returncode == 0, done.stderr


def test_answers_that_are_no_numbers_are_no_answers(
    avsnn: Command, small_run: Path, clips: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    path = run / "checkpoints" / "best.safetensors"
    tensors, facts = read_checkpoint(path)
    tensors["readout.head.bias"].fill_(float("inf"))
    write_checkpoint(path, Checkpoint(tensors, facts))
    done = avsnn("predict", run, clips / "sound.wav", "--format", "jsonl")
    assert done.returncode == 1
    row = json.loads(done.stdout)
    assert row["answer"] is row["confidence"] is None
    assert row["reason"] == "the network gives scores that are NaN or infinite"


def test_a_full_disk_is_one_sentence(avsnn: Command, small_run: Path, clips: Path) -> None:
    for form in ("table", "jsonl", "csv"):
        done = avsnn(
            "predict", small_run, clips / "sound.wav", "--format", form, "--out", "/dev/full"
        )
        assert done.returncode in (1, 2)
        assert done.stderr.splitlines()[-1].startswith("avsnn: ")
        assert "cannot be written" in done.stderr
        assert "trace" not in done.stderr
