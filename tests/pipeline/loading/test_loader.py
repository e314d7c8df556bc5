import multiprocessing
import os
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avsnn.errors import RunError
from avsnn.pipeline.loading.batch import Batch
from avsnn.pipeline.loading.loader import Loader
from avsnn.pipeline.loading.order import evaluation_requests, training_requests
from avsnn.pipeline.loading.source import Source
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings
from tests.pipeline.loading.conftest import are_equal, open_source

CPU = torch.device("cpu")
WITH_NOISE = build_settings(TrainSettings, [], ["data.augment.noise_snr=10", "data.size=32"])


def read_two_epochs(root: Path, kind: str, workers: int) -> list[Batch]:
    open_demo = partial(open_source, root, kind)
    with Loader(open_demo, WITH_NOISE, workers=workers, device=CPU) as loader:
        rows = np.arange(len(loader.source.keys))
        return [
            batch
            for epoch in range(2)
            for batch in loader.read(training_requests(rows, batch_size=16, seed=1, epoch=epoch))
        ]


@pytest.mark.parametrize(("kind", "workers"), [("shards", 0), ("shards", 2), ("cache", 1)])
def test_cache_and_shards_give_the_same_batches_with_any_number_of_workers(
    small_demo: Path, kind: str, workers: int
) -> None:
    expected = read_two_epochs(small_demo, "cache", 0)
    found = read_two_epochs(small_demo, kind, workers)
    assert len(expected) == len(found) == 2 * (72 // 16)
    assert all(are_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_pass_that_is_given_up_in_the_middle_does_not_disturb_the_next_pass(
    small_demo: Path,
) -> None:
    with Loader(partial(open_source, small_demo), WITH_NOISE, workers=2, device=CPU) as loader:
        first = loader.read(evaluation_requests(np.arange(72), batch_size=4))
        next(first)
        first.close()
        second = list(loader.read(evaluation_requests(np.arange(8, 24), batch_size=4)))
    assert [int(row) for batch in second for row in batch.rows] == list(range(8, 24))


def test_a_reader_that_is_killed_while_a_step_computes_is_one_sentence(small_demo: Path) -> None:
    def lose_the_reader() -> None:
        open_demo = partial(open_source, small_demo)
        others = set(multiprocessing.active_children())
        with Loader(open_demo, WITH_NOISE, workers=1, device=CPU) as loader:
            batches = loader.read(evaluation_requests(np.arange(72), batch_size=4))
            next(batches)
            (worker,) = set(multiprocessing.active_children()) - others
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            list(batches)

    with pytest.raises(RunError, match=r"process that reads batches has ended.*--workers 0"):
        lose_the_reader()


def test_workers_have_the_environment_of_the_loader_that_started_them(
    small_demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All workers of this process begin as copies of one process, which is older than the variable.
    read_two_epochs(small_demo, "cache", 1)
    monkeypatch.setenv("AVSNN_TEST_ROOT", str(small_demo))
    with Loader(open_where_told, WITH_NOISE, workers=1, device=CPU) as loader:
        (batch,) = loader.read(evaluation_requests(np.arange(4), batch_size=4))
    assert batch.rows.tolist() == [0, 1, 2, 3]


def open_where_told() -> Source:
    return open_source(Path(os.environ["AVSNN_TEST_ROOT"]))


def test_a_loader_ends_although_a_killed_reader_held_the_lock_of_the_end(small_demo: Path) -> None:
    ended = threading.Event()

    def read_one() -> None:
        open_demo = partial(open_source, small_demo)
        with Loader(open_demo, WITH_NOISE, workers=1, device=CPU) as loader:
            next(loader.read(evaluation_requests(np.arange(72), batch_size=4)))
            # The lock is never given back, as by a process that was killed.
            iterator: Any = loader._processes._iterator
            holder = threading.Thread(target=iterator._workers_done_event._cond.acquire)
            holder.start()
            holder.join()
        ended.set()

    threading.Thread(target=read_one, daemon=True).start()
    assert ended.wait(60)
