"""Events: what an event camera or a silicon cochlea gives instead of frames and samples."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Sensor(NamedTuple):
    """The addresses of a sensor.

    Attributes:
        polarities: 2 for an event camera (OFF is 0, ON is 1), 1 for a cochlea.
        height: number of rows in px; 1 for a cochlea.
        width: number of columns in px; number of channels of a cochlea.
    """

    polarities: int
    height: int
    width: int


class Events(NamedTuple):
    """The events of one recording, in the order of the file.

    Attributes:
        t: time of each event ``[E]``: whole us where the file counts us, or floating-point s where
            the file holds s; in the type of the file, so nothing is rounded.
        x: column of each event, or channel of a cochlea, from 0, ``[E]``.
        y: row of each event, from 0, ``[E]``; 0 for a cochlea.
        p: polarity of each event ``[E]``: 1 for ON (brighter), 0 for OFF; 0 for a cochlea.
        sensor: the addresses of the sensor.
    """

    t: NDArray[np.integer | np.floating]
    x: NDArray[np.unsignedinteger]
    y: NDArray[np.unsignedinteger]
    p: NDArray[np.unsignedinteger]
    sensor: Sensor
