"""Compiles the kernels in C, keeps the library, and loads only a library that can be trusted.

The sources are in ``csrc``; ``csrc/kernels.c`` includes all other sources, so the compiler reads
only ``csrc/kernels.c``. The library is kept in the user's cache folder (``XDG_CACHE_HOME``), under
a name that starts with a digest of the sources, the compiler flags and the instruction set.

Loading a library runs its code. So a library is loaded only if it is a regular file of this user,
in a folder into which no other user can write, and if its bytes have the SHA-256 that stands in its
name since it was compiled. Every other library is passed over, and a new one is compiled.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from avsnn.models.kernels.instruction_set import instruction_set

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SOURCES = Path(__file__).with_name("csrc")
_MAIN_SOURCE = "kernels.c"

_FLAGS = ["-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]

# How long one call of the compiler may take, in s.
_COMPILER_TIMEOUT_S = 120

# Loads a library and the OpenMP libraries that it needs. A library that was cut ends the process
# that loads it with a bus error, so this program runs in a process of its own.
_TRIAL = """
import ctypes, sys
library, functions, *needed = sys.argv[1:]
for path in needed:
    ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
loaded = ctypes.CDLL(library)
for name in functions.split(","):
    getattr(loaded, name)
"""


class NoLibraryError(Exception):
    """There are no compiled kernels on this machine; the text of the error says why."""


def load_library(functions: Sequence[str]) -> ctypes.CDLL:
    """Return the compiled kernels.

    Args:
        functions: the names of the functions that the library must have.

    Raises:
        NoLibraryError: the kernels cannot be compiled or loaded here.
    """
    compiler = _compiler()
    digest = sources_digest(compiler)
    try:
        for folder in _kept_folders():
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if not _belongs_to_this_user_alone(folder, stat.S_ISDIR):
                    continue
                found = _load_kept(folder, digest, functions)
                return found or _load(_compile(compiler, folder, digest, functions), functions)
            except OSError:
                # The folder is read-only or full, or its disk holds no programs.
                continue
        with tempfile.TemporaryDirectory(prefix="avsnn-") as folder_of_this_process:
            library = _compile(compiler, Path(folder_of_this_process), digest, functions)
            return _load(library, functions)
    except OSError as error:
        raise NoLibraryError(f"no folder can keep the compiled kernels ({error})") from None


def sources_digest(compiler: Sequence[str]) -> str:
    """Return a digest of everything that decides the bytes of the library."""
    sources = [path.read_text() for path in sorted(SOURCES.glob("*.[ch]"))]
    key = [*sources, *compiler, *_FLAGS, platform.machine(), instruction_set()]
    return hashlib.sha256("\n".join(key).encode(errors="surrogateescape")).hexdigest()[:16]


def _compiler() -> list[str]:
    """Return the C compiler as a command; ``CC`` may hold options too, as in ``gcc -m64``."""
    try:
        return shlex.split(os.environ.get("CC", "")) or ["cc"]
    except ValueError:
        # A quotation mark has no partner.
        return [os.environ["CC"]]


def _kept_folders() -> Iterator[Path]:
    """Yield the folders that may keep the compiled kernels, the best folder first."""
    user = _user()
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        # HOME is not set, and the system knows no home folder of this user.
        home = ""
    # A relative path would be a folder in the working directory, where anyone may put a library.
    if Path(home).is_absolute():
        yield Path(home, "avsnn")
    yield Path(tempfile.gettempdir(), f"avsnn-{user}")


def _user() -> int:
    """Return the number of this user.

    Raises:
        NoLibraryError: the system has no numbers of users, so nobody can tell whose a library is.
    """
    if sys.platform == "win32":
        raise NoLibraryError("avsnn compiles no kernels on Windows")
    return os.getuid()


def _belongs_to_this_user_alone(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Return whether a path is of this kind, no link, of this user, and writable by no other."""
    found = path.lstat()
    shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return is_kind(found.st_mode) and found.st_uid == _user() and not shared


def _load_kept(folder: Path, digest: str, functions: Sequence[str]) -> ctypes.CDLL | None:
    """Return the library that ``_compile`` left in a folder; None if there is none to trust."""
    for path in sorted(folder.glob(f"{digest}-*.so")):
        try:
            if _belongs_to_this_user_alone(path, stat.S_ISREG) and path.name == _name(path, digest):
                return _load(path, functions)
        except OSError:
            # Machines that share a home folder may have other versions of the C library.
            continue
    return None


def _name(library: Path, digest: str) -> str:
    return f"{digest}-{hashlib.sha256(library.read_bytes()).hexdigest()}.so"


def _load(library: Path, functions: Sequence[str]) -> ctypes.CDLL:
    """Load a library.

    Raises:
        OSError: the file is no library for this machine, or lacks a function.
    """
    loaded = ctypes.CDLL(str(library))
    for name in functions:
        if not hasattr(loaded, name):
            raise OSError(f"{library} has no function {name}")
    return loaded


def _compile(compiler: list[str], folder: Path, digest: str, functions: Sequence[str]) -> Path:
    """Compile the kernels, and return the library, whose name holds the SHA-256 of its bytes.

    Raises:
        OSError: the folder cannot be written.
        NoLibraryError: the compiler fails, or writes something else than the library.
    """
    with tempfile.TemporaryDirectory(dir=folder) as work:
        compiled, linked = Path(work, "cpu.o"), Path(work, "cpu.so")
        source = str(SOURCES / _MAIN_SOURCE)
        trial = [str(linked), ",".join(functions), *_loaded_openmp()]
        name = shlex.join(compiler)
        for command, failure in (
            (
                [*compiler, *_FLAGS, "-fopenmp", "-fPIC", "-c", source, "-o", str(compiled)],
                f"the C compiler {name} cannot compile the kernels",
            ),
            (
                [*compiler, "-shared", str(compiled), "-o", str(linked)],
                f"the C compiler {name} cannot link the kernels",
            ),
            (
                [sys.executable, "-I", "-S", "-c", _TRIAL, *trial],
                f"the kernels that the C compiler {name} made cannot be loaded",
            ),
        ):
            _run(command, failure)
        linked.chmod(0o700)
        # Another process may compile at the same time: a rename puts only a whole library in place.
        return linked.replace(folder / _name(linked, digest))


def _run(command: list[str], failure: str) -> None:
    """Run a command that must succeed.

    Args:
        command: the program and its arguments.
        failure: what it means if the command fails.

    Raises:
        NoLibraryError: the command does not exist, fails, or takes too long.
    """
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_COMPILER_TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise NoLibraryError(f"{failure} (it took over {_COMPILER_TIMEOUT_S} s)") from None
    except FileNotFoundError:
        raise NoLibraryError(
            f"there is no C compiler {command[0]}; install gcc, or name another compiler in CC"
        ) from None
    except (OSError, ValueError) as error:
        raise NoLibraryError(f"there is no C compiler (cc, or CC) that runs: {error}") from None
    if done.returncode:
        said = _first_error(done.stderr.decode(errors="replace"))
        raise NoLibraryError(f"{failure} ({said or f'exit code {done.returncode}'})")


def _first_error(output: str) -> str:
    """Return the first line in which a program says what is wrong; empty if there is no line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # The linker says what is wrong, and then its caller, collect2, says that there was an error.
    errors = (x for x in lines if "error:" in x.lower() and not x.startswith("collect2"))
    return next(errors, lines[0] if lines else "")


def _loaded_openmp() -> list[str]:
    """Return the OpenMP libraries that torch has loaded, which the kernels need too."""
    try:
        lines = Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[-1] for line in lines if "/" in line}
    return sorted(path for path in paths if Path(path).name.startswith(("libgomp", "libiomp")))
