"""Runs ``avsnn`` commands in forks of a process that has imported everything that commands need.

A short command spends most of its time on importing torch, and the tests start a hundred commands.
One JSON line on standard input asks for a fork, or for the exit code of a fork. One line on
standard output answers with the process id of the fork, or with the exit code.
"""

import atexit
import gc
import json
import os
import pty
import select
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO


class Warm:
    """The process that imported everything, and methods that ask the process for a command.

    Args:
        environment: variables that the process starts with, beside those of this process.
    """

    def __init__(self, **environment: str) -> None:
        self._process = subprocess.Popen(
            # A test before may have told children to ignore the current folder.
            [sys.executable, "-m", "tests.warm"],
            env={**os.environ, "PYTHONSAFEPATH": "", **environment},
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, words: list[str], cwd: Path, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``avsnn`` with ``words`` in ``cwd``; return exit code, stdout and stderr as text.

        Packages in a folder of ``PYTHONPATH`` are found, as in a process that starts.
        """
        with tempfile.TemporaryDirectory() as name:
            out, err = Path(name, "out"), Path(name, "err")
            code = self.wait(self._fork(words, cwd, out, err, **environment))
            return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())

    def start(self, words: list[str], cwd: Path) -> "Started":
        """Start ``avsnn`` in a session of its own, so that a signal can reach all its processes."""
        with tempfile.TemporaryDirectory() as name:
            err = Path(name, "err")
            os.mkfifo(err)
            pid = self._fork(words, cwd, Path(os.devnull), err, session=True)
            return Started(self, pid, err.open())

    def run_on_terminal(self, words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run ``avsnn`` with a terminal of 100 columns as its standard output."""
        primary, secondary = pty.openpty()
        pieces: list[bytes] = []

        def read() -> None:
            # The system ends the reading with an error when nobody can write any more.
            with suppress(OSError):
                while piece := os.read(primary, 65536):
                    pieces.append(piece)

        reader = threading.Thread(target=read)
        with tempfile.TemporaryDirectory() as name:
            err = Path(name, "err")
            pid = self._fork(words, cwd, Path(os.ttyname(secondary)), err)
            reader.start()
            code = self.wait(pid)
            os.close(secondary)
            reader.join()
            os.close(primary)
            shown = b"".join(pieces).decode()
            return subprocess.CompletedProcess(words, code, shown, err.read_text())

    def wait(self, pid: int) -> int:
        """Return the exit code of a fork when the fork has ended."""
        return self._ask({"wait": pid})

    def _fork(
        self,
        words: list[str],
        cwd: Path,
        out: Path,
        err: Path,
        *,
        session: bool = False,
        **environment: str,
    ) -> int:
        asked = {"words": words, "cwd": str(cwd), "out": str(out), "err": str(err)}
        env = {**os.environ, "COLUMNS": "100", **environment}
        return self._ask({**asked, "env": env, "session": session})

    def _ask(self, question: dict[str, Any]) -> int:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


class Started:
    """A running command, whose standard error can be read while the command runs."""

    def __init__(self, warm: Warm, pid: int, stderr: TextIO) -> None:
        self._warm = warm
        self.pid = pid
        self.stderr = stderr

    def ended(self, *, within: float) -> bool:
        """Wait up to ``within`` s for the end of the command; skip what the command says."""
        ready, _, _ = select.select([self.stderr], [], [], within)
        return bool(ready) and not os.read(self.stderr.fileno(), 65536)

    def wait(self) -> int:
        """Return the exit code, as ``subprocess`` gives the code: -9 after SIGKILL."""
        code = self._warm.wait(self.pid)
        self.stderr.close()
        return code


def serve() -> None:
    """Answer every request: fork and print the process id, or wait and print the exit code."""
    code: Any = 0

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    # Python runs the first registered handler last. Without this handler, a fork would then free
    # every imported object one by one, which takes longer than many commands.
    atexit.register(end)
    # Commands import these modules when the commands are called.
    import avsnn.cli.main
    import avsnn.pipeline.experiments.reproduce
    import avsnn.pipeline.inspection.draw
    import avsnn.pipeline.training.train

    names = ("distributed", "jinja2", "matplotlib.pyplot", "scipy.stats", "sklearn.metrics")
    for name in (*names, "tensorboardX"):
        import_module(name)
    # Every report holds this script, which takes a second to build.
    import_module("avsnn.pipeline.report.javascript").vega_script()
    # The garbage collector of a fork would otherwise copy the memory of all these imports.
    gc.freeze()

    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        child = os.fork()
        if not child:
            become(asked)
            # Python decodes the words of a command by the encoding that the process started with.
            sys.argv = ["avsnn", *(os.fsdecode(word.encode()) for word in asked["words"])]
            # The help text would take the name of the program from this attribute.
            sys.modules["__main__"].__package__ = None
            code = 1
            try:
                avsnn.cli.main.main()
            except SystemExit as leaving:
                code = leaving.code
                raise
        print(child, flush=True)


def become(asked: dict[str, Any]) -> None:
    """Change to the session, the folder, the environment and the streams of a request."""
    if asked["session"]:
        os.setsid()
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [folder for folder in folders if folder and folder not in sys.path]
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for stream, target in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        opened = os.open(target, flags if stream else os.O_RDONLY, 0o600)
        os.dup2(opened, stream)
        os.close(opened)


if __name__ == "__main__":
    serve()
