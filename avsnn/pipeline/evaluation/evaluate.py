"""7. Evaluation: measures the best checkpoint of a run on one part of its split."""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from math import isfinite
from pathlib import Path

import torch
from pydantic import BaseModel

from avsnn.datasets_manifest.clips import Part, require_part
from avsnn.errors import RunError
from avsnn.pipeline.engine.atomic_files import (
    read_only_allowed,
    remove_partial_files_of_dead_writers,
)
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.evaluation.answers import (
    Answer,
    answers_from_csv,
    answers_to_csv,
    make_answers,
)
from avsnn.pipeline.evaluation.caveats import caveats
from avsnn.pipeline.evaluation.examples import Examples, choose_examples
from avsnn.pipeline.evaluation.insight.measure import measure_insight
from avsnn.pipeline.evaluation.insight.record import Insight
from avsnn.pipeline.evaluation.intervals import Resampling
from avsnn.pipeline.evaluation.measures import Evaluation, measure
from avsnn.pipeline.evaluation.records import R, read_record, write_beside, write_record
from avsnn.pipeline.evaluation.results import RunResults
from avsnn.pipeline.evaluation.robustness.measure import measure_robustness
from avsnn.pipeline.evaluation.robustness.record import Robustness
from avsnn.pipeline.formats.clip_index import open_index
from avsnn.pipeline.formats.prepared_json import load_prepared
from avsnn.pipeline.inference.memory import EVALUATION_ADVICE, lack_of_memory_said
from avsnn.pipeline.inference.open_part import OpenPart, open_part
from avsnn.pipeline.inference.predict import Scores
from avsnn.pipeline.loading.dataset import require_same_data
from avsnn.pipeline.rows import Rows
from avsnn.pipeline.runs.metrics import inspect_metrics
from avsnn.pipeline.runs.plugin import plugin_faults_said
from avsnn.pipeline.runs.stored_run import StoredRun, run_name

# Raise a number by hand when the same checkpoint gets other measures than before.
EVALUATE_VERSION = 3
# Name and version of each record beside the evaluation.
RECORDS: dict[type[BaseModel], tuple[str, int]] = {
    Examples: ("examples", 1),
    Robustness: ("robustness", 1),
    Insight: ("insight", 1),
}


def evaluate(
    folder: Path,
    *,
    part: Part,
    root: Path | None,
    device: torch.device,
    progress: Progress,
    robustness: bool = False,
    insight: bool = False,
) -> RunResults:
    """Measure the best checkpoint of a run on one part of the split that the run is trained on.

    Every measure is recorded in ``report/`` of the run folder, and is not taken again while
    checkpoint and data are the same.

    Args:
        folder: the run folder.
        part: the part to measure on.
        root: the folder that holds the data sets; None takes the folder of the training.
        device: the device that computes.
        progress: told of every clip.
        robustness: also measure the answers to noisy, missing and swapped inputs.
        insight: also measure what happens inside the network.

    Raises:
        UserError: there is no such part, the folder is not a run, has no checkpoint yet, its data
            are gone or changed, or the evaluation needs more memory than there is.
        RunError: the checkpoint cannot be read, the loss is NaN or infinite, memory ran out, or the
            run folder was deleted meanwhile.
    """
    require_part(part)
    advice = f"{EVALUATION_ADVICE[0].upper()}{EVALUATION_ADVICE[1:]}"
    with ExitStack() as stack:
        stack.enter_context(lack_of_memory_said(advice))
        run = StoredRun(folder, root=root)
        if load_prepared(run.config.root, run.config.dataset) is not None:
            # A recorded result says nothing about data that have changed since. Without any data,
            # the recorded result is all that there is.
            require_same_data(run.config, run.folder)
        # The code of a plugin is not at fault where memory ran out.
        stack.enter_context(plugin_faults_said(run.config.settings.model.method))
        stack.enter_context(lack_of_memory_said(advice))
        work = _Work(run, part, device, progress, stack)
        return work.results(robustness=robustness, insight=insight)


def recorded_evaluation(run: StoredRun, *, part: Part) -> Evaluation | None:
    """Return the recorded evaluation of the present best checkpoint, or None if there is none."""
    path = evaluation_path(run.folder, part)
    return read_record(Evaluation, path, _fingerprint(run, part, EVALUATE_VERSION))


def recorded_insight(run: StoredRun, *, part: Part) -> Insight | None:
    """Return what was recorded of the inside of the network, or None if there is no record."""
    return read_record(Insight, *_place(run, part, Insight))


def recorded_robustness(run: StoredRun, *, part: Part) -> Robustness | None:
    """Return the recorded answers to noisy and missing inputs, or None if there is no record."""
    return read_record(Robustness, *_place(run, part, Robustness))


def evaluation_path(folder: Path, part: Part) -> Path:
    """Return the path of the recorded evaluation of a part in a run folder."""
    return folder / "report" / f"{part}.json"


def clips_path(folder: Path, part: Part) -> Path:
    """Return the path of the recorded answers to all clips of a part in a run folder."""
    return folder / "report" / f"{part}-clips.csv"


class _Work:
    """Reads what is recorded, and measures what is not; opens the data only if data are needed."""

    def __init__(
        self,
        run: StoredRun,
        part: Part,
        device: torch.device,
        progress: Progress,
        stack: ExitStack,
    ) -> None:
        self._run = run
        self._part = part
        self._device = device
        self._progress = progress
        self._stack = stack
        self._has_measured = False

    def results(self, *, robustness: bool, insight: bool) -> RunResults:
        evaluation, answers = self._recorded() or self._measure()
        examples = self._beside(Examples, choose_examples)
        robust = self._beside(
            Robustness, self._with_intervals(measure_robustness) if robustness else None
        )
        inside = self._beside(Insight, self._with_intervals(measure_insight) if insight else None)
        config = self._run.config
        metrics, damage = inspect_metrics(self._run.folder, config.settings.selection)
        # A training that goes on changes what must be said of the same checkpoint.
        groups = len({answer.group for answer in answers})
        said = caveats(config, evaluation, metrics, groups=groups)
        evaluation = evaluation.model_copy(
            # The folder may have another name than at the measurement.
            update={"caveats": said, "run": run_name(self._run.folder)}
        )
        self._write(evaluation_path(self._run.folder, self._part), evaluation)
        return RunResults(
            folder=self._run.folder,
            config=config,
            evaluation=evaluation,
            answers=Rows(answers),
            examples=examples,
            robustness=robust,
            insight=inside,
            metrics=metrics,
            damage=damage,
            measured_before=not self._has_measured,
        )

    @cached_property
    def _opened(self) -> OpenPart:
        self._has_measured = True
        return self._stack.enter_context(open_part(self._run, self._part, self._device))

    @cached_property
    def _scores(self) -> Scores:
        opened = self._opened
        self._progress.start(f"evaluate {self._part}", len(opened.rows), "clips")
        scores = opened.scores(progress=self._progress)
        self._progress.stop()
        if not isfinite(scores.loss):
            raise RunError(
                f"{self._run.checkpoint}: the loss on {self._part} is NaN or infinite, so there is "
                "nothing to report; train the run again with a lower optimizer.base_lr, or check "
                "the data with 'avsnn verify'."
            )
        return scores

    @cached_property
    def _groups(self) -> list[str]:
        config = self._run.config
        index = open_index(config.root / config.dataset / config.data.index)
        groups: list[str] = index.groups[index.find(self._opened.keys)].tolist()
        return groups

    @cached_property
    def _resampling(self) -> Resampling:
        return Resampling(self._groups)

    def _recorded(self) -> tuple[Evaluation, list[Answer]] | None:
        """Return the recorded measures and answers; None unless both are whole."""
        recorded = recorded_evaluation(self._run, part=self._part)
        if recorded is None:
            return None
        try:
            content = clips_path(self._run.folder, self._part).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(content).hexdigest() != recorded.clips_sha256:
            return None
        answers = answers_from_csv(content)
        right = sum(answer.is_right for answer in answers)
        if (recorded.clips, recorded.top1) != (len(answers), right / max(1, len(answers))):
            return None
        return recorded, answers

    def _measure(self) -> tuple[Evaluation, list[Answer]]:
        run, scores, opened = self._run, self._scores, self._opened
        answers = make_answers(scores, opened.keys, self._groups, run.config.manifest.classes)
        content = answers_to_csv(answers)
        evaluation = measure(
            run,
            scores,
            self._resampling,
            part=self._part,
            epoch=opened.epoch,
            fingerprint=_fingerprint(run, self._part, EVALUATE_VERSION),
            clips_sha256=hashlib.sha256(content).hexdigest(),
        )
        self._require_folder()
        with read_only_allowed():
            remove_partial_files_of_dead_writers(run.folder / "report")
        write_beside(clips_path(run.folder, self._part), content)
        self._write(evaluation_path(run.folder, self._part), evaluation)
        return evaluation, answers

    def _beside(self, kind: type[R], measure: Callable[..., R] | None) -> R | None:
        """Return a record beside the evaluation.

        Args:
            kind: the class of the record, a key of `RECORDS`.
            measure: measures the record if nothing was recorded; None measures nothing.
        """
        path, mark = _place(self._run, self._part, kind)
        record = read_record(kind, path, mark)
        if record is not None or measure is None:
            return record
        return self._write(path, measure(self._opened, self._scores, fingerprint=mark))

    def _with_intervals(self, measure: Callable[..., R]) -> Callable[..., R]:
        """Return a function that also gets the resampling and the progress."""

        def with_intervals(opened: OpenPart, clean: Scores, *, fingerprint: str) -> R:
            return measure(
                opened,
                clean,
                # The resampling opens the data, so only a measurement asks for it.
                self._resampling,
                fingerprint=fingerprint,
                progress=self._progress,
            )

        return with_intervals

    def _write(self, path: Path, record: R) -> R:
        self._require_folder()
        write_record(path, record)
        return record

    def _require_folder(self) -> None:
        if not (self._run.folder / "config.yaml").exists():
            raise RunError(
                f"{self._run.folder} was deleted while it was evaluated, so nothing is saved there."
            )


def _place(run: StoredRun, part: Part, kind: type[BaseModel]) -> tuple[Path, str]:
    """Return the path and the fingerprint of a record beside the evaluation."""
    name, version = RECORDS[kind]
    return run.folder / "report" / f"{part}-{name}.json", _fingerprint(run, part, version)


def _fingerprint(run: StoredRun, part: Part, version: int) -> str:
    return fingerprint([version, run.config.data.fingerprint, part, run.digest])
