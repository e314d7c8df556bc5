"""The progress of long work: a bar on a terminal, plain lines in a log, or nothing."""

import time

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from avsnn.cli.screen.console import err, is_follower
from avsnn.cli.streams import printable
from avsnn.cli.volume import volume
from avsnn.pipeline.engine.progress import NoProgress

LINES_PER_STAGE = 10


class ProgressBar:
    """A live bar with rate and time left, for a terminal."""

    def start(self, title: str, total: int, unit: str) -> None:
        """Show an empty bar for `total` units of work."""
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<12}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=err,
            transient=True,
        )
        self._task = self._bar.add_task(printable(title), total=total, unit=unit, note="", rate="")
        self._bar.start()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Move the bar by `count` units, and show the note beside the bar."""
        self._bar.advance(self._task, count)
        speed = self._bar.tasks[0].speed
        self._bar.update(self._task, note=note, rate=f"{speed:,.1f}/s" if speed else "")

    def stop(self) -> None:
        """Remove the bar; tables and sentences report the result of the work."""
        self._bar.stop()


class ProgressLines:
    """One plain line for every tenth of the work, for a log."""

    def start(self, title: str, total: int, unit: str) -> None:
        """Begin to count `total` units of work."""
        self._title, self._total, self._unit = title, total, unit
        self._done, self._began = 0, time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` units; print a line if the units complete a tenth of the work."""
        before, self._done = self._done, self._done + count
        if self._done * LINES_PER_STAGE // self._total > before * LINES_PER_STAGE // self._total:
            rate = self._done / max(1e-9, time.monotonic() - self._began)
            left = (self._total - self._done) / rate
            err.print(
                f"{self._title}: {self._done:,} of {self._total:,} {self._unit}, "
                f"{rate:,.1f}/s, {left:.0f} s left{', ' if note else ''}{note}"
            )

    def stop(self) -> None:
        """Do nothing: printed lines stay in the log."""


def make_progress(*, lines: bool = True) -> ProgressBar | ProgressLines | NoProgress:
    """Return a bar if stderr is a terminal, else lines; with --quiet, neither.

    Args:
        lines: with False, a log gets no lines, because the work itself says sentences to the log.
    """
    if is_follower() or volume.quiet:
        return NoProgress()
    if err.is_terminal:
        return ProgressBar()
    return ProgressLines() if lines else NoProgress()
