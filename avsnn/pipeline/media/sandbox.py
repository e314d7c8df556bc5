"""Decodes under a deadline, in a child process that may hang or crash without ending the run."""

import errno
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as DeadlineError
from functools import cache
from multiprocessing import util
from typing import ParamSpec, TypeVar

from pebble import ProcessExpired, ProcessPool

from avsnn.pipeline.engine.children import keep_current_folder_off_children
from avsnn.pipeline.media.errors import MediaError

# How long a call may take, in s. A decoder that hangs never returns by itself.
DEADLINE_S = 60.0

P = ParamSpec("P")
R = TypeVar("R")


class DecoderDiedError(MediaError):
    """A decoder hung or crashed."""


def call(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a decoder in the sandbox of this process, and return its result.

    Raises:
        DecoderDiedError: the decoder did not finish within 60 s, or crashed.
        MediaError: the decoder raised the error.
        OSError: the disk failed; nothing is known about the file.
    """
    future = _pool().schedule(function, args=args, kwargs=kwargs, timeout=DEADLINE_S)
    try:
        result: R = future.result()
    except DeadlineError:
        raise DecoderDiedError(f"did not finish decoding within {DEADLINE_S:.0f} s") from None
    except ProcessExpired as error:
        if error.exitcode == -signal.SIGBUS:
            # The kernel ends a process so if the process has mapped a file that cannot be read.
            raise OSError(errno.EIO, "a file could not be read while it was decoded") from None
        raise DecoderDiedError(f"crashed its decoder (exit code {error.exitcode})") from None
    return result


@cache
def _pool() -> ProcessPool:
    """Return the pool of one child process; the first call starts the pool."""
    # Dask starts its workers as daemons, and Python forbids children of daemons, because such
    # children could outlive the daemon. The child of this pool ends with its parent.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    keep_current_folder_off_children()
    # With "fork", a decoder that was opened before the fork would hang the child.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(
        max_workers=1, context=context, initializer=_prepare_child, initargs=(os.getpid(),)
    )
    # A process of multiprocessing calls finalizers before the process waits for its own children,
    # and calls functions of `atexit` only afterwards.
    util.Finalize(None, pool.stop, exitpriority=100)
    return pool


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
