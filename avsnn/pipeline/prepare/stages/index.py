"""2. Table and files to an index: ``clips.jsonl``, one row per clip whose files are here."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from avsnn.datasets_manifest import Manifest
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit, records
from avsnn.pipeline.formats.clips_jsonl import IndexRow
from avsnn.pipeline.prepare.splits import assign_parts, hash_rank
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
        fetch: the stage that brings the files.
    """

    name: ClassVar[str] = "index"
    version: ClassVar[int] = 2

    folder: Path
    state: Path
    manifest: Manifest
    fetch: Fetch

    def settings(self) -> dict[str, Any]:
        """Return what every row depends on: the classes, and the rules of the splits."""
        return {
            "classes": self.manifest.classes,
            "default_split": self.manifest.default_split,
            "splits": {split: rule.model_dump() for split, rule in self.manifest.splits.items()},
        }

    def units(self) -> list[Unit]:
        """Return the whole index as one unit.

        The inputs are, for every clip, its label, its group, its part in every split, and the
        SHA-256 of its files. So a corrected label or part makes the index again.
        """
        fetched = records(self.fetch)
        parts_of_split = {name: assign_parts(self.manifest, name) for name in self.manifest.splits}

        def digest(path: str) -> str | None:
            record = fetched.get(path)
            return record.outputs[0].sha256 if record and record.outputs else None

        inputs = {
            clip.key: {
                "label": clip.label,
                "group": clip.group,
                "parts": {split: parts[clip.key] for split, parts in parts_of_split.items()},
                "files": {file.path: digest(file.path) for file in clip.files},
            }
            for clip in self.fetch.clips
        }
        return [Unit(name="clips", outputs=("clips.jsonl",), inputs=inputs)]

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Write ``clips.jsonl``, in an order that mixes the classes."""
        positions: dict[str, int] = defaultdict(int)
        rows, skipped = [], 0
        for clip in sorted(self.fetch.clips, key=lambda clip: hash_rank(clip.key)):
            facts: dict[str, Any] = unit.inputs[clip.key]
            part = facts["parts"][self.manifest.default_split]
            position = positions[part]
            positions[part] += 1
            digests: dict[str, str | None] = facts["files"]
            if None in digests.values():
                skipped += 1
                continue
            row = IndexRow(
                key=clip.key,
                label=clip.label,
                label_name=self.manifest.classes[clip.label],
                group=clip.group,
                part=part,
                position=position,
                splits=facts["parts"],
                audio=clip.audio.path,
                visual=clip.visual.path,
                sha256={path: digest for path, digest in digests.items() if digest},
            )
            rows.append(row.model_dump_json())
        (scratch / "clips.jsonl").write_text("".join(row + "\n" for row in rows), encoding="utf-8")
        return Outcome(written=len(rows), skipped=skipped)
