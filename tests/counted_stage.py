"""A stage whose units say that they run, and kill processes where a test wants that."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from avsnn.pipeline.engine.stage import Outcome, Stage, Unit


@dataclass(frozen=True)
class Counted(Stage):
    """Units that write one small file each, and a line in ``runs`` before the file.

    Attributes:
        folder: where the files go.
        state: the folder of the journal, and of ``runs``.
        count: number of units.
        kills: the processes that a unit kills, by the number of the unit; 0 is the unit's own.
    """

    name: ClassVar[str] = "counted"
    version: ClassVar[int] = 1
    decodes: ClassVar[bool] = True

    folder: Path
    state: Path
    count: int
    kills: dict[int, list[int]] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        return {}

    def units(self) -> Iterator[Unit]:
        for number in range(self.count):
            yield Unit(f"unit-{number}", (f"{number}.txt",), {}, number)

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        with (self.state / "runs").open("a") as runs:
            runs.write(f"{unit.name}\n")
        # The own process comes last, because no other process dies after that.
        pids = (pid or os.getpid() for pid in self.kills.get(unit.work, []))
        for pid in sorted(pids, key=os.getpid().__eq__):
            os.kill(pid, signal.SIGKILL)
        (scratch / unit.outputs[0]).write_text(unit.name)
        return Outcome(written=1)

    def runs(self) -> list[str]:
        """Return the names of the units that ran, in the order in which they began."""
        return (self.state / "runs").read_text().split()
