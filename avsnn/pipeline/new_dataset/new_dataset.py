"""Looks at a folder and writes the YAML and the table of a data set: `avsnn datasets new`."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from avsnn.datasets_manifest import Manifest
from avsnn.datasets_manifest.clips import composed
from avsnn.datasets_manifest.text_columns import TextSearch
from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import not_written_error, write_if_changed
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.new_dataset.class_folders import arrange_folders
from avsnn.pipeline.new_dataset.clip_facts import ClipFacts, check_clips
from avsnn.pipeline.new_dataset.draft import PART_OF_WORD, Arrangement, Draft
from avsnn.pipeline.new_dataset.event_recordings import arrange_events
from avsnn.pipeline.new_dataset.found_files import FoundFiles, find_files, require_folder
from avsnn.pipeline.new_dataset.groups import (
    NO_GROUPS,
    GroupGuess,
    guess_groups,
    with_earlier_groups,
    with_groups,
)
from avsnn.pipeline.new_dataset.manifest_files import (
    Texts,
    choose_name,
    earlier_dataset,
    first_texts,
    target_folder,
    updated_texts,
)
from avsnn.pipeline.new_dataset.oddities import Oddities, Oddity
from avsnn.pipeline.new_dataset.split_choice import count_parts
from avsnn.pipeline.new_dataset.user_tables import arrange_table
from avsnn.pipeline.prepare.splits import assign_parts

# A sentence says so many reasons why files were left out.
MOST_REASONS = 3

#: Returns the answer to a guess: empty to take the guess, "none", or a regular expression.
Ask = Callable[[GroupGuess], str]


@dataclass(frozen=True)
class NewDataset:
    """What `datasets new` found and wrote.

    Attributes:
        name: name of the data set.
        folder: the folder of the files.
        yaml: the YAML file.
        table: the CSV file.
        described: what the clips are: ``videos with sound``.
        found_by: how the classes were found: ``one folder for each class``.
        notes: sentences about what was decided.
        group_word: what clips of one group have in common; ``none`` where clips have no groups.
        groups: number of groups; 0 where clips have no groups.
        guess: the guess of groups that was taken; None where nothing was guessed.
        classes: number of clips of each class.
        split: name of the split.
        parts: number of clips of each class, by part.
        facts: lengths, sizes and rates.
        odd: what is odd.
        is_update: whether the data set was there before.
        new: number of clips that the data set did not have before.
        gone: number of clips that are gone.
        changed: number of clips with other values than before.
        is_written: whether files were written; otherwise nothing has changed.
    """

    name: str
    folder: Path
    yaml: Path
    table: Path
    described: str
    found_by: str
    notes: list[str]
    group_word: str
    groups: int
    guess: GroupGuess | None
    classes: dict[str, int]
    split: str
    parts: dict[str, dict[str, int]]
    facts: ClipFacts
    odd: list[Oddity] = field(default_factory=list)
    is_update: bool = False
    new: int = 0
    gone: int = 0
    changed: int = 0
    is_written: bool = True


def new_dataset(
    folder: Path,
    *,
    name: str | None,
    group: str | None,
    take: Literal["link", "copy"] | None,
    ask: Ask,
    progress: Progress,
) -> NewDataset:
    """Look at a folder, and write or update the YAML and the table of its data set.

    Args:
        folder: the folder of the clips, or a CSV in the folder.
        name: name of the data set; None makes the name from the folder.
        group: ``none``, or a regular expression that finds the group in the path of a clip; None
            guesses.
        take: how `prepare` takes the files; None keeps what the data set says, or takes links.
        ask: confirms a guess of groups.
        progress: receives the progress.

    Raises:
        UserError: the folder holds no clips of two classes, the name is taken, or ``group`` finds
            nothing.
    """
    tables = [folder.absolute()] if os.path.isfile(folder) else []  # noqa: PTH113
    folder = folder.parent if tables else folder
    require_folder(folder)
    folder = _without_parents(folder.absolute())
    name = choose_name(folder, name)
    earlier = earlier_dataset(name, folder)
    odd = Oddities()
    found = find_files(folder, odd)
    arrangement = _arrange(folder, found, tables, odd, target_folder() / f"{name}.csv")
    all_drafts = arrangement.drafts
    drafts, facts = check_clips(folder, arrangement, odd, progress)
    _require_two_classes(folder, drafts, odd)
    drafts, guess, pattern = _group(drafts, group, ask, odd, earlier)
    arrangement = replace(arrangement, drafts=drafts)
    if earlier is None:
        texts = first_texts(name, folder, arrangement, pattern=pattern, take=take or "link")
    else:
        unusable = _paths(all_drafts) - _paths(drafts)
        there = {file.path for file in found.all} - unusable
        if arrangement.from_table:
            # A clip whose row the person took out of the own table is left out, too.
            there &= _paths(drafts)
        texts = updated_texts(earlier, arrangement, group=group, take=take, there=there)
    return _write(name, folder, arrangement, guess, facts, odd, texts)


def _without_parents(folder: Path) -> Path:
    """Return an absolute path without ``..``; a link at its end keeps the name of the link."""
    if ".." not in folder.parts:
        return folder
    return folder.resolve() if folder.name == ".." else folder.parent.resolve() / folder.name


def _arrange(
    folder: Path, found: FoundFiles, tables: Sequence[Path], odd: Oddities, written: Path
) -> Arrangement:
    """Return the clips of the tables that a person named, of a table in the folder, or of folders.

    Args:
        folder: the folder.
        found: the files in the folder.
        tables: the table that the person named.
        odd: receives what is odd.
        written: the table that avsnn writes, which may lie in the folder and says nothing new.
    """
    if tables:
        arrangement = arrange_table(tables, found, odd)
        if arrangement is None:
            raise _names_no_files(tables[0], folder)
        return arrangement
    problem = None
    groups = _groups_of_tables(folder, found, written)
    for group in groups:
        try:
            trial = Oddities()
            arrangement = arrange_table(group, found, trial)
        except UserError as error:
            problem = problem or error
            continue
        if arrangement is not None:
            odd.take(trial)
            others = {path for one in groups for path in one} - {*group}
            odd.add(
                "is another table; to use it, give this file in place of the folder",
                sorted(path.relative_to(folder).as_posix() for path in others),
            )
            return arrangement
        if found.media:
            problem = problem or _names_no_files(group[0], folder)
    has_events = found.camera or found.cochlea
    if has_events and not (found.videos or found.images):
        return arrange_events(folder, found, odd)
    try:
        return arrange_folders(folder, found, odd)
    except UserError as error:
        if problem is not None:
            raise problem from None
        reasons = [str(one) for one in odd.all() if one.left_out][:MOST_REASONS]
        if reasons:
            raise UserError(f"{error} Left out: {'; '.join(reasons)}.") from None
        raise


def _names_no_files(table: Path, folder: Path) -> UserError:
    return UserError(
        f"{table} has no column that names videos or images in {folder}; write the path of each "
        "clip, such as cat/1.mp4, into a column 'file'."
    )


def _groups_of_tables(folder: Path, found: FoundFiles, written: Path) -> list[list[Path]]:
    """Return the tables that are tried: one for each part together, and else each alone."""
    paths = [folder / file.path for file in found.tables]
    paths = [path for path in paths if path.resolve() != written.resolve()]
    parts = [path for path in paths if path.stem.lower() in PART_OF_WORD]
    of_parts = [parts] if len(parts) > 1 else []
    return of_parts + [[path] for path in sorted(paths, key=lambda path: len(path.parts))]


def _paths(drafts: Sequence[Draft]) -> set[str]:
    return {path for draft in drafts for path in (draft.visual, draft.audio)}


def _require_two_classes(folder: Path, drafts: Sequence[Draft], odd: Oddities) -> None:
    if len({draft.label for draft in drafts}) > 1:
        return
    reasons = "; ".join(str(one) for one in odd.all() if one.left_out)
    raise UserError(
        f"{folder} holds no two classes of clips that can be used ({reasons}); mend these files."
    )


def _group(
    drafts: list[Draft], group: str | None, ask: Ask, odd: Oddities, earlier: Manifest | None
) -> tuple[list[Draft], GroupGuess | None, str]:
    """Return the clips with their groups, the guess if a guess was taken, and the pattern."""
    if group is not None:
        return with_groups(drafts, group, odd), None, group
    if any(draft.group for draft in drafts):
        return drafts, None, ""
    if earlier is not None:
        if earlier.group == NO_GROUPS:
            return drafts, None, ""
        known = {composed(clip.visual.recording): clip.group for clip in earlier.clips}
        return with_earlier_groups(drafts, known, odd), None, ""
    guess = guess_groups(drafts)
    if guess is None:
        return drafts, None, ""
    answer = ask(guess)
    pattern = answer or guess.pattern
    return with_groups(drafts, pattern, odd), None if answer else guess, pattern


def _write(
    name: str,
    folder: Path,
    arrangement: Arrangement,
    guess: GroupGuess | None,
    facts: ClipFacts,
    odd: Oddities,
    texts: Texts,
) -> NewDataset:
    manifest = texts.manifest
    counts = count_parts(manifest, manifest.default_split)
    classes = {
        label: sum(counts[part, label] for part in ("train", "val", "test", "none"))
        for label in manifest.classes
    }
    spellings = Counter(label.casefold() for label in manifest.classes)
    odd.add(
        "differs from another class in capital letters only",
        [label for label in manifest.classes if spellings[label.casefold()] > 1],
        kind="classes",
        left_out=False,
    )
    single = [label for label, count in classes.items() if count == 1]
    odd.add(
        "has one clip only, so the class is in one part only",
        single,
        kind="classes",
        left_out=False,
    )
    target = target_folder()
    yaml, table = target / f"{name}.yaml", target / str(texts.table_name)
    _write_files(yaml, table, texts)
    has_groups = manifest.group != NO_GROUPS
    return NewDataset(
        name=name,
        folder=folder,
        yaml=yaml,
        table=table,
        described=arrangement.described,
        found_by=arrangement.found_by,
        notes=[*arrangement.notes, *texts.notes, *_shared_groups(manifest)],
        group_word=manifest.group,
        groups=len(set(manifest.clips.groups)) if has_groups else 0,
        guess=guess,
        classes=classes,
        split=manifest.default_split,
        parts={
            part: {label: counts[part, label] for label in manifest.classes}
            for part in ("train", "val", "test")
        },
        facts=facts,
        odd=odd.all(),
        is_update=texts.is_update,
        new=texts.table.new,
        gone=texts.table.gone,
        changed=texts.table.changed,
        is_written=texts.is_changed,
    )


def _write_files(yaml: Path, table: Path, texts: Texts) -> None:
    """Write both files; a kill at any moment leaves files with which the same command can go on.

    Raises:
        UserError: the files cannot be written, or the table is a file of the user.
    """
    try:
        if texts.yaml_before:
            write_if_changed(yaml, texts.yaml_before.encode())
        elif table.exists() and table.read_bytes() != texts.table.content:
            raise UserError(
                f"{table} exists already and belongs to no data set; move the file, or choose "
                "another name with --name."
            )
        # The YAML names the table, so the table comes first.
        write_if_changed(table, texts.table.content)
        write_if_changed(yaml, texts.yaml.encode())
    except OSError as error:
        advice = "give another folder with --datasets"
        raise not_written_error(yaml.parent, error, advice) from None


def _shared_groups(manifest: Manifest) -> list[str]:
    """Return a sentence on groups that are in several parts, where there are such groups."""
    if manifest.group == NO_GROUPS:
        return []
    parts = assign_parts(manifest, manifest.default_split)
    groups, first = TextSearch.of(manifest.clips.groups).distinct()
    # One bit for each part that a group is in.
    bits = np.zeros(len(first), np.uint8)
    np.bitwise_or.at(bits, groups, np.uint8(1) << parts)
    shared = int((np.bitwise_count(bits) > 1).sum())
    if not shared:
        return []
    return [
        f"{shared:,} of {len(first):,} {manifest.group}s are in more than one part; 'avsnn "
        f"datasets check {manifest.name}' counts their clips."
    ]
