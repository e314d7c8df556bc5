"""The tags that a flash video is made of: what of it is there, without decoding."""

from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

SOUND, PICTURE, SCRIPT = 8, 9, 18


SORENSON, COMMAND = 2, 5


class Tags(NamedTuple):
    """What was found.

    Attributes:
        pictures: how many, if all are Sorenson's, one to a tag, and nothing but tags follows.
        is_whole: False where the file ends within a tag.
    """

    pictures: int | None
    is_whole: bool


def read_flv_tags(path: Path) -> Tags:
    """Walks the tags of a file that starts with ``FLV``."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        at = int.from_bytes(data[5:9]) + 4
        pictures, is_sorenson = 0, True
        while at + 11 < len(data) and data[at] in (SOUND, PICTURE, SCRIPT):
            body, size = at + 11, int.from_bytes(data[at + 1 : at + 4])
            if body + size > len(data):
                return Tags(None, is_whole=False)
            if data[at] == PICTURE and size:
                is_sorenson &= data[body] & 15 == SORENSON
                pictures += data[body] >> 4 != COMMAND
            at = body + size + 4
        is_clear = is_sorenson and at >= len(data)
    return Tags(pictures if is_clear else None, is_whole=True)
