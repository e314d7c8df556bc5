"""What a reader of the user may give, and what happens to everything else that it gives."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from avsnn.pipeline.formats.prepare_settings import ExtractSettings
from avsnn.pipeline.media import sandbox
from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.readers import (
    LoadedReader,
    Reader,
    ReaderSource,
    load_readers,
    read_frames,
    read_sound,
    suffix_of,
)
from avsnn.pipeline.prepare.clip_members import read_image_members
from avsnn.pipeline.prepare.stages import extract
from tests.own_reader import READER, write_lab

SOURCE = ReaderSource(name="my_reader.py", sha256="0" * 64)


def gives(*, frames: Any = None, sound: Any = None) -> LoadedReader:
    """Return a reader that gives the same for every file."""
    reader = Reader(frames=lambda _: frames, sound=lambda _: sound)
    return LoadedReader(reader, ".abc", SOURCE, Path("my_reader.py"))


def source_of(code: str) -> ReaderSource:
    digest = hashlib.sha256(code.encode()).hexdigest()
    return ReaderSource(name="my_reader.py", sha256=digest, code=code.encode())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some file with content."""
    file = tmp_path_factory.mktemp("files") / "a.abc"
    file.write_bytes(b"content")
    return file


NUMBERS = st.one_of(
    arrays.integer_dtypes(), arrays.unsigned_integer_dtypes(), arrays.floating_dtypes()
)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
VALUES = st.one_of(st.none(), st.text(), st.integers(), arrays.arrays(NUMBERS, SHAPES))


@given(given=st.one_of(VALUES, st.tuples(VALUES, st.one_of(VALUES, st.floats()))))
def test_whatever_a_reader_gives_is_read_or_is_the_failure_of_the_clip(
    path: Path, given: Any
) -> None:
    try:
        values, rate, _ = read_sound(path, gives(sound=given))
    except MediaError:
        pass
    else:
        assert values.ndim == 2
        assert values.dtype in (np.int16, np.int32, np.float32)
        assert rate == given[1]
    try:
        frames = read_frames(
            path, gives(frames=given), "1fps", sound_seconds=None, transform=lambda frame: frame
        )
    except MediaError:
        pass
    else:
        assert {frame.shape for frame in frames} == {given[0].shape[1:]}


@pytest.mark.parametrize(("kind", "scale"), [("int16", 2**15), ("int32", 2**31), ("float64", 1)])
def test_samples_keep_their_values_and_channels(path: Path, kind: str, scale: int) -> None:
    tone = 0.5 * np.sin(np.arange(4000) / 5)
    values = (np.stack([tone, -tone / 2], axis=1) * scale).astype(kind)
    read, rate, promised = read_sound(path, gives(sound=(values, 8000.0)))
    assert (rate, promised) == (8000, None)
    np.testing.assert_array_equal(read, values.astype("float32" if kind == "float64" else kind))


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ((np.zeros((5, 8, 8, 3), np.uint8), 5), "lasts 1.0 s where|is truncated: 1.0 s of picture"),
        ((np.zeros((1, 8, 8, 3), np.uint8), 5), "holds a single frame"),
        ((np.zeros((0, 8, 8, 3), np.uint8), 5), "holds no frame"),
        ((np.zeros((5, 8, 8, 3), np.uint8), 0), "it gave 0 frames per second"),
        ((np.zeros((5, 8, 8), np.uint8), 5), r"the shape \[5, 8, 8\], and frames are uint8"),
        (np.zeros((5, 8, 8, 3), np.uint8), "it gave ndarray, and a reader gives a pair"),
    ],
)
def test_frames_are_checked_as_those_of_every_video(path: Path, pair: Any, reason: str) -> None:
    with pytest.raises(MediaError, match=reason):
        read_frames(path, gives(frames=pair), "1fps", sound_seconds=4.0, transform=np.copy)


def test_an_image_of_a_reader_is_one_frame_and_becomes_a_jpeg(path: Path) -> None:
    picture = np.full((1, 20, 30, 3), 90, np.uint8)
    images, shape = read_image_members(path, ExtractSettings(), gives(frames=(picture, 1)))
    (data,) = images.values()
    assert data.startswith(b"\xff\xd8\xff")
    assert shape == (20, 30, 3)
    with pytest.raises(MediaError, match="it gave 2 frames, and an image is one frame"):
        read_image_members(path, ExtractSettings(), gives(frames=(np.repeat(picture, 2, 0), 1)))


def test_a_process_that_runs_two_contents_of_one_file_keeps_them_apart(path: Path) -> None:
    for rate in (8000, 16000, 8000):
        code = f"READERS['.abc'] = Reader(sound=lambda path: (np.ones(9), {rate}))\n"
        head = READER.partition("\n\n\n")[0]
        loaded = load_readers({".abc": source_of(f"{head}\n{code}")})
        assert read_sound(path, loaded[".abc"]).rate == rate


def test_suffixes_are_those_of_files_in_zips_too_in_small_letters() -> None:
    assert suffix_of("all.zip/a.b/CLIP.NPY") == ".npy"


def test_a_reader_that_never_returns_ends_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lab(tmp_path)
    code = READER.replace("def sound(path):", "def sound(path):\n    while '-1' in path.name: 0")
    names = ("clip-{0}.raw", "clip-{0}.npy")

    def read(number: int) -> Any:
        files = [name.format(number) for name in names]
        sources = dict.fromkeys((".npy", ".raw"), source_of(code))
        form = ("video", "sound")
        folder = tmp_path / "clips"
        words = (folder, *files, form, ExtractSettings(), None, sources)
        return sandbox.call(extract._read_clip, *words)

    assert read(0).facts["frames"] == 2
    monkeypatch.setattr(sandbox, "DEADLINE_S", 1.0)
    with pytest.raises(sandbox.DecoderDiedError, match="did not finish decoding within 1 s"):
        read(1)
