"""Compares runs: McNemar's test between pairs of runs, and the spread of runs over seeds."""

from collections.abc import Sequence
from itertools import combinations
from statistics import mean, stdev
from typing import Any

from avsnn.pipeline.evaluation.answers import Answer
from avsnn.pipeline.evaluation.results import RunResults, unique_names
from avsnn.pydantic_base import StrictModel

# A run with a name that no other compared run has.
NamedRun = tuple[str, RunResults]


class Pair(StrictModel):
    """Two runs that answered to the same clips.

    Attributes:
        first: name of one run.
        second: name of the other run.
        clips: number of clips.
        only_first: number of clips that only the first run answers right.
        only_second: number of clips that only the second run answers right.
        p: probability of a difference of this size or a larger one, if both runs were right equally
            often: the exact two-sided test of McNemar (1947).
        adjusted_p: `p` after the correction of Holm (1979) for the number of pairs.
    """

    first: str
    second: str
    clips: int
    only_first: int
    only_second: int
    p: float
    adjusted_p: float


class Seeds(StrictModel):
    """Runs that differ in their seed only.

    Attributes:
        method: name of the fusion method.
        runs: names of the runs.
        seeds: seed of each run.
        mean: mean top-1 accuracy, from 0 to 1.
        deviation: standard deviation of the top-1 accuracies, with n - 1 in the denominator.
    """

    method: str
    runs: list[str]
    seeds: list[int]
    mean: float
    deviation: float


class Comparison(StrictModel):
    """What several runs say together.

    Attributes:
        pairs: the pairs of runs that answered to the same clips.
        seeds: groups of runs that differ in their seed only.
        notes: why some pairs are left out, as sentences.
    """

    pairs: list[Pair]
    seeds: list[Seeds]
    notes: list[str]


def compare(results: Sequence[RunResults]) -> Comparison:
    """Compare all pairs of runs, and group the runs that differ in their seed only."""
    named = list(zip(unique_names(results), results, strict=True))
    pairs, notes = [], []
    for first, second in combinations(named, 2):
        if _clips(first[1].answers) != _clips(second[1].answers):
            notes.append(
                f"{first[0]} and {second[0]} answered to other clips, so McNemar's test does not "
                "compare the two runs."
            )
            continue
        pairs.append(_pair(first, second))
    adjusted = with_holm([pair.p for pair in pairs])
    pairs = [
        pair.model_copy(update={"adjusted_p": p}) for pair, p in zip(pairs, adjusted, strict=True)
    ]
    seeds, left_out = _seeds(named)
    return Comparison(pairs=pairs, seeds=seeds, notes=notes + left_out)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the p-value of the exact two-sided test of McNemar (1947).

    Args:
        only_first: number of clips that only one run answers right.
        only_second: number of clips that only the other run answers right.
    """
    # scipy.stats takes half a second to import.
    from scipy.stats import binomtest

    differing = only_first + only_second
    return float(binomtest(only_first, differing).pvalue) if differing else 1.0


def _clips(answers: Sequence[Answer]) -> dict[str, str]:
    return {answer.key: answer.truth for answer in answers}


def _pair(first: NamedRun, second: NamedRun) -> Pair:
    right = {answer.key for answer in second[1].answers if answer.is_right}
    outcomes = [(answer.is_right, answer.key in right) for answer in first[1].answers]
    only_first = outcomes.count((True, False))
    only_second = outcomes.count((False, True))
    p = mcnemar(only_first, only_second)
    return Pair(
        first=first[0],
        second=second[0],
        clips=len(outcomes),
        only_first=only_first,
        only_second=only_second,
        p=p,
        adjusted_p=p,
    )


def with_holm(values: Sequence[float]) -> list[float]:
    """Return the p-values after the correction of Holm (1979) for the number of tests.

    Args:
        values: the p-value of each test.
    """
    least = 0.0
    adjusted = [0.0] * len(values)
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, values[place] * (len(values) - rank)))
        adjusted[place] = least
    return adjusted


def _seeds(named: Sequence[NamedRun]) -> tuple[list[Seeds], list[str]]:
    """Return the groups of runs that differ in their seed only, and what the groups leave out.

    A second run of the same seed is no further sample of the seeds, so only the first run counts.
    """
    groups: list[tuple[Any, dict[int, NamedRun]]] = []
    left_out = []
    for name, result in named:
        facts, seed = result.facts_without_seed, result.evaluation.seed
        members = next((members for known, members in groups if known == facts), None)
        if members is None:
            groups.append((facts, {seed: (name, result)}))
        elif seed in members:
            left_out.append(
                f"{name} has the seed of {members[seed][0]}, so the spread over seeds leaves "
                f"{name} out."
            )
        else:
            members[seed] = (name, result)
    return [_spread(list(members.values())) for _, members in groups if len(members) > 1], left_out


def _spread(members: Sequence[NamedRun]) -> Seeds:
    accuracies = [result.evaluation.top1 for _, result in members]
    return Seeds(
        method=members[0][1].evaluation.method,
        runs=[name for name, _ in members],
        seeds=[result.evaluation.seed for _, result in members],
        mean=mean(accuracies),
        deviation=stdev(accuracies),
    )
