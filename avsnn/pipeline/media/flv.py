"""The tags of a flash video (FLV): counts frames and finds a cut without decoding."""

from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

# Kinds of tags: sound, picture, and script (the metadata of the file).
SOUND_TAG, PICTURE_TAG, SCRIPT_TAG = 8, 9, 18
TAG_KINDS = (SOUND_TAG, PICTURE_TAG, SCRIPT_TAG)

# Bytes of the header in front of the body of a tag, and of the tag's size behind the body.
TAG_HEADER_BYTES = 11
TAG_SIZE_BYTES = 4

# Codec number of Sorenson H.263 in the low half of the first byte of a picture tag.
SORENSON = 2

# Frame type in the high half of that byte: the tag holds a command to the player, not a frame.
COMMAND = 5


class FlvTags(NamedTuple):
    """What the tags of a flash video tell.

    Attributes:
        frame_count: number of frames. None where the tags do not tell the number for certain: a
            frame has another codec than Sorenson, whose frames fill one tag each, or something else
            than tags follows.
        is_whole: False where the file ends within a tag.
    """

    frame_count: int | None
    is_whole: bool


def read_flv_tags(path: Path) -> FlvTags:
    """Read the tags of a file that starts with ``FLV``."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        tag = int.from_bytes(data[5:9]) + TAG_SIZE_BYTES
        frame_count, is_sorenson = 0, True
        while tag + TAG_HEADER_BYTES < len(data) and data[tag] in TAG_KINDS:
            body, size = tag + TAG_HEADER_BYTES, int.from_bytes(data[tag + 1 : tag + 4])
            if body + size > len(data):
                return FlvTags(None, is_whole=False)
            if data[tag] == PICTURE_TAG and size:
                is_sorenson &= data[body] & 15 == SORENSON
                frame_count += data[body] >> 4 != COMMAND
            tag = body + size + TAG_SIZE_BYTES
        is_certain = is_sorenson and tag >= len(data)
    return FlvTags(frame_count if is_certain else None, is_whole=True)
