"""Several processes that train one network, as torchrun starts them; usually just this one."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from avsnn.errors import UserError
from avsnn.models.distributed import sum_over_processes

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this one is, and how many there are."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def once(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises in the first process, in all of them.

        Raises:
            UserError: as raised there.
        """
        if self.count == 1:
            return work()
        told: list[Any] = [None, None]
        if self.leads:
            try:
                told[0] = work()
            except UserError as error:
                told[1] = error
        dist.broadcast_object_list(told, src=0)
        if told[1] is not None:
            raise told[1]
        result: T = told[0]
        return result

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether it is so in any of them."""
        if self.count == 1:
            return flag
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        told = torch.tensor(float(flag), device=device)
        dist.all_reduce(told, op=dist.ReduceOp.MAX)
        return bool(told)

    def concatenate(self, values: Tensor) -> Tensor:
        """The rows of all processes in the order of ranks, ``[n, ...]`` each; n may differ."""
        if self.count == 1:
            return values
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, values.cpu())
        return torch.cat(parts)

    def gather(self, values: Tensor) -> Tensor:
        """The same for equal n, and gradients flow back to the process that each row is from."""
        if self.count == 1:
            return values
        shape = (self.count, *values.shape)
        mine = torch.zeros(shape, dtype=values.dtype, device=values.device)
        place = torch.tensor([self.rank], device=values.device)
        return sum_over_processes(mine.index_add(0, place, values[None])).flatten(0, 1)


@contextmanager
def join_ranks(device: torch.device) -> Iterator[Ranks]:
    """The processes that torchrun started; without it, this one alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), count)
        # One that is left early would be waited for.
        dist.barrier()
    finally:
        dist.destroy_process_group()
