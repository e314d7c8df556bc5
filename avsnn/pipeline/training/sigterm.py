"""Obeys SIGTERM between two steps, or at once where a training only waits or measures."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from avsnn.errors import PreemptedError


class ToldToEnd(BaseException):
    """SIGTERM came in code that may end at any moment.

    The class is no `Exception`, because code that reads damaged files turns every `Exception` into
    a sentence about the damage.
    """


class SigtermWatch:
    """Notes SIGTERM.

    Attributes:
        has_come: whether SIGTERM has come.
    """

    def __init__(self) -> None:
        self.has_come = False
        self._at_once = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let SIGTERM end the code inside the context, which must not change the training.

        Raises:
            ToldToEnd: SIGTERM came inside the context, or before the context.
        """
        try:
            self._at_once = True
            if self.has_come:
                raise ToldToEnd
            yield
        finally:
            self._at_once = False

    def note(self, _signal: int, _frame: object) -> None:
        """Handle SIGTERM."""
        self.has_come = True
        if self._at_once:
            # A cluster and torchrun may both send SIGTERM. The second SIGTERM must not end the
            # code that saves the training.
            self._at_once = False
            raise ToldToEnd


@contextmanager
def watch_for_sigterm() -> Iterator[SigtermWatch]:
    """Yield a watch that notes SIGTERM while the context is open.

    A SIGTERM that nobody has obeyed inside the context arrives again when the context is left.
    """
    watch = SigtermWatch()
    # Python allows signal handlers in the main thread only.
    if threading.current_thread() is not threading.main_thread():
        yield watch
        return
    before = signal.signal(signal.SIGTERM, watch.note)
    try:
        yield watch
    except PreemptedError:
        watch.has_come = False
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        if watch.has_come:
            signal.raise_signal(signal.SIGTERM)
