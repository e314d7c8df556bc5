"""The kinds of charts, as Vega-Lite specifications without data.

A specification holds no word of a user: names of runs, classes and clips are in the data alone. So
no name can become a part of an expression, which Vega would run. Colours are variables of the
page's style sheet, so a chart follows the page from light to dark.
"""

from collections.abc import Sequence
from typing import Any

from avsnn.pipeline.report.tables import Column

Spec = dict[str, Any]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

COLOURS = [f"var(--series-{number})" for number in range(1, 9)]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]
DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [10, 4], [1, 3], [6, 2, 1, 2, 1, 2]]

PERCENT_FORMAT = {"percent": ".1%", "number": ".4~g", "count": ",d"}

CONFIG: Spec = {
    "background": None,
    "font": FONT,
    # The figure around a chart carries the description of the chart.
    "aria": False,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)",
        "titleColor": "var(--ink)",
        "gridColor": "var(--line)",
        "domainColor": "var(--axis)",
        "tickColor": "var(--axis)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": 500,
        "titlePadding": 8,
        "labelLimit": 130,
    },
    "legend": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--ink)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": 500,
        "orient": "top",
        "title": None,
        "symbolStrokeWidth": 2,
        "symbolSize": 70,
        "labelLimit": 200,
        "columns": {"expr": "width < 420 ? 1 : width < 640 ? 2 : 3"},
        "rowPadding": 3,
    },
    "text": {"fill": "var(--ink)", "fontSize": 12},
    "rule": {"color": "var(--soft)"},
}

SHARE_AXIS: Spec = {"format": ".0%", "tickCount": 5}
DASHED_RULE: Spec = {"type": "rule", "strokeDash": [4, 4], "color": "var(--soft)"}


def whole(content: Spec, *, height: Any) -> Spec:
    """Return a whole specification, whose width is the width of the figure in the page."""
    return {
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"name": "rows"},
        "config": CONFIG,
        **content,
    }


def nominal(key: str, title: str | None = None, **options: Any) -> Spec:
    """Return an encoding of names, in the order of the data."""
    return {"field": key, "type": "nominal", "sort": None, "title": title, **options}


def value(key: str, title: str | None = None, **options: Any) -> Spec:
    """Return an encoding of numbers."""
    return {"field": key, "type": "quantitative", "title": title, **options}


def tooltip(columns: Sequence[Column]) -> list[Spec]:
    """Return an encoding that shows a whole row beside the pointer."""
    shown = []
    for column in columns:
        entry = nominal(column.key, column.title)
        if column.form != "text":
            entry = value(column.key, column.title, format=PERCENT_FORMAT[column.form])
        del entry["title"]
        shown.append({**entry, "title": column.title})
    return shown


def colour(key: str, *, legend: bool = True) -> Spec:
    """Return a colour for each name, and no legend if there is one name only."""
    entry = nominal(key, scale={"range": COLOURS})
    return entry if legend else {**entry, "legend": None}


def shape(key: str, *, legend: bool = True) -> Spec:
    """Return a shape for each name, so that colour alone carries no meaning."""
    entry = nominal(key, scale={"range": SHAPES})
    return entry if legend else {**entry, "legend": None}


def lines(
    columns: Sequence[Column],
    *,
    x: Spec,
    y: Spec,
    series: str,
    legend: bool,
    band: bool = False,
    level: float | None = None,
) -> Spec:
    """Return lines over x, one line for each name in the column ``series``.

    Args:
        columns: the columns of the data.
        x: the encoding of x.
        y: the encoding of y.
        series: the column that tells the lines apart.
        legend: whether several lines need a legend.
        band: whether the columns ``low`` and ``high`` give an interval at every point.
        level: a level of y that a dashed rule marks.
    """
    layers: list[Spec] = []
    hue, form = colour(series, legend=legend), shape(series, legend=legend)
    if level is not None:
        layers.append({"mark": DASHED_RULE, "encoding": {"y": {"datum": level}}})
    if band:
        ends = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}
        layers.append(
            {"mark": {"type": "area", "opacity": 0.16}, "encoding": {**ends, "color": hue}}
        )
    dash = nominal(series, scale={"range": DASHES}, legend=None)
    over = {"x": x, "y": y, "color": hue}
    layers.append({"mark": {"type": "line"}, "encoding": {**over, "strokeDash": dash}})
    layers.append(
        {
            "mark": {"type": "point", "filled": True, "size": 45, "opacity": 1},
            "encoding": {**over, "shape": form, "tooltip": tooltip(columns)},
        }
    )
    return whole({"layer": layers}, height=260)


def dots(
    columns: Sequence[Column],
    *,
    x: Spec,
    y: str,
    series: str,
    legend: bool,
    interval: bool,
    level: float | None = None,
    rows: int = 1,
) -> Spec:
    """Return dots over rows of names, with whiskers where there is an interval.

    Args:
        columns: the columns of the data.
        x: the encoding of the dots.
        y: the column that names the rows.
        series: the column that tells dots of one row apart.
        legend: whether several kinds of dots need a legend.
        interval: whether the columns ``low`` and ``high`` give an interval.
        level: a level of x that a dashed rule marks.
        rows: number of kinds of dots in a row.
    """
    place = {
        "y": nominal(y, axis={"grid": True, "ticks": False, "domain": False}),
        "yOffset": nominal(series),
    }
    hue, form = colour(series, legend=legend), shape(series, legend=legend)
    layers: list[Spec] = []
    if level is not None:
        layers.append({"mark": DASHED_RULE, "encoding": {"x": {"datum": level}}})
    if interval:
        ends = {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": hue}
        layers.append({"mark": {"type": "rule", "strokeWidth": 2}, "encoding": {**place, **ends}})
    layers.append(
        {
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {**place, "x": x, "color": hue, "shape": form, "tooltip": tooltip(columns)},
        }
    )
    return whole({"layer": layers}, height={"step": max(22, 15 * rows)})
