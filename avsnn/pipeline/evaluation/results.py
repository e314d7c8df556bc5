"""Everything that was measured on one run: what tables and reports show."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from avsnn.pipeline.evaluation.answers import Answer
from avsnn.pipeline.evaluation.examples import Examples
from avsnn.pipeline.evaluation.insight.record import Insight, LayerEnergy, LayerRate
from avsnn.pipeline.evaluation.measures import ClassReport, Evaluation
from avsnn.pipeline.evaluation.robustness.record import Robustness
from avsnn.pipeline.rows import Rows
from avsnn.pipeline.runs.config import RunConfig, identifying_settings
from avsnn.pipeline.runs.stored_run import run_name


class NoiseRow(NamedTuple):
    """The accuracy at one level of noise.

    Attributes:
        target: which input is noisy.
        snr: signal to noise ratio in dB; None without noise.
        top1: top-1 accuracy as a share of clips.
        low: lower end of the 95 % interval of the accuracy.
        high: upper end of the interval.
    """

    target: str
    snr: float | None
    top1: float
    low: float
    high: float


class RunResults(NamedTuple):
    """Everything that was measured on one run.

    Attributes:
        folder: the run folder.
        config: the configuration of the run.
        evaluation: the measures.
        answers: the answer to every clip of the part.
        examples: clips to look at; None if there are none.
        robustness: the answers to noisy, missing and swapped inputs; None if not measured.
        insight: what happens inside the network; None if not measured.
        metrics: the lines of ``metrics.jsonl``, one for each epoch.
        damage: what is wrong with ``metrics.jsonl``; empty if nothing is wrong.
        measured_before: whether all measures were recorded before and are only read again.
    """

    folder: Path
    config: RunConfig
    evaluation: Evaluation
    answers: Rows[Answer]
    examples: Examples | None
    robustness: Robustness | None
    insight: Insight | None
    metrics: list[dict[str, Any]]
    damage: str
    measured_before: bool = False

    def __repr__(self) -> str:
        evaluation = self.evaluation
        return (
            f"<RunResults of {self.folder}: top-1 {evaluation.top1:.2%} of {evaluation.clips:,} "
            f"clips of {evaluation.part}>"
        )

    @property
    def name(self) -> str:
        """The name of the run folder; letters that are no UTF-8 are escaped."""
        return run_name(self.folder)

    @property
    def facts_without_seed(self) -> list[Any]:
        """What tells this run from other runs, without its seed."""
        settings = identifying_settings(self.config.settings, self.config.manifest)
        del settings["seed"]
        config = self.config
        facts = [config.dataset, config.data.fingerprint, self.evaluation.part, settings]
        return [*facts, [plugin.identity for plugin in config.plugins.values()]]

    @property
    def classes(self) -> Rows[ClassReport]:
        """The measures of every class."""
        return Rows(self.evaluation.classes)

    @property
    def noise(self) -> Rows[NoiseRow]:
        """The accuracy at every level of noise; empty if robustness was not measured."""
        curves = [] if self.robustness is None else self.robustness.curves
        return Rows(
            NoiseRow(curve.target, point.snr, point.top1.value, point.top1.low, point.top1.high)
            for curve in curves
            for point in curve.points
        )

    @property
    def spike_rates(self) -> Rows[LayerRate]:
        """The firing rate of every layer; empty if insight was not measured."""
        return Rows([] if self.insight is None else self.insight.rates)

    @property
    def energy(self) -> Rows[LayerEnergy]:
        """The operations of every layer for one clip; empty if insight was not measured.

        ``insight.energy`` holds the sums over all layers.
        """
        return Rows([] if self.insight is None else self.insight.energy.layers)


def unique_names(results: Sequence[RunResults]) -> list[str]:
    """Return the name of each run folder, with a number where folders have the same name."""
    names = [result.name for result in results]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]
