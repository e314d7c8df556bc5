"""Does what the page on readers says, from the first line to the last."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ALONE, ONE_SMALL_EPOCH, PROJECT, Command
from tests.docs.test_pages import code_blocks

PAGE = "docs/add-a-reader.md"


def test_the_page_on_readers_works_from_the_first_line_to_the_last(
    avsnn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, program = code_blocks(PAGE, "python")
    (tmp_path / "my_reader.py").write_text(reader)
    (tmp_path / "make_clips.py").write_text(program)
    (tmp_path / "lab.yaml").write_text(code_blocks(PAGE, "yaml")[0])
    subprocess.run([sys.executable, "make_clips.py"], cwd=tmp_path, check=True)
    for line in "".join(code_blocks(PAGE, "sh")).splitlines():
        words = shlex.split(line)
        if words[0] == "export":
            monkeypatch.setenv(*words[1].split("="))
            continue
        small = {"prepare": ALONE, "train": ONE_SMALL_EPOCH}.get(words[1], ())
        done = avsnn(*words[1:], *small)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "lab" / "report" / "test.json").exists()
    assert not (tmp_path / "data" / "lab" / "failures.jsonl").read_text()

    done = avsnn("prepare", "lab", "--set", "extract.frames=3", *ALONE)
    assert done.returncode == 2
    sentence = done.stderr.splitlines()[-1].removeprefix("avsnn: ")
    assert f"`{sentence}`" in (PROJECT / PAGE).read_text()
