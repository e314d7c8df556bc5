import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from upath import UPath

from avsnn.errors import UserError
from avsnn.pipeline.loading.batch import read_batch
from avsnn.pipeline.loading.cache_source import CacheSource
from avsnn.pipeline.loading.order import evaluation_requests
from avsnn.pipeline.loading.source import Source
from avsnn.pipeline.runs.train_settings import TrainSettings
from tests.event_data import write_cache, write_event_data
from tests.pipeline.conftest import prepared_demo
from tests.pipeline.loading.conftest import are_equal, open_source


def copy_to_memory(folder: Path, name: str) -> UPath:
    store = UPath(f"memory://{name}")
    store.fs.put(str(folder), store.path, recursive=True)
    return store


def test_caches_in_a_store_give_the_same_batch_as_a_folder(
    small_demo: Path, source: Source
) -> None:
    prepared = prepared_demo(small_demo)
    frames, audio = (
        copy_to_memory(small_demo / "demo" / getattr(prepared, name), f"/test-stream/{name}")
        for name in ("frames", "audio")
    )
    rows, positions = np.array([9, 2, 40]), np.array([0.1, 0.6, 0.9])
    expected = source.read(rows, positions)
    assert are_equal(CacheSource(frames=frames, audio=audio).read(rows, positions), expected)


def test_evaluation_reads_the_middle_frame(source: Source, small_demo: Path) -> None:
    request = next(evaluation_requests(np.array([3]), batch_size=1))
    batch = read_batch(source, request, TrainSettings())
    cache = small_demo / "demo" / prepared_demo(small_demo).frames
    images = zarr.open_group(str(cache), mode="r")
    start, count = np.asarray(images["rows"][3])  # type: ignore[index]
    middle = np.asarray(images["frames"][start + count // 2])  # type: ignore[index]
    assert np.array_equal(batch.frames[0].numpy(), middle)


def test_training_reads_more_than_one_frame_of_a_clip(source: Source) -> None:
    positions = np.linspace(0, 0.99, 20)
    frames = source.read(np.zeros(20, np.int64), positions).frames
    assert len({frame.numpy().tobytes() for frame in frames}) > 1


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def cut_off_a_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip_a_bit, cut_off_a_byte, Path.unlink])
def test_a_damaged_cache_is_refused_with_one_sentence(
    small_demo: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    root = shutil.copytree(small_demo, tmp_path / "data")
    damage(next((root / "demo" / "cache").glob("audio-*/audio/c/0/0/0/0")))
    with pytest.raises(UserError, match=r"is (damaged|missing); run 'avsnn repair'"):
        open_source(root).read(np.arange(72), np.zeros(72))


def test_event_caches_give_bytes_with_a_time_axis_from_a_folder_and_from_a_store(
    tmp_path: Path,
) -> None:
    root = write_event_data(tmp_path, frames=(5, 2, 6, 7), audio=(5, 1, 3, 4))
    source, rows = open_source(root), np.array([9, 2, 40])
    assert (source.shapes.frames, source.shapes.audio) == ((5, 2, 6, 7), (5, 1, 3, 4))
    assert source.shapes.steps == 5
    samples = source.read(rows, np.zeros(3))
    cache = zarr.open_group(str(root / "demo" / "cache" / "frames"), mode="r")
    assert np.array_equal(samples.frames, np.asarray(cache["frames"])[rows])
    assert samples.frames.dtype == samples.audio.dtype == torch.uint8
    assert samples.audio.shape == (3, 5, 1, 3, 4)
    stores = {
        name: copy_to_memory(root / "demo" / "cache" / name, f"/test-events/{name}")
        for name in ("frames", "audio")
    }
    assert are_equal(CacheSource(**stores).read(rows, np.zeros(3)), samples)


def test_images_have_no_time_steps(source: Source) -> None:
    assert source.shapes.steps is None
    assert (len(source.shapes.frames), len(source.shapes.audio)) == (3, 3)


def test_event_caches_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    root = write_event_data(tmp_path, frames=(5, 2, 8, 8), audio=(6, 1, 3, 4))
    with pytest.raises(UserError, match=r"different numbers of time steps; run 'avsnn prepare'"):
        open_source(root)


@pytest.mark.parametrize("name", ["frames", "audio"])
def test_event_caches_of_other_numbers_than_bytes_are_refused(tmp_path: Path, name: str) -> None:
    root = write_event_data(tmp_path, clips=6)
    rows = np.zeros((6, 4, 2, 8, 8), np.float32)
    keys = [f"clip-{number:03d}" for number in range(6)]
    write_cache(root / "demo" / "cache" / name, name, rows, keys, np.arange(6))
    with pytest.raises(UserError, match="than were written"):
        open_source(root)
