"""Reads batches before the training asks for the batches, in a thread or in worker processes."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Self, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine.children import (
    children_block_signals,
    keep_current_folder_off_children,
)
from avsnn.pipeline.loading.batch import Batch, read_batch
from avsnn.pipeline.loading.device_batches import copy_to_device
from avsnn.pipeline.loading.open_files import require_open_files
from avsnn.pipeline.loading.order import BatchRequest
from avsnn.pipeline.loading.source import Source
from avsnn.pipeline.runs.train_settings import TrainSettings

# Each worker reads this number of batches before they are asked for.
PREFETCHED_BATCHES = 2

# Imports take longer than the first batch. A fork server imports these modules once, and all
# workers begin as copies of the fork server. Windows has no fork.
_PRELOADED = ["__main__", "avsnn.pipeline.loading.dataset", "avsnn.pipeline.loading.loader"]
_START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"

T = TypeVar("T")


class Loader:
    """Reads batches ahead of time. The loader is a context manager; leaving it ends the workers.

    The batches come in the order of the requests, for any number of workers. Everything that a
    batch needs from a CPU (reading, random numbers, pinned memory) happens in the thread or in the
    workers, so the thread that launches work on a GPU only launches.

    Args:
        open_source: opens the source. Each worker calls this function for itself, because open
            files of Zarr and open decoders do not survive a fork. The function must be picklable.
        settings: the settings of the training, which say how samples are augmented.
        workers: number of worker processes; 0 reads in a thread of this process.
        device: the device that gets the batches.

    Raises:
        UserError: this process may not open as many files as the workers need.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        settings: TrainSettings,
        *,
        workers: int,
        device: torch.device,
    ) -> None:
        self._requests: Iterable[BatchRequest] = ()
        self._reader = _Reader(open_source, settings)
        self._device = device
        # A GPU copies from pinned memory while this process goes on.
        self._pin = device.type == "cuda"
        self._processes: DataLoader[Batch | UserError | RunError] | None = None
        if workers:
            require_open_files(workers)
            keep_current_folder_off_children()
            multiprocessing.set_forkserver_preload(_PRELOADED)
            self._processes = DataLoader(
                self._reader,
                sampler=_CurrentRequests(self),
                batch_size=None,
                collate_fn=_unchanged,
                num_workers=workers,
                prefetch_factor=PREFETCHED_BATCHES,
                persistent_workers=True,
                # A thread of torch pins each batch as soon as a worker has read the batch.
                pin_memory=self._pin,
                multiprocessing_context=_START_METHOD,
                worker_init_fn=partial(_begin_worker, dict(os.environ)),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers."""
        iterator: Any = None if self._processes is None else self._processes._iterator
        self._processes = None
        if iterator is not None:
            # The workers take no signal. The references that an exception holds would keep a
            # DataLoader and its workers alive, so the workers are ended here.
            _end_workers(iterator)

    @property
    def source(self) -> Source:
        """The source, opened in this process."""
        return self._reader.open()

    def read(self, requests: Iterable[BatchRequest]) -> Iterator[Batch]:
        """Yield a batch on the device for each request, in order."""
        self._requests = requests
        if self._processes is None:
            batches = _read_ahead(self._read_in_thread, requests)
        else:
            batches = _read_in_processes(self._processes)
        yield from copy_to_device(batches, self._device)

    def _read_in_thread(self, request: BatchRequest) -> Batch:
        batch = self._reader.read(request)
        return batch.pin_memory() if self._pin else batch


class _Reader(Dataset[Batch | UserError | RunError]):
    """Reads batches from a source that each process opens for itself when it first reads."""

    def __init__(self, open_source: Callable[[], Source], settings: TrainSettings) -> None:
        self._open_source = open_source
        self._settings = settings
        self._source: Source | None = None

    def open(self) -> Source:
        if self._source is None:
            self._source = self._open_source()
        return self._source

    def read(self, request: BatchRequest) -> Batch:
        return read_batch(self.open(), request, self._settings)

    def __getitem__(self, request: BatchRequest) -> Batch | UserError | RunError:
        """Return a batch in shared memory, or the error to raise in the parent.

        torch would make the traceback a part of the message of an exception. If torch itself moved
        the batch to shared memory that is full, the parent would wait for the batch for ever.
        """
        assert get_worker_info() is not None  # noqa: S101 - only workers read by this method
        try:
            batch = self.read(request)
        except (UserError, RunError) as error:
            return error
        try:
            for tensor in batch.tensors:
                tensor.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError:
            size = sum(tensor.nbytes for tensor in batch.tensors)
            return UserError(
                f"the shared memory of this machine, /dev/shm, has no room for a batch of {size:,} "
                "bytes; make it larger, or use a smaller batch_size or --workers 0."
            )
        return batch

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None}


class _CurrentRequests:
    """The requests of the current epoch, for a DataLoader that lives longer than an epoch."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[BatchRequest]:
        return iter(self._loader._requests)


def _read_in_processes(processes: "DataLoader[Batch | UserError | RunError]") -> Iterator[Batch]:
    """Yield the batches of worker processes.

    Raises:
        UserError: a worker met bad data, or workers cannot share memory with this process.
        RunError: a worker has died, or could not read from a store.
    """
    try:
        # Queues between processes need locks in shared memory. If a lock cannot be made, torch
        # would leave an iterator half made, which prints a traceback when Python frees it.
        multiprocessing.get_context(_START_METHOD).Lock()
        # A signal to all processes must not end the fork server either.
        with children_block_signals(signal.SIGINT, signal.SIGTERM), warnings.catch_warnings():
            # The number of workers is what a person asked for.
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            batches = iter(processes)
        for batch in batches:
            if isinstance(batch, (UserError, RunError)):
                raise batch
            yield batch
    except (ConnectionError, EOFError, RuntimeError) as error:
        raise _worker_ended(error) from None
    except OSError as error:
        raise UserError(
            f"processes that read batches cannot be started ({error}); use --workers 0."
        ) from None


def _begin_worker(environment: dict[str, str], _: int) -> None:
    """Give a worker the environment of its parent, and let the worker end when the parent dies.

    The fork server has the environment of its start, and lives as long as one of its workers.
    """
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - this process is a worker
    parent.join()
    os._exit(1)


def _end_workers(iterator: Any) -> None:
    """End the workers of a DataLoader at once.

    torch tells its workers by an event to end. A worker that was killed may have held the lock of
    the event, and torch would then wait for the lock for ever. So the workers are killed first, and
    torch gets another event, which nobody waits for.
    """
    for worker in iterator._workers:
        worker.kill()
    iterator._workers_done_event = threading.Event()
    iterator._shutdown_workers()


def _worker_ended(error: Exception) -> RunError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return RunError(
        f"a process that reads batches has ended ({reason}); run the command again, with "
        "--workers 0 if this comes again."
    )


def _unchanged(batch: T) -> T:
    """Return the batch as the source made the batch: the source collates already."""
    return batch


def _read_ahead(
    read: Callable[[BatchRequest], Batch], requests: Iterable[BatchRequest]
) -> Iterator[Batch]:
    """Read the next batches in a thread while the caller computes on the current batch."""
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(1) as reader:
        try:
            for request in requests:
                waiting.append(reader.submit(read, request))
                if len(waiting) > PREFETCHED_BATCHES:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            reader.shutdown(cancel_futures=True)
