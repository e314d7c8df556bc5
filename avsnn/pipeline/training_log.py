"""How a training is told: a note on the bar, a line and TensorBoard's figures for each epoch."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from avsnn.pipeline.run import TrainSettings
from avsnn.pipeline.tally import Tally

# Where attention and alignment stand: layers that may fall silent for good, and what they feed then
# stays as it is.
MAY_FALL_SILENT = ("fusion.", "attention.")

LOSSES = ("loss", "cross_entropy", "alignment", "auxiliary")


class TrainingLog:
    """Tells of a run, from one of its processes.

    Args:
        folder: TensorBoard's, made here.
        settings: of the run.
        first_epoch: that this call trains; curves of later ones are from a run that was cut.
        say: given one sentence at a time.
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
        """Tells of a finished epoch by its line of ``metrics.jsonl``."""
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
        self._tell_silence(line["spike_rates"])

    def close(self) -> None:
        """Nothing comes after it."""
        self._writer.close()

    def _time_left(self, epoch: int) -> str:
        left = (self._settings.epochs - epoch) / (epoch - self._first)
        seconds = left * (time.monotonic() - self._began)
        if seconds < 60:
            return f", {seconds:.0f} s left" if seconds else ""
        return f", {seconds / 60:.0f} min left"

    def _tell_silence(self, rates: Mapping[str, float]) -> None:
        """Which attention and alignment layers had no spike all epoch, where that changed."""
        watched = [name for name in rates if name.startswith(MAY_FALL_SILENT)]
        silent = [name for name in watched if not rates[name]]
        if set(silent) != self._silent:
            self._silent = set(silent)
            layers = ", ".join(name.removesuffix(".lif") for name in silent) or "none"
            self._say(
                f"silent all epoch: {len(silent)} of {len(watched)} attention and alignment layers "
                f"({layers})"
            )


def note(tally: Tally, *, samples_per_second: float) -> str:
    """How this process's part of an epoch stands."""
    means = tally.means(everywhere=False)
    parts = "  ".join(f"{name} {means[name]:.3f}" for name in LOSSES if means[name])
    rates = tally.spike_rates(everywhere=False).values()
    firing = f"  firing {sum(rates) / len(rates):.1%}" if rates else ""
    return f"{parts}  accuracy {means['accuracy']:.1%}{firing}  {samples_per_second:.0f} samples/s"
