"""The sections of the page, and the charts of each section."""

from collections.abc import Sequence
from typing import NamedTuple

from avsnn.pipeline.evaluation.comparison import Comparison
from avsnn.pipeline.report import accuracy_charts, insight_charts, robustness_charts
from avsnn.pipeline.report.diagram import Diagram, draw_network
from avsnn.pipeline.report.labels import Run
from avsnn.pipeline.report.tables import Chart, Column, Table
from avsnn.pipeline.report.training_charts import curve_charts, rates_chart


class Group(NamedTuple):
    """Figures and tables below one heading, which a reader can fold.

    Attributes:
        title: the heading.
        charts: the figures and tables.
        is_open: whether the reader sees the figures at once.
    """

    title: str
    charts: list[Chart]
    is_open: bool = False


class Section(NamedTuple):
    """A section of the page.

    Attributes:
        name: name of the section in the page.
        title: heading.
        notes: sentences below the heading.
        charts: figures and tables.
        groups: figures and tables that a reader can fold.
        diagrams: networks as diagrams.
    """

    name: str
    title: str
    notes: list[str]
    charts: list[Chart]
    groups: list[Group]
    diagrams: list[Diagram]

    @property
    def all_charts(self) -> list[Chart]:
        """Every figure and table of the section."""
        grouped = [chart for group in self.groups for chart in group.charts]
        return [*self.charts, *grouped, *(diagram.table for diagram in self.diagrams)]


def make_sections(runs: Sequence[Run], comparison: Comparison | None) -> list[Section]:
    """Return the sections that have something to show, in the order of the page."""
    sections = [
        _accuracy(runs),
        _comparison(runs, comparison),
        _mistakes(runs),
        _network(runs),
        _energy(runs),
        _robustness(runs),
        _inside(runs),
        _training(runs),
    ]
    return [section for section in sections if section is not None]


def _accuracy(runs: Sequence[Run]) -> Section:
    charts = [accuracy_charts.accuracy_chart(runs), accuracy_charts.calibration_chart(runs)]
    charts.append(accuracy_charts.f1_chart(runs))
    charts += [accuracy_charts.confusion_chart(run) for run in runs]
    return Section("accuracy", "Accuracy", [], charts, [], [])


def _comparison(runs: Sequence[Run], comparison: Comparison | None) -> Section | None:
    if comparison is None or not (comparison.pairs or comparison.seeds or comparison.notes):
        return None
    charts, labels = [], {run.name: run.label for run in runs}
    if comparison.pairs:
        columns = [
            Column("first", "Run"),
            Column("second", "Other run"),
            Column("clips", "Clips", "count"),
            Column("only_first", "Right in the first alone", "count"),
            Column("only_second", "Right in the other alone", "count"),
            Column("p", "p", "number"),
            Column("adjusted_p", "p (Holm)", "number"),
        ]
        rows = [
            [
                labels[pair.first],
                labels[pair.second],
                *(getattr(pair, column.key) for column in columns[2:]),
            ]
            for pair in comparison.pairs
        ]
        note = (
            "McNemar's exact test on the same clips: a small p says that a difference of this size "
            "is unlikely if both runs were right equally often. Holm's correction is for the "
            "number of pairs."
        )
        charts.append(Chart("pairs", "Pairs of runs", note, Table(columns, rows), None, "wide"))
    if comparison.seeds:
        columns = [
            Column("method", "Method"),
            Column("runs", "Runs"),
            Column("seeds", "Seeds"),
            Column("mean", "Mean top-1", "percent"),
            Column("deviation", "Standard deviation", "points"),
        ]
        rows = [
            [
                one.method,
                "; ".join(labels.get(name, name) for name in one.runs),
                ", ".join(map(str, one.seeds)),
                one.mean,
                one.deviation,
            ]
            for one in comparison.seeds
        ]
        title, note = "Spread over seeds", "Runs that differ in their seed only."
        charts.append(Chart("seeds", title, note, Table(columns, rows), None, "wide"))
    return Section("comparison", "Comparison of the runs", comparison.notes, charts, [], [])


def _mistakes(runs: Sequence[Run]) -> Section | None:
    tables = [accuracy_charts.confusions_table(run) for run in runs]
    charts = [table for table in tables if table is not None]
    if not charts and not any(run.results.examples for run in runs):
        return None
    return Section("mistakes", "Worst mistakes", [], charts, [], [])


def _network(runs: Sequence[Run]) -> Section | None:
    diagrams = []
    for run in runs:
        inside, metrics = run.results.insight, run.results.metrics
        if inside is not None:
            rates = {one.layer: one.rate for one in inside.rates}
            measured_on = f"on the {inside.part} part"
        elif metrics:
            rates, measured_on = metrics[-1]["spike_rates"], "in the last epoch of training"
        else:
            continue
        title = f"{run.label}: firing rates {measured_on}"
        method = run.results.evaluation.method
        diagrams.append(draw_network(f"network-{run.number}", title, method, rates))
    if not diagrams:
        return None
    return Section("network", "The network and its spikes", [], [], [], diagrams)


def _energy(runs: Sequence[Run]) -> Section | None:
    found = insight_charts.measured(runs)
    if not found:
        return None
    charts = [insight_charts.energy_chart(runs), insight_charts.neurobench_table(runs)]
    layers = [insight_charts.layer_energy_chart(run, inside) for run, inside in found]
    fans = [insight_charts.fans_table(run, inside) for run, inside in found]
    limit = found[0][1].fan_limit
    groups = [
        Group("Energy of every layer", layers),
        Group(f"Fan-in and fan-out, against {limit:,}", fans),
    ]
    return Section("energy", "Operations and energy", [], charts, groups, [])


def _robustness(runs: Sequence[Run]) -> Section | None:
    charts = robustness_charts.noise_charts(runs)
    for chart in (robustness_charts.missing_chart(runs), robustness_charts.swapped_chart(runs)):
        if chart is not None:
            charts.append(chart)
    notes = robustness_charts.other_noise(runs)
    return Section("robustness", "Robustness", notes, charts, [], []) if charts else None


def _inside(runs: Sequence[Run]) -> Section | None:
    found = insight_charts.measured(runs)
    if not found:
        return None
    charts = [insight_charts.steps_chart(runs)]
    contribution = insight_charts.contribution_chart(runs)
    if contribution is not None:
        charts.append(contribution)
    charts += [insight_charts.embedding_chart(run, inside) for run, inside in found]
    groups = [
        Group(
            f"Spikes of {run.label} for the clip {inside.rasters[0].key}",
            insight_charts.raster_charts(run, inside),
            is_open=True,
        )
        for run, inside in found
        if inside.rasters
    ]
    return Section("inside", "Inside the network", [], charts, groups, [])


def _training(runs: Sequence[Run]) -> Section | None:
    charts = curve_charts(runs)
    rates = [rates_chart(run) for run in runs]
    shown = [chart for chart in rates if chart is not None]
    groups = [Group("Firing rates over the epochs", shown, is_open=len(runs) == 1)]
    return Section("training", "Training", [], charts, groups, []) if charts else None
