"""What a batch shows and plays in each time step."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from avsnn.errors import UserError
from avsnn.pipeline.inference.inputs import network_inputs
from avsnn.pipeline.loading.augment import DRAWS, crop_and_normalise
from avsnn.pipeline.loading.batch import read_batch
from avsnn.pipeline.loading.order import BatchRequest, sample_draws
from avsnn.pipeline.loading.per_step import (
    audio_inputs,
    audio_windows,
    require_steps,
    step_positions,
)
from avsnn.pipeline.loading.source import Source, requested_frames
from avsnn.pipeline.runs.config import make_config
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings
from tests.pipeline.loading.conftest import are_equal, open_source

ROWS = np.array([9, 2, 40])
STEPS = st.integers(1, 64)


def settings_of(*words: str) -> TrainSettings:
    return build_settings(TrainSettings, [], ["model.steps=3", "data.size=32", *words])


PER_STEP = settings_of("data.frames=per-step", "seed=3")


@given(columns=st.integers(1, 600), steps=STEPS)
def test_windows_are_equal_parts_of_the_sound_or_all_parts_so_far(columns: int, steps: int) -> None:
    parts = audio_windows(columns, settings_of(f"model.steps={steps}", "data.audio=per-step"))
    grown = audio_windows(columns, settings_of(f"model.steps={steps}", "data.audio=growing"))
    for step in range(steps):
        first, end = (math.floor(Fraction(columns * edge, steps)) for edge in (step, step + 1))
        assert parts[step] == (first, end)
        assert grown[step] == (0, end)
    heard = [column for first, end in parts for column in range(first, end)]
    assert heard == list(range(columns))


@given(
    places=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=64),
    frames=st.integers(1, 200),
)
def test_every_step_shows_a_frame_of_its_own_part_of_the_clip(
    places: list[float], frames: int
) -> None:
    steps = len(places)
    (positions,) = step_positions(np.array([places]))
    for step, (place, position) in enumerate(zip(places, positions, strict=True)):
        assert position == min((step + place) / steps, math.nextafter(1, 0))
    shown = requested_frames(positions[None], np.array([frames]))[0]
    assert shown.tolist() == [int(position * frames) for position in positions]
    assert list(shown) == sorted(shown)
    assert shown[-1] < frames


@given(steps=STEPS)
def test_a_clip_of_as_many_frames_as_steps_shows_each_frame_once(steps: int) -> None:
    positions = step_positions(np.full((1, steps), 0.5))
    assert requested_frames(positions, np.array([steps])).tolist() == [list(range(steps))]


@pytest.mark.parametrize("epoch", [7, None])
def test_a_training_batch_has_the_crop_of_the_published_rule_and_a_frame_for_each_step(
    source: Source, epoch: int | None
) -> None:
    request = BatchRequest(ROWS, epoch)
    batch, published = (read_batch(source, request, s) for s in (PER_STEP, settings_of("seed=3")))
    assert torch.equal(batch.crops, published.crops)
    assert torch.equal(batch.audio, published.audio)
    assert batch.frames.shape == (3, 3, *published.frames.shape[1:])
    draws = sample_draws(seed=3, epoch=7, rows=ROWS, count=DRAWS + 1 + 3)
    for step in range(3):
        places = np.full(3, 0.5) if epoch is None else draws[:, DRAWS + 1 + step]
        alone = source.read(ROWS, (step + places) / 3).frames
        assert torch.equal(batch.frames[:, step], alone)


def test_shards_give_the_batches_of_the_caches(small_demo: Path, source: Source) -> None:
    shards = open_source(small_demo, "shards")
    assert np.array_equal(shards.frame_counts, source.frame_counts)
    assert set(source.frame_counts) == {2, 3}
    for epoch in (0, None):
        request = BatchRequest(np.arange(20), epoch)
        batches = [read_batch(each, request, PER_STEP)[:-1] for each in (shards, source)]
        assert are_equal(*batches)  # type: ignore[arg-type]


def test_every_step_is_cropped_and_mirrored_as_its_frame_alone(source: Source) -> None:
    batch = read_batch(source, BatchRequest(np.arange(20), 0), PER_STEP)
    assert set(batch.crops[:, 4].tolist()) == {0, 1}
    audio, frames = network_inputs(batch, PER_STEP)
    assert audio.shape == (20, 1, 32, 32)
    assert frames.shape == (3, 20, 3, 32, 32)
    for step in range(3):
        alone = crop_and_normalise(batch.frames[:, step], batch.crops, size=32)
        assert torch.equal(frames[step], alone)


def test_each_step_has_noise_of_its_own_at_the_level_of_the_whole_clip(source: Source) -> None:
    settings = settings_of("data.frames=per-step", "data.augment.noise_snr=10")
    batch = read_batch(source, BatchRequest(ROWS, 0), settings)
    assert batch.noise is not None
    assert batch.noise.shape == (3, 3, 3, 32, 32)
    assert not torch.equal(batch.noise[:, 0], batch.noise[:, 1])
    noisy, clean = (network_inputs(b, settings)[1] for b in (batch, batch._replace(noise=None)))
    power = (noisy - clean).square().mean((0, 2, 3, 4)) / clean.square().mean((0, 2, 3, 4))
    torch.testing.assert_close(power, torch.full((3,), 0.1), rtol=0.1, atol=0)


@pytest.mark.parametrize("size", [32, 256])
def test_each_step_hears_its_window_resized_like_a_whole_image(source: Source, size: int) -> None:
    images = read_batch(source, BatchRequest(ROWS, None), PER_STEP).audio
    whole = audio_inputs(images, settings_of(f"data.size={size}"))
    words = ("model.steps=4", f"data.size={size}", "data.audio=")
    parts, grown = (
        audio_inputs(images, settings_of(*words[:2], words[2] + w)) for w in ("per-step", "growing")
    )
    assert parts.shape == grown.shape == (4, *whole.shape)
    assert torch.equal(grown[3], whole)
    assert torch.equal(grown[0], parts[0])
    third = images[..., 2 * images.shape[-1] // 4 : 3 * images.shape[-1] // 4]
    expected = interpolate(third, (size, size), mode="bilinear", antialias=True)
    assert torch.equal(parts[2], expected)


class _Clips:
    """As much of a source as `require_steps` reads."""

    def __init__(self, source: Source, counts: list[int]) -> None:
        self.shapes, self.frame_counts = source.shapes, np.array(counts)


def test_clips_of_one_frame_are_refused_and_clips_of_few_frames_are_told_once(
    small_demo: Path, source: Source
) -> None:
    config = make_config("demo", PER_STEP, root=small_demo)
    with pytest.raises(
        UserError, match=r"single frame.*'avsnn prepare demo .*--set extract.frames=3 "
    ):
        require_steps(config, _Clips(source, [1, 1]))  # type: ignore[arg-type]
    (sentence,) = require_steps(config, _Clips(source, [2, 3, 1]))  # type: ignore[arg-type]
    assert sentence.startswith("2 of 3 clips have fewer")
    assert "extract.frames=3" in sentence
    assert require_steps(config, _Clips(source, [3, 9])) == []  # type: ignore[arg-type]
    published = make_config("demo", settings_of(), root=small_demo)
    assert require_steps(published, _Clips(source, [1])) == []  # type: ignore[arg-type]


def test_more_steps_than_columns_of_the_audio_image_are_refused(
    small_demo: Path, source: Source
) -> None:
    columns = source.shapes.audio[-1]
    words = [f"model.steps={columns + 1}", "data.audio=growing"]
    config = make_config("demo", settings_of(*words), root=small_demo)
    with pytest.raises(UserError, match=f"only {columns} columns for {columns + 1} time steps"):
        require_steps(config, source)
