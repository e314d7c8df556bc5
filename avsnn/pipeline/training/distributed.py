"""The processes that train one network together, as torchrun starts them; usually just one."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
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
    #: The processes as a group that exchanges numbers of the CPU; None is the default group.
    on_cpu: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and prints the messages."""
        return self.rank == 0

    def require_even_shares(self, batch_size: int, accumulate: int) -> None:
        """Check that every process can work on equally large parts of a batch.

        Args:
            batch_size: number of clips of a batch, over all processes.
            accumulate: number of parts into which a process cuts its share.

        Raises:
            UserError: the batch cannot be cut into equal parts.
        """
        shares = self.world_size * accumulate
        if batch_size % shares:
            raise UserError(
                f"batch_size {batch_size} cannot be shared out evenly: it is no multiple of "
                f"{shares} ({self.world_size} processes, optimizer.accumulate {accumulate}); try "
                f"--set batch_size={max(1, batch_size // shares) * shares}."
            )

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

    def copy_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with the values that the main process holds."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

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
        # A number on a GPU would make every process wait for its GPU.
        highest = torch.tensor(float(flag))
        dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=self.on_cpu)
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
    """Join the processes that torchrun started; without torchrun the group is this process.

    Raises:
        UserError: the variables of torchrun are incomplete or wrong.
        RunError: this process cannot reach the other processes.
    """
    world_size = _variable("WORLD_SIZE", at_least=1) if "WORLD_SIZE" in os.environ else 1
    if world_size == 1:
        yield ProcessGroup()
        return
    _variable("RANK", at_least=0, at_most=world_size - 1)
    _variable("MASTER_PORT", at_least=0, at_most=65535)
    if device.type == "cuda":
        last = torch.cuda.device_count() - 1
        torch.cuda.set_device(_variable("LOCAL_RANK", at_least=0, at_most=last))
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"this process cannot join the processes of torchrun: {reason}.") from None
    try:
        on_cpu = dist.new_group(backend="gloo") if device.type == "cuda" else None
        yield ProcessGroup(dist.get_rank(), world_size, on_cpu)
        # The other processes would wait for ever for a process that leaves the group early.
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _variable(name: str, *, at_least: int, at_most: int | None = None) -> int:
    """Return the number in an environment variable that torchrun sets."""
    text = os.environ.get(name)
    found = int(text) if text is not None and re.fullmatch(r"\d{1,9}", text) else None
    if found is None or found < at_least or (at_most is not None and found > at_most):
        value = "not set" if text is None else repr(text)
        limit = "" if at_most is None else f" to {at_most}"
        raise UserError(
            f"the environment variable {name} is {value}, and must be a number from {at_least}"
            f"{limit}: start several processes with torchrun, or unset WORLD_SIZE to train in one."
        )
    return found
