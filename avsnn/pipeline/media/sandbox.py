"""Decoding under a deadline, in a process that may hang or crash without taking the run along."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as DeadlineError
from functools import cache
from multiprocessing import util
from typing import ParamSpec, TypeVar

from pebble import ProcessExpired, ProcessPool

from avsnn.pipeline.media import MediaError

P = ParamSpec("P")
R = TypeVar("R")

DEADLINE_S = 60.0


def call(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls a decoder in this process's sandbox.

    Raises:
        MediaError: the decoder raised it, did not finish within 60 s, or crashed.
    """
    future = _pool().schedule(function, args=args, kwargs=kwargs, timeout=DEADLINE_S)
    try:
        result: R = future.result()
    except DeadlineError:
        raise MediaError(f"its decoder did not finish within {DEADLINE_S:.0f} s") from None
    except ProcessExpired as error:
        raise MediaError(f"its decoder crashed (exit code {error.exitcode})") from None
    return result


@cache
def _pool() -> ProcessPool:
    # Dask starts its workers as daemons, which may have no children lest these outlive them; ours
    # leave with their parent.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    # Spawn: a decoder opened before a fork hangs the child.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(
        max_workers=1, context=context, initializer=_leave_with, initargs=(os.getpid(),)
    )
    # A multiprocessing child runs these before it waits for its own children; atexit comes after.
    util.Finalize(None, pool.stop, exitpriority=100)
    return pool


def _leave_with(parent: int) -> None:
    """Ends this process when its parent is gone, even from inside a decoder that hangs."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
