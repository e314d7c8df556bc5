"""2. One row per clip: key, label, its part in every split, where its media are."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from avsnn.datasets_manifest import Manifest
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit, records
from avsnn.pipeline.formats.index import IndexRow
from avsnn.pipeline.prepare.splits import assign_parts, hash_rank
from avsnn.pipeline.prepare.stages.fetch import Fetch


@dataclass(frozen=True)
class Index(Stage):
    """A single unit. Clips with a file that fetch could not bring are skipped, and counted."""

    name: ClassVar[str] = "index"
    version: ClassVar[int] = 1

    folder: Path
    state: Path
    manifest: Manifest
    fetch: Fetch

    def settings(self) -> dict[str, Any]:
        """The splits, since every row names its parts."""
        return {split: rule.model_dump() for split, rule in self.manifest.splits.items()}

    def units(self) -> list[Unit]:
        """The table as a whole."""
        brought = records(self.fetch)

        def digest(path: str) -> str | None:
            record = brought.get(path)
            return record.outputs[0].sha256 if record and record.outputs else None

        inputs = {
            clip.key: {file.path: digest(file.path) for file in clip.files}
            for clip in self.fetch.clips
        }
        return [Unit(name="clips", outputs=("clips.jsonl",), inputs=inputs)]

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Writes ``clips.jsonl``, in an order that mixes classes."""
        parts = {name: assign_parts(self.manifest, name) for name in self.manifest.splits}
        default = parts[self.manifest.default_split]
        positions: dict[str, int] = defaultdict(int)
        rows, skipped = [], 0
        for clip in sorted(self.fetch.clips, key=lambda clip: hash_rank(clip.key)):
            part = default[clip.key]
            position = positions[part]
            positions[part] += 1
            digests: dict[str, str | None] = unit.inputs[clip.key]
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
                splits={split: table[clip.key] for split, table in parts.items()},
                audio=clip.audio.path,
                visual=clip.visual.path,
                sha256={path: digest for path, digest in digests.items() if digest},
            )
            rows.append(row.model_dump_json())
        (scratch / "clips.jsonl").write_text("".join(row + "\n" for row in rows), encoding="utf-8")
        return Outcome(written=len(rows), skipped=skipped)
