"""Tables as spreadsheets save them: each is read, or refused with the sentence that says why."""

import codecs
import json
import shutil
from io import BytesIO
from pathlib import Path

import pytest

from avsnn.datasets_manifest.clips import COLUMNS, Clip
from avsnn.datasets_manifest.table_reader import read_table
from avsnn.errors import UserError
from tests.conftest import SHARED, Command

HEADER = ",".join((*COLUMNS[:3], "split", *COLUMNS[3:]))
ROW = "c0,0,Ren,train,good.wav,,12,plain.png,,34"
TABLE = f"{HEADER}\n{ROW}\nc1,1,Ana,val,good.wav,,12,plain.png,,34\n"


def read(content: bytes) -> tuple[Clip, ...]:
    file = BytesIO(content)
    return tuple(read_table(file, name="mine.csv", classes=["cat", "dog"], part_columns=["split"]))


EXPECTED = read(TABLE.encode())


@pytest.mark.parametrize(
    "content",
    [
        codecs.BOM_UTF8 + TABLE.encode(),
        TABLE.replace(",", ";").encode(),
        TABLE.replace(",", "\t").encode(),
        TABLE.replace("\n", "\r\n").encode(),
        TABLE.replace("\n", "\r").encode(),
        TABLE.rstrip().encode(),
        (TABLE + "\n").encode(),
        (TABLE + "\r\n\r\n").encode(),
        (TABLE + "," * 9 + "\n").encode(),
        TABLE.replace("Ren", '"Ren"').encode(),
        TABLE.encode("utf-16"),
        codecs.BOM_UTF16_BE + TABLE.encode("utf-16-be"),
        TABLE.replace(",", "\t").encode("utf-16"),
        TABLE.encode("utf-32"),
    ],
)
def test_a_table_as_spreadsheets_save_tables_is_read(content: bytes) -> None:
    assert read(content) == EXPECTED


def test_a_group_may_hold_the_separator_in_quotes_and_any_letter() -> None:
    table = TABLE.replace("Ren", '"Rén\u00e9e, the ""2nd"""')
    assert read(table.encode())[0].group == 'Rén\u00e9e, the "2nd"'


@pytest.mark.parametrize(
    ("content", "part_of_message"),
    [
        (TABLE.replace("Ren", "Ren\u00e9").encode("latin-1"), "line 2 is not UTF-8 .*as UTF-8"),
        (TABLE.encode("utf-16-le"), "UTF-16.*as UTF-8"),
        (TABLE.encode("utf-16-be"), "UTF-16.*as UTF-8"),
        (codecs.BOM_UTF16_LE + TABLE.encode("utf-16-le")[:-1], "UTF-16.*is cut"),
        (b"", "has no column 'key'"),
        (HEADER.encode() + b"\n", "has no clips"),
        (HEADER.encode() + b"\n\n\n", "has no clips"),
        (TABLE.replace("Ren", "x" * 140_000).encode(), "line 2: .*131072"),
        (TABLE.replace("c0,0", "c0," + "1" * 5000).encode(), r"label 1+… is no class"),
        (TABLE.replace("c0,0", "c0,\u0661").encode(), "is no class"),
        (TABLE.replace(",12,", "," + "1" * 5000 + ",").encode(), "size of good.wav is not valid"),
        (TABLE.replace("c0", '"c\n0"').encode(), r"key 'c\\n0' is not letters"),
        (TABLE.replace("Ren", '"R\nen"').encode(), r"group 'R\\nen' of clip c0"),
        (TABLE.replace("Ren", '"Ren').encode(), "line 3: unexpected end"),
        (TABLE.replace("Ren", "Ren, the second").encode(), "c0: has 11 fields, the header has 10"),
        (TABLE.replace("Ren", "\x1b[31mRen").encode(), "group .* of clip c0"),
        (TABLE.replace("Ren", "R\0en").encode(), r"line 2: .*NUL|group .* of clip c0"),
        (TABLE.replace(ROW, "c0,0,Ren").encode(), "cut off"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_its_reason(
    content: bytes, part_of_message: str
) -> None:
    with pytest.raises(UserError, match=part_of_message) as error:
        read(content)
    assert str(error.value).startswith("mine.csv: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


SHORT = "key,label,audio_path,visual_path\nc0,dog,a.mp4,a.mp4\nc1,cat,b.mp4,b.mp4\n"


def test_names_of_classes_and_four_columns_are_enough() -> None:
    clips = read_table(
        BytesIO(SHORT.encode()), name="mine.csv", classes=["cat", "dog"], part_columns=[]
    )
    assert [(clip.key, clip.label, clip.group) for clip in clips] == [
        ("c0", 1, "c0"),
        ("c1", 0, "c1"),
    ]
    assert all(clip.audio == clip.visual for clip in clips)
    assert clips[0].audio.sha256 is clips[0].audio.size is None


@pytest.mark.parametrize(
    ("classes", "labels", "expected"),
    [
        (["cat", "dog"], ["1", "0"], [1, 0]),
        (["cat", "dog"], ["1", "cat"], [1, 0]),
        (["1", "2"], ["1", "2"], [0, 1]),
        (["1", "2"], ["0", "1"], [0, 1]),
        (["1", "0"], ["1", "0"], [0, 1]),
        (["caf\u00e9", "dog"], ["cafe\u0301", "dog"], [0, 1]),
    ],
)
def test_a_label_is_the_name_of_a_class_or_its_number(
    classes: list[str], labels: list[str], expected: list[int]
) -> None:
    table = SHORT.replace("c0,dog", f"c0,{labels[0]}").replace("c1,cat", f"c1,{labels[1]}")
    clips = read_table(BytesIO(table.encode()), name="mine.csv", classes=classes, part_columns=[])
    assert [clip.label for clip in clips] == expected


def test_the_tables_that_avsnn_writes_hold_numbers_whatever_the_classes_are_called() -> None:
    file = BytesIO(SHORT.replace("dog", "1").replace("cat", "2").encode())
    of = {"name": "mine.csv", "classes": ["0", "2", "1"], "part_columns": []}
    assert [clip.label for clip in read_table(file, **of)] == [2, 1]
    assert [clip.label for clip in read_table(file, **of, labels_are_numbers=True)] == [
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("old", "new", "part_of_message"),
    [
        ("c0,dog", "c0,dgo", r"clip c0: label dgo is no class; did you mean dog\?"),
        ("visual_path", "visualpath", r"no column 'visual_path'; did you mean visualpath\?"),
        ("c1", "c0", "key c0 occurs twice"),
        ("c0,dog,a.mp4,a.mp4\nc1", "\u00e9,dog,a.mp4,a.mp4\ne\u0301", "key \u00e9 occurs twice"),
    ],
)
def test_a_mistake_in_a_short_table_is_said_with_the_right_word(
    old: str, new: str, part_of_message: str
) -> None:
    table = SHORT.replace(old, new).encode()
    with pytest.raises(UserError, match=part_of_message):
        read_table(BytesIO(table), name="mine.csv", classes=["cat", "dog"], part_columns=[])


MANIFEST = """\
name: {name}
title: Mine
description: Two clips
licence: none
visual: image
group: speaker
classes: [a, b]
table: {name}.csv
kaggle: nobody/nothing
default_split: published
splits:
  published:
    column: split
"""


@pytest.mark.parametrize(("case", "clips"), [("bom", 8), ("semicolons", 8), ("latin1_group", None)])
def test_the_tables_of_the_field(
    avsnn: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
    clips: int | None,
) -> None:
    file = SHARED / "cases" / "files" / f"{case}.csv"
    if not file.exists():
        pytest.skip("needs the cases from the field, which only developers have")
    name = case.replace("_", "-")
    shutil.copyfile(file, tmp_path / f"{name}.csv")
    (tmp_path / f"{name}.yaml").write_text(MANIFEST.format(name=name))
    monkeypatch.setenv("AVSNN_DATASETS", str(tmp_path))
    done = avsnn("datasets", "check", name, "--json")
    if clips is None:
        assert done.returncode == 2
        assert f"{name}.csv: line 2 is not UTF-8" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        parts = json.loads(done.stdout)["clips"].values()
        assert sum(sum(part.values()) for part in parts) == clips
