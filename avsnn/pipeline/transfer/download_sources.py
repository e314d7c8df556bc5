"""The sources of a data set, asked in turn for a file; a source that is away is asked no more."""

import math
from collections.abc import Sequence
from urllib.parse import quote

from avsnn.datasets_manifest import MediaFile
from avsnn.datasets_manifest.sources import Source
from avsnn.errors import RunError
from avsnn.pipeline.transfer.download import PartialDownload, download
from avsnn.pipeline.transfer.errors import ServerUnavailableError, TransferError
from avsnn.pipeline.transfer.http import Address, HttpClient
from avsnn.pipeline.transfer.lfs import LfsServer

# No file is asked of a source that was unavailable for this number of files in a row, unless the
# source is the last source that holds the file.
MAX_UNAVAILABLE = 3

# No file is asked of a source that has given no file yet and was not reached for this number of
# files, so that a command without a network, or with a wrong address, ends soon.
MAX_NEVER_REACHED = 8


def download_from_sources(
    sources: Sequence["DownloadSource"],
    file: MediaFile,
    near: Sequence[MediaFile],
    partial: PartialDownload,
) -> None:
    """Download the published bytes of a file from the first source that gives them.

    Args:
        sources: the sources, in the order in which they are asked.
        file: the file.
        near: the file and files that are fetched next; see `LfsServer.locate`.
        partial: where the download grows.

    Raises:
        RunError: no server was reached, so nothing is known about the file.
        TransferError: no source gives the file.
    """
    holding = [source for source in sources if source.holds(file)]
    reasons, is_any_reached = [], False
    for source in holding:
        is_last = source is holding[-1]
        if source.unavailable >= (source.patience if is_last else MAX_UNAVAILABLE):
            reasons.append(f"{source.name}: not asked, it was away before")
            continue
        try:
            source.download(file, near, partial)
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
            return
    reason = f"cannot be downloaded: {'; '.join(reasons)}"
    if not is_any_reached:
        raise RunError(f"{reason}; is there a connection, or a folder for --source?")
    raise TransferError(reason)


class DownloadSource:
    """A source of the manifest, and how the source behaves in this run.

    Args:
        source: the source, as the manifest describes the source.
        http: the connections.

    Attributes:
        unavailable: for how many files in a row the source was unavailable.
        patience: this number of unavailable files in a row, and the source is not asked any more.
    """

    def __init__(self, source: Source, http: HttpClient) -> None:
        self.unavailable = 0
        self.patience: float = MAX_NEVER_REACHED
        self._source = source
        self._http = http
        self._lfs = (
            LfsServer(Address(source.lfs, {}, source.insecure), http) if source.lfs else None
        )

    @property
    def name(self) -> str:
        """The name of the source in failure reasons."""
        return self._source.name

    def holds(self, file: MediaFile) -> bool:
        """Return whether the manifest says that the source holds the file."""
        return file.published_path.startswith(self._source.prefix)

    def download(
        self, file: MediaFile, near: Sequence[MediaFile], partial: PartialDownload
    ) -> None:
        """Download a file; see `download_from_sources`."""
        held = [other for other in near if self.holds(other)] if self._lfs else []
        download(self._http, lambda file: self._locate(file, held), file, partial)

    def _locate(self, file: MediaFile, near: Sequence[MediaFile]) -> Address:
        source = self._source
        if self._lfs is not None:
            return self._lfs.locate(file, near)
        if source.file is not None:
            return Address(source.file, {}, source.insecure)
        rest = quote(file.published_path.removeprefix(source.prefix))
        return Address(f"{source.url}{rest}", {}, source.insecure)
