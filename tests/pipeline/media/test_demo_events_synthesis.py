import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from avsnn.pipeline.media import demo_events_synthesis as synthesis
from avsnn.pipeline.media.event_files import list_recordings, read_recording

TABLE = Path(synthesis.__file__).parents[2] / "datasets_manifest" / "demo-events.csv"


def columns_and_rows(path: Path) -> tuple[NDArray[np.int64], ...]:
    """Columns, rows, polarities and times in us, by the published facts about AEDAT 2.0."""
    lines = path.read_bytes().split(b"\r\n")
    header = [line for line in lines if line.startswith(b"#")]
    assert lines[: len(header)] == header
    assert header[0] == b"#!AER-DAT2.0"
    data = path.read_bytes()[sum(len(line) + 2 for line in header) :]
    assert len(data) % 8 == 0
    address, t = np.frombuffer(data, ">u4").reshape(-1, 2).astype(np.int64).T
    assert not (address >> 15).any()
    return 127 - (address >> 1 & 127), 127 - (address >> 8 & 127), address & 1, t


def spikes(path: Path, part: str, key: str) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    with h5py.File(path) as file:
        return file[f"{part}_timestamps"][key][:], file[f"{part}_addresses"][key][:]


def test_the_bytes_come_from_the_key_alone(tmp_path: Path) -> None:
    for name, key in (("a", "one"), ("b", "one"), ("c", "two")):
        synthesis.write_recording(tmp_path / f"{name}.aedat", key=key, shape="ring")
        synthesis.write_sound(tmp_path / f"{name}.hdf5", key=key, contour="rising", part="train")
    for ending in ("aedat", "hdf5"):
        a, b, c = ((tmp_path / f"{name}.{ending}").read_bytes() for name in "abc")
        assert a == b
        assert a != c


def test_the_file_of_a_sound_holds_no_date(tmp_path: Path) -> None:
    def times(path: Path) -> list[int]:
        found = []
        with h5py.File(path) as file:
            file.visititems(lambda _, item: found.append(item))
            return [h5py.h5g.get_objinfo(item.id, b".").mtime for item in found]

    synthesis.write_sound(tmp_path / "a.hdf5", key="a", contour="rising", part="train")
    with h5py.File(tmp_path / "dated.hdf5", "w") as file:
        file.create_dataset("a", data=[1], track_times=True)
    assert times(tmp_path / "a.hdf5") == [0] * 8
    assert times(tmp_path / "dated.hdf5") != [0]


@pytest.mark.parametrize("shape", ["ring", "cross", "triangle"])
def test_a_recording_is_a_shape_near_the_middle_of_a_dvs128(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "a.aedat"
    for key in ("a", "b", "c"):
        synthesis.write_recording(path, key=key, shape=shape)
        x, y, p, t = columns_and_rows(path)
        assert t[0] == 0
        assert (np.diff(t) >= 0).all()
        assert 900_000 < t[-1] < 1_400_000
        assert 2_000 < len(t) < 30_000
        # Noise lies all over the camera; the shape fits into a square of 28 px.
        assert min(x.min(), y.min()) < 16
        assert max(x.max(), y.max()) > 112
        near = (abs(x - np.median(x)) <= 15) & (abs(y - np.median(y)) <= 15)
        assert near.mean() > 0.8
        # What becomes brighter becomes darker again.
        assert 0.4 < p.mean() < 0.6


@pytest.mark.parametrize(("shape", "along"), [("ring", "x"), ("cross", "y")])
def test_the_ring_swings_sideways_and_the_cross_up_and_down(
    tmp_path: Path, shape: str, along: str
) -> None:
    path = tmp_path / "a.aedat"
    for key in ("a", "b", "c"):
        synthesis.write_recording(path, key=key, shape=shape)
        x, y, _, t = columns_and_rows(path)
        near = (abs(x - np.median(x)) <= 15) & (abs(y - np.median(y)) <= 15)
        bins = t[near] // 25_000
        spread = {
            name: np.std([place[near][bins == b].mean() for b in np.unique(bins)[:-1]])
            for name, place in (("x", x), ("y", y))
        }
        assert spread[along] > 2 * min(spread.values())


def test_pixels_emit_an_event_for_each_change_by_their_threshold() -> None:
    # Log intensity of two pixels: one rises by 0.1 in each step and falls again, one stays.
    ramp = np.concatenate([np.arange(0, 10.5), np.arange(9, -1.5, -1)]) / 10
    light = np.stack([ramp, np.zeros_like(ramp)], axis=1).astype(np.float32)
    t, pixel, p = synthesis._threshold_crossings(light, np.array([0.28, 0.28], np.float32))
    assert pixel.tolist() == [0] * 6
    assert p.tolist() == [1, 1, 1, 0, 0, 0]
    np.testing.assert_allclose(t, [2800, 5600, 8400, 14400, 17200, 20000], atol=2)


def test_a_sound_has_the_layout_of_n_tidigits(tmp_path: Path) -> None:
    for part, other in (("train", "test"), ("test", "train")):
        path = tmp_path / f"{part}.hdf5"
        synthesis.write_sound(path, key="a-key", contour="falling", part=part)  # type: ignore[arg-type]
        with h5py.File(path) as file:
            assert file[f"{part}_labels"][:].tolist() == [b"a-key"]
            assert file[f"{other}_labels"].shape == (0,)
            for kind in ("addresses", "timestamps"):
                assert list(file[f"{part}_{kind}"]) == ["a-key"]
                assert list(file[f"{other}_{kind}"]) == []
        times, channels = spikes(path, part, "a-key")
        assert (np.diff(times) >= 0).all()
        assert times[0] >= 0
        assert times[-1] < 1.4
        assert channels.max() < 64
        assert 1_000 <= len(times) <= 5_000


@pytest.mark.parametrize("contour", ["rising", "falling"])
def test_the_channels_follow_the_pitch(tmp_path: Path, contour: str) -> None:
    path = tmp_path / "a.hdf5"
    for key in ("a", "b", "c", "d"):
        synthesis.write_sound(path, key=key, contour=contour, part="train")
        times, channels = spikes(path, "train", key)
        middle = times[-1] / 2
        early, late = channels[times < middle].mean(), channels[times >= middle].mean()
        assert (late - early > 2) if contour == "rising" else (early - late > 2)


def test_the_readers_of_published_files_read_both(tmp_path: Path) -> None:
    visual, audio = tmp_path / "a.aedat", tmp_path / "a.hdf5"
    synthesis.write_recording(visual, key="a", shape="cross")
    synthesis.write_sound(audio, key="a", contour="rising", part="test")
    # The reader keeps the file open with flags of its own, so h5py reads first.
    times, channels = spikes(audio, "test", "a")
    assert list_recordings(audio, "n-tidigits") == ["test/a"]
    seen = read_recording(visual, "", "aedat2")
    for ours, theirs in zip(
        columns_and_rows(visual), (seen.x, seen.y, seen.p, seen.t), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    heard = read_recording(audio, "test/a", "n-tidigits")
    np.testing.assert_array_equal(heard.t, times)
    np.testing.assert_array_equal(heard.x, channels)


def test_the_table_names_the_recordings_of_the_demo_s_clips() -> None:
    with TABLE.open() as file, TABLE.with_name("demo.csv").open() as demo:
        rows, same = list(csv.DictReader(file)), list(csv.DictReader(demo))
    names = ("key", "label", "split")
    assert [[row[n] for n in names] for row in rows] == [[row[n] for n in names] for row in same]
    for row in rows:
        part = "test" if row["split"] == "test" else "train"
        assert row["audio_path"] == f"audio/{row['key']}.hdf5/{part}/{row['key']}"
        assert row["visual_path"] == f"visual/{row['key']}.aedat"
