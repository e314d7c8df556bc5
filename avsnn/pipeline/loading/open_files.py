"""The limit of open files, and the files of shards that this process keeps open below the limit.

A file that is open costs nothing to read again, but a process may have only so many open files, and
a data set may have many more shards. So the readers of all caches and shards of a process share one
`OpenFiles`, which closes the file that was read longest ago before the limit is reached.
"""

import os
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from avsnn.errors import UserError

with suppress(ImportError):
    # Windows has no such module.
    import resource

# More than a process of avsnn opens; a limit without end makes some programs slow.
ENOUGH = 1_000_000

# The most that macOS gives to a process, whatever its limit says (OPEN_MAX).
MOST_ON_MACOS = 10_240

# Open files of the main process, and of the pipes and the shared memory between the main process
# and one worker. With fewer, torch may wait for a worker for ever.
FILES_OF_MAIN_PROCESS, FILES_OF_WORKER = 64, 16

# The most files that are kept open. Linux allows 65,530 maps to a process (`vm.max_map_count`), and
# libraries and memory need some of the maps.
MOST_KEPT = 32_768

# The fewest files that are kept open, whatever the limit of open files is.
FEWEST_KEPT = 4

T = TypeVar("T")


class OpenFiles:
    """Files that stay open between two reads: the files that were read last, of all readers.

    A file that is taken out of here is closed when nothing refers to the file any more, so a thread
    that reads the file at that moment goes on.

    Attributes:
        workers: number of worker processes of this process, which need open files, too.
    """

    def __init__(self) -> None:
        self.workers = 0
        self._kept: OrderedDict[tuple[int, int | str], Any] = OrderedDict()
        # The garbage collector may call `drop` while this thread holds the lock.
        self._lock = threading.RLock()

    def get(self, reader: int, name: int | str, open_file: Callable[[], T]) -> T:
        """Return a file of a reader, which `open_file` opens if the file is not open."""
        with self._lock:
            if (reader, name) in self._kept:
                self._kept.move_to_end((reader, name))
                kept: T = self._kept[reader, name]
                return kept
            # A file is closed before another file is opened, so the limit is never exceeded.
            most = self.most()
            while len(self._kept) >= most:
                self._kept.popitem(last=False)
        file = open_file()
        with self._lock:
            self._kept[reader, name] = file
        return file

    def most(self) -> int:
        """Return how many files are kept open, at most."""
        if sys.platform == "win32":
            return MOST_KEPT
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return MOST_KEPT
        return min(MOST_KEPT, max(FEWEST_KEPT, soft - _files_beside_shards(self.workers)))

    def drop(self, reader: int) -> None:
        """Close the files of a reader that nobody uses any more."""
        with self._lock:
            for name in [name for name in list(self._kept) if name[0] == reader]:
                self._kept.pop(name, None)


# The limit of open files is a limit of the process, so the process has one such object.
OPEN_FILES = OpenFiles()


class KeptOpen:
    """The files of one reader among the `OPEN_FILES` of this process."""

    def __init__(self) -> None:
        weakref.finalize(self, OPEN_FILES.drop, id(self))

    def get(self, name: int | str, open_file: Callable[[], T]) -> T:
        """Return the file of this name, which `open_file` opens if the file is not open."""
        return OPEN_FILES.get(id(self), name, open_file)


class Descriptor:
    """A file that is open for reading; the file is closed when nothing refers to this object."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        # There is no number where the file could not be opened.
        if hasattr(self, "number"):
            os.close(self.number)


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
    OPEN_FILES.workers = workers
    if sys.platform == "win32":
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _files_beside_shards(workers)
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise UserError(
            f"--workers {workers} needs {needed} open files, and {soft} are allowed; allow more "
            f"with 'ulimit -n {needed}', or use --workers 0."
        )


def _files_beside_shards(workers: int) -> int:
    """Return how many open files a process with worker processes needs for all but shards."""
    return FILES_OF_MAIN_PROCESS + workers * FILES_OF_WORKER
