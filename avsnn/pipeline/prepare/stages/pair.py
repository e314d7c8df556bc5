"""1. Files of recordings to a table of clips, for event sensors that were recorded apart.

``prepare/pairing.py`` says which recordings are one clip.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from avsnn.datasets_manifest import Manifest
from avsnn.datasets_manifest.recordings import PART_COLUMN, EventFormat, Pairs, Recordings
from avsnn.errors import UserError
from avsnn.pipeline.engine.journal import Failure
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit, records
from avsnn.pipeline.media import sandbox
from avsnn.pipeline.media.errors import MediaError, failures_of
from avsnn.pipeline.prepare.pairing import pair_recordings, read_paths
from avsnn.pipeline.prepare.stages.fetch import Fetch
from avsnn.pipeline.prepare.written_table import (
    TABLE,
    TABLE_UNIT,
    table_text,
    with_written_table,
)


@dataclass(frozen=True)
class Pair(Stage):
    """Writes the table of clips: ``clips.csv``, a row per clip, from what the files hold.

    The stage has a single unit, ``table``, which counts recordings and runs in this process, beside
    the connections of fetch. A recording with a label that is no class, or one that finds no
    partner because the other modality has fewer, is skipped.

    Attributes:
        folder: the folder of the table.
        state: the folder of the journal.
        manifest: the facts about the data set, with pairs.
        fetch: the stage that brings the files.
    """

    name: ClassVar[str] = "pair"
    version: ClassVar[int] = 1

    folder: Path
    state: Path
    manifest: Manifest
    fetch: Fetch

    @property
    def pairs(self) -> Pairs:
        """How recordings become clips."""
        assert self.manifest.pairs is not None  # noqa: S101 - narrows the type
        return self.manifest.pairs

    def settings(self) -> dict[str, Any]:
        """Return what decides which recordings are one clip."""
        return {"pairs": self.pairs.model_dump(mode="json", exclude={"files"})}

    def units(self) -> list[Unit]:
        """Return the table; its inputs are the files that fetch has brought."""
        fetched = records(self.fetch)
        digests: dict[str, Any] = {
            file.path: record.outputs[0].sha256
            for file in self.fetch.files
            if (record := fetched.get(file.path)) and record.outputs
        }
        return [Unit(name=TABLE_UNIT, outputs=(TABLE,), inputs=digests)]

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """List what the files hold, pair the recordings, and write the table."""
        reasons: dict[str, str] = {}
        left_out = 0
        found = {}
        for modality, recordings, form in (
            ("audio", self.pairs.audio, self.manifest.audio),
            ("visual", self.pairs.visual, self.manifest.visual),
        ):
            paths, broken = self._list(recordings, form, unit)
            read = read_paths(recordings, paths)
            found[modality] = read.recordings
            left_out += read.left_out
            reasons |= broken | read.reasons
        paired = pair_recordings(self.pairs, found["audio"], found["visual"])
        reasons |= paired.reasons
        clips, twice = [], Counter(clip.key for clip in paired.clips)
        for clip in paired.clips:
            if twice[clip.key] == 1:
                clips.append(clip)
            else:
                leading = clip.audio if self.pairs.each == "audio" else clip.visual
                reasons[leading.recording] = "has the same name as another recording"
        (scratch / TABLE).write_text(
            table_text(clips, (PART_COLUMN,)), encoding="utf-8", newline="\n"
        )
        failures = [Failure(self.name, path, reasons[path], path) for path in sorted(reasons)]
        return Outcome(written=len(clips), skipped=left_out + paired.left_out, failures=failures)

    def _list(
        self, recordings: Recordings, form: Any, unit: Unit
    ) -> tuple[list[str], dict[str, str]]:
        """Return the paths of everything in the files of a modality, and why a file is broken."""
        paths, reasons = [], {}
        for file in recordings.files:
            if file.path not in unit.inputs:
                continue
            try:
                members = sandbox.call(_list_in_file, self.fetch.folder / file.path, form)
            except MediaError as error:
                reasons[file.path] = str(error).removeprefix(f"{file.path} ")
                continue
            paths += [f"{file.path}/{member}" for member in members]
        return paths, reasons

    def with_clips(self) -> Manifest:
        """Return the manifest with the clips of the table; without clips where none is written.

        A table of another YAML, whose classes or parts the present YAML does not know, is written
        again and counts as none.
        """
        manifest = with_written_table(self, self.manifest, self.folder)
        try:
            return manifest if manifest.clips else self.manifest
        except UserError:
            return self.manifest


def _list_in_file(file: Path, form: EventFormat) -> list[str]:
    from avsnn.pipeline.media.event_files import list_recordings

    with failures_of(file.name):
        return list_recordings(file.absolute(), form)
