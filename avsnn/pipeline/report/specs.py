"""The kinds of charts, as Vega-Lite specifications without data.

Names of runs, classes and clips are in the data, and as literal values in the domains of scales.
No name is a part of an expression, which Vega would run. Colours are variables of the
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

# More names than these have no legend; the pointer shows the name.
MOST_IN_LEGEND = 20

PERCENT_FORMAT = {"percent": ".1%", "number": ".4~g", "count": ",d"}

CONFIG: Spec = {
    "background": None,
    "font": FONT,
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
        "labelLimit": 150,
        "labelSeparation": 6,
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
        "symbolOpacity": 1,
        # The script of the page sets both, from the names and the width of the figure.
        "labelLimit": {"expr": "legendLimit"},
        "columns": {"expr": "legendColumns"},
        "rowPadding": 3,
        # Two legends stand below each other, because a phone is too narrow for two in a row.
        "layout": {"top": {"direction": "vertical", "anchor": "start"}},
    },
    "text": {"fill": "var(--ink)", "fontSize": 12},
    "rule": {"color": "var(--soft)"},
}

# Where the labels of all ticks are too close, Vega leaves out every second label. Of five labels,
# the labels at both ends and the label in the middle stay.
SHARE_AXIS: Spec = {"format": ".0%", "values": [0, 0.25, 0.5, 0.75, 1]}
SHARE_SCALE: Spec = {"domain": [0, 1]}
DASHED_RULE: Spec = {"type": "rule", "strokeDash": [4, 4], "color": "var(--soft)"}


# An axis of whole numbers has a tick for each number up to this one.
MOST_TICKS = 8


def whole(content: Spec, *, height: int) -> Spec:
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


def whole_numbers(last: int) -> Spec:
    """Return an axis with the whole numbers from 1 to ``last``, or with some of them."""
    # Vega's `tickMinStep` allows halves between two or three numbers.
    ticks = {"values": [*range(1, last + 1)]} if last <= MOST_TICKS else {"tickMinStep": 1}
    return {**ticks, "format": "d", "grid": False}


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


def colour(key: str, names: Sequence[str]) -> Spec:
    """Return an encoding of a colour for each name, without a legend if there is one name only."""
    return _series(key, names, COLOURS)


def shape(key: str, names: Sequence[str]) -> Spec:
    """Return an encoding of a shape for each name, so that colour alone carries no meaning.

    There are fewer colours than classes of a large data set: each name has its own pair of colour
    and shape, as long as there are enough pairs.
    """
    if len(names) <= len(SHAPES):
        return _series(key, names, SHAPES)
    turns = [SHAPES[place // len(COLOURS) % len(SHAPES)] for place in range(len(names))]
    return _series(key, names, turns)


def dashes(key: str, names: Sequence[str]) -> Spec:
    """Return an encoding of the dashes of a line for each name."""
    return _series(key, names, DASHES)


def distinct(rows: Sequence[Sequence[Any]], place: int) -> list[str]:
    """Return the names in a column, each once, in the order of the rows."""
    return list(dict.fromkeys(row[place] for row in rows))


def _series(key: str, names: Sequence[str], looks: Sequence[Any]) -> Spec:
    # Vega-Lite joins the legends of colour and shape only if both have the same literal domain.
    entry = nominal(key, scale={"domain": names, "range": looks})
    return entry if 1 < len(names) <= MOST_IN_LEGEND else {**entry, "legend": None}


def lines(
    columns: Sequence[Column],
    *,
    x: Spec,
    y: Spec,
    series: str,
    names: Sequence[str],
    dash: Spec | None = None,
    band: bool = False,
    level: float | None = None,
) -> Spec:
    """Return lines over x, one line for each name in the column ``series``.

    Args:
        columns: the columns of the data.
        x: the encoding of x.
        y: the encoding of y.
        series: the column that tells the lines apart.
        names: the names of the lines.
        dash: the encoding of the dashes, if a second column tells the lines apart; None makes the
            dashes follow ``series``.
        band: whether the columns ``low`` and ``high`` give an interval at every point.
        level: a level of y that a dashed rule marks.
    """
    layers: list[Spec] = []
    hue, form = colour(series, names), shape(series, names)
    if level is not None:
        layers.append({"mark": DASHED_RULE, "encoding": {"y": {"datum": level}}})
    if band:
        ends = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}
        layers.append(
            {"mark": {"type": "area", "opacity": 0.16}, "encoding": {**ends, "color": hue}}
        )
    over = {"x": x, "y": y, "color": hue}
    dashed = {**over, "strokeDash": dash or dashes(series, names)}
    layers.append({"mark": {"type": "line"}, "encoding": dashed})
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
    names: Sequence[str],
    interval: bool,
    level: str | None = None,
    rows: int,
) -> Spec:
    """Return dots over rows of names, with whiskers where there is an interval.

    Args:
        columns: the columns of the data.
        x: the encoding of the dots.
        y: the column that names the rows.
        series: the column that tells dots of one row apart.
        names: the names of the kinds of dots.
        interval: whether the columns ``low`` and ``high`` give an interval.
        level: the column with a level of x that a tick marks in each row.
        rows: number of rows.
    """
    place = {
        "y": nominal(y, axis={"grid": True, "ticks": False, "domain": False}),
        "yOffset": nominal(series),
    }
    hue, form = colour(series, names), shape(series, names)
    layers: list[Spec] = []
    step = max(22, 15 * len(names))
    if level is not None:
        tick = {"type": "tick", "size": step, "thickness": 1.5, "color": "var(--soft)"}
        layers.append({"mark": tick, "encoding": {"y": place["y"], "x": {**x, "field": level}}})
    if interval:
        ends = {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": hue}
        layers.append({"mark": {"type": "rule", "strokeWidth": 2}, "encoding": {**place, **ends}})
    layers.append(
        {
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {**place, "x": x, "color": hue, "shape": form, "tooltip": tooltip(columns)},
        }
    )
    return whole({"layer": layers}, height=rows * step)
