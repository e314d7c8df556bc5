"""The names of runs in the page: no two runs share a name."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from avsnn.pipeline.evaluation.results import RunResults, unique_names


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
    short = Counter(_method_and_seed(result) for result in results)
    names = unique_names(results)
    runs = []
    for number, (label, result) in enumerate(zip(names, results, strict=True), start=1):
        shorter = _method_and_seed(result)
        if short[shorter] == 1 and shorter not in names and len(shorter) < len(label):
            label = shorter
        runs.append(Run(label, number, result))
    return runs


def labels_of_names(runs: Sequence[Run]) -> dict[str, str]:
    """Return the label of each run, by the name that the comparison gives to the run."""
    names = unique_names([run.results for run in runs])
    return {name: run.label for name, run in zip(names, runs, strict=True)}


def _method_and_seed(result: RunResults) -> str:
    return f"{result.evaluation.method}, seed {result.evaluation.seed}"
