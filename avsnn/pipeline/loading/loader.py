"""Reads batches before the training asks for the batches, in a thread or in worker processes."""

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

from torch.utils.data import DataLoader, Dataset

from avsnn.pipeline.engine.children import keep_current_folder_off_children
from avsnn.pipeline.loading.order import BatchRequest
from avsnn.pipeline.loading.source import Batch, Source

# Each worker reads this number of batches before they are asked for.
PREFETCHED_BATCHES = 2

T = TypeVar("T")


class Loader:
    """Reads batches ahead of time. The loader is a context manager; leaving it ends the workers.

    The batches come in the order of the requests, for any number of workers.

    Args:
        open_source: opens the source. Each worker calls this function for itself, because open
            files of Zarr and open decoders do not survive a fork. The function must be picklable.
        workers: number of worker processes; 0 reads in a thread of this process.
        pin: put batches into pinned memory, for a GPU.
    """

    def __init__(self, open_source: Callable[[], Source], *, workers: int, pin: bool) -> None:
        self._requests: Iterable[BatchRequest] = ()
        self._source = _LazySource(open_source)
        self._pin = pin
        self._processes: DataLoader[Batch] | None = None
        if workers:
            keep_current_folder_off_children()
            self._processes = DataLoader(
                self._source,
                sampler=_CurrentRequests(self),
                batch_size=None,
                collate_fn=_unchanged,
                num_workers=workers,
                prefetch_factor=PREFETCHED_BATCHES,
                persistent_workers=True,
                worker_init_fn=_leave_signals_to_the_parent,
                # With "forkserver", a signal to all processes would end the fork server, and the
                # workers with it.
                multiprocessing_context="spawn",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A DataLoader ends its workers when no reference to the DataLoader is left.
        self._processes = None

    @property
    def source(self) -> Source:
        """The source, opened in this process."""
        return self._source.open()

    def read(self, requests: Iterable[BatchRequest]) -> Iterator[Batch]:
        """Yield a batch for each request, in order."""
        self._requests = requests
        if self._processes is None:
            batches = _read_ahead(self._source, requests)
        else:
            batches = iter(self._processes)
        for batch in batches:
            yield batch.pinned() if self._pin else batch


class _LazySource(Dataset[Batch]):
    """A source that each process opens for itself when the process first reads."""

    def __init__(self, open_source: Callable[[], Source]) -> None:
        self._open_source = open_source
        self._source: Source | None = None

    def open(self) -> Source:
        if self._source is None:
            self._source = self._open_source()
        return self._source

    def __getitem__(self, request: BatchRequest) -> Batch:
        return self.open().read(request)

    def __getstate__(self) -> dict[str, Any]:
        return {"_open_source": self._open_source, "_source": None}


class _CurrentRequests:
    """The requests of the current epoch, for a DataLoader that lives longer than an epoch."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[BatchRequest]:
        return iter(self._loader._requests)


def _leave_signals_to_the_parent(_worker: int) -> None:
    """Make a worker ignore signals that go to all processes; the parent ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Ignore the first SIGTERM (the cluster signals every process); the second comes from the
    # parent, which is ending this worker.
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _unchanged(batch: T) -> T:
    """Return the batch as the source made the batch: the source collates already."""
    return batch


def _read_ahead(source: _LazySource, requests: Iterable[BatchRequest]) -> Iterator[Batch]:
    """Read the next batches in a thread while the caller computes on the current batch."""
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(1) as reader:
        try:
            for request in requests:
                waiting.append(reader.submit(source.__getitem__, request))
                if len(waiting) > PREFETCHED_BATCHES:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            reader.shutdown(cancel_futures=True)
