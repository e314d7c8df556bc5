from io import BytesIO
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from avsnn.pipeline.formats.audio_rows import audio_image, audio_row
from avsnn.pipeline.formats.prepare_settings import AudioSettings
from avsnn.pipeline.formats.shard_columns import open_shards
from avsnn.pipeline.formats.shards import read_member
from avsnn.pipeline.media import audio
from avsnn.pipeline.media.errors import MediaError


def test_log_mel_is_the_logarithm_of_mel_power_as_librosa_computes_it(small_demo: Path) -> None:
    shard, sample = open_shards(next((small_demo / "demo" / "shards").iterdir())).sample(0)
    sound = audio.read(read_member(shard, sample.members["flac"]))
    settings = AudioSettings(kind="log-mel", n_mels=64)
    resampled = librosa.resample(sound.samples, orig_sr=sound.rate, target_sr=22050)
    power = librosa.feature.melspectrogram(
        y=resampled, sr=22050, n_fft=512, hop_length=353, n_mels=64, pad_mode="constant"
    )
    assert np.allclose(audio_image(sound, settings), audio.log_image(power, size=128), atol=1e-4)


@pytest.mark.parametrize(
    ("rate", "hop", "reason"),
    [
        (1, 353, "has a sample rate of 1 Hz"),
        (1000, 1, "lasts 60 s, so its STFT would have"),
        (1000, 353, None),
    ],
)
def test_a_sound_whose_image_would_take_too_much_work_is_refused_by_name(
    rate: int, hop: int, reason: str | None
) -> None:
    buffer = BytesIO()
    soundfile.write(buffer, np.sin(np.arange(60 * rate) / 5), rate, "PCM_16", format="WAV")
    settings = AudioSettings(hop=hop)
    if reason is None:
        assert audio_row(buffer.getvalue(), "a-clip", settings).shape == (1, 128, 128)
    else:
        with pytest.raises(MediaError, match=f"the sound of the clip a-clip {reason}"):
            audio_row(buffer.getvalue(), "a-clip", settings)
