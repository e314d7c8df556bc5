"""Writes small recordings of event sensors in the layouts of the published files.

The functions share no code with avsnn, so a reader and its encoder cannot be wrong in the same way.
"""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

AEDAT_HEADER = (
    b"#!AER-DAT2.0\r\n"
    b"# This is a raw AE data file - do not edit\r\n"
    b"# Data format is int32 address, int32 timestamp (8 bytes total), repeated\r\n"
)

# Column, row, polarity and time in us of an event.
Event = tuple[int, int, int, int]

# Times in s and channels of an utterance.
Spikes = tuple[Sequence[float], Sequence[int]]


def aedat_bytes(events: Sequence[Event], header: bytes = AEDAT_HEADER) -> bytes:
    """Return an AEDAT 2.0 file of a DVS128; columns and rows are those of the picture."""
    return header + b"".join(
        struct.pack(">II", (127 - y) << 8 | (127 - x) << 1 | p, t) for x, y, p, t in events
    )


def nmnist_bytes(events: Sequence[Event]) -> bytes:
    """Return a file of N-MNIST."""
    return b"".join((x << 32 | y << 24 | p << 23 | t).to_bytes(5, "big") for x, y, p, t in events)


def write_ntidigits(
    path: Path,
    train: Mapping[str, Spikes],
    test: Mapping[str, Spikes],
    *,
    time: str = "f8",
    channel: str = "i4",
) -> None:
    """Write utterances in the layout of N-TIDIGITS18, by their keys such as ``man-ae-a-3``."""
    import h5py
    import numpy as np

    with h5py.File(path, "w") as file:
        for part, utterances in (("train", train), ("test", test)):
            file[f"{part}_labels"] = np.array([key.encode() for key in utterances], "S32")
            for kind in ("addresses", "timestamps"):
                file.create_group(f"{part}_{kind}")
            for key, (times, channels) in utterances.items():
                file[f"{part}_timestamps/{key}"] = np.array(times, time)
                file[f"{part}_addresses/{key}"] = np.array(channels, channel)


def write_shd(
    path: Path,
    spikes: Sequence[Spikes],
    labels: Sequence[int],
    speakers: Sequence[int],
    *,
    time: str = "f2",
) -> None:
    """Write utterances in the layout of the Spiking Heidelberg Digits."""
    import h5py
    import numpy as np

    with h5py.File(path, "w") as file:
        for name, dtype, column in (("times", time, 0), ("units", "u2", 1)):
            kind = h5py.vlen_dtype(np.dtype(dtype))
            data = file.create_dataset(f"spikes/{name}", (len(spikes),), kind)
            for i, utterance in enumerate(spikes):
                data[i] = np.array(utterance[column], dtype)
        file["labels"] = np.array(labels, "u2")
        file["extra/speaker"] = np.array(speakers, "u2")
        file["extra/keys"] = np.array([str(i).encode() for i in range(20)])
