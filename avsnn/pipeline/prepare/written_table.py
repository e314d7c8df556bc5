"""The table of clips that a stage writes for a data set that was published without a table."""

import csv
from collections.abc import Iterable
from functools import lru_cache
from io import StringIO
from pathlib import Path

from avsnn.datasets_manifest import Clip, Manifest, load
from avsnn.datasets_manifest.clips import COLUMNS
from avsnn.pipeline.engine.atomic_files import sha256
from avsnn.pipeline.engine.stage import Stage, records
from avsnn.pipeline.formats.damaged import damaged_error

TABLE = "clips.csv"

# The unit that writes the table.
TABLE_UNIT = "table"


def table_text(clips: Iterable[Clip], columns: tuple[str, ...] = ()) -> str:
    """Return the content of a table.

    Args:
        clips: the clips.
        columns: names of the columns that hold the parts of a split.
    """
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*COLUMNS, *columns])
    for clip in clips:
        files = (value for file in clip.files for value in (file.recording, file.sha256, file.size))
        parts = (clip.columns[column] for column in columns)
        rows.writerow([clip.key, clip.label, clip.group, *files, *parts])
    return text.getvalue()


def with_written_table(stage: Stage, manifest: Manifest, folder: Path) -> Manifest:
    """Return the manifest with the clips of the table that a stage has written.

    Where no table is written yet, the table has no clips, or the table changed after it was
    written, the manifest has no clips.

    Args:
        stage: the stage that writes the table.
        manifest: the facts about the data set.
        folder: the folder of the table.
    """
    record, (written, found) = records(stage).get(TABLE_UNIT), _digests(stage, folder)
    if record is None or not record.written or found is None or found != written:
        return manifest
    return _load_with_table(manifest.name, folder / TABLE, found)


def require_undamaged_table(stage: Stage, folder: Path) -> None:
    """Do nothing if the table of a stage is not there, or is as the stage wrote the table.

    Raises:
        UserError: the table holds other bytes.
    """
    written, found = _digests(stage, folder)
    if written and found and found != written:
        raise damaged_error(folder / TABLE)


def _digests(stage: Stage, folder: Path) -> tuple[str | None, str | None]:
    """Return the SHA-256 of the table as it was written, and as it is; None where there is none."""
    record, table = records(stage).get(TABLE_UNIT), folder / TABLE
    written = {output.path: output.sha256 for output in record.outputs} if record else {}
    return written.get(TABLE), sha256(table) if table.exists() else None


@lru_cache(maxsize=1)
def _load_with_table(dataset: str, table: Path, digest: str) -> Manifest:
    """Load the manifest with a table, once for all stages that ask for the same table.

    Args:
        dataset: name of the data set.
        table: path of the table.
        digest: SHA-256 of the table; a changed table makes the cached answer unused.
    """
    return load(dataset).with_table(table)
