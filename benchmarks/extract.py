"""Measures how fast clips like CREMA-D's are extracted, against plain scripts in the same run.

Run ``python -m benchmarks.extract`` in the project's folder, with the ``dev`` extra installed. The
rounds of all ways are interleaved. A printed ratio is the median of the ratios of all rounds, with
the smallest and the largest in brackets, so a busy machine disturbs both sides of a ratio. ``CPU``
ratios compare the processor time of all processes instead of the time by the clock.
"""

import argparse
import logging
import tempfile
import threading
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import cv2
import psutil

from avsnn.pipeline.engine.executor import open_worker_pools
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.engine.run_stage import run_stage
from avsnn.pipeline.formats import clip_index
from avsnn.pipeline.formats.clip_index import IndexRow, SizedRow
from avsnn.pipeline.formats.membership import hash_rank
from avsnn.pipeline.formats.prepare_settings import ExtractSettings
from avsnn.pipeline.media.frames import FrameRule, spread_evenly
from avsnn.pipeline.media.video import decode_video
from avsnn.pipeline.prepare.stages.extract import Extract
from benchmarks.measuring import measure, print_machine, print_rates, print_ratio, process_tree
from tests.fake_clips import make_clip
from tests.fake_crema_d import FakeCremaD, make


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    logging.captureWarnings(True)
    with tempfile.TemporaryDirectory(prefix="avsnn-bench-") as name:
        work = Path(name)
        fake = make(work / "raw", args.clips, defects=False)
        # Reading all files here also brings the files into the page cache.
        frames = sum(decode_once_per_second(fake.folder / row["visual_path"]) for row in fake.rows)
        print_machine("av", "opencv-python-headless", "soundfile", "webdataset", "distributed")
        print(f"{args.clips} clips, {frames} frames of FLV1 480x360 with MP3, {args.rounds} rounds")
        compare_with_scripts(fake, work, frames, args.rounds)
        compare_workers(fake, work, args.rounds)
        show_memory(work, args.clips)
        compare_decoders(fake, work, args.rounds)


def compare_with_scripts(fake: FakeCremaD, work: Path, frames: int, rounds: int) -> None:
    """Compare extraction on one core with a bare decoding loop and a script that writes frames."""
    paths = [fake.folder / row["visual_path"] for row in fake.rows]
    with open_worker_pools(0) as pools:
        # The first call starts the sandbox, which the measurement leaves out.
        extract(fake, work, pools.processes())
        costs = measure(
            {
                "bare": lambda: decode_all_once_per_second(paths),
                "avsnn": lambda: extract(fake, work, pools.processes()),
                "script": lambda: decode_and_write_jpegs(paths, work),
            },
            rounds,
        )
    print_rates("OpenCV grab all, retrieve 1 fps, keep nothing", costs["bare"], frames, "frames")
    print_rates("avsnn extract, sound and shards included", costs["avsnn"], frames, "frames")
    print_rates("OpenCV read all, write 1-fps JPEGs", costs["script"], frames, "frames")
    print_ratio("extract / bare loop", costs["bare"], costs["avsnn"], ", target 0.8")
    print_ratio("extract / read-all script", costs["script"], costs["avsnn"], ", target 1.5")


def compare_workers(fake: FakeCremaD, work: Path, rounds: int) -> None:
    """Compare two workers with one, and two bare loops with one on the same machine."""
    paths = [fake.folder / row["visual_path"] for row in fake.rows]
    halves = (paths[::2], paths[1::2])
    with open_worker_pools(1) as one, open_worker_pools(2) as two, ProcessPoolExecutor(2) as bare:
        for pools in (one, two):
            extract(fake, work, pools.processes())
        costs = measure(
            {
                "one": lambda: extract(fake, work, one.processes(), clips_per_shard=16),
                "two": lambda: extract(fake, work, two.processes(), clips_per_shard=16),
                "one bare": lambda: bare.submit(decode_all_once_per_second, paths).result(),
                "two bare": lambda: list(bare.map(decode_all_once_per_second, halves)),
            },
            rounds,
        )
    print_ratio("two workers / one", costs["one"], costs["two"], ", target 1.8")
    print_ratio("two bare loops / one", costs["one bare"], costs["two bare"])


def show_memory(work: Path, clips: int) -> None:
    """Print the peak resident memory of a worker and of its sandbox, for two numbers of clips."""
    for size in (clips // 4, clips * 2):
        fake = make(work / f"raw-{size}", size, defects=False)
        with open_worker_pools(1) as pools, MemoryWatch() as watch:
            extract(fake, work, pools.processes())
        worker, sandbox = watch.peaks()
        print(f"peak memory, {size} clips: worker {worker:.0f} MB, its sandbox {sandbox:.0f} MB")


def compare_decoders(fake: FakeCremaD, work: Path, rounds: int) -> None:
    """Compare avsnn, which jumps to key frames, with OpenCV, which reads on."""
    minute = work / "minute.flv"
    minute.write_bytes(make_clip("1064_IEO_DIS_MD", seconds=60).flv)
    some = [fake.folder / row["visual_path"] for row in fake.rows[:32]]
    for name, paths in (("clips", some), ("a clip of 60 s", [minute])):
        for rule in ("1fps", 1, 4, 8, 16):
            costs = measure(
                {
                    "opencv": partial(read_on_with_opencv, paths, rule),
                    "avsnn": partial(decode, paths, rule),
                },
                rounds,
            )
            name_of_ratio = f"avsnn / OpenCV, {name}, frames: {rule}"
            print_ratio(name_of_ratio, costs["opencv"], costs["avsnn"])


# --- what is measured ----------------------------------------------------------------------------


def decode_once_per_second(path: Path) -> int:
    """Run the bare loop: decode a frame per second; return the number of all frames."""
    capture = cv2.VideoCapture(str(path))
    step = int(capture.get(cv2.CAP_PROP_FPS))
    count = 0
    while capture.grab():
        if count % step == 0:
            capture.retrieve()
        count += 1
    return count


def decode_all_once_per_second(paths: list[Path]) -> int:
    """Run the bare loop over several files."""
    return sum(map(decode_once_per_second, paths))


def decode_and_write_jpegs(paths: list[Path], work: Path) -> None:
    """Do what a simple script does: decode every frame, and write one JPEG per second."""
    folder = Path(mkdtemp(dir=work))
    for path in paths:
        capture = cv2.VideoCapture(str(path))
        step = int(capture.get(cv2.CAP_PROP_FPS))
        count = 0
        while True:
            ok, frame = capture.read()
            if not ok:
                break
            if count % step == 0:
                target = folder / f"{path.stem}.{count // step}.jpg"
                cv2.imwrite(str(target), frame, [cv2.IMWRITE_JPEG_QUALITY, 95])
            count += 1


def extract(fake: FakeCremaD, work: Path, executor: Executor, clips_per_shard: int = 128) -> None:
    """Run the whole stage in a new folder, with journal and shards."""
    folder = Path(mkdtemp(dir=work))
    write_index(fake, folder / "index")
    stage = Extract(
        folder / "shards",
        folder / "state",
        raw=fake.folder,
        index=folder / "index",
        split="published",
        visual="video",
        audio="sound",
        chosen=ExtractSettings(clips_per_shard=clips_per_shard),
    )
    summary = run_stage(stage, executor=lambda: executor, progress=NoProgress())
    if summary.written != len(fake.rows):
        raise SystemExit(f"{summary.failed} clips failed: {summary.failures[:1]}")


def write_index(fake: FakeCremaD, folder: Path) -> None:
    """Write the index as the stage index writes it, with all clips in one part."""
    rows = [
        IndexRow(
            key=row["key"],
            label=int(row["label"]),
            label_name=row["key"].split("_")[2],
            group=row["group"],
            part="train",
            splits={"published": "train"},
            audio=row["audio_path"],
            visual=row["visual_path"],
            sha256={},
        )
        for row in fake.rows
    ]
    folder.mkdir()
    rows.sort(key=lambda row: hash_rank(row.key))
    classes = sorted({row.label_name for row in rows})
    clip_index.write_index(
        folder, [SizedRow(row, 0) for row in rows], classes=classes, splits=["published"]
    )


def decode(paths: list[Path], rule: FrameRule) -> None:
    """Decode all files as avsnn does."""
    for path in paths:
        decode_video(path, rule)


def read_on_with_opencv(paths: list[Path], rule: FrameRule) -> None:
    """Decode the same frames by reading each video from the start to the last wanted frame."""
    for path in paths:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        step = int(capture.get(cv2.CAP_PROP_FPS))
        by_second = list(range(0, total, step))
        wanted = spread_evenly(total, rule) if isinstance(rule, int) else by_second
        for i in range(max(wanted) + 1):
            capture.grab()
            if i in wanted:
                capture.retrieve()


class MemoryWatch(threading.Thread):
    """Records the memory of all descendants of this process, ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._done = threading.Event()
        self._depth: dict[int, int] = {}
        self._peak: dict[int, int] = {}

    def run(self) -> None:
        """Record until the end of the ``with`` block."""
        while not self._done.wait(0.1):
            for process in process_tree()[1:]:
                with suppress(psutil.NoSuchProcess):
                    memory = process.memory_info().rss
                    self._depth[process.pid] = len(process.parents())
                    self._peak[process.pid] = max(memory, self._peak.get(process.pid, 0))

    def __enter__(self) -> "MemoryWatch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def peaks(self) -> list[float]:
        """Return the largest memory in MB of a worker, and of a process that a worker started."""
        deepest = max(self._depth.values())
        return [
            max(peak for pid, peak in self._peak.items() if self._depth[pid] == depth) / 1e6
            for depth in (deepest - 1, deepest)
        ]


if __name__ == "__main__":
    main()
