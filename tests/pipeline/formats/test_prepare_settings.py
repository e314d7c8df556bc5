import pytest

from avsnn.errors import UserError
from avsnn.pipeline.formats.prepare_settings import ExtractSettings, PrepareSettings
from avsnn.pipeline.settings_overrides import build_settings


@pytest.mark.parametrize(
    ("words", "part_of_message"),
    [
        (["audio.kind=log-mel"], "n_mels goes with kind=log-mel"),
        (["audio.n_mels=64"], "n_mels goes with kind=log-mel"),
        (["audio.kind=log-mel", "audio.n_mels=400"], "take fewer, or a larger n_fft"),
        (["audio.kind=mfcc"], "the value must be 'log-stft' or 'log-mel'"),
    ],
)
def test_audio_settings_that_do_not_go_together_are_refused(
    words: list[str], part_of_message: str
) -> None:
    with pytest.raises(UserError, match=part_of_message):
        build_settings(PrepareSettings, (), words)


def test_shards_of_a_large_set_grow_as_long_as_there_are_at_least_64() -> None:
    settings = ExtractSettings()
    found = {clips: settings.largest_shard(clips) for clips in (1, 16_383, 16_384, 250_000)}
    assert found == {1: 128, 16_383: 128, 16_384: 256, 250_000: 2048}
    assert settings.largest_shard(10**8) == 16_384
    assert ExtractSettings(clips_per_shard=8).largest_shard(10**6) == 8
