"""Lists the data sets and the progress of their stages."""

from pathlib import Path
from typing import Any

from avsnn.datasets_manifest import names
from avsnn.errors import UserError
from avsnn.pipeline.engine.plan import plan
from avsnn.pipeline.formats.prepared_json import load_prepared
from avsnn.pipeline.prepare.build_stages import build_as_requested, load_with_clips
from avsnn.pipeline.prepare.request import load_request


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
        "bytes": int(manifest.files_of(manifest.clips).sizes.clip(min=0).sum()),
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
    for name in sorted({*names(), *_prepared_names(root)}):
        try:
            rows += _stages_of(name, root)
        except (UserError, OSError) as error:
            faults.append({"dataset": name, "fault": str(error)})
    return rows, faults


def _prepared_names(root: Path) -> list[str]:
    """Return the names of the data sets below ``root``, also those whose YAML is not known here."""
    return [path.parent.parent.name for path in root.glob("*/state/request.json")]


def _stages_of(name: str, root: Path) -> list[dict[str, Any]]:
    if load_request(root, name) is None:
        return []
    rows = []
    for stage in build_as_requested(name, root=root).in_order:
        current = plan(stage)
        summary = current.up_to_date
        rows.append(
            {
                "dataset": name,
                "stage": stage.name,
                "units": current.unit_count,
                "done": summary.units,
                "written": summary.written,
                "skipped": summary.skipped,
                "failed": summary.failed,
                "bytes": summary.bytes,
                "folder": str(stage.folder),
            }
        )
    return rows
