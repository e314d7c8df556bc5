"""Runs a command in a process of its own, and measures what the command costs.

Processor time covers the command and all its descendants: this process adopts the orphans of the
command (Linux, ``PR_SET_CHILD_SUBREAPER``) and waits for the orphans, so none is lost. Memory is
the peak of resident memory (``VmHWM``), which the kernel keeps and which is read many times a
second.
"""

import ctypes
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

#: Number of the option of prctl that makes orphans children of this process.
PR_SET_CHILD_SUBREAPER = 36

POLL_S = 0.02
#: The whole tree of processes is read once in this number of polls, because that takes longer.
POLLS_PER_TREE = 10
#: How long orphans may go on after the command has ended, in s.
ORPHANS_S = 10.0


@dataclass
class Cost:
    """What a command costs.

    Attributes:
        wall: seconds by the clock.
        cpu: seconds of processor time, of the command and all its descendants.
        main_mb: peak memory of the command's own process, in MB (10**6 bytes).
        worker_mb: peak memory of the largest descendant, in MB; 0 where there was none.
        main_private_mb: peak memory of the command's own process without mapped files, in MB; the
            system takes the memory of mapped files back where the memory is needed.
        worker_private_mb: the same of the largest descendant.
        open_files: largest number of open files of one process of the command.
        processes: largest number of processes at the same time.
        output: what the command printed on stdout.
    """

    wall: float
    cpu: float
    main_mb: float
    worker_mb: float
    main_private_mb: float
    worker_private_mb: float
    open_files: int
    processes: int
    output: str = ""


class FailedError(Exception):
    """A command ended with another exit code than 0."""


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    until: Callable[[], bool] | None = None,
) -> Cost:
    """Run a command and return what the command costs.

    Args:
        command: the words of the command.
        environment: the environment of the command.
        log: file for what the command prints; a failure leaves the file.
        until: the command is killed as soon as this is true; None waits for its end.

    Raises:
        FailedError: the command failed, or ended before ``until`` was true.
    """
    _adopt_orphans()
    used = _cpu_of_children()
    began = time.monotonic()
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    watch = _Watch(process.pid)
    polls = 0
    # What the commands print is far less than a pipe holds, so the pipe is read at the end.
    while process.poll() is None and not (until and until()):
        watch.read(whole_tree=polls % POLLS_PER_TREE == 0)
        polls += 1
        time.sleep(POLL_S)
    ended_early = process.poll() is not None and until is not None
    wall = time.monotonic() - began
    if until is not None:
        process.kill()
    output = process.communicate()[0]
    _reap_orphans()
    if ended_early or (until is None and process.returncode):
        words = " ".join(command)
        raise FailedError(f"{words}: code {process.returncode}: {log.read_text()[-2000:]}{output}")
    main = watch.peaks.pop(process.pid, _Peak(0, 0))
    return Cost(
        wall=wall,
        cpu=_cpu_of_children() - used,
        main_mb=main.all / 1e6,
        worker_mb=max((peak.all for peak in watch.peaks.values()), default=0) / 1e6,
        main_private_mb=main.private / 1e6,
        worker_private_mb=max((peak.private for peak in watch.peaks.values()), default=0) / 1e6,
        open_files=watch.open_files,
        processes=watch.processes,
        output=output,
    )


class _Peak(NamedTuple):
    """Peak memory of a process in bytes: all, and without mapped files."""

    all: int
    private: int


class _Watch:
    """The peaks of a process and its descendants.

    Attributes:
        peaks: peak memory by number of the process.
        open_files: largest number of open files of one process.
        processes: largest number of processes at the same time.
    """

    def __init__(self, pid: int) -> None:
        self.peaks: dict[int, _Peak] = {}
        self.open_files = 0
        self.processes = 0
        self._pid = pid

    def read(self, *, whole_tree: bool) -> None:
        """Read the peaks of the process so far, or of the process and all its descendants."""
        pids = [self._pid]
        if whole_tree:
            with suppress(psutil.Error):
                tree = psutil.Process(self._pid).children(recursive=True)
                pids += [process.pid for process in tree]
            self.processes = max(self.processes, len(pids))
        for pid in pids:
            # A process that has ended has no memory any more.
            with suppress(OSError, KeyError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                facts = dict(line.split(":", 1) for line in lines)
                whole, private = (int(facts[name].split()[0]) for name in ("VmHWM", "RssAnon"))
                before = self.peaks.get(pid, _Peak(0, 0))
                self.peaks[pid] = _Peak(whole * 1024, max(before.private, private * 1024))
                if whole_tree:
                    open_files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
                    self.open_files = max(self.open_files, open_files)


def _adopt_orphans() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap_orphans() -> None:
    """Wait for the orphans that this process has adopted; kill those that go on for long."""
    deadline = time.monotonic() + ORPHANS_S
    with suppress(ChildProcessError):
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                if time.monotonic() > deadline:
                    for orphan in psutil.Process().children():
                        os.kill(orphan.pid, signal.SIGKILL)
                time.sleep(POLL_S)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
