from pathlib import Path

import numpy as np
import torch

from avsnn.pipeline.loading.augment import DRAWS, centre_crops, random_crops
from avsnn.pipeline.loading.batch import read_batch
from avsnn.pipeline.loading.order import BatchRequest, sample_draws, sample_noise
from avsnn.pipeline.loading.source import Source
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings
from tests.event_data import write_event_data
from tests.pipeline.loading.conftest import open_source

ROWS = np.array([9, 2, 40])
WITH_NOISE = ["data.augment.noise_snr=10", "data.size=16"]


def test_a_training_batch_has_the_random_numbers_of_its_epoch_and_samples(source: Source) -> None:
    settings = build_settings(TrainSettings, [], [*WITH_NOISE, "seed=3"])
    batch = read_batch(source, BatchRequest(ROWS, 7), settings)
    draws = sample_draws(seed=3, epoch=7, rows=ROWS, count=DRAWS + 1)
    assert torch.equal(batch.frames, source.read(ROWS, draws[:, 0]).frames)
    extent, augment = batch.frames.shape[-2:], settings.data.augment
    assert torch.equal(batch.crops, random_crops(draws[:, 1:], extent, augment))
    noise = sample_noise(seed=3, epoch=7, rows=ROWS, shape=(3, 16, 16))
    assert batch.noise is not None
    assert np.array_equal(batch.noise, noise)


def test_an_evaluation_batch_has_centred_crops_and_noise_only_if_it_is_asked_for(
    source: Source,
) -> None:
    quiet = build_settings(TrainSettings, [], WITH_NOISE)
    noisy = build_settings(
        TrainSettings, [], [*WITH_NOISE, "data.augment.noise_in_evaluation=true"]
    )
    batch = read_batch(source, BatchRequest(ROWS, None), quiet)
    expected = centre_crops(3, batch.frames.shape[-2:], quiet.data.augment)
    assert torch.equal(batch.crops, expected)
    assert batch.noise is None
    first, second = (read_batch(source, BatchRequest(ROWS, None), noisy).noise for _ in range(2))
    assert first is not None
    assert second is not None
    assert torch.equal(first, second)


def test_a_batch_moves_to_a_device_with_all_its_tensors(source: Source) -> None:
    for words in ([], WITH_NOISE):
        settings = build_settings(TrainSettings, [], words)
        batch = read_batch(source, BatchRequest(ROWS, 0), settings)
        moved = batch.to(torch.device("meta"))
        assert [tensor.device.type for tensor in moved.tensors] == ["meta"] * (4 + bool(words))
        assert (moved.noise is None) == (not words)
        assert np.array_equal(moved.rows, ROWS)


def test_event_frames_have_one_crop_for_each_clip_whatever_the_batch(tmp_path: Path) -> None:
    source = open_source(write_event_data(tmp_path))
    settings = build_settings(TrainSettings, [], ["data.augment.noise_snr=10", "data.size=28"])
    batch = read_batch(source, BatchRequest(ROWS, 7), settings)
    assert batch.crops.shape == (3, 5)
    assert batch.crops[:, :2].abs().max() <= 4
    assert batch.noise is not None
    assert batch.noise.shape == batch.frames.shape == (3, 4, 2, 28, 28)
    alone = read_batch(source, BatchRequest(ROWS[1:2], 7), settings)
    assert alone.noise is not None
    assert torch.equal(alone.crops[0], batch.crops[1])
    assert torch.equal(alone.noise[0], batch.noise[1])
    later = read_batch(source, BatchRequest(np.arange(72), 8), settings)
    assert len({tuple(crop) for crop in later.crops[:, :2].tolist()}) > 40
    quiet = read_batch(source, BatchRequest(ROWS, None), settings)
    assert quiet.crops.tolist() == [[0, 0, 28, 28, 0]] * 3
    assert quiet.noise is None
