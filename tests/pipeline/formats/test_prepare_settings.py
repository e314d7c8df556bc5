import pytest

from avsnn.errors import UserError
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
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
