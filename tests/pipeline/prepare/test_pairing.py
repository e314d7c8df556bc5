"""Recordings of two sensors: what their paths say, and which are one clip."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsnn.datasets_manifest import load
from avsnn.datasets_manifest.clips import KEY, PARTS
from avsnn.datasets_manifest.recordings import Pairs
from avsnn.pipeline.prepare.pairing import pair_recordings, read_paths
from avsnn.pipeline.prepare.written_table import table_text
from tests.own_dataset import part_of_keys


def pairs_of(dataset: str) -> Pairs:
    pairs = load(dataset).pairs
    assert pairs is not None
    return pairs


def mnistdvs_paths(count: int) -> list[str]:
    return [
        f"grabbed_data{digit}.zip/grabbed_data{digit}/scale{scale}/"
        f"mnist_{digit}_scale{scale:02d}_{number:04d}.aedat"
        for digit in range(10)
        for scale in (4, 8, 16)
        for number in range(1, count + 1)
    ]


def ntidigits_paths(speakers: int) -> list[str]:
    """Return paths of single digits, and of one sequence of digits for each speaker."""
    return [
        f"n-tidigits.hdf5/{part}/{gender}-{chr(97 + speaker)}{part[0]}-a-{digits}"
        for part in ("train", "test")
        for gender in ("man", "woman")
        for speaker in range(speakers)
        for digits in (*"z123456789o", "12o")
    ]


def test_single_digits_are_paired_as_published() -> None:
    pairs = pairs_of("mnistdvs-ntidigits")
    seen = read_paths(pairs.visual, mnistdvs_paths(20))
    heard = read_paths(pairs.audio, ntidigits_paths(2))
    # Scales 8 and 16; "o" and the sequences of 8 speakers.
    assert (seen.left_out, heard.left_out) == (400, 16)
    assert seen.reasons == heard.reasons == {}
    paired = pair_recordings(pairs, heard.recordings, seen.recordings)
    assert len(paired.clips) == 200
    assert paired.left_out == 0
    for digit in range(10):
        for part in ("train", "test"):
            clips = [c for c in paired.clips if (c.label, c.columns["split"]) == (digit, part)]
            text = "z" if digit == 0 else str(digit)
            speech = [
                f"{part}/{speaker}{part[0]}-a-{text}"
                for speaker in ("man-a", "man-b", "woman-a", "woman-b")
            ]
            # Half of the pictures, each once and in order; the speech in order, again and again.
            assert len(clips) == 10
            pictures = [clip.visual.member for clip in clips]
            assert pictures == sorted(set(pictures))
            assert all(f"mnist_{digit}_scale04" in picture for picture in pictures)
            assert [clip.audio.member for clip in clips] == (speech * 3)[:10]
            assert {clip.group for clip in clips} == {s[len(part) + 1 : -4] for s in speech}


def test_a_digit_that_nobody_says_is_named() -> None:
    pairs = pairs_of("mnistdvs-ntidigits")
    seen = read_paths(pairs.visual, mnistdvs_paths(2))
    paths = [path for path in ntidigits_paths(1) if not path.endswith("-7")]
    heard = read_paths(pairs.audio, paths)
    paired = pair_recordings(pairs, heard.recordings, seen.recordings)
    assert len(paired.clips) == 18
    assert len(paired.reasons) == 2
    assert all(
        "mnist_7" in path and "no sound of its class" in why for path, why in paired.reasons.items()
    )


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("n-tidigits.hdf5/train/man-ae", "another form"),
        ("n-tidigits.hdf5/valid/man-ae-a-1", "another form"),
        ("n-tidigits.hdf5/train/../man-ae-a-1", "no plain path"),
        ("n-tidigits.hdf5/train/man\n-ae-a-1", "no plain path"),
    ],
)
def test_a_key_that_cannot_be_parsed_is_a_failure_with_a_reason(path: str, reason: str) -> None:
    found = read_paths(pairs_of("mnistdvs-ntidigits").audio, [path])
    assert found.recordings == []
    ((_, why),) = found.reasons.items()
    assert reason in why


def shd_paths(utterances: int) -> list[str]:
    """Return paths of all 20 labels; speakers 4 and 5 are in the test part only."""
    return [
        f"shd_{part}.h5/{label * utterances + number:05d}-{speaker}-{label}"
        for part in ("train", "test")
        for label in range(20)
        for number in range(utterances)
        for speaker in [(0, 1, 3)[number % 3] if part == "train" else (4, 5, 0)[number % 3]]
    ]


def nmnist_paths(count: int) -> list[str]:
    return [
        f"{part}.zip/{part}/{digit}/{number:05d}.bin"
        for part in ("Train", "Test")
        for digit in range(10)
        for number in range(count)
    ]


def test_splits_of_recordings_share_what_they_say_and_nothing_else(tmp_path: object) -> None:
    manifest = load("nmnist-shd")
    pairs = pairs_of("nmnist-shd")
    seen = read_paths(pairs.visual, nmnist_paths(30))
    heard = read_paths(pairs.audio, shd_paths(12))
    paired = pair_recordings(pairs, heard.recordings, seen.recordings)
    assert len(paired.clips) == 480
    assert len({clip.key for clip in paired.clips}) == 480
    assert all(KEY.fullmatch(clip.key) for clip in paired.clips)
    folder = tmp_path / "clips.csv"  # type: ignore[operator]
    folder.write_text(table_text(paired.clips, ("split",)))
    manifest = manifest.with_table(folder)
    assert tuple(manifest.clips) == tuple(paired.clips)
    published = part_of_keys(manifest, "published")
    english = part_of_keys(manifest, "english")
    german = part_of_keys(manifest, "german")
    speaker = part_of_keys(manifest, "speaker")
    for clip in manifest.clips:
        label = int(clip.key.rsplit("-", 1)[1])
        assert label % 10 == clip.label
        assert (english[clip.key] == "none") == (label >= 10)
        assert (german[clip.key] == "none") == (label < 10)
        assert (speaker[clip.key] == "test") == (clip.group in "45")
        assert (speaker[clip.key] == "val") == (clip.group == "3")
        assert (published[clip.key] == "test") == clip.key.startswith("test-")
    assert_no_recording_is_in_two_parts(manifest.clips, published)
    assert_no_recording_is_in_two_parts(manifest.clips, speaker)


def assert_no_recording_is_in_two_parts(clips: object, parts: dict[str, str]) -> None:
    parts_of: dict[str, set[str]] = {}
    for clip in clips:  # type: ignore[attr-defined]
        for file in clip.files:
            parts_of.setdefault(file.recording, set()).add(parts[clip.key])
    assert all(len(found) == 1 for found in parts_of.values())


@pytest.mark.parametrize("split", ["disjoint", "speaker"])
def test_no_recording_is_in_two_parts_of(split: str, tmp_path: object) -> None:
    pairs = pairs_of("mnistdvs-ntidigits")
    seen = read_paths(pairs.visual, mnistdvs_paths(100))
    heard = read_paths(pairs.audio, ntidigits_paths(12))
    clips = pair_recordings(pairs, heard.recordings, seen.recordings).clips
    table = tmp_path / "clips.csv"  # type: ignore[operator]
    table.write_text(table_text(clips, ("split",)))
    manifest = load("mnistdvs-ntidigits").with_table(table)
    parts = part_of_keys(manifest, split)
    assert set(parts.values()) == set(PARTS)
    assert_no_recording_is_in_two_parts(manifest.clips, parts)
    if split == "speaker":
        groups = {(clip.group, parts[clip.key]) for clip in manifest.clips}
        assert len(groups) == len({group for group, _ in groups})
    else:
        # About a tenth of the train part is val, as in the published split.
        count = list(parts.values()).count("val")
        assert 20 <= count <= 50
    published = part_of_keys(manifest, "published")
    with pytest.raises(AssertionError):
        assert_no_recording_is_in_two_parts(manifest.clips, published)


names = st.text(string.ascii_lowercase + string.digits + "-_./", min_size=1, max_size=12)


@given(st.lists(names.map(lambda name: f"n-tidigits.hdf5/train/{name}"), max_size=20))
def test_every_path_is_a_recording_or_left_out_or_has_a_reason(paths: list[str]) -> None:
    found = read_paths(pairs_of("mnistdvs-ntidigits").audio, paths)
    distinct = set(paths)
    assert len(found.recordings) + found.left_out <= len(paths)
    assert {r.path for r in found.recordings} | found.reasons.keys() <= distinct
