"""Runs ``avsnn`` commands in forks of a process that has imported everything that commands need.

A short command spends most of its time on importing torch, and the tests start a hundred commands.
One JSON line on standard input asks for a command, one on standard output gives its exit code.
"""

import json
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any


class Warm:
    """The process that imported everything, and methods that ask the process for a command."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm"],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run ``avsnn`` with ``words`` in ``cwd``; return exit code, stdout and stderr as text."""
        assert self._process.stdin
        assert self._process.stdout
        with tempfile.TemporaryDirectory() as name:
            out, err = Path(name, "out"), Path(name, "err")
            asked = {"words": words, "cwd": str(cwd), "out": str(out), "err": str(err)}
            asked["env"] = {**os.environ, "COLUMNS": "100"}  # type: ignore[assignment]
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def serve() -> None:
    """Answer every request for a command: fork, wait for the fork, print its exit code."""
    # Commands import these modules when the commands are called.
    import avsnn.cli.main
    import avsnn.pipeline.experiments.reproduce
    import avsnn.pipeline.training.train

    for name in ("distributed", "matplotlib.pyplot", "sklearn.metrics", "tensorboardX"):
        import_module(name)

    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            become(asked)
            sys.argv = ["avsnn", *asked["words"]]
            # The help text would take the name of the program from this attribute.
            sys.modules["__main__"].__package__ = None
            avsnn.cli.main.main()
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def become(asked: dict[str, Any]) -> None:
    """Change to the folder, the environment and the streams that a request names."""
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for stream, target in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        opened = os.open(target, flags if stream else os.O_RDONLY, 0o600)
        os.dup2(opened, stream)
        os.close(opened)


if __name__ == "__main__":
    serve()
