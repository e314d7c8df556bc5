"""Shows that decord gives the right frames by number only for some codecs and containers.

``python -m benchmarks.random_access`` encodes clips of 75 frames in many codecs and containers;
each frame shows its number. The benchmark asks decord for nine frames of each clip and prints how
far the numbers of the returned frames are from the requested numbers.
"""

import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from avsnn.pipeline.media.decord_decoder import open_with_decord
from avsnn.pipeline.media.errors import MediaError

FPS = Fraction(30000, 1001)
FRAMES = 75
CONTAINERS = {"flv": "flv", "mp4": "mp4", "mkv": "matroska", "avi": "avi", "mpg": "mpeg"}
CODECS = {"flv": (0,), "mpeg4": (0, 2), "libx264": (0, 2), "mpeg2video": (0, 2)}


def main() -> None:
    """Encode the clips, ask decord for frames, and print the errors."""
    with tempfile.TemporaryDirectory(prefix="avsnn-bench-") as folder:
        for codec, b_frames in CODECS.items():
            for b in b_frames:
                for suffix in CONTAINERS:
                    path = Path(folder) / f"{codec}-{b}.{suffix}"
                    try:
                        write(path, codec, b)
                    except (OSError, ValueError):
                        continue  # This container cannot hold this codec.
                    print(f"{codec}, {b} B-frames, .{suffix}: {off_by(path)}")


def write(path: Path, codec: str, b_frames: int) -> None:
    """Write a clip with a key frame every 12 frames."""
    with av.open(str(path), "w", format=CONTAINERS[path.suffix[1:]]) as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.gop_size, stream.max_b_frames, stream.bit_rate = 12, b_frames, 1_000_000
        for i in range(FRAMES):
            stripes = np.unpackbits(np.uint8(i)).repeat(16) * np.uint8(255)
            image = np.broadcast_to(stripes[None, :, None], (96, 128, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = i, 1 / FPS
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def off_by(path: Path) -> str:
    """Return the shown number minus the requested number, of nine frames from first to last."""
    try:
        reader = open_with_decord(path)
    except MediaError as error:
        return str(error)
    requested = [round(i * (FRAMES - 1) / 8) for i in range(9)]
    frames = reader.get_batch(requested).asnumpy()
    shown = [int(np.packbits(frame[48, 8::16, 0] > 127)[0]) for frame in frames]
    errors = [s - a for s, a in zip(shown, requested, strict=True)]
    return "exact" if not any(errors) else f"off by {errors}"


if __name__ == "__main__":
    main()
