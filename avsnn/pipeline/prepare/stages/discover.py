"""0. The table of a data set that was published without one: found in folders, written once."""

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from avsnn.datasets_manifest import Clip, Manifest, MediaFile, load
from avsnn.datasets_manifest.schema import COLUMNS, KEY, FolderLayout
from avsnn.errors import UserError
from avsnn.pipeline.engine.files import sha256
from avsnn.pipeline.engine.journal import Failure
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit, records

TABLE = "clips.csv"


IGNORED = "ignored.txt"


@dataclass(frozen=True)
class Discover(Stage):
    """A single unit, counted in files. ``clips.csv`` has a row per clip, with sizes and SHA-256.

    A table only grows: what it says of a file is what the file was when it was first found, so
    that one which changes later is a failure of fetch. Files that were never seen make it grow.
    Those that belong to no clip are failures; hidden ones are skipped, and named in
    ``ignored.txt``.

    Attributes:
        folder: where the table goes.
        state: where the journal is kept.
        manifest: the data set, with a layout.
        source: the folder that holds the layout's folders; None knows what was found before.
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
        assert self.manifest.layout is not None  # noqa: S101
        return self.manifest.layout

    def settings(self) -> dict[str, Any]:
        """What decides which clip a file belongs to."""
        return {"layout": self.layout.model_dump(), "classes": self.manifest.classes}

    def units(self) -> list[Unit]:
        """The table; its inputs are the paths of all files that were ever found."""
        paths = {file.path for clip in self.with_discovered_clips().clips for file in clip.files}
        if record := records(self).get("table"):
            paths |= {failure.path for failure in record.failures}
        if (ignored := self.folder / IGNORED).exists():
            paths |= set(ignored.read_text(encoding="utf-8").splitlines())
        if self.source is not None:
            paths |= set(_walk(self.layout, self.source))
        return [
            Unit(name="table", outputs=(TABLE, IGNORED), inputs=dict.fromkeys(sorted(paths), ""))
        ]

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Pairs the files and reads those that the table does not know yet."""
        if self.source is None:
            raise UserError("the table can only be made from the files; give their folder")
        known = {clip.key: clip for clip in self.with_discovered_clips().clips}
        ignored = [path for path in unit.inputs if PurePosixPath(path).name.startswith(".")]
        pairs, reasons = _pair(self.manifest, self.layout, set(unit.inputs) - set(ignored))
        clips = []
        for key, (audio, visual) in pairs.items():
            digests = {}
            for path in (audio, visual) if key not in known else ():
                try:
                    digests[path] = _describe(self.source, path)
                except OSError as error:
                    reasons[path] = f"cannot be read from the source folder: {error.strerror}"
            if key in known:
                clips.append(known[key])
            elif len(digests) == 2:
                label, group = _read_path(self.manifest, self.layout, audio)
                clips.append(Clip(key, label, group, {}, digests[audio], digests[visual]))
            else:
                reasons |= dict.fromkeys(digests, "is half a clip; the other file fails")
        (scratch / TABLE).write_text(_table(clips), encoding="utf-8")
        (scratch / IGNORED).write_text("".join(f"{path}\n" for path in ignored), encoding="utf-8")
        failures = [
            Failure(self.name, PurePosixPath(path).stem, reasons[path], path)
            for path in sorted(reasons)
        ]
        return Outcome(written=2 * len(clips), skipped=len(ignored), failures=failures)

    def with_discovered_clips(self) -> Manifest:
        """The data set with its clips; without, where no table is written or it changed since."""
        record, table = records(self).get("table"), self.folder / TABLE
        written = {output.path: output.sha256 for output in record.outputs} if record else {}
        if not table.exists() or (digest := sha256(table)) != written.get(TABLE):
            return self.manifest
        return _with_table(self.manifest.name, table, digest)


@lru_cache(maxsize=1)
def _with_table(dataset: str, table: Path, digest: str) -> Manifest:
    """Several stages ask for the same table; ``digest`` is the SHA-256 of what is read."""
    return load(dataset).with_table(table)


def discover_stage(manifest: Manifest, folder: Path, source: Path | None = None) -> Discover | None:
    """The stage that finds the clips of a data set in ``folder``; None where a table has them."""
    if manifest.layout is None:
        return None
    return Discover(folder / "table", folder / "state", manifest, source)


def load_discovered(dataset: str, root: Path) -> Manifest:
    """The manifest of a data set, with the clips that were discovered below ``root`` if need be.

    Raises:
        UserError: there is no such data set.
    """
    manifest = load(dataset)
    stage = discover_stage(manifest, root / dataset)
    return stage.with_discovered_clips() if stage else manifest


def find_layout_folder(layout: FolderLayout, source: Path) -> Path:
    """The folder that holds the layout's folders: the source, or a folder in it.

    Raises:
        UserError: there is none.
    """
    inner = sorted(path for path in source.iterdir() if path.is_dir())
    for folder in (source, *inner):
        if (folder / layout.audio).is_dir() and (folder / layout.visual).is_dir():
            return folder
    raise UserError(
        f"--source {source} holds no folders {layout.audio} and {layout.visual}; "
        "give the one that holds both."
    )


def _walk(layout: FolderLayout, source: Path) -> Iterator[str]:
    for folder in (layout.audio, layout.visual):
        for where, _, names in os.walk(source / folder, followlinks=True):
            for name in names:
                yield (Path(where) / name).relative_to(source).as_posix()


def _pair(
    manifest: Manifest, layout: FolderLayout, paths: set[str]
) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """Clips by key with their audio and visual path, and a reason for every other path."""
    reasons = {}
    found: dict[str, dict[str, str]] = {layout.audio: {}, layout.visual: {}}
    for path in sorted(paths):
        pure = PurePosixPath(path)
        mine = found[pure.parts[0]]
        try:
            _read_path(manifest, layout, path)
        except ValueError as error:
            reasons[path] = str(error)
            continue
        if pure.stem in mine:
            reasons[path] = f"has the name of another clip, {mine[pure.stem]}"
        else:
            mine[pure.stem] = path
    sounds, sights = found[layout.audio], found[layout.visual]
    reasons |= {sounds[key]: "has no image" for key in sounds.keys() - sights.keys()}
    reasons |= {sights[key]: "has no sound" for key in sights.keys() - sounds.keys()}
    return {key: (sounds[key], sights[key]) for key in sorted(sounds.keys() & sights)}, reasons


def _read_path(manifest: Manifest, layout: FolderLayout, path: str) -> tuple[int, str]:
    """Label and group of the clip that a file belongs to; ValueError says why to none."""
    folder, *between, name = PurePosixPath(path).parts
    suffix = layout.audio_suffix if folder == layout.audio else layout.visual_suffix
    if len(between) != 1 or between[0] not in manifest.classes:
        raise ValueError("is not in the folder of a class")
    stem = name.removesuffix(suffix)
    if stem == name:
        raise ValueError(f"is not a {suffix} file")
    match = re.fullmatch(layout.stem, stem)
    if match is None or not KEY.fullmatch(stem):
        raise ValueError("has a name of another form than those of clips")
    label = manifest.classes.index(between[0])
    if match.groupdict().get("label", str(label)) != str(label):
        raise ValueError(f"is in the folder {between[0]}, but its name has another class")
    return label, match["group"]


def _describe(source: Path, path: str) -> MediaFile:
    return MediaFile(path, sha256(source / path), (source / path).stat().st_size)


def _table(clips: list[Clip]) -> str:
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for clip in clips:
        files = (value for file in clip.files for value in (file.path, file.sha256, file.size))
        rows.writerow([clip.key, clip.label, clip.group, *files])
    return text.getvalue()
