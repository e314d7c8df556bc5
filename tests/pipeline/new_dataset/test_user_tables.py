"""Tables that people write: encodings, separators, and which column holds what."""

import codecs
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsnn.errors import UserError
from avsnn.pipeline.new_dataset.draft import Arrangement
from avsnn.pipeline.new_dataset.found_files import FoundFile, FoundFiles
from avsnn.pipeline.new_dataset.oddities import Oddities
from avsnn.pipeline.new_dataset.user_tables import arrange_table, decode_table

VIDEOS = [f"clips/{name}.mp4" for name in ("a", "b", "c", "d", "é 1")]


def read(folder: Path, content: str | bytes, odd: Oddities | None = None) -> Arrangement | None:
    table = folder / "my table.csv"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    none: list[FoundFile] = []
    videos = [FoundFile(path, 1) for path in VIDEOS]
    found = FoundFiles(videos, none, none, none, none, none, none)
    return arrange_table([table], found, odd or Oddities())


def labels(arrangement: Arrangement | None) -> dict[str, str]:
    assert arrangement is not None
    return {draft.visual: draft.label for draft in arrangement.drafts}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (b"", "utf-16-le"),
        (b"", "utf-16-be"),
        (b"", "cp1252"),
    ],
)
def test_every_encoding_and_separator_of_spreadsheets_is_read(
    tmp_path: Path, separator: str, mark: bytes, encoding: str
) -> None:
    rows = [["File", "Class"], ["clips/a.mp4", "häh"], ["clips/é 1.mp4", "quiet"]]
    text = "\r\n".join(separator.join(row) for row in rows)
    found = labels(read(tmp_path, mark + text.encode(encoding)))
    assert found == {"clips/a.mp4": "häh", "clips/é 1.mp4": "quiet"}


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff")))
def test_a_text_in_utf_16_with_a_mark_is_read_back(text: str) -> None:
    assert decode_table(codecs.BOM_UTF16_LE + text.encode("utf-16-le"), "t") == text


@given(st.binary())
def test_any_bytes_are_a_text_or_one_sentence(content: bytes) -> None:
    try:
        decode_table(content, "t")
    except UserError as error:
        assert "; save the " in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "value",
    [
        *("clips/{}.mp4", "./clips/{}.mp4", "C:\\data\\clips\\{}.mp4", "{}.mp4", "{}", "/x/{}"),
        *("Clips/{}.MP4", "{}.avi"),
    ],
)
def test_files_are_found_by_path_or_name(tmp_path: Path, value: str) -> None:
    rows = "".join(f"{value.format(name)},{'xy'[i % 2]}\n" for i, name in enumerate("abcd"))
    found = labels(read(tmp_path, f"where,emotion\n{rows}"))
    assert found == dict(zip(VIDEOS[:4], "xyxy", strict=True))


def test_columns_are_recognised_and_named(tmp_path: Path) -> None:
    content = """\
id,label,Emotion,speakerID,age,Usage,clip
1,0,angry,s1,31,Training,a.mp4
2,1,happy,s1,31,Training,b.mp4
3,0,angry,s2,44,dev,c.mp4
4,1,happy,s2,44,TEST,d.mp4
"""
    found = read(tmp_path, content)
    assert labels(found) == dict(zip(VIDEOS[:4], ["angry", "happy"] * 2, strict=True))
    assert found is not None
    assert [draft.part for draft in found.drafts] == ["train", "train", "val", "test"]
    assert [draft.group for draft in found.drafts] == ["s1", "s1", "s2", "s2"]
    assert found.group_word == "speaker"
    assert found.notes == [
        "Columns of my table.csv: file = clip, class = Emotion, group = speakerID, part = Usage.",
        "Columns that are not used: id, label, age.",
    ]


def test_german_columns_are_recognised_and_an_unknown_column_may_be_the_speaker(
    tmp_path: Path,
) -> None:
    rows = "Datei;Klasse;Sprecher\na.mp4;laut;s1\nb.mp4;leise;s1\nc.mp4;laut;s2\nd.mp4;leise;s2\n"
    found = read(tmp_path, rows)
    assert labels(found) == dict(zip(VIDEOS[:4], ["laut", "leise"] * 2, strict=True))
    assert found is not None
    assert [draft.group for draft in found.drafts] == ["s1", "s1", "s2", "s2"]
    found = read(tmp_path, rows.replace("Sprecher", "Wer"))
    assert found is not None
    assert found.notes[-1].endswith(
        "not used: Wer. If one of them holds the speaker, name it 'speaker'."
    )


def test_a_table_may_have_no_header(tmp_path: Path) -> None:
    found = read(tmp_path, "a.mp4,x\nb.mp4,y\nc.mp4,x\nd.mp4,y\n")
    assert labels(found) == dict(zip(VIDEOS[:4], "xyxy", strict=True))
    assert found is not None
    assert found.notes == ["Columns of my table.csv: file = column 1, class = column 2."]


def test_a_table_without_files_is_no_table_of_clips(tmp_path: Path) -> None:
    assert read(tmp_path, "name,class\nx,1\ny,2\n") is None


def test_a_table_without_a_sure_class_is_refused_with_the_columns(tmp_path: Path) -> None:
    rows = "".join(f"{name}.mp4,{i % 2},{i // 2}\n" for i, name in enumerate("abcd"))
    with pytest.raises(UserError, match=r"could be: one, two\); name the column .* 'class'"):
        read(tmp_path, f"file,one,two\n{rows}")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("file,class\na.mp4,x\nb.mp4,x\n", "'class' holds 1 value in 2 rows; a data set needs"),
        ("file,class\na.mp4,0.1\nb.mp4,0.2\n", "'class' holds 2 different values, or measures"),
        ("PK\x03\x04", "my table.csv is a workbook of a spreadsheet; save the sheet as CSV"),
    ],
)
def test_a_table_without_classes_is_refused_with_the_reason(
    tmp_path: Path, content: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        read(tmp_path, content)


def test_the_line_by_which_excel_learns_the_separator_is_no_header(tmp_path: Path) -> None:
    found = read(tmp_path, "sep=;\r\nfile;class\r\na.mp4;x\r\nb.mp4;y\r\n")
    assert found is not None
    assert found.notes == ["Columns of my table.csv: file = file, class = class."]


def test_rows_that_cannot_be_used_are_odd(tmp_path: Path) -> None:
    odd = Oddities()
    content = "file,class\na.mp4,x\nb.mp4,y\nnone.mp4,y\na.mp4,y\nc.mp4,\n"
    assert labels(read(tmp_path, content, odd)) == dict(zip(VIDEOS[:2], "xy", strict=True))
    assert [str(one) for one in odd.all()] == [
        "clips/c.mp4 is in no row of the table (and 2 more files)",
        "row 6 (c.mp4) has no class",
        "row 5 (a.mp4) names a file that an earlier row names",
        "row 4 (none.mp4) names a file that is not there or cannot be used",
    ]
