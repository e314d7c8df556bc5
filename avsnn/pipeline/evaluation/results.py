"""Everything that was measured on one run: what tables and reports show."""

from pathlib import Path
from typing import Any, NamedTuple

from avsnn.pipeline.evaluation.answers import Answer
from avsnn.pipeline.evaluation.examples import Examples
from avsnn.pipeline.evaluation.insight.record import Insight
from avsnn.pipeline.evaluation.measures import Evaluation
from avsnn.pipeline.evaluation.robustness.record import Robustness
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.runs.stored_run import run_name


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
    answers: list[Answer]
    examples: Examples | None
    robustness: Robustness | None
    insight: Insight | None
    metrics: list[dict[str, Any]]
    damage: str
    measured_before: bool = False

    @property
    def name(self) -> str:
        """The name of the run folder; letters that are no UTF-8 are escaped."""
        return run_name(self.folder)

    @property
    def facts_without_seed(self) -> list[Any]:
        """What tells this run from other runs, without its seed."""
        settings = self.config.settings.model_dump(mode="json", exclude={"seed"})
        evaluation = self.evaluation
        return [self.config.dataset, self.config.data.fingerprint, evaluation.part, settings]
