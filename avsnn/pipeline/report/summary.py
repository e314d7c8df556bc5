"""What a reader of the page sees first: how good, how sure, against what, at what energy."""

from collections.abc import Sequence
from typing import NamedTuple

from avsnn.pipeline.evaluation.comparison import Comparison
from avsnn.pipeline.evaluation.measures import Evaluation
from avsnn.pipeline.report.labels import Run
from avsnn.pipeline.report.tables import UNKNOWN, percent, with_prefix
from avsnn.pipeline.runs.metrics import is_best_epoch
from avsnn.pipeline.training.balance import balance_words

# Below this p-value, after the correction for the number of pairs, two runs count as different.
SIGNIFICANT = 0.05


class Fact(NamedTuple):
    """One answer at the top of the page.

    Attributes:
        question: the question that the fact answers.
        answer: the figure.
        detail: what the figure means, as a sentence.
    """

    question: str
    answer: str
    detail: str


class Summary(NamedTuple):
    """What the page says first about a run.

    Attributes:
        run: the run.
        line: method, settings and checkpoint in one line.
        facts: the answers.
        caveats: what a reader must know beside the figures, as sentences.
    """

    run: Run
    line: str
    facts: list[Fact]
    caveats: list[str]


def summarise(run: Run, comparison: Comparison | None) -> Summary:
    """Return what the page says first about a run."""
    evaluation, settings = run.results.evaluation, run.results.config.settings
    chosen, data = evaluation.selection, settings.data
    frames = "" if data.frames == "published" else f", frames {data.frames}"
    audio = "" if data.audio == "whole" else f", audio {data.audio}"
    line = (
        f"{evaluation.dataset}, {evaluation.method}, C = {settings.model.channels}, "
        f"T = {settings.model.steps}{frames}{audio}{balance_words(settings.balance)}, "
        f"seed {evaluation.seed}, "
        f"epoch {evaluation.epoch or 'unknown'} "
        f"({'the last' if chosen == 'last' else f'chosen on {chosen}'})"
    )
    facts = [_how_good(evaluation), _how_sure(evaluation)]
    facts += [_against_what(run, evaluation, comparison), _at_what_energy(run)]
    return Summary(run, line, facts, caveats(run))


def caveats(run: Run) -> list[str]:
    """Return what a reader must know beside the figures of a run, as sentences."""
    results = run.results
    evaluation, lines = results.evaluation, results.metrics
    found = list(evaluation.caveats)
    if results.damage:
        found.append(f"{results.damage}; the curves show the {len(lines)} epochs before.")
    elif not is_best_epoch(evaluation.epoch, lines, results.config.settings.selection):
        found.append(
            f"The figures belong to epoch {evaluation.epoch}, and metrics.jsonl names another best "
            "epoch by now; run 'avsnn evaluate' again."
        )
    return found


def _how_good(evaluation: Evaluation) -> Fact:
    top5 = "" if evaluation.top5 is None else f" Top-5 is {percent(evaluation.top5)}."
    detail = f"Top-1 of {evaluation.clips:,} clips.{top5}"
    return Fact("How good?", percent(evaluation.top1), detail)


def _how_sure(evaluation: Evaluation) -> Fact:
    interval = evaluation.top1_interval
    # Without a hit or without a miss, every sample of the bootstrap would be the same.
    method = "bootstrap" if 0 < evaluation.top1 < 1 else "exact binomial interval"
    detail = (
        f"95 % interval of top-1: {method} over {evaluation.resampled_units:,} "
        f"{evaluation.resampled}. {_direction(evaluation)}"
    )
    return Fact("How sure?", f"{percent(interval.low)} to {percent(interval.high)}", detail)


def _direction(evaluation: Evaluation) -> str:
    """Return a sentence on the calibration: whether the network is too sure, and how much."""
    found = evaluation.calibration
    confidence = sum(one.clips * one.confidence for one in found.bins) / evaluation.clips
    points = 100 * (confidence - evaluation.top1)
    where = f"{abs(points):.1f} points {'above' if points > 0 else 'below'} the accuracy"
    if round(abs(points), 1) == 0:
        where = "equal to the accuracy"
    return (
        f"The mean confidence is {percent(confidence)}, {where}; the expected calibration error "
        f"(ECE) is {100 * found.ece:.1f} points."
    )


def _against_what(run: Run, evaluation: Evaluation, comparison: Comparison | None) -> Fact:
    majority = evaluation.majority
    detail = (
        f"Chance. An answer that always names the largest class ({majority.name}) would reach "
        f"{percent(majority.share)}.{_verdict(run, comparison)}"
    )
    return Fact("Against what?", percent(evaluation.chance), detail)


def _verdict(run: Run, comparison: Comparison | None) -> str:
    """Return a sentence on the pairs of this run that differ by McNemar's test."""
    pairs = [
        pair
        for pair in (comparison.pairs if comparison else ())
        if run.name in (pair.first, pair.second)
    ]
    if not pairs:
        return ""
    different = sum(pair.adjusted_p < SIGNIFICANT for pair in pairs)
    return f" Differs from {different} of {len(pairs)} other runs (McNemar, p < {SIGNIFICANT})."


def _at_what_energy(run: Run) -> Fact:
    question, inside = "At what energy?", run.results.insight
    if inside is None:
        detail = "Not measured; 'avsnn evaluate --insight' measures the energy."
        return Fact(question, UNKNOWN, detail)
    energy = inside.energy
    ann = with_prefix(energy.ann_energy_pj, "J")
    versus = f"The same network as an ANN needs {ann}"
    if energy.energy_pj:
        versus += f", {energy.ann_energy_pj / energy.energy_pj:.1f} times as much"
    detail = (
        f"Arithmetic per clip in 45 nm, with the products of the attention. {versus}. "
        f"{energy.parameters:,} parameters."
    )
    return Fact(question, with_prefix(energy.energy_pj, "J"), detail)


def shared_caveats(summaries: Sequence[Summary]) -> list[tuple[str, list[str]]]:
    """Return each caveat once, with the names of the runs that it concerns.

    The list of names is empty for a caveat of all runs.
    """
    runs_of: dict[str, list[str]] = {}
    for summary in summaries:
        for caveat in summary.caveats:
            runs_of.setdefault(caveat, []).append(summary.run.label)
    return [
        (caveat, [] if len(labels) == len(summaries) else labels)
        for caveat, labels in runs_of.items()
    ]
