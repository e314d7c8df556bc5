import os
import signal
import threading
from concurrent.futures import CancelledError

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


def test_calls_of_several_children_end_in_order_and_one_crash_costs_one_call() -> None:
    with sandbox.Sandbox(2) as several:
        pending = [several.start(add, number, 1) for number in range(20)]
        died = several.start(crash)
        pending += [several.start(add, number, 1) for number in range(20, 40)]
        assert [one.result() for one in pending] == list(range(1, 41))
        with pytest.raises(sandbox.DecoderDiedError, match="crashed"):
            died.result()


def test_a_sandbox_ends_its_children_although_they_hang() -> None:
    with sandbox.Sandbox(1) as one:
        child = one.start(os.getpid).result()
        running, waiting = one.start(hang), one.start(hang)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    for pending in (running, waiting):
        with pytest.raises(CancelledError):
            pending.result()
    with pytest.raises(RuntimeError):
        one.start(hang)
