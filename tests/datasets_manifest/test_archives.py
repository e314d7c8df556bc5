"""Data sets whose clips lie in zips: RAVDESS as published, and mistakes in a YAML or a table."""

from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from avsnn.datasets_manifest import load, names
from avsnn.datasets_manifest.schema import Manifest
from avsnn.errors import UserError
from avsnn.pipeline.prepare.splits import assign_parts, select

EMOTIONS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]


def test_ravdess_has_the_clips_that_the_publisher_describes() -> None:
    manifest = load("ravdess")
    # Livingstone & Russo 2018: two statements, two repetitions, two intensities, of which the
    # neutral emotion has one.
    published = {
        f"01-01-{emotion:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}-{actor:02d}"
        for actor in range(1, 25)
        for emotion in range(1, 9)
        for intensity in (1, 2)
        for statement in (1, 2)
        for repetition in (1, 2)
        if (emotion, intensity) != (1, 2)
    }
    assert len(published) == len(manifest.clips) == 1440
    assert {clip.key for clip in manifest.clips} == published
    for clip in manifest.clips:
        emotion, actor = int(clip.key[6:8]), clip.key[-2:]
        assert manifest.classes[clip.label] == EMOTIONS[emotion - 1]
        assert clip.group == actor
        path = f"Video_Speech_Actor_{actor}.zip/Actor_{actor}/{clip.key}.mp4"
        assert clip.audio.recording == clip.visual.recording == path


def test_every_part_of_ravdess_has_women_and_men_and_shares_no_actor() -> None:
    manifest = load("ravdess")
    parts = assign_parts(manifest, "speaker")
    actors = [set(manifest.clips.groups[parts == part].tolist()) for part in range(3)]
    assert sorted(number for group in actors for number in group) == [
        f"{number:02d}" for number in range(1, 25)
    ]
    for group, size in zip(actors, (16, 4, 4), strict=True):
        # Odd numbers are men.
        assert Counter(int(number) % 2 for number in group) == {0: size / 2, 1: size / 2}


@pytest.mark.parametrize("name", [name for name in names() if load(name).archives])
def test_every_downloaded_archive_has_an_address_a_size_and_a_checksum(name: str) -> None:
    manifest = load(name)
    files = manifest.files_of(manifest.clips)
    assert [file.path for file in files] == [archive.path for archive in manifest.archives]
    for file in files:
        assert file.md5 is not None
        assert file.size is not None
        places = [p for p in manifest.sources if file.path.startswith(p.prefix)]
        assert any((place.url or "").startswith("https://") for place in places)
    assert len({file.md5 for file in files}) == len(files)


@pytest.mark.parametrize(("limit", "archives"), [(1, 1), (24, 3), (60, 3), (120, 6), (1440, 24)])
def test_a_limit_needs_few_archives_and_keeps_the_share_of_each_part(
    limit: int, archives: int
) -> None:
    manifest = load("ravdess")
    chosen = select(manifest, limit)
    assert len(chosen) == limit
    assert len(manifest.files_of(chosen)) <= archives
    test = {"03", "07", "08", "10"}
    # At most one clip of each class too many or too few.
    assert abs(sum(clip.group in test for clip in chosen) - limit / 6) <= len(EMOTIONS)


@pytest.mark.parametrize(
    ("changes", "part_of_message"),
    [
        ({"table": None, "pairs": None}, "only one of the three"),
        ({"visual": "aedat2", "audio": "shd"}, "archives are for a table of images"),
        ({"archives": [{"path": "a.tar"}]}, "archives.0.path"),
        ({"archives": [{"path": "../a.zip"}]}, "archives.0.path"),
        ({"sources": [{"prefix": "b", "url": "https://a.org/"}]}, "no source holds one"),
    ],
)
def test_a_mistake_in_the_archives_of_a_yaml_is_refused(
    changes: dict[str, Any], part_of_message: str
) -> None:
    facts = load("ravdess").model_dump()
    with pytest.raises(ValidationError, match=part_of_message):
        Manifest.model_validate(facts | changes)


@pytest.mark.parametrize("path", ["Video_Speech_Actor_02.zip/Actor_02/", "Actor_02/"])
def test_a_path_into_no_archive_is_refused(path: str, tmp_path: Any) -> None:
    manifest = load("ravdess")
    table = manifest.table_bytes.decode()
    wrong = table.replace("Video_Speech_Actor_02.zip/Actor_02/", path)
    (tmp_path / "ravdess.csv").write_text(wrong)
    archives = [one for one in manifest.archives if "02" not in one.path or "2.zip" in path]
    changed = manifest.model_copy(
        update={"table": str(tmp_path / "ravdess.csv"), "archives": tuple(archives[:1])}
    )
    vars(changed).pop("clips", None)
    with pytest.raises(UserError, match="no path in one of the archives"):
        _ = changed.clips
