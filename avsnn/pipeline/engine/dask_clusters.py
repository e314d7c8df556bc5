"""Dask clusters: one that this process starts, or one that runs already."""

import asyncio
import logging
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine.children import (
    children_block_signals,
    keep_current_folder_off_children,
)

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

# The form of an address that a Dask scheduler prints.
SCHEDULER_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx|inproc)://\S+")

# How long a scheduler may take to answer, in s.
SCHEDULER_TIMEOUT_S = 5

# How long a scheduler whose connection is not closed may give no answer at all, in s.
SILENT_SCHEDULER_S = 30


def no_processes_error() -> RunError:
    """Return the error of a machine that starts no worker process."""
    return RunError(
        "worker processes cannot be started here: too few open files, processes or memory are "
        "allowed, or /dev/shm is full or read-only. What is done is safe: raise the limit, or add "
        "--workers 0."
    )


@contextmanager
def start_local_cluster() -> "Iterator[LocalCluster]":
    """Start a cluster without workers on this machine, and end the cluster with the context.

    Raises:
        RunError: the machine allows too few processes, open files or memory.
    """
    import dask
    from distributed import LocalCluster

    _silence_dask()
    settings = {
        # A task whose workers died runs once more alone, so few tries suffice here.
        "distributed.scheduler.allowed-failures": 1,
        # Some seconds after the death of a worker, Dask would give up the worker for ever if the
        # worker happens to be starting at that moment.
        "distributed.deploy.lost-worker-timeout": "1 day",
        "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
    }
    with dask.config.set(settings):
        keep_current_folder_off_children()
        with children_block_signals(signal.SIGINT), _processes_start():
            cluster = LocalCluster(
                n_workers=0,
                threads_per_worker=1,
                processes=True,
                # Whoever reaches a scheduler can execute code, so no other machine reaches this
                # one. Without an address Dask would open its HTTP port on all interfaces.
                host="127.0.0.1",
                protocol="tcp",
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address="127.0.0.1:0",
                memory_limit=0,
                silence_logs=logging.CRITICAL,
            )
        with cluster:
            yield cluster


def _silence_dask() -> None:
    """Let Dask log nothing.

    Dask logs how workers come and go. An error inside a unit reaches this process as the exception
    of the unit, and ``require_workers`` reports that the cluster is lost. tornado and asyncio log
    the errors of workers that cannot start.
    """
    # `distributed.client` has a level of its own.
    for name in ("distributed", "distributed.client", "tornado.application", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _processes_start() -> Iterator[None]:
    """Turn an error of the machine inside this context into a sentence about worker processes."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError):
        raise no_processes_error() from None


async def _greet(scheduler: str) -> None:
    """Open and close a connection to a scheduler.

    Raises:
        OSError, ValueError: no scheduler answers.
    """
    from distributed.comm.core import connect
    from distributed.security import Security

    connection = Security().get_connection_args("client")
    async with asyncio.timeout(SILENT_SCHEDULER_S):
        comm = await connect(scheduler, timeout=SCHEDULER_TIMEOUT_S, **connection)
        await comm.close()


def connect_to(scheduler: str, shared: Path | None = None) -> "Client":
    """Return a client of a running cluster whose workers have the same version of avsnn.

    Args:
        scheduler: address of the scheduler.
        shared: a file that all workers must see.

    Raises:
        UserError: no scheduler answers at the address, the cluster has no workers, or the workers
            have another version of avsnn or do not see the file.
    """
    from distributed import Client

    if not SCHEDULER_ADDRESS.fullmatch(scheduler):
        raise UserError(f"--scheduler {scheduler} is no address, such as tcp://host:8786.")
    _silence_dask()
    try:
        # `Client` itself would wait for ever for a scheduler that is stopped. In a thread, because
        # a notebook has an event loop in this thread.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, _greet(scheduler)).result()
        client = Client(scheduler, timeout=SCHEDULER_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError):
        raise UserError(
            f"--scheduler {scheduler}: no Dask scheduler answers there; "
            "give the address that it printed when it started, such as tcp://host:8786."
        ) from None
    own_version = version("avsnn")
    # Not a function of avsnn: a worker with another avsnn may not have the function's module.
    versions = client.run(version, "avsnn", on_error="return")
    wrong = {worker: found for worker, found in versions.items() if found != own_version}
    seen = client.run(os.path.exists, os.fspath(shared or "/"), on_error="return")
    blind = [worker for worker, sees in seen.items() if sees is not True]
    if versions and not wrong and not blind:
        return client
    client.close()
    reason = "the cluster has no workers"
    if blind:
        reason = f"worker {blind[0]} does not see {shared}, which must be on a shared file system"
    if wrong:
        worker, found = next(iter(wrong.items()))
        found = "no avsnn" if isinstance(found, Exception) else f"avsnn {found}"
        reason = f"worker {worker} has {found}, this machine has avsnn {own_version}"
    raise UserError(
        f"--scheduler {scheduler}: {reason}; correct this and run the same command again."
    )
