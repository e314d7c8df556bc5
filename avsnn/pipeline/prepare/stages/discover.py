"""0. Folders to a table of clips, for a data set that was published without a table.

``prepare/folder_layout.py`` says which files are one clip.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import Any, ClassVar

from avsnn.datasets_manifest import Clip, Manifest, MediaFile
from avsnn.datasets_manifest.schema import FolderLayout
from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import TRANSIENT_ERRNOS, sha256
from avsnn.pipeline.engine.journal import Failure, Record
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit, records
from avsnn.pipeline.prepare.folder_layout import list_files, pair_files, read_path
from avsnn.pipeline.prepare.written_table import (
    TABLE,
    TABLE_UNIT,
    table_text,
    with_written_table,
)

IGNORED = "ignored.txt"


@dataclass(frozen=True)
class Discover(Stage):
    """Writes the table of clips: ``clips.csv``, a row per clip, with sizes and SHA-256.

    The stage has a single unit, ``table``, which counts files. The table never loses a
    row. The table is written again when the source has files that were never seen before, or files
    with other bytes than the table says. A file that belongs to no
    clip is a failure. A hidden file is skipped, and ``ignored.txt`` names the hidden files.

    Attributes:
        folder: the folder of the table.
        state: the folder of the journal.
        manifest: the facts about the data set, with a layout.
        source: the folder that holds the layout's folders; None knows only the files that were
            found before.
    """

    name: ClassVar[str] = "discover"
    version: ClassVar[int] = 1

    folder: Path
    state: Path
    manifest: Manifest
    source: Path | None

    @property
    def layout(self) -> FolderLayout:
        """How the files lie in folders."""
        assert self.manifest.layout is not None  # noqa: S101 - narrows the type
        return self.manifest.layout

    def settings(self) -> dict[str, Any]:
        """Return what decides which clip a file belongs to."""
        settings = {"layout": self.layout.model_dump(), "classes": self.manifest.classes}
        if "label" not in re.compile(self.layout.stem).groupindex:
            # Earlier versions paired files of different classes where the stem does not name the
            # class. Those tables are written again; the other tables hold.
            settings["pairs"] = "within one class"
        return settings

    def units(self) -> list[Unit]:
        """Return the table; its inputs are the paths of all files that were ever found."""
        paths = {file.path for clip in self.with_clips().clips for file in clip.files}
        if record := records(self).get(TABLE_UNIT):
            paths |= {failure.path for failure in record.failures}
        if (ignored := self.folder / IGNORED).exists():
            lines = ignored.read_text(encoding="utf-8", errors="replace").splitlines()
            folders = (f"{self.layout.audio}/", f"{self.layout.visual}/")
            paths |= {line for line in lines if line.startswith(folders) and "\ufffd" not in line}
        if self.source is not None:
            paths |= set(list_files(self.layout, self.source))
        return [
            Unit(name=TABLE_UNIT, outputs=(TABLE, IGNORED), inputs=dict.fromkeys(sorted(paths), ""))
        ]

    def why_source_changed(self, unit: Unit, record: Record) -> str:
        """Say whether a file in the source folder has other bytes than the table says."""
        changed = sorted(self._changed_files())
        if not changed:
            return ""
        more = f" and {len(changed) - 1:,} more files have" if len(changed) > 1 else " has"
        return f"{changed[0]}{more} changed in the source folder"

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Pair the files, and read the files of the clips that are new or have changed.

        Raises:
            UserError: there is no source folder to read files from.
            OSError: the disk fails for a moment; nothing is known about the file.
        """
        if self.source is None:
            raise UserError("the table is made from the files; give their folder with --source")
        known = {(clip.audio.path, clip.visual.path): clip for clip in self.with_clips().clips}
        ignored = [path for path in unit.inputs if PurePosixPath(path).name.startswith(".")]
        classes = self.manifest.classes
        keys = {files: clip.key for files, clip in known.items()}
        paired = pair_files(self.layout, classes, set(unit.inputs) - set(ignored), keys)
        reasons, changed = dict(paired.reasons), self._changed_files()
        clips = []
        for key, (audio, visual) in paired.clips.items():
            if (audio, visual) in known and changed.isdisjoint((audio, visual)):
                clips.append(known[audio, visual])
                continue
            files = {}
            for path in (audio, visual):
                try:
                    files[path] = _read_media_file(self.source, path)
                except OSError as error:
                    if error.errno in TRANSIENT_ERRNOS:
                        raise OSError(error.errno, error.strerror, path) from None
                    reasons[path] = f"cannot be read from the source folder: {error.strerror}"
                except ValueError as error:
                    reasons[path] = str(error)
            if len(files) == 2:
                label, group = read_path(self.layout, classes, audio)
                clips.append(Clip(key, label, group, {}, files[audio], files[visual]))
            else:
                reasons |= dict.fromkeys(files, "is half a clip; the other file fails")
        (scratch / TABLE).write_text(table_text(clips), encoding="utf-8", newline="\n")
        (scratch / IGNORED).write_text(
            "".join(f"{path}\n" for path in ignored), encoding="utf-8", newline="\n"
        )
        failures = [
            Failure(self.name, PurePosixPath(path).stem, reasons[path], path)
            for path in sorted(reasons)
        ]
        return Outcome(written=2 * len(clips), skipped=len(ignored), failures=failures)

    def _changed_files(self) -> set[str]:
        """Return the files in the source folder that have other bytes than the table says."""
        if self.source is None:
            return set()
        found, copies, table = set(), self.folder.parent / "raw", self.folder / TABLE
        for file in (file for clip in self.with_clips().clips for file in clip.files):
            path, copy = self.source / file.path, copies / file.path
            try:
                stat = path.stat()
                if copy.exists() and not copy.is_symlink():
                    # Fetch gives a copy the time of its source.
                    is_as_before = stat.st_mtime_ns == copy.stat().st_mtime_ns
                else:
                    is_as_before = stat.st_mtime_ns <= table.stat().st_mtime_ns
                if stat.st_size != file.size or not (is_as_before or sha256(path) == file.sha256):
                    found.add(file.path)
            except OSError:
                # A file that is gone or cannot be read is a matter of fetch, if the file is wanted.
                continue
        return found

    def with_clips(self) -> Manifest:
        """Return the manifest with the clips of the table; without clips where none is written."""
        return with_written_table(self, self.manifest, self.folder)


def _read_media_file(source: Path, path: str) -> MediaFile:
    """Describe a file of the source folder.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is a pipe or a device, which could be read for ever.
    """
    status = (source / path).stat()
    if not S_ISREG(status.st_mode):
        raise ValueError("is no regular file")
    return MediaFile(path, sha256(source / path), status.st_size)
