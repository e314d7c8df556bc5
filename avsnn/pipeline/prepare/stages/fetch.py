"""1. Published files: downloaded, copied from a folder, or generated; then verified."""

import copy
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from avsnn.datasets_manifest import Clip, Manifest, MediaFile
from avsnn.datasets_manifest.clip_table import ClipTable, PublishedFiles
from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import sha256
from avsnn.pipeline.engine.journal import Failure, Record
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit, records
from avsnn.pipeline.prepare.generated_files import generate_file
from avsnn.pipeline.prepare.source_changes import differs, was_not_read
from avsnn.pipeline.transfer.download import PartialDownload, verify
from avsnn.pipeline.transfer.download_sources import DownloadSource, download_from_sources
from avsnn.pipeline.transfer.errors import TransferError
from avsnn.pipeline.transfer.http import HttpClient
from avsnn.pipeline.transfer.lfs import FILES_PER_REQUEST
from avsnn.pipeline.transfer.local_files import find_file, spellings, take_file
from avsnn.pipeline.transfer.unpack import unpack_one_file

# What the tally counts: files that were copied, because the system could make no links.
COPIED = "copied in place of a link"

# Number of files that a worker takes or generates in one task. More files a task cost no less time
# for each file.
FILES_PER_TASK = 64

# So many folders of the last tasks are remembered; tasks run in a few threads.
MOST_FOLDERS = 1024


@dataclass(frozen=True)
class _Work:
    """What a worker needs to bring a file.

    Attributes:
        file: the file.
        key: key of the clip, or the path of a file that holds many recordings.
        clip: the clip of a generated file; other files need no more of the clip than the key.
        near: the block of files that a Git LFS server is asked for at once.
    """

    file: MediaFile
    key: str
    clip: Clip | None = None
    near: Sequence[MediaFile] = ()


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
        http: the connections, which all downloads share.
        link: whether the files of ``source`` become links and not copies; None lets the YAML of a
            person's own data set decide.
        download_sources: the sources of the manifest, in the order in which they are asked.
    """

    name: ClassVar[str] = "fetch"
    version: ClassVar[int] = 1
    # A run with --limit plans fewer files. Files that an earlier run fetched stay.
    prunes: ClassVar[bool] = False

    folder: Path
    state: Path
    manifest: Manifest
    clips: ClipTable
    source: Path | None
    http: HttpClient = field(default_factory=HttpClient, repr=False, compare=False)
    link: bool | None = None
    download_sources: tuple[DownloadSource, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sources = tuple(DownloadSource(source, self.http) for source in self.manifest.sources)
        object.__setattr__(self, "download_sources", sources)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker needs: no clips, because every task holds its own files."""
        manifest = copy.copy(self.manifest)
        # Pydantic keeps the clips that the manifest has read beside its fields.
        vars(manifest).pop("clips", None)
        state = {one.name: vars(self)[one.name] for one in fields(self) if one.init}
        return state | {"manifest": manifest, "clips": ClipTable.empty()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make what a worker does not get from another process: connections and their state."""
        vars(self).update(state)
        self.__post_init__()

    @property
    def downloads(self) -> bool:
        """Whether the files come from servers."""
        return self.source is None and not self.manifest.generated

    @property
    def batch_size(self) -> int:
        """A download is one task, so that its record is written as soon as the file is here."""
        return 1 if self.downloads else FILES_PER_TASK

    @property
    def runs_on_cluster(self) -> bool:
        """Whether the workers of a cluster bring the files.

        Downloads stay in this process: all of them share a few connections and know which source
        is away, and the nodes of many clusters reach no server.
        """
        return not self.downloads

    @property
    def makes_links(self) -> bool:
        """Whether the files of the source folder become links and not copies."""
        if self.source is None:
            return False
        if self.link is not None:
            return self.link
        return self.manifest.folder is not None and self.manifest.take == "link"

    @property
    def files(self) -> PublishedFiles:
        """The files that are wanted; a file that several clips share is there once."""
        return self.manifest.files_of(self.clips)

    def settings(self) -> dict[str, Any]:
        """Return no settings: the bytes of a file are the publisher's, whatever the source is."""
        return {}

    def units(self) -> Iterator[Unit]:
        """Yield every file that is wanted."""
        for work in self._work():
            file = work.file
            inputs: dict[str, Any] = {"sha256": file.sha256, "size": file.size}
            if file.md5:
                inputs["md5"] = file.md5
            yield Unit(name=file.path, outputs=(file.path,), inputs=inputs, work=work)

    def _work(self) -> Iterator[_Work]:
        """Yield what there is to do for every file."""
        if not self.downloads or not any(source.lfs for source in self.manifest.sources):
            yield from self._work_of_files()
            return
        files = self._work_of_files()
        while block := tuple(islice(files, FILES_PER_REQUEST)):
            near = tuple(work.file for work in block)
            yield from (replace(work, near=near) for work in block)

    def _work_of_files(self) -> Iterator[_Work]:
        for clip, file in self.files.with_clips():
            # A file of many recordings is no clip, so its path stands for a key.
            key = clip.key if clip else file.path
            yield _Work(file, key, clip if self.manifest.generated else None)

    def why_source_changed(self, unit: Unit, record: Record) -> str:
        """Return why a file must be brought again: the source folder has changed.

        A file with a published checksum has one right content; another content is a failure.
        """
        return self.changed_sources.get(unit.name, "")

    @cached_property
    def changed_sources(self) -> dict[str, str]:
        """Why each file must be brought again that was brought before, by the path of the file.

        Plan and estimate both ask, and a look at all source files takes long.
        """
        if self.source is None:
            return {}
        recorded = records(self)
        reasons = (
            (file.path, self._why_bring_again(file, record))
            for file in self.files
            if (record := recorded.get(file.path))
        )
        return {path: reason for path, reason in reasons if reason}

    def _why_bring_again(self, file: MediaFile, record: Record) -> str:
        """Return why a file must be brought again; empty where its record holds."""
        if was_not_read(record):
            place = self._place_of(file.published_path)
            return f"{place} could not be read before" if os.access(place, os.R_OK) else ""
        unverified = self._unverified(file)
        if unverified and record.outputs and differs(unverified, record.outputs[0], file.path):
            return f"{unverified} has changed"
        # A person who made a link to a published file by hand keeps the link.
        if self.link is None and self.manifest.folder is None:
            return ""
        here = self.folder / file.path
        if here.is_symlink():
            if not self.makes_links:
                return "is a link, and a copy is wanted"
            if here.readlink() != self._place_of(file.path).absolute():
                return "is a link to another folder"
        return ""

    def _unverified(self, file: MediaFile) -> Path | None:
        """Return the place of a file in the source folder, if no checksum fixes its content."""
        if self._is_unpacked_in_source(file):
            return self._place_of(file.path)
        return None if file.has_checksum else self._place_of(file.published_path)

    def watched_sources(self) -> Iterator[Path]:
        """Yield the files of the source folder, there or not, on which a plan depends."""
        if self.source is None:
            return
        recorded = records(self)
        for file in self.files:
            place = self._unverified(file)
            if place is None and (record := recorded.get(file.path)) and was_not_read(record):
                place = self._place_of(file.published_path)
            if place is None:
                continue
            yield place
            if not file.path.isascii():
                # The file may come back in the other normal form of Unicode.
                yield from (self.source / path for path in spellings(file.published_path))

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Bring one file and verify its size and SHA-256.

        Raises:
            RunError: no server was reached, so nothing is known about the file.
            UserError: the folder of the file is a link that leads out of the data set's folder,
                where avsnn must write nothing.
        """
        work: _Work = unit.work
        file = work.file
        target, parent = scratch / file.path, file.path.rpartition("/")[0]
        # A task has many files of a few folders.
        if (scratch, parent) not in self._folders:
            self._make_folder(parent, scratch)
            if len(self._folders) >= MOST_FOLDERS:
                self._folders.clear()
            self._folders.add((scratch, parent))
        try:
            digest = self._bring(work, target)
        except TransferError as error:
            return Outcome(failures=[Failure(self.name, work.key, str(error), file.path)])
        copied = self.makes_links and not file.packed_as and not target.is_symlink()
        return Outcome(
            written=1,
            tallies={COPIED: 1} if copied else {},
            digests={file.path: digest} if digest else {},
        )

    def _make_folder(self, parent: str, scratch: Path) -> None:
        """Make the folder of a file below the scratch folder.

        Raises:
            UserError: below the data set's folder, the same folder is a link that leads out.
        """
        folder = self.folder / parent
        place = folder.resolve()
        if not place.is_relative_to(self.folder.resolve()):
            raise UserError(
                f"{folder} is a link that leads out of {self.folder}; remove the link, and give "
                "the folder that the link leads to as --source."
            )
        if self.source is not None and place == (self.source / parent).resolve():
            raise self._source_is_here_error(folder)
        (scratch / parent).mkdir(parents=True, exist_ok=True)

    def require_other_source(self) -> None:
        """Check that the source folder is not the folder into which the files are brought.

        Raises:
            UserError: both are one folder.
        """
        if self.source is not None and self.source.resolve() == self.folder.resolve():
            raise self._source_is_here_error(self.folder)

    def _source_is_here_error(self, folder: Path) -> UserError:
        # A file would be replaced by a link to itself.
        return UserError(
            f"{folder} cannot be source and target: avsnn writes its own copies or links there; "
            "move the files to another folder, and give that folder as the source."
        )

    @cached_property
    def _folders(self) -> set[tuple[Path, str]]:
        """The folders that were checked and made: scratch folder of the task, and path below."""
        return set()

    def partial(self, file: MediaFile) -> PartialDownload:
        """Return what has arrived of the download of a file so far."""
        return PartialDownload.of(file.path, self.state / "downloads")

    def _bring(self, work: _Work, target: Path) -> str:
        """Bring a file; return the SHA-256 of its bytes, or an empty text if it is not known."""
        file = work.file
        if self.downloads:
            self._bring_from_server(work, target)
            return ""
        if not file.packed_as or self._is_unpacked_in_source(file):
            return self._bring_from_here(work, target)
        archive = target.with_name(f"{target.name}.packed")
        self._bring_from_here(work, archive)
        unpack_one_file(archive, target)
        # The time of the archive tells later whether the archive was corrected.
        shutil.copystat(archive, target)
        archive.unlink()
        return ""

    def _place_of(self, path: str) -> Path:
        """Return the place of a file in the source folder."""
        assert self.source is not None  # noqa: S101 - narrows the type
        return find_file(self.source, path)

    def _bring_from_server(self, work: _Work, target: Path) -> None:
        file, arrived = work.file, self.partial(work.file)
        download_from_sources(self.download_sources, file, work.near, arrived)
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

    def _bring_from_here(self, work: _Work, target: Path) -> str:
        """Link, copy or generate the published bytes, and verify those that have a checksum.

        Returns:
            the SHA-256 of the bytes.
        """
        file = work.file
        if self.source is None:
            assert work.clip is not None  # noqa: S101 - narrows the type
            generate_file(self.manifest, work.clip, file, target)
            digest = sha256(target)
        elif self._is_unpacked_in_source(file):
            # The published checksum is the checksum of the archive.
            digest = take_file(self._place_of(file.path), target, link=self.makes_links)
            file = MediaFile(file.path, None, None)
        else:
            digest = take_file(self._place_of(file.published_path), target, link=self.makes_links)
        verify(file, target, digest)
        if self._has_partial_downloads:
            self.partial(file).discard()
        return digest

    @cached_property
    def _has_partial_downloads(self) -> bool:
        """Whether an earlier run, which downloaded files, has left some that are not whole."""
        return (self.state / "downloads").exists()
