"""4. Shards to tensors: one Zarr cache of frames, one of audio images, row for row the same clips.

They are separate caches so that another audio setting leaves the frames alone, and the other way
round. Both are Zarr v3 with a crc32c in every chunk, and readable by plain ``zarr``.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from avsnn.pipeline.extract import Sample, read_member, read_shards
from avsnn.pipeline.files import Folder, sha256
from avsnn.pipeline.settings import Settings
from avsnn.pipeline.stage import Outcome, Stage, Unit

if TYPE_CHECKING:
    from pathlib import Path

    import zarr
    from numpy.typing import NDArray

    from avsnn.pipeline.media.audio import Sound

# Zarr and the decoders are imported where they are needed: a run that finds nothing to do need not
# wait for them.

ROWS_PER_SHARD = 256
# A chunk is what a reader must take whole: small enough for single clips, not smaller than a disk
# likes.
CHUNK_BYTES = 2**18

# Inputs of a unit beside its shards, whose names hold no space.
ROW_SHAPE, ROW_COUNT, ROWS_OF_BLOCK = "shape of a row", "count of rows", "rows of a block"


class FrameSettings(Settings):
    """The cached frames."""

    shorter_side: int = Field(
        default=256, ge=16, description="px; larger frames are shrunk to it, smaller ones kept"
    )


class AudioSettings(Settings):
    """The cached image of the sound; the defaults are the published ones.

    ``log-stft`` is ``log(|STFT| + 1e-7)``, ``log-mel`` is ``log(M |STFT|^2 + 1e-7)`` with
    ``n_mels`` mel filters ``M``.
    """

    kind: Literal["log-stft", "log-mel"] = "log-stft"
    sample_rate: int = Field(default=22050, ge=1000, description="Hz")
    n_fft: int = Field(default=512, ge=16)
    hop: int = Field(default=353, ge=1, description="samples")
    n_mels: int | None = Field(default=None, ge=8, description="of log-mel, say 64")
    size: int = Field(default=128, ge=16, description="px, height and width")
    noise_snr: float | None = Field(
        default=None,
        description="dB; white noise added to the waveform of every clip, to compare methods on it",
    )

    @model_validator(mode="after")
    def _goes_together(self) -> AudioSettings:
        if (self.kind == "log-mel") != (self.n_mels is not None):
            raise ValueError("n_mels goes with kind=log-mel, and log-mel with n_mels (64, say)")
        if self.n_mels is not None:
            from avsnn.pipeline.media import audio

            audio.mel_filters(sample_rate=self.sample_rate, n_fft=self.n_fft, n_mels=self.n_mels)
        return self


@dataclass(frozen=True)
class Cache(Stage):
    """A Zarr group with one large array, written shard by shard, and ``key`` and ``label``.

    A unit is one Zarr shard, written whole by one task; ``layout`` is everything else.
    """

    array: ClassVar[str]
    version: ClassVar[int] = 1

    folder: Folder
    state: Path
    shards: Folder

    @abstractmethod
    def row_shape(self, samples: list[Sample]) -> tuple[int, ...]:
        """Shape of one row of the array."""

    @abstractmethod
    def rows(self, samples: list[Sample]) -> list[tuple[int, int]]:
        """Of every row of the array, the sample it comes from and which of its frames."""

    @abstractmethod
    def read(
        self, shard: Folder, sample: Sample, frame: int, shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """One row of that shape, from its shard."""

    @abstractmethod
    def dtype(self) -> str:
        """The array's dtype."""

    def units(self) -> list[Unit]:
        """The layout, then the shards of the array."""
        # Offsets, sizes and parts in these say which bytes of the shards a row is made of.
        indexes: list[Folder] = [*self.shards.glob("*.json")]
        marks = {path.stem: sha256(path) for path in sorted(indexes, key=str)}
        found = _read_once(self.shards, tuple(marks.values()))
        samples = [sample for _, sample in found]
        if not samples:
            return []
        shape, rows = self.row_shape(samples), self.rows(samples)
        small = [
            f"{name}/{file}" for name in self.vectors(samples) for file in ("zarr.json", "c/0")
        ]
        layout = Unit(
            name="layout",
            outputs=("zarr.json", f"{self.array}/zarr.json", *small),
            inputs={**marks, ROW_SHAPE: shape, ROW_COUNT: len(rows)},
        )
        blocks = []
        for number, start in enumerate(range(0, len(rows), ROWS_PER_SHARD)):
            block = rows[start : start + ROWS_PER_SHARD]
            first, last = block[0][0], block[-1][0]
            shards = dict.fromkeys(shard for shard, _ in found[first : last + 1])
            blocks.append(
                Unit(
                    name=f"{self.array}-{number:06d}",
                    outputs=("/".join([self.array, "c", str(number), *("0" * len(shape))]),),
                    inputs={
                        **{shard.stem: marks[shard.stem] for shard in shards},
                        ROWS_OF_BLOCK: block,
                        ROW_SHAPE: shape,
                        ROW_COUNT: len(rows),
                    },
                    work=(number, len(rows), shape, [(*found[i], frame) for i, frame in block]),
                )
            )
        return [layout, *blocks]

    def vectors(self, samples: list[Sample]) -> dict[str, NDArray[Any]]:
        """The small arrays, ``[N]`` unless said otherwise."""
        return {
            "key": np.array([sample.key for sample in samples]),
            "label": np.array([sample.label for sample in samples], np.int64),
        }

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Writes the layout or one shard of the array."""
        import zarr

        group = zarr.create_group(scratch, zarr_format=3)
        if unit.work is None:
            self._create_array(group, unit.inputs[ROW_COUNT], unit.inputs[ROW_SHAPE])
            samples = [sample for _, sample in read_shards(self.shards)]
            for name, vector in self.vectors(samples).items():
                _create_vector(group, name, vector)
            return Outcome()
        number, rows, shape, block = unit.work
        array = self._create_array(group, rows, shape)
        values = np.stack(
            [self.read(shard, sample, frame, shape) for shard, sample, frame in block]
        )
        start = number * ROWS_PER_SHARD
        array[start : start + len(values)] = values
        return Outcome(written=sum(frame == 0 for _, _, frame in block))

    def _create_array(
        self, group: zarr.Group, rows: int, shape: tuple[int, ...]
    ) -> zarr.Array[Any]:
        from zarr.codecs import Crc32cCodec

        row_bytes = int(np.prod(shape)) * np.dtype(self.dtype()).itemsize
        in_chunk = 1
        while in_chunk < ROWS_PER_SHARD and 2 * in_chunk * row_bytes <= CHUNK_BYTES:
            in_chunk *= 2
        return group.create_array(
            self.array,
            shape=(rows, *shape),
            dtype=self.dtype(),
            chunks=(in_chunk, *shape),
            shards=(ROWS_PER_SHARD, *shape),
            compressors=[Crc32cCodec()],
            fill_value=0,
            # A chunk that was left out reads as zeros; every one is written, so none can be lost
            # unseen.
            config={"write_empty_chunks": True},
        )


@dataclass(frozen=True)
class FrameCache(Cache):
    """``frames`` u8 ``[sum K, 3, H, W]`` RGB, ``offsets`` i64 ``[N + 1]``, ``key``, ``label``."""

    name: ClassVar[str] = "frames"
    version: ClassVar[int] = 2
    array: ClassVar[str] = "frames"

    chosen: FrameSettings

    def settings(self) -> dict[str, Any]:
        """All of them change the frames."""
        return self.chosen.model_dump()

    def dtype(self) -> str:
        """Bytes, as decoded."""
        return "uint8"

    def row_shape(self, samples: list[Sample]) -> tuple[int, ...]:
        """As :func:`frame_shape`."""
        return frame_shape(samples, self.chosen)

    def rows(self, samples: list[Sample]) -> list[tuple[int, int]]:
        """All frames of all clips."""
        return [(i, frame) for i, sample in enumerate(samples) for frame in range(sample.frames)]

    def vectors(self, samples: list[Sample]) -> dict[str, NDArray[Any]]:
        """Also where each clip's frames start."""
        counts = [sample.frames for sample in samples]
        return super().vectors(samples) | {"offsets": np.cumsum([0, *counts], dtype=np.int64)}

    def read(
        self, shard: Folder, sample: Sample, frame: int, shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """One frame ``[3, H, W]``."""
        name = next(name for name in sample.members if name.startswith(f"{frame}."))
        return frame_row(read_member(shard, sample.members[name]), shape, self.chosen)


@dataclass(frozen=True)
class AudioCache(Cache):
    """``audio`` f32 ``[N, 1, F, F]``, an image of each clip's sound, with ``key``, ``label``."""

    name: ClassVar[str] = "audio"
    version: ClassVar[int] = 2
    array: ClassVar[str] = "audio"

    chosen: AudioSettings

    def settings(self) -> dict[str, Any]:
        """All of them change the image."""
        return self.chosen.model_dump()

    def dtype(self) -> str:
        """Log magnitudes."""
        return "float32"

    def row_shape(self, samples: list[Sample]) -> tuple[int, ...]:
        """One channel, square."""
        return (1, self.chosen.size, self.chosen.size)

    def rows(self, samples: list[Sample]) -> list[tuple[int, int]]:
        """One per clip."""
        return [(i, 0) for i in range(len(samples))]

    def read(
        self, shard: Folder, sample: Sample, frame: int, shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """The clip's audio image ``[1, F, F]``."""
        return sound_row(read_member(shard, sample.members["flac"]), sample.key, self.chosen)


def frame_shape(samples: list[Sample], chosen: FrameSettings) -> tuple[int, ...]:
    """The frames' own shape; where clips differ in it, a square as large as the smallest."""
    sizes = {(sample.height, sample.width) for sample in samples}
    if len(sizes) == 1:
        return (3, *_shrunk(*sizes.pop(), chosen))
    side = min(chosen.shorter_side, *(min(size) for size in sizes))
    return (3, side, side)


def frame_row(image: bytes, shape: tuple[int, ...], chosen: FrameSettings) -> NDArray[np.uint8]:
    """An image file as ``[3, H, W]`` of that shape; its centre square where clips differ in it."""
    from avsnn.pipeline.media import video

    pixels = video.decode_image(image)
    _, height, width = shape
    full_height, full_width, _ = pixels.shape
    if _shrunk(full_height, full_width, chosen) != (height, width):
        side = min(full_height, full_width)
        top, left = (full_height - side) // 2, (full_width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    return video.resize(pixels, height, width).transpose(2, 0, 1)


def _shrunk(height: int, width: int, chosen: FrameSettings) -> tuple[int, int]:
    scale = min(1.0, chosen.shorter_side / min(height, width))
    return round(height * scale), round(width * scale)


def sound_row(sound: bytes, key: str, chosen: AudioSettings) -> NDArray[np.float32]:
    """The audio image ``[1, F, F]`` of a sound file."""
    from avsnn.pipeline.media import audio

    samples = audio.read(sound)
    if chosen.noise_snr is not None:
        samples = audio.add_noise(samples, snr=chosen.noise_snr, key=key)
    return audio_image(samples, chosen)


def audio_image(sound: Sound, chosen: AudioSettings) -> NDArray[np.float32]:
    """The image ``[1, size, size]`` that the networks read of a sound, without its noise."""
    from avsnn.pipeline.media import audio

    bins = audio.stft_magnitudes(
        sound, sample_rate=chosen.sample_rate, n_fft=chosen.n_fft, hop=chosen.hop
    )
    if chosen.n_mels is not None:
        filters = audio.mel_filters(
            sample_rate=chosen.sample_rate, n_fft=chosen.n_fft, n_mels=chosen.n_mels
        )
        bins = filters @ bins**2
    return audio.log_image(bins, size=chosen.size)


@lru_cache(maxsize=1)
def _read_once(shards: Folder, marks: tuple[str, ...]) -> list[tuple[Folder, Sample]]:
    """Both caches are made of the same shards; ``marks`` are the SHA-256 of what is read."""
    return read_shards(shards)


def _create_vector(group: zarr.Group, name: str, values: NDArray[Any]) -> None:
    from zarr.codecs import Crc32cCodec

    dtype: Any = str if values.dtype.kind == "U" else values.dtype
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=dtype,
        chunks=values.shape,
        compressors=[Crc32cCodec()],
        config={"write_empty_chunks": True},
    )
    array[:] = values
