"""Which sound a clip gets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsnn.pipeline.evaluation.intervals import Resampling
from avsnn.pipeline.evaluation.robustness.swapped import measure_swapped, swapped_sounds


@given(st.lists(st.integers(0, 4), min_size=2, max_size=40).filter(lambda x: len(set(x)) > 1))
def test_every_clip_gets_a_sound_of_another_class_and_every_sound_is_used_once_if_possible(
    classes: list[int],
) -> None:
    labels = np.array(classes)
    sounds = swapped_sounds(labels)
    assert (labels[sounds] != labels).all()
    if np.bincount(labels).max() <= len(labels) / 2:
        assert sorted(sounds) == list(range(len(labels)))


def test_the_sounds_are_the_same_every_time_and_mix_all_classes() -> None:
    labels = np.arange(600) % 6
    sounds = swapped_sounds(labels)
    assert np.array_equal(sounds, swapped_sounds(labels))
    pairs = np.zeros((6, 6), int)
    np.add.at(pairs, (labels, labels[sounds]), 1)
    assert pairs[~np.eye(6, dtype=bool)].min() >= 8


def test_answers_follow_the_sound_the_picture_or_neither() -> None:
    found = measure_swapped(
        np.array([0, 1, 2, 2]),
        heard=np.array([0, 0, 0, 2]),
        seen=np.array([1, 1, 1, 1]),
        resampling=Resampling(["a", "b", "c", "d"]),
    )
    assert (found.clips, found.follows_audio.value) == (4, 0.5)
    assert (found.follows_visual.value, found.follows_neither.value) == (0.25, 0.25)
    assert found.follows_audio.low <= 0.5 <= found.follows_audio.high


def test_a_small_part_has_a_swap_too() -> None:
    assert swapped_sounds(np.array([0, 1])).tolist() == [1, 0]
    with pytest.raises(ValueError, match="empty"):
        swapped_sounds(np.array([1, 1]))
