"""The two files that a prepare writes last: ``failures.jsonl`` and ``prepared.json``."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from avsnn.datasets_manifest.clips import PART_OF_CODE, PARTS
from avsnn.pipeline.engine.atomic_files import name_in
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.engine.journal import Failure, StageSummary
from avsnn.pipeline.engine.stage import outputs_of
from avsnn.pipeline.formats.clip_index import open_index
from avsnn.pipeline.formats.prepared_json import LAYOUT, Prepared
from avsnn.pipeline.prepare.build_stages import DatasetStages
from avsnn.pipeline.prepare.stages.fetch import COPIED


def failure_lines(summaries: list[StageSummary], known_bad: Mapping[str, str]) -> bytes:
    """Return the content of ``failures.jsonl``, sorted by stage, clip and file.

    Args:
        summaries: the stages, in the order in which the data flow.
        known_bad: clips that are known to be bad, with the reason; the reason is added to the
            failure of such a clip.
    """
    order = [summary.stage for summary in summaries]
    failures = [failure for summary in summaries for failure in summary.failures]
    failures.sort(key=lambda failure: (order.index(failure.stage), failure.key, failure.path))
    lines = (json.dumps(asdict(_with_known_reason(f, known_bad))) + "\n" for f in failures)
    return "".join(lines).encode()


def read_failures(folder: Path) -> dict[str, list[str]]:
    """Return the reasons of the failures that ``failures.jsonl`` lists, by the key of the clip.

    Args:
        folder: the folder of the data set.

    Returns:
        no failures where the file is missing; a line that is damaged names no clip.
    """
    path = folder / "failures.jsonl"
    reasons: dict[str, list[str]] = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            failure = json.loads(line)
            reasons.setdefault(str(failure["key"]), []).append(str(failure["reason"]))
    return reasons


def make_prepared(stages: DatasetStages, summaries: list[StageSummary]) -> Prepared:
    """Return the content of ``prepared.json``, once every stage is done."""
    outputs = [
        (stage.name, output.path, output.sha256)
        for stage in (stages.frames, stages.audio)
        for output in outputs_of(stage)
    ]
    return Prepared(
        dataset=stages.manifest.name,
        settings=stages.request.settings,
        fingerprint=fingerprint(sorted(outputs)),
        shards=name_in(stages.folder, stages.extract.folder),
        frames=name_in(stages.folder, stages.frames.folder),
        audio=name_in(stages.folder, stages.audio.folder),
        index=str(stages.index.folder.relative_to(stages.folder)),
        clips=summaries[-1].written,
        failed=sum(summary.failed for summary in summaries),
        bytes=sum(summary.bytes for summary in summaries),
        layout=LAYOUT,
        notes=(
            *_notes_on_parts(stages, {f.key for s in summaries for f in s.failures}),
            *_notes_on_events(summaries),
            *_notes_on_copies(summaries),
        ),
    )


def _notes_on_events(summaries: list[StageSummary]) -> tuple[str, ...]:
    """Return a phrase for every cache in which events of the recordings are not counted."""
    notes = []
    for summary in summaries:
        tallies = summary.tallies
        events = tallies["events"]
        if outside := tallies["outside"]:
            notes.append(
                f"{summary.stage}: {outside:,} of {events:,} events ({outside / events:.1%}) are "
                "outside the crop"
            )
        if saturated := tallies["saturated"]:
            notes.append(
                f"{summary.stage}: {saturated:,} of {events:,} events are not counted, because a "
                "count ends at 255; more steps lower the counts"
            )
    return tuple(notes)


def _notes_on_copies(summaries: list[StageSummary]) -> tuple[str, ...]:
    """Return a phrase on files that were copied, because the system could make no links."""
    copied = sum(summary.tallies[COPIED] for summary in summaries)
    return (f"{copied:,} files were copied, because no links can be made here",) if copied else ()


def _notes_on_parts(stages: DatasetStages, failed: set[str]) -> tuple[str, ...]:
    """Return a phrase for every part of a split that has no clips, or no clips of some classes.

    Args:
        stages: the stages of the data set.
        failed: keys of the clips that cannot be used.
    """
    index, classes = open_index(stages.index.folder), stages.manifest.classes
    is_usable = np.ones(len(index), np.bool_)
    numbers = index.find(failed)
    is_usable[numbers[numbers >= 0]] = False
    notes = []
    for split in stages.manifest.splits:
        for part in PARTS:
            chosen = is_usable & (index.parts[split] == PART_OF_CODE.index(part))
            counts = np.bincount(index.labels[chosen], minlength=len(classes))
            missing = [name for name, count in zip(classes, counts, strict=True) if not count]
            if not counts.any():
                notes.append(f"the part {part} of the split {split!r} has no clips")
            elif missing:
                what = missing[0]
                if len(missing) > 1:
                    what = f"{len(missing):,} classes, {missing[0]} among them"
                notes.append(f"the part {part} of the split {split!r} has no clip of {what}")
    return tuple(notes)


def _with_known_reason(failure: Failure, known_bad: Mapping[str, str]) -> Failure:
    why = known_bad.get(failure.key)
    return replace(failure, reason=f"{failure.reason} (known to be bad: {why})") if why else failure
