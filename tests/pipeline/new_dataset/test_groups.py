"""Guesses of speakers and recordings from names."""

import re

import pytest

from avsnn.errors import UserError
from avsnn.pipeline.new_dataset.draft import Draft
from avsnn.pipeline.new_dataset.groups import group_of, guess_groups, with_groups
from avsnn.pipeline.new_dataset.oddities import Oddities


def drafts(*paths: str) -> list[Draft]:
    return [Draft(path, path, path.split("/")[0], path) for path in paths]


def grid(pattern: str) -> list[Draft]:
    """Return clips of 3 classes, 4 speakers and 3 takes."""
    return drafts(
        *(
            pattern.format(label=label, speaker=speaker, number=number, take=take)
            for label in ("cat", "dog", "bird")
            for number, speaker in enumerate(("anna", "ben", "carla", "dan"), 1001)
            for take in (1, 2, 3)
        )
    )


@pytest.mark.parametrize(
    ("pattern", "group"),
    [
        ("{label}/{speaker}-{take:02}.mp4", "anna"),
        ("{label}/{speaker}_take{take}.mp4", "anna"),
        ("{label}/{number}_{label}_{take}.mp4", "1001"),
        ("{label}/{label}_{speaker}_{take}.mp4", "anna"),
        ("{label}/{speaker}{take}.mp4", "anna"),
        ("{label}/{speaker}/{take}.mp4", "anna"),
        ("{label}/{speaker}/video {take}.mp4", "anna"),
        ("{speaker}/{label}-{take}.mp4", "anna"),
        ("{label}/take{take}_{speaker}.mp4", "anna"),
    ],
)
def test_the_speaker_is_found(pattern: str, group: str) -> None:
    clips = grid(pattern)
    if pattern.startswith("{speaker}"):
        clips = [Draft(c.visual, c.audio, c.visual.split("/")[1][:3], c.place) for c in clips]
    guess = guess_groups(clips)
    assert guess is not None
    assert (guess.group, guess.groups) == (group, 4)
    # The pattern that is shown is the pattern that --group takes.
    found = {clip.group for clip in with_groups(clips, guess.pattern, Oddities())}
    assert found == ({"1001", "1002", "1003", "1004"} if group == "1001" else PEOPLE)


PEOPLE = {"anna", "ben", "carla", "dan"}


def test_numbers_of_actors_at_the_end_are_groups_where_each_has_many_clips() -> None:
    clips = drafts(
        *(
            f"{label}/03-01-{number}-{intensity}-{line}-{repeat}-{actor:02}.mp4"
            for number, label in (("01", "calm"), ("02", "angry"), ("03", "happy"))
            for intensity in ("01", "02")
            for line in ("01", "02")
            for repeat in ("01", "02")
            for actor in range(1, 13)
        )
    )
    guess = guess_groups(clips)
    assert guess is not None
    assert (guess.group, guess.groups) == ("01", 12)


@pytest.mark.parametrize(
    "names",
    [
        [f"{number:03}" for number in range(12)],
        [f"clip_{number:03}" for number in range(12)],
        [f"clip-{number}" for number in range(1, 13)],
        [f"take{take}-video{clip}" for take in (1, 2, 3) for clip in (1, 2, 3, 4)],
    ],
)
def test_running_numbers_are_no_groups(names: list[str]) -> None:
    clips = drafts(*(f"{label}/{name}.mp4" for label in ("cat", "dog") for name in names))
    assert guess_groups(clips) is None


def test_recordings_that_are_folders_of_one_class_each_are_groups() -> None:
    clips = drafts(
        *(f"{c}/{c}{rec}/{i}.mp4" for c in ("cat", "dog") for rec in range(3) for i in range(4))
    )
    guess = guess_groups(clips)
    assert guess is not None
    assert guess.groups == 6
    assert guess.in_folder


def test_a_pattern_with_a_slash_is_searched_in_the_path_and_else_in_the_name() -> None:
    (clip,) = drafts("cat/s1/anna-1.mp4")
    assert group_of(re.compile(r"^([^-]+)"), clip) == "anna"
    assert group_of(re.compile(r"/(\w+)/"), clip) == "s1"
    assert group_of(re.compile(r"(\d)-|(?P<group>\d)$"), clip) == "1"


@pytest.mark.parametrize("pattern", ["(", "anna", "(zzz)", "(" * 3])
def test_a_pattern_that_finds_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(UserError, match="--group"):
        with_groups(drafts("cat/a.mp4", "dog/b.mp4"), pattern, Oddities())
