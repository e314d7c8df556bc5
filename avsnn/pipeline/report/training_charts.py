"""Charts of the training: loss, accuracy and firing rates over the epochs."""

from collections.abc import Sequence
from math import ceil
from typing import Any

from avsnn.pipeline.report.labels import Run
from avsnn.pipeline.report.specs import (
    SHARE_AXIS,
    SHARE_SCALE,
    dashes,
    distinct,
    lines,
    nominal,
    tooltip,
    value,
    whole,
    whole_numbers,
)
from avsnn.pipeline.report.tables import Chart, Column, Table

# The curves of a chart, and what their figures are called in `metrics.jsonl`. A training with a
# strategy of balance has the curves of each stream alone.
CURVES = {
    "train": "{}",
    "val": "val_{}",
    "test": "test_{}",
    "train, sound alone": "audio_{}",
    "train, picture alone": "visual_{}",
}

# A chart shows at most so many epochs; more would be narrower than a pixel of a phone.
MOST_EPOCHS = 60


def curve_charts(runs: Sequence[Run]) -> list[Chart]:
    """Return loss and accuracy of training, and of the part that chose the checkpoint."""
    runs = [run for run in runs if run.results.metrics]
    charts = []
    last = max((line["epoch"] for run in runs for line in run.results.metrics), default=1)
    loss = "The loss of the training part includes label smoothing and alignment."
    for name, note, form in (("loss", loss, "number"), ("accuracy", "", "percent")):
        columns = [
            Column("run", "Run"),
            Column("part", "Part"),
            Column("epoch", "Epoch", "count"),
            Column("value", name.capitalize(), form),  # type: ignore[arg-type]
        ]
        rows = [
            [run.label, part, line["epoch"], line.get(form_of_key.format(name))]
            for run in runs
            for part, form_of_key in CURVES.items()
            if form_of_key.format(name) in run.results.metrics[0]
            for line in run.results.metrics
        ]
        axis: dict[str, Any] = {}
        if name == "accuracy":
            axis = {"axis": SHARE_AXIS, "scale": SHARE_SCALE}
        of_runs, parts = distinct(rows, 0), distinct(rows, 1)
        # With several runs, the colour is the run and the dash is the part: two short legends.
        several = len(of_runs) > 1
        spec = lines(
            columns,
            x=value("epoch", "epoch", axis=whole_numbers(last)),
            y=value("value", name, **axis),
            series="run" if several else "part",
            names=of_runs if several else parts,
            # A longer symbol shows a whole period of the dashes.
            dash={**dashes("part", parts), "legend": {"symbolSize": 350}} if several else None,
        )
        if rows:
            title = f"{name.capitalize()} over the epochs"
            charts.append(Chart(f"curve-{name}", title, note, Table(columns, rows), spec))
    return charts


def rates_chart(run: Run) -> Chart | None:
    """Return the firing rate of every layer over the epochs; None without epochs."""
    metrics = run.results.metrics
    if not metrics:
        return None
    columns = [
        Column("layer", "Layer"),
        Column("epoch", "Epoch", "count"),
        Column("rate", "Spikes per neuron and step", "number"),
    ]
    every = ceil(len(metrics) / MOST_EPOCHS)
    kept = metrics[(len(metrics) - 1) % every :: every]
    rows = []
    for layer in kept[-1]["spike_rates"]:
        rates = [line["spike_rates"].get(layer) for line in kept]
        label = layer if any(rates) else f"{layer} (silent)"
        rows += [[label, line["epoch"], rate] for line, rate in zip(kept, rates, strict=True)]
    bare = {"ticks": False, "domain": False}
    spec = whole(
        {
            "mark": {"type": "rect", "color": "var(--heat)", "stroke": "var(--paper)"},
            "encoding": {
                "x": {
                    **value("epoch", "epoch"),
                    "type": "ordinal",
                    "axis": {**bare, "labelAngle": 0, "labelOverlap": True},
                },
                "y": nominal("layer", axis={**bare, "labelLimit": 230, "labelFontSize": 11}),
                "opacity": value(
                    "rate",
                    "spikes per neuron and step",
                    scale={"type": "sqrt", "range": [0, 1], "zero": True},
                    legend={"symbolFillColor": "var(--heat)", "symbolType": "square"},
                ),
                "tooltip": tooltip(columns),
            },
        },
        height=15 * len(distinct(rows, 0)),
    )
    thinned = "" if every == 1 else f" The chart shows every {every}th epoch."
    return Chart(
        f"rates-{run.number}",
        f"Firing rates of {run.label} during the training",
        "A row is a layer, a column is an epoch; cells of stronger colour fire more often."
        f"{thinned}",
        Table(columns, rows),
        spec,
        "wide",
        narrowest=460,
    )
