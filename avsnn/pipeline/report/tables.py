"""Tables and charts of the page: the same rows make a chart, its table and its download."""

from collections.abc import Sequence
from math import isfinite
from typing import Any, Literal, NamedTuple

Form = Literal["text", "percent", "points", "number", "count"]

# A page shows so many rows of a table; the download has all rows.
MOST_ROWS = 100

# Stands for a value that is not known.
UNKNOWN = "\N{EN DASH}"


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        key: name of the column in the rows of a chart, and in the CSV file.
        title: heading of the column.
        form: how a value is written.
    """

    key: str
    title: str
    form: Form = "text"


class Table(NamedTuple):
    """Rows of values, one value for each column; None stands for a value that is not known."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]

    @property
    def shown(self) -> Sequence[Sequence[Any]]:
        """The rows that the page shows."""
        return self.rows[:MOST_ROWS]


class Chart(NamedTuple):
    """A figure of the page.

    Attributes:
        name: name of the figure in the page, and of its files.
        title: what the figure shows.
        note: how a reader reads the figure.
        table: the data.
        spec: the chart in Vega-Lite, without data; None for a table without a chart.
        shape: how much room the figure takes.
        narrowest: width in px below which the chart scrolls sideways.
    """

    name: str
    title: str
    note: str
    table: Table
    spec: dict[str, Any] | None
    shape: Literal["half", "wide", "third"] = "half"
    narrowest: int = 0


def written(value: Any, form: Form) -> str:
    """Return a value as the page writes the value."""
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return UNKNOWN
    if form == "percent":
        return percent(value)
    if form == "points":
        return f"{100 * value:.1f} points"
    if form == "count":
        return f"{value:,.0f}"
    if form == "number":
        return number(value)
    return str(value)


def percent(share: float, digits: int = 1) -> str:
    """Return a share from 0 to 1 as a percentage."""
    return f"{100 * share:.{digits}f} %"


def number(value: float) -> str:
    """Return a number with four significant digits."""
    if 1000 <= abs(value) < 1e12:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def with_prefix(value: float, unit: str) -> str:
    """Return a value of a unit with the SI prefix that leaves one to three digits before the dot.

    Args:
        value: the value in units of 1e-12, such as pJ.
        unit: the unit without a prefix.
    """
    for prefix, size in (("m", 1e9), ("µ", 1e6), ("n", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} p{unit}"


def plain(value: Any) -> Any:
    """Return a value that JSON can hold: JSON has no NaN and no infinity."""
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
