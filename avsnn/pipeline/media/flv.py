"""The tags of a flash video (FLV): finds a cut and damaged bytes without decoding."""

from pathlib import Path
from typing import NamedTuple

from avsnn.pipeline.media.mapped_file import map_file

# Kinds of tags: sound, picture, and script (the metadata of the file).
SOUND_TAG, PICTURE_TAG, SCRIPT_TAG = 8, 9, 18
TAG_KINDS = (SOUND_TAG, PICTURE_TAG, SCRIPT_TAG)

# Bytes of the header in front of the body of a tag, and of the tag's size behind the body.
TAG_HEADER_BYTES = 11
TAG_SIZE_BYTES = 4


class FlvTags(NamedTuple):
    """What the tags of a flash video tell.

    Attributes:
        pictures: number of picture tags up to the end of the file or to the first bytes that are
            no tag; a picture tag holds at most one frame.
        is_whole: False where the file ends within a tag.
    """

    pictures: int
    is_whole: bool


def read_flv_tags(path: Path) -> FlvTags:
    """Read the tags of a file that starts with ``FLV``."""
    with map_file(path) as data:
        tag, pictures = int.from_bytes(data[5:9]) + TAG_SIZE_BYTES, 0
        while tag + TAG_HEADER_BYTES < len(data) and data[tag] in TAG_KINDS:
            end = tag + TAG_HEADER_BYTES + int.from_bytes(data[tag + 1 : tag + 4])
            if end > len(data):
                return FlvTags(pictures, is_whole=False)
            pictures += data[tag] == PICTURE_TAG
            tag = end + TAG_SIZE_BYTES
        # The file may also end within the header of a tag.
        is_whole = not (tag < len(data) <= tag + TAG_HEADER_BYTES and data[tag] in TAG_KINDS)
    return FlvTags(pictures, is_whole)
