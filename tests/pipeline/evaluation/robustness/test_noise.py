"""Levels of noise on images, event frames and waveforms, measured on what is made."""

import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import soundfile
import torch

from avsnn.errors import UserError
from avsnn.pipeline.evaluation.robustness.noise import LEVELS, VISUAL_EPOCH, InputNoise
from avsnn.pipeline.evaluation.robustness.noisy_sound import (
    NoisySounds,
    noisy_waveforms,
    open_sounds,
    silent_image,
)
from avsnn.pipeline.formats.audio_rows import audio_image, audio_row, read_sound
from avsnn.pipeline.formats.prepare_settings import AudioSettings
from avsnn.pipeline.inference.open_part import OpenPart
from avsnn.pipeline.loading.dataset import open_source
from avsnn.pipeline.media import audio
from avsnn.pipeline.media.audio import Sound
from tests.pipeline.evaluation.robustness.conftest import open_changed

ROWS = np.array([3, 7])


def snr(clean: np.ndarray, noisy: np.ndarray) -> float:
    """Return the measured signal to noise ratio in dB."""
    clean, noise = clean.astype(np.float64), noisy.astype(np.float64) - clean
    return 10 * math.log10(np.mean(clean**2) / np.mean(noise**2))


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 3, 64, 48), (5, 2, 2, 12, 12)])
def test_noise_on_an_input_has_the_level_in_each_clip(shape: tuple[int, ...]) -> None:
    images = torch.randn(shape) * torch.tensor([0.1, 9.0]).view(2, 1, 1, 1) + 1
    noise = InputNoise(images, ROWS, epoch=VISUAL_EPOCH)
    clip = len(shape) - 4
    for level in LEVELS:
        noisy = noise.add(level)
        for number in range(2):
            one, other = (x.select(clip, number).numpy() for x in (images, noisy))
            assert snr(one, other) == pytest.approx(level, abs=0.1)


def test_noise_on_an_input_is_gaussian_and_the_same_draw_at_every_level() -> None:
    images = torch.ones(2, 3, 64, 64)
    noise = InputNoise(images, ROWS, epoch=VISUAL_EPOCH)
    draw = noise.add(0) - images
    assert float(draw.mean()) == pytest.approx(0, abs=0.03)
    assert float((draw**4).mean()) == pytest.approx(3, abs=0.15)
    torch.testing.assert_close(noise.add(20) - images, draw / 10, rtol=0, atol=1e-5)
    assert not torch.equal(draw[0], draw[1])


def test_noise_belongs_to_the_row_of_a_clip_not_to_its_place_in_the_batch() -> None:
    images = torch.randn(2, 3, 16, 16)
    both = InputNoise(images, ROWS, epoch=VISUAL_EPOCH).add(5)
    swapped = InputNoise(images.flip(0), ROWS[::-1], epoch=VISUAL_EPOCH).add(5)
    alone = InputNoise(images[1:], ROWS[1:], epoch=VISUAL_EPOCH).add(5)
    assert torch.equal(swapped.flip(0), both)
    assert torch.equal(alone, both[1:])


@pytest.mark.parametrize("innermost", [False, True])
def test_noise_keeps_the_memory_layout(innermost: bool) -> None:
    layout = torch.channels_last if innermost else torch.contiguous_format
    images = torch.randn(2, 3, 16, 16).contiguous(memory_format=layout)
    assert InputNoise(images, ROWS, epoch=VISUAL_EPOCH).add(5).stride() == images.stride()


@pytest.mark.parametrize(
    ("count", "loudness"), [(50, 0.3), (22050, 1e-3), (22050, 0.99), (66150, 0.1)]
)
def test_noise_on_a_waveform_has_the_level_and_is_neither_cut_nor_rounded(
    count: int, loudness: float
) -> None:
    samples = (loudness * np.sin(np.arange(count) / 9)).astype(np.float32)
    noisy = list(noisy_waveforms(Sound(samples, 22050), 4, LEVELS))
    for level, sound in zip(LEVELS, noisy, strict=True):
        assert snr(samples, sound.samples) == pytest.approx(level, abs=0.1)
    # At 0 dB a loud sound passes full scale; a sound rounded to 16 bits would repeat its values.
    assert loudness < 0.9 or np.abs(noisy[-1].samples).max() > 1.5
    assert len(np.unique(noisy[0].samples)) > 0.98 * count


def test_a_silent_waveform_stays_silent() -> None:
    silence = Sound(np.zeros(1000, np.float32), 22050)
    assert not any(sound.samples.any() for sound in noisy_waveforms(silence, 4, LEVELS))


def test_every_clip_of_the_demo_has_the_level_before_its_spectrogram(opened: OpenPart) -> None:
    config = opened.run.config
    settings = config.data.settings.audio
    source = open_source(config, shards=True)
    with open_sounds(config) as sounds:
        images = sounds.images(opened.rows, LEVELS)
    files = source.read_sounds(opened.rows)  # type: ignore[attr-defined]
    for number, (row, file) in enumerate(zip(opened.rows, files, strict=True)):
        clean = read_sound(file, source.keys[row], settings)
        for level, sound in zip(LEVELS, noisy_waveforms(clean, row, LEVELS), strict=True):
            assert snr(clean.samples, sound.samples) == pytest.approx(level, abs=0.1)
            assert np.array_equal(images[level][number], audio_image(sound, settings))


def test_without_noise_the_audio_image_is_the_row_of_the_cache(opened: OpenPart) -> None:
    rows = opened.rows
    cached = opened.loader.source.read(rows, np.full(len(rows), 0.5)).audio
    with open_sounds(opened.run.config) as sounds:
        images = sounds.images(rows, [math.inf])[math.inf]
    assert np.array_equal(images, cached.numpy())


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("words", [{}, {"noise_snr": 10}, {"kind": "log-mel", "n_mels": 32}])
def test_without_noise_a_sound_of_any_rate_gives_the_row_that_prepare_writes(
    rate: int, words: dict[str, object]
) -> None:
    settings = AudioSettings.model_validate(words)
    file = BytesIO()
    samples = 0.5 * np.sin(np.arange(rate) ** 1.5 / 1e4)
    soundfile.write(file, samples, rate, "PCM_16", format="FLAC")
    sound = audio.resample(read_sound(file.getvalue(), "k", settings), settings.sample_rate)
    (same,) = noisy_waveforms(sound, 0, [math.inf])
    assert np.array_equal(audio_image(same, settings), audio_row(file.getvalue(), "k", settings))


class OneSound:
    """Shards that hold one clip."""

    keys: ClassVar = ["k"]

    def __init__(self, file: bytes) -> None:
        self.file = file

    def read_sounds(self, rows: np.ndarray) -> list[bytes]:
        return [self.file]

    def shard_of(self, row: int) -> Path:
        return Path("train-000000.tar")


def test_noise_is_added_at_the_sample_rate_of_the_spectrogram() -> None:
    # Added at 48,000 Hz, half of the noise would lie above 11,025 Hz, where the spectrogram ends.
    file = BytesIO()
    soundfile.write(file, 0.3 * np.sin(np.arange(48000) / 20), 48000, "PCM_16", format="FLAC")
    settings = AudioSettings()
    with ThreadPoolExecutor(1) as threads:
        sounds = NoisySounds(OneSound(file.getvalue()), settings, threads)
        images = sounds.images(np.array([0]), LEVELS)
    heard = audio.resample(audio.read(file.getvalue()), 22050)
    for level, sound in zip(LEVELS, noisy_waveforms(heard, 0, LEVELS), strict=True):
        assert snr(heard.samples, sound.samples) == pytest.approx(level, abs=0.1)
        assert np.array_equal(images[level][0], audio_image(sound, settings))


def test_a_sound_that_cannot_be_decoded_names_its_shard_and_its_clip() -> None:
    with ThreadPoolExecutor(1) as threads:
        sounds = NoisySounds(OneSound(b"no sound"), AudioSettings(), threads)
        with pytest.raises(
            UserError, match=r"train-000000\.tar is damaged \(the sound of the clip k"
        ):
            sounds.images(np.array([0]), LEVELS)


def test_the_image_of_silence_is_the_logarithm_of_the_smallest_magnitude() -> None:
    np.testing.assert_allclose(silent_image(AudioSettings()), np.log(1e-7), atol=1e-4)


def test_shards_that_are_gone_or_damaged_are_one_sentence(
    small_run: Path, small_demo: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(small_demo, tmp_path / "data")
    (shards,) = (root / "demo" / "shards").iterdir()
    with open_changed(small_run, root=root) as opened, open_sounds(opened.run.config) as sounds:
        for tar in shards.glob("*.tar"):
            tar.write_bytes(bytes(tar.stat().st_size))
        with pytest.raises(UserError, match=r"\.tar is damaged \(it holds other bytes"):
            sounds.images(opened.rows, LEVELS)
        shutil.rmtree(shards)
        with (
            pytest.raises(UserError, match="holds no shards; run 'avsnn prepare' again"),
            open_sounds(opened.run.config),
        ):
            pass
