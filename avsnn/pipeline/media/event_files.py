"""Reads recordings of event sensors, from files of their own, a zip or an HDF5 file."""

from collections.abc import Callable
from pathlib import Path

from avsnn.datasets_manifest.recordings import EventFormat
from avsnn.pipeline.media import spike_hdf5, zip_members
from avsnn.pipeline.media.address_events import DVS128, NMNIST, parse_aedat, parse_nmnist
from avsnn.pipeline.media.errors import MediaError, require_content
from avsnn.pipeline.media.events import Events, Sensor

# A recording that is larger than this number of bytes is a mistake or a trap: recordings of the
# known data sets have less than a megabyte.
MAX_RECORDING_BYTES = 2**28

PARSERS: dict[EventFormat, Callable[[bytes], Events]] = {
    "aedat2": parse_aedat,
    "n-mnist": parse_nmnist,
}

# The sensor of every recording of a format.
SENSORS: dict[str, Sensor] = {
    "aedat2": DVS128,
    "n-mnist": NMNIST,
    "n-tidigits": spike_hdf5.NTIDIGITS,
    "shd": spike_hdf5.SHD,
}

# The suffixes of recordings in a zip, which may hold a page for people too.
SUFFIXES: dict[EventFormat, str] = {"aedat2": ".aedat", "n-mnist": ".bin"}


def list_recordings(file: Path, form: EventFormat) -> list[str]:
    """Return the names of the recordings in a file, in the order of the file.

    A zip gives the names of its files with the suffix of the format. N-TIDIGITS18 gives
    ``train/KEY`` and ``test/KEY``. SHD gives ``NUMBER-SPEAKER-LABEL``. A file that is a single
    recording gives one empty name.

    Raises:
        MediaError: the file is damaged, or has another layout.
        OSError: the file cannot be read.
    """
    require_content(file)
    if form == "n-tidigits":
        return spike_hdf5.list_ntidigits(file)
    if form == "shd":
        return spike_hdf5.list_shd(file)
    if file.suffix == ".zip":
        return zip_members.list_members(file, SUFFIXES[form])
    return [""]


def read_recording(file: Path, member: str, form: EventFormat) -> Events:
    """Return the events of a recording.

    Args:
        file: the file that is the recording or holds the recording.
        member: the name of the recording in the file, as `list_recordings` gives names.
        form: the format of the recording.

    Raises:
        MediaError: the recording is damaged, or is not there.
        OSError: the file cannot be read.
    """
    require_content(file)
    if form == "n-tidigits":
        return spike_hdf5.read_ntidigits(file, member)
    if form == "shd":
        return spike_hdf5.read_shd(file, member)
    if member:
        return PARSERS[form](zip_members.read_member(file, member, MAX_RECORDING_BYTES))
    if (size := file.stat().st_size) > MAX_RECORDING_BYTES:
        raise MediaError(f"has {size:,} bytes, and the limit is {MAX_RECORDING_BYTES:,}")
    return PARSERS[form](file.read_bytes())
