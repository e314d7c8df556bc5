"""The benchmark of growth makes up the clips that it says, and counts all that a command costs."""

import json
import subprocess
import sys

import cv2
import pytest

from avsnn.datasets_manifest import load
from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from avsnn.pipeline.formats.prepared_json import load_prepared
from avsnn.pipeline.media.audio import transcode_to_flac
from benchmarks.scale_data import NAME, table_rows, write_files, write_table
from benchmarks.scale_report import fit

# A command whose worker needs more memory and time than the command itself.
COMMAND = """
import subprocess, sys
subprocess.run([sys.executable, "-c", '''
import os, time
if os.fork():
    os._exit(0)
kept = bytearray(200_000_000)
while time.process_time() < 1:
    pass
'''])
print('{"samples_per_s": 1}')
"""
MEASURE = """
import dataclasses, json, os, sys
from pathlib import Path
from benchmarks.scale_costs import run
command = [sys.executable, "-c", sys.argv[1]]
cost = run(command, environment=dict(os.environ), log=Path(sys.argv[2]))
print(json.dumps(dataclasses.asdict(cost)))
"""


def test_clips_follow_from_their_numbers_and_no_two_files_are_the_same(tmp_path):
    write_files(tmp_path / "few", 0, 3)
    write_files(tmp_path / "more", 0, 5)
    few, more = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in files}
        for name in ("few", "more")
        for files in [(tmp_path / name).glob("*/*")]
    )
    assert few.items() < more.items()
    assert len(set(more.values())) == len(more) == 10
    image = next(iter((tmp_path / "few/image").iterdir()))
    assert cv2.imread(str(image)).shape == (32, 32, 3)
    sound = next(iter((tmp_path / "few/audio").iterdir()))
    _, seconds, rate = transcode_to_flac(sound)
    assert (seconds, rate) == (0.3, 8000)


def test_the_table_is_a_data_set_that_every_command_reads(tmp_path, monkeypatch):
    write_table(tmp_path, table_rows(0, 300))
    monkeypatch.setenv(USER_FOLDER_VARIABLE, str(tmp_path))
    manifest = load(NAME)
    assert len(manifest.clips) == 300
    assert {clip.group for clip in manifest.clips} == {"s0", "s1", "s2"}


def test_a_cost_covers_a_worker_that_outlives_the_command(tmp_path):
    words = [sys.executable, "-c", MEASURE, COMMAND, str(tmp_path / "log")]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    cost = json.loads(done.stdout)
    assert cost["cpu"] > 1
    assert json.loads(cost["output"]) == {"samples_per_s": 1}


@pytest.mark.parametrize("points", [[(10, 7.0), (20, 9.0)], [(1000, 205.0), (10, 7.0), (20, 9.0)]])
def test_a_line_goes_through_its_points_and_says_where_a_limit_is_reached(points):
    line = fit(points)
    assert line == pytest.approx((5, 0.2))
    assert line.clips_at(1005) == pytest.approx(5000)


def test_a_simulated_prepare_leaves_what_a_real_prepare_leaves(tmp_path, monkeypatch):
    write_table(tmp_path / "datasets", table_rows(0, 40))
    write_files(tmp_path / "source", 0, 40)
    monkeypatch.setenv(USER_FOLDER_VARIABLE, str(tmp_path / "datasets"))
    files = {}
    for module, words in (
        ("avsnn", ["--source", str(tmp_path / "source")]),
        ("benchmarks.scale_simulation", []),
    ):
        root = tmp_path / module
        command = [sys.executable, "-m", module, "prepare", NAME, "--root", str(root)]
        subprocess.run([*command, "--workers", "0", *words], check=True, capture_output=True)
        prepared = load_prepared(root, NAME)
        assert prepared.clips == 40
        files[module] = {
            f"{kind}/{path.relative_to(folder)}"
            for kind in ("shards", "frames", "audio", "index")
            for folder in [root / NAME / getattr(prepared, kind)]
            for path in folder.rglob("*")
        }
    assert files["avsnn"] == files["benchmarks.scale_simulation"]
