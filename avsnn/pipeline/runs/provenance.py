"""Which command, code, libraries and machine made a run."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from avsnn.version import VERSION


def provenance() -> dict[str, str]:
    """Return the facts about this process that ``config.yaml`` keeps."""
    return {
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["avsnn", *sys.argv[1:]]),
        **_code(),
        "processes": os.environ.get("WORLD_SIZE", "1"),
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
        "cores": str(os.cpu_count()),
    }


@cache
def _code() -> dict[str, str]:
    """Return the versions of avsnn, Python and the libraries, which stay while a process runs."""
    libraries = ("torch", "numpy", "zarr", "webdataset", "soxr", "opencv-python-headless")
    return {
        "avsnn": VERSION,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }


def _git_commit() -> str:
    """Return the commit of the checkout that avsnn runs from; empty if nobody can tell."""
    checkout = Path(__file__).resolve().parents[3]
    if not (checkout / ".git").exists():
        return ""
    try:
        answer = subprocess.run(
            ["git", "-C", str(checkout), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        # There is no git on this machine, or git cannot be started.
        return ""
    return answer.stdout.strip()
