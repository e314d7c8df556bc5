"""The names of runs in the page: no two runs share a name."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from avsnn.pipeline.evaluation.measures import Evaluation
from avsnn.pipeline.evaluation.results import RunResults, unique_names


class Run(NamedTuple):
    """A run in the page.

    Attributes:
        label: the name that the page gives to the run.
        number: number of the run in the page, from 1.
        name: the name of the run in a `Comparison`.
        results: everything that was measured on the run.
    """

    label: str
    number: int
    name: str
    results: RunResults


def label_runs(results: Sequence[RunResults]) -> list[Run]:
    """Return the runs with their labels.

    The label is the name of the folder, numbered if not unique. Method and seed, such as
    ``add, seed 42``, replace a longer name of a folder where no other run has the same two.
    """
    names = unique_names(results)
    short = Counter(_method_and_seed(result) for result in results)
    runs = []
    for number, (name, result) in enumerate(zip(names, results, strict=True), start=1):
        shorter = _method_and_seed(result)
        is_better = short[shorter] == 1 and shorter not in names and len(shorter) < len(name)
        runs.append(Run(shorter if is_better else name, number, name, result))
    return runs


def describe_runs(runs: Sequence[Run]) -> tuple[str, str]:
    """Return the title of the page, and a sentence on what the runs were measured on."""
    titles = list(dict.fromkeys(run.results.config.manifest.title for run in runs))
    count = "One run" if len(runs) == 1 else f"{len(runs)} runs"
    measured = {_measured_on(run.results.evaluation) for run in runs}
    if len(measured) > 1:
        return "; ".join(titles), f"{count}, which were measured on different clips."
    return titles[0], f"{count} on {measured.pop()}."


def _measured_on(evaluation: Evaluation) -> str:
    return (
        f"{evaluation.clips:,} clips of the {evaluation.part} part of {evaluation.dataset}, "
        f"{len(evaluation.classes)} classes, split {evaluation.split}"
    )


def common_chance(runs: Sequence[Run]) -> float | None:
    """Return the accuracy of chance if all runs have the same; otherwise None."""
    chances = {run.results.evaluation.chance for run in runs}
    return chances.pop() if len(chances) == 1 else None


def _method_and_seed(result: RunResults) -> str:
    return f"{result.evaluation.method}, seed {result.evaluation.seed}"
