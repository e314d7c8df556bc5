"""Which instructions the CPU of this machine has."""

from functools import cache
from pathlib import Path
from platform import processor


@cache
def instruction_set() -> str:
    """Return what the system says about the instructions of this CPU; on Linux names in a line."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def has_any(*instructions: str) -> bool:
    """Return whether this CPU is known to have any of the named instructions, as in ``avx512f``."""
    return not set(instructions).isdisjoint(instruction_set().split())
