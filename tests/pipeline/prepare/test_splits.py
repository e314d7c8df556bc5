from collections import Counter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avsnn.datasets_manifest import Manifest, load, names
from avsnn.datasets_manifest.clips import COLUMNS, PARTS
from avsnn.datasets_manifest.split_rules import GroupSplit
from avsnn.pipeline.formats.membership import hash_rank
from avsnn.pipeline.prepare.splits import select
from tests.own_dataset import part_of_keys

CLASSES = 10


@pytest.mark.parametrize("name", [name for name in names() if load(name).table])
def test_every_clip_has_a_part_in_every_split(name: str) -> None:
    manifest = load(name)
    for split in manifest.splits:
        parts = part_of_keys(manifest, split)
        assert parts.keys() == {clip.key for clip in manifest.clips}
        assert set(parts.values()) == {"train", "val", "test"}


def test_val_is_the_same_share_of_each_class_of_the_published_train_part() -> None:
    manifest = load("av-digits")
    parts = part_of_keys(manifest, "published")
    for clip in manifest.clips:
        if parts[clip.key] == "val":
            assert clip.columns["split"] == "train"
        else:
            assert parts[clip.key] == clip.columns["split"]
    for label in range(10):
        of_label = [parts[clip.key] for clip in manifest.clips if clip.label == label]
        counts = Counter(of_label)
        assert (counts["train"], counts["val"], counts["test"]) == (243, 27, 30)


@pytest.mark.parametrize("name", ["av-digits", "crema-d"])
def test_the_speaker_split_shares_no_speaker(name: str) -> None:
    manifest = load(name)
    _assert_no_group_is_shared(manifest, part_of_keys(manifest, "speaker"))


def test_the_speakers_of_crema_d_are_held_out_in_the_order_of_their_hashes() -> None:
    manifest = load("crema-d")
    actors = sorted({clip.group for clip in manifest.clips}, key=hash_rank)
    rule = manifest.splits["speaker"]
    assert isinstance(rule, GroupSplit)
    assert (set(rule.test_groups), set(rule.val_groups)) == (set(actors[:9]), set(actors[9:18]))


# Recordings as class and number of clips; mixed recordings as number of clips by class.
recordings = st.lists(
    st.tuples(st.integers(0, CLASSES - 1), st.integers(1, 20)), min_size=1, max_size=60
)
mixed_recordings = st.lists(
    st.dictionaries(st.integers(0, CLASSES - 1), st.integers(1, 9), min_size=1, max_size=3),
    min_size=1,
    max_size=60,
)


@given(mixed_recordings, st.sampled_from(["published", "recording"]), st.randoms())
def test_the_part_of_a_clip_does_not_depend_on_the_order_of_the_table(
    found: list[dict[int, int]], split: str, random: Random
) -> None:
    rows = _rows(found)
    manifest = _discovered(rows)
    parts = part_of_keys(manifest, split)
    assert parts.keys() == {clip.key for clip in manifest.clips}
    assert set(parts.values()) <= set(PARTS)
    if split == "recording":
        _assert_no_group_is_shared(manifest, parts)
    random.shuffle(rows)
    assert part_of_keys(_discovered(rows), split) == parts


@given(recordings)
def test_the_recording_split_comes_close_to_its_shares(
    found: list[tuple[int, int]],
) -> None:
    manifest = _discovered(_rows([{label: count} for label, count in found]))
    parts = part_of_keys(manifest, "recording")
    for label in range(CLASSES):
        sizes = [count for other, count in found if other == label]
        counts = Counter(parts[clip.key] for clip in manifest.clips if clip.label == label)
        for part, share in (("train", 0.63), ("val", 0.07), ("test", 0.3)):
            assert abs(counts[part] - share * sum(sizes)) <= 2 * max(sizes, default=0) + 1e-9


@given(mixed_recordings)
def test_the_published_split_by_order_tests_on_the_last_30_percent_of_each_class(
    found: list[dict[int, int]],
) -> None:
    manifest = _discovered(_rows(found))
    parts = part_of_keys(manifest, "published")
    for label in range(CLASSES):
        keys = sorted(clip.key for clip in manifest.clips if clip.label == label)
        first = int(0.7 * len(keys))
        assert [parts[key] == "test" for key in keys] == [i >= first for i in range(len(keys))]
        assert [parts[key] for key in keys].count("val") == round(0.1 * first)


@settings(max_examples=25)
@given(limit=st.integers(min_value=30, max_value=3000))
def test_a_limit_keeps_the_proportions_of_parts_and_classes(limit: int) -> None:
    manifest = load("av-digits")
    parts = part_of_keys(manifest, "published")
    chosen = list(select(manifest, limit))
    assert len(chosen) == len({clip.key for clip in chosen}) == limit
    for part, share in (("train", 0.81), ("val", 0.09), ("test", 0.1)):
        for label in range(10):
            count = sum(c.label == label and parts[c.key] == part for c in chosen)
            assert abs(count - limit * share / 10) < 2


def test_a_larger_limit_keeps_the_clips_of_a_smaller_limit() -> None:
    manifest = load("demo")
    few, many = ({clip.key for clip in select(manifest, n)} for n in (60, 200))
    assert few < many


def _rows(recordings: list[dict[int, int]]) -> list[str]:
    return [
        f"{number}-{label}-0-{i},{label},{number},{number}-{label}-{i}.wav,,,{number}-{label}-{i}.jpg,,"
        for number, labels in enumerate(recordings)
        for label, count in labels.items()
        for i in range(count)
    ]


def _discovered(rows: list[str]) -> Manifest:
    """Return the manifest of UrbanSound8K-AV with a table of these rows."""
    with TemporaryDirectory() as folder:
        table = Path(folder) / "clips.csv"
        table.write_text("\n".join([",".join(COLUMNS), *rows]))
        manifest = load("urbansound8k-av").with_table(table)
        assert len(manifest.clips) == len(rows)
        return manifest


def _assert_no_group_is_shared(manifest: Manifest, parts: dict[str, str]) -> None:
    part_of_group: dict[str, str] = {}
    for clip in manifest.clips:
        assert part_of_group.setdefault(clip.group, parts[clip.key]) == parts[clip.key]
