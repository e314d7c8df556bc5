"""How fast samples of CREMA-D's size come, against plain webdataset and against loose files.

``python -m benchmarks.stream`` in the project's folder, with the ``dev`` extra installed. Clips are
made up (``tests/fake_crema_d.py``) and prepared by ``avsnn prepare``. Every rival gives the same
thing: batches of one augmented 128x128 frame and one log-STFT image for each clip, computed by one
process with one thread.
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
from avsnn.pipeline.formats.prepare_settings import AudioSettings, FrameSettings
from avsnn.pipeline.formats.prepared import Prepared, load_prepared
from avsnn.pipeline.loading.augment import DRAWS, MEAN, STD, augment_frames
from avsnn.pipeline.loading.cache_source import CacheSource
from avsnn.pipeline.loading.loader import Loader
from avsnn.pipeline.loading.order import BatchRequest, sample_draws, training_requests
from avsnn.pipeline.loading.shard_source import ShardSource
from avsnn.pipeline.loading.source import Source
from avsnn.pipeline.runs.train_settings import AugmentSettings
from benchmarks.measuring import measure, print_machine, print_rates, print_ratio
from tests.fake_crema_d import FakeCremaD, make

BATCH = 64
SIZE = 128
NAME = "fake-crema-d"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    words = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="avsnn-bench-") as name:
        work = Path(name)
        fake, prepared = prepare(work, words.clips)
        loose = write_loose(fake, work / "loose")
        print_machine("torch", "webdataset", "zarr", "librosa", "opencv-python-headless", "pillow")
        count = words.clips // BATCH * BATCH
        print(f"{words.clips} clips, batches of {BATCH}, {words.rounds} rounds, one thread")
        compare(work, prepared, loose, count, words.rounds)
        compare_starts(work, prepared, words.rounds)
        compare_mixing(work, prepared)
        show_waiting(work, prepared)


def compare(work: Path, prepared: Prepared, loose: list[Path], count: int, rounds: int) -> None:
    """All the ways to the same batches."""
    cache, shards = open_cache(work, prepared), open_shards(work, prepared)
    costs = measure(
        {
            "cache": lambda: ours(cache),
            "shards": lambda: ours(shards),
            "plain": lambda: plain_webdataset(work, prepared, count, every_image=True),
            "picking": lambda: plain_webdataset(work, prepared, count, every_image=False),
            "loose": lambda: loose_files(loose, count),
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
    """Seconds to the first batch: of an epoch, and of one that goes on near its end."""
    rows = np.arange(prepared.clips)
    last = prepared.clips // BATCH - 1

    def first_batch(step: int) -> None:
        with Loader(partial(open_cache, work, prepared), workers=0, pin=False) as loader:
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
    """Different shards in a batch."""
    shards = open_shards(work, prepared)
    home = [str(shard) for shard, _ in shards._found]
    rows = np.arange(prepared.clips)
    drawn = list(training_requests(rows, batch_size=BATCH, seed=0, epoch=0))
    mine = np.mean([len({home[row] for row in request.rows}) for request in drawn])
    dice = np.random.default_rng(1)
    ideal = np.mean(
        [len({home[row] for row in dice.permutation(rows)[:BATCH]}) for _ in range(200)]
    )
    urls = shard_paths(work, prepared)
    stream = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=0).shuffle(100)
    homes = [sample["__url__"] for sample in stream]
    blocks = [homes[i : i + BATCH] for i in range(0, len(homes) - BATCH + 1, BATCH)]
    plain = np.mean([len(set(block)) for block in blocks])
    print(
        f"different shards in a batch of {BATCH}, {len(urls)} shards: avsnn {mine:.1f}, a random "
        f"permutation {ideal:.1f}, webdataset with a buffer of 100 {plain:.1f}"
    )


def show_waiting(work: Path, prepared: Prepared) -> None:
    """Share of a training step of the published size that is spent waiting for its batch."""
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    model = build(ModelSettings(), classes=6)
    optimizer = torch.optim.AdamW(model.parameters())
    for kind, opener in (("cache", open_cache), ("shards", open_shards)):
        with Loader(partial(opener, work, prepared), workers=0, pin=False) as loader:
            rows = np.arange(prepared.clips)
            batches = loader.read(training_requests(rows, batch_size=8, seed=0, epoch=0))
            waited = worked = 0.0
            for step in range(8):
                began = time.perf_counter()
                batch = next(batches)
                got = time.perf_counter()
                output = model(batch.audio, augmented(batch.rows, batch.frames))
                optimizer.zero_grad()
                training_loss(output, batch.labels, LossSettings()).total.backward()
                optimizer.step()
                # The first step warms up.
                waited += (got - began) if step else 0
                worked += (time.perf_counter() - began) if step else 0
            batches.close()  # type: ignore[attr-defined]
        print(
            f"training, C = 256, B = 8, {kind}: {7 * 8 / worked:.1f} samples/s, "
            f"{waited / worked:.2%} of it waiting for data, target 2 %"
        )


# --- ours ----------------------------------------------------------------------------------------


def open_cache(work: Path, prepared: Prepared) -> Source:
    """The caches."""
    folder = work / "data" / NAME
    return CacheSource(frames=folder / prepared.frames, audio=folder / prepared.audio)


def open_shards(work: Path, prepared: Prepared) -> ShardSource:
    """The shards."""
    folder = work / "data" / NAME
    return ShardSource(
        shards=folder / prepared.shards, frames=FrameSettings(), audio=AudioSettings()
    )


def ours(source: Source) -> None:
    """One epoch, read and augmented."""
    rows = np.arange(len(source.keys))
    for request in training_requests(rows, batch_size=BATCH, seed=0, epoch=0):
        batch = source.read(BatchRequest(*request))
        augmented(batch.rows, batch.frames)


def augmented(rows: np.ndarray[Any, Any], frames: Tensor) -> Tensor:
    """As the trainer does it."""
    draws = sample_draws(seed=0, epoch=0, rows=rows, count=DRAWS)
    return augment_frames(frames, draws, settings=AugmentSettings(), size=SIZE)


# --- rivals --------------------------------------------------------------------------------------


def shard_paths(work: Path, prepared: Prepared) -> list[str]:
    """The tarballs."""
    return sorted(map(str, (work / "data" / NAME / prepared.shards).glob("*.tar")))


def plain_webdataset(work: Path, prepared: Prepared, count: int, *, every_image: bool) -> None:
    """A shuffle buffer over sequential shards, as its documentation shows."""
    urls = shard_paths(work, prepared)
    stream: Any = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=0).shuffle(100)
    if every_image:
        stream = stream.decode("pil", handler=webdataset.reraise_exception)
    batches = stream.map(_sample).batched(BATCH, partial=False)
    seen = sum(len(batch[2]) for batch in batches)
    if seen != count:
        raise SystemExit(f"webdataset gave {seen} samples, not {count}")


def _sample(sample: dict[str, Any]) -> tuple[Tensor, Tensor, int]:
    images = [name for name in sample if name.endswith(".jpg")]
    image = sample[random.choice(images)]
    if isinstance(image, bytes):
        image = Image.open(BytesIO(image)).convert("RGB")
    return random_view(image), published_image(BytesIO(sample["flac"])), 0


def write_loose(fake: FakeCremaD, folder: Path) -> list[Path]:
    """What the authors' preprocessing leaves: frames as JPEG, sound as WAV."""
    folder.mkdir()
    places = []
    for row in fake.rows:
        capture = cv2.VideoCapture(str(fake.folder / row["visual_path"]))
        capture.grab()
        place = folder / row["key"]
        cv2.imwrite(f"{place}.jpg", capture.retrieve()[1])
        Path(f"{place}.wav").write_bytes((fake.folder / row["audio_path"]).read_bytes())
        places.append(place)
    return places


class LooseFiles(Dataset[tuple[Tensor, Tensor, int]]):
    """Opens, decodes and transforms clip by clip, with the published constants."""

    def __init__(self, places: list[Path]) -> None:
        self.frame_positions = places

    def __len__(self) -> int:
        return len(self.frame_positions)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        place = self.frame_positions[index]
        sound = published_image(Path(f"{place}.wav"))
        return random_view(Image.open(f"{place}.jpg").convert("RGB")), sound, 0


def loose_files(places: list[Path], count: int) -> None:
    """One epoch of them, in this process."""
    loader = DataLoader(LooseFiles(places), batch_size=BATCH, shuffle=True, drop_last=True)
    seen = sum(len(batch[2]) for batch in loader)
    if seen != count:
        raise SystemExit(f"the loader gave {seen} samples, not {count}")


def published_image(sound: Path | BytesIO) -> Tensor:
    """The log-STFT image of a sound file, by librosa, with the published constants."""
    samples, _ = librosa.load(sound, sr=22050)
    spectrum = np.abs(librosa.stft(np.clip(samples, -1, 1), n_fft=512, hop_length=353))
    image = torch.from_numpy(np.log(spectrum + 1e-7))[None, None]
    return interpolate(image, size=(SIZE, SIZE), mode="bilinear", antialias=True)[0]


def random_view(image: Image.Image) -> Tensor:
    """Random resized crop, flip and normalisation of one picture, by PIL as torchvision does it."""
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
    """Makes a data set up and prepares it with the command."""
    fake = make(work / "source", clips, defects=False)
    own = work / "own"
    own.mkdir()
    fake.write_manifest(own, sources=[{"prefix": "", "url": "https://localhost/"}])
    os.environ[USER_FOLDER_VARIABLE] = str(own)
    command = [sys.executable, "-m", "avsnn", "prepare", NAME, "--root", str(work / "data")]
    command += ["--source", str(fake.folder), "--set", "extract.clips_per_shard=32"]
    subprocess.run(command, check=True, capture_output=True)
    prepared = load_prepared(work / "data", NAME)
    if prepared is None:
        raise SystemExit("nothing was prepared")
    return fake, prepared


if __name__ == "__main__":
    main()
