"""The answers of a trained network for clips in files: what the command `predict` runs.

Child processes decode the clips, a thread computes the rows that the caches of a data set would
hold, and the network answers for one batch after the other. The answer for a clip is the answer of
`evaluate` for the same clip in the prepared data set.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avsnn.errors import UserError
from avsnn.pipeline.engine.children import usable_cores
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.inference.device import choose_kernels, choose_precision
from avsnn.pipeline.inference.memory import require_memory_to_evaluate
from avsnn.pipeline.inference.network import load_network, place_network
from avsnn.pipeline.inference.predict import batch_logits
from avsnn.pipeline.loading.batch import Batch, evaluation_crops
from avsnn.pipeline.loading.per_step import evaluation_positions
from avsnn.pipeline.loading.shard_rows import EventRows, MediaRows, ShardRows
from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.sandbox import DecoderDiedError, Pending, Sandbox
from avsnn.pipeline.prediction.decode import Members, decode_events, decode_media
from avsnn.pipeline.prediction.find_clips import File, FoundClip, find_clips
from avsnn.pipeline.prediction.record import Choice, Prediction
from avsnn.pipeline.prediction.shapes import sample_shapes
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.runs.plugin import plugin_faults_said
from avsnn.pipeline.runs.stored_run import StoredRun

if TYPE_CHECKING:
    from avsnn.datasets_manifest.clips import Modality

# Number of clips that the network computes together on a CPU; larger batches are not faster there.
CLIPS_ON_CPU = 32

# Number of classes that a prediction names.
TOP = 3

# Clips that each child process decodes ahead. Decoded clips that wait take memory.
DECODED_AHEAD = 4


class _Sample(NamedTuple):
    """A clip on the way to the network.

    Attributes:
        prediction: what is known so far; without a reason if the network answers for the clip.
        rows: the row of the frame cache, or the rows of all time steps, and the row of the audio
            cache; None where a modality is missing. No rows at all where the clip has no answer.
    """

    prediction: Prediction
    rows: tuple[NDArray[np.uint8] | None, NDArray[Any] | None] | None = None


def predict_files(
    run: StoredRun,
    paths: Sequence[Path],
    *,
    device: torch.device,
    workers: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda _: None,
    out: Path | None = None,
) -> Generator[Prediction]:
    """Return the answers of a network for clips in files and folders, one clip after the other.

    Every clip gets a prediction, in the order of the paths and of the names in a folder; a clip
    that cannot be decoded gets a prediction without an answer. A prediction depends neither on the
    other clips nor on the number of workers.

    Args:
        run: the run.
        paths: files and folders; `find_clips` says which files are one clip.
        device: the device that computes.
        workers: number of child processes that decode; None takes one for each core.
        progress: told of every clip.
        say: gets one sentence at a time that a person should read.
        out: the file that the caller is going to write; None for none.

    Raises:
        UserError: a path does not exist, no file could be a clip, `out` would replace a file of a
            clip or of the run, the checkpoint does not fit the run, or the network needs more
            memory than there is.
        RunError: the checkpoint cannot be read.
    """
    if workers is not None and workers < 1:
        raise UserError(f"workers must be 1 or more, not {workers}.")
    config = run.config
    found = find_clips(paths, has_events=config.manifest.has_events)
    if found.passed_over:
        one = found.passed_over == 1
        files = "1 file that is" if one else f"{found.passed_over:,} files that are"
        ends = "ends" if one else "end"
        say(f"predict passes over {files} hidden or {ends} in .txt, .csv or the like")
    if out is not None:
        _require_harmless(out, run.folder, found.clips)
    network = _Network(run, device, say)
    workers = min(workers or usable_cores(), len(found.clips))
    return _predictions(network, found.clips, workers, progress)


def _require_harmless(out: Path, run: Path, clips: list[FoundClip]) -> None:
    """Refuse a file to write that is a file of a clip or of the run.

    Raises:
        UserError: writing the file would destroy the other file.
    """
    place = os.path.realpath(out)
    if Path(place).is_relative_to(os.path.realpath(run)):
        raise UserError(f"--out {out} is in the run folder; give a place outside {run}.")
    files = {os.path.realpath(file.path) for clip in clips for file in clip if file is not None}
    if place in files:
        raise UserError(f"--out {out} is one of the clips; give another file.")


def _predictions(
    network: "_Network", clips: list[FoundClip], workers: int, progress: Progress | None
) -> Generator[Prediction]:
    if progress is not None:
        progress.start("predict", len(clips), "clips")
    # The sandbox ends first, so that the thread does not wait for a decoder that hangs.
    with _thread_for_rows() as thread, Sandbox(workers) as sandbox:
        decoded = _decoded(clips, sandbox, network.config, DECODED_AHEAD * workers)
        samples = (network.sample(clip, pending) for clip, pending in decoded)
        try:
            pending = thread.submit(_next_samples, samples, network.batch_size)
            while batch := pending.result():
                pending = thread.submit(_next_samples, samples, network.batch_size)
                for prediction in network.answer(batch):
                    yield prediction
                    if progress is not None:
                        progress.advance()
        finally:
            if progress is not None:
                progress.stop()


@contextmanager
def _thread_for_rows() -> Iterator[ThreadPoolExecutor]:
    """Start a thread in which torch starts no threads of its own.

    The arrays of one clip are so small that torch's threads would wait for each other most of the
    time, and take the cores from the decoders.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as thread:
            yield thread
    finally:
        # The number of a thread is also the number of every thread that starts later.
        torch.set_num_threads(threads)


def _next_samples(samples: Iterator[_Sample], count: int) -> list[_Sample]:
    return list(islice(samples, count))


def _decoded(
    clips: list[FoundClip], sandbox: Sandbox, config: RunConfig, ahead: int
) -> Iterator[tuple[FoundClip, Pending[Members]]]:
    """Yield every clip in order; up to ``ahead`` clips after it are decoded or being decoded."""
    manifest, settings = config.manifest, config.data.settings.extract
    places = evaluation_positions(1, config.settings)[0]
    positions = places.tolist() if places.ndim else ()
    form: Any = (manifest.visual, manifest.audio)
    waiting: deque[tuple[FoundClip, Pending[Members]]] = deque()
    for clip in clips:
        if manifest.has_events:
            pending = sandbox.start(decode_events, clip.visual, clip.sound, form)
        else:
            pending = sandbox.start(decode_media, clip.visual, clip.sound, settings, positions)
        waiting.append((clip, pending))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


class _Network:
    """The network of a run, which answers for clips that are in no data set.

    An answer does not depend on the other clips. On a GPU, every batch has the same number of
    clips, because the last bit of a product of matrices may change with the size of the product. On
    a CPU, only a batch of a single clip was found to have other last bits (the classifier is then a
    product with a vector), so a second clip of zeros joins a single clip. Torch's generator has the
    same seed in every batch, because some networks draw numbers.
    """

    def __init__(self, run: StoredRun, device: torch.device, say: Callable[[str], None]) -> None:
        self.config = run.config
        self._settings = run.config.settings
        self._device = device
        self._classes = run.config.manifest.classes
        size = self._settings.batch_size
        on_cuda = device.type == "cuda"
        self.batch_size = size if on_cuda else min(size, CLIPS_ON_CPU)
        self._least = size if on_cuda else min(size, 2)
        shapes = sample_shapes(run.config, say)
        make_rows = EventRows if run.config.manifest.has_events else MediaRows
        self._rows: ShardRows = make_rows(shapes, run.config.data.settings)
        choose_precision(self._settings, device)
        choose_kernels("auto", device)
        require_memory_to_evaluate(run.config, shapes, device, clips=self.batch_size)
        model, _ = load_network(run.config, shapes, run.checkpoint, run.weights)
        self._model: nn.Module = place_network(model, self._settings, device).eval()

    def sample(self, clip: FoundClip, pending: Pending[Members]) -> _Sample:
        """Wait for the decoder, and return the rows of a clip, or why there are none."""
        first: File | None = clip.visual or clip.sound
        assert first is not None  # noqa: S101 - narrows the type
        sound = clip.sound.name if clip.sound and clip.visual else None
        prediction = Prediction(clip=first.name, sound=sound)
        key = first.stem.encode("utf-8", "backslashreplace").decode()
        try:
            members = pending.result()
            frames = None if members.visual is None else self._rows.frames(members.visual)
            if members.steps:
                frames = np.stack([self._rows.frames(image) for image in members.steps])
            audio = None if members.audio is None else self._rows.audio(members.audio, key)
        except DecoderDiedError as died:
            prediction.reason = f"the clip {died}"
        except MediaError as error:
            prediction.reason = str(error)
        except OSError as error:
            prediction.reason = f"the clip cannot be read: {error.strerror or error}"
        else:
            rows: dict[Modality, NDArray[Any] | None] = {"audio": audio, "visual": frames}
            prediction.missing = [name for name, row in rows.items() if row is None]
            prediction.reason = members.reason
            if self._settings.model.method not in prediction.missing:
                return _Sample(prediction, (frames, audio))
            prediction.reason = f"{members.reason}, and the network reads nothing else"
        return _Sample(prediction)

    def answer(self, samples: list[_Sample]) -> list[Prediction]:
        """Return the predictions of the clips of one batch, in their order."""
        rows = [sample.rows for sample in samples if sample.rows is not None]
        if rows:
            logits = self._logits(rows)
            # In float64, as an evaluation computes the confidence.
            shares = logits.double().softmax(1)
            # A stable order: of equal logits, the one of the lower class counts as higher.
            orders = logits.sort(dim=1, descending=True, stable=True).indices[:, :TOP]
            answered = (sample.prediction for sample in samples if sample.rows is not None)
            for prediction, share, order in zip(answered, shares, orders, strict=True):
                if not share.isfinite().all():
                    prediction.reason = "the network gives scores that are NaN or infinite"
                    continue
                prediction.top = [
                    Choice(name=self._classes[i], confidence=float(share[i]))
                    for i in order.tolist()
                ]
                prediction.answer = prediction.top[0].name
                prediction.confidence = prediction.top[0].confidence
        return [sample.prediction for sample in samples]

    def _logits(self, rows: list[tuple[NDArray[np.uint8] | None, NDArray[Any] | None]]) -> Tensor:
        """Return the logits of some clips, ``[N, classes]`` on the CPU."""
        count, shapes = max(len(rows), self._least), self._rows.shapes
        is_per_step = self._settings.data.frames == "per-step"
        steps = (self._settings.model.steps,) if is_per_step else ()
        frames = np.zeros((count, *steps, *shapes.frames), np.uint8)
        audio_type = np.uint8 if self.config.manifest.has_events else np.float32
        audio = np.zeros((count, *shapes.audio), audio_type)
        for i, (image, sound) in enumerate(rows):
            if image is not None:
                frames[i] = image
            if sound is not None:
                audio[i] = sound
        batch = Batch(
            rows=np.arange(count),
            frames=torch.from_numpy(frames),
            audio=torch.from_numpy(audio),
            labels=torch.zeros(count, dtype=torch.int64),
            crops=evaluation_crops(count, shapes.frames, self._settings.data.augment),
            # The noise of an evaluation belongs to the rows of a data set.
            noise=None,
        ).to(self._device)

        def set_missing_to_zero(
            audio: Tensor, frames: Tensor, _: NDArray[np.int64]
        ) -> tuple[Tensor, Tensor]:
            # The clips are the fourth axis from the end: [B, C, H, W] or [T, B, C, H, W].
            for i, (image, sound) in enumerate(rows):
                if image is None:
                    frames[..., i, :, :, :] = 0
                if sound is None:
                    audio[..., i, :, :, :] = 0
            return audio, frames

        torch.manual_seed(self._settings.seed)
        with torch.inference_mode(), plugin_faults_said(self._settings.model.method):
            logits = batch_logits(
                self._model, batch, self._settings, device=self._device, change=set_missing_to_zero
            )
        return logits[: len(rows)].cpu()
