"""1. Published files: downloaded, copied from a folder, or generated; then verified."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from urllib.parse import quote

from avsnn.datasets_manifest import Clip, Manifest, MediaFile
from avsnn.datasets_manifest.clips import composed
from avsnn.datasets_manifest.sources import Source
from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine.atomic_files import Output, sha256
from avsnn.pipeline.engine.journal import Failure, Record
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit, records
from avsnn.pipeline.transfer.download import PartialDownload, download, verify
from avsnn.pipeline.transfer.errors import ServerUnavailableError, TransferError
from avsnn.pipeline.transfer.http import Address, HttpClient
from avsnn.pipeline.transfer.lfs import LfsServer
from avsnn.pipeline.transfer.local_files import MISSING, find_file, take_file
from avsnn.pipeline.transfer.unpack import unpack_one_file

# What the tally counts: files that were copied, because the system could make no links.
COPIED = "copied in place of a link"

# Fetch stops asking a source that was unavailable for this number of files in a row, unless the
# source is the last source that holds the file.
MAX_UNAVAILABLE = 3

# Fetch stops asking a source that has given no file yet and was not reached for this number of
# files, so that a command without a network, or with a wrong address, ends soon.
MAX_NEVER_REACHED = 8


@dataclass(frozen=True)
class Fetch(Stage):
    """Brings the files of the clips; a unit is a file.

    A file that no source gives is a failure; the other files are brought all the same.

    Attributes:
        folder: the folder of the files, in their published layout.
        state: the folder of the journal, and of downloads that are not whole yet.
        manifest: the facts about the data set.
        clips: the clips whose files are wanted.
        source: a folder that holds the files already, from which links are followed; None
            downloads or generates the files.
        http: the connections. All units share the connections, so units run as threads.
        download_sources: the sources of the manifest, in the order in which they are asked.
    """

    name: ClassVar[str] = "fetch"
    version: ClassVar[int] = 1
    # A run with --limit plans fewer files. Files that an earlier run fetched stay.
    prunes: ClassVar[bool] = False

    folder: Path
    state: Path
    manifest: Manifest
    clips: tuple[Clip, ...]
    source: Path | None
    http: HttpClient = field(default_factory=HttpClient, repr=False, compare=False)
    download_sources: tuple["DownloadSource", ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        files = list(self.files.values())
        download_sources = (
            DownloadSource(source, self.http, files) for source in self.manifest.sources
        )
        object.__setattr__(self, "download_sources", tuple(download_sources))

    @property
    def makes_links(self) -> bool:
        """Whether the files of the source folder become links and not copies."""
        return self.manifest.folder is not None and self.manifest.take == "link"

    @property
    def files(self) -> dict[str, MediaFile]:
        """The files that are wanted, by path; a file that several clips share is there once."""
        return self.manifest.files_of(self.clips)

    def settings(self) -> dict[str, Any]:
        """Return no settings: the bytes of a file are the publisher's, whatever the source is."""
        return {}

    def units(self) -> list[Unit]:
        """Return every file that is wanted."""
        clips = {file.path: clip for clip in self.clips for file in clip.files}
        return [
            Unit(
                name=path,
                outputs=(path,),
                inputs={"sha256": file.sha256, "size": file.size}
                | ({"md5": file.md5} if file.md5 else {}),
                work=(clips.get(path), file),
            )
            for path, file in self.files.items()
        ]

    def changed_sources(self) -> dict[str, str]:
        """Return the files that must be brought again, because the source folder has changed.

        A file with a published checksum has one right content; another content is a failure.
        """
        if self.source is None:
            return {}
        recorded, unverified = records(self), self.unverified_sources()
        reasons = {
            path: self._why_bring_again(file, record, unverified.get(path))
            for path, file in self.files.items()
            if (record := recorded.get(path))
        }
        return {path: reason for path, reason in reasons.items() if reason}

    def _why_bring_again(self, file: MediaFile, record: Record, unverified: Path | None) -> str:
        """Return why a file must be brought again; empty where its record holds."""
        if _was_missing(record):
            place = self._place_of(file.published_path)
            return f"{place} was missing before" if place.exists() else ""
        if unverified and record.outputs and _differs(unverified, record.outputs[0], file.path):
            return f"{unverified} has changed"
        here = self.folder / file.path
        if self.manifest.folder is not None and here.is_symlink():
            if not self.makes_links:
                return "is a link, and a copy is wanted"
            if here.readlink() != self._place_of(file.path).absolute():
                return "is a link to another folder"
        return ""

    def unverified_sources(self) -> dict[str, Path]:
        """Return the files of the source folder whose content no checksum fixes.

        The key is the path of the file that is made from the file of the source folder.
        """
        if self.source is None:
            return {}
        found = {}
        for path, file in self.files.items():
            if self._is_unpacked_in_source(file):
                found[path] = self._place_of(path)
            elif not file.has_checksum:
                found[path] = self._place_of(file.published_path)
        return found

    def watched_sources(self) -> list[Path]:
        """Return the files of the source folder, there or not, on which a plan depends."""
        recorded = records(self)
        missing = [
            self._place_of(file.published_path)
            for path, file in self.files.items()
            if self.source is not None and path in recorded and _was_missing(recorded[path])
        ]
        return [*self.unverified_sources().values(), *missing]

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Bring one file and verify its size and SHA-256.

        Raises:
            RunError: no server was reached, so nothing is known about the file.
            UserError: the folder of the file is a link that leads out of the data set's folder,
                where avsnn must write nothing.
        """
        clip, file = unit.work
        parent = (self.folder / file.path).parent
        if not parent.resolve().is_relative_to(self.folder.resolve()):
            raise UserError(
                f"{parent} is a link that leads out of {self.folder}; remove the link, and give "
                "the folder that the link leads to as --source."
            )
        target = scratch / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._bring(clip, file, target)
        except TransferError as error:
            # A file of many recordings is no clip, so its name stands for a key.
            key = file.path if self.manifest.recording_files else clip.key
            return Outcome(failures=[Failure(self.name, key, str(error), file.path)])
        copied = self.makes_links and not file.packed_as and not target.is_symlink()
        return Outcome(written=1, tallies={COPIED: 1} if copied else {})

    def partial(self, file: MediaFile) -> PartialDownload:
        """Return what has arrived of the download of a file so far."""
        return PartialDownload.of(file.path, self.state / "downloads")

    def _bring(self, clip: Clip, file: MediaFile, target: Path) -> None:
        if self.source is None and not self.manifest.generated:
            self._bring_from_server(file, target)
        elif file.packed_as and not self._is_unpacked_in_source(file):
            archive = target.with_name(f"{target.name}.packed")
            self._bring_from_here(clip, file, archive)
            unpack_one_file(archive, target)
            # The time of the archive tells later whether the archive was corrected.
            shutil.copystat(archive, target)
            archive.unlink()
        else:
            self._bring_from_here(clip, file, target)

    def _place_of(self, path: str) -> Path:
        """Return the place of a file in the source folder."""
        assert self.source is not None  # noqa: S101 - narrows the type
        return find_file(self.source, path)

    def _bring_from_server(self, file: MediaFile, target: Path) -> None:
        arrived = self._download(file)
        if not file.packed_as:
            arrived.move(target)
            return
        # The archive stays where it arrived until the file is unpacked, so a kill loses nothing.
        try:
            unpack_one_file(arrived.data, target)
        except TransferError:
            arrived.discard()
            raise
        arrived.discard()

    def _is_unpacked_in_source(self, file: MediaFile) -> bool:
        """Return whether the source folder holds a file, and not the archive that was published."""
        if not file.packed_as or self.source is None or self._place_of(file.packed_as).exists():
            return False
        return self._place_of(file.path).exists()

    def _bring_from_here(self, clip: Clip, file: MediaFile, target: Path) -> None:
        """Link, copy or generate the published bytes, and verify those that have a checksum."""
        if self.source is None:
            self._generate(clip, file, target)
        elif self._is_unpacked_in_source(file):
            # The published checksum is the checksum of the archive.
            take_file(self._place_of(file.path), target, link=self.makes_links)
            file = MediaFile(file.path, None, None)
        else:
            take_file(self._place_of(file.published_path), target, link=self.makes_links)
        verify(file, target, sha256(target))
        self.partial(file).discard()

    def _download(self, file: MediaFile) -> PartialDownload:
        """Download the published bytes, and return where the whole bytes are."""
        partial = self.partial(file)
        download_sources = [source for source in self.download_sources if source.holds(file)]
        reasons, is_any_reached = [], False
        for source in download_sources:
            is_last = source is download_sources[-1]
            if source.unavailable >= (source.patience if is_last else MAX_UNAVAILABLE):
                reasons.append(f"{source.name}: not asked, it was away before")
                continue
            try:
                download(self.http, source.locate, file, partial)
            except TransferError as error:
                source.unavailable = (
                    source.unavailable + 1 if isinstance(error, ServerUnavailableError) else 0
                )
                is_reached = not isinstance(error, ServerUnavailableError) or error.is_reached
                if is_reached:
                    source.patience = math.inf
                is_any_reached = is_any_reached or is_reached
                reasons.append(f"{source.name}: {error}")
            else:
                source.unavailable, source.patience = 0, math.inf
                return partial
        reason = f"cannot be downloaded: {'; '.join(reasons)}"
        if not is_any_reached:
            raise RunError(f"{reason}; is there a connection, or a folder for --source?")
        raise TransferError(reason)

    def _generate(self, clip: Clip, file: MediaFile, target: Path) -> None:
        # Only a generated data set needs the encoders, so no other data set waits for the import.
        shape, contour = self.manifest.classes[clip.label].split("-")
        if self.manifest.has_events:
            from avsnn.pipeline.media import demo_events_synthesis

            if file == clip.visual:
                demo_events_synthesis.write_recording(target, key=clip.key, shape=shape)
            else:
                demo_events_synthesis.write_sound(
                    target,
                    key=clip.key,
                    contour=contour,
                    part="train" if file.member.startswith("train/") else "test",
                )
            return
        from avsnn.pipeline.media import demo_synthesis

        if file == clip.visual:
            demo_synthesis.write_video(target, key=clip.key, shape=shape)
        else:
            target.write_bytes(demo_synthesis.audio_bytes(key=clip.key, contour=contour))


class DownloadSource:
    """A source of the manifest, and how the source behaves in this run.

    Args:
        source: the source, as the manifest describes the source.
        http: the connections.
        files: all files of the run; a Git LFS server is asked for many files at once.

    Attributes:
        locate: returns the address of a file.
        unavailable: for how many files in a row the source was unavailable.
        patience: this number of unavailable files in a row, and the source is not asked any more.
    """

    def __init__(self, source: Source, http: HttpClient, files: Sequence[MediaFile]) -> None:
        self.unavailable = 0
        self.patience: float = MAX_NEVER_REACHED
        self._source = source
        if source.file is not None:
            address = Address(source.file, {}, source.insecure)
            self.locate: Callable[[MediaFile], Address] = lambda _: address
        elif source.lfs is not None:
            held = [file for file in files if self.holds(file)]
            self.locate = LfsServer(Address(source.lfs, {}, source.insecure), http, held).locate
        else:
            self.locate = self._below_url

    @property
    def name(self) -> str:
        """The name of the source in failure reasons."""
        return self._source.name

    def holds(self, file: MediaFile) -> bool:
        """Return whether the manifest says that the source holds the file."""
        return file.published_path.startswith(self._source.prefix)

    def _below_url(self, file: MediaFile) -> Address:
        rest = quote(file.published_path.removeprefix(self._source.prefix))
        return Address(f"{self._source.url}{rest}", {}, self._source.insecure)


def _was_missing(record: Record) -> bool:
    """Return whether a file could not be brought, because the file was not in the source folder."""
    return any(failure.reason == MISSING for failure in record.failures)


def _differs(published: Path, copy: Output, path: str) -> bool:
    """Return whether a file of the source folder is there, and is not the one that was brought.

    Only a file with another time or another size is read. An archive, which has another name than
    the copy of the file inside, is another one if its time is another one.

    Args:
        published: the file in the source folder.
        copy: the copy, as recorded.
        path: path of the copy, below the folder of the copies.
    """
    try:
        stat = published.stat()
        if composed(published.name) != composed(PurePosixPath(path).name):
            return stat.st_mtime_ns != copy.mtime_ns
        if (stat.st_size, stat.st_mtime_ns) == (copy.size, copy.mtime_ns):
            return False
        return stat.st_size != copy.size or sha256(published) != copy.sha256
    except OSError:
        return False
