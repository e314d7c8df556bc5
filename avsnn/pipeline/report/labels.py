"""The names of runs in the page: no two runs share a name."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from avsnn.pipeline.evaluation.results import RunResults


class Run(NamedTuple):
    """A run in the page.

    Attributes:
        label: the name that the page gives to the run.
        number: number of the run in the page, from 1.
        results: everything that was measured on the run.
    """

    label: str
    number: int
    results: RunResults


def label_runs(results: Sequence[RunResults]) -> list[Run]:
    """Return the runs with their labels: the name of the folder, numbered if not unique."""
    repeated = Counter(result.name for result in results)
    seen: Counter[str] = Counter()
    runs = []
    for number, result in enumerate(results, start=1):
        name = result.name
        seen[name] += 1
        label = name if repeated[name] == 1 else f"{name} ({seen[name]})"
        runs.append(Run(label, number, result))
    return runs
