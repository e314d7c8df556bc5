"""The limit of open files: a source keeps a file open for every shard that it has read."""

import sys
from contextlib import suppress

from avsnn.errors import UserError

with suppress(ImportError):
    # Windows has no such module.
    import resource

# More than the shards of any data set; a limit without end makes some programs slow.
ENOUGH = 1_000_000

# The most that macOS gives to a process, whatever its limit says (OPEN_MAX).
MOST_ON_MACOS = 10_240

# Open files of the main process, and of the pipes and the shared memory between the main process
# and one worker. With fewer, torch may wait for a worker for ever.
FILES_OF_MAIN_PROCESS, FILES_OF_WORKER = 64, 16


def allow_many_open_files() -> None:
    """Raise this process's limit of open files as far as the system allows without asking.

    Windows has no such limit.
    """
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(ENOUGH, hard)
    for limit in (wanted, min(wanted, MOST_ON_MACOS)):
        if soft == resource.RLIM_INFINITY or soft >= limit:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        except (OSError, ValueError):
            continue
        return


def require_open_files(workers: int) -> None:
    """Check that the limit of open files allows worker processes.

    Raises:
        UserError: the limit is too low.
    """
    allow_many_open_files()
    if sys.platform == "win32":
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FILES_OF_MAIN_PROCESS + workers * FILES_OF_WORKER
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise UserError(
            f"--workers {workers} needs {needed} open files, and {soft} are allowed; allow more "
            f"with 'ulimit -n {needed}', or use --workers 0."
        )
