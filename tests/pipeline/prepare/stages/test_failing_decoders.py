"""What a decoder raises is a failure of the clip; what the disk raises is an error of the unit."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from avsnn.errors import RunError
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.engine.run_stage import run_stage
from avsnn.pipeline.formats.clip_index import open_index
from avsnn.pipeline.formats.prepare_settings import ExtractSettings
from avsnn.pipeline.media import audio, video
from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.prepare.stages import extract


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with the sound ``a.wav`` and the file ``a.mp4``, which no test decodes."""
    tone = np.sin(np.arange(16000) / 5)
    soundfile.write(tmp_path / "a.wav", tone, 16000)
    (tmp_path / "a.mp4").write_bytes(b"any")
    return tmp_path


ERRORS = [
    (ValueError("negative dimensions"), "ValueError: negative dimensions"),
    (MemoryError(), "MemoryError"),
    (SystemError("returned NULL\nwithout an error"), "SystemError: returned NULL without an error"),
    (cv2.error("(-215) pixels <= limit"), r"error: \(-215\) pixels <= limit"),
]


@pytest.mark.parametrize(("error", "reason"), ERRORS)
@pytest.mark.parametrize(
    ("module", "function", "file"),
    [(audio, "transcode_to_flac", "audio a.wav"), (video, "decode_video", "video a.mp4")],
)
def test_every_error_of_a_decoder_names_the_file_and_the_reason(
    raw: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    function: str,
    file: str,
    error: Exception,
    reason: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, function, fail)
    with pytest.raises(MediaError, match=f"^{file} cannot be decoded: {reason}"):
        extract._read_clip(raw, "a.wav", "a.mp4", ("video", "sound"), ExtractSettings())


def test_an_error_of_the_disk_is_no_failure_of_the_clip(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(video, "read_packets", fail)
    with pytest.raises(OSError, match="Input/output error"):
        extract._read_clip(raw, "a.wav", "a.mp4", ("video", "sound"), ExtractSettings())


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_an_image_that_claims_too_many_pixels_is_a_failure_of_the_clip(
    raw: Path, suffix: str
) -> None:
    data = bytearray(cv2.imencode(suffix, np.zeros((48, 64, 3), np.uint8))[1].tobytes())
    if suffix == ".png":
        data[16:24] = (60_000).to_bytes(4) * 2
    else:
        start = data.index(b"\xff\xc0") + 5
        data[start : start + 4] = (60_000).to_bytes(2) * 2
    (raw / "a").write_bytes(data)
    reason = "^image a declares 60,000 x 60,000 px, and the limit is 100 megapixels$"
    with pytest.raises(MediaError, match=reason):
        extract._read_clip(raw, "a.wav", "a", ("image", "sound"), ExtractSettings())


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that gives EIO")
def test_a_unit_whose_file_cannot_be_read_stays_undone_and_the_next_run_does_it(
    small_demo: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_demo / "demo" / "raw", tmp_path / "raw")
    (index,) = (small_demo / "demo" / "index").iterdir()
    stage = extract.Extract(
        folder=tmp_path / "shards",
        state=tmp_path / "state",
        raw=tmp_path / "raw",
        index=index,
        split="published",
        visual="video",
        audio="sound",
        chosen=ExtractSettings(clips_per_shard=36),
    )
    sound = tmp_path / "raw" / open_index(index).row(0).audio
    data = sound.read_bytes()
    sound.unlink()
    sound.symlink_to("/proc/self/mem")
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(RunError, match=r"1 of \d units .*Input/output error.*run the same"):
            run_stage(stage, executor=lambda: pool, progress=NoProgress())
        sound.unlink()
        sound.write_bytes(data)
        summary = run_stage(stage, executor=lambda: pool, progress=NoProgress())
    assert summary.units_done_now == 1
    assert summary.written == 72
