"""Measures how fast `predict` answers for small clips, against `extract` of the same clips.

Run ``GOMP_SPINCOUNT=0 python -m benchmarks.predict`` in the project's folder, with the ``dev``
extra installed; the command `predict` sets this variable for itself. Both decode the same files
with the same number of processes, and `predict` also computes the rows of the caches and the
network. The rounds take turns, so a busy machine disturbs both sides of the ratio. The processes of
`extract` run before the measurement; those of `predict` start inside.
"""

import argparse
import logging
import shutil
import tempfile
from concurrent.futures import Executor
from pathlib import Path
from tempfile import mkdtemp

import torch

from avsnn.datasets_manifest import load
from avsnn.pipeline.engine.executor import open_worker_pools
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.engine.run_stage import run_stage
from avsnn.pipeline.formats.clip_index import IndexRow, SizedRow, open_index, write_index
from avsnn.pipeline.formats.membership import hash_rank
from avsnn.pipeline.formats.prepare_settings import ExtractSettings
from avsnn.pipeline.formats.prepared_json import require_prepared
from avsnn.pipeline.prediction.predict import predict_files
from avsnn.pipeline.prepare.stages.extract import Extract
from avsnn.pipeline.runs.stored_run import StoredRun
from benchmarks.measuring import measure, print_machine, print_rates, print_ratio
from tests.warm import Warm


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    logging.captureWarnings(True)
    with tempfile.TemporaryDirectory(prefix="avsnn-bench-") as name:
        work = Path(name)
        run = prepare_and_train(work)
        rows = copy_clips(work, args.clips)
        print_machine("av", "torch", "pebble")
        print(f"{args.clips} clips of the demo, {args.workers} processes, {args.rounds} rounds")
        with open_worker_pools(args.workers) as pools:
            extract(rows, work, pools.processes())
            costs = measure(
                {
                    "extract": lambda: extract(rows, work, pools.processes()),
                    "predict": lambda: predict(run, work / "raw", args.workers, args.clips),
                },
                args.rounds,
            )
    print_rates("avsnn extract", costs["extract"], args.clips, "clips")
    print_rates("avsnn predict", costs["predict"], args.clips, "clips")
    print_ratio("predict / extract", costs["extract"], costs["predict"], ", target 0.5")


def prepare_and_train(work: Path) -> StoredRun:
    """Prepare the demo, and train the network of the README for one epoch."""
    warm = Warm()
    for words in (["prepare", "demo"], ["train", "demo", "--run", "run", "--set", "epochs=1"]):
        done = warm.run(words, work)
        if done.returncode:
            raise SystemExit(done.stderr)
    warm.close()
    return StoredRun(work / "run")


def copy_clips(work: Path, count: int) -> list[IndexRow]:
    """Copy clips of the demo under names of their own, and return a row of the index for each."""
    folder = work / "data" / "demo"
    known = list(open_index(folder / require_prepared(work / "data", "demo").index).rows())
    rows = []
    for number in range(count):
        row = known[number % len(known)]
        audio, visual = f"audio/{number:06d}.wav", f"video/{number:06d}.mp4"
        for source, target in ((row.audio, audio), (row.visual, visual)):
            path = work / "raw" / target
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / "raw" / source, path)
        changed = {"key": f"{number:06d}", "audio": audio, "visual": visual, "sha256": {}}
        part = {"part": "train", "splits": {"published": "train"}}
        rows.append(row.model_copy(update={**changed, **part}))
    return rows


def extract(rows: list[IndexRow], work: Path, executor: Executor) -> None:
    """Run the whole stage in a new folder, with journal and shards."""
    folder = Path(mkdtemp(dir=work))
    (folder / "index").mkdir()
    ordered = sorted(rows, key=lambda row: hash_rank(row.key))
    sized = [SizedRow(row, 0) for row in ordered]
    classes = load("demo").classes
    write_index(folder / "index", sized, classes=classes, splits=["published"])
    stage = Extract(
        folder / "shards",
        folder / "state",
        raw=work / "raw",
        index=folder / "index",
        split="published",
        visual="video",
        audio="sound",
        chosen=ExtractSettings(),
    )
    summary = run_stage(stage, executor=lambda: executor, progress=NoProgress())
    if summary.written != len(rows):
        raise SystemExit(f"{summary.failed} clips failed: {summary.failures[:1]}")


def predict(run: StoredRun, folder: Path, workers: int, clips: int) -> None:
    """Answer for all clips of a folder."""
    device = torch.device("cpu")
    answers = list(predict_files(run, [folder], device=device, workers=workers))
    if len(answers) != clips or any(answer.answer is None for answer in answers):
        raise SystemExit("not every clip has an answer")


if __name__ == "__main__":
    main()
