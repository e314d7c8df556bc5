"""The training loop, from top to bottom, resumable at every step."""

import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from avsnn.errors import PreemptedError, RunError
from avsnn.pipeline.engine.progress import CourseOfWork, Progress
from avsnn.pipeline.inference.inputs import network_inputs
from avsnn.pipeline.inference.memory import require_memory
from avsnn.pipeline.inference.predict import Scores
from avsnn.pipeline.loading.batch import Batch
from avsnn.pipeline.loading.dataset import open_source
from avsnn.pipeline.loading.loader import Loader
from avsnn.pipeline.loading.order import (
    BatchRequest,
    step_seed,
    steps_per_epoch,
    training_requests,
)
from avsnn.pipeline.loading.parts import Parts
from avsnn.pipeline.loading.per_step import require_steps
from avsnn.pipeline.loading.shard_windows import in_windows
from avsnn.pipeline.runs.checkpoint import (
    Checkpoint,
    best_checkpoint,
    last_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.runs.metrics import best_epoch, repair_metrics, write_metrics
from avsnn.pipeline.training.balance import balance_words, drop_modalities
from avsnn.pipeline.training.distributed import ProcessGroup
from avsnn.pipeline.training.epoch_evaluation import recalibrate_norms, scores_on
from avsnn.pipeline.training.epoch_totals import EpochTotals
from avsnn.pipeline.training.finite_check import (
    BadStep,
    FiniteCheck,
    is_finite,
    not_finite_error,
    require_finite_loss,
)
from avsnn.pipeline.training.graphed_step import graphed
from avsnn.pipeline.training.log import NOTE_INTERVAL_S, TrainingLog, progress_note
from avsnn.pipeline.training.optimizer import learning_rate, set_learning_rate
from avsnn.pipeline.training.options import RunOptions
from avsnn.pipeline.training.resume import (
    START,
    Position,
    newest_undamaged,
    restore_resume_point,
    resume_path,
    save_resume_point,
)
from avsnn.pipeline.training.sigterm import SigtermWatch, ToldToEnd
from avsnn.pipeline.training.state import build_state
from avsnn.pipeline.training.step import TrainingStep


class TrainingLoop:
    """Trains one run, in one process or as one process of a group.

    Args:
        config: the configuration of the run.
        folder: the run folder.
        options: device, data source and how often to save.
        group: the processes that train together.
        progress: told of every step.
        say: gets one sentence at a time that a person should read.

    Raises:
        UserError: the settings make no network, a batch is larger than the training part, or a
            batch cannot be shared out evenly.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        options: RunOptions,
        group: ProcessGroup,
        progress: Progress,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.settings = config, config.settings
        self.folder, self.checkpoints = folder, folder / "checkpoints"
        self.options, self.group, self.progress = options, group, progress
        self.sigterm = SigtermWatch()
        self.say = say if group.is_main else lambda _: None
        self.loader = Loader(
            partial(open_source, config, shards=options.shards),
            self.settings,
            workers=options.workers,
            device=options.device,
        )
        source = self.loader.source
        for note in filter(None, (source.note, *require_steps(config, source))):
            self.say(note)
        parts = Parts(config, source)
        rows = parts.rows_to_train(self.settings)
        self.steps = steps_per_epoch(len(rows), self.settings.batch_size)
        self.rows, self.windows = in_windows(parts, rows, self.settings, self.say)
        group.require_even_shares(self.settings.batch_size, self.settings.optimizer.accumulate)
        self.selection_rows = None
        if self.settings.selection != "last":
            self.selection_rows = parts.rows(self.settings.selection)
        require_memory(config, source.shapes, options.device, processes=group.world_size)
        self.state = build_state(config, source.shapes, options.device, group, self.say)
        has_streams = self.state.strategy is not None
        self.totals = EpochTotals(self.state.model, group=group, has_streams=has_streams)
        self.metrics: list[dict[str, Any]] = []
        self.check = FiniteCheck(options.device)
        step = TrainingStep(self.state, self.settings, group, self.check, self.totals)
        self.take_step = graphed(
            step, self.settings, options.device, processes=group.world_size, say=self.say
        )

    def run(self, sigterm: SigtermWatch) -> int:
        """Train the epochs that are missing, while the caller holds the lock of the run folder.

        Args:
            sigterm: tells whether SIGTERM has come.

        Returns:
            how many epochs were finished before.

        Raises:
            PreemptedError: SIGTERM came, and the training is saved.
            RunError: the training computed a value that is NaN or infinite, or the run folder was
                deleted.
        """
        self.sigterm = sigterm
        if self.group.is_main:
            self.lock_stat = (self.folder / ".lock").stat()
        self.start, totals_before = self._restore()
        self._announce(self.start)
        log = None
        if self.group.is_main:
            folder = self.folder / "tensorboard"
            log = TrainingLog(folder, self.settings, self.start.epoch, self.say)
        first_step = self.start.step
        for epoch in range(self.start.epoch, self.settings.epochs):
            self.totals.restore(totals_before, steps=first_step)
            line = self._train_epoch(epoch, first_step)
            self._require_finite(Position(epoch + 1, 0), group=self.group)
            first_step, totals_before = 0, {}
            if self.settings.optimizer.recalibrate_norms and not self._recalibrate_norms():
                self._stop(Position(epoch, self.steps))
            if self.selection_rows is not None:
                scores, part = self._evaluate_selection(), self.settings.selection
                if scores is None:
                    self._stop(Position(epoch, self.steps))
                line |= {f"{part}_loss": scores.loss, f"{part}_accuracy": scores.accuracy}
                require_finite_loss(scores.loss, part, epoch)
            self.metrics.append(line)
            self._save_weights_and_metrics()
            self._save_resume_point(Position(epoch + 1, 0), {})
            if log is not None:
                log.epoch(line)
            if epoch + 1 < self.settings.epochs and self.group.any(self.sigterm.has_come):
                raise PreemptedError
        if log is not None:
            log.close()
        self._require_folder()
        return self.start.epoch

    def _train_epoch(self, epoch: int, first_step: int) -> dict[str, Any]:
        """Train one epoch, and return the epoch's line of ``metrics.jsonl``."""
        settings, state, group, totals = self.settings, self.state, self.group, self.totals
        lr = self._set_learning_rate(epoch)
        state.model.train()
        requests = self._requests(epoch, first_step, group)
        steps_to_do = self.steps - first_step
        self.progress.start(f"epoch {epoch + 1}/{settings.epochs}", steps_to_do, "steps")
        began = noted = time.monotonic()
        batches = self.loader.read(requests)
        try:
            for step in range(first_step, self.steps):
                batch = self._next_batch(batches, Position(epoch, step))
                is_last = step + 1 == self.steps
                self._take_step(batch, epoch=epoch, step=step)
                now, note = time.monotonic(), ""
                if now - noted > NOTE_INTERVAL_S and not is_last:
                    rate = (step + 1 - first_step) * settings.batch_size / (now - began)
                    noted, note = now, progress_note(totals, samples_per_second=rate)
                    self._require_finite(Position(epoch, step + 1), group=ProcessGroup())
                self.progress.advance(note=note)
                if not is_last:
                    self._save_between_steps(Position(epoch, step + 1))
        finally:
            self.progress.stop()
        samples_per_second = steps_to_do * settings.batch_size / (time.monotonic() - began)
        rates = totals.spike_rates(all_processes=True)
        return {
            "epoch": epoch + 1,
            "lr": lr,
            "kernels": state.kernels,
            **totals.means(all_processes=True),
            "samples_per_second": round(samples_per_second, 1),
            # Four significant digits, so that a rate is 0 only if there was no spike at all.
            "spike_rates": {name: float(f"{rate:.4g}") for name, rate in rates.items()},
        }

    def _requests(
        self, epoch: int, first_step: int, group: ProcessGroup, *, batch_size: int | None = None
    ) -> Iterator[BatchRequest]:
        return training_requests(
            self.rows,
            batch_size=batch_size or self.settings.batch_size,
            seed=self.settings.seed,
            epoch=epoch,
            first_step=first_step,
            rank=group.rank,
            world_size=group.world_size,
            windows=self.windows,
        )

    def _take_step(self, batch: Batch, *, epoch: int, step: int) -> None:
        inputs = network_inputs(batch, self.settings)
        inputs = drop_modalities(inputs, batch.rows, self.settings, epoch=epoch)
        # Some networks and strategies draw numbers (SCA, OGM-GE). The seed depends on the step
        # alone, so a resumed run draws the same numbers.
        torch.manual_seed(step_seed(seed=self.settings.seed, epoch=epoch, step=step))
        self.check.start_step(epoch=epoch, step=step)
        self.take_step(*inputs, batch.labels)
        self.totals.steps += 1

    def _next_batch(self, batches: Iterator[Batch], position: Position) -> Batch:
        """Return the next batch; SIGTERM ends the waiting for the batch.

        Of several processes, none may leave while the others take the step; these processes obey
        SIGTERM after the step.
        """
        try:
            with self.sigterm.at_once() if self.group.world_size == 1 else nullcontext():
                return next(batches)
        except ToldToEnd:
            self._require_finite(position, group=self.group)
            self._stop(position)

    def _set_learning_rate(self, epoch: int) -> float:
        settings = self.settings
        lr = learning_rate(
            settings.optimizer, epoch=epoch, epochs=settings.epochs, batch_size=settings.batch_size
        )
        set_learning_rate(self.state.optimizer, lr)
        return lr

    def _recalibrate_norms(self) -> bool:
        """Compute the statistics of batch norm anew; return False if SIGTERM came."""
        # Batch norm sees as many clips as in a step, in the order of the first epoch.
        size = self.settings.batch_size // self.settings.optimizer.accumulate
        requests = self._requests(0, 0, self.group, batch_size=size)
        return recalibrate_norms(
            requests, self.state, self.loader, self.settings, group=self.group, sigterm=self.sigterm
        )

    def _evaluate_selection(self) -> Scores | None:
        """Return the scores on the part that chooses the epoch; None if SIGTERM came."""
        rows = self.selection_rows
        assert rows is not None  # noqa: S101 - narrows the type
        return scores_on(
            rows, self.state, self.loader, self.settings, group=self.group, sigterm=self.sigterm
        )

    def _save_weights_and_metrics(self) -> None:
        """Save the weights and the figures of an epoch; the resume point is saved after both."""
        if not self.group.is_main:
            return
        self._require_folder()
        facts = {"epoch": self.metrics[-1]["epoch"], "run": self.config.fingerprint}
        checkpoint = Checkpoint(dict(self.state.evaluated.state_dict()), facts)
        write_checkpoint(last_checkpoint(self.folder), checkpoint)
        if best_epoch(self.metrics, self.settings.selection) is self.metrics[-1]:
            write_checkpoint(best_checkpoint(self.folder), checkpoint)
        write_metrics(self.folder, self.metrics)

    def _save_between_steps(self, position: Position) -> None:
        """Save a resume point within an epoch if it is time to save, or time to end."""
        stop, every = self.group.any(self.sigterm.has_come), self.options.save_every
        if stop or (every and (position.epoch * self.steps + position.step) % every == 0):
            self._require_finite(position, group=self.group)
            if stop:
                self._stop(position)
            self._save_resume_point(position, self.totals.state())

    def _stop(self, position: Position) -> NoReturn:
        """Save where the training stands, unless it stands where it started, and end it."""
        if position != self.start:
            # Every process takes part in `totals.state`, which adds up the sums of all processes.
            self._save_resume_point(position, self.totals.state())
        raise PreemptedError

    def _require_folder(self) -> None:
        """Check that the run folder is the folder whose lock this process holds.

        Raises:
            RunError: the folder was deleted. Writing would make a folder without configuration.
        """
        if not self.group.is_main:
            return
        with suppress(FileNotFoundError):
            if os.path.samestat((self.folder / ".lock").stat(), self.lock_stat):
                return
        raise RunError(
            f"{self.folder} was deleted or replaced while it was trained, so nothing more is saved "
            "there; run the same command again."
        )

    def _require_finite(self, position: Position, *, group: ProcessGroup) -> None:
        """End a training that computed a value that is NaN or infinite, before it is saved.

        Args:
            position: where the training stands.
            group: the processes that check together; a group of one checks this process alone.

        Raises:
            RunError: a value is not finite; the sentence names the step and its first clips.
        """
        bad = self.check.first_bad_step(group)
        if bad is None and group.any(not is_finite(self.state.model)):
            epoch, step = divmod(position.epoch * self.steps + position.step - 1, self.steps)
            bad = BadStep(epoch, step, "a weight")
        if bad is None:
            return
        rows = next(self._requests(bad.epoch, bad.step, ProcessGroup())).rows
        keys = self.loader.source.keys[rows].tolist()
        lr = float(self.state.optimizer.param_groups[0]["lr"])
        raise not_finite_error(bad, run=self.folder, lr=lr, clips=keys)

    def _save_resume_point(self, position: Position, totals: Mapping[str, Tensor]) -> None:
        if self.group.is_main:
            self._require_folder()
            save_resume_point(
                self.checkpoints,
                position,
                self.state,
                totals,
                run=self.config.fingerprint,
                keep=self.options.keep,
            )

    def _restore(self) -> tuple[Position, Mapping[str, Tensor]]:
        """Put back the newest resume point that serves; return where the training stands."""
        found: tuple[Position, Checkpoint] | None = None

        def choose() -> tuple[list[dict[str, Any]], Position | None]:
            nonlocal found
            metrics = repair_metrics(self.folder, self.settings.selection)
            if metrics.damage:
                self.say(f"{metrics.damage}: epochs after {len(metrics.lines)} are trained again")
            found = newest_undamaged(self.checkpoints, self.say, epochs=len(metrics.lines))
            return metrics.lines, found[0] if found else None

        # The choice of the main process is the choice of every process.
        lines, position = self.group.on_main(choose)
        if position is None:
            return START, {}
        self.metrics = lines[: position.epoch]
        if found is None:
            found = position, read_checkpoint(resume_path(self.checkpoints, position))
        return position, restore_resume_point(*found, self.state, self.say)

    def _announce(self, start: Position) -> None:
        """Say what is trained, on how many clips, and where the training goes on."""
        settings, state = self.settings, self.state
        count = sum(parameter.numel() for parameter in state.model.parameters())
        chosen = done = together = ""
        if self.selection_rows is not None:
            chosen = f", {len(self.selection_rows):,} of {settings.selection} to choose the epoch"
        if start != START:
            done = f", {start.epoch} of {settings.epochs} epochs and {start.step} steps done before"
        if self.group.world_size > 1:
            together = f" in {self.group.world_size} processes"
        steps = "1 step" if self.steps == 1 else f"{self.steps} steps"
        left_out = len(self.rows) - self.steps * settings.batch_size
        sentence = (
            f"{self.folder}: {settings.model.method} with {count:,} parameters on "
            f"{state.device}{together} (kernels: {state.kernels}), {len(self.rows):,} clips to "
            f"train on ({steps} of {settings.batch_size}, {left_out} other clips sit out each "
            f"epoch){chosen}{balance_words(settings.balance)}{done}"
        )
        self.say(CourseOfWork(sentence))

    def close(self) -> None:
        """Drop the wrapper that ties the processes together, while the process group exists."""
        # The wrapper's destructor ends threads of the process group. The destructor would wait for
        # ever for these threads once the process group is gone.
        self.state.wrapped = self.state.model
        gc.collect()
