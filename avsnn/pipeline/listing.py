"""Lists what exists: data sets, the progress of their stages, and runs. Writes nothing."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsnn.datasets_manifest import names
from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine.plan import plan
from avsnn.pipeline.formats.prepared_json import load_prepared
from avsnn.pipeline.prepare.build_stages import build_as_requested, load_with_clips
from avsnn.pipeline.prepare.request import load_request

if TYPE_CHECKING:
    from avsnn.pipeline.runs.config import RunConfig


def list_datasets(root: Path) -> list[dict[str, Any]]:
    """Return one row per data set, with how much of the data set is prepared below ``root``.

    The ``fault`` of a row says why a data set cannot be used; the row then holds no other facts. A
    data set with a fault hides no other data set.
    """
    rows = []
    for name in names():
        try:
            rows.append({"name": name, "fault": "", **_facts(name, root)})
        except (UserError, OSError) as error:
            rows.append({"name": name, "fault": str(error)})
    return rows


def _facts(name: str, root: Path) -> dict[str, Any]:
    manifest = load_with_clips(name, root)
    prepared = load_prepared(root, name)
    return {
        "title": manifest.title,
        "description": manifest.description,
        "licence": manifest.licence,
        "homepage": manifest.homepage,
        "clips": len(manifest.clips),
        "bytes": sum(file.size or 0 for file in manifest.files_of(manifest.clips).values()),
        "generated": manifest.generated,
        "published_clips": manifest.pairs.clips if manifest.pairs else None,
        "classes": list(manifest.classes),
        "splits": list(manifest.splits),
        "default_split": manifest.default_split,
        "prepared_clips": prepared.clips if prepared else 0,
        "prepared_bytes": prepared.bytes if prepared else 0,
    }


def list_stages(root: Path) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Return the stages of every data set whose prepare was started below ``root``.

    Returns:
        one row per stage, and one row per data set whose stages cannot be listed, with the
        ``fault`` that is the reason.
    """
    rows, faults = [], []
    for name in names():
        try:
            rows += _stages_of(name, root)
        except (UserError, OSError) as error:
            faults.append({"dataset": name, "fault": str(error)})
    return rows, faults


def _stages_of(name: str, root: Path) -> list[dict[str, Any]]:
    if load_request(root, name) is None:
        return []
    rows = []
    for stage in build_as_requested(name, root=root).in_order:
        current = plan(stage)
        summary = current.up_to_date(stage)
        rows.append(
            {
                "dataset": name,
                "stage": stage.name,
                "units": len(current.units),
                "done": len(summary.records),
                "written": summary.written,
                "skipped": summary.skipped,
                "failed": summary.failed,
                "bytes": summary.bytes,
                "folder": str(stage.folder),
            }
        )
    return rows


def list_runs(runs: Path) -> list[dict[str, Any]]:
    """Return one row per run folder directly below ``runs``.

    The field ``unreadable`` of a row says what of the run cannot be read; the other fields hold
    what can be read.
    """
    # These modules import torch, and a list of data sets need not wait for torch.
    from avsnn.pipeline.runs.config import load_config

    rows = []
    for folder in sorted(runs.glob("*/")):
        row: dict[str, Any] = {"run": str(folder)}
        try:
            # `lstat` raises another error if nobody may enter the folder, which may be a run.
            (folder / "config.yaml").lstat()
            row |= _describe_run(folder, load_config(folder))
        except FileNotFoundError:
            continue
        except OSError as error:
            reason = f"{error.filename} cannot be read: {error.strerror}"
            row |= dict.fromkeys(RUN_FIELDS) | {"unreadable": reason}
        except (UserError, RunError) as error:
            row |= dict.fromkeys(RUN_FIELDS) | {"unreadable": str(error)}
        rows.append(row)
    return rows


RUN_FIELDS = (
    *(
        "dataset",
        "method",
        "converted_from",
        "epochs",
        "epochs_planned",
        "selection",
        "best_accuracy",
        "test_top1",
    ),
    "unreadable",
)


def _describe_run(folder: Path, config: "RunConfig") -> dict[str, Any]:
    from avsnn.pipeline.evaluation.measures import Evaluation
    from avsnn.pipeline.evaluation.records import read_any_record
    from avsnn.pipeline.runs.metrics import inspect_metrics, is_best_epoch

    part = config.settings.selection
    metrics, damage = inspect_metrics(folder, part)
    evaluation = read_any_record(Evaluation, report := folder / "report" / "test.json")
    if evaluation is None and report.exists():
        damage = (
            damage
            or f"{report} is damaged or of an earlier version; run 'avsnn evaluate {folder}' again"
        )
    if evaluation and not damage and not is_best_epoch(evaluation.epoch, metrics, part):
        # The run went on after the evaluation, and has other weights now.
        evaluation = None
    scores = [line[f"{part}_accuracy"] for line in metrics if f"{part}_accuracy" in line]
    values = (
        config.dataset,
        config.settings.model.method,
        config.converted_from,
        len(metrics),
        config.settings.epochs,
        part,
        max(scores, default=None),
        evaluation and evaluation.top1,
        damage,
    )
    return dict(zip(RUN_FIELDS, values, strict=True))
