import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zarr

from tests.pipeline.conftest import cache_paths


@pytest.mark.parametrize("name", ["frames", "audio", "label", "key", "rows"])
def test_zarr_reports_a_flipped_bit_in_any_array_of_the_cache(
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


PLAIN_READER = """
import sys
sys.modules["avsnn"] = None  # any import of avsnn fails
import webdataset, zarr
frames, audio, shard = sys.argv[1:]
group, sounds = zarr.open_group(frames, mode="r"), zarr.open_group(audio, mode="r")
n = group["key"].size
assert group["rows"].shape == sounds["rows"].shape == (n, 2)
assert group["frames"].shape[1:] == (3, 96, 96) and sounds["audio"].shape[1:] == (1, 128, 128)
for first, count in group["rows"]:
    assert group["frames"][first : first + count].any(axis=(1, 2, 3)).all()
for first, count in sounds["rows"]:
    assert count == 1 and sounds["audio"][first].any()
for array in (group["frames"], sounds["audio"]):
    assert array.metadata.zarr_format == 3
    assert array.shards is not None and array.chunks != array.shards
    assert "crc32c" in str(array.metadata.codecs).lower()
assert set(next(iter(webdataset.WebDataset([shard], shardshuffle=False)))) >= {"0.jpg", "flac"}
print(n)
"""


def test_a_process_without_avsnn_can_read_caches_and_shards(small_demo: Path) -> None:
    shard = next((small_demo / "demo" / "shards").glob("*/*.tar"))
    words = [sys.executable, "-c", PLAIN_READER, *cache_paths(small_demo), shard]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "72"
