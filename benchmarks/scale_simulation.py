"""The command line of avsnn for clips without media, so that a million clips take minutes.

``benchmarks.scale --simulate`` runs ``python -m benchmarks.scale_simulation`` in place of ``python
-m avsnn``. Four stages do less than theirs: `Fetch` writes the path of a file into the file in
place of a download, `Extract` writes the members of one clip that was decoded before, and the
caches write rows of zeros. All else is avsnn: the table, the plans, the journals, the index, which
clip lies in which shard, the shards and the layout of the caches.
"""

import hashlib
import os
import tempfile
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.engine.atomic_files import Output
from avsnn.pipeline.engine.is_done import input_digests
from avsnn.pipeline.engine.journal import Record, append_records
from avsnn.pipeline.engine.stage import Outcome, Unit
from avsnn.pipeline.formats.clip_index import IndexRow
from avsnn.pipeline.formats.prepare_settings import ExtractSettings, PrepareSettings
from avsnn.pipeline.prepare import build_stages
from avsnn.pipeline.prepare.decoded_clips import DecodedClip
from avsnn.pipeline.prepare.request import PrepareRequest
from avsnn.pipeline.prepare.stages import extract
from avsnn.pipeline.prepare.stages.extract import Extract
from avsnn.pipeline.prepare.stages.featurize import AudioCache, FrameCache
from avsnn.pipeline.prepare.stages.fetch import Fetch
from benchmarks.scale_data import CELLS, NAME, SAMPLES, png_bytes, wav_bytes

#: Number of hard links of a file; ext4 allows 65,000.
LINKS = 50_000


class FakeFetch(Fetch):
    """Writes small files, all different, as tasks of many files, like files of a folder."""

    @property
    def downloads(self) -> bool:
        """False, because no server is asked."""
        return False

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Write the path of the file into the file."""
        target = scratch / unit.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(unit.name)
        return Outcome(written=1)


def write_fetched(root: Path) -> None:
    """Leave the files and the journal that `FakeFetch` leaves, in less time.

    The files are hard links of a few files, so they need neither room nor flushing.
    """
    request = PrepareRequest(settings=PrepareSettings())
    fetch = build_stages.build_stages(NAME, request, root=root).fetch
    fetch.state.mkdir(parents=True)
    for kind in ("audio", "image"):
        (fetch.folder / kind).mkdir(parents=True)
    shared, output = fetch.state / "shared", Output("", 0, "", 0)
    with append_records(fetch.journal) as append:
        for number, unit in enumerate(fetch.units()):
            if number % LINKS == 0:
                shared.unlink(missing_ok=True)
                shared.write_text(unit.name)
                digest = hashlib.sha256(unit.name.encode()).hexdigest()
                output = Output("", len(unit.name), digest, shared.stat().st_mtime_ns)
            os.link(shared, fetch.folder / unit.name)
            append(
                Record(
                    unit=unit.name,
                    fingerprint=fetch.fingerprint(unit),
                    version=fetch.version,
                    seconds=0.0,
                    inputs=input_digests(unit),
                    outputs=(replace(output, path=unit.name),),
                    written=1,
                )
            )
    shared.unlink()


class FakeExtract(Extract):
    """Takes every clip for the same clip."""

    def _decode(self, row: IndexRow, room: Path) -> DecodedClip:
        return decoded_clip(self.chosen.model_dump_json())


@cache
def decoded_clip(settings: str) -> DecodedClip:
    """Return a made-up clip, decoded with settings of `Extract` as JSON."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A ramp is small as FLAC, so that the shards of a million clips fit a small disk.
        (folder / "a.wav").write_bytes(wav_bytes(np.arange(SAMPLES, dtype=np.int16)))
        (folder / "a.png").write_bytes(png_bytes(np.zeros((CELLS, CELLS, 3), np.uint8)))
        chosen = ExtractSettings.model_validate_json(settings)
        return extract._read_clip(folder, "a.wav", "a.png", ("image", "sound"), chosen)


class FakeFrameCache(FrameCache):
    """Computes nothing."""

    def compute(
        self, data: bytes, key: str, shape: tuple[int, ...], tallies: Counter[str]
    ) -> NDArray[Any]:
        """Return a frame of zeros."""
        return np.zeros(shape, self.dtype)


class FakeAudioCache(AudioCache):
    """Computes nothing."""

    def compute(
        self, data: bytes, key: str, shape: tuple[int, ...], tallies: Counter[str]
    ) -> NDArray[Any]:
        """Return an audio image of zeros."""
        return np.zeros(shape, self.dtype)


def main() -> None:
    """Run a command of avsnn with the stages of this module."""
    from avsnn.cli.main import main as avsnn

    for fake in (FakeFetch, FakeExtract, FakeFrameCache, FakeAudioCache):
        # `build_stages` makes the stages of the classes that it knows under these names.
        setattr(build_stages, fake.__name__.removeprefix("Fake"), fake)
    avsnn()


if __name__ == "__main__":
    # Worker processes import the classes by the name of this module, which `__main__` is not.
    from benchmarks.scale_simulation import main as run_main

    run_main()
