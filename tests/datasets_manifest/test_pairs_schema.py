"""Mistakes in the field ``pairs`` of a YAML file; each is refused with one sentence."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from avsnn.datasets_manifest import load
from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from avsnn.errors import UserError

SOURCES = [{"prefix": "", "url": "https://example.org/"}]


@pytest.mark.parametrize(
    ("place", "value", "part_of_message"),
    [
        ("pairs.visual.path", "(", "is no regular expression"),
        ("pairs.visual.path", r"(?P<part>Train)\.zip/.*", "no group named 'label'"),
        ("pairs.visual.labels", {"0": 10}, "label 10 is no class"),
        ("pairs.visual.labels", {}, "at least 1 item"),
        ("pairs.visual.files.0.path", "../Train.zip", "pattern"),
        ("pairs.visual.files.1.path", "Train.zip", "two files of pairs are called 'Train.zip'"),
        ("pairs.audio.files.0.packed_as", "Train.zip", "two files of pairs are called"),
        ("pairs.audio.files.1.packed_as", "shd_train.h5.zip", "two files of pairs are called"),
        ("pairs.visual.files.0.path", "Train.tar", "Train.tar.*must end in .zip"),
        ("pairs.audio.files.0.path", "shd_train.hdf", "shd_train.hdf.*must end in .h5 or .hdf5"),
        ("splits.published.column", "fold", "the column 'fold', and the table of pairs has only"),
        (
            "pairs.audio.path",
            r"shd_(?P<part>train|test)\.h5/\d+-\d+-(?P<label>\d+)",
            "split 'speaker' needs groups",
        ),
        ("table", "mine.csv", "a table, a layout or pairs"),
        ("audio", "sound", "both recordings of event sensors"),
        ("sources", [{"prefix": "Train", "url": "https://example.org/"}], "no source holds"),
        ("generated", True, "avsnn generates no files of pairs"),
    ],
)
def test_a_mistake_in_pairs_is_refused_with_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    value: object,
    part_of_message: str,
) -> None:
    facts = load("nmnist-shd").model_dump(mode="json", exclude_defaults=True) | {
        "sources": [] if place == "generated" else SOURCES,
        "name": "mine",
    }
    *folders, last = (int(name) if name.isdigit() else name for name in place.split("."))
    inside: Any = facts
    for name in folders:
        inside = inside[name]
    inside[last] = value
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(facts))
    monkeypatch.setenv(USER_FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match=part_of_message) as error:
        load("mine")
    assert "\n" not in str(error.value)
