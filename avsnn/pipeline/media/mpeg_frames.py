"""The frames of MP3 and raw AAC (ADTS) files: finds a cut without decoding.

Such files have no header of their own, but every frame tells its length. A file that ends within a
frame is cut. A file that was cut between two frames cannot be told from a whole file, unless the
first frame of an MP3 tells the number of frames.
"""

from collections.abc import Callable
from pathlib import Path

from avsnn.pipeline.media.errors import MediaError

# Bit rates in kbit/s by number: MPEG-1 layers I, II and III; MPEG-2 layer I; MPEG-2 layers II, III.
RATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES[2, 3] = RATES[2, 2]

# Sample rates in Hz by number, of MPEG-1. MPEG-2 has half of a rate, MPEG-2.5 a quarter.
SAMPLE_RATES = (44100, 48000, 32000)

# Bytes of the header of an ADTS frame.
HEADER_BYTES = 7

# The words by which the first frame of an MP3 tells the number of frames.
COUNTS = (b"Xing", b"Info", b"VBRI")

# Returns how long the frame is that starts at a place, in bytes; 0 where no frame starts.
FrameLength = Callable[[bytes, int], int]


def require_last_frame(path: Path, start: bytes) -> None:
    """Refuse an MP3 or ADTS file that ends within a frame; other files pass.

    Args:
        path: the file.
        start: the first bytes of the file.

    Raises:
        MediaError: the last frame is cut.
    """
    if not start.startswith(b"ID3") and not (start[0] == 0xFF and start[1:2] >= b"\xe0"):
        return
    data = path.read_bytes()
    at = end_of_tags(data)
    length_at = next((f for f in (_adts_length, _mpeg_length) if _is_followed(f, data, at)), None)
    if length_at is None:
        return
    while at < len(data):
        length = length_at(data, at)
        if at + length > len(data):
            raise MediaError(f"is truncated: {len(data)} of the {at + length} bytes of its frames")
        # Behind the last frame, and sometimes between frames, stand tags and filling.
        at = at + length if length else _find_frame(length_at, data, at + 1)


def is_mp3_without_count(path: Path) -> bool:
    """Return whether the file is an MP3 whose first frame does not tell the number of frames.

    libsndfile guesses the number of such a file from the bit rate of the first frame.
    """
    with path.open("rb") as file:
        start = file.read(10)
        file.seek(end_of_tags(start) if start.startswith(b"ID3") else 0)
        frame = file.read(1024)
    # Some programs put a tag of MP3 in front of FLAC.
    is_tagged = start.startswith(b"ID3") and not frame.startswith(b"fLaC")
    is_mp3 = is_tagged or (frame[:1] == b"\xff" and frame[1:2] >= b"\xe0")
    return is_mp3 and not any(word in frame for word in COUNTS)


def end_of_tags(data: bytes) -> int:
    """Return where the sound starts: behind the ID3 tags at the start of the file."""
    at = 0
    while data[at : at + 3] == b"ID3":
        # The size of the tag is four bytes of seven bits each.
        first, second, third, fourth = data[at + 6 : at + 10].ljust(4, b"\0")
        at += 10 + (first << 21 | second << 14 | third << 7 | fourth)
    return at


def _find_frame(length_at: FrameLength, data: bytes, at: int) -> int:
    """Return where the next two frames start, or the end of the data."""
    while (at := data.find(b"\xff", at)) >= 0:
        if _is_followed(length_at, data, at):
            return at
        at += 1
    return len(data)


def _is_followed(length_at: FrameLength, data: bytes, at: int) -> bool:
    """Return whether a frame starts at a place, and another frame behind the frame.

    Four bytes may look like the header of a frame by chance; two frames in a row do not.
    """
    length = length_at(data, at)
    return length > 0 and length_at(data, at + length) > 0


def _adts_length(data: bytes, at: int) -> int:
    header = data[at : at + HEADER_BYTES]
    if len(header) < HEADER_BYTES or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return 0
    length = int.from_bytes(header[3:6]) >> 5 & 0x1FFF
    return length if length >= HEADER_BYTES else 0


def _mpeg_length(data: bytes, at: int) -> int:
    """Return the length of a frame of MPEG audio, layer I, II or III (MP3)."""
    header = data[at : at + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    rate, sample_rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    # A rate of number 0 is free: only the distance to the next frame tells the length.
    if version == 1 or layer == 4 or rate in (0, 15) or sample_rate == 3:
        return 0
    bits = 1000 * RATES[1 if version == 3 else 2, layer][rate - 1]
    samples_per_s = SAMPLE_RATES[sample_rate] >> {3: 0, 2: 1, 0: 2}[version]
    if layer == 1:
        return (12 * bits // samples_per_s + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // samples_per_s + padding
