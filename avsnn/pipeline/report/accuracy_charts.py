"""Charts of the answers: accuracy, confusion, calibration and the measures of classes."""

from collections.abc import Sequence
from typing import Any

from avsnn.pipeline.report.labels import Run, common_chance
from avsnn.pipeline.report.specs import (
    DASHED_RULE,
    SHARE_AXIS,
    SHARE_SCALE,
    colour,
    distinct,
    dots,
    lines,
    nominal,
    shape,
    tooltip,
    value,
    whole,
)
from avsnn.pipeline.report.tables import Chart, Column, Table

# A confusion matrix of more classes has no numbers in its cells.
MOST_NUMBERED = 16

# A table of mistakes shows so many pairs of classes.
MOST_CONFUSIONS = 12


def accuracy_chart(runs: Sequence[Run]) -> Chart:
    """Return the accuracy of every run, beside chance and the largest class."""
    columns = [
        Column("run", "Run"),
        Column("what", "Figure"),
        Column("share", "Share of clips", "percent"),
        Column("low", "Lower end (95 %)", "percent"),
        Column("high", "Upper end (95 %)", "percent"),
    ]
    rows: list[list[Any]] = []
    for run in runs:
        found = run.results.evaluation
        alike = ("largest class", found.majority.share), ("chance", found.chance)
        ours, five = found.top1_interval, found.top5_interval
        rows.append([run.label, "top-1", ours.value, ours.low, ours.high])
        rows += [[run.label, what, share, share, share] for what, share in alike]
        if five is not None:
            rows.append([run.label, "top-5", five.value, five.low, five.high])
    spec = dots(
        columns,
        x=value("share", "share of clips", axis=SHARE_AXIS, scale=SHARE_SCALE),
        y="run",
        series="what",
        names=distinct(rows, 1),
        interval=True,
        rows=len(runs),
    )
    note = (
        "Dots are shares of clips with the right answer; whiskers are 95 % intervals. An answer "
        "that always names the largest class, or that is drawn evenly, would score what the "
        "other dots show."
    )
    return Chart("accuracy", "Accuracy against chance", note, Table(columns, rows), spec)


def calibration_chart(runs: Sequence[Run]) -> Chart:
    """Return the reliability diagram of all runs."""
    columns = [
        Column("run", "Run"),
        Column("low", "Confidence from", "percent"),
        Column("high", "Confidence to", "percent"),
        Column("clips", "Clips", "count"),
        Column("confidence", "Mean confidence", "percent"),
        Column("accuracy", "Accuracy", "percent"),
    ]
    rows = [
        [run.label, one.low, one.high, one.clips, one.confidence, one.accuracy]
        for run in runs
        for one in run.results.evaluation.calibration.bins
        if one.clips
    ]
    axis = {"axis": SHARE_AXIS, "scale": SHARE_SCALE}
    over = {
        "x": value("confidence", "mean confidence", **axis),
        "y": value("accuracy", "accuracy", **axis),
        "color": colour("run", _labels(runs)),
    }
    size = value("clips", scale={"range": [25, 260], "zero": True}, legend=None)
    spec = whole(
        {
            "layer": [
                {
                    "data": {"values": [{"at": 0}, {"at": 1}]},
                    "mark": {**DASHED_RULE, "type": "line"},
                    "encoding": {
                        "x": value("at", "mean confidence", **axis),
                        "y": value("at", "accuracy", **axis),
                    },
                },
                {"mark": {"type": "line", "opacity": 0.4}, "encoding": over},
                {
                    "mark": {"type": "point", "filled": True, "opacity": 0.9},
                    "encoding": {
                        **over,
                        "size": size,
                        "shape": shape("run", _labels(runs)),
                        "tooltip": tooltip(columns),
                    },
                },
            ]
        },
        height=300,
    )
    note = (
        "On the dashed line, the network is right as often as its confidence says; below the line, "
        "the network is too sure, and above the line not sure enough. A larger dot stands for more "
        "clips."
    )
    return Chart("calibration", "Reliability diagram", note, Table(columns, rows), spec)


def f1_chart(runs: Sequence[Run]) -> Chart:
    """Return precision, recall and F1 of every class; the chart shows F1."""
    columns = [
        Column("name", "Class"),
        Column("run", "Run"),
        Column("precision", "Precision", "percent"),
        Column("recall", "Recall", "percent"),
        Column("f1", "F1", "percent"),
        Column("clips", "Clips", "count"),
    ]
    best_first = {
        row.name: -row.f1 for run in reversed(runs) for row in run.results.evaluation.classes
    }
    rows: list[list[Any]] = [
        [row.name, run.label, row.precision, row.recall, row.f1, row.clips]
        for run in runs
        for row in run.results.evaluation.classes
    ]
    rows.sort(key=lambda row: best_first[row[0]])
    spec = dots(
        columns,
        x=value("f1", "F1", axis=SHARE_AXIS, scale=SHARE_SCALE),
        y="name",
        series="run",
        names=_labels(runs),
        interval=False,
        rows=len(best_first),
    )
    note = (
        "F1 is the harmonic mean of precision and recall. The table below has all three, and the "
        "number of clips."
    )
    return Chart("classes", "F1 of every class", note, Table(columns, rows), spec)


def confusion_chart(run: Run) -> Chart:
    """Return the confusion matrix of a run."""
    found = run.results.evaluation
    columns = [
        Column("truth", "True class"),
        Column("answer", "Answer"),
        Column("clips", "Clips", "count"),
        Column("share", "Share of the true class", "percent"),
    ]
    names = [row.name for row in found.classes]
    numbered = len(names) <= MOST_NUMBERED
    rows: list[list[Any]] = [
        [truth, answer, clips, clips / max(1, sum(line))]
        for truth, line in zip(names, found.confusion, strict=True)
        for answer, clips in zip(names, line, strict=True)
        # Every class needs its place on both axes, and the diagonal has a cell of every class.
        if clips or numbered or truth == answer
    ]
    if not numbered:
        # The axes take their order from the first rows, which are the diagonal.
        rows.sort(key=lambda row: row[0] != row[1])
    step = 34 if numbered else max(3, min(14, 900 // len(names)))
    labels = {"labelOverlap": not numbered, "ticks": False, "domain": False, "labelLimit": 120}
    slanted = {"labelAngle": 0 if max(map(len, names)) <= 3 and numbered else -45}
    place = {
        "x": nominal("answer", "answer", axis={**labels, **slanted}),
        "y": nominal("truth", "true class", axis=labels),
    }
    strength = value("share", scale={"domain": [0, 1], "range": [0, 1]}, legend=None)
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "rect", "color": "var(--heat)", "stroke": "var(--line)"},
            "encoding": {**place, "opacity": strength, "tooltip": tooltip(columns)},
        }
    ]
    if numbered:
        ink = {
            "condition": {"test": "datum.share > 0.55", "value": "var(--on-heat)"},
            "value": "var(--ink)",
        }
        layers.append(
            {
                "transform": [{"filter": "datum.clips > 0"}],
                "mark": {"type": "text"},
                "encoding": {**place, "text": value("clips"), "color": ink},
            }
        )
    note = "A row is a true class; a cell of stronger colour is a larger share of the row."
    return Chart(
        f"confusion-{run.number}",
        f"Confusion matrix of {run.label}",
        note,
        Table(columns, rows),
        whole({"layer": layers}, height=step * len(names)),
        "half" if numbered else "wide",
        narrowest=110 + len(names) * (26 if numbered else 8),
    )


def confusions_table(run: Run) -> Chart | None:
    """Return the pairs of classes that a run confuses most often; None without a mistake."""
    found = run.results.evaluation
    names = [row.name for row in found.classes]
    rows: list[list[Any]] = [
        [truth, answer, clips, clips / sum(line)]
        for truth, line in zip(names, found.confusion, strict=True)
        for answer, clips in zip(names, line, strict=True)
        if clips and truth != answer
    ]
    rows.sort(key=lambda row: -row[2])
    columns = [
        Column("truth", "True class"),
        Column("answer", "Answer"),
        Column("clips", "Clips", "count"),
        Column("share", "Share of the true class", "percent"),
    ]
    title = f"What {run.label} confuses most often"
    name = f"confusions-{run.number}"
    return Chart(name, title, "", Table(columns, rows[:MOST_CONFUSIONS]), None) if rows else None


def _labels(runs: Sequence[Run]) -> list[str]:
    return [run.label for run in runs]


def compared_lines(
    runs: Sequence[Run], name: str, title: str, note: str, columns: Sequence[Column], rows: Any
) -> Chart:
    """Return accuracies with intervals over a condition, one line for each run.

    The second column is the condition, and the columns ``top1``, ``low`` and ``high`` are the
    accuracy and its interval.
    """
    condition = columns[1]
    spec = lines(
        columns,
        x=nominal(condition.key, condition.title, axis={"labelAngle": 0}),
        y=value("top1", "top-1", axis=SHARE_AXIS, scale=SHARE_SCALE),
        series="run",
        names=distinct(rows, 0),
        band=True,
        level=common_chance(runs),
    )
    return Chart(name, title, note, Table(columns, rows), spec)
