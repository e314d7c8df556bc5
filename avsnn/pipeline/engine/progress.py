"""The interface through which long work reports its progress."""

from typing import Protocol


class CourseOfWork(str):
    """A sentence about work that goes as planned, which a person who wants quiet does not need."""

    __slots__ = ()


class Progress(Protocol):
    """The receiver of progress reports; the command line draws the reports, a log prints them."""

    def start(self, title: str, total: int, unit: str) -> None:
        """Report that work begins.

        Args:
            title: name of the work.
            total: number of units that the work has.
            unit: what is counted, in the plural.
        """

    def advance(self, count: int = 1, note: str = "") -> None:
        """Report that ``count`` more units are done; ``note`` describes the state of the work."""

    def stop(self) -> None:
        """Report that the work has ended."""


class NoProgress:
    """No output, for work whose progress nobody watches."""

    def start(self, title: str, total: int, unit: str) -> None:
        """Print nothing."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Print nothing."""

    def stop(self) -> None:
        """Print nothing."""
