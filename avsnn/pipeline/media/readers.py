"""Readers: code of the user, or of an installed package, for kinds of files that avsnn cannot read.

A reader belongs to the suffix of a file. Its code runs where the decoders run: in the sandbox.
"""

from __future__ import annotations

import errno
import math
import re
import sys
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import Field

from avsnn.errors import UserError
from avsnn.installed import PackageError, installed_version, offer_of, offered_names
from avsnn.pipeline.media.errors import MediaError, require_content, require_plausible_size
from avsnn.pipeline.media.frames import FrameRule, Timing, Video
from avsnn.pipeline.media.sound_files import MAX_VALUES, Samples, require_plausible_sound
from avsnn.pipeline.plugin_file import PluginFacts, first_line, line_of, read_plugin, run_plugin
from avsnn.registry import Registry, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from avsnn.pipeline.media.frames import Transform

GROUP = "avsnn.readers"

FORM = (
    "a file with a reader has READERS['.npy'] = Reader(frames=FUNCTION) or Reader(sound=FUNCTION), "
    "as docs/add-a-reader.md shows"
)

# Errors of the machine, which say nothing about the clip: the next prepare tries the clip again.
MACHINE_ERRNOS = (errno.EIO, errno.ENOSPC, errno.EMFILE, errno.ENFILE, getattr(errno, "ESTALE", 0))

# The types of samples beside floating-point numbers, each with its full scale.
INTEGER_SAMPLES = ("int16", "int32")


@dataclass(frozen=True)
class Reader:
    """How files of one suffix are read; a function that is None leaves its files to avsnn.

    Attributes:
        frames: gets the path of a video or of an image, and returns all frames ``[N, H, W, 3]``,
            uint8 RGB, and the frames per second. An image is one frame.
        sound: gets the path of a sound, and returns all samples ``[n]`` or ``[n, channels]``, int16
            or int32 (full scale) or floating-point in [-1, 1], and the sample rate in Hz.
    """

    frames: Callable[[Path], tuple[Any, float]] | None = None
    sound: Callable[[Path], tuple[Any, int]] | None = None


class _Readers(Registry[Reader]):
    """The readers by suffix."""

    form = re.compile(r"\.[a-z0-9][a-z0-9_+-]{0,30}")
    form_in_words = "the name of a reader is one suffix in small letters, such as '.npy'"


def _check_reader(name: str, reader: Any) -> None:
    if not isinstance(reader, Reader) or reader == Reader():
        raise RegistryError(
            f"the reader {name!r} must be Reader(frames=FUNCTION), Reader(sound=FUNCTION) or both"
        )
    for function in (reader.frames, reader.sound):
        if function is not None and not callable(function):
            raise RegistryError(f"the reader {name!r} has {function!r} in place of a function")


READERS = _Readers("reader", group=GROUP, check=_check_reader)


class ReaderSource(PluginFacts, frozen=True):
    """Where a reader comes from: a file of the user, or an installed package.

    The code of a file travels to the workers with the source, so that the code that was hashed is
    the code that runs, whatever becomes of the file. Nothing stores the code.

    Attributes:
        code: content of the file; None of a package, and where the file was not given.
    """

    code: bytes | None = Field(default=None, exclude=True, repr=False)

    @property
    def identity(self) -> str:
        """What of a reader belongs to the identity of the clips that the reader reads."""
        return self.sha256 or f"{self.name} {self.version}"

    def __str__(self) -> str:
        """Return what a sentence calls the source."""
        return self.name if self.is_file else f"the package {self.name} {self.version}"


class LoadedReader(NamedTuple):
    """A reader that can be called, and what messages call the reader.

    Attributes:
        reader: the reader.
        suffix: the suffix of its files.
        source: where the reader comes from.
        place: the file of its code, or the folder of its package.
    """

    reader: Reader
    suffix: str
    source: ReaderSource
    place: Path


def suffix_of(recording: str) -> str:
    """Return the suffix of a path in small letters, with its dot."""
    return PurePosixPath(recording).suffix.lower()


def sources_of_files(paths: Iterable[Path]) -> dict[str, ReaderSource]:
    """Run files of the user, and return the source of each of their readers by suffix.

    Raises:
        UserError: a file cannot be read, its code has a fault, or the file registers no reader; or
            two files have readers of one suffix.
    """
    import hashlib

    found: dict[str, ReaderSource] = {}
    for path in paths:
        code = read_plugin(path, FORM)
        digest = hashlib.sha256(code).hexdigest()
        source = ReaderSource(name=path.name, sha256=digest, code=code)
        readers = _run(path, code)
        if not readers:
            raise UserError(f"{path} registers no reader: {FORM}.")
        for suffix in readers:
            other = found.setdefault(suffix, source)
            if other != source:
                raise UserError(
                    f"{other.name} and {source.name} both have a reader '{suffix}'; give one file."
                )
    return found


def source_of_package(suffix: str) -> ReaderSource | None:
    """Return the package that offers a reader of a suffix; None if no package does.

    Raises:
        UserError: two packages offer a reader of the suffix.
    """
    try:
        offer = offer_of(GROUP, suffix)
    except PackageError as error:
        raise UserError(f"{error}.") from None
    return offer and ReaderSource(kind="package", name=offer.package, version=offer.version)


def suffixes_of_packages() -> list[str]:
    """Return the suffixes of which packages offer readers; nothing is imported."""
    return offered_names(GROUP)


def why_missing(suffix: str, source: ReaderSource) -> str:
    """Return what a person has to do before a reader can run; empty if the reader is here."""
    if source.is_file:
        return "" if source.code is not None else f"add --plugin {source.name}"
    here = offer_of(GROUP, suffix)
    if here and (here.package, here.version) == (source.name, source.version):
        return ""
    version = installed_version(source.name)
    there = f"version {version} is installed" if version else "the package is not installed"
    return f"{there}: pip install {source.name}=={source.version}"


def load_readers(sources: Mapping[str, ReaderSource]) -> dict[str, LoadedReader]:
    """Return the readers of some sources, by suffix; the code of each source runs once.

    Raises:
        UserError: the code cannot run in this process, or the package is missing here.
    """
    return {suffix: _load(suffix, source) for suffix, source in sources.items()}


def read_frames(
    path: Path,
    loaded: LoadedReader,
    rule: FrameRule,
    *,
    sound_seconds: float | None,
    transform: Transform,
) -> list[Any]:
    """Return what a transform makes of the wanted frames of a video, as `decode_video` does.

    Args:
        path: the video.
        loaded: the reader.
        rule: which frames are wanted.
        sound_seconds: duration of the sound of the clip, in s; None where the clip has no sound.
        transform: called with each wanted frame ``[H, W, 3]``.

    Raises:
        MediaError: the reader raised an exception, or its result is not what a reader returns; or
            there is a single frame, or frames and sound do not last equally long.
    """
    from avsnn.pipeline.media.video import find_flaw

    frames, fps = _call_frames(path, loaded)
    total = len(frames)
    if flaw := find_flaw(Video([], total, fps, total), sound_seconds):
        raise MediaError(flaw)
    wanted = Timing(total, None, fps).wanted(rule)
    return [transform(np.ascontiguousarray(frames[number])) for number in wanted]


def read_image(path: Path, loaded: LoadedReader) -> NDArray[np.uint8]:
    """Return the pixels of an image, ``[H, W, 3]`` RGB.

    Raises:
        MediaError: the reader raised an exception, or its result is not one frame.
    """
    frames, _ = _call_frames(path, loaded)
    if len(frames) != 1:
        raise _fault(loaded, f"it gave {len(frames)} frames, and an image is one frame")
    return np.ascontiguousarray(frames[0])


def read_sound(path: Path, loaded: LoadedReader) -> Samples:
    """Return the samples of a sound file.

    Raises:
        MediaError: the reader raised an exception, or its result is not what a reader returns; or
            the sample rate or the duration is one that no recording has.
    """
    samples, rate = _call(loaded.reader.sound, path, loaded)
    if not _is_number(rate) or float(rate) % 1:
        raise _fault(loaded, f"it gave the sample rate {rate!r}, and a rate is a whole number")
    values = np.asarray(samples)
    kind = f"samples of the type {values.dtype} and the shape {list(values.shape)}"
    if values.ndim not in (1, 2):
        raise _fault(loaded, f"it gave {kind}, and samples are [n] or [n, channels]")
    if values.dtype.kind == "f":
        # A value too large for 32 bits becomes infinite, and is refused as every infinite value.
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
    elif values.dtype.name not in INTEGER_SAMPLES:
        raise _fault(loaded, f"it gave {kind}, and samples are int16, int32 or floating-point")
    values = values.reshape(len(values), -1) if values.size else np.zeros((0, 1), np.int16)
    require_plausible_sound(int(rate), len(values) / max(1, int(rate)))
    if values.size > MAX_VALUES:
        raise MediaError(f"holds more than {MAX_VALUES:,} samples, which is too long for a clip")
    return Samples(values, int(rate), None)


def _load(suffix: str, source: ReaderSource) -> LoadedReader:
    if source.is_file:
        place = Path(source.name)
        if source.code is None:
            raise UserError(f"the reader {suffix!r} of {source} is missing: add --plugin.")
        reader = _run(place, source.code).get(suffix)
        if reader is None:
            raise UserError(f"{source} registers no reader {suffix!r} in a worker process.")
        return LoadedReader(reader, suffix, source, place)
    if why := why_missing(suffix, source):
        raise UserError(f"the reader {suffix!r} of {source} cannot run: {why}.")
    try:
        reader = READERS[suffix]
    except PackageError as error:
        raise UserError(f"{error}.") from None
    return LoadedReader(reader, suffix, source, READERS.offers[suffix].place or Path(source.name))


@lru_cache(maxsize=8)
def _run(path: Path, code: bytes) -> dict[str, Reader]:
    """Run the code of a file, and return its readers by suffix.

    A process may run two contents of one file one after the other, so the registry keeps nothing.
    """
    before, READERS.data = (READERS.data, dict(READERS.offers)), {}
    try:
        added = run_plugin(path, code, {"readers": READERS})
        return {suffix: READERS.data[suffix] for _, suffix in added}
    finally:
        READERS.data, READERS.offers = before


def _call(function: Callable[[Path], Any] | None, path: Path, loaded: LoadedReader) -> Any:
    """Return the pair that a function of a reader gives for a file."""
    require_content(path)
    # A caller asks only for what the reader has.
    assert function is not None  # noqa: S101 - narrows the type
    with _faults_said(loaded):
        # What a reader prints must not stand among results.
        with redirect_stdout(sys.stderr):
            pair = function(path)
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise _fault(loaded, f"it gave {type(pair).__name__}, and a reader gives a pair")
    return pair


def _call_frames(path: Path, loaded: LoadedReader) -> tuple[NDArray[np.uint8], float]:
    """Return the frames ``[N, H, W, 3]`` of a file, and the frames per second."""
    frames, fps = _call(loaded.reader.frames, path, loaded)
    # An array that is mapped from the file stays mapped.
    frames = np.asanyarray(frames)
    is_video = frames.ndim == 4 and frames.shape[3] == 3 and 0 not in frames.shape[1:]
    if frames.dtype != np.uint8 or not is_video:
        kind = f"frames of the type {frames.dtype} and the shape {list(frames.shape)}"
        raise _fault(loaded, f"it gave {kind}, and frames are uint8 [N, H, W, 3]")
    require_plausible_size(frames.shape[2], frames.shape[1])
    if not _is_number(fps) or not 0 < fps < math.inf:
        raise _fault(loaded, f"it gave {fps!r} frames per second, and a rate is a number above 0")
    return frames, float(fps)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


@contextmanager
def _faults_said(loaded: LoadedReader) -> Iterator[None]:
    """Turn an exception of a reader into the failure of the clip, with file, line and error."""
    try:
        yield
    except MediaError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, OSError) and error.errno in MACHINE_ERRNOS:
            raise
        file, line = line_of(error, loaded.place)
        if loaded.place.is_absolute() and file:
            # The folder of packages differs from machine to machine.
            file = Path(file).relative_to(loaded.place.parent).as_posix()
        where = f"{file}, line {line}: " if line else ""
        raise _fault(loaded, f"{where}{type(error).__name__}: {first_line(error)[:300]}") from None


def _fault(loaded: LoadedReader, reason: str) -> MediaError:
    name = f"the reader {loaded.suffix!r} of {loaded.source}"
    return MediaError(f"cannot be read by {name} ({reason})")
