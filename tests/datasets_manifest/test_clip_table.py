"""Clips and files are columns, and become the objects of the table when they are asked for."""

from io import BytesIO

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from avsnn.datasets_manifest.clip_table import ClipTable, FilesOfRecordings
from avsnn.datasets_manifest.clips import COLUMNS, Clip, MediaFile
from avsnn.datasets_manifest.table_reader import ROWS_AT_ONCE, read_table
from avsnn.datasets_manifest.text_columns import TextSearch, texts_of

# Some files are shared by several clips, and some clips have one file for picture and sound.
PATHS = [f"folder/{name}" for name in ("a", "b", "é", "d" * 60)]
clips_of_tables = st.lists(
    st.tuples(st.sampled_from(PATHS), st.sampled_from(PATHS), st.integers(0, 1)), min_size=1
)
DIGESTS = {path: f"{number:x}" * 64 for number, path in enumerate(PATHS[:3])}


def table(rows: list[tuple[str, str, int]]) -> ClipTable:
    lines = [",".join((*COLUMNS, "split"))]
    for number, (audio, visual, label) in enumerate(rows):
        files = (f"{path},{DIGESTS.get(path, '')},{len(path)}" for path in (audio, visual))
        lines.append(f"k{number},{label},g{number % 3},{','.join(files)},train")
    file = BytesIO("\n".join(lines).encode())
    return read_table(file, name="mine.csv", classes=["cat", "dog"], part_columns=["split"])


def media_file(path: str) -> MediaFile:
    return MediaFile(path, DIGESTS.get(path), len(path))


@given(clips_of_tables)
def test_clips_and_files_are_those_of_the_table(rows: list[tuple[str, str, int]]) -> None:
    clips = table(rows)
    expected = [
        Clip(
            f"k{number}",
            label,
            f"g{number % 3}",
            {"split": "train"},
            media_file(audio),
            media_file(visual),
        )
        for number, (audio, visual, label) in enumerate(rows)
    ]
    assert list(clips) == [clips[i] for i in range(len(clips))] == expected
    assert clips[-1] == expected[-1]
    assert list(clips[1:3]) == expected[1:3]
    backwards = np.arange(len(clips))[::-1]
    assert list(clips.take(backwards)) == expected[::-1]
    assert clips.find(["k0", "k", f"k{len(rows) - 1}"]).tolist() == [0, -1, len(rows) - 1]

    paths = [*dict.fromkeys(path for audio, visual, _ in rows for path in (audio, visual))]
    files = clips.files
    assert list(files) == [files[i] for i in range(len(files))] == [*map(media_file, paths)]
    assert files.sizes.tolist() == [len(path) for path in paths]
    assert files.find([*paths, "nothing"]).tolist() == [*range(len(paths)), -1]
    numbers = files.numbers_of(clips).tolist()
    assert [[paths[a], paths[v]] for a, v in numbers] == [list(row[:2]) for row in rows]
    for (clip, file), path in zip(files.with_clips(), paths, strict=True):
        assert file.path == path
        assert clip == next(one for one in expected if file in one.files)


def test_a_table_of_many_blocks_is_read_in_order() -> None:
    rows = [(f"{n}.wav", f"{n}.png", 0) for n in range(2 * ROWS_AT_ONCE + 5)]
    clips = table(rows)
    assert [clip.audio.path for clip in clips] == [audio for audio, _, _ in rows]
    assert len(clips.files) == 2 * len(rows)


def test_files_of_many_recordings_stand_once_and_belong_to_no_clip() -> None:
    files = FilesOfRecordings([MediaFile("a.h5", None, 7), MediaFile("b.h5", None, None)])
    assert files.sizes.tolist() == [7, -1]
    assert files.find(["b.h5", "c.h5"]).tolist() == [1, -1]
    assert [clip for clip, _ in files.with_clips()] == [None, None]


def test_texts_of_one_hash_are_told_apart() -> None:
    texts = texts_of(["b", "a", "b", "c", "a"])
    search = TextSearch(np.zeros(5, np.int64), texts.__getitem__)
    numbers, first = search.distinct()
    assert (numbers.tolist(), first.tolist()) == ([0, 1, 0, 2, 1], [0, 1, 3])
