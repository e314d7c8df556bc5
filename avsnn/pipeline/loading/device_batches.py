"""Copies batches to the device that computes, while the device works on the batch before."""

from collections.abc import Iterator
from functools import cache

import torch

from avsnn.pipeline.loading.batch import Batch


def copy_to_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield each batch on a device.

    The caller asks for the next batch as soon as the caller has launched the work on the current
    batch. A GPU copies the next batch on a stream of its own, so the copy runs beside this work.

    Args:
        batches: batches in memory; for a GPU, in pinned memory.
        device: the device of the result; a CPU gets the batches as they are.
    """
    if device.type == "cpu":
        yield from batches
        return
    copies = _stream_of_copies(device)
    launched_before: torch.cuda.Event | None = None
    for batch in batches:
        with torch.cuda.stream(copies):
            copied = batch.to(device)
        work = torch.cuda.current_stream(device)
        work.wait_stream(copies)
        for tensor in copied.tensors:
            # The memory belongs to the stream of copies, which must not fill the memory again
            # before the work that reads the tensor has ended.
            tensor.record_stream(work)
        yield copied
        del copied
        # A fast caller would launch dozens of steps ahead, and each would keep a batch on the
        # device. So the caller waits here until the GPU has nothing but the last step left to do.
        launched = work.record_event(torch.cuda.Event(blocking=True))  # type: ignore[no-untyped-call]
        if launched_before is not None:
            launched_before.synchronize()
        launched_before = launched


@cache
def _stream_of_copies(device: torch.device) -> torch.cuda.Stream:
    """Return the stream on which a device copies batches.

    All passes share one stream, because torch keeps freed memory for the stream that used it.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
