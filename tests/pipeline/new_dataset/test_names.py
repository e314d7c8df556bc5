"""Keys that are made from paths, and names of data sets."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsnn.datasets_manifest.clips import KEY, composed
from avsnn.pipeline.new_dataset.names import dataset_name, make_keys

FOLDER_OR_STEM = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=70
)
PLACES = st.lists(
    st.lists(FOLDER_OR_STEM, min_size=1, max_size=3).map("/".join).map(composed),
    unique=True,
    max_size=12,
)


@given(PLACES, PLACES)
def test_keys_are_valid_and_unique_and_stay_when_clips_are_added(
    first: list[str], added: list[str]
) -> None:
    keys = make_keys(first, {})
    later = make_keys([*dict.fromkeys([*added, *first])], keys)
    assert {place: later[place] for place in first} == keys
    assert len(set(later.values())) == len(later)
    assert all(KEY.fullmatch(key) and len(key.encode()) < 255 for key in later.values())


@given(PLACES)
def test_keys_do_not_depend_on_the_order_of_the_files(places: list[str]) -> None:
    assert make_keys(places, {}) == make_keys(places[::-1], {})


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ("cat/anna-3", "cat-anna-3"),
        ("big cats (wild)/clip [1] 'a'", "big_cats_wild_-clip_1_a"),
        ("-dash/--x", "dash---x"),
        (unicodedata.normalize("NFD", "café/é"), "café-é"),
    ],
)
def test_a_key_can_be_read(place: str, key: str) -> None:
    assert make_keys([place], {})[place] == key


def test_of_two_paths_that_look_alike_the_plain_path_has_the_plain_key() -> None:
    keys = make_keys(["cat/a b", "cat/a_b"], {})
    assert keys["cat/a_b"] == "cat-a_b"
    assert keys["cat/a b"].startswith("cat-a_b-")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("My Clips_2", "my-clips-2"),
        ("Été", "ete"),
        ("動画", "own"),
        ("--", "own"),
        ("x" * 200, "x" * 64),
    ],
)
def test_the_name_of_a_data_set_comes_from_the_folder(folder: str, name: str) -> None:
    assert dataset_name(folder) == name
