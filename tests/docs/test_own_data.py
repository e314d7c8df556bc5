"""Runs the commands of the page on own data, and compares the files that the page shows."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ALONE, ONE_SMALL_EPOCH, Command
from tests.docs.test_pages import code_blocks
from tests.own_clips import put

PAGE = "docs/own-data.md"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_the_commands_of_the_page_lead_to_a_report(
    avsnn: Command, small_demo: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "demo").symlink_to(small_demo / "demo")
    prepare, copy, commands = code_blocks(PAGE, "sh")
    # The demo is prepared already.
    assert prepare == "avsnn prepare demo\n"
    subprocess.run(["bash", "-euc", copy], cwd=tmp_path, check=True)
    for line in commands.splitlines():
        words = line.split()[1:]
        # In one process, `prepare` takes half of the time.
        if words[-1] == "--prepare":
            assert avsnn(*words[:-1]).returncode == 0
            words = ["prepare", "clips", *ALONE]
        done = avsnn(*words, *(ONE_SMALL_EPOCH if words[0] == "train" else ()))
        assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "runs" / "clips" / "report" / "test.json").read_text())
    assert [one["name"] for one in report["classes"]] == ["falling", "rising"]


def test_the_page_shows_the_files_that_the_command_writes(avsnn: Command, tmp_path: Path) -> None:
    people = ("anna", "ben", "carla", "dan", "eve", "finn", "gus", "hana", "ida", "jo")
    names = [f"{c}/{who}-{take}.mp4" for c in ("cat", "dog") for who in people for take in (1, 2)]
    put(tmp_path / "clips", *names)
    done = avsnn("datasets", "new", "clips")
    assert done.returncode == 0, done.stderr
    written = tmp_path / "config" / "avsnn" / "datasets"
    text = (written / "clips.yaml").read_text().replace(str(tmp_path), "/home/anna")
    shown = code_blocks(PAGE, "yaml")[0]
    assert text == shown + "\n# docs/own-data.md explains every field, and how to correct clips.\n"
    table = (written / "clips.csv").read_text().splitlines(keepends=True)
    assert "".join(table[:3]) in code_blocks(PAGE, "text")
