"""8. Report: one page in one file, from everything that was measured on one or several runs."""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from avsnn.pipeline.engine.atomic_files import (
    read_only_allowed,
    remove_partial_files_of_dead_writers,
)
from avsnn.pipeline.evaluation.comparison import Comparison
from avsnn.pipeline.evaluation.records import write_beside
from avsnn.pipeline.evaluation.results import RunResults
from avsnn.pipeline.report.clips import attention_of
from avsnn.pipeline.report.commands import commands
from avsnn.pipeline.report.javascript import vega_script
from avsnn.pipeline.report.labels import Run, describe_runs, label_runs
from avsnn.pipeline.report.sections import Section, make_sections
from avsnn.pipeline.report.summary import shared_caveats, summarise
from avsnn.pipeline.report.tables import percent, plain, written
from avsnn.pipeline.settings_overrides import flatten


def write_report(
    results: Sequence[RunResults], comparison: Comparison | None, path: Path
) -> Path | None:
    """Write the page of one run, or of several runs side by side.

    Args:
        results: everything that was measured on each run.
        comparison: what the runs say together; None for one run.
        path: where the page goes.

    Returns:
        the path, or None if the page has changed and nobody may write there.
    """
    page = make_page(results, comparison).encode(errors="backslashreplace")
    with read_only_allowed():
        if path.parent.exists():
            remove_partial_files_of_dead_writers(path.parent)
    return path if write_beside(path, page) else None


def make_page(results: Sequence[RunResults], comparison: Comparison | None) -> str:
    """Return the page as HTML."""
    # Jinja2 takes a tenth of a second to import, and most commands write no page.
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    template = files("avsnn.pipeline.report") / "template"
    environment = Environment(
        loader=FunctionLoader(lambda name: (template / name).read_text()),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"written": written, "percent": percent}
    runs = label_runs(results)
    title, lead = describe_runs(runs)
    sections = make_sections(runs, comparison)
    summaries = [summarise(run, comparison) for run in runs]
    page: str = environment.get_template("page.html.jinja").render(
        runs=runs,
        title=title,
        lead=lead,
        summaries=summaries,
        caveats=shared_caveats(summaries),
        sections=sections,
        comparison=comparison,
        attention={run.number: attention_of(run) for run in runs},
        commands={run.number: commands(run) for run in runs},
        settings={run.number: _settings(run) for run in runs},
        data=_data(sections),
        style=(template / "style.css").read_text(),
        script=(template / "page.js").read_text(),
        vega=vega_script(),
    )
    return page


def _settings(run: Run) -> dict[str, Any]:
    """Return every setting of a run, and what the run was made with."""
    config = run.results.config
    return flatten(config.settings) | config.made_with | {"data": config.data.fingerprint}


def _data(sections: Sequence[Section]) -> str:
    """Return the charts and their data as JSON, which cannot end the script that holds the JSON."""
    charts = {
        chart.name: {
            "spec": chart.spec,
            "keys": [column.key for column in chart.table.columns],
            "rows": [[plain(value) for value in row] for row in chart.table.rows],
        }
        for section in sections
        for chart in section.all_charts
    }
    text = json.dumps(charts, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
