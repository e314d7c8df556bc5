"""6. The trainer: one readable loop around one model, resumable at every epoch."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from avsnn.errors import UserError
from avsnn.models.losses import training_loss
from avsnn.models.neuron import spike_rates
from avsnn.pipeline.augment import DRAWS, augment_frames, resize_audio
from avsnn.pipeline.evaluate import open_data, predict, rows_of, with_noise
from avsnn.pipeline.files import only_writer, write_atomically
from avsnn.pipeline.run import (
    OptimizerSettings,
    RunConfig,
    TrainSettings,
    build_network,
    pack,
    read_metrics,
    require_same,
    save_config,
    unpack,
)
from avsnn.pipeline.stage import Progress
from avsnn.pipeline.stream import Batch, sample_draws, steps_per_epoch, stream_epoch

# Where attention and alignment stand: layers that may fall silent for good, and what they feed then
# stays as it is.
MAY_FALL_SILENT = ("fusion.", "attention.")

BETAS = (0.9, 0.999)
EPS = 1e-8


@dataclass(frozen=True)
class Trained:
    """How a training ended.

    Attributes:
        folder: the run.
        epochs: epochs trained in this call; 0 where all was done before.
        best_epoch: the epoch that ``best.safetensors`` holds, from 1.
        accuracy: its share of correct clips on the part it was chosen on; None for ``last``.
    """

    folder: Path
    epochs: int
    best_epoch: int
    accuracy: float | None


def train(
    config: RunConfig,
    *,
    folder: Path,
    device: torch.device,
    resume: bool,
    progress: Progress,
    say: Callable[[str], None],
) -> Trained:
    """Trains a run to its end.

    Args:
        config: what to train.
        folder: the run folder; made here.
        device: where to compute.
        resume: go on with a run that was cut off.
        progress: told of every step.
        say: given one sentence at a time that a person should read.

    Raises:
        UserError: the folder holds another run, or an unfinished one and ``resume`` is off; the
            network cannot take the images; a batch is larger than the training part.
    """
    done = _epochs_done(config, folder, resume=resume)
    if done == config.settings.epochs:
        return _trained(config, folder, read_metrics(folder), epochs=0)
    if resume and not done:
        say(f"nothing to resume in {folder}: starting from the first epoch")
    # Settings that make no network, or more than the data give, are refused before a file is made.
    training = _Training(config, folder, device, progress, say)
    with only_writer(folder):
        if not (folder / "config.yaml").exists():
            save_config(folder, config)
        return training.run()


def _epochs_done(config: RunConfig, folder: Path, *, resume: bool) -> int:
    """Finished epochs of this run in that folder, once it is clear that it may go on there."""
    if not (folder / "config.yaml").exists():
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


def _trained(
    config: RunConfig, folder: Path, metrics: list[dict[str, Any]], *, epochs: int
) -> Trained:
    best = _best(config, metrics)
    return Trained(
        folder=folder,
        epochs=epochs,
        best_epoch=best["epoch"],
        accuracy=best.get(f"{config.settings.selection}_accuracy"),
    )


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


def learning_rate(
    settings: OptimizerSettings, *, epoch: int, epochs: int, batch_size: int
) -> float:
    """The rate of an epoch: linear warm-up, then cosine to ``min_lr`` (published recipe)."""
    peak = settings.base_lr * batch_size / 1024
    if epoch < settings.warmup_epochs:
        return settings.warmup_lr + (peak - settings.warmup_lr) * epoch / settings.warmup_epochs
    return settings.min_lr + (peak - settings.min_lr) * (1 + cos(pi * epoch / epochs)) / 2


class _Training:
    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        device: torch.device,
        progress: Progress,
        say: Callable[[str], None],
    ) -> None:
        self.config = config
        self.settings: TrainSettings = config.settings
        self.folder = folder
        self.device = device
        self.progress = progress
        self.say = say
        self.source = open_data(config)
        self.rows = rows_of(config, self.source, *self.settings.train_parts)
        self.steps = steps_per_epoch(len(self.rows), self.settings.batch_size)
        self.monitored = self._monitored()
        self.silent: set[str] = set()
        torch.manual_seed(self.settings.seed)
        self.model = build_network(config).to(device)
        self.optimizer = make_optimizer(self.model, self.settings.optimizer)

    def run(self) -> Trained:
        start = self._restore()
        metrics = read_metrics(self.folder)[:start]
        self._introduce(start)
        writer = self._tensorboard(start)
        for epoch in range(start, self.settings.epochs):
            line = self._epoch(epoch)
            if self.monitored is not None:
                scores = predict(
                    self.model, self.source, self.monitored, self.settings, device=self.device
                )
                part = self.settings.selection
                line |= {f"{part}_loss": scores.loss, f"{part}_accuracy": scores.accuracy}
            metrics.append(line)
            self._save(metrics)
            self._report(writer, line)
        writer.close()
        return _trained(self.config, self.folder, metrics, epochs=self.settings.epochs - start)

    def _introduce(self, start: int) -> None:
        count = sum(parameter.numel() for parameter in self.model.parameters())
        chosen = ""
        if self.monitored is not None:
            chosen = f", {len(self.monitored):,} of {self.settings.selection} to choose the epoch"
        done = f", {start} of {self.settings.epochs} epochs done before" if start else ""
        self.say(
            f"{self.folder}: {self.settings.model.method} with {count:,} parameters on "
            f"{self.device}, {len(self.rows):,} clips to train on{chosen}{done}"
        )

    def _epoch(self, epoch: int) -> dict[str, Any]:
        """One pass over the training part; returns the epoch's line of ``metrics.jsonl``."""
        settings, steps = self.settings, self.steps
        lr = learning_rate(
            settings.optimizer, epoch=epoch, epochs=settings.epochs, batch_size=settings.batch_size
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        sums: dict[str, float] = defaultdict(float)
        # A network may draw numbers of its own (SCA's position bias, as published): from here they
        # depend on the epoch alone, so that a resumed run draws the same.
        torch.manual_seed(settings.seed + epoch)
        began = time.monotonic()
        self.model.train()
        self.progress.start(f"epoch {epoch + 1}/{settings.epochs}", steps, "steps")
        batches = stream_epoch(
            self.source, self.rows, batch_size=settings.batch_size, seed=settings.seed, epoch=epoch
        )
        # Counting in the large layers costs time; the last step stands for its epoch there.
        sampled: Mapping[str, float] = {}
        with ExitStack() as counting:
            counted = counting.enter_context(spike_rates(self.model, MAY_FALL_SILENT))
            for step, batch in enumerate(batches):
                if step + 1 == steps:
                    sampled = counting.enter_context(spike_rates(self.model))
                for name, value in self._step(batch, epoch).items():
                    sums[name] += value
                seconds = time.monotonic() - began
                self.progress.advance(
                    note=f"loss {sums['loss'] / (step + 1):.3f}  "
                    f"accuracy {sums['accuracy'] / (step + 1):.1%}  "
                    f"{(step + 1) * settings.batch_size / seconds:.0f} samples/s"
                )
        self.progress.stop()
        seconds = time.monotonic() - began
        rates = {**sampled, **counted}
        return {
            "epoch": epoch + 1,
            "lr": lr,
            **{name: value / steps for name, value in sums.items()},
            "samples_per_second": round(steps * settings.batch_size / seconds, 1),
            # Significant digits: a rate is 0 only where there was no spike at all.
            "spike_rates": {name: float(f"{rate:.4g}") for name, rate in rates.items()},
        }

    def _step(self, batch: Batch, epoch: int) -> dict[str, float]:
        settings = self.settings
        draws = sample_draws(seed=settings.seed, epoch=epoch, rows=batch.rows, count=DRAWS + 1)
        # The first draw chose the frame.
        frames = augment_frames(
            batch.frames.to(self.device),
            draws[:, 1:],
            settings=settings.data.augment,
            size=settings.data.size,
        )
        frames = with_noise(frames, batch.rows, settings, epoch=epoch)
        audio = resize_audio(batch.audio.to(self.device), size=settings.data.size)
        labels = batch.labels.to(self.device)
        output = self.model(audio, frames)
        losses = training_loss(output, labels, settings.loss)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self.optimizer.step()
        correct = (output.logits.argmax(1) == labels).float().mean()
        values = [losses.total, losses.cross_entropy, losses.alignment, losses.auxiliary, correct]
        numbers = torch.stack([value.detach() for value in values]).tolist()
        names = ("loss", "cross_entropy", "alignment", "auxiliary", "accuracy")
        return dict(zip(names, numbers, strict=True))

    def _monitored(self) -> NDArray[np.int64] | None:
        if self.settings.selection == "last":
            return None
        return rows_of(self.config, self.source, self.settings.selection)

    def _save(self, metrics: list[dict[str, Any]]) -> None:
        """Checkpoints and metrics; the resume file last, since it is what a resume starts from."""
        weights = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        facts = {"epoch": metrics[-1]["epoch"], "run": self.config.fingerprint}
        data = save(weights, metadata=pack(facts))
        write_atomically(self._checkpoint("last"), data)
        if _best(self.config, metrics) is metrics[-1]:
            write_atomically(self._checkpoint("best"), data)
        lines = "".join(json.dumps(line) + "\n" for line in metrics)
        write_atomically(self.folder / "metrics.jsonl", lines.encode())
        state = {f"model.{name}": tensor for name, tensor in weights.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            for name, tensor in moments.items():
                state[f"optimizer.{index}.{name}"] = tensor.contiguous()
        write_atomically(self._checkpoint("resume"), save(state, metadata=pack(facts)))

    def _restore(self) -> int:
        """Loads the resume file, if there is one; returns how many epochs are done."""
        path = self._checkpoint("resume")
        if not path.exists():
            return 0
        with safe_open(path, framework="pt") as file:
            epoch = int(unpack(file.metadata())["epoch"])
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        weights: dict[str, Tensor] = {}
        moments: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "model":
                weights[rest] = tensor
            else:
                index, _, moment = rest.partition(".")
                moments[int(index)][moment] = tensor
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": dict(moments)})
        return epoch

    def _checkpoint(self, name: str) -> Path:
        return self.folder / "checkpoints" / f"{name}.safetensors"

    def _tensorboard(self, start: int) -> Any:
        from tensorboardX import SummaryWriter

        return SummaryWriter(logdir=str(self.folder / "tensorboard"), purge_step=start + 1)

    def _report(self, writer: Any, line: dict[str, Any]) -> None:
        for name, value in line.items():
            if name == "spike_rates":
                for layer, rate in value.items():
                    writer.add_scalar(f"spike_rate/{layer}", rate, line["epoch"])
            elif name != "epoch":
                writer.add_scalar(name, value, line["epoch"])
        writer.flush()
        part = self.settings.selection
        chosen = "" if part == "last" else f", {part} accuracy {line[f'{part}_accuracy']:.1%}"
        self.say(
            f"epoch {line['epoch']}/{self.settings.epochs}: loss {line['loss']:.4f}, "
            f"accuracy {line['accuracy']:.1%}{chosen}, {line['samples_per_second']:.0f} samples/s"
        )
        self._report_silence(line["spike_rates"])

    def _report_silence(self, rates: Mapping[str, float]) -> None:
        """Says which attention and alignment layers had no spike all epoch, where that changed."""
        watched = [name for name in rates if name.startswith(MAY_FALL_SILENT)]
        silent = [name for name in watched if not rates[name]]
        if set(silent) != self.silent:
            self.silent = set(silent)
            layers = ", ".join(name.removesuffix(".lif") for name in silent) or "none"
            self.say(
                f"silent all epoch: {len(silent)} of {len(watched)} attention and alignment layers "
                f"({layers})"
            )


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices and filters only."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if parameter.ndim > 1]
    plain = [parameter for parameter in trainable if parameter.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPS)
