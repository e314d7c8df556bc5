"""Guesses which clips are of one speaker or recording, from the names of files and folders."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from avsnn.datasets_manifest.clips import composed
from avsnn.errors import UserError
from avsnn.pipeline.new_dataset.draft import PART_OF_WORD, Draft
from avsnn.pipeline.new_dataset.oddities import Oddities

#: The word by which a user says that clips have no groups.
NO_GROUPS = "none"
# What clips of one group have in common, where nobody says it.
USUAL_WORD = "speaker"

# With fewer groups, train, val and test cannot each have a group.
FEWEST_GROUPS = 3
# A group has this many clips on average, or the groups say nothing.
LEAST_CLIPS_PER_GROUP = 2
# So large a share of the clips must have the word in its place.
LEAST_SHARE_OF_CLIPS = 0.95
# A speaker occurs in several classes: so large a share of the clips is of such a group.
LEAST_SHARE_IN_CLASSES = 0.8
# A group with a larger share of the clips would fill the train part alone.
LARGEST_SHARE = 0.6
# A number that is the same in so many clips of a class is no running number of the clips.
LEAST_REPEATS = 1.5

# Words in front of running numbers.
COUNTED = re.compile(
    r"(take|clip|video|vid|img|image|frame|shot|sample|file|audio|part|utt|sentence|rep|trial)\d*",
    re.IGNORECASE,
)
SEPARATORS = "_ .-"
DEEPEST_FOLDER, LAST_FIELD = 4, 8


@dataclass(frozen=True)
class GroupGuess:
    """Which part of a path seems to name the group of a clip.

    Attributes:
        pattern: the regular expression, as `--group` takes the expression.
        groups: number of groups.
        clips: number of clips.
        path: path of one clip.
        group: the group of this clip.
        in_folder: whether a folder names the group, and not the name of the file.
    """

    pattern: str
    groups: int
    clips: int
    path: str
    group: str
    in_folder: bool


def group_of(pattern: re.Pattern[str], draft: Draft) -> str:
    """Return the group that a pattern finds in the path of a clip; empty if it finds none.

    A pattern with a slash is searched in the path below the folder, without the suffix. Every
    other pattern is searched in the name of the file, without the suffix.
    """
    text = draft.path if "/" in pattern.pattern else PurePosixPath(draft.path).name
    match = pattern.search(text)
    if match is None:
        return ""
    return (match["group"] if "group" in pattern.groupindex else match[1]) or ""


def compile_group_pattern(text: str) -> re.Pattern[str]:
    """Return the regular expression that a user gave.

    Raises:
        UserError: the text is no regular expression, or has no group in brackets.
    """
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(
            f"--group {text}: is no regular expression: {error}. An example is '^([^_]+)_', the "
            "start of the name up to the first underscore."
        ) from None
    if not pattern.groups:
        raise UserError(
            f"--group {text}: has no brackets around the part that names the group, as in "
            f"'^([^_]+)_'; '{NO_GROUPS}' means that clips have no groups."
        )
    return pattern


def with_groups(drafts: Sequence[Draft], text: str, odd: Oddities) -> list[Draft]:
    """Return the clips with the groups that a pattern of the user finds.

    Raises:
        UserError: the pattern is wrong, or finds a group in no clip.
    """
    if text == NO_GROUPS:
        return [replace(draft, group="") for draft in drafts]
    pattern = compile_group_pattern(text)
    grouped = [replace(draft, group=group_of(pattern, draft)) for draft in drafts]
    if not any(draft.group for draft in grouped):
        first = drafts[0].path
        raise UserError(
            f"--group {text}: finds nothing in any clip, such as "
            f"{first if '/' in text else PurePosixPath(first).name!r}."
        )
    missing = [draft.visual for draft in grouped if not draft.group]
    odd.add("does not match --group, and is a group of its own", missing, left_out=False)
    return grouped


def with_earlier_groups(
    drafts: Sequence[Draft], earlier: Mapping[str, str], odd: Oddities
) -> list[Draft]:
    """Return the clips with groups for new clips, where a pattern explains the earlier groups.

    Args:
        drafts: all clips.
        earlier: the groups of earlier clips, by visual path in composed form.
        odd: receives new clips whose group is unknown.
    """
    known = {
        draft: earlier[path] for draft in drafts if (path := composed(draft.visual)) in earlier
    }
    new = [draft for draft in drafts if draft not in known]
    for text, _ in _candidates(drafts) if known and new else ():
        pattern = re.compile(text)
        agreeing = sum(group_of(pattern, draft) == group for draft, group in known.items())
        if agreeing >= LEAST_SHARE_OF_CLIPS * len(known):
            return [replace(draft, group=group_of(pattern, draft)) for draft in drafts]
    what = "is new, and a group of its own; give --group again to group new clips too"
    odd.add(what, [draft.visual for draft in new], left_out=False)
    return list(drafts)


def guess_groups(drafts: Sequence[Draft]) -> GroupGuess | None:
    """Return the part of the paths that names groups plausibly; None if there is none.

    Folders below the folder of the class come first, then the words of the names from left to
    right. Running numbers such as 01, 02, 03 come last.
    """
    late = None
    for text, in_folder in _candidates(drafts):
        pattern = re.compile(text)
        groups = [group_of(pattern, draft) for draft in drafts]
        if not _is_plausible(groups, drafts, in_folder=in_folder):
            continue
        path, group = drafts[0].path, groups[0]
        guess = GroupGuess(text, len({*groups} - {""}), len(drafts), path, group, in_folder)
        if in_folder or not _are_running_numbers(groups):
            return guess
        # Numbers of speakers come with many clips each. Numbers of takes do not.
        if late is None and guess.clips >= guess.groups**2:
            late = guess
    return late


def _candidates(drafts: Sequence[Draft]) -> Iterator[tuple[str, bool]]:
    """Yield patterns of folders and of words of names, each with whether it is of a folder."""
    depths = {draft.path.count("/") for draft in drafts}
    for level in range(min(DEEPEST_FOLDER, max(depths))):
        if depths == {level + 1}:
            yield r"([^/]+)/[^/]+$", True
        else:
            yield (rf"^(?:[^/]+/){{{level}}}([^/]+)/" if level else "^([^/]+)/"), True
    names = [PurePosixPath(draft.path).name for draft in drafts]
    used = [
        sign
        for sign in SEPARATORS
        if sum(sign in name for name in names) >= LEAST_SHARE_OF_CLIPS * len(names)
    ]
    if used:
        # A hyphen at the end of a class of characters is a plain hyphen.
        signs = "".join(used)
        word, gap = f"[^{signs}]+", f"[{signs}]+" if len(used) > 1 else used[0].replace(".", r"\.")
        yield f"^({word}){gap}", False
        for number in range(1, LAST_FIELD):
            skipped = f"{word}{gap}" if number == 1 else f"(?:{word}{gap}){{{number}}}"
            yield f"^{skipped}({word})", False
    yield r"^([^\W\d_]+)\d", False
    if not any(re.search(r"\d", name) for name in names):
        yield "^(.+)$", False


def _is_plausible(groups: Sequence[str], drafts: Sequence[Draft], *, in_folder: bool) -> bool:
    clips_of = Counter(group for group in groups if group)
    if clips_of.total() < LEAST_SHARE_OF_CLIPS * len(drafts):
        return False
    if not FEWEST_GROUPS <= len(clips_of) <= len(drafts) / LEAST_CLIPS_PER_GROUP:
        return False
    if max(clips_of.values()) > LARGEST_SHARE * len(drafts):
        return False
    if all(group.lower() in PART_OF_WORD for group in clips_of):
        return False
    if all(COUNTED.fullmatch(group) for group in clips_of):
        return False
    classes_of, groups_of = defaultdict(set), defaultdict(set)
    for group, draft in zip(groups, drafts, strict=True):
        if group:
            classes_of[group].add(draft.label)
            groups_of[draft.label].add(group)
    in_several = sum(clips_of[group] for group, found in classes_of.items() if len(found) > 1)
    if in_several < LEAST_SHARE_IN_CLASSES * clips_of.total():
        # Folders of recordings are plausible too: a class has several, each in this class alone.
        return in_folder and all(len(found) >= FEWEST_GROUPS for found in groups_of.values())
    pairs = {(group, draft.label) for group, draft in zip(groups, drafts, strict=True) if group}
    has_numbers = all(re.fullmatch(r"\D*\d+", group) for group in clips_of)
    return in_folder or not has_numbers or clips_of.total() >= LEAST_REPEATS * len(pairs)


def _are_running_numbers(groups: Sequence[str]) -> bool:
    """Return whether the groups are 0 or 1 and the numbers that follow, without a word."""
    values = {group for group in groups if group}
    if not all(re.fullmatch(r"\d{1,9}", value) for value in values):
        return False
    numbers = {int(value) for value in values}
    return min(numbers) <= 1 and max(numbers) <= 2 * len(numbers)
