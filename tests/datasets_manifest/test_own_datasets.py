"""A mistake in a folder of the user's own data sets is said, and hides no other data set."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from avsnn.datasets_manifest import load, schema
from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE, user_folder
from avsnn.errors import UserError
from tests.conftest import Command

SHIPPED = Path(schema.__file__).parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data sets ``table`` (two clips) and ``layout``."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name, model in (("table", "av-digits"), ("layout", "urbansound8k-av")):
        text = (SHIPPED / f"{model}.yaml").read_text()
        text = text.replace(f"name: {model}", f"name: {name}").replace(f"{model}.csv", "table.csv")
        (folder / f"{name}.yaml").write_text(text)
    rows = (SHIPPED / "av-digits.csv").read_text().splitlines()[:3]
    (folder / "table.csv").write_text("\n".join(rows))
    monkeypatch.setenv(USER_FOLDER_VARIABLE, str(folder))
    return folder


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        text = (folder / f"{name}.yaml").read_text()
        assert old in text
        (folder / f"{name}.yaml").write_text(text.replace(old, new))

    return apply


def make_folder(folder: Path) -> None:
    (folder / "table.yaml").unlink()
    (folder / "table.yaml").mkdir()


def make_pipe(folder: Path) -> None:
    (folder / "table.yaml").unlink()
    os.mkfifo(folder / "table.yaml")


def write(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "table.yaml").write_bytes(content)


GROUP = r"(?P<group>\d+)-(?P<label>\d+)-\d+-\d+"

MISTAKES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no YAML": ("table", edit("table", "visual: image", "visual: ["), "is not YAML .*line"),
    "a pipe": ("table", make_pipe, "table.yaml cannot be read: it is a pipe"),
    "a folder": ("table", make_folder, "table.yaml cannot be read: Is a directory"),
    "a link to nothing": (
        "table",
        lambda folder: (
            (folder / "table.yaml").unlink(),
            (folder / "table.yaml").symlink_to("gone"),
        ),
        "table.yaml cannot be read: No such file",
    ),
    "another suffix": (
        "table",
        lambda folder: (folder / "table.yaml").rename(folder / "table.yml"),
        r"call it table\.yaml",
    ),
    "not UTF-8": ("table", write(b"name: caf\xe9"), "is not YAML"),
    "empty": ("table", write(b""), "the whole file"),
    "nested too deeply": ("table", write(b"[" * 5000), "is not YAML"),
    "a number too long": ("table", write(b"name: " + b"1" * 5000), "is not YAML"),
    "no date": ("table", write(b"name: 2001-99-99"), "is not YAML"),
    "two classes of one name": (
        "table",
        edit("table", '"1", "2"', '"1", "1"'),
        "two classes are called '1'",
    ),
    "a class that is no text": ("table", edit("table", '"1", "2"', r'"\e[31m", "2"'), "classes"),
    "a pattern of twins": (
        "table",
        edit("table", "default_split", "twins: {what: x, pattern: '('}\ndefault_split"),
        "twins.pattern: .*regular expression",
    ),
    "a stem": ("layout", edit("layout", GROUP, "(?P<group>"), "layout.stem: .*regular expression"),
    "a stem without group": ("layout", edit("layout", GROUP, r"\d+"), "layout: .*'group'"),
    "one folder for both": (
        "layout",
        edit("layout", "Dataset_v3_vision", "Dataset_v3_sound"),
        "layout: .*the same folder",
    ),
    "a folder outside": ("layout", edit("layout", "Dataset_v3_vision", "../x"), "layout.visual"),
    "a bad clip that is no clip": (
        "table",
        edit("table", "default_split", "known_bad: {nobody: why}\ndefault_split"),
        "known_bad: .*nobody",
    ),
    "a table that is no UTF-8": (
        "table",
        lambda folder: (folder / "table.csv").write_bytes(b"key,\xe9"),
        "table.csv: line 1 is not UTF-8",
    ),
    "a table that is a folder": (
        "table",
        lambda folder: ((folder / "table.csv").unlink(), (folder / "table.csv").mkdir()),
        "table.csv is not beside it",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_in_one_sentence(folder: Path, mistake: str) -> None:
    name, make, part_of_message = MISTAKES[mistake]
    make(folder)
    with pytest.raises(UserError, match=part_of_message) as error:
        _ = load(name).clips
    assert "\n" not in str(error.value)
    assert len(load("av-digits").clips) == 3000


@pytest.mark.parametrize("mistake", ["no YAML", "a folder", "a table that is no UTF-8"])
def test_a_mistake_hides_no_other_data_set(
    avsnn: Command, folder: Path, small_demo: Path, mistake: str
) -> None:
    _, make, _ = MISTAKES[mistake]
    make(folder)
    listed = avsnn("datasets", "--root", small_demo)
    assert listed.returncode == 0, listed.stderr
    assert "Shapes and tones" in listed.stdout
    assert "prepared here  72 clips" in listed.stdout
    rows = json.loads(avsnn("datasets", "--json", "--root", small_demo).stdout)
    faults = {row["name"]: row["fault"] for row in rows}
    assert {"demo", "crema-d", "layout"} <= {name for name, fault in faults.items() if not fault}
    assert "table" in faults["table"]
    assert faults["table"] in " ".join(listed.stdout.split())

    status = avsnn("status", "--root", small_demo)
    assert status.returncode == 0, status.stderr
    assert "featurize" in status.stdout or "extract" in status.stdout
    if "table that" not in mistake:
        assert faults["table"] in " ".join(status.stdout.split())


@pytest.mark.parametrize("name", ["request.json", "../prepared.json", "../index/*/clips.jsonl"])
def test_a_damaged_file_of_one_data_set_hides_no_other(
    avsnn: Command, folder: Path, small_demo: Path, tmp_path: Path, name: str
) -> None:
    root = Path(shutil.copytree(small_demo, tmp_path / "data"))
    (damaged,) = (root / "demo").glob(f"state/{name}")
    damaged.write_bytes(b"[")
    for command in ("datasets", "status"):
        done = avsnn(command, "--root", root)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    listed = avsnn("datasets", "--root", root).stdout
    assert "Emotions of actors" in listed
    if name != "../prepared.json":
        assert "is damaged" in avsnn("status", "--root", root).stdout
    else:
        assert "is damaged" in listed


def test_hidden_files_are_no_data_sets(avsnn: Command, folder: Path) -> None:
    (folder / "._table.yaml").write_bytes(b"\x00\x05\x16\x07")
    (folder / ".yaml").write_bytes(b"")
    rows = json.loads(avsnn("datasets", "--json").stdout)
    assert not any(row["fault"] for row in rows)


def test_a_file_name_that_is_not_utf_8_is_listed(avsnn: Command, folder: Path) -> None:
    (folder / "caf\udce9.yaml").write_bytes(b"")
    done = avsnn("datasets")
    assert done.returncode == 0, done.stderr
    assert r"caf\udce9" in done.stdout


def test_the_folder_of_the_user_is_always_searched_and_a_named_folder_comes_first(
    avsnn: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(USER_FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert user_folder() == tmp_path / "config" / "avsnn" / "datasets"
    shutil.copytree(folder, user_folder())
    edit("table", "title: ", "title: Mine, ")(user_folder())
    assert load("table").title.startswith("Mine, ")
    titles = {
        row["name"]: row.get("title")
        for row in json.loads(avsnn("datasets", "--json", "--datasets", folder).stdout)
    }
    assert not titles["table"].startswith("Mine, ")
    (folder / "table.yaml").unlink()
    rows = json.loads(avsnn("datasets", "--json", "--datasets", folder).stdout)
    assert any(row.get("title", "").startswith("Mine, ") for row in rows)


def test_a_folder_that_is_not_there_is_said_in_one_sentence(avsnn: Command) -> None:
    done = avsnn("status", "--datasets", "nowhere")
    assert done.returncode == 2
    assert "nowhere is not a folder; --datasets or the environment variable" in done.stderr


def test_a_link_to_a_yaml_finds_the_table_and_the_folder_beside_the_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit("table", "sources:", "folder: clips\nold:")(folder)
    text = (folder / "table.yaml").read_text()
    start, end = text.index("old:"), text.index("default_split")
    (folder / "table.yaml").write_text(text[:start] + text[end:])
    links = tmp_path / "links"
    links.mkdir()
    (links / "table.yaml").symlink_to(folder / "table.yaml")
    monkeypatch.setenv(USER_FOLDER_VARIABLE, str(links))
    assert load("table").folder == str(folder / "clips")
    assert len(load("table").clips) == 2
