"""What every child process of a command needs from its parent."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


def keep_current_folder_off_children() -> None:
    """Make Python processes that start from now on ignore the modules of the current folder.

    Python starts the children of ``multiprocessing`` with the current folder first in its search
    path. A file ``struct.py`` or ``pickle.py`` in that folder would be executed in place of the
    module of the library.
    """
    os.environ["PYTHONSAFEPATH"] = "1"


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def children_block_signals(*signals: signal.Signals) -> Iterator[None]:
    """Make the processes that start inside this context ignore some signals for ever.

    A terminal sends Ctrl-C to all processes, and a cluster sends SIGTERM to all processes, also to
    a process that is still starting; this process ends its children itself. The threads that start
    inside this context, and the processes that these threads start later, inherit the blocked
    signals. Ctrl-C or a SIGTERM that comes meanwhile arrives when the context is left.
    """
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
