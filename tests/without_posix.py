"""Runs avsnn commands as on Windows: its modules see no module and no function of POSIX alone.

The words of one command each are lines of standard input, as JSON lists. Only the code of avsnn in
this process is deceived; the libraries and the child processes are those of this system.
"""

import builtins
import json
import mmap
import os
import signal
import sys
from types import ModuleType
from typing import Any

MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "termios"}
NAMES = {
    os: (
        *("fork", "getuid", "geteuid", "getgid", "getpgid", "killpg", "mkfifo", "nice", "pread"),
        *("sched_getaffinity", "setsid", "statvfs", "sysconf", "copy_file_range"),
    ),
    signal: ("pthread_sigmask", "SIG_BLOCK", "SIG_SETMASK", "SIGBUS", "SIGKILL", "SIGHUP"),
    mmap: ("MAP_PRIVATE", "MAP_SHARED", "PROT_READ", "PROT_WRITE"),
}


class Without:
    """A module of the standard library without some of its names, or with other values."""

    def __init__(self, real: ModuleType, hidden: tuple[str, ...] = (), **changed: str) -> None:
        vars(self).update(changed, _real=real, _hidden=hidden)

    def __getattr__(self, name: str) -> Any:
        if name in self._hidden:
            raise AttributeError(f"Windows has no {self._real.__name__}.{name}")
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._real, name, value)


STAND_INS = {real.__name__: Without(real, hidden) for real, hidden in NAMES.items()}
STAND_INS["sys"] = Without(sys, platform="win32")
real_import = builtins.__import__


def import_as_on_windows(name: str, importer: Any = None, *rest: Any, **more: Any) -> Any:
    if str((importer or {}).get("__name__")).partition(".")[0] == "avsnn":
        if name in MODULES:
            raise ImportError(f"Windows has no module {name}")
        if name in STAND_INS:
            return STAND_INS[name]
    return real_import(name, importer, *rest, **more)


if __name__ == "__main__":
    builtins.__import__ = import_as_on_windows
    from avsnn.cli.main import main

    for line in sys.stdin:
        sys.argv = ["avsnn", *json.loads(line)]
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
