"""A mistake in a YAML of one's own is answered with what to write instead."""

from pathlib import Path

import pytest
import yaml

from avsnn.datasets_manifest import load
from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from avsnn.errors import UserError

FACTS = {
    "name": "mine",
    "title": "Mine",
    "description": "Two clips",
    "licence": "none",
    "visual": "video",
    "group": "none",
    "classes": ["cat", "dog"],
    "table": "mine.csv",
    "folder": "clips",
    "default_split": "random",
    "splits": {"random": {"test_share": 0.2, "val_share": 0.2}},
}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (
            {"licnce": "MIT", "licence": None},
            ["there is no field 'licnce'", "did you mean licence?"],
        ),
        ({"licence": None}, ["the field licence is missing", "such as licence: private"]),
        ({"splits": None}, ["such as splits: {random: {test_share: 0.2, val_share: 0.2}}"]),
        ({"visual": "vidoe"}, ["'vidoe'", "did you mean video?"]),
        ({"take": "symlink"}, ["did you mean link?"]),
        ({"classes": "cat, dog"}, ["classes must be a list, such as [cat, dog], not 'cat, dog'"]),
        ({"classes": [False, True]}, ["classes.0 must be text", "in quotes"]),
        ({"classes": ["cat"]}, ["at least 2 items, not 1"]),
        ({"name": "My Clips"}, ["name cannot be 'My Clips'", "small letters, digits and hyphens"]),
        ({"name": "yours"}, ["write name: mine"]),
        (
            {"splits": {"random": {"test_shar": 0.2, "val_share": 0.2}}},
            ["did you mean test_share?"],
        ),
        (
            {"splits": {"random": {"test_share": 0.2}}},
            ["below splits.random, such as val_share: 0.2"],
        ),
        ({"splits": {"random": {"tests": 20}}}, ["a rule of a split has the field column, or"]),
        ({"splits": {"random": {"test_share": 20, "val_share": 0.2}}}, ["less than 1"]),
        ({"splits": "random"}, ["splits must be lines of the form 'name: value'"]),
        ({"folder": None}, ["one of folder, sources, kaggle and generated", "'folder: FOLDER'"]),
        ({"kaggle": "a/b"}, ["one of folder, sources, kaggle and generated"]),
        ({"take": "copy", "folder": None, "kaggle": "a/b"}, ["there is no folder"]),
        ({"layout": {"audio": "a"}}, ["below layout, such as audio_suffix: "]),
    ],
)
def test_a_mistake_is_answered_with_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], parts: list[str]
) -> None:
    facts = {name: value for name, value in {**FACTS, **changes}.items() if value is not None}
    monkeypatch.setenv(USER_FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(facts))
    with pytest.raises(UserError) as error:
        load("mine")
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("title: Cats: and dogs", "line 1: .*put a text that holds a colon in quotes"),
        ("splits:\n\trandom: 1", "line 2: .*indent with spaces and not with tabs"),
        ("- a", "the whole file must be lines of the form 'field: value'"),
        ("", "the whole file must be lines of the form 'field: value'"),
    ],
)
def test_a_text_of_another_form_is_answered_with_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, part: str
) -> None:
    monkeypatch.setenv(USER_FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=part):
        load("mine")


def test_a_value_without_end_is_shown_by_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    facts = yaml.safe_dump({**FACTS, "title": None}).replace("title: null", "title: *a11")
    monkeypatch.setenv(USER_FOLDER_VARIABLE, str(tmp_path))
    for text in ("\n".join(lines), "\n".join([*lines, facts])):
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(UserError) as error:
            load("mine")
        assert len(str(error.value)) < 600
    (tmp_path / "mine.yaml").write_text("known_bad:\n" + "\n".join(f"  {line}" for line in lines))
    with pytest.raises(UserError):
        load("mine")
