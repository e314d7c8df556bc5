"""Runs the stages from discover to featurize: from a name to training's caches."""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from types import MappingProxyType

from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine.atomic_files import write_if_changed
from avsnn.pipeline.engine.executor import WorkerPools, open_worker_pools
from avsnn.pipeline.engine.journal import StageSummary, summarise
from avsnn.pipeline.engine.lock import lock_folder
from avsnn.pipeline.engine.plan import NO_UNITS, Plan, plan
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.engine.run_stage import run_stage
from avsnn.pipeline.engine.stage import Stage, records_of_units
from avsnn.pipeline.formats.prepared_json import Prepared
from avsnn.pipeline.prepare.build_stages import (
    DatasetStages,
    rebuild_generations,
    rebuild_with_source,
)
from avsnn.pipeline.prepare.chosen_readers import require_here
from avsnn.pipeline.prepare.estimate import estimate
from avsnn.pipeline.prepare.failure_advice import failures_error
from avsnn.pipeline.prepare.final_files import failure_lines, make_prepared
from avsnn.pipeline.prepare.finished_snapshot import write_snapshot_of
from avsnn.pipeline.prepare.generations import remove_earlier_generations
from avsnn.pipeline.prepare.request import last_request, save_request
from avsnn.pipeline.prepare.stages.discover import Discover
from avsnn.pipeline.prepare.stages.extract import Extract
from avsnn.pipeline.prepare.stages.fetch import Fetch
from avsnn.pipeline.prepare.stages.pair import Pair
from avsnn.pipeline.settings_overrides import differences
from avsnn.pipeline.transfer.kaggle import download_from_kaggle


def prepare(
    stages: DatasetStages,
    *,
    workers: int | None,
    scheduler: str | None = None,
    progress: Progress,
    retry_failed: bool = False,
    redo: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    on_stage: Callable[[StageSummary], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Prepared:
    """Run every unit that is not done.

    Args:
        stages: the stages of the data set.
        workers: number of processes that decode; None takes one per core, 0 works in this process.
        scheduler: address of a Dask cluster that decodes instead of local processes; all workers
            of the cluster must see the data set's folder and source under the same path.
        progress: told of every unit.
        retry_failed: try again the units that recorded failures.
        redo: units to do again in any case, ``{stage: {unit: reason}}``.
        on_stage: called with the summary of each stage as the stage ends.
        say: told which settings differ from the last prepare, and where the work of the workers is
            shown.

    Raises:
        RunError: a stage failed, more clips failed than allowed, the disk is full or too small, or
            another run writes here.
        UserError: the data set has no clips, or the cluster does not answer.
    """
    # The contexts are left in reverse order: first the downloads that wait for a server end, then
    # the threads of these downloads can end too.
    with (
        lock_folder(stages.folder),
        open_worker_pools(workers, scheduler, shared=stages.folder / ".lock", say=say) as pools,
        stages.fetch.http,
    ):
        for change in changed_settings(stages):
            say(change)
        run = _PrepareRun(stages, pools, progress, retry_failed, redo, on_stage)
        try:
            run.run_stages()
        except BaseException:
            # A later stage cannot be planned from damaged files; the error of the stage that ended
            # is the one to say.
            with suppress(UserError):
                run.write_failures()
            raise
        run.write_failures()
        return run.finish()


def plan_stages(stages: DatasetStages, *, retry_failed: bool = False) -> list[tuple[Stage, Plan]]:
    """Plan every stage; later stages are planned from what earlier stages have left so far."""
    return [(stage, plan(stage, retry_failed=retry_failed)) for stage in stages.in_order]


def changed_settings(stages: DatasetStages) -> list[str]:
    """Return a sentence about every setting that differs from the last prepare."""
    last = last_request(stages.folder.parent, stages.manifest.name)
    changed = differences(last.settings, stages.request.settings) if last else []
    return [f"changed since the last prepare: {change}" for change in changed]


def _no_clips_error(stages: DatasetStages) -> UserError:
    name, layout = stages.manifest.name, stages.manifest.layout
    advice = "add clips to its table."
    if stages.manifest.pairs is not None:
        advice = f"{stages.folder / 'failures.jsonl'} says what was found in its files."
    if layout is not None:
        advice = (
            f"{stages.fetch.source} should hold {layout.audio}/CLASS/NAME{layout.audio_suffix} and "
            f"{layout.visual}/CLASS/NAME{layout.visual_suffix}."
        )
    return UserError(f"{name} has no clips; {advice}")


class _PrepareRun:
    """One call of :func:`prepare`."""

    def __init__(
        self,
        stages: DatasetStages,
        pools: WorkerPools,
        progress: Progress,
        retry_failed: bool,
        redo: Mapping[str, Mapping[str, str]],
        on_stage: Callable[[StageSummary], None],
    ) -> None:
        self.stages = stages
        self.request = stages.request
        self.pools = pools
        self.progress = progress
        self.retry_failed = retry_failed
        self.redo = redo
        self.on_stage = on_stage
        self.summaries: list[StageSummary] = []
        last = last_request(stages.folder.parent, stages.manifest.name)
        self.has_new_source = last is not None and last.source != stages.request.source is not None

    def run_stages(self) -> None:
        """Run the stages in order."""
        self._download_from_kaggle_if_needed()
        if isinstance(self.stages.table, Discover):
            self._find_clips(self.stages.table)
            self._fetch()
        else:
            self._fetch()
            if self.stages.table:
                self._find_clips(self.stages.table)
        for stage in self.stages.in_order[len(self.summaries) :]:
            self._run(stage)

    def _find_clips(self, table: Discover | Pair) -> None:
        """Write the table of clips; later stages work on the clips of the table.

        Raises:
            UserError: the table has no clips.
        """
        summary = self._run(table)
        if isinstance(table, Pair):
            self._require_few_broken_files(summary, {file.path for file in table.fetch.files})
        if summary.units_done_now:
            self.stages = rebuild_with_source(self.stages, self.stages.fetch.source)
        if not self.stages.manifest.clips:
            raise _no_clips_error(self.stages)

    def _fetch(self) -> None:
        """Fetch the files.

        Raises:
            UserError: there are no files to fetch.
        """
        if not self.stages.fetch.files:
            raise _no_clips_error(self.stages)
        self.stages.fetch.require_other_source()
        self._require_disk_space()
        # The request as it was given: the stages may have found the files in a folder inside.
        save_request(self.stages.folder, self.request)
        self._run(self.stages.fetch)
        # The folders of the later stages are named by the content of the files.
        self.stages = rebuild_generations(self.stages)

    def write_failures(self) -> None:
        """Write ``failures.jsonl``, also with the recorded failures of stages that did not run."""
        rest = self.stages.in_order[len(self.summaries) :]
        recorded = (summarise(stage.name, records_of_units(stage)) for stage in rest)
        write_if_changed(
            self.stages.folder / "failures.jsonl",
            failure_lines([*self.summaries, *recorded], self.stages.manifest.known_bad),
        )

    def finish(self) -> Prepared:
        """Write what a finished prepare leaves."""
        prepared = make_prepared(self.stages, self.summaries)
        write_if_changed(self.stages.folder / "prepared.json", prepared.as_text().encode())
        # With a snapshot, the next prepare would not look for what is still to be removed.
        if remove_earlier_generations(self.stages.generations, self.stages.index.folder):
            write_snapshot_of(self.stages, self.summaries)
        return prepared

    def _run(self, stage: Stage) -> StageSummary:
        # A new source may have the files that were missing in the last source.
        may_have_arrived = self.has_new_source and isinstance(stage, Discover | Pair | Fetch)
        retry_failed = self.retry_failed or may_have_arrived
        redo = self.redo.get(stage.name, NO_UNITS)
        if isinstance(stage, Extract) and stage.readers:
            needed = stage.needed_readers(plan(stage, retry_failed=retry_failed, redo=redo))
            require_here(self.stages.manifest.name, stage.readers, needed)
        summary = run_stage(
            stage,
            executor=self.pools.executor_of(stage),
            progress=self.progress,
            retry_failed=retry_failed,
            redo=redo,
        )
        self.summaries.append(summary)
        self.on_stage(summary)
        self._require_few_failures(summary)
        return summary

    def _download_from_kaggle_if_needed(self) -> None:
        stages = self.stages
        handle = stages.manifest.kaggle
        if handle is None or stages.fetch.source is not None:
            return
        planned = (plan(stage, retry_failed=self.retry_failed) for stage in stages.before_index)
        if any(current.todo_count for current in planned):
            self.stages = rebuild_with_source(stages, download_from_kaggle(handle))

    def _require_disk_space(self) -> None:
        """Refuse what would fill the disk, before the work starts."""
        folder = self.stages.folder
        cost = estimate(self.stages, workers=None)
        if cost.disk_bytes > cost.free_bytes and not cost.disk_is_guessed:
            raise RunError(
                f"{self.stages.manifest.name}: about {cost.disk_bytes / 1e9:.1f} GB are needed in "
                f"{folder}, {cost.free_bytes / 1e9:.1f} GB are free. Free some "
                "space, or choose another --root or --limit."
            )

    def _require_few_failures(self, summary: StageSummary) -> None:
        allowed = self.stages.request.max_failures * summary.inputs
        if summary.failed <= allowed and (summary.written or not summary.inputs):
            return
        raise failures_error(self.stages, summary, summary.failures, summary.inputs, "inputs")

    def _require_few_broken_files(self, summary: StageSummary, files: Collection[str]) -> None:
        """Refuse files of many recordings that cannot be read.

        Such a file counts as one of all files, because nobody knows how many recordings are inside.
        """
        broken = [failure for failure in summary.failures if failure.path in files]
        if len(broken) > self.stages.request.max_failures * len(files):
            raise failures_error(self.stages, summary, broken, len(files), "files")
