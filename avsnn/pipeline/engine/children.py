"""What every child process of a command needs from its parent."""

import os


def keep_current_folder_off_children() -> None:
    """Make Python processes that start from now on ignore the modules of the current folder.

    Python starts the children of ``multiprocessing`` with the current folder first in its search
    path. A file ``struct.py`` or ``pickle.py`` in that folder would be executed in place of the
    module of the library.
    """
    os.environ["PYTHONSAFEPATH"] = "1"


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
