"""Kinds of sound files that decoders read wrongly, each in several formats."""

from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from avsnn.pipeline.media import audio
from avsnn.pipeline.media.errors import MediaError, NoSoundError
from tests.own_videos import CODECS, write_video

Signal = NDArray[np.float64]


def tone(count: int = 16000, rate: int = 16000) -> Signal:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(count) / rate)


def encode(path: Path, codec: str, signal: Signal, rate: int, **options: str) -> Path:
    """Encode a mono sound with FFmpeg; the name of the file tells the container."""
    with av.open(path, "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        stream.codec_context.open()
        frame = av.AudioFrame.from_ndarray(signal.astype(np.float32)[None], "fltp", "mono")
        frame.sample_rate, frame.pts = rate, 0
        size = stream.codec_context.frame_size or 1024
        kind = stream.codec_context.format.name
        resampler = av.AudioResampler(kind, "mono", rate, frame_size=size)
        for part in (*resampler.resample(frame), *resampler.resample(None), None):
            container.mux(stream.encode(part))
    return path


def transcode(path: Path) -> tuple[Signal, int]:
    """Return samples and rate of the FLAC file that avsnn makes."""
    flac, seconds, rate = audio.transcode_to_flac(path)
    samples, flac_rate = soundfile.read(BytesIO(flac))
    assert flac_rate == rate
    assert seconds == len(samples) / rate
    assert audio.transcode_to_flac(path)[0] == flac
    return samples, rate


WHOLE_FORMATS = [
    ("WAV", "PCM_16", "LITTLE"),
    ("WAV", "PCM_24", "BIG"),
    ("WAVEX", "FLOAT", "FILE"),
    ("RF64", "PCM_16", "FILE"),
    ("W64", "PCM_16", "FILE"),
    ("AIFF", "PCM_24", "FILE"),
    ("AU", "PCM_16", "FILE"),
    ("CAF", "PCM_16", "FILE"),
]


@pytest.mark.parametrize(("kind", "subtype", "endian"), WHOLE_FORMATS)
@pytest.mark.parametrize("count", [16000, 15999])
def test_a_whole_file_is_read_and_a_cut_one_is_refused(
    tmp_path: Path, kind: str, subtype: str, endian: str, count: int
) -> None:
    path = tmp_path / "sound"
    soundfile.write(path, tone(count), 16000, subtype, endian, kind)
    samples, _ = transcode(path)
    assert np.abs(samples - tone(count)).max() < 2**-14
    data = path.read_bytes()
    for share in (0.1, 0.5, 0.99):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(MediaError, match=r"is truncated: \d+ of the \d+ bytes|malformed"):
            audio.transcode_to_flac(path)


@pytest.mark.parametrize(("kind", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", None)])
def test_a_cut_compressed_file_is_refused(tmp_path: Path, kind: str, subtype: str | None) -> None:
    path = tmp_path / "sound"
    signal = tone(64000) + np.random.default_rng(0).normal(0, 0.1, 64000)
    soundfile.write(path, signal, 16000, subtype, format=kind)
    assert len(transcode(path)[0]) == 64000
    data = path.read_bytes()
    for share in (0.3, 0.9):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(MediaError, match="is truncated"):
            audio.transcode_to_flac(path)


@pytest.mark.parametrize("size", [0, 0x7FFF_F000, 0x7FFF_FF00, 0x8000_0000, 0xFFFF_FFFF])
def test_a_wav_from_a_pipe_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    path = tmp_path / "sound.wav"
    soundfile.write(path, tone(), 16000, "PCM_16", format="WAV")
    data = path.read_bytes()
    unknown = size.to_bytes(4, "little")
    path.write_bytes(data[:4] + unknown + data[8:40] + unknown + data[44:])
    assert len(transcode(path)[0]) == 16000


@pytest.mark.parametrize("count", [320, 8000, 8001, 40000])
def test_gsm_gives_no_sample_that_was_never_there(tmp_path: Path, count: int) -> None:
    path = tmp_path / "sound.wav"
    soundfile.write(path, tone(count, 8000), 8000, "GSM610", format="WAV")
    samples, _ = transcode(path)
    # A block of the codec holds 320 samples.
    assert count <= len(samples) < count + 320


def set_flac_total(data: bytes, total: int) -> bytes:
    """Return a FLAC file whose header tells another number of samples."""
    fields = int.from_bytes(data[18:26]) >> 36 << 36 | total
    return data[:18] + fields.to_bytes(8) + data[26:]


@pytest.mark.parametrize(("subtype", "channels"), [("PCM_16", 1), ("PCM_24", 2)])
def test_a_flac_of_unknown_or_false_length(tmp_path: Path, subtype: str, channels: int) -> None:
    path = tmp_path / "sound.flac"
    signal = np.repeat(tone()[:, None], channels, axis=1)
    soundfile.write(path, signal, 16000, subtype, format="FLAC")
    data = path.read_bytes()
    expected = transcode(path)[0]
    path.write_bytes(set_flac_total(data, 0))
    assert np.array_equal(transcode(path)[0], expected)
    for total in (2**36 - 1, 17000):
        path.write_bytes(set_flac_total(data, total))
        with pytest.raises(MediaError, match=r"too long for a clip|is truncated"):
            audio.transcode_to_flac(path)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_an_mp3_is_read_whole_with_and_without_its_header(tmp_path: Path, rate: int) -> None:
    signal = tone(3 * rate, rate)
    plain = encode(tmp_path / "plain.mp3", "libmp3lame", signal, rate, write_xing="0")
    full = encode(tmp_path / "full.mp3", "libmp3lame", signal, rate)
    assert 0 <= len(transcode(plain)[0]) - 3 * rate < 3 * 1152
    assert len(transcode(full)[0]) == 3 * rate
    data = full.read_bytes()
    count = max(data.find(b"Info"), data.find(b"Xing")) + 8
    full.write_bytes(data[:count] + b"\x7f\xff\xff\xff" + data[count + 4 :])
    assert 0 <= len(transcode(full)[0]) - 3 * rate < 3 * 1152
    full.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match="is truncated"):
        audio.transcode_to_flac(full)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.m4a", "aac"),
        ("a.mp4", "aac"),
        ("a.aac", "aac"),
        ("a.mkv", "aac"),
        ("a.webm", "libopus"),
        ("a.mkv", "pcm_s16le"),
        ("a.mov", "pcm_s16le"),
        ("a.avi", "libmp3lame"),
        ("a.nut", "flac"),
    ],
)
@pytest.mark.parametrize("rate", [16000, 48000])
def test_the_sound_of_any_container_is_read(
    tmp_path: Path, name: str, codec: str, rate: int
) -> None:
    signal = tone(2 * rate, rate)
    samples, found_rate = transcode(encode(tmp_path / name, codec, signal, rate))
    # Raw AAC and AVI do not tell how much of the first and last packets is filling.
    assert found_rate == (48000 if codec == "libopus" else rate)
    assert abs(len(samples) / found_rate - 2) < 0.25
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)
    if name in ("a.m4a", "a.mp4", "a.mov"):
        assert len(samples) == len(signal)


def test_a_cut_m4a_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    encode(path, "aac", tone(64000), 16000, movflags="faststart")
    data = path.read_bytes()
    path.write_bytes(data[: int(0.7 * len(data))])
    with pytest.raises(MediaError, match=r"is truncated: \d+ of the \d+ bytes its header promises"):
        audio.transcode_to_flac(path)


@pytest.mark.parametrize(("kind", "subtype"), [("FLAC", "PCM_16"), ("WAV", "FLOAT")])
@pytest.mark.parametrize("rest", [0.0, 2e-5])
def test_channels_that_cancel_each_other_out_are_refused(
    tmp_path: Path, kind: str, subtype: str, rest: float
) -> None:
    path = tmp_path / "sound"
    stereo = np.stack([tone(), rest - tone()], axis=1)
    soundfile.write(path, stereo, 16000, subtype, format=kind)
    with pytest.raises(MediaError, match="is silent when its channels are mixed"):
        audio.transcode_to_flac(path)


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "DOUBLE"), ("AIFF", "FLOAT")])
@pytest.mark.parametrize("peak", [127, 32767, 2**23])
def test_floating_point_samples_that_are_really_integers_are_refused(
    tmp_path: Path, kind: str, subtype: str, peak: int
) -> None:
    path = tmp_path / "sound"
    soundfile.write(path, peak * tone(), 16000, subtype, format=kind)
    with pytest.raises(MediaError, match=f"holds samples up to {peak // 2:,}, where"):
        audio.transcode_to_flac(path)


@pytest.mark.parametrize(("kind", "rate"), [("WAV", 1), ("AU", 999), ("WAV", 2_000_000)])
def test_a_sample_rate_that_nobody_records_is_refused(tmp_path: Path, kind: str, rate: int) -> None:
    path = tmp_path / "sound"
    soundfile.write(path, tone(), rate, "PCM_16", format=kind)
    with pytest.raises(MediaError, match=f"has a sample rate of {rate:,} Hz"):
        audio.transcode_to_flac(path)
    with pytest.raises(MediaError, match=f"has a sample rate of {rate:,} Hz"):
        audio.read(path.read_bytes())


def test_ten_hours_of_silence_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    soundfile.write(path, tone(), 16000, "PCM_16", format="WAV")
    size = 10 * 3600 * 16000 * 2
    with path.open("r+b") as file:
        file.seek(4)
        file.write((size + 36).to_bytes(4, "little"))
        file.seek(40)
        file.write(size.to_bytes(4, "little"))
        file.truncate(size + 44)
    with pytest.raises(MediaError, match="is longer than 3,600 s"):
        audio.transcode_to_flac(path)


def test_a_sound_that_changes_its_channels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    parts = b""
    for channels in (1, 2):
        soundfile.write(path, np.repeat(tone()[:, None], channels, axis=1), 16000)
        # The first frame of each part counts the frames of the part alone.
        parts += path.read_bytes().replace(b"Xing", b"none").replace(b"Info", b"none")
    path.write_bytes(parts)
    with pytest.raises(MediaError, match="changes its number of channels"):
        audio.transcode_to_flac(path)


def test_a_wav_that_does_not_tell_its_bits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), 16000, "PCM_16")
    data = path.read_bytes()
    path.write_bytes(data[:16] + (14).to_bytes(4, "little") + data[20:34] + data[36:])
    with pytest.raises(MediaError, match="does not say how many bits a sample has"):
        audio.transcode_to_flac(path)


def test_a_sound_of_an_unknown_codec_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.webm", "libopus", tone(), 16000)
    path.write_bytes(path.read_bytes().replace(b"A_OPUS", b"A_NONE"))
    with pytest.raises(MediaError, match="holds no sound of a known codec"):
        audio.transcode_to_flac(path)


@pytest.mark.parametrize("suffix", CODECS)
def test_the_sound_track_of_a_video_is_read_with_the_same_bytes_every_time(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"clip.{suffix}"
    write_video(path, "cat", seconds=1.0)
    flac, seconds, rate = audio.transcode_to_flac(path)
    # A codec of whole packets may add a packet of silence.
    assert 1 <= seconds < 1.2
    assert audio.transcode_to_flac(path) == (flac, seconds, rate)
    spectrum = np.abs(np.fft.rfft(audio.read(flac).samples[:rate]))
    assert 350 <= np.argmax(spectrum) <= 500, "the pitch of the class, in Hz"


@pytest.mark.parametrize("suffix", CODECS)
def test_a_video_without_a_sound_track_says_so(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    write_video(path, "cat", seconds=0.5, sound=False)
    with pytest.raises(NoSoundError, match="has no sound track"):
        audio.transcode_to_flac(path)
