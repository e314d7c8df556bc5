from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from avsnn.errors import UserError
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.formats.clip_index import (
    PART_OF_CODE,
    IndexRow,
    SizedRow,
    find_hashes,
    open_index,
    write_index,
)
from avsnn.pipeline.formats.column_files import TextPacker, unpack_texts
from avsnn.pipeline.formats.membership import hash_order, hash_rank, key_hashes

CLASSES = ("cat", "dög", 'a "bird"')
KEYS = sorted([*(f"clip-{n}" for n in range(50)), "é-1", "ﬀ"], key=hash_rank)


def rows() -> Iterator[SizedRow]:
    for number, key in enumerate(KEYS):
        part, label = PART_OF_CODE[number % 4], number % 3
        row = IndexRow(
            key=key,
            label=label,
            label_name=CLASSES[label],
            group=f"group {number // 5}",
            part=part,
            splits={"random": part, "speaker": PART_OF_CODE[number % 3]},
            audio=f"sound/{key}.wav",
            visual=f"image/{key}.png",
            sha256={f"sound/{key}.wav": "0" * 64, f"image/{key}.png": "1" * 64},
        )
        yield SizedRow(row, 1000 * number)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert write_index(tmp_path, rows(), classes=CLASSES, splits=["random", "speaker"]) == len(KEYS)
    return tmp_path


def test_the_columns_say_of_each_clip_what_its_line_says(folder: Path) -> None:
    index, wanted = open_index(folder), [row for row, _ in rows()]
    lines = (folder / "clips.jsonl").read_bytes().splitlines()
    assert [IndexRow.model_validate_json(line) for line in lines] == wanted
    assert list(index.rows()) == wanted
    assert list(index.rows([7, 3, 3, len(KEYS) - 1])) == [wanted[n] for n in (7, 3, 3, -1)]
    assert index.keys.tolist() == KEYS
    assert index.groups.tolist() == [row.group for row in wanted]
    assert [index.label_names[label] for label in index.labels] == [r.label_name for r in wanted]
    assert index.parts.keys() == {"random", "speaker"}
    for split, codes in index.parts.items():
        assert [PART_OF_CODE[code] for code in codes] == [row.splits[split] for row in wanted]
    assert [PART_OF_CODE[code] for code in index.part] == [row.part for row in wanted]
    assert index.sizes.tolist() == [1000 * number for number in range(len(KEYS))]
    assert (index.hashes == key_hashes(KEYS)).all()
    assert (hash_order(index.hashes) == np.arange(len(KEYS))).all()
    assert [f"{a:016x}{b:016x}" for a, b in index.sources.tolist()] == [
        row.source[:32] for row in wanted
    ]


def test_clips_are_found_by_their_keys(folder: Path) -> None:
    index = open_index(folder)
    wanted = [KEYS[5], "no-such-clip", KEYS[0], KEYS[-1]]
    assert index.find(wanted).tolist() == [5, -1, 0, len(KEYS) - 1]
    assert index.find([]).tolist() == []


def test_hashes_that_begin_alike_are_told_apart() -> None:
    known = np.array([[1, 5], [2, 3], [2, 4], [2, 9], [7, 0]], np.uint64)
    wanted = np.array([[2, 9], [2, 3], [2, 5], [2, 10], [0, 0], [8, 1], [7, 0]], np.uint64)
    assert find_hashes(known, wanted).tolist() == [3, 1, -1, -1, -1, -1, 4]
    assert find_hashes(known[:0], wanted).tolist() == [-1] * 7


@pytest.mark.parametrize("split", ["random", "speaker", "unknown"])
def test_the_fingerprint_is_that_of_earlier_versions(folder: Path, split: str) -> None:
    facts = [(row.key, row.label, row.label_name, row.splits.get(split)) for row, _ in rows()]
    assert open_index(folder).fingerprint(split) == fingerprint(sorted(facts))


def test_an_index_without_clips_can_be_read(tmp_path: Path) -> None:
    assert write_index(tmp_path, [], classes=CLASSES, splits=["random"]) == 0
    index = open_index(tmp_path)
    assert (len(index), list(index.rows()), index.keys.tolist()) == (0, [], [])
    assert index.find(["a"]).tolist() == [-1]
    assert index.fingerprint("random") == fingerprint([])


def test_the_bytes_depend_on_the_rows_alone(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    again = tmp_path_factory.mktemp("again")
    write_index(again, rows(), classes=CLASSES, splits=["random", "speaker"])
    for name in ("clips.jsonl", "clips.npz"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def write_rubbish(path: Path) -> None:
    path.write_bytes(b"\x93NUMPY rubbish")


def other_lines(path: Path) -> None:
    """Write the columns of fewer clips."""
    lines = (path.parent / "clips.jsonl").read_bytes()
    write_index(path.parent, [*rows()][:9], classes=CLASSES, splits=["random", "speaker"])
    (path.parent / "clips.jsonl").write_bytes(lines)


def other_types(path: Path) -> None:
    with np.load(path) as found:
        columns = dict(found)
    np.savez(path, **columns | {"hashes": columns["hashes"].astype(np.float64)})


def compressed(path: Path) -> None:
    with np.load(path) as found:
        np.savez_compressed(path, **found)


def impossible_values(path: Path) -> None:
    with np.load(path) as found:
        columns = dict(found)
    columns |= {"labels": columns["labels"] + 3, "parts": columns["parts"] + 4}
    np.savez(path, **columns | {"keys_ends": -columns["keys_ends"]})


def read_everything(folder: Path) -> None:
    index = open_index(folder)
    _ = index.keys, index.groups, index.hashes, index.sources, index.sizes, index.labels
    _ = index.parts, index.part, list(index.rows())


@pytest.mark.parametrize(
    "damage", [cut, flip, write_rubbish, other_lines, other_types, compressed, impossible_values]
)
def test_damaged_columns_are_said_in_one_sentence(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    damage(folder / "clips.npz")
    with pytest.raises(UserError, match=r"clips\.(npz|jsonl) is damaged.*run 'avsnn repair'"):
        read_everything(folder)


def swap_lines(path: Path) -> None:
    first, *lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, first]))


@pytest.mark.parametrize("damage", [cut, write_rubbish, swap_lines])
def test_damaged_lines_are_said_in_one_sentence(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    damage(folder / "clips.jsonl")
    with pytest.raises(UserError, match=r"clips\.jsonl is damaged.*run 'avsnn repair'"):
        read_everything(folder)


@pytest.mark.parametrize("name", ["clips.jsonl", "clips.npz"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing; run 'avsnn repair'"):
        open_index(folder)


def test_texts_of_any_length_come_back() -> None:
    texts = ["", "a", "é" * 40, "", "\N{GRINNING FACE}", "x" * 1000]
    columns = TextPacker(texts).columns("t")
    assert unpack_texts(columns["t_utf8"], columns["t_ends"]).tolist() == texts
