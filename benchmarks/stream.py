"""Measures how fast samples of CREMA-D's size are read, against webdataset and loose files.

Run ``python -m benchmarks.stream`` in the project's folder, with the ``dev`` extra installed. The
clips are made up (``tests/fake_crema_d.py``) and prepared by ``avsnn prepare``. All ways give
batches of the same content: one augmented 128x128 frame and one log-STFT image for each clip. One
process with one thread computes the batches.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import librosa
import numpy as np
import torch
import webdataset
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from avsnn.models.losses import LossSettings, training_loss
from avsnn.models.zoo import ModelSettings, build
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.formats.prepared_json import Prepared, load_prepared
from avsnn.pipeline.inference.inputs import network_inputs
from avsnn.pipeline.loading.augment import MEAN, STD
from avsnn.pipeline.loading.batch import read_batch
from avsnn.pipeline.loading.cache_source import CacheSource
from avsnn.pipeline.loading.loader import Loader
from avsnn.pipeline.loading.order import training_requests
from avsnn.pipeline.loading.shard_source import ShardSource
from avsnn.pipeline.loading.source import Source
from avsnn.pipeline.runs.train_settings import TrainSettings
from benchmarks.measuring import measure, print_machine, print_rates, print_ratio
from tests.fake_crema_d import FakeCremaD, make

BATCH = 64
SIZE = 128
SETTINGS = TrainSettings()
CPU = torch.device("cpu")
NAME = "fake-crema-d"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="avsnn-bench-") as name:
        work = Path(name)
        fake, prepared = prepare(work, args.clips)
        loose = write_loose(fake, work / "loose")
        print_machine("torch", "webdataset", "zarr", "librosa", "opencv-python-headless", "pillow")
        count = args.clips // BATCH * BATCH
        print(f"{args.clips} clips, batches of {BATCH}, {args.rounds} rounds, one thread")
        compare(work, prepared, loose, count, args.rounds)
        compare_starts(work, prepared, args.rounds)
        compare_mixing(work, prepared)
        show_waiting(work, prepared)


def compare(work: Path, prepared: Prepared, loose: list[Path], count: int, rounds: int) -> None:
    """Compare all ways to read the same batches."""
    cache, shards = open_cache(work, prepared), open_shards(work, prepared)
    costs = measure(
        {
            "cache": lambda: read_epoch(cache),
            "shards": lambda: read_epoch(shards),
            "plain": lambda: plain_webdataset(work, prepared, count, every_image=True),
            "picking": lambda: plain_webdataset(work, prepared, count, every_image=False),
            "loose": lambda: read_loose_files(loose, count),
        },
        rounds,
    )
    print_rates("avsnn, from the Zarr cache", costs["cache"], count, "samples")
    print_rates("avsnn, from the shards", costs["shards"], count, "samples")
    print_rates("(a) webdataset, .shuffle().decode()", costs["plain"], count, "samples")
    print_rates("(a') webdataset, decoding one frame", costs["picking"], count, "samples")
    print_rates("(b) JPEG and WAV files, STFT on the fly", costs["loose"], count, "samples")
    for source in ("cache", "shards"):
        print_ratio(f"{source} / (a)", costs["plain"], costs[source], ", target 2")
        print_ratio(f"{source} / (a')", costs["picking"], costs[source])
        print_ratio(f"{source} / (b)", costs["loose"], costs[source], ", target 10")


def compare_starts(work: Path, prepared: Prepared, rounds: int) -> None:
    """Compare the seconds to the first batch, from the start of an epoch and from near its end."""
    rows = np.arange(prepared.clips)
    last = prepared.clips // BATCH - 1

    def first_batch(step: int) -> None:
        opener = partial(open_cache, work, prepared)
        with Loader(opener, SETTINGS, workers=0, device=CPU) as loader:
            batches = loader.read(
                training_requests(rows, batch_size=BATCH, seed=0, epoch=0, first_step=step)
            )
            next(batches)
            batches.close()  # type: ignore[attr-defined]

    costs = measure({"cold": lambda: first_batch(0), "resumed": lambda: first_batch(last)}, rounds)
    print_ratio(
        "first batch, resumed / cold start", costs["resumed"], costs["cold"], ", target 1.2"
    )


def compare_mixing(work: Path, prepared: Prepared) -> None:
    """Print the number of different shards in a batch."""
    shards = open_shards(work, prepared)
    shard_of_row = shards._found.places["shard"].tolist()
    rows = np.arange(prepared.clips)
    drawn = list(training_requests(rows, batch_size=BATCH, seed=0, epoch=0))
    avsnn = np.mean([len({shard_of_row[row] for row in request.rows}) for request in drawn])
    rng = np.random.default_rng(1)
    ideal = np.mean(
        [len({shard_of_row[row] for row in rng.permutation(rows)[:BATCH]}) for _ in range(200)]
    )
    urls = shard_paths(work, prepared)
    stream = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=0).shuffle(100)
    shard_of_sample = [sample["__url__"] for sample in stream]
    starts = range(0, len(shard_of_sample) - BATCH + 1, BATCH)
    blocks = [shard_of_sample[i : i + BATCH] for i in starts]
    plain = np.mean([len(set(block)) for block in blocks])
    print(
        f"different shards in a batch of {BATCH}, {len(urls)} shards: avsnn {avsnn:.1f}, a random "
        f"permutation {ideal:.1f}, webdataset with a buffer of 100 {plain:.1f}"
    )


def show_waiting(work: Path, prepared: Prepared) -> None:
    """Print the share of a training step (published size) that is spent waiting for the batch."""
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    model = build(ModelSettings(), classes=6)
    optimizer = torch.optim.AdamW(model.parameters())
    for kind, opener in (("cache", open_cache), ("shards", open_shards)):
        with Loader(partial(opener, work, prepared), SETTINGS, workers=0, device=CPU) as loader:
            rows = np.arange(prepared.clips)
            batches = loader.read(training_requests(rows, batch_size=8, seed=0, epoch=0))
            waited = worked = 0.0
            for step in range(8):
                began = time.perf_counter()
                batch = next(batches)
                received = time.perf_counter()
                output = model(*network_inputs(batch, SETTINGS))
                optimizer.zero_grad()
                training_loss(output, batch.labels, LossSettings()).total.backward()
                optimizer.step()
                # The first step warms up.
                waited += (received - began) if step else 0
                worked += (time.perf_counter() - began) if step else 0
            batches.close()  # type: ignore[attr-defined]
        print(
            f"training, C = 256, B = 8, {kind}: {7 * 8 / worked:.1f} samples/s, "
            f"{waited / worked:.2%} of it waiting for data, target 2 %"
        )


# --- avsnn ---------------------------------------------------------------------------------------


def open_cache(work: Path, prepared: Prepared) -> Source:
    """Open the caches."""
    folder = work / "data" / NAME
    return CacheSource(frames=folder / prepared.frames, audio=folder / prepared.audio)


def open_shards(work: Path, prepared: Prepared) -> ShardSource:
    """Open the shards."""
    folder = work / "data" / NAME
    return ShardSource(shards=folder / prepared.shards, settings=PrepareSettings())


def read_epoch(source: Source) -> None:
    """Read and augment one epoch."""
    rows = np.arange(len(source.keys))
    for request in training_requests(rows, batch_size=BATCH, seed=0, epoch=0):
        network_inputs(read_batch(source, request, SETTINGS), SETTINGS)


# --- other ways ----------------------------------------------------------------------------------


def shard_paths(work: Path, prepared: Prepared) -> list[str]:
    """Return the paths of the tar files."""
    return sorted(map(str, (work / "data" / NAME / prepared.shards).glob("*.tar")))


def plain_webdataset(work: Path, prepared: Prepared, count: int, *, every_image: bool) -> None:
    """Read an epoch with a shuffle buffer, as the documentation of webdataset shows."""
    urls = shard_paths(work, prepared)
    stream: Any = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=0).shuffle(100)
    if every_image:
        stream = stream.decode("pil", handler=webdataset.reraise_exception)
    batches = stream.map(_sample).batched(BATCH, partial=False)
    samples = sum(len(batch[2]) for batch in batches)
    if samples != count:
        raise SystemExit(f"webdataset gave {samples} samples, not {count}")


def _sample(sample: dict[str, Any]) -> tuple[Tensor, Tensor, int]:
    images = [name for name in sample if name.endswith(".jpg")]
    image = sample[random.choice(images)]
    if isinstance(image, bytes):
        image = Image.open(BytesIO(image)).convert("RGB")
    return random_view(image), published_image(BytesIO(sample["flac"])), 0


def write_loose(fake: FakeCremaD, folder: Path) -> list[Path]:
    """Write files as the authors' preprocessing does: frames as JPEG, sound as WAV.

    Returns:
        the path of each clip without the suffix of a file.
    """
    folder.mkdir()
    stems = []
    for row in fake.rows:
        capture = cv2.VideoCapture(str(fake.folder / row["visual_path"]))
        capture.grab()
        stem = folder / row["key"]
        cv2.imwrite(f"{stem}.jpg", capture.retrieve()[1])
        Path(f"{stem}.wav").write_bytes((fake.folder / row["audio_path"]).read_bytes())
        stems.append(stem)
    return stems


class LooseFiles(Dataset[tuple[Tensor, Tensor, int]]):
    """Clips that are opened, decoded and transformed one by one, with the published constants."""

    def __init__(self, stems: list[Path]) -> None:
        self.stems = stems

    def __len__(self) -> int:
        return len(self.stems)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        stem = self.stems[index]
        sound = published_image(Path(f"{stem}.wav"))
        return random_view(Image.open(f"{stem}.jpg").convert("RGB")), sound, 0


def read_loose_files(stems: list[Path], count: int) -> None:
    """Read an epoch of loose files in this process."""
    loader = DataLoader(LooseFiles(stems), batch_size=BATCH, shuffle=True, drop_last=True)
    samples = sum(len(batch[2]) for batch in loader)
    if samples != count:
        raise SystemExit(f"the loader gave {samples} samples, not {count}")


def published_image(sound: Path | BytesIO) -> Tensor:
    """Return the log-STFT image of a sound file, by librosa, with the published constants."""
    samples, _ = librosa.load(sound, sr=22050)
    spectrum = np.abs(librosa.stft(np.clip(samples, -1, 1), n_fft=512, hop_length=353))
    image = torch.from_numpy(np.log(spectrum + 1e-7))[None, None]
    return interpolate(image, size=(SIZE, SIZE), mode="bilinear", antialias=True)[0]


def random_view(image: Image.Image) -> Tensor:
    """Return a random crop, flipped at random and normalised, as torchvision computes the crop."""
    width, height = image.size
    area, ratio = random.uniform(0.08, 1) * width * height, random.uniform(3 / 4, 4 / 3)
    wide = min(width, round((area * ratio) ** 0.5))
    high = min(height, round((area / ratio) ** 0.5))
    left, top = random.randint(0, width - wide), random.randint(0, height - high)
    box = (left, top, left + wide, top + high)
    view = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
    if random.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = torch.from_numpy(np.array(view)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def prepare(work: Path, clips: int) -> tuple[FakeCremaD, Prepared]:
    """Make up a data set and prepare the data set with the command."""
    fake = make(work / "source", clips, defects=False)
    datasets = work / "datasets"
    datasets.mkdir()
    fake.write_manifest(datasets, sources=[{"prefix": "", "url": "https://localhost/"}])
    os.environ[USER_FOLDER_VARIABLE] = str(datasets)
    command = [sys.executable, "-m", "avsnn", "prepare", NAME, "--root", str(work / "data")]
    command += ["--source", str(fake.folder), "--set", "extract.clips_per_shard=32"]
    subprocess.run(command, check=True, capture_output=True)
    prepared = load_prepared(work / "data", NAME)
    if prepared is None:
        raise SystemExit("nothing was prepared")
    return fake, prepared


if __name__ == "__main__":
    main()
