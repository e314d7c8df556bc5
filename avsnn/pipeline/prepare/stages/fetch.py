"""1. Originals: downloaded, found in a folder, or generated; verified against the manifest."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from avsnn.datasets_manifest import Clip, Manifest, MediaFile
from avsnn.datasets_manifest.schema import Source
from avsnn.errors import UserError
from avsnn.pipeline.engine.files import sha256
from avsnn.pipeline.engine.journal import Failure
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit
from avsnn.pipeline.transfer.download import PartialDownload, download, verify
from avsnn.pipeline.transfer.errors import ServerUnavailableError, TransferError
from avsnn.pipeline.transfer.http import Address, HttpClient
from avsnn.pipeline.transfer.lfs import LfsServer

# A source that was away for so many files in a row is no longer asked, if there is another.
MAX_UNAVAILABLE = 3


class DownloadSource:
    """A source of the manifest, and how it behaves in this run."""

    def __init__(self, source: Source, http: HttpClient, files: Sequence[MediaFile]) -> None:
        self.source = source
        self.unavailable = 0
        if source.lfs is not None:
            mine = [file for file in files if self.holds(file)]
            self.locate = LfsServer(Address(source.lfs, {}, source.insecure), http, mine).locate
        else:
            self.locate = self._below_url

    def holds(self, file: MediaFile) -> bool:
        """Whether the manifest says that the file is there."""
        return file.path.startswith(self.source.prefix)

    def _below_url(self, file: MediaFile) -> Address:
        rest = quote(file.path.removeprefix(self.source.prefix))
        return Address(f"{self.source.url}{rest}", {}, self.source.insecure)


@dataclass(frozen=True)
class Fetch(Stage):
    """One unit per file. A file that cannot be had is a failure; the others go on.

    Attributes:
        folder: where the files go, in their published layout.
        state: where the journal is kept, and downloads that are not whole yet.
        manifest: the data set.
        clips: those whose files are wanted.
        source: a folder that holds the files already; None downloads or generates them. Links in
            it are followed.
        http: the connections that all units share, which is why they run as threads.
    """

    name: ClassVar[str] = "fetch"
    version: ClassVar[int] = 1
    # A run with --limit plans fewer files; those fetched before it stay.
    prunes: ClassVar[bool] = False

    folder: Path
    state: Path
    manifest: Manifest
    clips: tuple[Clip, ...]
    source: Path | None
    http: HttpClient = field(default_factory=HttpClient, repr=False, compare=False)
    download_sources: tuple[DownloadSource, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        files = [file for clip in self.clips for file in clip.files]
        download_sources = (
            DownloadSource(place, self.http, files) for place in self.manifest.sources
        )
        object.__setattr__(self, "download_sources", tuple(download_sources))

    def settings(self) -> dict[str, Any]:
        """Nothing: a file's bytes are the publisher's, wherever they come from."""
        return {}

    def units(self) -> list[Unit]:
        """Every file of every clip; one that several clips share, once."""
        wanted = {file.path: (clip, file) for clip in self.clips for file in clip.files}
        return [
            Unit(
                name=path,
                outputs=(path,),
                inputs={"sha256": file.sha256, "size": file.size},
                work=(clip, file),
            )
            for path, (clip, file) in wanted.items()
        ]

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Brings one file and checks it.

        Raises:
            UserError: its folder is a link that leads elsewhere, where nothing may be written.
        """
        clip, file = unit.work
        home = (self.folder / file.path).parent
        if not home.resolve().is_relative_to(self.folder.resolve()):
            raise UserError(
                f"{home} is a link that leads out of {self.folder}; remove it, and give what it "
                "leads to as --source."
            )
        target = scratch / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._bring(clip, file, target)
        except TransferError as error:
            return Outcome(failures=[Failure(self.name, clip.key, str(error), file.path)])
        return Outcome(written=1)

    def partial(self, file: MediaFile) -> PartialDownload:
        """What has arrived so far of a download."""
        return PartialDownload.of(file.path, self.state / "downloads")

    def _bring(self, clip: Clip, file: MediaFile, target: Path) -> None:
        if self.source is None and not self.manifest.generated:
            self._download(file, target)
            return
        if self.source is not None:
            _copy(self.source / file.path, target)
        else:
            self._generate(clip, file, target)
        verify(file, target, sha256(target))
        self.partial(file).discard()

    def _download(self, file: MediaFile, target: Path) -> None:
        partial = self.partial(file)
        download_sources = [source for source in self.download_sources if source.holds(file)]
        reasons = []
        for source in download_sources:
            if source.unavailable >= MAX_UNAVAILABLE and source is not download_sources[-1]:
                reasons.append(f"{source.source.name}: not asked, it was away before")
                continue
            try:
                download(self.http, source.locate, file, partial)
            except TransferError as error:
                source.unavailable = (
                    source.unavailable + 1 if isinstance(error, ServerUnavailableError) else 0
                )
                reasons.append(f"{source.source.name}: {error}")
            else:
                source.unavailable = 0
                partial.move(target)
                return
        raise TransferError(f"cannot be downloaded: {'; '.join(reasons)}")

    def _generate(self, clip: Clip, file: MediaFile, target: Path) -> None:
        from avsnn.pipeline.media import synthesis

        shape, contour = self.manifest.classes[clip.label].split("-")
        if file == clip.visual:
            synthesis.write_video(target, key=clip.key, shape=shape)
        else:
            target.write_bytes(synthesis.audio_bytes(key=clip.key, contour=contour))


def _copy(found: Path, target: Path) -> None:
    try:
        if not found.is_file():
            raise TransferError("is missing from the source folder")
        shutil.copyfile(found, target)
    except PermissionError as error:
        raise TransferError(f"cannot be read from the source folder: {error.strerror}") from None
