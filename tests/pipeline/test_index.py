import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsnn.datasets_manifest import load, names
from avsnn.pipeline.index import assign_parts, select


@pytest.mark.parametrize("name", names())
def test_every_clip_has_a_part_in_every_split(name: str) -> None:
    manifest = load(name)
    for split in manifest.splits:
        parts = assign_parts(manifest, split)
        assert parts.keys() == {clip.key for clip in manifest.clips}
        assert set(parts.values()) == {"train", "val", "test"}


def test_validation_is_carved_from_train_alone_the_same_share_of_each_class() -> None:
    manifest = load("av-digits")
    parts = assign_parts(manifest, "published")
    for clip in manifest.clips:
        if parts[clip.key] == "val":
            assert clip.columns["split"] == "train"
        else:
            assert parts[clip.key] == clip.columns["split"]
    for label in range(10):
        mine = [parts[clip.key] for clip in manifest.clips if clip.label == label]
        assert (mine.count("train"), mine.count("val"), mine.count("test")) == (243, 27, 30)


def test_speaker_split_shares_no_speaker() -> None:
    manifest = load("av-digits")
    parts = assign_parts(manifest, "speaker")
    speakers = {
        part: {clip.group for clip in manifest.clips if parts[clip.key] == part}
        for part in ("train", "val", "test")
    }
    assert not speakers["train"] & speakers["test"]
    assert not speakers["train"] & speakers["val"]
    assert not speakers["val"] & speakers["test"]


@given(limit=st.integers(min_value=30, max_value=3000))
def test_a_limit_takes_every_part_and_class_in_proportion(limit: int) -> None:
    manifest = load("av-digits")
    parts = assign_parts(manifest, "published")
    chosen = select(manifest, limit)
    assert len(chosen) == len({clip.key for clip in chosen}) == limit
    for part, share in (("train", 0.81), ("val", 0.09), ("test", 0.1)):
        for label in range(10):
            count = sum(c.label == label and parts[c.key] == part for c in chosen)
            assert abs(count - limit * share / 10) < 2


def test_a_larger_limit_keeps_the_clips_of_a_smaller_one() -> None:
    manifest = load("demo")
    few, many = ({clip.key for clip in select(manifest, n)} for n in (60, 200))
    assert few < many
