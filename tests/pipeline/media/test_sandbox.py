import os
import signal
import threading

import pytest

from avsnn.pipeline.media import sandbox
from avsnn.pipeline.media.errors import MediaError


def add(a: int, b: int) -> int:
    return a + b


def refuse() -> None:
    raise MediaError("is odd")


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang() -> None:
    threading.Event().wait()


def test_a_crash_becomes_an_error_and_the_next_call_works() -> None:
    with pytest.raises(MediaError, match="crashed"):
        sandbox.call(crash)
    assert sandbox.call(add, 1, 2) == 3


def test_a_call_that_hangs_is_stopped_and_the_next_call_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sandbox.call(add, 1, 2)
    monkeypatch.setattr(sandbox, "DEADLINE_S", 0.5)
    with pytest.raises(MediaError, match="did not finish"):
        sandbox.call(hang)
    monkeypatch.undo()
    assert sandbox.call(add, 1, 2) == 3


def test_a_media_error_passes_through_the_sandbox() -> None:
    with pytest.raises(MediaError, match=r"^is odd$"):
        sandbox.call(refuse)
