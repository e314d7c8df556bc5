import shutil
import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from avsnn.errors import UserError
from avsnn.pipeline.formats.audio_rows import audio_image
from avsnn.pipeline.formats.prepare_settings import AudioSettings, FrameSettings, PrepareSettings
from avsnn.pipeline.formats.prepared import load_prepared
from avsnn.pipeline.formats.shards import Sample, read_member, read_shards
from avsnn.pipeline.media import audio
from avsnn.pipeline.media.image import decode_image
from avsnn.pipeline.prepare.build import build_stages
from avsnn.pipeline.prepare.prepare import plan_stages
from avsnn.pipeline.prepare.request import PrepareRequest
from avsnn.pipeline.prepare.stages.featurize import FrameCache
from avsnn.pipeline.settings_builder import build_settings


def cache_paths(root: Path) -> tuple[Path, Path]:
    prepared = load_prepared(root, "demo")
    assert prepared is not None
    return root / "demo" / prepared.frames, root / "demo" / prepared.audio


def test_plain_zarr_reads_the_clips_that_the_shards_hold(small_demo: Path) -> None:
    frames, sounds = (zarr.open_group(path, mode="r") for path in cache_paths(small_demo))
    found = read_shards(next((small_demo / "demo" / "shards").iterdir()))
    keys = [sample.key for _, sample in found]
    assert list(frames["key"][:]) == list(sounds["key"][:]) == keys
    assert list(frames["label"][:]) == [sample.label for _, sample in found]
    offsets = frames["offsets"][:]
    assert list(np.diff(offsets)) == [sample.frames for _, sample in found]
    for row in (0, len(found) // 2, len(found) - 1):
        shard, sample = found[row]
        last = sample.frames - 1
        pixels = decode_image(read_member(shard, sample.members[f"{last}.jpg"]))
        assert np.array_equal(frames["frames"][offsets[row + 1] - 1], pixels.transpose(2, 0, 1))
        sound = audio.read(read_member(shard, sample.members["flac"]))
        image = audio_image(sound, AudioSettings())
        assert np.array_equal(sounds["audio"][row], image)


@pytest.mark.parametrize("name", ["frames", "audio", "label", "key", "offsets"])
def test_a_flipped_bit_anywhere_in_the_cache_is_an_error_not_a_value(
    small_demo: Path, tmp_path: Path, name: str
) -> None:
    source = cache_paths(small_demo)[name == "audio"]
    shutil.copytree(source, tmp_path / "cache.zarr")
    chunk = max((tmp_path / "cache.zarr" / name / "c").rglob("0"), key=lambda p: len(p.parts))
    data = bytearray(chunk.read_bytes())
    data[len(data) // 3] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(ValueError, match=r"(?i)checksum|crc"):
        zarr.open_group(tmp_path / "cache.zarr", mode="r")[name][:]


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ("audio.hop=200", {"audio"}),
        ("audio.kind=log-mel audio.n_mels=64", {"audio"}),
        ("frames.shorter_side=48", {"frames"}),
        ("extract.jpeg_quality=80", {"extract"}),
    ],
)
def test_a_setting_makes_only_what_depends_on_it_stale(
    small_demo: Path, change: str, stale: set[str]
) -> None:
    words = ["extract.clips_per_shard=8", "limit=72", *change.split()]
    stages = build_stages(
        "demo", PrepareRequest(settings=build_settings(PrepareSettings, (), words)), root=small_demo
    )
    planned = plan_stages(stages)
    assert {stage.name for stage, plan in planned if plan.todo} == stale


sizes = st.tuples(st.integers(16, 400), st.integers(16, 400))


@settings(deadline=None)
@given(st.lists(sizes, min_size=1, max_size=4), st.integers(16, 300))
def test_frames_of_any_sizes_fit_one_array(
    shapes: list[tuple[int, int]], shorter_side: int
) -> None:
    stage = FrameCache(Path("x"), Path("x"), Path("x"), FrameSettings(shorter_side=shorter_side))
    samples = [
        Sample.model_construct(height=height, width=width, frames=1, members={"0.png": (0, 0)})
        for height, width in shapes
    ]
    shape = stage.row_shape(samples)
    assert min(shape[1:]) == min(shorter_side, *(min(size) for size in shapes))
    if len(set(shapes)) == 1:
        height, width = shapes[0]
        assert abs(shape[2] / shape[1] - width / height) <= width / height / min(shape[1:])
    else:
        assert shape[1] == shape[2]


def test_log_mel_is_the_logarithm_of_mel_power_as_librosa_computes_it(small_demo: Path) -> None:
    shard, sample = read_shards(next((small_demo / "demo" / "shards").iterdir()))[0]
    sound = audio.read(read_member(shard, sample.members["flac"]))
    chosen = AudioSettings(kind="log-mel", n_mels=64)
    resampled = librosa.resample(sound.samples, orig_sr=sound.rate, target_sr=22050)
    power = librosa.feature.melspectrogram(
        y=resampled, sr=22050, n_fft=512, hop_length=353, n_mels=64, pad_mode="constant"
    )
    assert np.allclose(audio_image(sound, chosen), audio.log_image(power, size=128), atol=1e-4)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["audio.kind=log-mel"], "n_mels goes with kind=log-mel"),
        (["audio.n_mels=64"], "n_mels goes with kind=log-mel"),
        (["audio.kind=log-mel", "audio.n_mels=400"], "take fewer, or a larger n_fft"),
        (["audio.kind=mfcc"], "Input should be 'log-stft' or 'log-mel'"),
    ],
)
def test_audio_settings_that_do_not_go_together_are_refused(words: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        build_settings(PrepareSettings, (), words)


PLAIN_READER = """
import sys
sys.modules["avsnn"] = None  # any import of it fails
import webdataset, zarr
frames, audio, shard = sys.argv[1:]
group, sounds = zarr.open_group(frames, mode="r"), zarr.open_group(audio, mode="r")
n = group["key"].size
assert group["frames"].shape == (group["offsets"][n], 3, 96, 96), group["frames"].shape
assert sounds["audio"].shape == (n, 1, 128, 128)
for array in (group["frames"], sounds["audio"]):
    assert array.metadata.zarr_format == 3
    assert array.shards is not None and array.chunks != array.shards
    assert "crc32c" in str(array.metadata.codecs).lower()
    assert array[0].any() and array[-1].any()
assert set(next(iter(webdataset.WebDataset([shard], shardshuffle=False)))) >= {"0.jpg", "flac"}
print(n)
"""


def test_caches_and_shards_are_read_by_a_process_that_has_no_avsnn(small_demo: Path) -> None:
    shard = next((small_demo / "demo" / "shards").glob("*/*.tar"))
    words = [sys.executable, "-c", PLAIN_READER, *cache_paths(small_demo), shard]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "72"
