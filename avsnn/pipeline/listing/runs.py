"""Lists the runs, also those of other versions and of plugins, with what can be read of each."""

from pathlib import Path
from typing import Any

from avsnn.errors import RunError, UserError
from avsnn.installed import nothing_imported
from avsnn.pipeline.engine.lock import has_writer
from avsnn.suggestions import did_you_mean
from avsnn.version import VERSION

# The fields of a row; None stands for what cannot be read or is not known yet.
RUN_FIELDS = (
    *("run", "name", "begun", "dataset", "method", "preset", "differs", "seed"),
    *("converted_from", "epochs", "epochs_planned", "selection", "best_accuracy", "test_top1"),
    *("state", "unreadable"),
)

# What a list can be sorted by: the field, and whether the largest value comes first.
SORT_KEYS = {
    "name": ("name", False),
    "date": ("begun", True),
    "dataset": ("dataset", False),
    "method": ("method", False),
    "preset": ("preset", False),
    "seed": ("seed", False),
    "epochs": ("epochs", True),
    "accuracy": ("best_accuracy", True),
    "test": ("test_top1", True),
    "state": ("state", False),
}


def list_runs(runs: Path, *, sort: str = "name") -> list[dict[str, Any]]:
    """Return one row per run folder directly below ``runs``.

    The field ``unreadable`` of a row says what of the run cannot be read; the other fields hold
    what can be read. A run that cannot be read hides no other run.

    Args:
        runs: the folder of the run folders.
        sort: a key of ``SORT_KEYS``; rows without a value come last.

    Raises:
        UserError: the list cannot be sorted so.
    """
    if sort not in SORT_KEYS:
        raise UserError(
            f"runs cannot be sorted by {sort!r}; {did_you_mean(sort, SORT_KEYS)}"
            f"there are: {', '.join(SORT_KEYS)}."
        )
    rows = []
    for folder in sorted(runs.glob("*/")):
        try:
            # `lstat` raises another error if nobody may enter the folder, which may be a run.
            (folder / "config.yaml").lstat()
        except FileNotFoundError:
            continue
        except OSError as error:
            found: dict[str, Any] = {
                "unreadable": f"{error.filename} cannot be read: {error.strerror}"
            }
        else:
            found = _describe_run(folder)
        row: dict[str, Any] = dict.fromkeys(RUN_FIELDS)
        row |= {"run": str(folder), "name": folder.name, **found}
        rows.append(row | {"state": row["state"] or "unreadable"})
    field, largest_first = SORT_KEYS[sort]
    known = [row for row in rows if row[field] is not None]
    known.sort(key=lambda row: row[field], reverse=largest_first)
    return known + [row for row in rows if row[field] is None]


def _describe_run(folder: Path) -> dict[str, Any]:
    # These modules import torch, and a list of data sets alone need not wait for torch.
    from avsnn.pipeline.listing.run_settings import describe_settings
    from avsnn.pipeline.runs.config import CONVERTED_FROM, check_config, read_config

    reasons = []
    try:
        value = read_config(folder)
    except (UserError, OSError) as error:
        return {"unreadable": str(error)}
    try:
        # A list of runs runs no code of a plugin, not even of an installed package.
        with nothing_imported():
            check_config(folder, value)
    except UserError as error:
        reasons.append(_of_plugin(value) or f"{error}{_other_version(value)}")
    settings = _at(value, "settings")
    if not isinstance(settings, dict):
        settings = {}
    dataset, method = _text(value, "dataset"), _text(settings, "model", "method")
    with nothing_imported():
        preset, differs = describe_settings(settings, dataset=dataset or "", method=method or "")
    row: dict[str, Any] = {
        "begun": _text(value, "made_with", "begun"),
        "dataset": dataset,
        "method": method,
        "preset": preset if settings else None,
        "differs": {key: _plain(differs[key]) for key in differs} if settings else None,
        "seed": _number(settings, "seed"),
        "converted_from": _text(value, "made_with", CONVERTED_FROM) or "",
        "epochs_planned": _number(settings, "epochs"),
        "selection": _text(settings, "selection"),
    }
    row |= _describe_results(folder, row["selection"], reasons)
    row["state"] = _state(folder, row)
    return row | {"unreadable": "; ".join(reasons)}


def _describe_results(folder: Path, selection: str | None, reasons: list[str]) -> dict[str, Any]:
    """Return the epochs and accuracies of a run; add to ``reasons`` what cannot be read."""
    from avsnn.pipeline.evaluation.measures import Evaluation
    from avsnn.pipeline.evaluation.records import read_any_record
    from avsnn.pipeline.runs.metrics import inspect_metrics, is_best_epoch

    part = selection if selection in ("val", "test") else "last"
    try:
        metrics, damage = inspect_metrics(folder, part)
    except RunError as error:
        reasons.append(str(error))
        return {}
    evaluation = read_any_record(Evaluation, report := folder / "report" / "test.json")
    if damage:
        reasons.append(damage)
    elif evaluation is None and report.exists():
        reasons.append(
            f"{report} is damaged or of an earlier version; run 'avsnn evaluate {folder}' again"
        )
    elif evaluation and not is_best_epoch(evaluation.epoch, metrics, part):
        # The run went on after the evaluation, and has other weights now.
        evaluation = None
    scores = [line[f"{part}_accuracy"] for line in metrics if f"{part}_accuracy" in line]
    return {
        "epochs": len(metrics),
        "best_accuracy": max(scores, default=None),
        "test_top1": evaluation and evaluation.top1,
    }


def _state(folder: Path, row: dict[str, Any]) -> str | None:
    """Return whether a run is at work on this machine, finished or neither; None if unknown."""
    if has_writer(folder):
        return "running"
    if row["converted_from"]:
        return "converted"
    if row["epochs_planned"] is None or "epochs" not in row:
        return None
    return "finished" if row["epochs"] >= row["epochs_planned"] else "unfinished"


def _of_plugin(value: Any) -> str:
    """Return a sentence if a run needs a plugin that is not loaded; empty otherwise."""
    from avsnn.pipeline.runs.needed_plugins import recorded_plugins
    from avsnn.pipeline.runs.plugin import REGISTRIES

    for setting, plugin in recorded_plugins(value).items():
        name, registry = _text(value, "settings", *setting.split(".")), REGISTRIES[setting]
        if name is not None and name not in registry.data:
            return (
                f"its settings are not checked: the {registry.noun} {name} is of {plugin}, which "
                "status does not run."
            )
    return ""


def _other_version(value: Any) -> str:
    """Return a sentence if a run was made by another version; empty otherwise."""
    made_by = _text(value, "made_with", "avsnn")
    if made_by in (None, VERSION):
        return ""
    return f" The run was made by avsnn {made_by}; this is avsnn {VERSION}."


def _at(value: Any, *keys: str) -> Any:
    """Return what the value of a file holds under some keys; None if nothing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value: Any, *keys: str) -> str | None:
    found = _at(value, *keys)
    return found if isinstance(found, str) else None


def _number(value: Any, *keys: str) -> int | None:
    found = _at(value, *keys)
    return found if type(found) is int else None


def _plain(value: Any) -> Any:
    """Return a value that JSON knows."""
    return value if isinstance(value, str | int | float | bool | None) else str(value)
