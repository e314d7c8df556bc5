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

from avsnn.pipeline.media.errors import MediaError

P = ParamSpec("P")


R = TypeVar("R")


DEADLINE_S = 60.0


class DecoderDiedError(MediaError):
    """A decoder that hung or crashed, so that another one may be tried."""


def call(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls a decoder in this process's sandbox.

    Raises:
        DecoderDiedError: it did not finish within 60 s, or crashed.
        MediaError: it raised that.
    """
    future = _pool().schedule(function, args=args, kwargs=kwargs, timeout=DEADLINE_S)
    try:
        result: R = future.result()
    except DeadlineError:
        raise DecoderDiedError(f"did not finish decoding within {DEADLINE_S:.0f} s") from None
    except ProcessExpired as error:
        raise DecoderDiedError(f"crashed its decoder (exit code {error.exitcode})") from None
    return result


@cache
def _pool() -> ProcessPool:
    # Dask starts its workers as daemons, which may have no children lest these outlive them; ours
    # leave with their parent.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    # Spawn: a decoder opened before a fork hangs the child.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(max_workers=1, context=context, initializer=_settle, initargs=(os.getpid(),))
    # A multiprocessing child runs these before it waits for its own children; atexit comes after.
    util.Finalize(None, pool.stop, exitpriority=100)
    return pool


def _settle(parent: int) -> None:
    """Ends this process when its parent is gone, even from inside a decoder that hangs."""
    # Decoders print their complaints; reasons are recorded instead.
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 2)
    # A large block, once freed, makes malloc keep memory from then on. It gave every frame back to
    # the system else, to have it cleared again for the next: a fifth of the time.
    bytearray(24 * 2**20)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
