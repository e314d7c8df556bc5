from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from avsnn.pipeline.media import audio
from avsnn.pipeline.media.demo_synthesis import audio_bytes
from avsnn.pipeline.media.errors import MediaError
from tests.fake_clips import make_clip


def write_wav(path: Path, samples: NDArray[np.int16], rate: int = 8000) -> Path:
    soundfile.write(path, samples, rate, subtype="PCM_16", format="WAV")
    return path


def noise(count: int) -> NDArray[np.int16]:
    return np.random.default_rng(0).integers(-2000, 2000, count, np.int16)


def test_the_flac_of_a_wav_holds_the_same_samples(tmp_path: Path) -> None:
    samples = noise(4000)
    flac, seconds, rate = audio.transcode_to_flac(write_wav(tmp_path / "a.wav", samples))
    assert (seconds, rate) == (0.5, 8000)
    assert (soundfile.read(BytesIO(flac), dtype="int16")[0] == samples).all()


def test_the_flac_of_a_real_recording_holds_the_same_samples(shared_data: Path) -> None:
    folder = shared_data / "av-digits" / "fsdd" / "recordings"
    for path in sorted(folder.glob("*.wav"))[::300]:
        flac, _, _ = audio.transcode_to_flac(path)
        published = soundfile.read(path, dtype="int16")[0]
        assert (soundfile.read(BytesIO(flac), dtype="int16")[0] == published).all()


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "MS_ADPCM"])
@pytest.mark.parametrize(("channels", "rate"), [(1, 8000), (2, 11024), (2, 192_000)])
def test_a_wav_of_any_sample_format_becomes_the_same_sound_in_flac(
    tmp_path: Path, subtype: str, channels: int, rate: int
) -> None:
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (4000, channels))
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype=subtype)
    decoded, _ = soundfile.read(tmp_path / "a.wav", always_2d=True)
    flac, seconds, reported_rate = audio.transcode_to_flac(tmp_path / "a.wav")
    from_flac, flac_rate = soundfile.read(BytesIO(flac), always_2d=True)
    assert (reported_rate, flac_rate, seconds) == (rate, rate, len(decoded) / rate)
    assert np.abs(from_flac - decoded).max() <= 2**-23


def test_floating_point_samples_beyond_full_scale_are_clipped(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.5, 3.0, -3.0]), 8000, subtype="DOUBLE")
    flac, _, _ = audio.transcode_to_flac(tmp_path / "a.wav")
    assert soundfile.read(BytesIO(flac))[0] == pytest.approx([0.5, 1.0, -1.0], abs=2**-22)


@pytest.mark.parametrize(("channels", "rate"), [(9, 8000), (1, 700_000)])
def test_a_sound_that_flac_cannot_hold_is_a_failure_with_its_reason(
    tmp_path: Path, channels: int, rate: int
) -> None:
    soundfile.write(tmp_path / "a.wav", np.tile([[0.5], [-0.5]], (50, channels)), rate)
    with pytest.raises(MediaError, match=f"{channels} channels at {rate:,} Hz"):
        audio.transcode_to_flac(tmp_path / "a.wav")


def test_a_truncated_wav_is_refused_although_libsndfile_reads_the_file(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", noise(4000))
    path.write_bytes(path.read_bytes()[:3000])
    assert len(soundfile.read(path)[0]) > 0
    with pytest.raises(MediaError, match="is truncated: 3000 of the 8044 bytes"):
        audio.transcode_to_flac(path)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros(0, np.int16), "no audio sample"),
        (np.zeros(900, np.int16), "digital silence"),
        (np.tile(np.array([0, 1], np.int16), 900), "is silent: its peak is -90 dBFS"),
        (np.tile(np.array([0, -9], np.int16), 900), "is silent: its peak is -71 dBFS"),
    ],
)
def test_audio_without_sound_is_refused(
    tmp_path: Path, samples: NDArray[np.int16], reason: str
) -> None:
    with pytest.raises(MediaError, match=reason):
        audio.transcode_to_flac(write_wav(tmp_path / "a.wav", samples))


def test_the_faintest_real_recording_is_not_taken_for_silence(shared_data: Path) -> None:
    folder = shared_data / "av-digits" / "fsdd" / "recordings"
    paths = sorted(folder.glob("*.wav"))[::30]
    audio.transcode_to_flac(min(paths, key=lambda path: abs(soundfile.read(path)[0]).max()))


# Largest error of a sample in FLAC, by the sample format of the WAV file.
MAX_ERRORS = {"PCM_U8": 0, "MS_ADPCM": 0, "ULAW": 0, "PCM_24": 0}
MAX_ERRORS |= dict.fromkeys(("PCM_32", "FLOAT", "DOUBLE"), 2**-23)


@pytest.mark.parametrize(("subtype", "max_error"), MAX_ERRORS.items())
def test_recordings_of_other_sample_formats_are_kept_to_24_bits(
    tmp_path: Path, subtype: str, max_error: float
) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 4000)
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype=subtype)
    flac, _, _ = audio.transcode_to_flac(tmp_path / "a.wav")
    published = soundfile.read(tmp_path / "a.wav")[0]
    assert np.abs(soundfile.read(BytesIO(flac))[0] - published).max() <= max_error


def test_a_sound_with_samples_that_are_not_a_number_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(900, np.nan), 8000, subtype="FLOAT")
    with pytest.raises(MediaError, match="holds samples that are no numbers"):
        audio.transcode_to_flac(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"no sound at all, only words", "cannot be decoded"),
    ],
)
def test_a_file_that_holds_no_sound_is_refused_with_its_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(MediaError, match=reason):
        audio.transcode_to_flac(tmp_path / "a.wav")


def real_recordings(shared_data: Path) -> list[audio.Sound]:
    """Return spoken digits, with the shortest and the longest, and a sound at CREMA-D's rate."""
    folder = shared_data / "av-digits" / "fsdd" / "recordings"
    paths = sorted(folder.glob("*.wav"), key=lambda path: path.stat().st_size)
    return [
        *(audio.read(path.read_bytes()) for path in (*paths[:3], *paths[::500], paths[-1])),
        audio.read(make_clip("1001_DFA_ANG_XX").wav),
    ]


def by_torch(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    spectrum = torch.stft(
        torch.from_numpy(samples).clamp(-1, 1),
        n_fft=512,
        hop_length=353,
        window=torch.hann_window(512),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    return spectrum.abs().numpy()


def by_librosa(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.abs(librosa.stft(samples.clip(-1, 1), n_fft=512, hop_length=353))


def by_definition(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    padded = np.pad(samples.clip(-1, 1).astype(np.float64), 256)
    starts = range(0, len(padded) - 511, 353)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    return np.abs(np.fft.rfft([padded[i : i + 512] * window for i in starts], axis=1)).T


@pytest.mark.parametrize("reference", [by_torch, by_librosa, by_definition])
def test_magnitudes_of_real_recordings_are_the_published_ones(
    shared_data: Path, reference: Callable[[NDArray[np.float32]], NDArray[np.float64]]
) -> None:
    for sound in real_recordings(shared_data):
        resampled = librosa.resample(sound.samples, orig_sr=sound.rate, target_sr=22050)
        expected = reference(resampled)
        # Compare before the logarithm, because the logarithm enlarges the rounding of near silence.
        found = audio.stft_magnitudes(sound, sample_rate=22050, n_fft=512, hop=353)
        assert found.shape == expected.shape == (257, 1 + len(resampled) // 353)
        assert np.abs(found - expected).max() < 1e-5 * expected.max()


def test_the_audio_image_is_the_logarithm_resized_as_published(shared_data: Path) -> None:
    for sound in real_recordings(shared_data):
        bins = audio.stft_magnitudes(sound, sample_rate=22050, n_fft=512, hop=353)
        log = torch.from_numpy(bins + 1e-7).log()[None, None]
        expected = interpolate(log, size=(128, 128), mode="bilinear", antialias=True)
        image = audio.log_image(bins, size=128)
        assert image.shape == (1, 128, 128)
        assert np.allclose(image, expected[0].numpy(), atol=1e-5)


def test_the_mel_filter_of_the_pitch_responds_most_to_a_tone() -> None:
    filters = audio.mel_filters(sample_rate=22050, n_fft=2048, n_mels=40)
    assert filters.shape == (40, 1025)
    centres = librosa.mel_frequencies(42, fmin=0, fmax=11025)[1:-1]
    for band in (5, 20, 35):
        time = np.arange(22050) / 22050
        tone = audio.Sound(np.sin(2 * np.pi * centres[band] * time).astype(np.float32), 22050)
        power = audio.stft_magnitudes(tone, sample_rate=22050, n_fft=2048, hop=512) ** 2
        assert (filters @ power)[:, 20].argmax() == band


def test_more_mel_filters_than_frequencies_are_refused() -> None:
    with pytest.raises(ValueError, match="of 128 mel filters some hold no frequency"):
        audio.mel_filters(sample_rate=22050, n_fft=256, n_mels=128)


def test_noise_on_a_waveform_has_the_given_ratio_and_repeats_for_a_key() -> None:
    sound = audio.read(audio_bytes(key="any", contour="falling"))
    noisy = audio.add_noise(sound, snr=-5, key="any")
    added = noisy.samples - sound.samples
    ratio = 10 * np.log10(np.mean(sound.samples**2) / np.mean(added**2))
    assert ratio == pytest.approx(-5, abs=0.1)
    assert np.array_equal(noisy.samples, audio.add_noise(sound, snr=-5, key="any").samples)
    assert not np.array_equal(noisy.samples, audio.add_noise(sound, snr=-5, key="other").samples)
