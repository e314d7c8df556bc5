"""What a person reads where too much of a stage failed: the most frequent reason, what to do."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from avsnn.datasets_manifest.clips import Clip, composed
from avsnn.errors import RunError
from avsnn.pipeline.engine.journal import Failure, StageSummary
from avsnn.pipeline.prepare.build_stages import DatasetStages
from avsnn.pipeline.prepare.folder_layout import NO_CLASS
from avsnn.pipeline.prepare.stages.discover import Discover
from avsnn.pipeline.prepare.stages.fetch import Fetch
from avsnn.pipeline.transfer.local_files import MISSING
from avsnn.suggestions import nearest

# Where a larger share of a stage fails, one mistake is behind it, and nobody should accept that.
ACCEPTABLE_SHARE = 0.5

# A sentence names so many things.
MOST_NAMED = 5


def failures_error(
    stages: DatasetStages,
    summary: StageSummary,
    failures: Sequence[Failure],
    inputs: int,
    what: str,
) -> RunError:
    """Return the error for a stage of which more failed than is allowed.

    Args:
        stages: the stages of the data set.
        summary: the stage.
        failures: what failed.
        inputs: number of inputs, of which the failures are a share.
        what: what the inputs are, in words.
    """
    start = (
        f"{stages.manifest.name}: {summary.stage}: {len(failures):,} of {inputs:,} {what} failed"
    )
    reasons = f"All reasons: {stages.folder / 'failures.jsonl'}."
    if not failures:
        return RunError(f"{start} (all were skipped). {reasons}")
    found = _found_mistake(stages, failures)
    first = failures[0]
    if len(failures) <= ACCEPTABLE_SHARE * inputs:
        share = math.ceil(100 * len(failures) / inputs) / 100
        return RunError(
            f"{start} (first: {first.path or first.key} {first.reason}). {found}{reasons} Mend "
            f"them and add --retry-failed, or accept them with --max-failures {share:.2f}."
        )
    common, count = Counter(_kind_of(stages, failure) for failure in failures).most_common(1)[0]
    example = next(failure for failure in failures if _kind_of(stages, failure) == common)
    often = "all for one reason" if count == len(failures) else f"most often, {count:,} times,"
    look = found or f"Look at {_file_of(stages, example)} first. "
    # Files that were missing are looked for again in every run.
    again = "run the same command again" if common == MISSING else "add --retry-failed"
    return RunError(
        f"{start}, {often}: {example.path or example.key} {example.reason}. {look}{reasons} Then "
        f"{again}."
    )


def _kind_of(stages: DatasetStages, failure: Failure) -> str:
    """Return the reason of a failure without the names and numbers of its clip."""
    reason = failure.reason
    if not failure.path and (clip := _clip_of(stages, failure)):
        for file in clip.files:
            reason = reason.replace(file.recording, "")
    return re.sub(r"\d+", "N", reason)


def _file_of(stages: DatasetStages, failure: Failure) -> str:
    """Return the path of a file of a failed clip."""
    if not failure.path and (clip := _clip_of(stages, failure)):
        return str(stages.fetch.folder / clip.visual.path)
    return failure.path or failure.key


def _clip_of(stages: DatasetStages, failure: Failure) -> Clip | None:
    (row,) = stages.fetch.clips.find([failure.key])
    return stages.fetch.clips[row] if row >= 0 else None


def _found_mistake(stages: DatasetStages, failures: Sequence[Failure]) -> str:
    """Return a sentence about a mistake in the YAML or in the table; empty where none is found."""
    stage = failures[0].stage
    missing = [failure for failure in failures if failure.reason == MISSING]
    if stage == Fetch.name and missing:
        table = stages.manifest.table
        count = "1 file is" if len(missing) == 1 else f"{len(missing):,} files are"
        advice = ""
        if len(missing) > ACCEPTABLE_SHARE * len(stages.fetch.files):
            advice = "Is it the right folder? "
            if table is not None and stages.manifest.layout is None:
                advice = f"Are the paths in {PurePosixPath(table).name} paths below this folder? "
        return f"{count} missing in {stages.fetch.source}. {advice}"
    if stage == Discover.name and any(failure.reason == NO_CLASS for failure in failures):
        return _describe_classes(stages, failures)
    return ""


def _describe_classes(stages: DatasetStages, failures: Sequence[Failure]) -> str:
    """Return which classes have no folder, and which folders are no class."""
    parts = [PurePosixPath(f.path).parts for f in failures if f.reason == NO_CLASS]
    folders = sorted({part[1] for part in parts if len(part) > 2})
    layout, source = stages.manifest.layout, stages.fetch.source
    if layout is None or source is None:
        return ""
    tops = [source / name for name in (layout.audio, layout.visual)]
    there = {composed(path.name) for top in tops for path in top.iterdir()}
    lost = [name for name in stages.manifest.classes if composed(name) not in there]
    if not lost:
        return f"These folders are no class of the YAML: {_named(folders)}. "
    near = [f"{name} ({found})" if (found := nearest(name, folders)) else name for name in lost]
    return (
        f"These classes of the YAML have no folder (in brackets the nearest folder): "
        f"{_named(near)}. These folders are no class: {_named(folders)}. Write the names of the "
        "folders in 'classes', or rename the folders. "
    )


def _named(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
