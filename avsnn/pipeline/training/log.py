"""What a person is told of a training: a note on the bar, a line and TensorBoard's figures."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from avsnn.pipeline.engine.progress import CourseOfWork
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.training.epoch_totals import LOSSES, EpochTotals

# The layers of attention and alignment. These layers may fall silent for good, and the weights
# before and behind a silent layer stop learning.
MAY_FALL_SILENT = ("fusion.", "attention.")


# Seconds between two notes on the progress bar. On a GPU every note waits for the device.
NOTE_INTERVAL_S = 0.5


class Curves:
    """A file with curves for TensorBoard, written without a thread and without a queue.

    `SummaryWriter` of tensorboardX hands every figure to a thread through a queue of
    `multiprocessing`. The queue needs a /dev/shm to which this process may write, and a training
    would wait for ever for a thread that an error has ended, for example on a full disk.

    Args:
        folder: the folder for TensorBoard; the class makes the folder.
        first_epoch: TensorBoard drops the curves of older files from this epoch on.
    """

    def __init__(self, folder: Path, *, first_epoch: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        # The name holds whole seconds, so two trainings within a second need another difference.
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        self._event = Event
        self._writer.write_event(Event(step=first_epoch, file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(step=first_epoch, session_log=start))

    def add(self, name: str, value: float, epoch: int) -> None:
        """Add a point to a curve."""
        from tensorboardX.summary import scalar

        event = self._event(wall_time=time.time(), step=epoch, summary=scalar(name, value))
        self._writer.write_event(event)

    def flush(self) -> None:
        """Flush the points to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class TrainingLog:
    """Tells of a run, from the main process.

    Args:
        folder: the folder for TensorBoard; the log makes the folder.
        settings: the settings of the run.
        first_epoch: the first epoch that this call trains; TensorBoard drops the curves from this
            epoch on, because a run that was cut wrote them.
        say: gets one sentence at a time.
    """

    def __init__(
        self, folder: Path, settings: TrainSettings, first_epoch: int, say: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._say = say
        self._first, self._began = first_epoch, time.monotonic()
        self._silent: set[str] = set()
        self._curves = Curves(folder, first_epoch=first_epoch + 1)

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Tell of a finished epoch.

        Args:
            line: the line of the epoch in ``metrics.jsonl``.
        """
        for name, value in line.items():
            if name == "spike_rates":
                for layer, rate in value.items():
                    self._curves.add(f"spike_rate/{layer}", rate, line["epoch"])
            elif name not in ("epoch", "kernels"):
                self._curves.add(name, value, line["epoch"])
        self._curves.flush()
        part, epochs = self._settings.selection, self._settings.epochs
        chosen = "" if part == "last" else f", {part} accuracy {line[f'{part}_accuracy']:.1%}"
        sentence = (
            f"epoch {line['epoch']}/{epochs}: loss {line['loss']:.4f}, accuracy "
            f"{line['accuracy']:.1%}{chosen}, {line['samples_per_second']:.0f} samples/s"
            f"{self._time_left(line['epoch'])}"
        )
        self._say(CourseOfWork(sentence))
        self._tell_silent_layers(line["spike_rates"])

    def close(self) -> None:
        """Close the files of TensorBoard."""
        self._curves.close()

    def _time_left(self, epoch: int) -> str:
        left = (self._settings.epochs - epoch) / (epoch - self._first)
        seconds = left * (time.monotonic() - self._began)
        if seconds < 60:
            return f", {seconds:.0f} s left" if seconds else ""
        return f", {seconds / 60:.0f} min left"

    def _tell_silent_layers(self, rates: Mapping[str, float]) -> None:
        """Name the attention and alignment layers without a spike all epoch, if the set changed."""
        watched = [name for name in rates if name.startswith(MAY_FALL_SILENT)]
        silent = [name for name in watched if not rates[name]]
        if set(silent) != self._silent:
            self._silent = set(silent)
            layers = ", ".join(name.removesuffix(".lif") for name in silent) or "none"
            self._say(
                f"silent all epoch: {len(silent)} of {len(watched)} attention and alignment layers "
                f"({layers})"
            )


def progress_note(totals: EpochTotals, *, samples_per_second: float) -> str:
    """Return the figures of this process's part of an epoch, for the progress bar."""
    means = totals.means(all_processes=False)
    losses = "  ".join(f"{name} {means[name]:.3f}" for name in LOSSES if means[name])
    rates = totals.spike_rates(all_processes=False).values()
    firing = f"  firing {sum(rates) / len(rates):.1%}" if rates else ""
    return f"{losses}  accuracy {means['accuracy']:.1%}{firing}  {samples_per_second:.0f} samples/s"
