"""Readers of a user's own kinds of files, from a file and from a package, in a real prepare."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from avsnn.pipeline.prepare.build_stages import build_as_requested
from tests.conftest import ALONE, Command, flip_a_bit, hashes
from tests.own_reader import (
    ARRAYS,
    CLIPS,
    READER,
    SMALL,
    members,
    pictures,
    read_table,
    samples,
    shades,
    shards_of_arrays,
    sound,
    write_lab,
    write_table,
)
from tests.plugin_package import search_path
from tests.warm import Warm

PLUGIN = ("--plugin", "my_reader.py")


@pytest.fixture(scope="module")
def prepared(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data set, prepared by worker processes with the reader of a file."""
    folder = tmp_path_factory.mktemp("lab")
    write_lab(folder)
    done = command(warm, folder, None, "prepare", "lab", *SMALL, *PLUGIN, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert f"{CLIPS} clips are ready" in done.stdout
    return folder


@pytest.fixture
def lab(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the data set and of what was prepared."""
    # Times stay, because records name them.
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("AVSNN_DATASETS", str(tmp_path))
    return tmp_path


def command(
    warm: Warm, folder: Path, site: Path | None, *words: str
) -> subprocess.CompletedProcess[str]:
    """Run ``avsnn`` in a process of its own, with a folder of packages or without."""
    done = warm.run(
        [*words],
        folder,
        PYTHONPATH=search_path(site),
        AVSNN_DATASETS=str(folder),
        COLUMNS="200",
    )
    assert "Traceback" not in done.stderr
    return done


def failures(folder: Path) -> dict[str, str]:
    lines = (folder / "data" / "lab" / "failures.jsonl").read_text().splitlines()
    return {failure["key"]: failure["reason"] for failure in map(json.loads, lines)}


def inodes(root: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (root / "shards").rglob("*.tar")}


def test_what_a_reader_reads_lies_in_the_shards_as_every_other_clip(prepared: Path) -> None:
    found = members(prepared / "data" / "lab")
    for number in range(ARRAYS):
        # The rule 1fps takes the frames 0 and 5 of 10 frames at 5 frames per second.
        wanted = [int(pictures(number)[at].mean()) for at in (0, 5)]
        assert shades(found, number) == pytest.approx(wanted, abs=1)
        values, rate = sound(found, number)
        assert rate == 8000
        np.testing.assert_array_equal(values, samples(number))
    request = (prepared / "data" / "lab" / "state" / "request.json").read_text()
    # Neither the code nor the folder of the reader is stored.
    assert "np.load" not in request
    assert str(prepared) not in request
    assert json.loads(request)["readers"][".npy"]["name"] == "my_reader.py"


def test_the_bytes_do_not_depend_on_the_workers(
    prepared: Path, avsnn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lab(tmp_path)
    monkeypatch.setenv("AVSNN_DATASETS", str(tmp_path))
    done = avsnn("prepare", "lab", *SMALL, *PLUGIN, *ALONE)
    assert done.returncode == 0, done.stderr
    assert hashes(tmp_path / "data" / "lab") == hashes(prepared / "data" / "lab")


def test_a_data_set_without_a_reader_records_none(small_demo: Path) -> None:
    assert "readers" not in (small_demo / "demo" / "state" / "request.json").read_text()
    units = [*build_as_requested("demo", root=small_demo).extract.units()]
    assert {name for unit in units for name in unit.inputs} == {"list of clips"}


def test_commands_after_prepare_need_no_plugin(lab: Path, avsnn: Command) -> None:
    done = avsnn("prepare", "lab", *SMALL, *ALONE)
    assert "nothing to do" in done.stdout, done.stderr
    done = avsnn("verify", "lab")
    assert (done.returncode, "all as they were written" in done.stdout) == (0, True), done.stderr


def test_repair_says_which_file_is_missing_and_restores_the_bytes_with_it(
    lab: Path, avsnn: Command
) -> None:
    root = lab / "data" / "lab"
    before = hashes(root)
    name = min(shards_of_arrays(root)[True])
    (shard,) = (root / "shards").rglob(name)
    flip_a_bit(shard)
    needs = "lab was prepared with the reader '.npy' of my_reader.py: add --plugin my_reader.py."
    done = avsnn("repair", "lab", *ALONE)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"avsnn: {needs}")

    (lab / "other.py").write_text(READER.replace("5.0", "2.5"))
    done = avsnn("repair", "lab", "--plugin", "other.py", *ALONE)
    assert done.returncode == 2
    assert "other.py is not the file whose reader '.npy' prepared lab" in done.stderr

    done = avsnn("repair", "lab", *PLUGIN, *ALONE)
    assert done.returncode == 0, done.stderr
    assert hashes(root) == before


def test_damage_of_other_shards_is_repaired_without_the_plugin(lab: Path, avsnn: Command) -> None:
    root = lab / "data" / "lab"
    before = hashes(root)
    (shard,) = (root / "shards").rglob(min(shards_of_arrays(root)[False]))
    flip_a_bit(shard)
    done = avsnn("repair", "lab", *ALONE)
    assert done.returncode == 0, done.stderr
    assert hashes(root) == before


def test_a_changed_reader_decodes_the_shards_of_its_clips_again_and_no_others(
    lab: Path, avsnn: Command
) -> None:
    root = lab / "data" / "lab"
    before, shards = inodes(root), shards_of_arrays(root)
    assert shards[True]
    assert shards[False]
    (lab / "my_reader.py").write_text(READER.replace('mmap_mode="r")', 'mmap_mode="r")[::-1]'))
    done = avsnn("prepare", "lab", *SMALL, *PLUGIN, *ALONE, "--explain")
    assert "its input reader .npy changed" in done.stdout
    done = avsnn("prepare", "lab", *SMALL, *PLUGIN, *ALONE)
    assert done.returncode == 0, done.stderr
    after = inodes(root)
    assert {name for name in after if after[name] != before[name]} == shards[True]
    wanted = [int(pictures(0)[::-1][at].mean()) for at in (0, 5)]
    assert shades(members(root), 0) == pytest.approx(wanted, abs=1)


def test_other_clips_take_over_nothing_that_another_reader_has_read(
    lab: Path, avsnn: Command
) -> None:
    # Another table makes another generation, which takes decoded clips from the earlier shards.
    write_table(lab, read_table(lab)[:-1])
    (lab / "my_reader.py").write_text(READER.replace('mmap_mode="r")', 'mmap_mode="r")[::-1]'))
    done = avsnn("prepare", "lab", *SMALL, *PLUGIN, *ALONE)
    assert done.returncode == 0, done.stderr
    found = members(lab / "data" / "lab")
    for number in range(ARRAYS):
        wanted = [int(pictures(number)[::-1][at].mean()) for at in (0, 5)]
        assert shades(found, number) == pytest.approx(wanted, abs=1)


def test_a_fault_of_a_reader_is_the_failure_of_the_clip_with_file_line_and_error(
    lab: Path, avsnn: Command
) -> None:
    faults = """
    if "-0" in path.name:
        raise OSError("bad magic")
    if "-1" in path.name:
        return np.load(path).astype(float), 5.0
    if "-2" in path.name:
        import os
        os._exit(4)
    """
    loud = """
    print("not among the results")
    values = np.fromfile(path, "<i2") / 2**15
    if "-3" in path.name:
        values[7] = np.nan
    return values, 8000
    """
    code = READER.replace("def frames(path):", f"def frames(path):{faults}")
    code = code.replace('    return np.fromfile(path, "<i2"), 8000', loud)
    (lab / "my_reader.py").write_text(code)
    line = code.splitlines().index('        raise OSError("bad magic")') + 1
    done = avsnn("prepare", "lab", *SMALL, *PLUGIN, *ALONE, "--max-failures", "0.5")
    assert done.returncode == 0, done.stderr
    assert f"{CLIPS - ARRAYS} clips are ready" in done.stdout
    assert "not among the results" not in done.stdout + done.stderr
    by = "cannot be read by the reader '.npy' of my_reader.py"
    assert failures(lab) == {
        "clip-0": f"video clip-0.npy {by} (my_reader.py, line {line}: OSError: bad magic)",
        "clip-1": f"video clip-1.npy {by} (it gave frames of the type float64 and the shape "
        "[10, 48, 40, 3], and frames are uint8 [N, H, W, 3])",
        "clip-2": "audio clip-2.raw or video clip-2.npy crashed its decoder (exit code 4)",
        "clip-3": "audio clip-3.raw holds samples that are no numbers",
    }
    # The reader that was mended reads the clips again.
    (lab / "my_reader.py").write_text(READER)
    done = avsnn("prepare", "lab", *SMALL, *PLUGIN, *ALONE)
    assert f"{CLIPS} clips are ready" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("x = 1\n", "my_reader.py registers no reader: a file with a reader has READERS["),
        (
            READER.replace('".npy"', '".NPY"'),
            "'.NPY' is no name of a reader; the name of a reader is one suffix in small letters",
        ),
        (
            READER.replace("Reader(frames=frames)", "frames"),
            "the reader '.npy' must be Reader(frames=FUNCTION), Reader(sound=FUNCTION) or both.",
        ),
        ("import numpi\n", "my_reader.py, line 1: ModuleNotFoundError: No module named 'numpi'"),
        (
            READER.replace(".npy", ".abc").replace(".raw", ".def"),
            "my_reader.py reads '.abc', '.def', and lab has no such files, only '.mp4', '.npy', "
            "'.raw'; leave out --plugin, or register the reader of these files.",
        ),
    ],
)
def test_a_file_that_cannot_serve_is_refused_in_one_sentence(
    lab: Path, avsnn: Command, code: str, sentence: str
) -> None:
    before = hashes(lab / "data" / "lab")
    (lab / "my_reader.py").write_text(code)
    done = avsnn("prepare", "lab", *SMALL, *PLUGIN, *ALONE)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert hashes(lab / "data" / "lab") == before


def test_two_files_with_a_reader_of_one_suffix_are_both_named(lab: Path, avsnn: Command) -> None:
    (lab / "b.py").write_text(READER + "# another file\n")
    done = avsnn("prepare", "lab", *SMALL, *PLUGIN, "--plugin", "b.py", *ALONE)
    assert done.returncode == 2
    assert "my_reader.py and b.py both have a reader '.npy'; give one file." in done.stderr


def write_package(site: Path, version: str) -> None:
    code = READER.replace('READERS[".npy"]', "NPY").replace('READERS[".raw"]', "RAW")
    (site / "lab_files").mkdir(parents=True, exist_ok=True)
    (site / "lab_files" / "__init__.py").write_text(code)
    shutil.rmtree(site / "about", ignore_errors=True)
    for old in site.glob("*.dist-info"):
        shutil.rmtree(old)
    about = site / f"lab_files-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lab-files\nVersion: {version}\n")
    (about / "entry_points.txt").write_text(
        "[avsnn.readers]\n.npy = lab_files:NPY\n.raw = lab_files:RAW\n.never = nothing:HERE\n"
    )


def test_a_package_gives_readers_to_the_workers_and_its_version_is_their_identity(
    warm: Warm, prepared: Path, tmp_path: Path
) -> None:
    site, root = tmp_path / "site", tmp_path / "data" / "lab"
    write_lab(tmp_path)
    write_package(site, "1.0")
    words = ["prepare", "lab", *SMALL]
    done = command(warm, tmp_path, site, *words, "--workers", "2")
    assert done.returncode == 0, done.stderr
    of_file = members(prepared / "data" / "lab")
    assert members(root) == of_file
    readers = json.loads((root / "state" / "request.json").read_text())["readers"]
    package = {"kind": "package", "name": "lab-files", "version": "1.0", "sha256": None}
    assert readers == {".npy": package, ".raw": package}

    # Without the package, what is done stays done, and what has to be done names the package.
    done = command(warm, tmp_path, None, *words, *ALONE)
    assert "nothing to do" in done.stdout, done.stderr
    done = command(warm, tmp_path, None, *words, *ALONE, "--set", "extract.frames=3")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "avsnn: lab was prepared with the reader '.npy' of the package lab-files 1.0: the package "
        "is not installed: pip install lab-files==1.0."
    )
    write_package(site, "1.1")
    before, shards = inodes(root), shards_of_arrays(root)
    done = command(warm, tmp_path, site, *words, *ALONE)
    assert done.returncode == 0, done.stderr
    after = inodes(root)
    assert {name for name in after if after[name] != before[name]} == shards[True]
    # A file that a person names comes before a package.
    done = command(warm, tmp_path, site, *words, *PLUGIN, *ALONE)
    assert done.returncode == 0, done.stderr
    request = json.loads((root / "state" / "request.json").read_text())
    assert request["readers"][".npy"]["kind"] == "file"


def test_a_package_with_a_fault_stops_the_shards_that_need_it_and_is_named(
    warm: Warm,
    tmp_path: Path,
) -> None:
    write_lab(tmp_path)
    write_package(tmp_path / "site", "1.0")
    (tmp_path / "site" / "lab_files" / "__init__.py").write_text("import numpi\n")
    done = command(warm, tmp_path, tmp_path / "site", "prepare", "lab", *SMALL, *ALONE)
    assert done.returncode == 1
    assert (
        "the package lab-files 1.0 offers '.raw' and cannot be used (ModuleNotFoundError: No "
        "module named 'numpi')"
    ) in done.stderr
