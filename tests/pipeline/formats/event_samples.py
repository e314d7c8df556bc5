"""Events for the tests of what is written and counted: small ones, drawn ones, and real ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from avsnn.pipeline.media.events import Events, Sensor

TIME_TYPES = ("u4", "i4", "i8", "u8", "f2", "f4", "f8")


def make_events(
    t: Sequence[float],
    x: Sequence[int],
    y: Sequence[int],
    p: Sequence[int],
    sensor: tuple[int, int, int],
    dtype: str = "u4",
) -> Events:
    arrays = (np.array(addresses, "u2") for addresses in (x, y, p))
    return Events(np.array(t, dtype), *arrays, Sensor(*sensor))


@st.composite
def drawn_events(draw: st.DrawFn, *, cochlea: bool = False) -> Events:
    sensor = Sensor(1, 1, draw(st.integers(1, 800)))
    if not cochlea:
        sensor = Sensor(*draw(st.tuples(st.integers(1, 2), st.integers(2, 40), st.integers(1, 40))))
    number = draw(st.integers(0, 400))
    # A few addresses and times for many events, so that counts pass 255 and times are equal.
    few = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = np.dtype(draw(st.sampled_from(TIME_TYPES)))
    times = few.integers(0, draw(st.sampled_from([1, 3, 1000])), number)
    t = (times / 7 if dtype.kind == "f" else times).astype(dtype)
    if dtype.kind == "i":
        t -= dtype.type(draw(st.integers(0, 500)))
    spread = draw(st.floats(0, 1))
    x, y, p = (
        few.integers(0, max(1, int(size * spread)), number).astype("u2")
        for size in (sensor.width, sensor.height, sensor.polarities)
    )
    return Events(t, x, y, p, sensor)


def read_aedat(path: Path) -> Events:
    """Return the events of a recording of a DVS128, read as plainly as possible."""
    data = path.read_bytes()
    while data.startswith(b"#"):
        data = data[data.index(b"\n") + 1 :]
    address, t = np.frombuffer(data, ">u4").reshape(-1, 2).astype("u4").T
    x, y, p = (address >> 1 & 127, address >> 8 & 127, address & 1)
    return Events(t, x.astype("u1"), y.astype("u1"), p.astype("u1"), Sensor(2, 128, 128))
