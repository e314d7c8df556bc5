"""6. The trainer: one readable loop around one model, resumable at every step."""

import gc
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from avsnn.errors import PreemptedError, UserError
from avsnn.models.activation_checkpointing import recompute_blocks
from avsnn.models.batch_norm import BatchNorm
from avsnn.models.losses import training_loss
from avsnn.pipeline.augment import DRAWS, augment_frames, resize_audio
from avsnn.pipeline.checkpoint import (
    Checkpoint,
    Position,
    keep_newest,
    newest_whole,
    restore_training,
    resume_path,
    training_state,
    write_checkpoint,
)
from avsnn.pipeline.evaluate import autocast, open_data, predict, rows_of, with_noise
from avsnn.pipeline.files import only_writer, write_atomically
from avsnn.pipeline.optimizer import learning_rate, make_optimizer
from avsnn.pipeline.order import sample_draws, step_seed, steps_per_epoch, training_requests
from avsnn.pipeline.ranks import Ranks, join_ranks
from avsnn.pipeline.run import (
    RunConfig,
    TrainSettings,
    build_network,
    choose_kernels,
    read_metrics,
    require_same,
    save_config,
)
from avsnn.pipeline.stage import Progress
from avsnn.pipeline.stream import Batch, Loader
from avsnn.pipeline.tally import Tally
from avsnn.pipeline.training_log import LOSSES, MAY_FALL_SILENT, TrainingLog, note

# Between two looks at the figures: on a GPU each look makes it wait.
LOOK_S = 0.5


@dataclass(frozen=True)
class Manner:
    """How a training is carried out; nothing here changes what comes out of it.

    Attributes:
        device: where to compute.
        resume: go on with a run that was cut off.
        workers: processes that read batches; 0 reads in a thread.
        shards: read WebDataset shards and not the caches.
        save_every: also save after so many steps, not only after every epoch.
        keep: resume points to keep.
    """

    device: torch.device
    resume: bool = False
    workers: int = 0
    shards: bool = False
    save_every: int | None = None
    keep: int = 2


@dataclass(frozen=True)
class Trained:
    """How a training ended.

    Attributes:
        folder: the run.
        epochs: epochs trained in this call; 0 where all was done before.
        metrics: the lines of ``metrics.jsonl``.
        best: the line of the epoch that ``best.safetensors`` holds.
        seconds: of this call.
    """

    folder: Path
    epochs: int
    metrics: list[dict[str, Any]]
    best: dict[str, Any]
    seconds: float


def train(
    config: RunConfig,
    *,
    folder: Path,
    manner: Manner,
    progress: Progress,
    say: Callable[[str], None],
) -> Trained:
    """Trains a run to its end, together with the processes that torchrun started beside this one.

    Args:
        config: what to train.
        folder: the run folder; made here.
        manner: on what, and from where.
        progress: told of every step.
        say: given one sentence at a time that a person should read.

    Raises:
        UserError: the folder holds another run, or an unfinished one and ``resume`` is off; the
            network cannot take the images; a batch is larger than the training part.
        PreemptedError: SIGTERM came, and what was done is saved.
    """
    began = time.monotonic()
    with join_ranks(manner.device) as ranks, told_to_stop() as stop:
        done = ranks.once(lambda: _epochs_done(config, folder, resume=manner.resume))
        if done < config.settings.epochs:
            if manner.resume and ranks.leads and not (folder / "config.yaml").exists():
                say(f"nothing to resume in {folder}: starting from the first epoch")
            # Settings that make no network, or ask for more than there is, are refused before
            # a file is made.
            training = _Training(config, folder, manner, ranks, stop, progress, say)
            lock: AbstractContextManager[None] = (
                only_writer(folder) if ranks.leads else nullcontext()
            )
            with lock, training.loader, closing(training):
                if ranks.leads and not (folder / "config.yaml").exists():
                    save_config(folder, config)
                done = training.run()
        metrics = ranks.once(lambda: read_metrics(folder))
        return Trained(
            folder=folder,
            epochs=config.settings.epochs - done,
            metrics=metrics,
            best=_best(config, metrics),
            seconds=time.monotonic() - began,
        )


def _epochs_done(config: RunConfig, folder: Path, *, resume: bool) -> int:
    """Finished epochs of this run in that folder, once it is clear that it may go on there."""
    if not (folder / "config.yaml").exists():
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file and no folder; choose another --run.")
        if folder.exists() and any(path.name != ".lock" for path in folder.iterdir()):
            raise UserError(f"{folder} holds other files and is no run; choose another --run.")
        return 0
    require_same(config, folder)
    done = len(read_metrics(folder))
    if done < config.settings.epochs and not resume:
        raise UserError(
            f"{folder} holds this run, unfinished ({done} of {config.settings.epochs} epochs); "
            "add --resume to go on with it, or choose another --run."
        )
    return done


def _best(config: RunConfig, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """The chosen epoch: highest accuracy, the lower loss among equals; or the last."""
    part = config.settings.selection
    if part == "last":
        return metrics[-1]
    return max(metrics, key=lambda line: (line[f"{part}_accuracy"], -line[f"{part}_loss"]))


def choose_device(name: str) -> torch.device:
    """The device to compute on; ``auto`` takes a GPU where there is one.

    Raises:
        UserError: cuda was asked for and is not there.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise UserError("--device cuda: torch sees no CUDA device here; use --device cpu.")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


@contextmanager
def told_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has come; meanwhile it ends nothing by itself."""
    told = False

    def hear(_signal: int, _frame: object) -> None:
        nonlocal told
        told = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield lambda: told
    finally:
        signal.signal(signal.SIGTERM, before)


class _Training:
    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        manner: Manner,
        ranks: Ranks,
        stop: Callable[[], bool],
        progress: Progress,
        say: Callable[[str], None],
    ) -> None:
        self.config = config
        self.settings: TrainSettings = config.settings
        self.folder = folder
        self.manner = manner
        self.device = manner.device
        self.ranks = ranks
        self.stop = stop
        self.progress = progress
        self.say = say if ranks.leads else lambda _: None
        self.loader = Loader(
            partial(open_data, config, shards=manner.shards),
            workers=manner.workers,
            pin=self.device.type == "cuda",
        )
        if self.loader.source.note:
            self.say(self.loader.source.note)
        self.rows = rows_of(config, self.loader.source, *self.settings.train_parts)
        self.steps = steps_per_epoch(len(self.rows), self.settings.batch_size)
        self._require_equal_parts()
        self.monitored = self._monitored()
        self.metrics: list[dict[str, Any]] = []
        self.kernels = choose_kernels(self.settings.compute.kernels, self.device)
        if self.kernels == "torch" != self.settings.compute.kernels:
            lacking = "C compiler (cc, or CC)" if self.device.type == "cpu" else "package triton"
            self.say(f"no {lacking} here: neurons run on plain torch, which is slower")
        torch.manual_seed(self.settings.seed)
        self.model = build_network(config).to(self.device)
        if self.settings.compute.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for module in self.model.modules():
            if isinstance(module, BatchNorm):
                module.synchronised = self.settings.distributed.sync_batch_norm
        if self.settings.compute.recompute:
            recompute_blocks(self.model)
        self.optimizer = make_optimizer(self.model, self.settings.optimizer)
        self.average = self._average()
        self.network: nn.Module = self.model
        if ranks.count > 1:
            self.network = DistributedDataParallel(self.model)
        if self.settings.compute.compile:
            self.network = torch.compile(self.network, dynamic=False)  # type: ignore[assignment]

    def run(self) -> int:
        """Trains to the end; returns how many epochs were done before."""
        at, before = self._restore()
        done = at.epoch
        self._introduce(at)
        tensorboard = self.folder / "tensorboard"
        log = (
            TrainingLog(tensorboard, self.settings, at.epoch, self.say)
            if self.ranks.leads
            else None
        )
        for epoch in range(at.epoch, self.settings.epochs):
            line = self._epoch(epoch, first_step=at.step, before=before)
            at, before = Position(epoch + 1, 0), {}
            if self.monitored is not None:
                scores = predict(
                    self.model if self.average is None else self.average.module,
                    self.loader,
                    self.monitored,
                    self.settings,
                    device=self.device,
                    ranks=self.ranks,
                )
                part = self.settings.selection
                line |= {f"{part}_loss": scores.loss, f"{part}_accuracy": scores.accuracy}
            self.metrics.append(line)
            self._save_epoch()
            self._save(at, {})
            if log is not None:
                log.epoch(line)
            if at.epoch < self.settings.epochs and self.ranks.any(self.stop()):
                raise self._preempted(at)
        if log is not None:
            log.close()
        return done

    def close(self) -> None:
        """Lets go of what ties the processes together, while they still are."""
        # It ends threads of the process group, which wait for ever if nothing else holds that.
        self.network = self.model
        gc.collect()

    def _introduce(self, at: Position) -> None:
        count = sum(parameter.numel() for parameter in self.model.parameters())
        chosen = done = together = ""
        if self.monitored is not None:
            chosen = f", {len(self.monitored):,} of {self.settings.selection} to choose the epoch"
        if at != Position(0, 0):
            done = f", {at.epoch} of {self.settings.epochs} epochs and {at.step} steps done before"
        if self.ranks.count > 1:
            together = f" in {self.ranks.count} processes"
        left_out = len(self.rows) - self.steps * self.settings.batch_size
        self.say(
            f"{self.folder}: {self.settings.model.method} with {count:,} parameters on "
            f"{self.device}{together} (kernels: {self.kernels}), {len(self.rows):,} clips to train "
            f"on ({self.steps} steps of {self.settings.batch_size}, {left_out} other clips sit out "
            f"each epoch){chosen}{done}"
        )

    def _epoch(
        self, epoch: int, *, first_step: int, before: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """One pass over the training part; returns the epoch's line of ``metrics.jsonl``."""
        settings, steps = self.settings, self.steps
        lr = learning_rate(
            settings.optimizer, epoch=epoch, epochs=settings.epochs, batch_size=settings.batch_size
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.model.train()
        # A compiled network does not see hooks that come and go; its last step runs as written.
        watched = () if settings.compute.compile else MAY_FALL_SILENT
        tally = Tally(self.model, watched, device=self.device, ranks=self.ranks)
        tally.go_on(before, steps=first_step)
        requests = training_requests(
            self.rows,
            batch_size=settings.batch_size,
            seed=settings.seed,
            epoch=epoch,
            first_step=first_step,
            rank=self.ranks.rank,
            ranks=self.ranks.count,
        )
        began = looked = time.monotonic()
        self.progress.start(f"epoch {epoch + 1}/{settings.epochs}", steps - first_step, "steps")
        try:
            for step, batch in enumerate(self.loader.read(requests), first_step):
                if step + 1 == steps:
                    break
                tally.add(self._step(self.network, batch, epoch, step))
                now, told = time.monotonic(), ""
                if now - looked > LOOK_S:
                    clips = (step + 1 - first_step) * settings.batch_size
                    looked, told = now, note(tally, samples_per_second=clips / (now - began))
                self.progress.advance(note=told)
                self._save_between(Position(epoch, step + 1), tally)
            # Counting in the large layers costs time; the last step stands for its epoch there.
            network = self.model if settings.compute.compile else self.network
            last = Tally(self.model, ("",), device=self.device, ranks=self.ranks)
            tally.add(self._step(network, batch, epoch, step))
            last.close()
            self.progress.advance()
        finally:
            tally.close()
            self.progress.stop()
        seconds = time.monotonic() - began
        rates = last.spike_rates(everywhere=True) | tally.spike_rates(everywhere=True)
        return {
            "epoch": epoch + 1,
            "lr": lr,
            "kernels": self.kernels,
            **tally.means(everywhere=True),
            "samples_per_second": round((steps - first_step) * settings.batch_size / seconds, 1),
            # Significant digits: a rate is 0 only where there was no spike at all.
            "spike_rates": {name: float(f"{rate:.4g}") for name, rate in rates.items()},
        }

    def _step(self, network: nn.Module, batch: Batch, epoch: int, step: int) -> dict[str, Tensor]:
        """One step of the optimizer; returns loss, its parts and accuracy of this process."""
        parts = self._parts(batch, epoch)
        # A network may draw numbers of its own (SCA's position bias, as published): they depend on
        # the step alone, so that a resumed run draws the same.
        torch.manual_seed(step_seed(seed=self.settings.seed, epoch=epoch, step=step))
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for place, (audio, frames, labels) in enumerate(parts):
            with self._unsynchronised(network, place + 1 < len(parts)):
                values = self._backward(network, audio, frames, labels, share=1 / len(parts))
            for name, value in values.items():
                sums[name] = sums[name] + value if name in sums else value
        if (longest := self.settings.optimizer.clip_norm) is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), longest)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return sums

    def _backward(
        self, network: nn.Module, audio: Tensor, frames: Tensor, labels: Tensor, *, share: float
    ) -> dict[str, Tensor]:
        with autocast(self.settings, self.device):
            output = network(audio, frames)
        together = self.settings.distributed.global_alignment and self.ranks.count > 1
        losses = training_loss(
            output, labels, self.settings.loss, gather=self.ranks.gather if together else None
        )
        (losses.total * share).backward()
        correct = (output.logits.argmax(1) == labels).float().mean()
        values = dict(zip(LOSSES, losses, strict=True)) | {"accuracy": correct}
        return {name: value.detach() * share for name, value in values.items()}

    def _parts(self, batch: Batch, epoch: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The batch as the network takes it, in the parts that gradients are accumulated over."""
        settings = self.settings
        draws = sample_draws(seed=settings.seed, epoch=epoch, rows=batch.rows, count=DRAWS + 1)
        # The first draw chose the frame.
        frames = augment_frames(
            batch.frames.to(self.device, non_blocking=True),
            draws[:, 1:],
            settings=settings.data.augment,
            size=settings.data.size,
        )
        frames = with_noise(frames, batch.rows, settings, epoch=epoch)
        audio = resize_audio(
            batch.audio.to(self.device, non_blocking=True), size=settings.data.size
        )
        if settings.compute.channels_last:
            frames = frames.contiguous(memory_format=torch.channels_last)
            audio = audio.contiguous(memory_format=torch.channels_last)
        labels = batch.labels.to(self.device, non_blocking=True)
        count = settings.optimizer.accumulate
        chunks = (tensor.chunk(count) for tensor in (audio, frames, labels))
        return list(zip(*chunks, strict=True))

    def _unsynchronised(self, network: nn.Module, more: bool) -> AbstractContextManager[None]:
        """Gradients go to the other processes once a step."""
        if more and isinstance(network, DistributedDataParallel):
            return network.no_sync()
        return nullcontext()

    def _require_equal_parts(self) -> None:
        parts = self.ranks.count * self.settings.optimizer.accumulate
        if self.settings.batch_size % parts:
            raise UserError(
                f"batch_size {self.settings.batch_size} cannot be shared out evenly: it is no "
                f"multiple of {parts} ({self.ranks.count} processes, optimizer.accumulate "
                f"{self.settings.optimizer.accumulate})."
            )

    def _monitored(self) -> NDArray[np.int64] | None:
        if self.settings.selection == "last":
            return None
        return rows_of(self.config, self.loader.source, self.settings.selection)

    def _average(self) -> AveragedModel | None:
        decay = self.settings.optimizer.ema_decay
        if decay is None:
            return None
        return AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def _save_between(self, at: Position, tally: Tally) -> None:
        """In the middle of an epoch, where it is time for that, or time to end."""
        stop, every = self.ranks.any(self.stop()), self.manner.save_every
        if stop or (every and (at.epoch * self.steps + at.step) % every == 0):
            self._save(at, tally.state())
        if stop:
            raise self._preempted(at)

    def _preempted(self, at: Position) -> PreemptedError:
        return PreemptedError(
            f"told to end; saved after {at.epoch} epochs and {at.step} steps. Run the same command "
            "with --resume to go on from there."
        )

    def _save_epoch(self) -> None:
        """The epoch's weights and figures; its resume point comes after them."""
        if not self.ranks.leads:
            return
        model = self.model if self.average is None else self.average.module
        facts = {"epoch": self.metrics[-1]["epoch"], "run": self.config.fingerprint}
        checkpoint = Checkpoint(dict(model.state_dict()), facts)
        folder = self.folder / "checkpoints"
        write_checkpoint(folder / "last.safetensors", checkpoint)
        if _best(self.config, self.metrics) is self.metrics[-1]:
            write_checkpoint(folder / "best.safetensors", checkpoint)
        lines = "".join(json.dumps(line) + "\n" for line in self.metrics)
        write_atomically(self.folder / "metrics.jsonl", lines.encode())

    def _save(self, at: Position, tally: Mapping[str, Tensor]) -> None:
        """A resume point: weights, moments, averages, and what the epoch adds up to so far."""
        if not self.ranks.leads:
            return
        state = training_state(self.model, self.optimizer, self.average)
        state |= {f"tally.{name}": tensor for name, tensor in tally.items()}
        folder = self.folder / "checkpoints"
        facts = {"run": self.config.fingerprint, "kernels": self.kernels}
        write_checkpoint(resume_path(folder, at), Checkpoint(state, facts))
        keep_newest(folder, self.manner.keep)

    def _restore(self) -> tuple[Position, Mapping[str, Tensor]]:
        """Where to go on, with all state but the tally of the epoch, which is returned."""
        folder = self.folder / "checkpoints"
        if self.ranks.count > 1:
            # The first process removes what is damaged, so that all find the same.
            self.ranks.once(lambda: newest_whole(folder, self.say) is None)
        found = newest_whole(folder, self.say)
        if found is None:
            return Position(0, 0), {}
        at, checkpoint = found
        if (before := checkpoint.facts.get("kernels")) != self.kernels:
            self.say(
                f"this run was computed with the kernels '{before}' and goes on with "
                f"'{self.kernels}': not bit for bit as without the cut"
            )
        rest = restore_training(checkpoint.tensors, self.model, self.optimizer, self.average)
        self.metrics = read_metrics(self.folder)[: at.epoch]
        return at, rest.get("tally", {})
