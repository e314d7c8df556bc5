"""Puts together the YAML and the table of a data set: for the first time, or with changes."""

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from avsnn.datasets_manifest import Manifest, catalogue
from avsnn.datasets_manifest.clips import composed
from avsnn.datasets_manifest.recordings import EVENT_FORMATS
from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import not_written_error
from avsnn.pipeline.new_dataset.draft import Arrangement
from avsnn.pipeline.new_dataset.groups import NO_GROUPS, USUAL_WORD
from avsnn.pipeline.new_dataset.names import LONGEST_NAME, dataset_name
from avsnn.pipeline.new_dataset.split_choice import (
    DEFAULT,
    GIVEN,
    PART_COLUMN,
    choose_shares,
    given_split,
)
from avsnn.pipeline.new_dataset.written_table import Table, first_table, update_table
from avsnn.pipeline.new_dataset.written_yaml import comment_on, edit_yaml, render_yaml

NO_GROUP_IS_SHARED = "every clip is a group of its own"
DIGITS = "0123456789"
PRESET_OF_EVENTS = "demo-events"
# The preset for data sets of at least so many clips. With fewer clips, smaller batches and more
# epochs make the steps that a network needs.
PRESETS_BY_CLIPS = {2_000: "medium", 200: "small", 0: "tiny"}


@dataclass(frozen=True)
class Texts:
    """The two files of a data set.

    Attributes:
        manifest: the data set, with its clips.
        yaml: text of the YAML file.
        table: the table.
        table_name: name of the CSV file.
        yaml_before: text of the YAML file that fits the earlier table and the new table, for the
            moment in which only one of the two files is written; empty where there was no table.
        notes: sentences about what was decided.
        is_update: whether the data set was there before.
        is_changed: whether a file differs from the file that was there before.
    """

    manifest: Manifest
    yaml: str
    table: Table
    table_name: str
    yaml_before: str = ""
    notes: list[str] = field(default_factory=list)
    is_update: bool = False
    is_changed: bool = True


def target_folder() -> Path:
    """Return the folder into which a new data set is written."""
    return catalogue.named_folder() or catalogue.user_folder()


def choose_name(folder: Path, name: str | None) -> str:
    """Return the name of the data set: the name that was given, or a name made from the folder.

    Raises:
        UserError: the name that was given is no name of a data set, or the folder of the user's
            data sets cannot be made.
    """
    chosen = dataset_name(folder.name) if name is None else name
    # A name that starts with a hyphen would be an option of the next command.
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", chosen) or len(chosen) > LONGEST_NAME:
        raise UserError(
            f"--name {chosen}: a name has small letters, digits and hyphens only, starts with a "
            f"letter or a digit, and has at most {LONGEST_NAME} characters, such as "
            f"{dataset_name(chosen)}."
        )
    try:
        # Data sets are looked up in the folder, so the folder must exist.
        target_folder().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        advice = "give another folder with --datasets"
        raise not_written_error(target_folder(), error, advice) from None
    return chosen


def earlier_dataset(name: str, folder: Path) -> Manifest | None:
    """Return the data set that was made of the same folder before; None if there is none.

    Raises:
        UserError: another data set has the name.
    """
    advice = "choose another name with --name"
    target = target_folder()
    if not (target / f"{name}.yaml").exists():
        if name in catalogue.names():
            raise UserError(f"a data set is called {name!r} already; {advice}.")
        return None
    earlier = catalogue.load(name)
    if earlier.folder is None or not _is_same_folder(Path(earlier.folder), folder):
        whose = f"of the folder {earlier.folder}" if earlier.folder else "without a folder"
        if earlier.folder and not Path(earlier.folder).exists():
            moved = f"folder: {folder}"
            advice = f"if the folder has moved, write '{moved}' into {name}.yaml, or else {advice}"
        raise UserError(f"a data set {whose} is called {name!r} already; {advice}.")
    if earlier.table is None:
        raise UserError(f"{name}.yaml has no table, so avsnn cannot update it; {advice}.")
    return earlier


def _is_same_folder(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def first_texts(
    name: str,
    folder: Path,
    arrangement: Arrangement,
    *,
    pattern: str,
    take: Literal["link", "copy"],
) -> Texts:
    """Return the files of a data set that was not there before.

    Args:
        name: name of the data set.
        folder: the folder of the files.
        arrangement: the clips.
        pattern: the pattern that found the groups; empty where a table names groups, or where clips
            have no groups.
        take: how `prepare` takes the files.
    """
    drafts, notes = arrangement.drafts, list[str]()
    is_given = any(draft.part for draft in drafts)
    rule: dict[str, Any] = {"test_share": 0.2, "val_share": 0.1}
    if is_given:
        drafts, rule, notes = given_split(drafts)
    table = first_table(drafts)
    has_groups = "group" in table.header
    word = (arrangement.group_word or USUAL_WORD) if has_groups else NO_GROUPS
    split = GIVEN if is_given else DEFAULT
    facts: dict[str, Any] = {
        "name": name,
        "title": _title(folder),
        "description": f"{arrangement.described.capitalize()}, {arrangement.found_by}.",
        "licence": "not stated",
        "folder": str(folder),
        "take": take,
        "visual": arrangement.visual,
        **({"audio": arrangement.audio} if arrangement.audio != "sound" else {}),
        "classes": _in_natural_order({draft.label for draft in drafts}),
        "group": word,
        "table": f"{name}.csv",
        "preset": choose_preset(arrangement.visual, len(drafts)),
        "default_split": split,
        "splits": {split: rule},
    }
    if not is_given:
        manifest = _read_back(facts, table)
        facts["splits"] = {split: choose_shares(manifest)}
    text = render_yaml(
        facts,
        why_group=_why_group(pattern) if has_groups else NO_GROUP_IS_SHARED,
        why_split=_why_split(word, is_given=is_given),
        sound=_where_sound_is(arrangement),
    )
    manifest = _read_back(yaml.safe_load(text), table)
    return Texts(manifest, text, table, f"{name}.csv", notes=notes)


def updated_texts(
    earlier: Manifest,
    arrangement: Arrangement,
    *,
    group: str | None,
    take: Literal["link", "copy"] | None,
    there: Container[str],
) -> Texts:
    """Return the files of a data set whose folder may have changed since.

    What a person changed in the files stays. New classes follow the classes that are there.

    Args:
        earlier: the data set so far.
        arrangement: the clips that are in the folder now.
        group: the pattern of groups that the user gave now; None leaves all groups as they are.
        take: how `prepare` takes files, if the user said so now.
        there: the paths of all files in the folder that can be used.
    """
    drafts, notes = arrangement.drafts, list[str]()
    has_parts = any(draft.part for draft in drafts)
    if has_parts:
        drafts, _, _ = given_split(drafts)
    takes = {
        "label": arrangement.from_table,
        "group": group is not None
        or (arrangement.from_table and any(draft.group for draft in drafts)),
        PART_COLUMN: arrangement.from_table and has_parts,
    }
    columns = [column for column, is_taken in takes.items() if is_taken]
    table = update_table(earlier, drafts, takes=columns, there=there)
    changes: dict[str, Any] = {}
    added, gone = _new_classes(earlier, table), _classes_that_are_gone(earlier, table)
    every_class = [*earlier.classes, *added]
    if added:
        notes.append(f"New classes: {', '.join(added)}.")
    if gone:
        notes.append(f"Classes that have no clips any more and are removed: {', '.join(gone)}.")
    if added or gone:
        changes["classes"] = [name for name in every_class if name not in gone]
    if group is not None:
        word = USUAL_WORD if earlier.group == NO_GROUPS else earlier.group
        changes["group"] = word = NO_GROUPS if group == NO_GROUPS else word
    if take is not None and take != earlier.take:
        changes["take"] = take
    path = target_folder() / f"{earlier.name}.yaml"
    before = path.read_text(encoding="utf-8")
    text = edit_yaml(before, earlier.name, changes) if changes else before
    if group is not None:
        text = comment_on(text, "group", _why_group(group))
    return Texts(
        _read_back(yaml.safe_load(text), table),
        text,
        table,
        Path(str(earlier.table)).name,
        edit_yaml(before, earlier.name, {"classes": every_class}) if added else before,
        notes,
        is_update=True,
        is_changed=table.is_changed or text != before,
    )


def _new_classes(earlier: Manifest, table: Table) -> list[str]:
    known = {composed(name) for name in earlier.classes}
    return _in_natural_order({name for name in table.labels if composed(name) not in known})


def _classes_that_are_gone(earlier: Manifest, table: Table) -> list[str]:
    """Return the classes that had clips and have none now, such as classes of renamed folders.

    A class stays if a label is the number of a class, because the numbers of later classes would
    change, or if fewer than two classes would be left.
    """
    left = {composed(row["label"]) for row in table.rows}
    had = {earlier.classes[clip.label] for clip in earlier.clips}
    named = {composed(name) for name in earlier.classes} | table.labels
    gone = [name for name in earlier.classes if name in had and composed(name) not in left]
    return gone if left <= named and len(left) > 1 else []


def _read_back(facts: Mapping[str, Any], table: Table) -> Manifest:
    """Return the data set as other commands will read it, with its clips.

    Raises:
        UserError: the facts or the table are not what a data set may hold.
    """
    try:
        manifest = Manifest.model_validate(facts)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{facts['name']}.yaml would be wrong: {where}: {first['msg']}.") from None
    with TemporaryDirectory() as name:
        path = Path(name, str(facts["table"]))
        path.write_bytes(table.content)
        manifest = manifest.with_table(path)
        # The clips are read once, and are kept after the file is gone.
        assert manifest.clips  # noqa: S101 - a table without clips raises an error
    return manifest


def _title(folder: Path) -> str:
    words = " ".join(re.findall(r"[^\s_-]+", composed(folder.name))) or "Own data"
    return words[0].upper() + words[1:]


def _in_natural_order(names: set[str]) -> list[str]:
    """Return names in the order of people: digit-2 stands in front of digit-10."""

    def rank(name: str) -> list[tuple[int, int, str]]:
        pieces = re.findall(r"[0-9]+|[^0-9]+", name)
        return [(0, int(p[:18]), "") if p[0] in DIGITS else (1, 0, p.casefold()) for p in pieces]

    return sorted(sorted(names), key=rank)


def choose_preset(visual: str, clips: int) -> str:
    """Return the name of the preset for data of one's own.

    Args:
        visual: what every visual file is.
        clips: number of clips.
    """
    if visual in EVENT_FORMATS:
        return PRESET_OF_EVENTS
    return next(name for count, name in PRESETS_BY_CLIPS.items() if clips >= count)


def _why_group(pattern: str) -> str:
    if pattern == NO_GROUPS:
        return NO_GROUP_IS_SHARED
    # A comment ends at the end of the line.
    return f"found by --group '{pattern}'" if pattern.isprintable() and pattern else ""


def _why_split(word: str, *, is_given: bool) -> str:
    if is_given:
        return "The column 'part' of the table holds the parts that were given."
    if word == NO_GROUPS:
        return "Shares of each class; avsnn draws the clips, always in the same way."
    return f"Shares of each class; no {word} is in two parts."


def _where_sound_is(arrangement: Arrangement) -> str:
    own = [draft.audio == draft.visual for draft in arrangement.drafts]
    if all(own):
        return "the sound is taken out of the videos"
    return "some sounds are taken out of the videos" if any(own) else ""
