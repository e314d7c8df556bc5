"""Encodes event recordings for tests, one event at a time and without any code of avsnn."""

import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

Numbers = Sequence[int] | np.ndarray[Any, Any]

# Two of the lines that a camera writes, with the line ends of a camera.
AEDAT_HEADER = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"


def aedat_bytes(t: Numbers, x: Numbers, y: Numbers, p: Numbers) -> bytes:
    """Return an AEDAT 2.0 file of a DVS128.

    Args:
        t: times in us.
        x: columns of the picture from the left, 0 to 127; the camera counts from the right.
        y: rows of the picture from the top, 0 to 127; the camera counts from the bottom.
        p: polarities, 1 for ON.
    """
    records = (
        struct.pack(">II", (127 - int(row)) << 8 | (127 - int(column)) << 1 | int(on), int(time))
        for time, column, row, on in zip(t, x, y, p, strict=True)
    )
    return AEDAT_HEADER + b"".join(records)


def nmnist_bytes(t: Numbers, x: Numbers, y: Numbers, p: Numbers) -> bytes:
    """Return a file of N-MNIST; times are in us, below 2 ** 23."""
    return b"".join(
        (int(column) << 32 | int(row) << 24 | int(on) << 23 | int(time)).to_bytes(5, "big")
        for time, column, row, on in zip(t, x, y, p, strict=True)
    )


def write_ntidigits(path: Path, parts: Mapping[str, Mapping[str, tuple[Any, Any]]]) -> None:
    """Write a file in the layout of N-TIDIGITS18.

    Args:
        path: where the file goes.
        parts: for ``train`` and ``test``, the times in s and the channels of each key.
    """
    with h5py.File(path, "w") as file:
        for part in ("train", "test"):
            utterances = parts.get(part, {})
            file[f"{part}_labels"] = np.array([key.encode() for key in utterances], dtype="S32")
            times = file.create_group(f"{part}_timestamps")
            channels = file.create_group(f"{part}_addresses")
            for key, (seconds, addresses) in utterances.items():
                times[key], channels[key] = np.asarray(seconds), np.asarray(addresses)


class Utterance(NamedTuple):
    """An utterance of SHD: times in s, channels from 0 to 699, label from 0 to 19, speaker."""

    times: Any
    units: Any
    label: int
    speaker: int


def write_shd(path: Path, utterances: Sequence[Utterance]) -> None:
    """Write a file in the layout of SHD: one row of another length for each utterance."""
    with h5py.File(path, "w") as file:
        for name, kind, rows in (
            ("spikes/times", np.float16, [utterance.times for utterance in utterances]),
            ("spikes/units", np.uint16, [utterance.units for utterance in utterances]),
        ):
            array = file.create_dataset(name, (len(rows),), h5py.vlen_dtype(kind))
            for i, row in enumerate(rows):
                array[i] = np.asarray(row, kind)
        file["labels"] = np.array([u.label for u in utterances], np.uint8)
        file["extra/speaker"] = np.array([u.speaker for u in utterances], np.uint8)
        file["extra/keys"] = np.array([f"digit-{i}".encode() for i in range(20)], "S21")
        file["extra/meta_info/gender"] = np.array([b"male"] * 12, "S6")


def write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    """Write a zip with compressed members, in the order of the mapping."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
