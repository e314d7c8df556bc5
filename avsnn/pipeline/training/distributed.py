"""The processes that train one network together, as torchrun starts them; usually just one."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from avsnn.errors import RunError, UserError
from avsnn.models.distributed import sum_over_processes

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessGroup:
    """The rank of this process, and the number of processes."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and prints the messages."""
        return self.rank == 0

    def on_main(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the main process only, and return its result in every process.

        Raises:
            UserError, RunError: ``work`` raised the error in the main process; every process
                raises it.
        """
        if self.world_size == 1:
            return work()
        result_and_error: list[Any] = [None, None]
        if self.is_main:
            try:
                result_and_error[0] = work()
            except (UserError, RunError) as error:
                result_and_error[1] = error
        dist.broadcast_object_list(result_and_error, src=0)
        if result_and_error[1] is not None:
            raise result_and_error[1]
        result: T = result_and_error[0]
        return result

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` over all processes."""
        if self.world_size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Return whether ``flag`` is true in at least one process."""
        if self.world_size == 1:
            return flag
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        highest = torch.tensor(float(flag), device=device)
        dist.all_reduce(highest, op=dist.ReduceOp.MAX)
        return bool(highest)

    def concatenate(self, values: Tensor) -> Tensor:
        """Return the rows of all processes in the order of ranks.

        Args:
            values: the rows of this process ``[n, ...]``; n may differ between processes.
        """
        if self.world_size == 1:
            return values
        parts: list[Any] = [None] * self.world_size
        dist.all_gather_object(parts, values.cpu())
        return torch.cat(parts)

    def gather_with_gradient(self, values: Tensor) -> Tensor:
        """Return the rows of all processes; the gradient of a row flows back to its process.

        Args:
            values: the rows of this process ``[n, ...]``; n is the same in every process.
        """
        if self.world_size == 1:
            return values
        shape = (self.world_size, *values.shape)
        own = torch.zeros(shape, dtype=values.dtype, device=values.device)
        place = torch.tensor([self.rank], device=values.device)
        return sum_over_processes(own.index_add(0, place, values[None])).flatten(0, 1)


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started; without torchrun the group is this process."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield ProcessGroup()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ProcessGroup(dist.get_rank(), world_size)
        # The other processes would wait for ever for a process that leaves the group early.
        dist.barrier()
    finally:
        dist.destroy_process_group()
