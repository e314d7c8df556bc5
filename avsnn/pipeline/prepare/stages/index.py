"""2. Table and files to an index: ``clips.jsonl``, one row per clip whose files are here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from avsnn.datasets_manifest import Manifest
from avsnn.datasets_manifest.split_rules import Split
from avsnn.pipeline.engine.atomic_files import Folder
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit, records
from avsnn.pipeline.formats.clip_index import COLUMNS, ROWS, write_index
from avsnn.pipeline.prepare.described_clips import DescribedClips, describe
from avsnn.pipeline.prepare.generations import earlier_generations
from avsnn.pipeline.prepare.stages.fetch import Fetch


@dataclass(frozen=True)
class Index(Stage):
    """Writes ``clips.jsonl`` in a single unit.

    A clip with a file that fetch could not bring is skipped, because fetch has already counted the
    file as failed.

    Attributes:
        folder: the folder of ``clips.jsonl``.
        state: the folder of the journal.
        manifest: the facts about the data set.
        clips: what the clips are.
    """

    name: ClassVar[str] = "index"
    version: ClassVar[int] = 4

    folder: Path
    state: Path
    manifest: Manifest
    clips: DescribedClips

    def settings(self) -> dict[str, Any]:
        """Return what every row depends on: the classes, and the rules of the splits."""
        return identity_of_splits(self.manifest)

    @property
    def earlier(self) -> tuple[Folder, ...]:
        """The indexes of other clips."""
        return earlier_generations(self.folder, self.state)

    def units(self) -> list[Unit]:
        """Return the whole index as one unit. A corrected label or part makes the index again."""
        inputs = {"clips": self.clips.fingerprint}
        return [Unit(name="clips", outputs=(ROWS, COLUMNS), inputs=inputs)]

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Write the rows of the index, in an order that mixes the classes."""
        classes, splits = self.manifest.classes, self.manifest.splits
        written = write_index(scratch, self.clips.rows(), classes=classes, splits=splits)
        return Outcome(written=written, skipped=len(self.clips) - written)


def describe_clips(fetch: Fetch) -> DescribedClips:
    """Return what the clips of a data set are, and which files fetch has brought."""
    return describe(fetch.manifest, fetch.clips, fetch.files, records(fetch).values())


def identity_of_splits(manifest: Manifest) -> dict[str, Any]:
    """Return what gives labels and parts their meaning: the classes and the rules of the splits."""
    return {
        "classes": manifest.classes,
        "default_split": manifest.default_split,
        "splits": {split: _facts_of_split(rule) for split, rule in manifest.splits.items()},
    }


def _facts_of_split(rule: Split) -> dict[str, Any]:
    """Return the settings of a rule, without those of later versions that are not used.

    So data sets that earlier versions prepared stay as they are.
    """
    later = {"whole_recordings": False, "keys": None}
    return {
        name: value
        for name, value in rule.model_dump().items()
        if name not in later or value != later[name]
    }
