"""1. Originals: downloaded, found in a folder, or generated; verified against the manifest."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from avsnn.datasets_manifest import Clip, Manifest, MediaFile
from avsnn.pipeline.media import LFS_POINTER, MediaError, synthesize
from avsnn.pipeline.stage import Failure, Outcome, Stage, Unit, sha256

ATTEMPTS = 4
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Fetch(Stage):
    """One unit per file. A file that cannot be had is a failure; the others go on.

    Attributes:
        folder: where the files go, in their published layout.
        state: where the journal is kept.
        manifest: the data set.
        clips: those whose files are wanted.
        source: a folder that holds the files already; None downloads or generates them.
        patience_s: wait before a second attempt, in s; doubled for each further one.
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
    patience_s: float = 1.0

    def settings(self) -> dict[str, Any]:
        """Nothing: a file's bytes are the publisher's, wherever they come from."""
        return {}

    def units(self) -> list[Unit]:
        """Every file of every clip."""
        return [
            Unit(
                name=file.path,
                outputs=(file.path,),
                inputs={"sha256": file.sha256, "size": file.size},
                work=(clip, file),
            )
            for clip in self.clips
            for file in clip.files
        ]

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Brings one file and checks it."""
        clip, file = unit.work
        target = scratch / file.path
        target.parent.mkdir(parents=True)
        try:
            self._bring(clip, file, target)
            _verify(file, target)
        except MediaError as error:
            return Outcome(failures=[Failure(self.name, clip.key, str(error), file.path)])
        return Outcome(written=1)

    def _bring(self, clip: Clip, file: MediaFile, target: Path) -> None:
        if self.source is not None:
            _copy(self.source, file.path, target)
        elif self.manifest.generated:
            self._generate(clip, file, target)
        else:
            _download(self.manifest.url(file.path), target, self.patience_s)

    def _generate(self, clip: Clip, file: MediaFile, target: Path) -> None:
        shape, contour = self.manifest.classes[clip.label].split("-")
        if file == clip.visual:
            synthesize.write_video(target, key=clip.key, shape=shape)
        else:
            target.write_bytes(synthesize.audio_bytes(key=clip.key, contour=contour))


def _copy(source: Path, path: str, target: Path) -> None:
    try:
        shutil.copyfile(source / path, target)
    except FileNotFoundError:
        raise MediaError("is missing from the source folder") from None
    except (PermissionError, IsADirectoryError) as error:
        raise MediaError(f"cannot be read from the source folder: {error.strerror}") from None


def _download(url: str, target: Path, patience_s: float) -> None:
    """Streams a file down; tries again, ever later, while the server is merely busy or away."""
    import httpx

    for attempt in range(ATTEMPTS):
        try:
            with httpx.stream("GET", url, timeout=TIMEOUT_S) as response:
                response.raise_for_status()
                with target.open("wb") as file:
                    for block in response.iter_bytes():
                        file.write(block)
            return
        except httpx.HTTPStatusError as error:
            reason = f"cannot be downloaded: the server answered {error.response.status_code}"
            if error.response.status_code not in (429, 500, 502, 503, 504):
                raise MediaError(reason) from None
        except httpx.TransportError as error:
            reason = f"cannot be downloaded: {type(error).__name__}: {error}"
        if attempt + 1 < ATTEMPTS:
            time.sleep(patience_s * 2**attempt)
    raise MediaError(f"{reason} ({ATTEMPTS} attempts)")


def _verify(file: MediaFile, target: Path) -> None:
    with target.open("rb") as opened:
        start = opened.read(len(LFS_POINTER))
    size = target.stat().st_size
    if start == LFS_POINTER:
        raise MediaError(f"is a Git LFS pointer, {size} bytes; run 'git lfs pull' in the source")
    if file.size is not None and size != file.size:
        raise MediaError(f"has {size} bytes where the manifest says {file.size}")
    if file.sha256 is not None and sha256(target) != file.sha256:
        raise MediaError("does not match the SHA-256 of the manifest")
