"""What every child process of a command needs from its parent."""

import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path, PurePosixPath


def keep_current_folder_off_children() -> None:
    """Make Python processes that start from now on ignore the modules of the current folder.

    Python starts the children of ``multiprocessing`` with the current folder first in its search
    path. A file ``struct.py`` or ``pickle.py`` in that folder would be executed in place of the
    module of the library.
    """
    os.environ["PYTHONSAFEPATH"] = "1"


def usable_cores() -> int:
    """Return the number of cores that this process may use, by affinity and by quota."""
    if sys.platform == "linux":
        return min([len(os.sched_getaffinity(0)), *cores_of_quotas()])
    return os.cpu_count() or 1


def cores_of_quotas(
    mount: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """Return the number of cores of every CPU quota that limits this process, rounded up.

    A container or a service may see all cores of a machine, and get the time of a few. Linux keeps
    the quotas in folders of control groups: a quota limits the processes of its group and of all
    groups below.

    Args:
        mount: the folder where Linux shows the control groups, of version 1 or 2.
        membership: the file that names the groups of this process, each as ``id:controllers:path``.
    """
    found = []
    lines: list[list[str]] = []
    with suppress(OSError):
        text = membership.read_text(errors="surrogateescape")
        lines = [line.split(":", 2) for line in text.splitlines() if line.count(":") > 1]
    for _, controllers, path in lines:
        if not controllers:
            folder, read_quota = mount, _quota_of_version_2
        elif "cpu" in controllers.split(","):
            folder, read_quota = mount / "cpu", _quota_of_version_1
        else:
            continue
        own = PurePosixPath(path.lstrip("/"))
        for group in (own, *own.parents):
            # A group without a quota has the word `max` in place of a number, or -1.
            with suppress(OSError, ValueError):
                quota, period = read_quota(folder / group)
                if quota > 0 < period:
                    found.append(math.ceil(quota / period))
    return found


def _quota_of_version_2(group: Path) -> tuple[int, int]:
    quota, period = (group / "cpu.max").read_text().split()
    return int(quota), int(period)


def _quota_of_version_1(group: Path) -> tuple[int, int]:
    quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    return int(quota), int(period)


@contextmanager
def children_block_signals(*signals: signal.Signals) -> Iterator[None]:
    """Make the processes that start inside this context ignore some signals for ever.

    A terminal sends Ctrl-C to all processes, and a cluster sends SIGTERM to all processes, also to
    a process that is still starting; this process ends its children itself. The threads that start
    inside this context, and the processes that these threads start later, inherit the blocked
    signals. Ctrl-C or a SIGTERM that comes meanwhile arrives when the context is left. Windows has
    no signals to block.
    """
    if sys.platform == "win32":
        yield
        return
    # When `multiprocessing` starts its resource tracker, it unblocks the signals.
    resource_tracker.ensure_running()
    with _handlers_deferred(signal.SIGINT, signal.SIGTERM):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _handlers_deferred(*signals: signal.Signals) -> Iterator[None]:
    """Call the handlers of signals that come inside this context when the context is left.

    Blocking a signal in the main thread is not enough: the system gives the signal to another
    thread, and Python calls the handler in the main thread all the same. A handler that raises an
    error would then leave a child that nobody knows.
    """
    came: set[int] = set()
    # Python allows signal handlers in the main thread only.
    is_main = threading.current_thread() is threading.main_thread()
    # The handler is None if another library installed the handler without Python.
    handlers = {s: signal.getsignal(s) for s in signals if is_main}
    known = {s: handler for s, handler in handlers.items() if handler is not None}
    for number in known:
        signal.signal(number, lambda number, _frame: came.add(number))
    try:
        yield
    finally:
        for number, handler in known.items():
            signal.signal(number, handler)
        for missed in sorted(came):
            signal.raise_signal(missed)
