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
    """Return the runs with their labels.

    The label is the name of the folder, numbered if not unique. Method and seed, such as
    ``add, seed 42``, replace a longer name of a folder where no other run has the same two.
    """
    names = Counter(result.name for result in results)
    short = Counter(_method_and_seed(result) for result in results)
    seen: Counter[str] = Counter()
    runs = []
    for number, result in enumerate(results, start=1):
        name, shorter = result.name, _method_and_seed(result)
        seen[name] += 1
        label = name if names[name] == 1 else f"{name} ({seen[name]})"
        if short[shorter] == 1 and shorter not in names and len(shorter) < len(label):
            label = shorter
        runs.append(Run(label, number, result))
    return runs


def labels_of_names(runs: Sequence[Run]) -> dict[str, str]:
    """Return the label of each name of a folder that one run alone has."""
    names = Counter(run.results.name for run in runs)
    return {run.results.name: run.label for run in runs if names[run.results.name] == 1}


def _method_and_seed(result: RunResults) -> str:
    return f"{result.evaluation.method}, seed {result.evaluation.seed}"
