"""Compares runs: McNemar's test between pairs of runs, and the spread of runs over seeds."""

from collections.abc import Sequence
from itertools import combinations
from statistics import mean, stdev
from typing import Any

from pydantic import BaseModel

from avsnn.pipeline.evaluation.answers import Answer
from avsnn.pipeline.evaluation.results import RunResults


class Pair(BaseModel):
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


class Seeds(BaseModel):
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


class Comparison(BaseModel):
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
    pairs, notes = [], []
    for first, second in combinations(results, 2):
        if _clips(first.answers) != _clips(second.answers):
            notes.append(
                f"{first.name} and {second.name} answered to other clips, so McNemar's test does "
                "not compare the two runs."
            )
            continue
        pairs.append(_pair(first, second))
    adjusted = with_holm([pair.p for pair in pairs])
    pairs = [
        pair.model_copy(update={"adjusted_p": p}) for pair, p in zip(pairs, adjusted, strict=True)
    ]
    return Comparison(pairs=pairs, seeds=_seeds(results), notes=notes)


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


def _pair(first: RunResults, second: RunResults) -> Pair:
    right = {answer.key for answer in second.answers if answer.is_right}
    outcomes = [(answer.is_right, answer.key in right) for answer in first.answers]
    only_first = outcomes.count((True, False))
    only_second = outcomes.count((False, True))
    p = mcnemar(only_first, only_second)
    return Pair(
        first=first.name,
        second=second.name,
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


def _seeds(results: Sequence[RunResults]) -> list[Seeds]:
    groups: list[tuple[Any, list[RunResults]]] = []
    for result in results:
        facts = result.facts_without_seed
        for known, members in groups:
            if known == facts:
                members.append(result)
                break
        else:
            groups.append((facts, [result]))
    return [
        Seeds(
            method=members[0].evaluation.method,
            runs=[member.name for member in members],
            seeds=[member.evaluation.seed for member in members],
            mean=mean(member.evaluation.top1 for member in members),
            deviation=stdev(member.evaluation.top1 for member in members),
        )
        for _, members in groups
        if len({member.evaluation.seed for member in members}) > 1
    ]
