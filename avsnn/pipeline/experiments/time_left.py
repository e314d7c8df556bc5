"""The time that a table still takes, from the runs that have ended."""

from collections.abc import Sequence

from avsnn.errors import RunError
from avsnn.pipeline.experiments.experiment import Ended, Experiment
from avsnn.pipeline.runs.metrics import read_metrics


class TimeLeft:
    """Estimates the time that the missing runs of a table take.

    Args:
        experiments: the missing runs.
        jobs: number of trainings at the same time.
    """

    def __init__(self, experiments: Sequence[Experiment], jobs: int) -> None:
        self._jobs = jobs
        self._missing = {experiment.folder: experiment for experiment in experiments}
        self._epochs = {e.folder: _epochs_left(e) for e in experiments}
        self._measured_epochs, self._measured_s = 0, 0.0

    def after(self, ended: Ended) -> str:
        """Count a run that has ended; return a phrase on the runs that are left, or nothing."""
        experiment = self._missing.pop(ended.experiment.folder)
        self._measured_s += ended.seconds
        self._measured_epochs += self._epochs[experiment.folder] - _epochs_left(experiment)
        if not self._missing:
            return ""
        count = len(self._missing)
        runs = "1 run" if count == 1 else f"{count} runs"
        epochs = sum(map(_epochs_left, self._missing.values()))
        if not epochs or not self._measured_epochs:
            return f"; {runs} left"
        seconds = epochs * self._measured_s / self._measured_epochs / min(self._jobs, count)
        return f"; {runs} left, about {duration(seconds)}"


def _epochs_left(experiment: Experiment) -> int:
    settings = experiment.config.settings
    try:
        return settings.epochs - len(read_metrics(experiment.folder, settings.selection))
    except RunError:
        return settings.epochs


def duration(seconds: float) -> str:
    """Return a time as a person says it: `40 s`, `12 min`, `3 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
