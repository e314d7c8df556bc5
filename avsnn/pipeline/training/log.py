"""What a person is told of a training: a note on the bar, a line and TensorBoard's figures."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.training.epoch_totals import EpochTotals

# The layers of attention and alignment. These layers may fall silent for good, and the weights
# before and behind a silent layer stop learning.
MAY_FALL_SILENT = ("fusion.", "attention.")

LOSSES = ("loss", "cross_entropy", "alignment", "auxiliary")


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
        from tensorboardX import SummaryWriter

        self._settings = settings
        self._say = say
        self._first, self._began = first_epoch, time.monotonic()
        self._silent: set[str] = set()
        self._writer = SummaryWriter(logdir=str(folder), purge_step=first_epoch + 1)

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Tell of a finished epoch.

        Args:
            line: the line of the epoch in ``metrics.jsonl``.
        """
        for name, value in line.items():
            if name == "spike_rates":
                for layer, rate in value.items():
                    self._writer.add_scalar(f"spike_rate/{layer}", rate, line["epoch"])
            elif name not in ("epoch", "kernels"):
                self._writer.add_scalar(name, value, line["epoch"])
        self._writer.flush()
        part, epochs = self._settings.selection, self._settings.epochs
        chosen = "" if part == "last" else f", {part} accuracy {line[f'{part}_accuracy']:.1%}"
        self._say(
            f"epoch {line['epoch']}/{epochs}: loss {line['loss']:.4f}, accuracy "
            f"{line['accuracy']:.1%}{chosen}, {line['samples_per_second']:.0f} samples/s"
            f"{self._time_left(line['epoch'])}"
        )
        self._tell_silent_layers(line["spike_rates"])

    def close(self) -> None:
        """Close the files of TensorBoard."""
        self._writer.close()

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
