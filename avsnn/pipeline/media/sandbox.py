"""Decodes under a deadline, in a child process that may hang or crash without ending the run."""

import errno
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as DeadlineError
from functools import cache
from multiprocessing import util
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast

from pebble import ProcessExpired, ProcessPool

from avsnn.pipeline.engine.children import keep_current_folder_off_children
from avsnn.pipeline.media.errors import MediaError

# How long a call may take, in s. A decoder that hangs never returns by itself.
DEADLINE_S = 60.0

P = ParamSpec("P")
R = TypeVar("R")


class DecoderDiedError(MediaError):
    """A decoder hung or crashed."""


class Pending(Generic[R]):
    """A call of a decoder in a sandbox, which may not have ended yet."""

    def __init__(self, future: "Future[R]") -> None:
        self._future = future

    def result(self) -> R:
        """Wait for the decoder, and return its result.

        Raises:
            DecoderDiedError: the decoder did not finish within 60 s, or crashed.
            MediaError: the decoder raised the error.
            OSError: the disk failed; nothing is known about the file.
        """
        try:
            return self._future.result()
        except DeadlineError:
            raise DecoderDiedError(f"did not finish decoding within {DEADLINE_S:.0f} s") from None
        except ProcessExpired as error:
            if sys.platform != "win32" and error.exitcode == -signal.SIGBUS:
                # The kernel ends a process so if it has mapped a file that cannot be read.
                raise OSError(errno.EIO, "a file could not be read while it was decoded") from None
            raise DecoderDiedError(f"crashed its decoder (exit code {error.exitcode})") from None


class Sandbox:
    """Child processes in which decoders may hang or crash.

    Args:
        workers: number of child processes; the first call starts all of them.
    """

    def __init__(self, workers: int) -> None:
        # Dask starts its workers as daemons, and Python forbids children of daemons, because such
        # children could outlive the daemon. The children of this pool end with their parent.
        multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
        keep_current_folder_off_children()
        self._pool = ProcessPool(
            max_workers=workers,
            # The annotation of pebble does not fit the pipes of Windows.
            context=cast("Any", _Context()),
            initializer=_prepare_child,
            initargs=(os.getpid(),),
        )
        # A process of multiprocessing calls finalizers before the process waits for its own
        # children, and calls functions of `atexit` only afterwards.
        self._stop = util.Finalize(None, self._pool.stop, exitpriority=100)
        self._lock = threading.Lock()
        self._unfinished: set[Future[Any]] = set()

    def start(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Pending[R]:
        """Let the next free child process call a decoder; do not wait."""
        with self._lock:
            future = self._pool.schedule(function, args=args, kwargs=kwargs, timeout=DEADLINE_S)
            self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return Pending(future)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the child processes at once, also those that still decode.

        A thread that waits for a result gets a `CancelledError`.
        """
        with self._lock:
            self._stop()
        for future in tuple(self._unfinished):
            future.cancel()
        self._pool.join()


def call(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a decoder in the sandbox of this process, and return its result.

    Raises:
        DecoderDiedError: the decoder did not finish within 60 s, or crashed.
        MediaError: the decoder raised the error.
        OSError: the disk failed; nothing is known about the file.
    """
    return _own_sandbox().start(function, *args, **kwargs).result()


@cache
def _own_sandbox() -> Sandbox:
    """Return the sandbox of this process, of one child process."""
    return Sandbox(1)


class _Process(SpawnProcess):
    """A child process that does not execute the script of its parent.

    `multiprocessing` imports the main script of the parent into every child. A script of three
    lines that decodes a clip would then decode the clip in the child, too, and so on without end.
    """

    @staticmethod
    def _Popen(process: BaseProcess) -> Any:  # noqa: N802 - the name is of `multiprocessing`
        main = sys.modules["__main__"]
        # `multiprocessing` finds no script in a module without a file.
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return SpawnProcess._Popen(process)
        finally:
            sys.modules["__main__"] = main


class _Context(SpawnContext):
    """Starts new processes, because a decoder that was opened before a fork would hang a fork."""

    Process = _Process


def _prepare_child(parent: int) -> None:
    """Prepare the child process, and end it when its parent is gone, even if a decoder hangs."""
    # Decoders print errors to stderr; avsnn records the reasons instead.
    with open(os.devnull, "wb") as devnull:  # noqa: PTH123
        os.dup2(devnull.fileno(), 2)
    # Once a large block was freed, malloc keeps freed memory. Otherwise malloc would return the
    # memory of every frame to the system, and the system would clear the memory for the next frame:
    # a fifth of the time.
    bytearray(24 * 2**20)

    def exit_after_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=exit_after_parent, daemon=True).start()
