"""Tables of one's own: what a person may write, and what a wrong file is told."""

from pathlib import Path

import pytest

from avsnn.errors import UserError
from avsnn.pipeline.experiments.read_table import choose_rows, load_table

OWN = """\
title: What the residual does
rows:
  - s-cmrl
  - no residual: {preset: s-cmrl, model.alpha: 0}
  - small steps: {model: {steps: 2}, optimizer.base_lr: 1.0e-3}
  - 0.5: {model.alpha: 0.5}
  - best: healthy
  - name: mine
    preset: mine.yaml
    published: {demo: 61.5}
grid:
  model.method: [add, audio]
  model.steps: [2, 4]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "own.yaml"
    path.write_text(text)
    return path


def test_a_table_file_holds_presets_named_settings_and_a_grid(tmp_path: Path) -> None:
    table = load_table(str(write(tmp_path, OWN)))
    assert (table.name, table.title) == ("own", "What the residual does")
    assert [(row.name, row.preset, row.settings) for row in table.rows] == [
        ("s-cmrl", "s-cmrl", []),
        ("no residual", "s-cmrl", ["model.alpha=0"]),
        ("small steps", None, ["model.steps=2", "optimizer.base_lr=0.001"]),
        ("0.5", None, ["model.alpha=0.5"]),
        ("best", "healthy", []),
        ("mine", str(tmp_path / "mine.yaml"), []),
        ("method=add steps=2", None, ["model.method=add", "model.steps=2"]),
        ("method=add steps=4", None, ["model.method=add", "model.steps=4"]),
        ("method=audio steps=2", None, ["model.method=audio", "model.steps=2"]),
        ("method=audio steps=4", None, ["model.method=audio", "model.steps=4"]),
    ]
    assert table.rows[5].published == {"demo": 61.5}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "it has no 'rows', such as"),
        ("- add", "it has no 'rows', such as"),
        ("rows: add", "'rows' is 'add', and must be a list"),
        ("rows: {a: {model.alpha: 0}}", "'rows' is {a: {model.alpha: 0}}, and must be a list"),
        ("rows: []", "it has 0 rows; a table has 1 to 1,000"),
        (
            "rows: [add, taaf]",
            "row 'taaf': taaf is a method and no preset; write '- taaf: {model.method: taaf}'",
        ),
        ("rows: [add, ad]", "row 'ad': no preset is called 'ad'; did you mean add?"),
        ("rows: [add, add]", "two rows are called 'add'"),
        ("rows: [add]\nrow: [s-cmrl]", "no place for 'row'; did you mean rows?"),
        ("rows: [{model.alpha: 0, model.steps: 2}]", "has no name: write 'NAME: {model.alpha: 0"),
        ("rows: [add, [1, 2]]", "[1, 2] is no name of a row"),
        ('rows: [{"two\\nlines": {}}]', "must have 1 to 100 characters in one line"),
        ("rows: [a: {preset: 3}]", "row 'a': no preset is called 3"),
        ("rows: [a: {published: many}]", "row 'a': published"),
        ('rows: [a: {"model.alpha=1 ": 3}]', "'model.alpha=1 ' is no name of a setting"),
        ("rows: [a: {1: 3}]", "1 is no name of a setting"),
        ("grid: {model.alpha: 1}", "'grid' has no list of values for model.alpha, such as"),
        ("grid: {a: &x [1], b: *x}", "an alias is not allowed in line 1"),
        (f"grid: {{{', '.join(f'k{i}: [1, 2]' for i in range(40))}}}", "'grid' makes 1,099,511,"),
        ("title: x\nrows: [add", "in line 2"),
        ("rows: " + "[" * 5_000, "more than 50 levels of nesting"),
        ("x" * 1_000_001, "it has more than 1,000,000 bytes"),
    ],
)
def test_a_wrong_table_is_told_what_is_wrong_and_where(
    tmp_path: Path, text: str, sentence: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_table(str(path))
    assert str(caught.value).startswith(f"the table {path} cannot be used: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_file_that_cannot_be_a_table_is_one_sentence(tmp_path: Path) -> None:
    write(tmp_path, "rows: [add]")
    (tmp_path / "methods.yaml").write_text("rows: [add]")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"title: caf\xe9\nrows: [add]")
    for name, sentence in (
        ("owm.yaml", "there is no table file .*; did you mean own.yaml?"),
        ("methods.yaml", "has the name of the published table 'methods'"),
        ("folder.yaml", "cannot be read: Is a directory"),
        ("latin.yaml", "cannot be used: it is not text in UTF-8"),
    ):
        with pytest.raises(UserError, match=sentence):
            load_table(str(tmp_path / name))


def test_rows_are_chosen_by_name_or_by_preset_and_keep_the_order_of_the_table() -> None:
    for words, names in (
        ("s-cmrl,add,audio", ["audio", "audio-visual (add)", "S-CMRL"]),
        ("CMCI, visual", ["visual", "CMCI"]),
    ):
        assert [row.name for row in choose_rows(load_table("methods"), words)] == names
    rows = choose_rows(load_table("attention"), "spatial, aligned,temporal")
    assert [row.name for row in rows] == ["temporal", "spatial, aligned"]
    for words in ("", "add,", "add,nothing"):
        with pytest.raises(UserError, match="the table methods has no row"):
            choose_rows(load_table("methods"), words)
