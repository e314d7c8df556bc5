from pathlib import Path

import librosa
import numpy as np

from avsnn.pipeline.formats.audio_rows import audio_image
from avsnn.pipeline.formats.prepare_settings import AudioSettings
from avsnn.pipeline.formats.shards import read_member, read_shards
from avsnn.pipeline.media import audio


def test_log_mel_is_the_logarithm_of_mel_power_as_librosa_computes_it(small_demo: Path) -> None:
    shard, sample = read_shards(next((small_demo / "demo" / "shards").iterdir()))[0]
    sound = audio.read(read_member(shard, sample.members["flac"]))
    settings = AudioSettings(kind="log-mel", n_mels=64)
    resampled = librosa.resample(sound.samples, orig_sr=sound.rate, target_sr=22050)
    power = librosa.feature.melspectrogram(
        y=resampled, sr=22050, n_fft=512, hop_length=353, n_mels=64, pad_mode="constant"
    )
    assert np.allclose(audio_image(sound, settings), audio.log_image(power, size=128), atol=1e-4)
