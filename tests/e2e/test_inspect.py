"""Inspects clips with the command: pictures in files, on terminals, and what is wrong in words."""

import json
import os
import re
import shutil
from base64 import b64decode
from pathlib import Path

import cv2
import numpy as np
import pytest

from avsnn.pipeline.formats.clip_index import open_index
from avsnn.pipeline.formats.npz import npz_bytes
from avsnn.pipeline.formats.shard_columns import open_shards
from avsnn.pipeline.formats.shard_index import read_index_arrays
from tests.conftest import Command, flip_a_bit
from tests.pipeline.conftest import prepared_demo
from tests.warm import Warm

# The arrays of a shard's index that have a row for each clip.
OF_CLIPS = ("clips", "digests", "key", "parts")

TERMINAL_VARIABLES = ("COLORTERM", "TERM_PROGRAM", "LC_TERMINAL", "NO_COLOR", "FORCE_COLOR")


def keys(root: Path) -> list[str]:
    return sorted(open_index(root / "demo" / prepared_demo(root).index).keys)


def require_picture(data: bytes) -> None:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    height, width, _ = picture.shape
    assert 1000 < width < 1500
    assert 500 < height < 1500
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100


@pytest.fixture
def demo_copy(small_demo: Path, tmp_path: Path) -> Path:
    """A root with the small demo, which a test may damage."""
    root = tmp_path / "data"
    ignored = shutil.ignore_patterns("raw", "cache", "state")
    shutil.copytree(small_demo / "demo", root / "demo", ignore=ignored)
    return root


def test_the_first_clip_by_its_key_is_written_to_a_file(
    avsnn: Command, small_demo: Path, tmp_path: Path
) -> None:
    first = keys(small_demo)[0]
    done = avsnn("inspect", "demo", "--root", small_demo, "--out", "a/first.png")
    assert done.returncode == 0, done.stderr
    assert f"clip {first} is in a/first.png" in done.stdout
    assert f"{first} is the first of 72 clips" in done.stdout
    assert "avsnn inspect demo KEY" in done.stdout
    data = (tmp_path / "a" / "first.png").read_bytes()
    require_picture(data)
    named = avsnn("inspect", "demo", first, "--root", small_demo, "--out", "named.png")
    assert named.returncode == 0, named.stderr
    assert "first of" not in named.stdout
    assert (tmp_path / "named.png").read_bytes() == data
    other = avsnn("inspect", "demo", keys(small_demo)[-1], "--root", small_demo, "--out", "b.PNG")
    assert other.returncode == 0, other.stderr
    assert (tmp_path / "b.PNG").read_bytes() != data


BAD_INPUT = {
    "unknown data set": (["nope", "--out", "x.png"], "no data set is called 'nope'"),
    "data set that is not prepared": (["av-digits", "--out", "x.png"], "is not prepared in"),
    "unknown key": (["demo", "zebra", "--out", "x.png"], "has the key 'zebra'; "),
    "unknown split": (["demo", "--split", "x", "--out", "x.png"], "no split 'x'; there are: publ"),
    "folder": (["demo", "--out", "."], ". is a folder; give the name of the file to write."),
    "no suffix": (["demo", "--out", "x"], "x names no kind of picture; end the name with .png"),
    "unknown suffix": (["demo", "--out", "x.gif"], ".png, .pdf, .svg, .jpg or .jpeg."),
    "folder that is a file": (["demo", "--out", "file/x.png"], "x.png cannot be written: "),
    "no terminal": (
        ["demo"],
        "goes to no terminal that could show a picture; write the picture to",
    ),
}


@pytest.mark.parametrize(("words", "said"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_one_sentence_and_writes_nothing(
    avsnn: Command, small_demo: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "file").write_text("")
    done = avsnn("inspect", *words, "--root", small_demo)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_mistyped_key_is_answered_with_the_key_that_is_meant(
    avsnn: Command, small_demo: Path
) -> None:
    key = keys(small_demo)[5]
    done = avsnn("inspect", "demo", key.upper()[:-1], "--root", small_demo, "--out", "x.png")
    assert done.returncode == 2
    assert re.search(f"did you mean {key[:-1]}.\\? ", done.stderr), done.stderr
    assert "clips.jsonl lists the keys of all 72 clips." in done.stderr


def test_a_clip_that_failed_is_answered_with_its_recorded_reason(
    avsnn: Command, demo_copy: Path
) -> None:
    first, second = keys(demo_copy)[:2]
    failure = {"stage": "extract", "key": first, "reason": "audio a.wav is silent", "path": ""}
    (demo_copy / "demo" / "failures.jsonl").write_text(json.dumps(failure) + "\n")
    done = avsnn("inspect", "demo", first, "--root", demo_copy, "--out", "x.png")
    assert done.returncode == 2
    assert done.stderr == (
        f"avsnn: the clip {first} of demo could not be prepared: audio a.wav is silent.\n"
    )
    done = avsnn("inspect", "demo", "--root", demo_copy, "--out", "x.png")
    assert done.returncode == 0, done.stderr
    assert f"{second} is the first of 71 clips" in done.stdout


@pytest.mark.parametrize("damage", ["bit", "cut", "gone", "index", "no index", "not listed"])
def test_a_damaged_shard_is_one_sentence(
    avsnn: Command, demo_copy: Path, tmp_path: Path, damage: str
) -> None:
    folder = demo_copy / "demo" / prepared_demo(demo_copy).shards
    shard, sample = open_shards(folder).sample(0)
    index = shard.with_suffix(".npz")
    if damage == "bit":
        flip_a_bit(shard, at=sample.members["flac"].offset + 100)
    elif damage == "cut":
        os.truncate(shard, 600)
    elif damage == "gone":
        shard.unlink()
    elif damage == "index":
        index.write_text("{")
    elif damage == "no index":
        index.unlink()
    else:
        arrays = read_index_arrays(index.read_bytes())
        is_other = arrays.key != sample.key.encode()
        members = arrays.members[np.repeat(is_other, arrays.clips["members"])]
        others = {name: getattr(arrays, name)[is_other] for name in OF_CLIPS}
        index.write_bytes(npz_bytes(arrays._replace(**others, members=members)._asdict()))
    done = avsnn("inspect", "demo", sample.key, "--root", demo_copy, "--out", "x.png")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert re.fullmatch(r"avsnn: .* is (damaged|missing).*; run 'avsnn repair'.*\n", done.stderr)
    assert not (tmp_path / "x.png").exists()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of a command, without what the terminal of the tests sets."""
    for name in TERMINAL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def show(warm: Warm, root: Path) -> str:
    done = warm.run_on_terminal(["inspect", "demo", "--root", str(root)], root)
    assert done.returncode == 0, done.stderr
    assert f"{keys(root)[0]} is the first of 72 clips" in done.stdout
    return done.stdout


def test_kitty_gets_the_picture_in_pieces(
    warm: Warm, small_demo: Path, terminal: pytest.MonkeyPatch
) -> None:
    terminal.setenv("TERM", "xterm-kitty")
    pieces = re.findall("\x1b_G(.*?);(.*?)\x1b\\\\", show(warm, small_demo))
    assert pieces[0][0] == "a=T,f=100,q=2,c=100,m=1"
    assert {control for control, _ in pieces[1:-1]} == {"m=1"}
    assert pieces[-1][0] == "m=0"
    assert max(len(data) for _, data in pieces) == 4096
    require_picture(b64decode("".join(data for _, data in pieces)))


def test_iterm2_gets_the_picture_in_one_piece(
    warm: Warm, small_demo: Path, terminal: pytest.MonkeyPatch
) -> None:
    terminal.setenv("TERM", "xterm-256color")
    terminal.setenv("LC_TERMINAL", "iTerm2")
    shown = re.findall("\x1b]1337;File=inline=1;width=100;(.*?):(.*?)\x07", show(warm, small_demo))
    assert [options for options, _ in shown] == ["preserveAspectRatio=1"]
    require_picture(b64decode(shown[0][1]))


@pytest.mark.parametrize(
    "variables",
    [
        {"TERM": "xterm-256color"},
        {"TERM": "xterm", "COLORTERM": "truecolor"},
        {"TERM": "tmux-256color", "LC_TERMINAL": "iTerm2"},
    ],
    ids=["256 colours", "all colours", "tmux"],
)
def test_other_terminals_get_coloured_characters_that_can_be_read(
    warm: Warm, small_demo: Path, terminal: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        terminal.setenv(name, value)
    shown = show(warm, small_demo)
    depth = "38;2;" if "COLORTERM" in variables else "38;5;"
    assert depth in shown
    lines = re.sub("\x1b\\[[0-9;]*m", "", shown).split("\r\n")
    picture = [line for line in lines if "▀" in line]
    assert 30 <= len(picture) <= 50
    assert {len(line) for line in picture} == {100}
    texts = [line.replace("▀", " ") for line in picture]
    first = keys(small_demo)[0]
    for words in (first, "frame 0", "frame 1", "time in s", "Hz", "10000", "sound: STFT", "dB"):
        assert any(words in text for text in texts), words


@pytest.mark.parametrize(
    "variables",
    [
        {"TERM": "dumb"},
        {"TERM": "xterm"},
        {"TERM": "xterm-256color", "NO_COLOR": "1"},
    ],
    ids=["dumb", "16 colours", "no colour"],
)
def test_a_terminal_that_cannot_show_pictures_gets_nothing_but_a_sentence(
    warm: Warm, small_demo: Path, terminal: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        terminal.setenv(name, value)
    done = warm.run_on_terminal(["inspect", "demo"], small_demo)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"avsnn: this terminal .*; write the picture to a file with --out FILE\.png\.\n",
        done.stderr,
    )
