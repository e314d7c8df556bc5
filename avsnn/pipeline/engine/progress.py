"""Where long work reports to."""

from typing import Protocol


class Progress(Protocol):
    """Where long work reports to; the command line draws it, a log prints it."""

    def start(self, title: str, total: int, unit: str) -> None:
        """Work of ``total`` units begins."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """``count`` more units are done; ``note`` says how it stands."""

    def stop(self) -> None:
        """The work ended."""
