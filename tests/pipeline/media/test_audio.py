from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from avsnn.pipeline.media import MediaError, audio
from avsnn.pipeline.media.synthesize import audio_bytes


def wav(path: Path, samples: NDArray[np.int16], rate: int = 8000) -> Path:
    soundfile.write(path, samples, rate, subtype="PCM_16", format="WAV")
    return path


def noise(count: int) -> NDArray[np.int16]:
    return np.random.default_rng(0).integers(-2000, 2000, count, np.int16)


def test_flac_in_the_shard_holds_the_very_samples_of_the_wav(tmp_path: Path) -> None:
    samples = noise(4000)
    flac, seconds, rate = audio.transcode_to_flac(wav(tmp_path / "a.wav", samples))
    assert (seconds, rate) == (0.5, 8000)
    assert (soundfile.read(BytesIO(flac), dtype="int16")[0] == samples).all()


def test_real_recordings_survive_bit_for_bit(shared_data: Path) -> None:
    folder = shared_data / "av-digits" / "fsdd" / "recordings"
    for path in sorted(folder.glob("*.wav"))[::300]:
        flac, _, _ = audio.transcode_to_flac(path)
        published = soundfile.read(path, dtype="int16")[0]
        assert (soundfile.read(BytesIO(flac), dtype="int16")[0] == published).all()


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "MS_ADPCM"])
@pytest.mark.parametrize(("channels", "rate"), [(1, 8000), (2, 11024), (2, 192_000)])
def test_any_wav_of_a_sound_library_becomes_the_same_sound_in_flac(
    tmp_path: Path, subtype: str, channels: int, rate: int
) -> None:
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (4000, channels))
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype=subtype)
    decoded, _ = soundfile.read(tmp_path / "a.wav", always_2d=True)
    flac, seconds, said = audio.transcode_to_flac(tmp_path / "a.wav")
    again, kept = soundfile.read(BytesIO(flac), always_2d=True)
    assert (said, kept, seconds) == (rate, rate, len(decoded) / rate)
    assert np.abs(again - decoded).max() <= 2**-23


def test_floating_point_beyond_full_scale_is_cut_off_not_wrapped(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.5, 3.0, -3.0]), 8000, subtype="DOUBLE")
    flac, _, _ = audio.transcode_to_flac(tmp_path / "a.wav")
    assert soundfile.read(BytesIO(flac))[0] == pytest.approx([0.5, 1.0, -1.0], abs=2**-22)


@pytest.mark.parametrize(("channels", "rate"), [(9, 8000), (1, 2_000_000)])
def test_a_sound_that_flac_cannot_hold_is_a_failure_with_its_reason(
    tmp_path: Path, channels: int, rate: int
) -> None:
    soundfile.write(tmp_path / "a.wav", np.full((100, channels), 0.5), rate)
    with pytest.raises(MediaError, match=f"{channels} channels at {rate:,} Hz"):
        audio.transcode_to_flac(tmp_path / "a.wav")


def test_a_cut_wav_is_refused_though_libsndfile_reads_it(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", noise(4000))
    path.write_bytes(path.read_bytes()[:3000])
    assert len(soundfile.read(path)[0]) > 0
    with pytest.raises(MediaError, match="is truncated: 3000 of the 8044 bytes"):
        audio.transcode_to_flac(path)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [(np.zeros(0, np.int16), "no audio sample"), (np.zeros(900, np.int16), "digital silence")],
)
def test_audio_without_sound_is_refused(
    tmp_path: Path, samples: NDArray[np.int16], reason: str
) -> None:
    with pytest.raises(MediaError, match=reason):
        audio.transcode_to_flac(wav(tmp_path / "a.wav", samples))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"no sound at all, only words", "cannot be decoded"),
    ],
)
def test_what_is_no_sound_file_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(MediaError, match=reason):
        audio.transcode_to_flac(tmp_path / "a.wav")


def test_audio_image_is_the_published_formula_as_torch_computes_it() -> None:
    sound = audio.read(audio_bytes(key="any", contour="rising"))
    image = audio.log_stft_image(sound, sample_rate=sound.rate, n_fft=512, hop=353, size=128)
    spectrum = torch.stft(
        torch.from_numpy(sound.samples),
        n_fft=512,
        hop_length=353,
        window=torch.hann_window(512),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    log = (spectrum.abs() + 1e-7).log()[None, None]
    expected = interpolate(log, size=(128, 128), mode="bilinear", antialias=True)
    # The logarithm of near silence enlarges rounding; magnitudes are what must agree.
    assert np.allclose(np.exp(image), expected[0].exp().numpy(), rtol=1e-3, atol=1e-4)


def test_the_shortest_real_recording_has_an_image(shared_data: Path) -> None:
    folder = shared_data / "av-digits" / "fsdd" / "recordings"
    shortest = min(folder.glob("*.wav"), key=lambda path: path.stat().st_size)
    image = audio.log_stft_image(
        audio.read(shortest.read_bytes()), sample_rate=22050, n_fft=512, hop=353, size=128
    )
    assert image.shape == (1, 128, 128)
    assert np.isfinite(image).all()


def test_noise_on_a_waveform_has_the_asked_ratio_and_repeats() -> None:
    sound = audio.read(audio_bytes(key="any", contour="falling"))
    noisy = audio.add_noise(sound, snr=-5, key="any")
    added = noisy.samples - sound.samples
    ratio = 10 * np.log10(np.mean(sound.samples**2) / np.mean(added**2))
    assert ratio == pytest.approx(-5, abs=0.1)
    assert np.array_equal(noisy.samples, audio.add_noise(sound, snr=-5, key="any").samples)
    assert not np.array_equal(noisy.samples, audio.add_noise(sound, snr=-5, key="other").samples)
